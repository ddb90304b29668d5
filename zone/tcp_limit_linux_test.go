//go:build !portable

package zone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// crowd is a server on loopback whose clients can come from any of its
// addresses, none of them exempt.
func crowd(t testing.TB, l limits) *Server {
	t.Helper()
	s, err := listen(ServerConfig{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1, Tree: packetTree(t),
		RateLimit: RateLimit{Exempt: []netip.Prefix{netip.MustParsePrefix("127.200.0.0/16")}},
		Logger:    slog.New(slog.DiscardHandler),
	}, l)
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

// dialFrom connects from an address of loopback.
func dialFrom(t testing.TB, s *Server, from string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", s.Addresses()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func TestPrefixMakesRoomForItself(t *testing.T) {
	l := defaultLimits()
	l.prefix, l.connections = 4, 100
	s := crowd(t, l)
	query := framed(numbered(t, "short.p-dns.test.", 1))
	answered := func(conn net.Conn) { conn.Write(query); mustRead(t, conn) }
	neighbour := dialFrom(t, s, "127.0.2.1") // idle for longer than all others
	answered(neighbour)
	var conns []net.Conn
	for i := range 12 {
		conn := dialFrom(t, s, fmt.Sprintf("127.0.1.%d", i+1))
		answered(conn)
		waitFor(t, func() bool { return s.busy() == 0 })
		conns = append(conns, conn)
	}
	for _, conn := range conns[:8] {
		ended(t, conn)
	}
	for _, conn := range append(conns[8:], neighbour) {
		answered(conn)
	}
	if got := s.Stats().Connections; got != (ConnectionStats{Open: 5, Accepted: 13, Evicted: 8}) {
		t.Errorf("counted %+v", got)
	}
	for range 12 { // an exempt prefix has as many as it likes
		conn := dialFrom(t, s, "127.200.0.1")
		answered(conn)
		conns = append(conns, conn)
	}
	if got := s.Stats().Connections.Open; got != 17 {
		t.Errorf("%d connections open, want 17", got)
	}
}

func TestStalledMessagesMakeRoomAfterIdleConnections(t *testing.T) {
	l := defaultLimits()
	l.prefix, l.message, l.stall = 3, time.Minute, 0
	s := crowd(t, l)
	query := framed(numbered(t, "short.p-dns.test.", 1))
	stalled := []net.Conn{dialFrom(t, s, "127.0.1.1"), dialFrom(t, s, "127.0.1.2")}
	for i, conn := range stalled {
		conn.Write(query[:5])
		waitFor(t, func() bool { return s.busy() == i+1 })
	}
	idle := dialFrom(t, s, "127.0.1.3")
	idle.Write(query)
	mustRead(t, idle)
	waitFor(t, func() bool { return s.busy() == 2 })
	for i, gone := range []net.Conn{idle, stalled[0], stalled[1]} {
		conn := dialFrom(t, s, fmt.Sprintf("127.0.1.%d", 10+i))
		conn.Write(query[:5]) // from now on stalled as well
		ended(t, gone)
		waitFor(t, func() bool { return s.busy() == 3 && len(s.snapshot()) == 3 })
	}
}

// stuck is a connection that asks for ever and reads nothing, once the server waits for
// it to read.
func stuck(t *testing.T, s *Server) (conn net.Conn, ended chan struct{}) {
	t.Helper()
	conn = dial(t, "tcp", s.Addresses()[0])
	conn.(*net.TCPConn).SetReadBuffer(4096)
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for query := framed(numbered(t, "huge.p-dns.test.", 1)); ; {
			if _, err := conn.Write(query); err != nil {
				return
			}
		}
	}()
	waitFor(t, func() bool {
		for _, c := range s.snapshot() {
			if c.conn.RemoteAddr().String() == conn.LocalAddr().String() {
				state := c.state.Load()
				return state >= 0 && state&waitsReader != 0 && time.Since(s.guard.started)-time.Duration(state>>waitsBits) > s.limits.stall
			}
		}
		return false
	})
	return conn, ended
}

// Who asks and does not read keeps no place that another wants, and what the kernel
// keeps for him is bounded.
func TestReaderThatDoesNotReadMakesRoom(t *testing.T) {
	l := defaultLimits()
	l.connections, l.stall, l.write, l.queries = 1, 20*time.Millisecond, time.Minute, 1<<20
	s := serve(t, l, "127.0.0.1")
	_, gone := stuck(t, s)
	raw, err := s.snapshot()[0].conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []int{unix.SO_SNDBUF, unix.SO_RCVBUF} {
		if err := control(raw, func(fd int) error {
			if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil || n != 2*streamBuffer {
				t.Errorf("option %d is %d, %v", option, n, err)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	other := dial(t, "tcp", s.Addresses()[0])
	other.Write(framed(numbered(t, "short.p-dns.test.", 2)))
	mustRead(t, other)
	<-gone
	if got := s.Stats().Connections; got != (ConnectionStats{Open: 1, Accepted: 2, Evicted: 1}) {
		t.Errorf("counted %+v", got)
	}
}

// Connections are answered in turns, and each gives its turn back: while it waits for
// its reader, and however it ends.
func TestConnectionsTakeTurns(t *testing.T) {
	l := defaultLimits()
	l.turns, l.stall, l.write, l.queries = 1, 20*time.Millisecond, time.Minute, 1<<20
	s := serve(t, l, "127.0.0.1")
	conn, gone := stuck(t, s)
	ask := func() {
		t.Helper()
		other := dial(t, "tcp", s.Addresses()[0])
		other.Write(framed(numbered(t, "short.p-dns.test.", 2)))
		mustRead(t, other)
	}
	ask() // while one waits for its reader
	broken := dial(t, "tcp", s.Addresses()[0])
	broken.Write([]byte{0, 1, 0}) // gets no reply
	ended(t, broken)
	conn.Close()
	<-gone
	waitFor(t, func() bool { return len(s.turns) == 0 })
	ask()
	s.turns <- struct{}{} // as if another were answered
	waits := dial(t, "tcp", s.Addresses()[0])
	waits.Write(framed(numbered(t, "short.p-dns.test.", 3)))
	waitFor(t, func() bool { return s.busy() == 1 })
	waits.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := waits.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("answered out of turn: %v", err)
	}
	waits.SetReadDeadline(time.Now().Add(patience))
	<-s.turns
	mustRead(t, waits)
}

// Who asks and asks and waits for its turn makes room for who has had none yet.
func TestConnectionThatWaitsForAnotherTurnMakesRoom(t *testing.T) {
	l := defaultLimits()
	l.connections, l.turns = 2, 1
	s := serve(t, l, "127.0.0.1")
	query := framed(numbered(t, "short.p-dns.test.", 1))
	var asking []net.Conn
	for range l.connections {
		conn := dial(t, "tcp", s.Addresses()[0])
		conn.Write(query)
		mustRead(t, conn)
		asking = append(asking, conn)
	}
	waitFor(t, func() bool { return s.busy() == 0 })
	s.turns <- struct{}{} // as if another were answered
	t.Cleanup(func() {
		select {
		case <-s.turns:
		default:
		}
	})
	for i, conn := range asking {
		conn.Write(query)
		waitFor(t, func() bool { return s.busy() == i+1 })
	}
	first, second := dial(t, "tcp", s.Addresses()[0]), dial(t, "tcp", s.Addresses()[0])
	for i, conn := range []net.Conn{first, second} {
		conn.Write(query)
		ended(t, asking[i]) // before there is a turn for it
		waitFor(t, func() bool { return s.busy() == i+1 && len(s.snapshot()) == l.connections })
	}
	ended(t, dial(t, "tcp", s.Addresses()[0])) // those two wait for their first
	<-s.turns
	mustRead(t, first)
	mustRead(t, second)
	if got := s.Stats().Connections; got != (ConnectionStats{Open: 2, Accepted: 4, Evicted: 2, Refused: 1}) {
		t.Errorf("counted %+v", got)
	}
}

// While it waits for its reader a connection holds its replies, and nothing of what it
// took to make them.
func TestReadersThatDoNotReadTakeLittleMemory(t *testing.T) {
	const readers, most = 24, 64 << 10
	l := defaultLimits()
	l.write, l.stall, l.queries = time.Minute, 20*time.Millisecond, 1<<20
	s := serve(t, l, "127.0.0.1")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools held for one more
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	stuck(t, s)
	before := heap()
	for range readers {
		stuck(t, s)
	}
	each := (int64(heap()) - int64(before)) / readers
	if t.Logf("%d octets a connection", each); each > most {
		t.Errorf("at most %d", most)
	}
}

// The acceptance in short; crowd_lab_test.go has it in full.
func TestClientGetsThroughACrowdOfConnections(t *testing.T) {
	l := defaultLimits()
	l.connections, l.prefix, l.stall, l.message = 128, 32, 20*time.Millisecond, 300*time.Millisecond
	testCrowd(t, l, crowdOf{idle: 300, slow: 200, prefixes: 20, pause: 200 * time.Millisecond}, 100)
}

// None of a crowd that asks without a pause waits for a message, ever.
func TestClientGetsThroughACrowdThatAsksWithoutAPause(t *testing.T) {
	l := defaultLimits()
	l.connections, l.prefix, l.queries = 64, 16, 1<<20
	testCrowd(t, l, crowdOf{greedy: 100, prefixes: 10, pause: 50 * time.Millisecond}, 20)
}

// crowdOf is connections that are idle, others that stop in the middle of a message,
// and others that ask all the time, from some prefixes, the client's own among them.
// Each is opened again a while after it is closed.
type crowdOf struct {
	idle, slow, greedy, prefixes int
	pause                        time.Duration
}

// testCrowd has a client ask in a crowd.
func testCrowd(t *testing.T, l limits, c crowdOf, tries int) {
	s := crowd(t, l)
	address := s.Addresses()[0].String()
	query := framed(numbered(t, "short.p-dns.test.", 1))
	stop := make(chan struct{})
	var attackers sync.WaitGroup
	for i := range c.idle + c.slow + c.greedy {
		var octets []byte
		switch {
		case i >= c.idle+c.slow:
			octets = bytes.Repeat(query, 100)
		case i >= c.idle:
			octets = query[:5]
		}
		from := fmt.Sprintf("127.0.%d.%d", i%c.prefixes, 2+i/c.prefixes%250)
		attackers.Go(func() { attack(address, from, octets, c.pause, stop) })
	}
	waitFor(t, func() bool {
		had := s.Stats().Connections
		return had.Accepted+had.Refused >= uint64(c.idle+c.slow+c.greedy)
	})
	answered, failures := 0, map[string]int{}
	var longest time.Duration
	for range tries {
		client := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
		m := new(dns.Msg).SetQuestion("short.p-dns.test.", dns.TypeTXT)
		if reply, took, err := client.Exchange(m, address); err == nil && len(reply.Answer) == 1 {
			answered++
			longest = max(longest, took)
		} else {
			failures[fmt.Sprint(err)]++
		}
		if open := len(s.snapshot()); open > l.connections {
			t.Fatalf("%d connections, at most %d", open, l.connections)
		}
	}
	t.Logf("%d of %d answered, the last after %s; %+v", answered, tries, longest, s.Stats().Connections)
	if answered < tries*99/100 { // rounded down: of twenty one may fail
		t.Errorf("%d of %d answered, want 99 of 100: %v", answered, tries, failures)
	}
	close(stop)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.Close(ctx)
	attackers.Wait()
}

// attack keeps a connection up that sends some octets and waits, or sends them again
// and again where they are questions.
func attack(address, from string, octets []byte, pause time.Duration, stop <-chan struct{}) {
	const wait = 2 * time.Second
	for {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: time.Second}).Dial("tcp", address)
		if err == nil {
			conn.Write(octets)
			conn.SetDeadline(time.Now().Add(wait))
			if len(octets) > 5 {
				go io.Copy(io.Discard, conn)
				for err == nil { // until it is closed
					_, err = conn.Write(octets)
				}
			}
			conn.Read(make([]byte, 1)) // likewise
			conn.Close()
		}
		select {
		case <-stop:
			return
		case <-time.After(pause):
		}
	}
}
