package cluster

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Calls between nodes are frames of CBOR (RFC 8949) behind a length of four
// octets, any number under way on one connection.
const (
	// maxFrame holds a batch of maxEntry octets, or its results.
	maxFrame = 4 << 20
	// maxCalls bounds the calls of one connection that are worked on.
	maxCalls = 128
	// writeTime is how long a frame may take to be taken by the kernel.
	writeTime = 5 * time.Second
	// callTime bounds a call whose caller set no limit.
	callTime = time.Minute
)

// callKind is what a call asks. Values are spoken between releases: never renumber.
type callKind uint8

const (
	callPropose  callKind = 1
	callStatus   callKind = 2
	callConfirm  callKind = 3
	callChange   callKind = 4
	callSum      callKind = 60
	callEvidence callKind = 30
	callWaiting  callKind = 31
	callHanded   callKind = 32
	callPairs    callKind = 70
	callProof    callKind = 80
)

type callRequest struct {
	ID   uint64          `cbor:"1,keyasint"`
	Kind callKind        `cbor:"2,keyasint"`
	Wait int64           `cbor:"3,keyasint"` // milliseconds that the caller waits
	Body cbor.RawMessage `cbor:"4,keyasint"`
}

type callReply struct {
	ID   uint64          `cbor:"1,keyasint"`
	Code callCode        `cbor:"2,keyasint"`
	Text string          `cbor:"3,keyasint,omitempty"`
	Body cbor.RawMessage `cbor:"4,keyasint,omitempty"`
}

// callCode carries the kind of an error across. Values are spoken between
// releases: never renumber.
type callCode uint8

const (
	codeDone         callCode = 0
	codeNotCommitted callCode = 1
	codeUnknown      callCode = 2
	codeNoLeader     callCode = 3 // the node asked does not lead
	codeFailed       callCode = 4
	codeStopped      callCode = 60 // the leader takes no writes
	codeBusy         callCode = 61 // the leader has too many under way
)

func codeOf(err error) callCode {
	switch {
	case err == nil:
		return codeDone
	case errors.Is(err, ErrUnknown):
		return codeUnknown
	case errors.Is(err, ErrStopped):
		return codeStopped
	case errors.Is(err, ErrBusy):
		return codeBusy
	case errors.Is(err, ErrNoLeader):
		return codeNoLeader
	case errors.Is(err, ErrNotCommitted):
		return codeNotCommitted
	default:
		return codeFailed
	}
}

func (r *callReply) err() error {
	switch r.Code {
	case codeDone:
		return nil
	case codeNotCommitted:
		return kindError{ErrNotCommitted, errors.New(r.Text)}
	case codeNoLeader:
		return kindError{ErrNoLeader, errors.New(r.Text)}
	case codeFailed:
		return errors.New(r.Text)
	case codeStopped:
		return &kindText{ErrStopped, r.Text}
	case codeBusy:
		return &kindText{ErrBusy, r.Text}
	default: // a code of a later release says nothing certain
		return kindError{ErrUnknown, errors.New(r.Text)}
	}
}

// kindError is a cause with one of the kinds that callers tell apart.
type kindError struct{ kind, cause error }

func (e kindError) Error() string {
	if e.cause == nil {
		return e.kind.Error()
	}
	return e.kind.Error() + ": " + e.cause.Error()
}

func (e kindError) Unwrap() []error { return []error{e.kind, e.cause} }

// kindText is an error that came over the link, whose text names its kind already.
type kindText struct {
	kind error
	text string
}

func (e *kindText) Error() string { return e.text }
func (e *kindText) Unwrap() error { return e.kind }

func writeFrame(c net.Conn, w *bufio.Writer, v any) error {
	body, err := cbor.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("frame of %d octets, at most %d", len(body), maxFrame)
	}
	if err := c.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	var size [4]byte
	binary.BigEndian.PutUint32(size[:], uint32(len(body)))
	w.Write(size[:]) // a bufio.Writer keeps its first error for Flush
	w.Write(body)
	return w.Flush()
}

func readFrame(r *bufio.Reader, v any) error { return readFrameOf(r, v, maxFrame) }

func readFrameOf(r *bufio.Reader, v any, most uint32) error {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > most {
		return fmt.Errorf("frame of %d octets, at most %d", n, most)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return cbor.Unmarshal(body, v)
}

// handler answers one call.
type handler func(ctx context.Context, peer string, kind callKind, body []byte) (reply any, err error)

// serveCalls answers calls on a connection until it ends.
func serveCalls(ctx context.Context, peer string, c net.Conn, handle handler) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := bufio.NewReader(c), bufio.NewWriter(c)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var writing sync.Mutex
	slots := make(chan struct{}, maxCalls)
	for {
		var q callRequest
		if err := readFrame(r, &q); err != nil {
			return
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			wait := min(max(time.Duration(q.Wait)*time.Millisecond, 0), callTime)
			ctx, cancel := context.WithTimeout(ctx, wait)
			defer cancel()
			body, err := handle(ctx, peer, q.Kind, q.Body)
			reply := callReply{ID: q.ID, Code: codeOf(err)}
			if err != nil {
				reply.Text = err.Error()
			}
			if body != nil {
				if reply.Body, err = cbor.Marshal(body); err != nil {
					reply.Code, reply.Text, reply.Body = codeUnknown, err.Error(), nil
				}
			}
			writing.Lock()
			defer writing.Unlock()
			if writeFrame(c, w, reply) != nil {
				c.Close()
			}
		})
	}
}

// errNotSent is a call that never left this node.
var errNotSent = errors.New("not sent")

// caller makes calls to one peer over one connection, dialled when needed.
type caller struct {
	dial func(ctx context.Context) (net.Conn, error)

	dialing chan struct{} // holds one: a dial at a time

	// mu guards conn.
	mu   sync.Mutex
	conn *callConn
}

func newCaller(dial func(ctx context.Context) (net.Conn, error)) *caller {
	return &caller{dial: dial, dialing: make(chan struct{}, 1)}
}

// call asks and waits. The error is or wraps errNotSent where the peer certainly
// did not get the request.
func (c *caller) call(ctx context.Context, kind callKind, ask, reply any) error {
	body, err := cbor.Marshal(ask)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	conn, err := c.connection(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotSent, err)
	}
	wait := callTime
	if deadline, ok := ctx.Deadline(); ok {
		wait = time.Until(deadline)
	}
	r, err := conn.exchange(ctx, callRequest{Kind: kind, Wait: wait.Milliseconds(), Body: body})
	if err != nil {
		return err
	}
	if err := r.err(); err != nil {
		return err
	}
	if reply == nil {
		return nil
	}
	return cbor.Unmarshal(r.Body, reply)
}

func (c *caller) live() *callConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	select {
	case <-c.conn.gone:
		return nil
	default:
		return c.conn
	}
}

func (c *caller) connection(ctx context.Context) (*callConn, error) {
	if conn := c.live(); conn != nil {
		return conn, nil
	}
	select {
	case c.dialing <- struct{}{}:
		defer func() { <-c.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if conn := c.live(); conn != nil {
		return conn, nil
	}
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := &callConn{
		conn: raw, w: bufio.NewWriter(raw),
		pending: make(map[uint64]chan *callReply), gone: make(chan struct{}),
	}
	go conn.read()
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	return conn, nil
}

// Close ends the connection.
func (c *caller) Close() {
	if conn := c.live(); conn != nil {
		conn.conn.Close()
		<-conn.gone
	}
}

// callConn is a connection with calls under way.
type callConn struct {
	conn net.Conn
	last atomic.Uint64
	gone chan struct{} // closed when the connection has ended

	// writing guards w.
	writing sync.Mutex
	w       *bufio.Writer

	// mu guards pending.
	mu      sync.Mutex
	pending map[uint64]chan *callReply
}

var errConnectionLost = errors.New("connection lost before the answer came")

func (c *callConn) exchange(ctx context.Context, q callRequest) (*callReply, error) {
	q.ID = c.last.Add(1)
	answer := make(chan *callReply, 1)
	c.mu.Lock()
	c.pending[q.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.pending, q.ID)
		c.mu.Unlock()
	}()
	c.writing.Lock()
	err := writeFrame(c.conn, c.w, q)
	c.writing.Unlock()
	if err != nil {
		// How much of it went out is not known.
		c.conn.Close()
		return nil, fmt.Errorf("sending call: %w", err)
	}
	select {
	case r := <-answer:
		return r, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.gone:
		select {
		case r := <-answer:
			return r, nil
		default:
			return nil, errConnectionLost
		}
	}
}

// read hands answers to those who wait.
func (c *callConn) read() {
	defer close(c.gone)
	defer c.conn.Close()
	r := bufio.NewReader(c.conn)
	for {
		reply := new(callReply)
		if err := readFrame(r, reply); err != nil {
			return
		}
		c.mu.Lock()
		answer := c.pending[reply.ID]
		delete(c.pending, reply.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- reply
		}
	}
}
