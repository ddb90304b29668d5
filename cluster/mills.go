package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"authd/keys"
)

const (
	// maxLent is how many pairs one call carries, and lendTime how long the node that
	// is asked waits for the first: its mill makes some twenty a second.
	maxLent  = 16
	lendTime = 5 * time.Second
	// lendPause is the pause between looks at what it could do without.
	lendPause = 50 * time.Millisecond
	// lendRest is how long a node is left alone that had none or did not answer, and
	// badRest one that gave what is no good.
	lendRest = 5 * time.Second
	badRest  = 10 * time.Minute
	// admittedFew is how many pairs a node remembers at least, to take none twice. It
	// is more than can wait for their place in the machine, which knows the others.
	admittedFew = 4 * keys.MaxStock
)

// mills shares RSA pairs between the nodes' mills. A node whose mill had none
// ready asks all voters for what they can do without. So the leader, which makes
// the keys of rotations, has the mills of all nodes, and a node whose own makes
// none has those of the others.
//
// A pair is sealed before it leaves the process that made it, for the node that
// asked, and is forgotten there: it is in one place at a time. If a call fails on
// its way, or a node ends, work is lost, and nothing else.
type mills struct {
	node *Node
	pool keys.Shared // nil: the source shares nothing
	host string      // which machine this is; empty: not known

	given, taken, refused atomic.Uint64

	// mu guards what follows.
	mu            sync.Mutex
	asking        map[string]bool // nodes that are being asked
	resting       map[string]time.Time
	recent, older map[[sha256.Size]byte]bool // public halves of pairs admitted
}

func newMills(n *Node) *mills {
	m := &mills{node: n, asking: make(map[string]bool), resting: make(map[string]time.Time), recent: make(map[[sha256.Size]byte]bool)}
	m.pool, _ = n.c.Source.(keys.Shared)
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil { // Linux alone has it
		m.host = strings.TrimSpace(string(id))
	}
	return m
}

// pairsAsk asks a node for pairs that it can do without.
type pairsAsk struct {
	Most int `cbor:"1,keyasint"`
}

type pairsReply struct {
	Pairs []sealedPair `cbor:"1,keyasint"`
}

// sealedPair is a pair on its way from one node to another.
type sealedPair struct {
	Payload string `cbor:"1,keyasint"`
	Sealed  []byte `cbor:"2,keyasint"` // under the cluster's key-encryption key
}

// passage binds a sealed pair to its public half and its way: it opens for no other
// node, and for no key of a claim, whose tokens look otherwise.
func passage(from, to, payload string) keys.Binding {
	return keys.Binding{Token: "pair from " + from + " to " + to, Selector: payload}
}

// holds says whether this node has the key-encryption keys that are in use, and
// they open what they should: one without them has nothing to give, nor to take.
func (m *mills) holds() bool {
	n := m.node
	return unheld(n.Machine(), n.c.Keeper) == "" && slices.Contains(n.c.Keeper.Versions(), n.wrapVersion()) && n.seals.problemNow() == ""
}

// run asks the voters whenever this node's mill had no pair ready.
func (m *mills) run() {
	if m.pool == nil {
		return
	}
	for {
		select {
		case <-m.pool.Starved():
		case <-m.node.ctx.Done():
			return
		}
		if m.node.fence.err() != nil || !m.holds() {
			continue
		}
		for _, member := range m.node.others() {
			if member.Voter && m.begin(member.ID) {
				m.node.wg.Go(func() { m.end(member.ID, m.takeFrom(member)) })
			}
		}
	}
}

// begin says whether a node is to be asked now. One goroutine asks each, so that a slow
// node holds up nobody.
func (m *mills) begin(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asking[id] || time.Now().Before(m.resting[id]) {
		return false
	}
	m.asking[id] = true
	return true
}

func (m *mills) end(id string, rest time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.asking, id)
	m.resting[id] = time.Now().Add(rest)
}

// takeFrom takes pairs of a node while this one lacks some, and says how long to
// leave it alone.
func (m *mills) takeFrom(member Member) (rest time.Duration) {
	for m.node.ctx.Err() == nil {
		lack := min(m.pool.Lack(), maxLent)
		if lack == 0 {
			return 0
		}
		ctx, cancel := context.WithTimeout(m.node.ctx, 2*lendTime)
		var r pairsReply
		err := m.node.peers.callMember(ctx, member, callPairs, pairsAsk{lack}, &r)
		cancel()
		if err != nil {
			m.node.logger.Debug("asking for keys", "node", member.ID, "error", err)
			return lendRest
		}
		if len(r.Pairs) == 0 {
			return lendRest
		}
		if err := m.takeAll(member.ID, r.Pairs, lack); err != nil {
			if m.node.ctx.Err() == nil {
				m.refused.Add(1)
				m.node.logger.Warn("a key that another node made is refused, and no more are taken of it for some time", "node", member.ID, "error", err, "rest", badRest)
			}
			return badRest
		}
	}
	return 0
}

// takeAll checks pairs and puts them where this node's own are.
func (m *mills) takeAll(from string, list []sealedPair, most int) error {
	if len(list) > most {
		return fmt.Errorf("%d pairs where %d were asked for", len(list), most)
	}
	for _, s := range list {
		p, err := m.admit(from, s)
		if err != nil {
			return err
		}
		if err := m.pool.Put(m.node.ctx, p); err != nil {
			return err
		}
		m.taken.Add(1)
	}
	return nil
}

// admit opens a pair that another node made, and takes nothing on trust.
func (m *mills) admit(from string, s sealedPair) (*keys.Pair, error) {
	compact, err := m.node.c.Keeper.Open(passage(from, m.node.c.ID, s.Payload), s.Sealed)
	if err != nil {
		return nil, err
	}
	defer clear(compact)
	p, err := keys.Admit(s.Payload, compact)
	if err != nil {
		return nil, err
	}
	if m.node.Machine().Publishes(s.Payload) || !m.first(s.Payload) {
		return nil, errors.New("the key is in use, or was given before")
	}
	return p.From(from), nil
}

// first says whether a public half was not admitted before, and notes it.
func (m *mills) first(payload string) bool {
	sum := sha256.Sum256([]byte(payload))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.recent[sum] || m.older[sum] {
		return false
	}
	if len(m.recent) == admittedFew {
		m.older, m.recent = m.recent, make(map[[sha256.Size]byte]bool)
	}
	m.recent[sum] = true
	return true
}

// give answers a node that lacks pairs with what this one can do without.
func (m *mills) give(ctx context.Context, to string, a pairsAsk) (r pairsReply, err error) {
	if m.pool == nil || !m.pool.Makes() || m.node.fence.err() != nil || !m.holds() {
		return r, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lendTime)
	defer cancel()
	for {
		for len(r.Pairs) < min(a.Most, maxLent) {
			p, ok := m.pool.TakeSpare()
			if !ok {
				break
			}
			s, err := m.sealFor(to, p)
			if err != nil {
				return pairsReply{}, err
			}
			r.Pairs = append(r.Pairs, s)
		}
		if len(r.Pairs) > 0 || a.Most <= 0 {
			m.given.Add(uint64(len(r.Pairs)))
			return r, nil
		}
		select {
		case <-time.After(lendPause):
		case <-ctx.Done():
			return r, nil
		case <-m.node.ctx.Done():
			return r, nil
		}
	}
}

func (m *mills) sealFor(to string, p *keys.Pair) (sealedPair, error) {
	compact := p.Compact()
	defer clear(compact)
	n := m.node
	sealed, err := n.c.Keeper.SealUnder(n.c.Random, n.wrapVersion(), passage(n.c.ID, to, p.Payload()), compact)
	return sealedPair{Payload: p.Payload(), Sealed: sealed}, err
}

// millStatus is what a node's mill does for other nodes.
type millStatus struct {
	Makes bool `cbor:"1,keyasint,omitempty"` // it makes pairs, and they can be sealed
	Spare int  `cbor:"2,keyasint,omitempty"` // how many of those ready it would give
	// Work is what a pair takes of a processor; 0: not known yet.
	Work time.Duration `cbor:"3,keyasint,omitempty"`
	// Host is the machine, as far as that is known, and Processors how many it has:
	// mills on one machine share them.
	Host       string `cbor:"4,keyasint,omitempty"`
	Processors int    `cbor:"5,keyasint,omitempty"`
}

// status is what this node tells of its source: the pairs that are ready, the time
// for one more (0: not known), and what it does for others.
func (m *mills) status() (ready int, pace time.Duration, s millStatus) {
	source := m.node.c.Source
	if p, ok := source.(keys.Paced); ok {
		pace, s.Work = p.Pace()
	}
	if m.pool != nil && m.pool.Makes() && m.holds() {
		s.Makes, s.Spare = true, m.pool.Spare()
	}
	s.Host, s.Processors = m.host, runtime.NumCPU()
	return source.Ready(), pace, s
}

// KeyPace says how many RSA keys are ready for a rotation, and how long each further one
// takes with the mills of all voters; 0 where that is not known. A node that does not
// answer within a second counts as making none; where the leader does not, this node
// stands for it.
func (n *Node) KeyPace(ctx context.Context) (ready int, pace time.Duration) {
	var others []Member
	for _, m := range n.others() {
		if m.Voter {
			others = append(others, m)
		}
	}
	replies := n.askAll(ctx, others)
	own := statusReply{}
	own.Ready, own.Pace, own.Mill = n.mills.status()
	replies[n.c.ID] = own
	lead := n.Leader()
	if _, ok := replies[lead]; !ok {
		lead = n.c.ID
	}
	ready, pace = replies[lead].Ready, replies[lead].Pace
	var makers []statusReply
	for id, r := range replies {
		if r.Mill.Makes {
			makers = append(makers, r)
			if id != lead {
				ready += r.Mill.Spare
			}
		}
	}
	if len(makers) > 0 {
		pace = paceOf(makers)
	}
	return ready, pace
}

// paceOf is the time for a pair where several mills make them: their paces add up,
// but those on one machine make no more than its processors do. One that was not
// measured yet is taken for the mean of the others; 0 where none was.
func paceOf(makers []statusReply) time.Duration {
	type machine struct {
		rate, work       float64 // pairs a second as measured; seconds of a processor for one
		mills, processor int
	}
	known := 0
	hosts := make(map[string]*machine)
	for i, r := range makers {
		if r.Pace <= 0 {
			continue
		}
		known++
		name := r.Mill.Host
		if name == "" {
			name = fmt.Sprintf("machine of mill %d", i)
		}
		h := hosts[name]
		if h == nil {
			h = &machine{processor: max(r.Mill.Processors, 1)}
			hosts[name] = h
		}
		h.rate += 1 / r.Pace.Seconds()
		h.work += max(r.Mill.Work, time.Microsecond).Seconds()
		h.mills++
	}
	if known == 0 {
		return 0
	}
	all := 0.0
	for _, h := range hosts {
		all += min(h.rate, float64(h.processor)*float64(h.mills)/h.work)
	}
	all *= float64(len(makers)) / float64(known)
	return time.Duration(float64(time.Second) / all)
}
