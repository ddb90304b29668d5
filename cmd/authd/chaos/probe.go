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
	"time"
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
	gap                       time.Duration // the longest without an answer while the node was left alone
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
}

// patience is how long an answer may take.
const patience = 2 * time.Second

func (p *probes) start() error {
	p.stop = make(chan struct{})
	for i := range nodeCount {
		c, err := net.Dial("udp", address(i+1)+":53")
		if err != nil {
			return err
		}
		u := c.(*net.UDPConn)
		if err := u.SetReadBuffer(4 << 20); err != nil {
			return err
		}
		b := &prober{p: p, node: i, conn: u, flights: make([]flight, 1<<16)}
		p.wg.Go(b.send)
		p.wg.Go(b.receive)
		p.wg.Go(b.sweep)
	}
	return nil
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
	flights []flight // guarded by probes.mu
	next    uint16
	good    time.Time // the last good answer; zero after the node was touched
}

func (b *prober) touched() bool { return b.p.w.nodes[b.node].touched.Load() }

func (b *prober) send() {
	defer b.conn.Close()
	tick := time.NewTicker(10 * b.p.each)
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
		for range 10 {
			r := registers[rand.IntN(len(registers))]
			b.one(r)
		}
	}
}

func (b *prober) one(r *register) {
	query := bytes.Clone(r.query)
	b.p.mu.Lock()
	b.next++
	id := b.next
	binary.BigEndian.PutUint16(query, id)
	b.lose(&b.flights[id])
	b.flights[id] = flight{at: time.Now(), register: r, lowest: r.lowest(b.node), touched: b.touched()}
	b.p.count[b.node].asked++
	b.p.mu.Unlock()
	// An error here is an earlier query's ICMP; this one fails by its time.
	_, _ = b.conn.Write(query)
}

// lose counts a query that was never answered; the lock is held.
func (b *prober) lose(f *flight) {
	if f.at.IsZero() {
		return
	}
	c := &b.p.count[b.node]
	switch {
	case (f.touched || b.touched()) && f.at.Before(b.p.since): // of the run before
	case f.touched || b.touched():
		c.own++
	default:
		c.failed++
		b.p.report("node-%d did not answer %s, asked at %s", b.node+1, f.register.name(), f.at.Format("15:04:05.000"))
	}
	*f = flight{}
}

func (b *prober) sweep() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-b.p.stop:
			return
		case <-tick.C:
		}
		b.p.mu.Lock()
		for i := range b.flights {
			f := &b.flights[i]
			if f.at.IsZero() {
				continue
			}
			f.touched = f.touched || b.touched()
			if time.Since(f.at) > patience {
				b.lose(f)
			}
		}
		b.p.mu.Unlock()
	}
}

func (b *prober) receive() {
	buf := make([]byte, 4096)
	for {
		n, err := b.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 12 {
			continue // ICMP: nobody listens there now
		}
		b.take(buf[:n])
	}
}

// take judges one reply.
func (b *prober) take(reply []byte) {
	b.p.mu.Lock()
	defer b.p.mu.Unlock()
	f := &b.flights[binary.BigEndian.Uint16(reply)]
	if f.at.IsZero() {
		return // too late
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
