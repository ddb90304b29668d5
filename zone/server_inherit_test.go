package zone

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// succeed starts a server on the sockets of another.
func succeed(t *testing.T, first *Server, listen ...netip.AddrPort) *Server {
	t.Helper()
	sockets, err := first.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Listen(ServerConfig{
		Listen: listen, Inherited: sockets, Workers: 1, Tree: packetTree(t),
		RateLimit: RateLimit{Off: true}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { second.Close(t.Context()) })
	return second
}

// Every question is asked once: a lost datagram or a reset connection fails.
func TestNoQueryIsLostFromServerToSuccessor(t *testing.T) {
	const clients, successions = 4, 8
	server := serve(t, defaultLimits(), "127.0.0.1")
	address := server.Addresses()[0]
	query := ask(t, "short.p-dns.test.", dns.TypeTXT)
	var wg sync.WaitGroup
	var stop atomic.Bool
	var asked atomic.Int64
	for i := range clients {
		wg.Go(func() {
			for !stop.Load() {
				err := askOnce(address, i%2 == 1, query)
				if err != nil {
					t.Errorf("query %d: %v", asked.Load(), err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for range successions {
		before := asked.Load()
		if err := server.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		next := succeed(t, server, address)
		if err := server.Close(t.Context()); err != nil {
			t.Error(err)
		}
		server = next
		waitFor(t, func() bool { return t.Failed() || asked.Load() > before+20 })
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d queries over %d successions", asked.Load(), successions)
}

func askOnce(to netip.AddrPort, tcp bool, query []byte) error {
	_, err := askFor(to, tcp, query)
	return err
}

func askFor(to netip.AddrPort, tcp bool, query []byte) ([]byte, error) {
	network := "udp"
	if tcp {
		network, query = "tcp", append([]byte{0, byte(len(query))}, query...)
	}
	conn, err := net.DialTimeout(network, to.String(), patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	reply := make([]byte, MaxTCP)
	n, err := conn.Read(reply)
	return reply[:n], err
}

// What one process has shown as changed the other must not show as it was.
func TestPausedServerAnswersNothingUntilItGoesOn(t *testing.T) {
	first := serve(t, defaultLimits(), "127.0.0.1") // it says its NSID, which the second lacks
	address := first.Addresses()[0]
	query := new(dns.Msg).SetQuestion("short.p-dns.test.", dns.TypeTXT)
	query.SetEdns0(1232, false).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_NSID{Code: dns.EDNS0NSID}}
	packed, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	byFirst := func(tcp bool) bool {
		t.Helper()
		reply, err := askFor(address, tcp, packed)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.Contains(reply, []byte("node-1"))
	}
	for range 20 {
		if !byFirst(false) || !byFirst(true) {
			t.Fatal("the first does not answer")
		}
		if err := first.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		waits := dial(t, "udp", address)
		if _, err := waits.Write(packed); err != nil {
			t.Fatal(err)
		}
		second := succeed(t, first, address)
		for range 10 {
			if byFirst(false) || byFirst(true) {
				t.Error("the first answers while it is paused")
			}
		}
		if _, err := waits.Read(make([]byte, MaxUDP)); err != nil {
			t.Errorf("what came during the pause: %v", err)
		}
		if err := second.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := second.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		first.Resume()
	}
}

func TestSuccessorMayHaveOtherAddresses(t *testing.T) {
	first := serve(t, defaultLimits(), "127.0.0.1", "127.0.0.2")
	kept, left := first.Addresses()[0], first.Addresses()[1]
	second := succeed(t, first, kept, netip.MustParseAddrPort("127.0.0.3:0"))
	if err := first.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, at := range second.Addresses() {
		for _, tcp := range []bool{false, true} {
			if err := askOnce(at, tcp, ask(t, "short.p-dns.test.", dns.TypeTXT)); err != nil {
				t.Errorf("%s tcp %t: %v", at, tcp, err)
			}
		}
	}
	if conn, err := net.Dial("tcp", left.String()); err == nil {
		conn.Close()
		t.Errorf("%s is still open, in no Listen", left)
	}
}

func TestSocketOfAnotherKindIsRefused(t *testing.T) {
	first := serve(t, defaultLimits(), "127.0.0.1")
	sockets, err := first.Sockets()
	if err != nil {
		t.Fatal(err)
	}
	for i := range sockets {
		sockets[i].TCP = !sockets[i].TCP
	}
	s, err := Listen(ServerConfig{Listen: first.Addresses(), Inherited: sockets, Tree: packetTree(t), Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		s.Close(t.Context())
		t.Fatal("a listener was taken for a datagram socket")
	}
	if !strings.Contains(err.Error(), "taking over") {
		t.Errorf("error %q does not say what failed", err)
	}
}
