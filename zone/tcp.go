package zone

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
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

	// streamBuffer is asked for both buffers of a connection; the kernel takes twice that.
	// Left alone it gives a reader that does not read megabytes of them, and there may be
	// thousands of such. A resolver a tenth of a second away gets a thousand answers a
	// second through it.
	streamBuffer = 64 << 10

	// drainAccept is how long a closing listener takes connections that were
	// established before it closed; what is left then is reset by the kernel.
	drainAccept = 20 * time.Millisecond
	// lastAccepts is how often that is repeated because more came meanwhile.
	lastAccepts = 50
	// drainFirst is how long such a connection, and one accepted shortly before, has
	// for its first message.
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
	l, err := adoptOr(s.config.inherited(true, address), 0, adoptTCP, func() (*net.TCPListener, error) { return listenTCP(address) })
	if err != nil {
		return nil, err
	}
	if err := boundBuffers(l); err != nil {
		l.Close()
		return nil, err
	}
	return &tcpListener{server: s, listener: l, counters: s.count("tcp", address)}, nil
}

// boundBuffers bounds what the kernel keeps for each connection that comes from a
// listener: they begin with its settings.
func boundBuffers(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(
			os.NewSyscallError("setsockopt SO_SNDBUF", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, streamBuffer)),
			os.NewSyscallError("setsockopt SO_RCVBUF", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, streamBuffer)))
	})
	return errors.Join(err, failed)
}

func (l *tcpListener) port() uint16 {
	return l.listener.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (l *tcpListener) stop() { l.listener.SetDeadline(time.Now().Add(drainAccept)) }

// pending says whether a connection waits to be accepted.
func (l *tcpListener) pending() (waits bool) {
	raw, err := l.listener.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		waits = err == nil && n > 0
	})
	return waits
}

func (l *tcpListener) run() {
	defer l.listener.Close()
	for again := 0; ; {
		if l.server.park() {
			if l.server.closing.Load() {
				return // who waits is a successor's
			}
			continue
		}
		conn, err := l.listener.AcceptTCP()
		switch {
		case err == nil:
			l.server.admit(conn, l.counters)
		case errors.Is(err, net.ErrClosed):
			return
		case l.server.pause.Load() != nil: // park
		case l.server.closing.Load():
			// Those established at the last moment; past that the kernel resets them.
			if again++; again > lastAccepts || l.server.shared.Load() || !l.pending() {
				return
			}
			l.stop()
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
	from     source
	// state is what the connection does: waitsSince, or one of the two below.
	state atomic.Int64
	gone  chan struct{} // closed when another took the connection's place

	buffer [lengthSize + maxTCPQuery]byte
	have   int       // octets in buffer
	skip   int       // octets of an overlong message still to be passed over
	began  time.Time // when the message in buffer began
	asked  int       // messages so far
}

const (
	connBusy    = -1 // answering
	connEvicted = -2
)

// waitsSince is the state of a connection that waits for octets since a time
// after the server's start: for a message, or in the middle of one.
func waitsSince(d time.Duration, midway, served bool) int64 {
	state := int64(d) << waitsBits
	if midway {
		state |= waitsMidway
	}
	if served {
		state |= waitsServed
	}
	return state
}

const (
	waitsMidway = 1 // in the middle of a message
	waitsServed = 2 // had an answer before
	waitsReader = 4 // for its client to take what it asked for
	waitsTurn   = 8 // to be answered
	waitsBits   = 4
)

// idle says whether a connection in a state waits for a message.
func idle(state int64) bool {
	return state >= 0 && state&(waitsMidway|waitsReader|waitsTurn) == 0
}

// spare is how soon a waiting connection makes room, lowest first: one that has
// nothing to lose, having had its answers or never asked for any; one that stopped
// in the middle of a message, or does not read; one that had answers and waits for its
// next turn; one whose replies are being written only now; then those that came only
// now and may be as good as the newcomer. One that waits for its first turn is not to
// spare at all. patience is since when a client would have sent its message.
func spare(state int64, patience time.Duration) int {
	old := time.Duration(state>>waitsBits) <= patience
	switch {
	case state&waitsTurn != 0 && state&waitsServed != 0:
		return 2
	case state&waitsTurn != 0:
		return spareNever
	case idle(state) && (old || state&waitsServed != 0):
		return 0
	case old:
		return 1
	case state&waitsReader != 0:
		return 3
	}
	return 4
}

const spareNever = 5

// admit starts serving a connection. Where there are too many, of its prefix or
// of all, one that waits makes room; it is turned away only where all are being
// answered or wait for their first answer.
func (s *Server) admit(conn *net.TCPConn, counts *counters) {
	remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	c := &tcpConn{conn: conn, counters: counts, from: sourceOf(remote, true), gone: make(chan struct{})}
	c.state.Store(waitsSince(time.Since(s.guard.started), false, false))
	if !s.place(c) {
		conn.Close()
		return
	}
	s.running.Go(func() {
		s.serve(c)
		conn.Close()
		s.mu.Lock()
		s.drop(c)
		s.mu.Unlock()
	})
}

// place takes a connection in, and says whether there was room.
func (s *Server) place(c *tcpConn) bool {
	prefix := c.from.prefix()
	s.mu.Lock()
	defer s.mu.Unlock()
	room := true
	if siblings := s.prefixes[prefix]; len(siblings) >= s.limits.prefix && !s.config.RateLimit.exempt(c.from.addr().Unmap()) {
		room = s.evict(siblings)
	}
	if room && len(s.conns) >= s.limits.connections {
		room = s.evict(s.conns)
	}
	if !room {
		s.refused++
		return false
	}
	s.accepted++
	s.conns[c] = struct{}{}
	if s.prefixes[prefix] == nil {
		s.prefixes[prefix] = map[*tcpConn]struct{}{}
	}
	s.prefixes[prefix][c] = struct{}{}
	return true
}

// drop forgets a connection. The caller holds mu.
func (s *Server) drop(c *tcpConn) {
	delete(s.conns, c)
	prefix := c.from.prefix()
	delete(s.prefixes[prefix], c)
	if len(s.prefixes[prefix]) == 0 {
		delete(s.prefixes, prefix)
	}
}

// evictSample bounds how many connections are looked at for one to evict. They
// come in no order, so that with thousands to choose from the longest waiting of
// some is taken, which is nearly the longest waiting of all.
const evictSample = 128

// evict closes a connection of a set that waits and says whether there was one.
// The caller holds mu.
func (s *Server) evict(set map[*tcpConn]struct{}) bool {
	const tries = 4 // the one chosen may get what it waits for meanwhile
	for range tries {
		c, state := s.choose(set)
		if c == nil {
			return false
		}
		if c.state.CompareAndSwap(state, connEvicted) {
			c.conn.Close()
			close(c.gone)
			s.drop(c)
			s.evicted++
			return true
		}
	}
	return false
}

// choose looks for the connection that evict closes: of those most to spare the
// one that has waited for longest.
func (s *Server) choose(set map[*tcpConn]struct{}) (chosen *tcpConn, state int64) {
	patience := time.Since(s.guard.started) - s.limits.stall
	best, looked := 0, 0
	for c := range set {
		if looked++; looked > evictSample {
			break
		}
		at := c.state.Load()
		if at < 0 {
			continue
		}
		rank := spare(at, patience)
		if rank == spareNever {
			continue
		}
		if chosen == nil || rank < best || rank == best && at < state {
			chosen, state, best = c, at, rank
		}
	}
	return chosen, state
}

func (s *Server) connectionStats() ConnectionStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ConnectionStats{Open: len(s.conns), Accepted: s.accepted, Evicted: s.evicted, Refused: s.refused}
}

// closeIdle closes every connection that waits for a message, but for one that
// came only now and whose first message is under way. One that begins to wait
// later sees closing itself.
func (s *Server) closeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		state := c.state.Load()
		if idle(state) && state&waitsServed == 0 && time.Since(s.guard.started)-time.Duration(state>>waitsBits) < drainFirst {
			c.conn.SetReadDeadline(time.Now().Add(drainFirst))
			continue
		}
		if idle(state) && c.state.CompareAndSwap(state, connEvicted) {
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
	began, deadline := c.began, c.began.Add(s.limits.message)
	if waits {
		began = time.Now()
		deadline = began.Add(s.limits.idle)
	}
	state := waitsSince(began.Sub(s.guard.started), !waits, c.asked > 0)
	c.state.Store(state)
	if waits {
		if s.closing.Load() {
			if c.asked > 0 {
				return false
			}
			deadline = began.Add(drainFirst) // accepted while closing
		}
	}
	c.conn.SetReadDeadline(deadline)
	if waits && s.closing.Load() && deadline.Sub(began) > drainFirst {
		c.conn.SetReadDeadline(began.Add(drainFirst)) // closeIdle may have come before the line above
	}
	n, err := c.conn.Read(c.buffer[c.have:])
	if !c.state.CompareAndSwap(state, connBusy) {
		return false // evicted
	}
	if waits {
		c.began = time.Now()
	}
	c.have += n
	return err == nil
}

// turn waits until the connection may be answered; false: another took its place
// meanwhile.
func (s *Server) turn(c *tcpConn) bool {
	select {
	case s.turns <- struct{}{}:
		return true
	default:
	}
	state := waitsSince(time.Since(s.guard.started), false, c.asked > 0) | waitsTurn
	c.state.Store(state)
	select {
	case s.turns <- struct{}{}:
	case <-c.gone:
		return false
	}
	if !c.state.CompareAndSwap(state, connBusy) {
		<-s.turns
		return false
	}
	return true
}

// answerBuffered answers every whole message in the buffer; false ends the
// connection. It takes turns, but for writing, which may wait for the reader and
// then holds no more than the replies.
func (s *Server) answerBuffered(c *tcpConn) bool {
	began, asked := time.Now(), c.asked
	defer func() {
		if c.asked > asked {
			c.counters.took(c.asked-asked, time.Since(began))
		}
	}()
	at := min(c.skip, c.have)
	c.skip -= at
	for more := true; more; {
		if !s.turn(c) {
			return false
		}
		out, ok := s.outs.Get().(*[]byte), false
		at, more, ok = s.answerSome(c, out, at)
		<-s.turns
		ok = s.flush(c, *out) && ok
		*out = (*out)[:0]
		s.outs.Put(out)
		if !ok {
			return false
		}
	}
	if at > 0 {
		c.have = copy(c.buffer[:], c.buffer[at:c.have])
		if c.skip == 0 { // else the message that began then goes on
			c.began = time.Now()
		}
	}
	return true
}

// answerSome appends to out the replies to the messages in the buffer from at on,
// until there are enough to be written, and says how far it got, whether there may
// be more, and whether the connection may go on.
func (s *Server) answerSome(c *tcpConn, out *[]byte, at int) (next int, more, ok bool) {
	r := s.responders.Get().(*Responder)
	defer s.responders.Put(r)
	defer c.counters.take(&r.tally)
	r.begin(time.Now())
	for c.asked < s.limits.queries && c.have-at >= lengthSize {
		length := int(binary.BigEndian.Uint16(c.buffer[at:]))
		looked := min(length, maxTCPQuery)
		if c.have-at-lengthSize < looked {
			break
		}
		at += lengthSize
		c.asked++
		if *out, ok = r.appendFramed(*out, c.buffer[at:at+looked], &c.from); !ok {
			return at, false, false
		}
		at += looked
		c.skip = length - looked
		if pass := min(c.skip, c.have-at); pass > 0 {
			at += pass
			c.skip -= pass
		}
		if len(*out) >= flushAt {
			return at, true, true
		}
	}
	return at, false, true
}

// flush writes replies. A reader that does not take them in time loses the
// connection, and sooner where its place is wanted.
func (s *Server) flush(c *tcpConn, out []byte) bool {
	if len(out) == 0 {
		return true
	}
	began := time.Now()
	state := waitsSince(began.Sub(s.guard.started), false, true) | waitsReader
	c.state.Store(state)
	c.conn.SetWriteDeadline(began.Add(s.limits.write))
	_, err := c.conn.Write(out)
	return c.state.CompareAndSwap(state, connBusy) && err == nil
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

// appendFramed appends the reply to a message with its length in front. A message
// that gets none (too short, a response) is no client's: false ends the connection.
func (r *Responder) appendFramed(out, message []byte, from *source) ([]byte, bool) {
	start := len(out)
	out = r.reply(append(out, 0, 0), message, from)
	length := len(out) - start - lengthSize
	if length == 0 {
		return out[:start], false
	}
	binary.BigEndian.PutUint16(out[start:], uint16(length))
	return out, true
}
