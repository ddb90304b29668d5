package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// framed puts messages behind their length prefixes.
func framed(messages ...[]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
		b = append(b, m...)
	}
	return b
}

// readMessage reads one message with its prefix.
func readMessage(conn net.Conn) ([]byte, error) {
	var prefix [2]byte
	if _, err := io.ReadFull(conn, prefix[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(prefix[:]))
	_, err := io.ReadFull(conn, message)
	return message, err
}

func mustRead(t testing.TB, conn net.Conn) *dns.Msg {
	t.Helper()
	b, err := readMessage(conn)
	if err != nil {
		t.Fatal(err)
	}
	return unpack(t, b)
}

// ended waits for the other side to end the connection.
func ended(t testing.TB, conn net.Conn) {
	t.Helper()
	n, err := conn.Read(make([]byte, 1))
	if n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d octets, error %v; want the end of the connection", n, err)
	}
}

func numbered(t testing.TB, name string, n int) []byte {
	message := ask(t, name, dns.TypeTXT)
	binary.BigEndian.PutUint16(message, uint16(n))
	return message
}

func TestPipelinedQueriesAreAnsweredInOrder(t *testing.T) {
	const queries = 1000
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0])
	names := []string{"short.p-dns.test.", "big.p-dns.test.", "none.p-dns.test."}
	var all []byte
	for i := range queries {
		all = append(all, framed(numbered(t, names[i%len(names)], i))...)
	}
	go conn.Write(all)
	for i := range queries {
		if m := mustRead(t, conn); int(m.Id) != i || m.Question[0].Name != names[i%len(names)] || m.Truncated {
			t.Fatalf("reply %d is to query %d for %s", i, m.Id, m.Question[0].Name)
		}
	}
}

func TestSplitMessagesAreAnswered(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0]).(*net.TCPConn)
	conn.SetNoDelay(true)
	both := framed(numbered(t, "short.p-dns.test.", 1), numbered(t, "big.p-dns.test.", 2))
	for i := range both { // every octet a segment of its own, prefixes too
		conn.Write(both[i : i+1])
	}
	for want := uint16(1); want <= 2; want++ {
		if m := mustRead(t, conn); m.Id != want || len(m.Answer) != 1 {
			t.Errorf("got %s, want the reply to %d", m, want)
		}
	}
}

func TestHalfClosedConnectionGetsItsReplies(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0]).(*net.TCPConn)
	conn.Write(framed(numbered(t, "short.p-dns.test.", 1), numbered(t, "huge.p-dns.test.", 2)))
	conn.CloseWrite()
	for want := uint16(1); want <= 2; want++ {
		if m := mustRead(t, conn); m.Id != want {
			t.Errorf("reply to %d, want %d", m.Id, want)
		}
	}
	ended(t, conn)
}

func TestPrefixFollowedByTheEndIsNoMessage(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0]).(*net.TCPConn)
	conn.Write([]byte{0, 40})
	conn.CloseWrite()
	ended(t, conn)
}

func TestMessagesWithoutReplyEndTheConnection(t *testing.T) {
	for name, message := range map[string][]byte{
		"length 0":  {},
		"length 11": bytes.Repeat([]byte{1}, 11),
		"response":  raw(0x8000, 1, 0, 0, 0, askTXT),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, defaultLimits(), "127.0.0.1")
			conn := dial(t, "tcp", s.Addresses()[0])
			conn.Write(framed(numbered(t, "short.p-dns.test.", 7), message))
			if m := mustRead(t, conn); m.Id != 7 {
				t.Errorf("reply to %d, want 7: what came before is answered", m.Id)
			}
			ended(t, conn)
		})
	}
}

func TestMalformedMessagesKeepTheConnection(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0])
	for _, shape := range shapes(t) {
		if shape.want == "silence" {
			continue
		}
		conn.Write(framed(shape.message))
		if got := summary(mustRead(t, conn)); got != shape.want {
			t.Errorf("%s: got %q, want %q", shape.name, got, shape.want)
		}
	}
}

func TestOverlongMessageIsPassedOver(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0])
	options := 65000
	long := raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 0, uint16(options), repeat("\xfd\xe9\x00\x00", options/4)))
	go conn.Write(framed(long, numbered(t, "short.p-dns.test.", 2), long, long, numbered(t, "short.p-dns.test.", 3)))
	for _, want := range []string{"FORMERR qd1 opt", "NOERROR qd1", "FORMERR qd1 opt", "FORMERR qd1 opt", "NOERROR qd1"} {
		if got := summary(mustRead(t, conn)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestMessageHasOneDeadlineHoweverItTrickles(t *testing.T) {
	for name, at := range map[string]int{"from its length on": 0, "past what is looked at of it": maxTCPQuery} {
		t.Run(name, func(t *testing.T) {
			l := defaultLimits()
			l.message = 100 * time.Millisecond
			s := serve(t, l, "127.0.0.1")
			conn := dial(t, "tcp", s.Addresses()[0])
			began := time.Now()
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				conn.Write(append([]byte{0xff, 0xff}, make([]byte, at)...))
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					select {
					case <-stop:
						return
					case <-tick.C:
						conn.Write([]byte{0})
					}
				}
			}()
			if at > 0 {
				mustRead(t, conn)
			}
			ended(t, conn)
			if took := time.Since(began); took > patience/2 {
				t.Errorf("the connection lasted %s", took)
			}
		})
	}
}

func TestIdleConnectionEnds(t *testing.T) {
	l := defaultLimits()
	l.idle = 50 * time.Millisecond
	s := serve(t, l, "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0])
	conn.Write(framed(numbered(t, "short.p-dns.test.", 1)))
	mustRead(t, conn)
	ended(t, conn)
}

func TestReaderThatDoesNotReadIsDropped(t *testing.T) {
	l := defaultLimits()
	l.write = 100 * time.Millisecond
	s := serve(t, l, "127.0.0.1")
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
	}}
	conn, err := dialer.Dial("tcp", s.Addresses()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	query := framed(numbered(t, "huge.p-dns.test.", 1))
	// Thirty thousand octets a query and nothing read: the server gives up, and
	// writing to it fails.
	for err == nil {
		_, err = conn.Write(query)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server never gave up")
	}
	if got := len(s.snapshot()); got != 0 {
		waitFor(t, func() bool { return len(s.snapshot()) == 0 })
	}
	other := dial(t, "tcp", s.Addresses()[0])
	other.Write(framed(numbered(t, "short.p-dns.test.", 2)))
	mustRead(t, other)
}

func (s *Server) snapshot() []*tcpConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*tcpConn
	for c := range s.conns {
		all = append(all, c)
	}
	return all
}

func TestIdleConnectionsMakeRoomOldestFirst(t *testing.T) {
	const most = 20
	l := defaultLimits()
	l.connections = most
	s := serve(t, l, "127.0.0.1")
	var conns []net.Conn
	for i := range most {
		conn := dial(t, "tcp", s.Addresses()[0])
		conn.Write(framed(numbered(t, "short.p-dns.test.", i)))
		mustRead(t, conn)
		waitFor(t, func() bool { return s.busy() == 0 }) // idle from now, in this order
		conns = append(conns, conn)
	}
	// The first in the middle of a message: not idle, so it stays.
	message := framed(numbered(t, "short.p-dns.test.", 99))
	conns[0].Write(message[:5])
	waitFor(t, func() bool { return s.busy() == 1 })
	for i := range 3 * most {
		conn := dial(t, "tcp", s.Addresses()[0])
		conn.Write(framed(numbered(t, "short.p-dns.test.", i)))
		if m := mustRead(t, conn); int(m.Id) != i {
			t.Fatalf("new connection %d got the reply to %d", i, m.Id)
		}
		if n := len(s.snapshot()); n > most {
			t.Fatalf("%d connections, want at most %d", n, most)
		}
		if i == 0 {
			ended(t, conns[1])
			conns[2].Write(framed(numbered(t, "short.p-dns.test.", 7)))
			mustRead(t, conns[2]) // the others were left alone
		}
	}
	conns[0].Write(message[5:])
	if m := mustRead(t, conns[0]); m.Id != 99 {
		t.Errorf("reply to %d, want 99", m.Id)
	}
}

func TestNewConnectionIsTurnedAwayWhileAllAreAnswered(t *testing.T) {
	l := defaultLimits()
	l.connections = 2
	s := serve(t, l, "127.0.0.1")
	for range 2 {
		conn := dial(t, "tcp", s.Addresses()[0])
		conn.Write(framed(numbered(t, "short.p-dns.test.", 1)))
		mustRead(t, conn)
	}
	waitFor(t, func() bool { return s.busy() == 0 }) // and nothing changes their states any more
	for _, c := range s.snapshot() {
		c.state.Store(connBusy)
	}
	ended(t, dial(t, "tcp", s.Addresses()[0]))
}

func TestQueriesOfAConnectionAreBounded(t *testing.T) {
	l := defaultLimits()
	l.queries = 5
	s := serve(t, l, "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0])
	// What was sent too much is read before the end: closing over unread octets
	// would reset the connection, and a reset overtakes replies.
	conn.Write(bytes.Repeat(framed(numbered(t, "short.p-dns.test.", 1)), 1000))
	for range l.queries {
		mustRead(t, conn)
	}
	conn.(*net.TCPConn).CloseWrite()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection ended with %v, want %v", err, io.EOF)
	}
}

func TestDeadlineIsOfTheMessageNotOfTheConnection(t *testing.T) {
	l := defaultLimits()
	l.message = time.Second
	s := serve(t, l, "127.0.0.1")
	conn := dial(t, "tcp", s.Addresses()[0])
	// Each write ends one message and begins the next, so that the connection is
	// never between messages, for longer than one message may take.
	message := framed(numbered(t, "short.p-dns.test.", 1))
	conn.Write(message[:5])
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for range 9 {
		<-tick.C
		conn.Write(slices.Concat(message[5:], message[:5]))
		mustRead(t, conn)
	}
}

func TestResetInTheMiddleOfAReplyHurtsNobody(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	for range 20 {
		conn := dial(t, "tcp", s.Addresses()[0]).(*net.TCPConn)
		conn.Write(slices.Repeat(framed(numbered(t, "huge.p-dns.test.", 1)), 10))
		conn.SetLinger(0)
		conn.Close()
	}
	conn := dial(t, "tcp", s.Addresses()[0])
	conn.Write(framed(numbered(t, "short.p-dns.test.", 1)))
	mustRead(t, conn)
	waitFor(t, func() bool { return len(s.snapshot()) == 1 })
}

func TestCloseLetsExchangesEnd(t *testing.T) {
	s := serve(t, defaultLimits(), "127.0.0.1")
	idle, busy := dial(t, "tcp", s.Addresses()[0]), dial(t, "tcp", s.Addresses()[0])
	message := framed(numbered(t, "short.p-dns.test.", 5))
	busy.Write(message[:10])
	waitFor(t, func() bool { return s.busy() == 1 && len(s.snapshot()) == 2 })
	closed := make(chan error, 1)
	go func() { closed <- s.Close(t.Context()) }()
	ended(t, idle)
	busy.Write(message[10:])
	if m := mustRead(t, busy); m.Id != 5 {
		t.Errorf("reply to %d, want 5", m.Id)
	}
	ended(t, busy)
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
