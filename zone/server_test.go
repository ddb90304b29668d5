package zone

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve starts a server on addresses with port 0 and closes it with the test.
func serve(t testing.TB, l limits, addresses ...string) *Server {
	t.Helper()
	if l.last == drainLast {
		l.last = 0 // tests close many
	}
	c := ServerConfig{Workers: 2, Tree: packetTree(t), NSID: "node-1", Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, a := range addresses {
		c.Listen = append(c.Listen, netip.AddrPortFrom(netip.MustParseAddr(a), 0))
	}
	s, err := listen(c, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

// patience bounds the waits of tests that expect something to come.
const patience = 10 * time.Second

func dial(t testing.TB, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// exchangeUDP sends a datagram and reads one.
func exchangeUDP(t testing.TB, conn net.Conn, message []byte) []byte {
	t.Helper()
	if _, err := conn.Write(message); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, MaxTCP)
	n, err := conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return buffer[:n]
}

func TestServerAnswersOverBothFamilies(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1", "::1")
	for _, address := range s.Addresses() {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(network+" "+address.Addr().String(), func(t *testing.T) {
				client := dns.Client{Net: network, Timeout: patience}
				m := new(dns.Msg)
				m.SetQuestion("ShOrT.p-dns.test.", dns.TypeTXT)
				reply, _, err := client.Exchange(m, address.String())
				if err != nil {
					t.Fatal(err)
				}
				if summary(reply) != "NOERROR qd1" || len(reply.Answer) != 1 || reply.Question[0].Name != "ShOrT.p-dns.test." {
					t.Errorf("got %s", reply)
				}
			})
		}
	}
}

func TestTruncatedAnswerIsWholeOverTCP(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	address := s.Addresses()[0].String()
	m := new(dns.Msg)
	m.SetQuestion("huge.p-dns.test.", dns.TypeTXT)
	m.SetEdns0(4096, false)
	reply, _, err := (&dns.Client{Net: "udp", UDPSize: 4096, Timeout: patience}).Exchange(m, address)
	if err != nil || !reply.Truncated || len(reply.Answer) != 0 {
		t.Fatalf("UDP: %v, error %v; want TC", reply, err)
	}
	reply, _, err = (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(m, address)
	if err != nil || reply.Truncated || len(reply.Answer) != 1 {
		t.Fatalf("TCP: error %v", err)
	}
	if text := strings.Join(reply.Answer[0].(*dns.TXT).Txt, ""); len(text) != 30_000 {
		t.Errorf("%d octets of text, want 30000", len(text))
	}
}

func TestWildcardRepliesFromTheAddressAsked(t *testing.T) {
	s := serve(t, defaultLimits(), "0.0.0.0", "::")
	for _, c := range []struct {
		asked string
		port  uint16
	}{
		{"127.0.0.2", s.Addresses()[0].Port()}, {"127.0.0.3", s.Addresses()[0].Port()}, {"::1", s.Addresses()[1].Port()},
	} {
		t.Run(c.asked, func(t *testing.T) {
			to := netip.AddrPortFrom(netip.MustParseAddr(c.asked), c.port)
			from := netip.IPv6Loopback()
			if to.Addr().Is4() {
				from = netip.MustParseAddr("127.0.0.1")
			}
			// Not connected: a reply from another address would arrive here too.
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			if _, err := conn.WriteToUDPAddrPort(ask(t, "short.p-dns.test.", dns.TypeTXT), to); err != nil {
				t.Fatal(err)
			}
			buffer := make([]byte, MaxUDP)
			n, source, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				t.Fatal(err)
			}
			if got := netip.AddrPortFrom(source.Addr().Unmap(), source.Port()); got != to {
				t.Errorf("reply from %s, asked %s", got, to)
			}
			if m := unpack(t, buffer[:n]); len(m.Answer) != 1 {
				t.Errorf("got %s", m)
			}
		})
	}
}

func TestBatchOfDatagramsIsAnsweredEachOnItsOwn(t *testing.T) {
	const clients, each = 10, 20 // more than one batch waits at once
	s := serve(t, defaultLimits(), "127.0.0.1")
	names := []string{"short.p-dns.test.", "key.p-dns.test.", "none.p-dns.test.", "elsewhere.test."}
	var conns []net.Conn
	for range clients {
		conns = append(conns, dial(t, "udp", s.Addresses()[0]))
	}
	for i := range each {
		for j, conn := range conns {
			message := ask(t, names[(i+j)%len(names)], dns.TypeTXT)
			message[0], message[1] = byte(j), byte(i)
			conn.Write(message)
		}
	}
	buffer := make([]byte, MaxUDP)
	for j, conn := range conns {
		seen := map[byte]bool{}
		for range each {
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("client %d after %d replies: %v", j, len(seen), err)
			}
			m := unpack(t, buffer[:n])
			if want := names[(int(buffer[1])+j)%len(names)]; m.Question[0].Name != want || buffer[0] != byte(j) {
				t.Fatalf("client %d query %d: got the reply for %s, want %s", j, buffer[1], m.Question[0].Name, want)
			}
			seen[buffer[1]] = true
		}
		if len(seen) != each {
			t.Errorf("client %d: %d different replies, want %d", j, len(seen), each)
		}
	}
}

func TestMalformedDatagramsLeaveTheServerAnswering(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn := dial(t, "udp", s.Addresses()[0])
	buffer := make([]byte, MaxTCP)
	for _, shape := range shapes(t) {
		conn.Write(shape.message)
		if shape.want == "silence" {
			continue
		}
		n, err := conn.Read(buffer)
		if err != nil {
			t.Fatalf("%s: %v", shape.name, err)
		}
		if got := summary(unpack(t, buffer[:n])); got != shape.want {
			t.Errorf("%s: got %q, want %q", shape.name, got, shape.want)
		}
	}
	// Longer than what is looked at.
	long := raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 0, 8000, repeat("\xfd\xe9\x00\x00", 2000)))
	if got := summary(unpack(t, exchangeUDP(t, conn, long))); got != "FORMERR qd1 opt" {
		t.Errorf("datagram of %d octets: %q", len(long), got)
	}
	if m := unpack(t, exchangeUDP(t, conn, ask(t, "short.p-dns.test.", dns.TypeTXT))); len(m.Answer) != 1 {
		t.Errorf("got %s", m)
	}
}

func TestPortsOfReflectorsGetNoReply(t *testing.T) {
	for _, port := range []uint16{0, 7, 19} {
		if !reflector(port) {
			t.Errorf("port %d is answered", port)
		}
	}
	for _, port := range []uint16{1, 53, 1024, 65535} {
		if reflector(port) {
			t.Errorf("port %d is not answered", port)
		}
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 19})
	if err != nil {
		t.Logf("without the right to port 19 only the rule was tested: %v", err)
		return
	}
	defer conn.Close()
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn.WriteToUDPAddrPort(ask(t, "short.p-dns.test.", dns.TypeTXT), s.Addresses()[0])
	waitFor(t, func() bool { return s.Stats().Dropped == 1 })
}

// waitFor polls what another goroutine brings about.
func waitFor(t testing.TB, met func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !met() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatal("waited in vain")
		}
	}
}

func TestStatsCountWhatWasAnswered(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1", "::1")
	ipv4, ipv6 := dial(t, "udp", s.Addresses()[0]), dial(t, "udp", s.Addresses()[1])
	for range 3 {
		exchangeUDP(t, ipv4, ask(t, "short.p-dns.test.", dns.TypeTXT))
	}
	exchangeUDP(t, ipv4, ask(t, "big.p-dns.test.", dns.TypeTXT))
	exchangeUDP(t, ipv6, ask(t, "none.p-dns.test.", dns.TypeAAAA))
	exchangeUDP(t, ipv6, raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 1, 0, "")))
	exchangeUDP(t, ipv6, ask(t, "elsewhere.test.", 65280))
	ipv6.Write([]byte("short"))
	if _, _, err := (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(new(dns.Msg).SetQuestion("short.p-dns.test.", dns.TypeMX), s.Addresses()[0].String()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		got := s.Stats()
		return got.Dropped == 1 && got.Truncated == 1 && got.Queries["tcp/ipv4/MX"] == 1 // the last of each socket
	})
	got := s.Stats()
	for _, c := range []struct {
		counted map[string]uint64
		key     string
		want    uint64
	}{
		{got.Queries, "udp/ipv4/TXT", 4}, {got.Queries, "udp/ipv6/AAAA", 1}, {got.Queries, "udp/ipv6/TXT", 1},
		{got.Queries, "udp/ipv6/other", 1}, {got.Queries, "udp/ipv6/MX", 0},
		{got.Responses, "udp/NOERROR", 4}, {got.Responses, "udp/NXDOMAIN", 1}, {got.Responses, "udp/BADVERS", 1}, {got.Responses, "udp/REFUSED", 1},
		{got.Responses, "tcp/NOERROR", 1}, {got.Outcomes, "udp/Found", 4}, {got.Outcomes, "udp/NoName", 1}, {got.Outcomes, "tcp/NoData", 1}, {got.Outcomes, "udp/Refused", 1},
	} {
		if value, ok := c.counted[c.key]; !ok || value != c.want {
			t.Errorf("%s is %d, want %d", c.key, value, c.want)
		}
	}
}

func TestBucketsOfDurations(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-1: 0, 0: 0, 1: 0, 2000: 0, 2001: 1, 4000: 1, 4001: 2, 8000: 2, time.Millisecond: 9, time.Second: 19, 2 * time.Second: 20, time.Hour: 20,
	} {
		if got := bucket(d); got != want {
			t.Errorf("%s falls in bucket %d, want %d", d, got, want)
		}
	}
}

func TestEveryMessageHasADuration(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	udp, tcp := dial(t, "udp", s.Addresses()[0]), dial(t, "tcp", s.Addresses()[0])
	const messages = 10
	for i := range messages {
		exchangeUDP(t, udp, numbered(t, "short.p-dns.test.", i))
		tcp.Write(framed(numbered(t, "short.p-dns.test.", i), numbered(t, "big.p-dns.test.", i)))
		mustRead(t, tcp)
		mustRead(t, tcp)
	}
	count := func(proto string) (n uint64) {
		for _, c := range s.Stats().Durations[proto].Counts {
			n += c
		}
		return n
	}
	waitFor(t, func() bool { return count("udp") == messages && count("tcp") == 2*messages })
	for proto, d := range s.Stats().Durations {
		if len(d.Counts) != len(d.Bounds)+1 || d.Sum <= 0 || d.Bounds[0] != 2*time.Microsecond {
			t.Errorf("%s: %+v", proto, d)
		}
	}
}

func TestServerLimitsAndRecognisesItsClients(t *testing.T) {
	s, err := Listen(ServerConfig{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0"), netip.MustParseAddrPort("[::1]:0")}, Tree: packetTree(t),
		RateLimit: RateLimit{Answers: 1, NoNames: 1, Errors: 1, Exempt: []netip.Prefix{}}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(t.Context())
	s.SetCookieSecrets(testSecrets)
	for i, address := range s.Addresses() {
		conn := dial(t, "udp", address)
		good := cookieOf(unpack(t, exchangeUDP(t, conn, ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232, cookieOption(clientCookie))))))
		for range 20 {
			exchangeUDP(t, conn, ask(t, "key.p-dns.test.", dns.TypeTXT))
		}
		if m := unpack(t, exchangeUDP(t, conn, ask(t, "key.p-dns.test.", dns.TypeTXT))); !m.Truncated {
			t.Errorf("%s: not limited", address)
		}
		if m := unpack(t, exchangeUDP(t, conn, ask(t, "key.p-dns.test.", dns.TypeTXT, edns(1232, cookieOption(good))))); len(m.Answer) != 1 || cookieOf(m) != good {
			t.Errorf("%s: with our cookie %s", address, m)
		}
		waitFor(t, func() bool { return s.Stats().Cookies["good"] == uint64(i+1) })
	}
	got := s.Stats()
	if got.Limited["answer"] < 20 || got.Truncated != got.Limited["answer"] || got.Cookies["client"] != 2 || got.Cookies["bad"] != 0 {
		t.Errorf("limited %v truncated %d cookies %v", got.Limited, got.Truncated, got.Cookies)
	}
}

func TestClosedServerIsSilentAndFreesItsPort(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	address := s.Addresses()[0]
	for range 2 { // the second time changes nothing
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Without SO_REUSEPORT this fails while anything is still open.
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if conn, err := net.Dial("tcp", address.String()); err == nil {
		conn.Close()
		t.Error("a connection was accepted")
	}
}

// Who asks a server that closes gets an answer, or hears from the kernel that nobody
// listens; silence would be a query that came and was lost.
func TestClosingServerLeavesNoQueryWithoutAWord(t *testing.T) {
	const rounds, clients = 5, 6
	query := ask(t, "short.p-dns.test.", dns.TypeTXT)
	l := defaultLimits()
	l.last *= 2
	for _, at := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		var answered atomic.Int64
		for range rounds {
			s := serve(t, l, at)
			address := s.Addresses()[0]
			if address.Addr().IsUnspecified() {
				address = netip.AddrPortFrom(netip.MustParseAddr(map[bool]string{true: "127.0.0.1", false: "::1"}[address.Addr().Is4()]), address.Port())
			}
			var wg sync.WaitGroup
			var asked atomic.Int64
			for range clients {
				conn := dial(t, "udp", address)
				wg.Go(func() {
					reply := make([]byte, MaxUDP)
					for {
						_, err := conn.Write(query)
						if err == nil {
							_, err = conn.Read(reply)
						}
						switch {
						case errors.Is(err, syscall.ECONNREFUSED):
							return
						case err != nil:
							t.Errorf("after %d queries to %s: %v", asked.Load(), address, err)
							return
						}
						asked.Add(1)
					}
				})
			}
			waitFor(t, func() bool { return asked.Load() > 2*clients || t.Failed() })
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
			wg.Wait()
			answered.Add(asked.Load())
		}
		t.Logf("%s: %d answers", at, answered.Load())
	}
}

func TestErrorsOfListenNameTheirCause(t *testing.T) {
	good := ServerConfig{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Tree: NewTree(), Logger: slog.New(slog.DiscardHandler)}
	for _, c := range []struct {
		want   string
		change func(*ServerConfig)
	}{
		{"Listen", func(c *ServerConfig) { c.Listen = nil }},
		{"Workers", func(c *ServerConfig) { c.Workers = -1 }},
		{"Tree", func(c *ServerConfig) { c.Tree = nil }},
		{"NSID", func(c *ServerConfig) { c.NSID = strings.Repeat("n", MaxNSID+1) }},
		{"Logger", func(c *ServerConfig) { c.Logger = nil }},
		{"RateLimit: answers", func(c *ServerConfig) { c.RateLimit.Answers = -1 }},
		{"RateLimit: exempt", func(c *ServerConfig) { c.RateLimit.Exempt = []netip.Prefix{{}} }},
		{"192.0.2.1:5353", func(c *ServerConfig) { c.Listen = append(c.Listen, netip.MustParseAddrPort("192.0.2.1:5353")) }},
		{"invalid", func(c *ServerConfig) { c.Listen = []netip.AddrPort{{}} }},
	} {
		config := good
		c.change(&config)
		if s, err := Listen(config); err == nil {
			s.Close(t.Context())
			t.Errorf("%s: accepted", c.want)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %q does not say %q", err, c.want)
		}
	}
}

func TestCloseCutsOffWhoDoesNotEnd(t *testing.T) {
	l := defaultLimits()
	l.message = time.Minute
	s := serve(t, l, "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0])
	conn.Write([]byte{0, 100, 1}) // a message that never ends
	waitFor(t, func() bool { return s.busy() == 1 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
}

// busy counts the connections in the middle of a message.
func (s *Server) busy() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.conns {
		if !idle(c.state.Load()) {
			n++
		}
	}
	return n
}
