package cluster

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// wires are the network between nodes in virtual time: connections in memory that
// goroutines wait for in ways a bubble of testing/synctest knows. Each direction
// between two hosts can be cut. What is sent meanwhile waits, as the kernel would
// send it again; a connection that is cut for deadAfter is lost on both ends.
type wires struct {
	latency time.Duration // one way

	// mu guards what follows, and all connections.
	mu        sync.Mutex
	listeners map[string]*wireListener // by address
	cuts      map[direction]time.Time  // since when
	ends      map[*wireEnd]bool
}

type direction struct{ from, to string }

func newWires(latency time.Duration) *wires {
	return &wires{
		latency: latency, listeners: make(map[string]*wireListener),
		cuts: make(map[direction]time.Time), ends: make(map[*wireEnd]bool),
	}
}

// cut drops what goes one way.
func (w *wires) cut(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, since := direction{from, to}, time.Now()
	if !w.cuts[d].IsZero() {
		return
	}
	w.cuts[d] = since
	time.AfterFunc(deadAfter, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.cuts[d].Equal(since) {
			return
		}
		for e := range w.ends {
			if e.here == from && e.there == to || e.here == to && e.there == from {
				e.lost = syscall.ETIMEDOUT
				e.changed.Broadcast()
			}
		}
	})
}

// heal ends a cut.
func (w *wires) heal(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.cuts, direction{from, to})
	for e := range w.ends {
		e.changed.Broadcast()
	}
}

// severed says whether anything between two hosts is lost.
func (w *wires) severed(a, b string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.severedLocked(a, b)
}

func (w *wires) severedLocked(a, b string) bool {
	return !w.cuts[direction{a, b}].IsZero() || !w.cuts[direction{b, a}].IsZero()
}

// from is the network as a host has it.
func (w *wires) from(host string) network { return wireNetwork{w, host} }

type wireNetwork struct {
	wires *wires
	host  string
}

// Listen implements network.
func (n wireNetwork) Listen(_ context.Context, at string) (net.Listener, error) {
	w := n.wires
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listeners[at] != nil {
		return nil, syscall.EADDRINUSE
	}
	l := &wireListener{wires: w, at: at, came: make(chan *wireEnd, 64), gone: make(chan struct{})}
	w.listeners[at] = l
	return l, nil
}

// Dial implements network. Over a cut it tries again until ctx is done.
func (n wireNetwork) Dial(ctx context.Context, to string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	for n.wires.severed(n.host, host) {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w := n.wires
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.listeners[to]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	here := &wireEnd{wires: w, here: n.host, there: host, changed: sync.NewCond(&w.mu)}
	there := &wireEnd{wires: w, here: host, there: n.host, changed: sync.NewCond(&w.mu), other: here}
	here.other = there
	select {
	case l.came <- there:
	default:
		return nil, syscall.ECONNREFUSED
	}
	w.ends[here], w.ends[there] = true, true
	return here, nil
}

type wireListener struct {
	wires *wires
	at    string
	came  chan *wireEnd
	gone  chan struct{}
}

// Accept implements net.Listener.
func (l *wireListener) Accept() (net.Conn, error) {
	select {
	case e := <-l.came:
		return e, nil
	case <-l.gone:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *wireListener) Close() error {
	l.wires.mu.Lock()
	defer l.wires.mu.Unlock()
	if l.wires.listeners[l.at] != l {
		return net.ErrClosed
	}
	delete(l.wires.listeners, l.at)
	close(l.gone)
	for {
		select {
		case e := <-l.came:
			e.closeLocked()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (l *wireListener) Addr() net.Addr { return address(l.at) }

// wireEnd is one end of a connection. The wires' lock guards it.
type wireEnd struct {
	wires       *wires
	here, there string
	other       *wireEnd
	changed     *sync.Cond

	arriving []arriving
	ended    bool // the other end has closed
	closed   bool
	lost     error
	// readBy and writeBy are deadlines, of which late wakes readers.
	readBy, writeBy time.Time
	late            *time.Timer
}

// arriving is what the other end has sent, and when it is here.
type arriving struct {
	octets []byte
	at     time.Time
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !time.Now().Before(deadline) }

// Read implements net.Conn.
func (e *wireEnd) Read(b []byte) (int, error) {
	e.wires.mu.Lock()
	defer e.wires.mu.Unlock()
	for {
		switch open := e.wires.cuts[direction{e.there, e.here}].IsZero(); {
		case e.closed:
			return 0, net.ErrClosed
		case e.lost != nil:
			return 0, e.lost
		case passed(e.readBy):
			return 0, os.ErrDeadlineExceeded
		case open && len(e.arriving) > 0 && !time.Now().Before(e.arriving[0].at):
			first := &e.arriving[0]
			n := copy(b, first.octets)
			if first.octets = first.octets[n:]; len(first.octets) == 0 {
				e.arriving = e.arriving[1:]
			}
			return n, nil
		case open && len(e.arriving) == 0 && e.ended:
			return 0, io.EOF
		}
		e.changed.Wait()
	}
}

// Write implements net.Conn. The kernel's buffer takes everything.
func (e *wireEnd) Write(b []byte) (int, error) {
	e.wires.mu.Lock()
	defer e.wires.mu.Unlock()
	switch {
	case e.closed:
		return 0, net.ErrClosed
	case e.lost != nil:
		return 0, e.lost
	case passed(e.writeBy):
		return 0, os.ErrDeadlineExceeded
	case e.other.closed:
		return 0, syscall.ECONNRESET
	}
	o := e.other
	o.arriving = append(o.arriving, arriving{append([]byte(nil), b...), time.Now().Add(e.wires.latency)})
	if e.wires.latency == 0 {
		o.changed.Broadcast()
		return len(b), nil
	}
	time.AfterFunc(e.wires.latency, o.wake)
	return len(b), nil
}

func (e *wireEnd) wake() {
	e.wires.mu.Lock()
	defer e.wires.mu.Unlock()
	e.changed.Broadcast()
}

// Close implements net.Conn.
func (e *wireEnd) Close() error {
	e.wires.mu.Lock()
	defer e.wires.mu.Unlock()
	e.closeLocked()
	return nil
}

func (e *wireEnd) closeLocked() {
	e.closed, e.other.ended = true, true
	delete(e.wires.ends, e)
	if e.late != nil {
		e.late.Stop()
	}
	e.changed.Broadcast()
	e.other.changed.Broadcast()
}

// SetDeadline implements net.Conn.
func (e *wireEnd) SetDeadline(t time.Time) error {
	e.SetWriteDeadline(t)
	return e.SetReadDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (e *wireEnd) SetReadDeadline(t time.Time) error {
	e.wires.mu.Lock()
	defer e.wires.mu.Unlock()
	if e.closed {
		return net.ErrClosed
	}
	e.readBy = t
	if e.late != nil {
		e.late.Stop()
	}
	if !t.IsZero() {
		e.late = time.AfterFunc(time.Until(t), e.wake)
	}
	e.changed.Broadcast()
	return nil
}

// SetWriteDeadline implements net.Conn.
func (e *wireEnd) SetWriteDeadline(t time.Time) error {
	e.wires.mu.Lock()
	defer e.wires.mu.Unlock()
	e.writeBy = t
	return nil
}

// LocalAddr implements net.Conn.
func (e *wireEnd) LocalAddr() net.Addr { return address(e.here) }

// RemoteAddr implements net.Conn.
func (e *wireEnd) RemoteAddr() net.Addr { return address(e.there) }

func TestWiresCarryCutAndHeal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires(50 * time.Millisecond)
		l, err := w.from("b").Listen(t.Context(), "b:1")
		must(t, err)
		a, err := w.from("a").Dial(t.Context(), "b:1")
		must(t, err)
		b, err := l.Accept()
		must(t, err)
		arrives := func(within time.Duration) error {
			must(t, b.SetReadDeadline(time.Now().Add(within)))
			_, err := b.Read(make([]byte, 8))
			return err
		}
		began := time.Now()
		a.Write([]byte("one"))
		if err := arrives(time.Minute); err != nil || time.Since(began) != w.latency {
			t.Errorf("arrived after %s: %v", time.Since(began), err)
		}
		w.cut("a", "b")
		a.Write([]byte("two"))
		if err := arrives(10 * time.Second); err == nil {
			t.Error("arrived over a cut")
		}
		w.heal("a", "b")
		if err := arrives(0 + time.Second); err != nil {
			t.Errorf("not sent again: %v", err)
		}
		w.cut("b", "a") // the other way
		a.Write([]byte("three"))
		if err := arrives(time.Second); err != nil {
			t.Errorf("cut the wrong way: %v", err)
		}
		time.Sleep(deadAfter)
		if err := arrives(time.Second); err != syscall.ETIMEDOUT {
			t.Errorf("a dead connection reads %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := w.from("a").Dial(ctx, "b:1"); err == nil {
			t.Error("dialled over a cut")
		}
		must(t, a.Close())
		must(t, b.Close())
		must(t, l.Close())
		if _, err := w.from("b").Dial(t.Context(), "b:1"); err != syscall.ECONNREFUSED {
			t.Errorf("dialled nobody: %v", err)
		}
	})
}
