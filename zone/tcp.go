package zone

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// maxTCPQuery is how much of a query over TCP is looked at. Queries are some
	// dozens of octets; the rest of a longer one is passed over and its beginning
	// gets the FORMERR that a cut-off message deserves.
	maxTCPQuery = 4096
	lengthSize  = 2 // of the prefix of a message (RFC 1035 section 4.2.2)

	// flushAt is how many octets of replies to pipelined queries are collected
	// before they are written.
	flushAt = 16 << 10

	// drainAccept is how long a closing listener takes connections that were
	// established before it closed; what is left then is reset by the kernel.
	drainAccept = 20 * time.Millisecond
	// drainFirst is how long such a connection has for its first message.
	drainFirst = 200 * time.Millisecond
	// acceptPause follows an accept that failed, for want of descriptors mostly.
	acceptPause = 50 * time.Millisecond

	// lingerTime and lingerOctets bound the reading after our last reply: closing
	// with unread octets would reset the connection and lose the reply.
	lingerTime   = time.Second
	lingerOctets = 64 << 10
)

// tcpListener accepts connections of one address.
type tcpListener struct {
	server   *Server
	listener *net.TCPListener
	counters *counters
}

func (s *Server) openTCP(address netip.AddrPort) (*tcpListener, error) {
	l, err := listenTCP(address)
	if err != nil {
		return nil, err
	}
	return &tcpListener{server: s, listener: l, counters: s.count("tcp", address)}, nil
}

func (l *tcpListener) port() uint16 {
	return l.listener.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (l *tcpListener) stop() { l.listener.SetDeadline(time.Now().Add(drainAccept)) }

func (l *tcpListener) run() {
	defer l.listener.Close()
	for {
		conn, err := l.listener.AcceptTCP()
		switch {
		case err == nil:
			l.server.admit(conn, l.counters)
		case l.server.closing.Load() || errors.Is(err, net.ErrClosed):
			return
		default:
			l.server.config.Logger.Error("accepting DNS connection", "address", l.listener.Addr().String(), "error", err)
			select {
			case <-time.After(acceptPause):
			case <-l.server.stopped:
			}
		}
	}
}

// tcpConn is one connection. Only its own goroutine touches what is not atomic.
type tcpConn struct {
	conn     *net.TCPConn
	counters *counters
	// idle is the time since the server's start at which the connection began to
	// wait for a message, or one of the two states below.
	idle atomic.Int64

	buffer [lengthSize + maxTCPQuery]byte
	have   int       // octets in buffer
	skip   int       // octets of an overlong message still to be passed over
	began  time.Time // when the message in buffer began
	asked  int       // messages so far
}

const (
	connBusy    = -1
	connEvicted = -2
)

// admit starts serving a connection. Where there are too many, the one that has
// been idle for longest makes room; a new one is turned away only when none is
// idle, which lasts no longer than a message may take.
func (s *Server) admit(conn *net.TCPConn, counts *counters) {
	c := &tcpConn{conn: conn, counters: counts}
	c.idle.Store(int64(time.Since(s.started)))
	s.mu.Lock()
	full := len(s.conns) >= s.limits.connections
	if full {
		full = !s.evict()
	}
	if !full {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if full {
		conn.Close()
		return
	}
	s.running.Go(func() {
		s.serve(c)
		conn.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
}

// evict closes the connection that has been idle for longest and says whether
// there was one. The caller holds mu.
func (s *Server) evict() bool {
	const tries = 4 // the one chosen may get a message meanwhile
	for range tries {
		var oldest *tcpConn
		var since int64
		for c := range s.conns {
			if at := c.idle.Load(); at >= 0 && (oldest == nil || at < since) {
				oldest, since = c, at
			}
		}
		if oldest == nil {
			return false
		}
		if oldest.idle.CompareAndSwap(since, connEvicted) {
			oldest.conn.Close()
			delete(s.conns, oldest)
			return true
		}
	}
	return false
}

// closeIdle closes every connection that waits for a message. One that begins
// to wait later sees closing itself.
func (s *Server) closeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if at := c.idle.Load(); at >= 0 && c.idle.CompareAndSwap(at, connEvicted) {
			c.conn.Close()
		}
	}
}

// serve answers the messages of a connection in the order they came.
func (s *Server) serve(c *tcpConn) {
	for s.read(c) {
		if !s.answerBuffered(c) {
			return
		}
		if c.asked >= s.limits.queries {
			c.linger()
			return
		}
	}
}

// read waits for more octets; false ends the connection.
func (s *Server) read(c *tcpConn) bool {
	waits := c.have == 0 && c.skip == 0
	deadline := c.began.Add(s.limits.message)
	if waits {
		now := time.Now()
		deadline = now.Add(s.limits.idle)
		c.idle.Store(int64(now.Sub(s.started)))
		if s.closing.Load() {
			if c.asked > 0 {
				return false
			}
			deadline = now.Add(drainFirst) // accepted while closing
		}
	}
	c.conn.SetReadDeadline(deadline)
	n, err := c.conn.Read(c.buffer[c.have:])
	if waits {
		if at := c.idle.Load(); at < 0 || !c.idle.CompareAndSwap(at, connBusy) {
			return false // evicted
		}
		c.began = time.Now()
	}
	c.have += n
	return err == nil
}

// answerBuffered answers every whole message in the buffer; false ends the
// connection.
func (s *Server) answerBuffered(c *tcpConn) bool {
	x := s.exchanges.Get().(*tcpExchange)
	defer func() {
		c.counters.take(&x.responder.tally)
		x.out = x.out[:0]
		s.exchanges.Put(x)
	}()
	at := min(c.skip, c.have)
	c.skip -= at
	ok := true
	for ok && c.asked < s.limits.queries && c.have-at >= lengthSize {
		length := int(binary.BigEndian.Uint16(c.buffer[at:]))
		looked := min(length, maxTCPQuery)
		if c.have-at-lengthSize < looked {
			break
		}
		at += lengthSize
		ok = x.reply(c.buffer[at : at+looked])
		at += looked
		c.asked++
		c.skip = length - looked
		if pass := min(c.skip, c.have-at); pass > 0 {
			at += pass
			c.skip -= pass
		}
		if len(x.out) >= flushAt {
			ok = c.flush(x, s.limits.write) && ok
		}
	}
	if at > 0 {
		c.have = copy(c.buffer[:], c.buffer[at:c.have])
		c.began = time.Now()
	}
	return c.flush(x, s.limits.write) && ok
}

// flush writes the replies collected. A reader that does not take them in time
// loses the connection.
func (c *tcpConn) flush(x *tcpExchange, limit time.Duration) bool {
	if len(x.out) == 0 {
		return true
	}
	c.conn.SetWriteDeadline(time.Now().Add(limit))
	_, err := c.conn.Write(x.out)
	x.out = x.out[:0]
	return err == nil
}

// linger ends a connection from our side without losing replies under way.
func (c *tcpConn) linger() {
	c.conn.CloseWrite()
	c.conn.SetReadDeadline(time.Now().Add(lingerTime))
	for read := 0; read < lingerOctets; {
		n, err := c.conn.Read(c.buffer[:])
		if err != nil {
			return
		}
		read += n
	}
}

// tcpExchange is what answering takes and idle connections do without.
type tcpExchange struct {
	responder *Responder
	out       []byte // whole replies with their prefixes
}

func newExchange(t *Tree, nsid string) *tcpExchange {
	return &tcpExchange{
		responder: NewResponder(t, nsid),
		out:       make([]byte, 0, flushAt+lengthSize+MaxTCP),
	}
}

// reply appends the reply to a message. A message that gets none (too short, a
// response) is no client's: false ends the connection.
func (x *tcpExchange) reply(message []byte) bool {
	start := len(x.out)
	out := append(x.out, 0, 0)
	out = x.responder.Reply(out, message, true)
	length := len(out) - start - lengthSize
	if length == 0 {
		return false
	}
	binary.BigEndian.PutUint16(out[start:], uint16(length))
	x.out = out
	return true
}
