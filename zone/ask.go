package zone

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// askPart is how many questions are sent at once, and askReused after how many a
	// connection is replaced: servers bound how many they take from one.
	askPart, askReused = 1024, 2048
	// askWrite is how long a server may take to take questions.
	askWrite = 2 * time.Second
	// askDeadline bounds an exchange whose caller set no limit, and askSilence how long
	// a connection may be silent before it is not used again: its server may be gone.
	askDeadline, askSilence = 10 * time.Second, 500 * time.Millisecond
)

// Question is what an authoritative server is asked.
type Question struct {
	Name Name
	Type Type
}

func (q Question) String() string { return q.Type.String() + " of " + q.Name.String() }

// message asks it, without recursion and without EDNS.
func (q Question) message(id uint16) ([]byte, error) {
	m := new(dns.Msg)
	m.SetQuestion(q.Name.String(), uint16(q.Type))
	m.Id, m.RecursionDesired = id, false
	wire, err := m.Pack()
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", q, err)
	}
	return wire, nil
}

// Asker asks authoritative servers over TCP, one connection a server, which is kept
// for as long as the server does; the questions of all callers are pipelined on it
// (RFC 7766 section 6.2.1.1). Safe for concurrent use.
type Asker struct {
	mirrors sync.Pool // of *mirror

	// mu guards what follows.
	mu      sync.Mutex
	servers map[string]*askServer
	closed  bool
}

// askServer is the connection to one server.
type askServer struct {
	dialing chan struct{} // holds one value while somebody dials
	conn    *askConn      // nil: none yet; guarded by Asker.mu
}

// NewAsker makes an Asker whose Sight compares replies with those of a tree. Close it.
func NewAsker(t *Tree) *Asker {
	a := &Asker{servers: make(map[string]*askServer)}
	a.mirrors.New = func() any { return &mirror{NewResponder(t, ""), make([]byte, 0, MaxTCP)} }
	return a
}

// Close ends its connections.
func (a *Asker) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, s := range a.servers {
		if s.conn != nil {
			s.conn.conn.Close()
		}
	}
}

// Ask gives a server's replies, in the order of the questions, with ID 0. The error
// is of the connection: nothing is known then.
func (a *Asker) Ask(ctx context.Context, server string, questions []Question) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askDeadline)
	defer cancel()
	var replies [][]byte
	for len(questions) > 0 {
		part := questions[:min(len(questions), askPart)]
		some, err := a.ask(ctx, server, part)
		if err != nil {
			return nil, fmt.Errorf("asking the DNS listener at %s: %w", server, err)
		}
		replies, questions = append(replies, some...), questions[len(part):]
	}
	return replies, nil
}

// ask asks once more where the server had closed the connection that was kept.
func (a *Asker) ask(ctx context.Context, server string, questions []Question) ([][]byte, error) {
	for {
		c, kept, err := a.connection(ctx, server, len(questions))
		if err != nil {
			return nil, err
		}
		replies, err := c.exchange(ctx, questions)
		if err == nil || !kept || ctx.Err() != nil {
			return replies, err
		}
	}
}

// connection finds the one that is kept, or makes one.
func (a *Asker) connection(ctx context.Context, server string, questions int) (c *askConn, kept bool, err error) {
	s, c := a.kept(server, questions)
	if c != nil {
		return c, true, nil
	}
	select {
	case s.dialing <- struct{}{}: // of many who come at once one dials
		defer func() { <-s.dialing }()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	if _, c := a.kept(server, questions); c != nil {
		return c, true, nil
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, false, err
	}
	c = &askConn{conn: conn, asked: questions, pending: make(map[uint16]asking), gone: make(chan struct{})}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		conn.Close()
		return nil, false, net.ErrClosed
	}
	s.conn = c
	go c.read()
	return c, false, nil
}

// kept finds the connection that is kept and takes so many more questions, or nil.
func (a *Asker) kept(server string, questions int) (*askServer, *askConn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.servers[server]
	if s == nil {
		s = &askServer{dialing: make(chan struct{}, 1)}
		a.servers[server] = s
	}
	if s.conn == nil || !s.conn.take(questions) {
		return s, nil
	}
	return s, s.conn
}

// askConn is a connection with questions under way.
type askConn struct {
	conn net.Conn
	gone chan struct{} // closed when the connection has ended

	writing sync.Mutex // one message after the other

	// mu guards what follows.
	mu      sync.Mutex
	asked   int
	last    uint16
	heard   time.Time // when the last reply came
	pending map[uint16]asking
}

// asking is a question under way. Its replies belong to the caller once all are there.
type asking struct {
	question []byte // as sent, from the header on
	of       *askBatch
	at       int
}

type askBatch struct {
	replies [][]byte
	left    int
	done    chan struct{}
}

// take says whether the connection may carry so many more questions. One that may not
// is closed once it has answered all it was asked.
func (c *askConn) take(questions int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.gone:
		return false
	default:
	}
	if c.asked+questions > askReused {
		c.asked = askReused
		c.retire()
		return false
	}
	c.asked += questions
	return true
}

// retire closes a used up connection that has nothing under way.
func (c *askConn) retire() {
	if c.asked >= askReused && len(c.pending) == 0 {
		c.conn.Close()
	}
}

func (c *askConn) exchange(ctx context.Context, questions []Question) ([][]byte, error) {
	b := &askBatch{replies: make([][]byte, len(questions)), left: len(questions), done: make(chan struct{})}
	out, ids, err := c.begin(b, questions)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	c.writing.Lock()
	err = c.conn.SetWriteDeadline(began.Add(askWrite))
	if err == nil {
		_, err = c.conn.Write(out)
	}
	c.writing.Unlock()
	if err != nil {
		c.conn.Close()
		return nil, err
	}
	select {
	case <-b.done:
		return b.replies, nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-c.gone:
		select {
		case <-b.done:
			return b.replies, nil
		default:
			err = errors.New("the connection ended before all replies were there")
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		delete(c.pending, id)
	}
	if c.heard.Before(began) && time.Since(began) > askSilence {
		c.conn.Close()
	}
	return nil, err
}

// begin gives questions their IDs and makes the octets to send.
func (c *askConn) begin(b *askBatch, questions []Question) (out []byte, ids []uint16, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, q := range questions {
		c.last++ // no ID is used twice: a connection is given up long before
		wire, err := q.message(c.last)
		if err != nil {
			return nil, nil, err
		}
		c.pending[c.last] = asking{wire[headerSize:], b, i}
		ids = append(ids, c.last)
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(wire))), wire...)
	}
	return out, ids, nil
}

// read hands replies to those who ask.
func (c *askConn) read() {
	defer close(c.gone)
	defer c.conn.Close()
	for {
		var size [lengthSize]byte
		if _, err := io.ReadFull(c.conn, size[:]); err != nil {
			return
		}
		reply := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c.conn, reply); err != nil || len(reply) < headerSize {
			return
		}
		if !c.deliver(binary.BigEndian.Uint16(reply), reply) {
			return
		}
	}
}

// deliver hands a reply to its caller; false for one that no server of ours sends.
func (c *askConn) deliver(id uint16, reply []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.pending[id]
	if !ok {
		return true // the caller has given up
	}
	if !bytes.HasPrefix(reply[headerSize:], a.question) {
		return false
	}
	delete(c.pending, id)
	c.heard = time.Now()
	reply[0], reply[1] = 0, 0
	a.of.replies[a.at] = reply
	if a.of.left--; a.of.left == 0 {
		close(a.of.done)
	}
	c.retire()
	return true
}

// Told is what a server answered for a name's TXT.
type Told struct {
	Text string // of the one record, its strings joined
	// Problem is why there is no Text: "NXDOMAIN", "no TXT record"; empty otherwise.
	Problem string
}

// Texts asks a server for the TXT of names, in their order.
func (a *Asker) Texts(ctx context.Context, server string, names []Name) ([]Told, error) {
	questions := make([]Question, len(names))
	for i, n := range names {
		questions[i] = Question{n, TypeTXT}
	}
	replies, err := a.Ask(ctx, server, questions)
	if err != nil {
		return nil, err
	}
	told := make([]Told, len(replies))
	for i, reply := range replies {
		var m dns.Msg
		if err := m.Unpack(reply); err != nil {
			return nil, fmt.Errorf("reading what %s answers: %w", server, err)
		}
		told[i] = toldBy(&m)
	}
	return told, nil
}

func toldBy(m *dns.Msg) Told {
	switch {
	case m.Rcode != dns.RcodeSuccess:
		return Told{Problem: dns.RcodeToString[m.Rcode]}
	case !m.Authoritative:
		return Told{Problem: "an answer without authority"}
	case len(m.Answer) != 1:
		return Told{Problem: fmt.Sprintf("%d records", len(m.Answer))}
	}
	txt, ok := m.Answer[0].(*dns.TXT)
	if !ok {
		return Told{Problem: "no TXT record"}
	}
	return Told{Text: strings.Join(txt.Txt, "")}
}
