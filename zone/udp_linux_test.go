//go:build !portable

package zone

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// idleWorker is a worker whose socket fills up until the test runs a round.
func idleWorker(t *testing.T, address string) *udpWorker {
	t.Helper()
	s := newServer(ServerConfig{Tree: packetTree(t), Logger: slog.New(slog.DiscardHandler)}, defaultLimits())
	at := netip.AddrPortFrom(netip.MustParseAddr(address), 0)
	socket, err := listenUDP(at)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.newUDPWorker(socket, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.close() })
	return w
}

func (w *udpWorker) rounds() (n int) {
	w.raw.Control(func(fd uintptr) {
		for w.round(fd) {
			n++
		}
	})
	return n
}

// A batch mixes clients, replies of all lengths and messages without any.
func TestBatchRepliesGoToThoseWhoAsked(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "0.0.0.0", "::1", "::"} {
		t.Run(address, func(t *testing.T) { testBatch(t, address) })
	}
}

func testBatch(t *testing.T, address string) {
	const clients, each = 7, 20 // with what gets no reply some five batches
	w := idleWorker(t, address)
	to := w.socket.address
	if a := to.Addr(); a.IsUnspecified() && a.Is4() {
		to = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), to.Port())
	} else if a.IsUnspecified() {
		to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
	}
	names := []string{"short.p-dns.test.", "key.p-dns.test.", "none.p-dns.test.", "elsewhere.test."}
	var conns []net.Conn
	for range clients {
		conns = append(conns, dial(t, "udp", to))
	}
	for i := range each {
		for j, conn := range conns {
			message := ask(t, names[(i+j)%len(names)], dns.TypeTXT)
			message[0], message[1] = byte(j), byte(i)
			if (i+j)%3 == 0 {
				conn.Write([]byte("none"))
			}
			conn.Write(message)
		}
	}
	if n := w.rounds(); n < 2 || n > clients*each*2/batchSize+1 {
		t.Errorf("%d rounds, want full batches", n)
	}
	buffer := make([]byte, MaxUDP)
	for j, conn := range conns {
		for i := range each {
			n, err := conn.Read(buffer)
			if err != nil {
				t.Fatalf("client %d, query %d: %v", j, i, err)
			}
			m := unpack(t, buffer[:n])
			if want := names[(i+j)%len(names)]; m.Question[0].Name != want || buffer[0] != byte(j) || buffer[1] != byte(i) {
				t.Fatalf("client %d, query %d: got the reply to %d of client %d", j, i, buffer[1], buffer[0])
			}
		}
	}
}

// A datagram in the queue of a socket that is closing was accepted: it gets its
// reply.
func TestClosingWorkerAnswersWhatWaits(t *testing.T) {
	w := idleWorker(t, "127.0.0.1")
	conn := dial(t, "udp", w.socket.address)
	const waiting = 3 * batchSize
	for range waiting {
		conn.Write(ask(t, "short.p-dns.test.", dns.TypeTXT))
	}
	w.server.closing.Store(true)
	w.server.ending.Store(true)
	var running sync.WaitGroup
	running.Go(w.run)
	running.Wait()
	buffer := make([]byte, MaxUDP)
	for i := range waiting {
		if _, err := conn.Read(buffer); err != nil {
			t.Fatalf("after %d replies: %v", i, err)
		}
	}
}

func TestRoundAllocatesNothing(t *testing.T) {
	w := idleWorker(t, "127.0.0.1")
	conn := dial(t, "udp", w.socket.address)
	message, buffer := ask(t, "short.p-dns.test.", dns.TypeTXT), make([]byte, MaxUDP)
	var answered bool
	round := func(fd uintptr) { answered = w.round(fd) }
	allocations := testing.AllocsPerRun(100, func() {
		conn.Write(message)
		if w.raw.Control(round); !answered {
			t.Fatal("nothing was there to answer")
		}
		conn.Read(buffer)
	})
	if allocations != 0 {
		t.Errorf("%v allocations a round", allocations)
	}
}

func TestSuccessorReadsWhatItsPredecessorLeft(t *testing.T) {
	idle := idleWorker(t, "127.0.0.1")     // nobody reads it: the question waits
	for !freeForTCP(idle.socket.address) { // its port was chosen for UDP alone
		idle = idleWorker(t, "127.0.0.1")
	}
	first := idle.server
	first.workers = append(first.workers, idle)
	address := idle.socket.address
	conn := dial(t, "udp", address)
	if _, err := conn.Write(ask(t, "short.p-dns.test.", dns.TypeTXT)); err != nil {
		t.Fatal(err)
	}
	second := succeed(t, first, address)
	idle.close()
	if n, err := conn.Read(make([]byte, MaxUDP)); err != nil || n == 0 {
		t.Errorf("the question that waited got %d octets, %v", n, err)
	}
	if got := second.Addresses(); len(got) != 1 || got[0] != address {
		t.Errorf("addresses %v, want %v", got, address)
	}
}

func freeForTCP(at netip.AddrPort) bool {
	l, err := net.Listen("tcp", at.String())
	if err == nil {
		l.Close()
	}
	return err == nil
}
