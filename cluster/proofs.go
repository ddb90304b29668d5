package cluster

import (
	"container/heap"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"authd/cluster/state"
	"authd/zone"
)

const (
	// proofFirst is how long after a claim its parent is asked first, and the least
	// time between two looks. Each pause is longer by proofShare-th of itself, which
	// makes it that share of the time waited, up to proofMost: as Cloudflare asks for
	// custom host names. In its 14 days a claim is asked about some 180 times.
	proofFirst = time.Minute
	proofShare = 20
	proofMost  = 4 * time.Hour
	// proofTick is the time between rounds, proofsRound how many looks one begins and
	// proofsFlight how many are under way: what a parent's servers say decides how
	// long each takes.
	proofTick    = time.Second
	proofsRound  = 20
	proofsFlight = 64
	// proofTime bounds one look.
	proofTime = 20 * time.Second
	// maxProofs is how many claims are remembered, and maxContested how many of them
	// because their names are contested, which may be for ever. Others come in as these
	// go; more could not all be asked within proofMost anyway.
	maxProofs    = 200_000
	maxContested = 100_000
	// sharedStep is how many entries of the indexes of names a round goes through in
	// search of contested ones: some twenty minutes for a million.
	sharedStep = 1000
	// proofsAnew is the time after which all pending claims are gone through again: a
	// restore may bring older ones.
	proofsAnew = 10 * time.Minute
	// maxProofSaid bounds what is kept of why nothing was proven.
	maxProofSaid = 200
)

// Outcomes of a look at a pending claim's parent, or at the CNAMEs of a contested one.
const (
	ProofFound   = "found"   // the CNAMEs lead to this claim
	ProofMissing = "missing" // the parent does not delegate to this claim, or no CNAME leads to it
	ProofUnasked = "unasked" // nobody could be asked, which says nothing of the claim
	ProofRefused = "refused" // it does, and that is not enough: Detail says why

	proofProven    = "proven"    // and pending no more
	proofUnsettled = "unsettled" // it may not be committed
)

// ProofCheck is how the asking for a pending or contested claim's proof stands.
type ProofCheck struct {
	Outcome string `cbor:"1,keyasint"` // of the last look; empty: this leader has not looked yet
	Detail  string `cbor:"2,keyasint"`
	At      int64  `cbor:"3,keyasint"` // of the last look, in seconds since 1970; 0: none yet
	Next    int64  `cbor:"4,keyasint"` // when the next is due
}

// ProofCounts are what became of the looks since this node started.
type ProofCounts struct{ Proven, Found, Missing, Unasked, Refused uint64 }

// prover asks, on the leader, the parents of pending claims whether they delegate by
// now, so that a customer who did his part need not tell anybody. It proposes what
// anybody may by verify; Apply decides. What it remembers is its own: another leader
// begins at what the claims' age says.
//
// In mode cname a proof only matters where several tenants might sign for one name. It
// goes through the names in search of those, and looks at their claims for as long as
// they are contested: a customer may move from one to another.
type prover struct {
	node *Node

	// mu guards what follows.
	mu     sync.Mutex
	known  map[state.Token]*proof
	queue  proofQueue
	from   int64     // of the claim that was taken in last: since when it waits
	anew   time.Time // when all claims are read again
	shared string    // where the search for contested names goes on; "": it begins
	since  uint64    // the index of the machine in which it began
	// contested is how many of known are.
	contested int
	flight    int // looks under way
	counts    ProofCounts
}

// proof is a pending or contested claim that is in the queue, or being looked at. The
// prover's mu guards it.
type proof struct {
	ProofCheck
	state.Waiting
}

// dueProof is one to be looked at now.
type dueProof struct {
	*proof
	domain *state.Domain
}

// proofQueue is a heap, the earliest first.
type proofQueue []*proof

func (q proofQueue) Len() int           { return len(q) }
func (q proofQueue) Less(i, j int) bool { return q[i].Next < q[j].Next }
func (q proofQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *proofQueue) Push(x any)        { *q = append(*q, x.(*proof)) }
func (q *proofQueue) Pop() any {
	last := len(*q) - 1
	p := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return p
}

// run is the prover's goroutine.
func (p *prover) run() {
	for {
		if p.node.leads() {
			for _, due := range p.round(p.node.Machine(), p.node.c.Now()) {
				p.node.wg.Go(func() { p.look(due) })
			}
		} else {
			p.forget()
		}
		select {
		case <-time.After(proofTick):
		case <-p.node.ctx.Done():
			return
		}
	}
}

// forget empties the queue: another node leads, and asks.
func (p *prover) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known, p.queue, p.from, p.anew = nil, nil, 0, time.Time{}
	p.shared, p.since, p.contested = "", 0, 0
}

// round takes new claims in, and gives those to be looked at now.
func (p *prover) round(m state.Machine, now time.Time) (due []dueProof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.takeIn(m, now)
	p.takeContested(m, now)
	for len(p.queue) > 0 && p.queue[0].Next <= now.Unix() && len(due) < proofsRound && p.flight < proofsFlight {
		c := heap.Pop(&p.queue).(*proof)
		d, ok := m.Domain(c.Token)
		if !ok || !stillWaits(m, d, c.Waiting) {
			delete(p.known, c.Token)
			if c.Contested != "" {
				p.contested--
			}
			continue
		}
		due = append(due, dueProof{c, d})
		p.flight++
	}
	return due
}

// takeIn adds the claims that wait since the last round. mu is held.
func (p *prover) takeIn(m state.Machine, now time.Time) {
	if p.known == nil {
		p.known = make(map[state.Token]*proof)
	}
	if !now.Before(p.anew) {
		p.from, p.since, p.anew = 0, 0, now.Add(proofsAnew)
	}
	for w := range m.Pending(p.from) {
		if c, ok := p.known[w.Token]; ok {
			c.Waiting = w // it may wait anew
			p.from = w.Since
			continue
		}
		if len(p.known) >= maxProofs {
			return
		}
		p.add(w, now)
		p.from = w.Since
	}
}

func (p *prover) add(w state.Waiting, now time.Time) {
	c := &proof{ProofCheck{Next: firstProof(w, now)}, w}
	p.known[w.Token] = c
	heap.Push(&p.queue, c)
}

// takeContested goes on through the names that several claims share, and adds the claims
// whose CNAMEs decide between them. It begins again where something was written since.
// mu is held.
func (p *prover) takeContested(m state.Machine, now time.Time) {
	if p.node.c.CNAMEs == nil || m.Settings().VerificationOff {
		return
	}
	if p.shared == "" {
		if p.since == m.Index() {
			return
		}
		p.since = m.Index()
	}
	var names []zone.Name
	names, p.shared = m.Shared(p.shared, sharedStep)
	for _, n := range names {
		for _, w := range m.Contest(n) {
			if p.known[w.Token] == nil && p.contested < maxContested && len(p.known) < maxProofs {
				p.add(w, now)
				p.contested++
			}
		}
	}
}

// stillWaits says whether a claim waits for what it was taken in for.
func stillWaits(m state.Machine, d *state.Domain, w state.Waiting) bool {
	if w.Contested == "" {
		return d.State == state.Pending
	}
	return slices.ContainsFunc(m.Contest(w.Contested), func(o state.Waiting) bool { return o.Token == d.Token })
}

// proofPause is the time until the next look at a claim, by how long it has waited.
func proofPause(since int64, now time.Time) time.Duration {
	waited := now.Sub(time.Unix(since, 0))
	return min(proofFirst+max(0, waited)/proofShare, proofMost)
}

// firstProof is when a new leader looks first. It does not know when its predecessor
// looked, so it waits a part of the pause, a different one for each claim's token.
func firstProof(w state.Waiting, now time.Time) int64 {
	rest := proofPause(w.Since, now) * time.Duration(w.Token[0]) / 256
	return max(now.Add(rest).Unix(), w.Since+int64(proofFirst/time.Second))
}

// look asks a claim's parent, or for its CNAMEs, proposes what that says, and notes what
// came of it.
func (p *prover) look(due dueProof) {
	ctx, cancel := context.WithTimeout(p.node.ctx, proofTime)
	defer cancel()
	ask := p.ask
	if due.domain.Mode == zone.CNAME {
		ask = p.askCNAMEs
	}
	outcome, detail := ask(ctx, due.domain)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flight--
	now := p.node.c.Now()
	pause := proofPause(due.Since, now)
	switch outcome {
	case proofProven:
		p.counts.Proven++
		if due.domain.Mode == zone.CNAME {
			outcome = ProofFound // and it goes on
		}
	case ProofFound:
		p.counts.Found++
	case ProofMissing:
		p.counts.Missing++
	case ProofUnasked:
		p.counts.Unasked++
	case ProofRefused:
		p.counts.Refused++
	case proofUnsettled:
		outcome, pause = ProofUnasked, proofFirst
	}
	if p.known[due.Token] != due.proof {
		return // this node did not lead for a moment
	}
	said := strings.ToValidUTF8(detail[:min(len(detail), maxProofSaid)], "")
	due.ProofCheck = ProofCheck{outcome, said, now.Unix(), now.Add(pause).Unix()}
	heap.Push(&p.queue, due.proof) // one that is proven goes when its turn comes
}

// ask says what a look at the parent of a pending claim came to.
func (p *prover) ask(ctx context.Context, d *state.Domain) (outcome, detail string) {
	ns, servers, err := p.node.c.Parents(ctx, d.Name)
	if err != nil {
		return ProofUnasked, err.Error()
	}
	seen := p.node.Machine().Delegated(ns)
	if !slices.Contains(seen, d.Token) {
		return ProofMissing, ""
	}
	return p.propose(ctx, d, state.ProveDomain{Token: d.Token, Seen: seen, Servers: servers})
}

// askCNAMEs says what a look at the CNAMEs of a contested claim came to.
func (p *prover) askCNAMEs(ctx context.Context, d *state.Domain) (outcome, detail string) {
	found, proof, err := LookAtCNAMEs(ctx, p.node.Machine(), d, p.node.c.CNAMEs)
	switch {
	case err != nil:
		return ProofUnasked, err.Error()
	case !found:
		return ProofMissing, ""
	case proof == nil:
		return ProofFound, ""
	}
	return p.propose(ctx, d, *proof)
}

func (p *prover) propose(ctx context.Context, d *state.Domain, proof state.ProveDomain) (outcome, detail string) {
	results, _, err := p.node.Propose(ctx, Actor{ID: "prover"}, proof)
	switch {
	case err != nil:
		return proofUnsettled, err.Error()
	case results[0].Refusal != nil:
		return ProofRefused, results[0].Refusal.Message
	}
	p.node.logger.Info("a domain is proven: its customer's DNS leads to it", "domain", d.Name.Host(), "claim", d.Token, "no_longer", proof.Gone)
	return proofProven, ""
}

// check is what is known of a claim.
func (p *prover) check(t state.Token) (c ProofCheck) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.known[t]; known != nil {
		c = known.ProofCheck
	}
	return c
}

func (p *prover) counted() ProofCounts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}

// ProofCheck asks the leader how the asking for such a claim's proof stands; false
// where it does not ask for this one, or there is no leader to ask.
func (n *Node) ProofCheck(ctx context.Context, t state.Token) (c ProofCheck, ok bool) {
	if n.leads() {
		c = n.prover.check(t)
		return c, c.Next != 0
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if leader := n.Leader(); leader == "" || leader == n.c.ID || n.peers.call(ctx, leader, callProof, waitingAsk{t}, &c) != nil {
		return ProofCheck{}, false
	}
	return c, c.Next != 0
}
