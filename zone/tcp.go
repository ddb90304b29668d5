package zone

import (
	"encoding/binary"
	"net"
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

	// drainFirst is how long a connection that came just before closing, or while it
	// lasts, has for its first message.
	drainFirst = 200 * time.Millisecond

	// lingerTime and lingerOctets bound the reading after our last reply: closing
	// with unread octets would reset the connection and lose the reply.
	lingerTime   = time.Second
	lingerOctets = 64 << 10
)

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

// spare ranks a waiting connection by what closing it would lose, least first:
//
//	0  it had its answers, or had time to ask and did not
//	1  it stalls in a message, or does not read its replies
//	2  it had answers and waits for another turn
//	3  its replies are being written
//	4  it came just now
//
// One that waits for its first turn is spareNever. A client that has waited since
// patience, a time after the server's start, would have sent its message.
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

// admit starts serving a connection. Where its prefix, or the server, has too many, a
// waiting one makes room. The new one is turned away only where all the others are
// being answered or wait for their first answer.
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

// evictSample bounds how many connections are looked at for one to evict: the longest
// waiting of a random sample has waited nearly as long as any.
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

// choose finds the connection to evict: of those with the lowest rank the one that has
// waited longest.
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

// closeIdle closes every connection that waits for a message, except one that came
// just now, whose first message may be under way. One that begins to wait later sees
// for itself that the server is closing.
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
// connection. It holds a turn while it answers, and none while it writes, which may
// have to wait for the reader.
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

// flush writes replies. A client that does not read them in time loses the
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
