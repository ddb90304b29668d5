//go:build linux && !portable

package zone

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// floodOf is queries of one /24 through sockets, paced in bursts of a millisecond.
type floodOf struct {
	sockets, perSecond int
	lasts              time.Duration
	tries              int // of a client in that prefix
}

const (
	quickFlood    = 20_000 // queries a second that a busy machine of two cores still sends
	floodDistinct = 20_000
)

// sent is what a flood came to.
type sent struct {
	queries, replies, full atomic.Int64
	in, out, cut           atomic.Int64 // octets; cut: of the replies without an answer
}

// flooded serves a tree with the limits of production.
func flooded(t testing.TB, tree *Tree) *Server {
	t.Helper()
	s, err := listen(ServerConfig{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1, Tree: tree,
		RateLimit: RateLimit{Exempt: []netip.Prefix{netip.MustParsePrefix("127.200.0.0/16")}},
		Logger:    slog.New(slog.DiscardHandler),
	}, defaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(t.Context()) })
	return s
}

// run sends messages in turn, from addresses of 127.0.77.0/24: each once, or again
// and again until the time is up.
func (f floodOf) run(t testing.TB, s *Server, messages [][]byte, once bool, total *sent) {
	t.Helper()
	var workers sync.WaitGroup
	end := time.Now().Add(f.lasts)
	for i := range f.sockets {
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 77, byte(1+i))}, net.UDPAddrFromAddrPort(s.Addresses()[0]))
		if err != nil {
			t.Fatal(err)
		}
		conn.SetReadBuffer(4 << 20)
		workers.Go(func() { total.read(conn) })
		workers.Go(func() {
			began, done := time.Now(), 0
			for at := i; time.Now().Before(end) && (!once || at < len(messages)); {
				due := int(time.Since(began).Seconds() * float64(f.perSecond) / float64(f.sockets))
				for ; done < due && (!once || at < len(messages)); done++ {
					m := messages[at%len(messages)]
					if _, err := conn.Write(m); err == nil {
						total.queries.Add(1)
						total.in.Add(int64(len(m)))
					}
					at += f.sockets
				}
				time.Sleep(time.Millisecond)
			}
			waitForReplies(conn, total)
		})
	}
	workers.Wait()
}

// waitForReplies gives those that are under way the time to come.
func waitForReplies(conn *net.UDPConn, total *sent) {
	for last := int64(-1); last != total.replies.Load(); time.Sleep(200 * time.Millisecond) {
		last = total.replies.Load()
	}
	conn.Close()
}

// read counts the replies that come to a socket until it is closed.
func (total *sent) read(conn *net.UDPConn) {
	buffer := make([]byte, MaxTCP)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		total.replies.Add(1)
		total.out.Add(int64(n))
		if n >= headerSize && buffer[2]&2 == 0 && binary.BigEndian.Uint16(buffer[6:]) > 0 {
			total.full.Add(1)
		} else {
			total.cut.Add(int64(n))
		}
	}
}

// resolve asks as a resolver in the flooded prefix does: again where a datagram is
// lost, over TCP where the answer is cut.
func resolve(address, qname string) bool {
	from := net.IPv4(127, 0, 77, 200)
	m := new(dns.Msg).SetQuestion(qname, dns.TypeTXT)
	m.SetEdns0(1232, false)
	for range 3 {
		udp := dns.Client{Timeout: 2 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.UDPAddr{IP: from}}}
		reply, _, err := udp.Exchange(m, address)
		if err != nil {
			continue
		}
		if reply.Truncated {
			tcp := dns.Client{Net: "tcp", Timeout: 5 * time.Second, Dialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}}
			if reply, _, err = tcp.Exchange(m, address); err != nil {
				continue
			}
		}
		return len(reply.Answer) == 1
	}
	return false
}

// Through sockets, what TestFloodInTheNameOfAPrefixIsNotAmplified says of the
// responder; flood_lab_test.go has it at the rate of the acceptance.
func TestClientResolvesThroughAFloodInItsName(t *testing.T) {
	testFlood(t, floodOf{sockets: 8, perSecond: quickFlood, lasts: 3 * time.Second, tries: 100})
}

// testFlood gives what was sent.
func testFlood(t *testing.T, f floodOf) *sent {
	s := flooded(t, packetTree(t))
	const qname = "key.p-dns.test."
	message := ask(t, qname, dns.TypeTXT, edns(1232))
	total := new(sent)
	resolved, stop := 0, make(chan struct{})
	go func() {
		defer close(stop)
		for range f.tries {
			if resolve(s.Addresses()[0].String(), qname) {
				resolved++
			}
			time.Sleep(f.lasts / time.Duration(2*f.tries))
		}
	}()
	began := time.Now()
	f.run(t, s, [][]byte{message}, false, total)
	<-stop
	lasted := time.Since(began)
	t.Logf("%d queries, %d replies, %d of them in full, %d octets in, %d out; the client resolved %d of %d", total.queries.Load(),
		total.replies.Load(), total.full.Load(), total.in.Load(), total.out.Load(), resolved, f.tries)
	if resolved < f.tries*99/100 {
		t.Errorf("the client resolved %d of %d, want 99 of 100", resolved, f.tries)
	}
	// A burst, and then at most the limit, where a busy machine pauses the flood.
	if most := int64(defaultAnswers*(lasted.Seconds()+1)) + int64(s.guard.limiter.uncounted()); total.full.Load() > most {
		t.Errorf("%d replies in full in %s, at most %d", total.full.Load(), lasted, most)
	}
	if total.cut.Load() > total.in.Load() {
		t.Errorf("%d octets out to %d in, without the replies in full", total.cut.Load(), total.in.Load())
	}
	if total.replies.Load() < total.queries.Load()/2 {
		t.Errorf("%d replies to %d queries: silence is no limit", total.replies.Load(), total.queries.Load())
	}
	return total
}

// A mail receiver asks for thousands of customers: none of its answers is cut.
func TestDistinctNamesOfOnePrefixAreAnsweredInFull(t *testing.T) {
	names := 20_000
	if testing.Short() {
		names = 4_000
	}
	testDistinct(t, names)
}

func testDistinct(t *testing.T, names int) {
	tree, questions := fleet(t, names)
	messages := make([][]byte, len(questions))
	for i, q := range questions {
		messages[i] = ask(t, Name(q.asked).String(), uint16(q.qtype), edns(1232))
	}
	s := flooded(t, tree)
	var total sent
	floodOf{sockets: 8, perSecond: floodDistinct, lasts: time.Minute}.run(t, s, messages, true, &total)
	t.Logf("%d queries, %d replies, %d of them in full", total.queries.Load(), total.replies.Load(), total.full.Load())
	if cut := total.replies.Load() - total.full.Load(); cut > 0 || total.replies.Load() < int64(names)*9/10 {
		t.Errorf("%d replies to %d names, %d of them cut", total.replies.Load(), names, cut)
	}
}
