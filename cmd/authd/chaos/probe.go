package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// register is a TXT record that one client writes, each time a higher number:
// what a node may answer has a lower and an upper bound at every moment.
type register struct {
	domain, label string
	query         []byte // the question in wire form, without its id

	ceiling atomic.Int64            // the highest number ever sent to a node
	acked   atomic.Int64            // the highest acknowledged
	served  atomic.Int64            // the highest confirmed to be answered by every node
	seen    [nodeCount]atomic.Int64 // the highest that a node answered, or acknowledged
}

func (r *register) name() string { return r.label + "." + r.domain }

// value is the record's text for a number.
func value(number int64) string { return "v" + strconv.FormatInt(number, 10) }

// raise makes a bound at least n.
func raise(bound *atomic.Int64, n int64) {
	for {
		old := bound.Load()
		if old >= n || bound.CompareAndSwap(old, n) {
			return
		}
	}
}

// lowest is the oldest number that a node may answer from now on.
func (r *register) lowest(node int) int64 {
	return max(r.served.Load(), r.seen[node].Load())
}

// question is a query in wire form for the TXT record at a name, with the id 0.
func question(name string) []byte {
	const recursionDesired, typeTXT, classIN = 0x01, 16, 1
	q := []byte{0, 0, recursionDesired, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, typeTXT, 0, classIN)
}

// errWrong marks a reply that should not have been.
var errWrong = errors.New("wrong answer")

// readTXT is the first string of the first answer to a query of ours.
func readTXT(query, reply []byte) (string, error) {
	const header = 12
	if len(reply) < len(query) || !bytes.EqualFold(reply[header:len(query)], query[header:]) {
		return "", fmt.Errorf("%w: not our question", errWrong)
	}
	const replyBit, rcodeBits, authoritative = 0x80, 0x0f, 0x04
	if reply[2]&replyBit == 0 || reply[3]&rcodeBits != 0 || reply[2]&authoritative == 0 || binary.BigEndian.Uint16(reply[6:]) == 0 {
		return "", fmt.Errorf("%w: flags %02x%02x, %d answers", errWrong, reply[2], reply[3], binary.BigEndian.Uint16(reply[6:]))
	}
	// A compressed owner, type, class, TTL, length, and the first string's length.
	rr := reply[len(query):]
	if len(rr) < 13 || rr[0]&0xc0 != 0xc0 || len(rr) < 13+int(rr[12]) {
		return "", fmt.Errorf("%w: %x", errWrong, rr)
	}
	return string(rr[13 : 13+int(rr[12])]), nil
}

// tally counts what the queries to one node met.
type tally struct {
	asked, failed, own, wrong int64
	late                      int64         // of failed, answered all the same
	left                      int64         // of asked, answered or failed while the node was left alone
	gap                       time.Duration // the longest without an answer meanwhile
}

// probes ask every node all the time, and never twice.
type probes struct {
	w         *world
	each      time.Duration // a query to each node
	registers func() []*register
	report    func(format string, args ...any)

	mu    sync.Mutex // guards count and what the flights hold
	count [nodeCount]tally
	since time.Time // of the last take

	stop chan struct{}
	wg   sync.WaitGroup
}

// flight is a query under way.
type flight struct {
	at       time.Time // zero: none
	register *register
	lowest   int64
	touched  bool
	lost     bool // counted as failed; an answer would be late
}

// patience is how long an answer may take.
const patience = 2 * time.Second

const (
	sweepEvery = 100 * time.Millisecond
	burst      = 10      // queries that are sent at once
	socketRoom = 8 << 20 // for answers that come while this program waits for a processor
)

func (p *probes) start() error {
	p.stop = make(chan struct{})
	for i := range nodeCount {
		c, err := net.Dial("udp", address(i+1)+":53")
		if err != nil {
			return err
		}
		u := c.(*net.UDPConn)
		raw, err := u.SyscallConn()
		if err != nil {
			return err
		}
		if err := roomy(raw); err != nil {
			return err
		}
		b := &prober{p: p, node: i, conn: u, raw: raw, flights: make([]flight, 1<<16)}
		p.wg.Go(b.send)
		p.wg.Go(b.receive)
	}
	return nil
}

// roomy gives a socket a large buffer, past the system's limit where that is allowed.
func roomy(raw syscall.RawConn) (err error) {
	if e := raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketRoom) != nil {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, socketRoom)
		}
	}); e != nil {
		return e
	}
	return err
}

func (p *probes) end() {
	close(p.stop)
	p.wg.Wait()
}

// take gives what was counted since the last take.
func (p *probes) take() (all [nodeCount]tally) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, p.count, p.since = p.count, [nodeCount]tally{}, time.Now()
	return all
}

// prober asks one node.
type prober struct {
	p       *probes
	node    int
	conn    *net.UDPConn
	raw     syscall.RawConn
	flights []flight // guarded by probes.mu
	next    uint16
	query   []byte
	good    time.Time // the last good answer; zero after the node was touched
}

func (b *prober) touched() bool { return b.p.w.nodes[b.node].touched.Load() }

func (b *prober) send() {
	defer b.conn.Close()
	tick := time.NewTicker(burst * b.p.each)
	defer tick.Stop()
	for {
		select {
		case <-b.p.stop:
			return
		case <-tick.C:
		}
		registers := b.p.registers()
		if len(registers) == 0 {
			continue
		}
		for range burst {
			b.one(registers[rand.IntN(len(registers))])
		}
	}
}

func (b *prober) one(r *register) {
	b.query = append(b.query[:0], r.query...)
	b.p.mu.Lock()
	b.next++
	id := b.next
	binary.BigEndian.PutUint16(b.query, id)
	b.lose(&b.flights[id])
	b.flights[id] = flight{at: time.Now(), register: r, lowest: r.lowest(b.node), touched: b.touched()}
	b.p.count[b.node].asked++
	b.p.mu.Unlock()
	// An error here is an earlier query's ICMP; this one fails by its time.
	_, _ = b.conn.Write(b.query)
}

// lose counts a query that was not answered in time; the lock is held.
func (b *prober) lose(f *flight) {
	if f.at.IsZero() || f.lost {
		return
	}
	f.lost = true
	c := &b.p.count[b.node]
	switch {
	case (f.touched || b.touched()) && f.at.Before(b.p.since): // of the run before
	case f.touched || b.touched():
		c.own++
	default:
		c.failed++
		c.left++
		b.p.report("node-%d did not answer %s, asked at %s, within %s", b.node+1, f.register.name(), f.at.Format("15:04:05.000"), patience)
	}
}

func (b *prober) sweep() {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	touched := b.touched()
	for i := range b.flights {
		f := &b.flights[i]
		if f.at.IsZero() || f.lost {
			continue
		}
		f.touched = f.touched || touched
		if time.Since(f.at) > patience {
			b.lose(f)
		}
	}
}

// receive takes replies, and looks for queries without one whenever all that came
// is taken: a reply that waits here is no fault of the node.
func (b *prober) receive() {
	buf, swept := make([]byte, 4096), time.Now()
	for {
		select {
		case <-b.p.stop:
			return
		default:
		}
		// Errors are the deadline, and ICMP where nobody listens now.
		_ = b.conn.SetReadDeadline(time.Now().Add(sweepEvery))
		_ = b.raw.Read(func(fd uintptr) bool {
			for {
				n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				if err == nil && n >= 12 {
					b.take(buf[:n])
				}
			}
			if time.Since(swept) < sweepEvery {
				return false
			}
			b.sweep()
			swept = time.Now()
			return true
		})
	}
}

// take judges one reply.
func (b *prober) take(reply []byte) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	f := &b.flights[binary.BigEndian.Uint16(reply)]
	if f.at.IsZero() {
		return // of a query long ago
	}
	if f.lost {
		if !f.touched {
			b.p.count[b.node].late++
		}
		*f = flight{}
		return
	}
	r, c := f.register, &b.p.count[b.node]
	text, err := readTXT(r.query, reply)
	number := int64(-1)
	if err == nil {
		number, err = strconv.ParseInt(strings.TrimPrefix(text, "v"), 10, 64)
	}
	switch {
	case err != nil:
		c.wrong++
		b.p.report("node-%d answers %s: %v", b.node+1, r.name(), err)
	case number < f.lowest || number > r.ceiling.Load():
		c.wrong++
		b.p.report("node-%d answers %s with %d, not from %d (served %d, seen here %d) to %d", b.node+1, r.name(), number,
			f.lowest, r.served.Load(), r.seen[b.node].Load(), r.ceiling.Load())
	default:
		raise(&r.seen[b.node], number)
	}
	now := time.Now()
	if f.touched || b.touched() {
		b.good = time.Time{}
	} else {
		c.left++
		if !b.good.IsZero() {
			c.gap = max(c.gap, now.Sub(b.good))
		}
		b.good = now
	}
	*f = flight{}
}

// ask asks a node once, outside the probes.
func ask(n int, query []byte) (string, error) {
	c, err := net.Dial("udp", address(n)+":53")
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := c.Write(query); err != nil {
		return "", err
	}
	buf := make([]byte, 4096)
	k, err := c.Read(buf)
	if err != nil {
		return "", err
	}
	return readTXT(query, buf[:k])
}
