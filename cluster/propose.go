package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

const (
	// usualEntry is the size at which a log entry is closed, maxEntry what none
	// exceeds: long entries delay heartbeats (raft.SuggestedMaxDataSize).
	usualEntry = 64 << 10
	maxEntry   = 256 << 10
	// maxQueue is how many proposals may wait, maxFlight how many entries are under
	// way at most.
	maxQueue  = 4096
	maxFlight = 4
	// enqueueTime is how long Raft may take to accept an entry.
	enqueueTime = 2 * time.Second
	// retryPause is the pause before a write looks for the leader again.
	retryPause = 20 * time.Millisecond
)

// Actor is who asks for a write, for the audit.
type Actor struct {
	ID     string // token id
	Source string // client address
	Reason string
	// Once makes the commands happen once however often they are proposed; the
	// zero value: each time.
	Once state.Once
}

// Propose stamps and replicates commands as one batch, through the leader
// wherever it is, and returns their results and the log index once this node has
// applied them. Commands beyond state.MaxBatch, or beyond what one log entry holds, are
// cut into several entries, one after the other; where a later one fails the
// results of the earlier are returned beside an error that is ErrUnknown.
func (n *Node) Propose(ctx context.Context, who Actor, commands ...state.Command) ([]state.Result, uint64, error) {
	entries := make([]state.Entry, len(commands))
	for i, c := range commands {
		entries[i] = state.Entry{Actor: who.ID, Source: who.Source, Reason: who.Reason, Once: who.Once.At(i), Command: c}
	}
	batches, err := cut(entries)
	if err != nil {
		return nil, 0, kindError{ErrNotCommitted, err}
	}
	var results []state.Result
	var index uint64
	for _, b := range batches {
		done := n.proposeBatch(ctx, b)
		if done.err != nil && len(results) > 0 {
			return results, index, kindError{ErrUnknown,
				fmt.Errorf("%d of %d commands are committed at %d, then: %w", len(results), len(commands), index, done.err)}
		}
		if done.err != nil {
			return nil, 0, done.err
		}
		results, index = append(results, done.results...), done.index
	}
	if err := n.WaitApplied(ctx, index); err != nil {
		return results, index, kindError{ErrUnknown, fmt.Errorf("committed at %d, but not seen here yet: %w", index, err)}
	}
	return results, index, nil
}

// batch is entries that go into one log entry.
type batch struct {
	entries []state.Entry
	octets  int
}

// cut divides entries into batches within the bounds.
func cut(entries []state.Entry) ([]batch, error) {
	var batches []batch
	var b batch
	for i := range entries {
		octets, err := entries[i].Encode()
		if err != nil {
			return nil, fmt.Errorf("encoding command %d: %w", i+1, err)
		}
		if octets > maxEntry {
			return nil, fmt.Errorf("command %d has %d octets, at most %d: cut it into smaller ones", i+1, octets, maxEntry)
		}
		if len(b.entries) > 0 && (len(b.entries) >= state.MaxBatch || b.octets+octets > usualEntry) {
			batches, b = append(batches, b), batch{}
		}
		b.entries, b.octets = append(b.entries, entries[i]), b.octets+octets
	}
	if len(b.entries) > 0 {
		batches = append(batches, b)
	}
	return batches, nil
}

// outcome is what became of a batch.
type outcome struct {
	results []state.Result
	index   uint64
	err     error
}

func failed(kind, cause error) outcome { return outcome{err: kindError{kind, cause}} }

// proposeBatch finds the leader and hands it the batch. It tries again only where
// the batch certainly was not taken.
func (n *Node) proposeBatch(ctx context.Context, b batch) outcome {
	if n.raft() == nil {
		return failed(ErrNotCommitted, errors.New("the node is not started"))
	}
	patience := time.NewTimer(n.tuning.patience)
	defer patience.Stop()
	for {
		var o outcome
		switch leader := n.Leader(); {
		case n.leads():
			o = n.batcher.submit(ctx, b)
		case leader != "" && leader != n.c.ID:
			o = n.forward(ctx, leader, b)
		default:
			o = failed(ErrNoLeader, nil)
		}
		if !errors.Is(o.err, ErrNoLeader) {
			return o
		}
		select {
		case <-time.After(retryPause):
		case <-patience.C:
			return o
		case <-ctx.Done():
			return o
		case <-n.fence.tripped:
			return failed(ErrNotCommitted, errFenced)
		case <-n.ctx.Done():
			return failed(ErrNotCommitted, errors.New("node closed"))
		}
	}
}

type proposeAsk struct {
	Batch []byte `cbor:"1,keyasint"`
}

type proposeReply struct {
	Results []state.Result `cbor:"1,keyasint"`
	Index   uint64         `cbor:"2,keyasint"`
}

// forward hands a batch to the leader over the node link.
func (n *Node) forward(ctx context.Context, leader string, b batch) outcome {
	data, err := state.EncodeBatch(b.entries)
	if err != nil {
		return failed(ErrNotCommitted, err)
	}
	var reply proposeReply
	ctx, done := n.during(ctx, leader)
	defer done()
	err = n.peers.call(ctx, leader, callPropose, proposeAsk{Batch: data}, &reply)
	switch {
	case err == nil && len(reply.Results) == len(b.entries):
		return outcome{results: reply.Results, index: reply.Index}
	case err == nil:
		return failed(ErrUnknown, fmt.Errorf("leader %s answered %d results for %d commands", leader, len(reply.Results), len(b.entries)))
	case errors.Is(err, errNotSent):
		return failed(ErrNoLeader, fmt.Errorf("leader %s cannot be reached: %w", leader, err))
	case errors.Is(err, ErrNotCommitted), errors.Is(err, ErrNoLeader), errors.Is(err, ErrUnknown):
		return outcome{err: err}
	default:
		return failed(ErrUnknown, fmt.Errorf("asking leader %s: %w", leader, err))
	}
}

// reign is the time of one leader, as this node sees it.
type reign struct {
	leader string
	over   context.Context
	end    context.CancelFunc
}

// followLeaders ends a reign when another leader is known.
func (n *Node) followLeaders() {
	news := make(chan raft.Observation, 1) // where it is full a look is due anyway
	observer := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft().RegisterObserver(observer)
	defer n.raft().DeregisterObserver(observer)
	for {
		old, leader := n.reign.Load(), n.Leader()
		if leader != "" && (old == nil || old.leader != leader) {
			over, end := context.WithCancel(n.ctx)
			n.reign.Store(&reign{leader, over, end})
			if old != nil {
				old.end()
			}
		}
		select {
		case <-news:
		case <-n.ctx.Done():
			return
		}
	}
}

// during is a context that also ends when another node leads: what a leader that
// hangs, or is cut off, has not answered by then it will not answer soon, and
// whoever waits could go on with the new one.
func (n *Node) during(ctx context.Context, leader string) (context.Context, func()) {
	r := n.reign.Load()
	if r == nil || r.leader != leader {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.over, cancel)
	return ctx, func() { stop(); cancel() }
}

// takeForwarded is the leader's side of forward.
func (n *Node) takeForwarded(ctx context.Context, ask proposeAsk) (proposeReply, error) {
	if !n.leads() {
		return proposeReply{}, kindError{ErrNoLeader, fmt.Errorf("node %s does not lead", n.c.ID)}
	}
	if len(ask.Batch) > maxEntry {
		return proposeReply{}, kindError{ErrNotCommitted, fmt.Errorf("batch of %d octets, at most %d", len(ask.Batch), maxEntry)}
	}
	// Decoded before it is logged: what this node cannot read would stop it later.
	entries, err := state.DecodeBatch(ask.Batch)
	if err != nil {
		return proposeReply{}, kindError{ErrNotCommitted, err}
	}
	o := n.batcher.submit(ctx, batch{entries: entries, octets: len(ask.Batch)})
	return proposeReply{Results: o.results, Index: o.index}, o.err
}

// proposal is a batch that waits for its turn on the leader.
type proposal struct {
	batch
	taken atomic.Bool // by the batcher, or by its owner who gave up
	done  chan outcome
}

// batcher turns proposals into log entries: those that wait at the same moment
// share one, and one stamp.
type batcher struct {
	node   *Node
	queue  chan *proposal
	landed chan struct{}                 // an entry is no longer under way
	flying atomic.Int32                  // entries under way; of run alone but for figures
	hung   atomic.Pointer[chan struct{}] // closed when this leader's disk is given up
}

func newBatcher(n *Node) *batcher {
	b := &batcher{node: n, queue: make(chan *proposal, maxQueue), landed: make(chan struct{}, maxFlight)}
	b.giveUp()
	return b
}

// giveUp tells all who wait for this leader's disk to wait no more.
func (b *batcher) giveUp() {
	next := make(chan struct{})
	if hung := b.hung.Swap(&next); hung != nil {
		close(*hung)
	}
}

// submit hands a batch to this leader and waits for what becomes of it.
func (b *batcher) submit(ctx context.Context, ba batch) outcome {
	p := &proposal{batch: ba, done: make(chan outcome, 1)}
	if why := b.node.stopped(); why != "" && !ba.checks() {
		return failed(ErrStopped, errors.New(why))
	}
	gone := func(cause error) outcome {
		if p.taken.CompareAndSwap(false, true) {
			return failed(ErrNotCommitted, cause)
		}
		return failed(ErrUnknown, cause)
	}
	hung := *b.hung.Load()
	select {
	case b.queue <- p:
	default:
		// One that waits behind thousands would be given up by whoever asked.
		return failed(ErrBusy, fmt.Errorf("%d writes wait already: try again in a second", maxQueue))
	}
	select {
	case o := <-p.done:
		return o
	case <-hung:
		return gone(errors.New("the disk hangs, and this node leads no more"))
	case <-ctx.Done():
		return gone(ctx.Err())
	case <-b.node.fence.tripped:
		return gone(errFenced)
	case <-b.node.ctx.Done():
		return gone(errors.New("node closed"))
	}
}

// run is the batcher's goroutine. While an entry is under way proposals gather for
// the next, because what an entry costs (a sync, two messages, a wake-up of each
// goroutine on its way, on every node) is shared by all in it. Only full entries
// follow each other at once.
func (b *batcher) run() {
	var g group
	for {
		for flying := b.flying.Load(); len(g.list) == 0 || flying > 0 && (!g.full() || flying == maxFlight); {
			queue := b.queue
			if g.full() {
				queue = nil
			}
			select {
			case p := <-queue:
				g.add(p)
			case <-b.landed:
				flying = b.flying.Add(-1)
			case <-b.node.ctx.Done():
				return
			}
		}
		for more := true; more && !g.full(); {
			select {
			case p := <-b.queue:
				g.add(p)
			default:
				more = false
			}
		}
		if list := g.take(); len(list) > 0 {
			b.flying.Add(1)
			b.send(list)
		}
	}
}

// group is proposals that gather for an entry.
type group struct {
	list             []*proposal
	commands, octets int
	left             *proposal // the first that did not fit any more
}

func (g *group) full() bool { return g.left != nil }

func (g *group) add(p *proposal) {
	if len(g.list) > 0 && (g.commands+len(p.entries) > state.MaxBatch || g.octets+p.octets > usualEntry) {
		g.left = p
		return
	}
	g.list = append(g.list, p)
	g.commands, g.octets = g.commands+len(p.entries), g.octets+p.octets
}

// take gives those whose owners still wait, and begins the next group.
func (g *group) take() []*proposal {
	list := slices.DeleteFunc(g.list, func(p *proposal) bool { return !p.taken.CompareAndSwap(false, true) })
	left := g.left
	*g = group{}
	if left != nil {
		g.add(left)
	}
	return list
}

// send stamps and proposes a group, and tells each proposal its outcome later.
func (b *batcher) send(group []*proposal) {
	tell := func(o outcome) {
		b.landed <- struct{}{} // which has room for all
		for _, p := range group {
			own := o
			if o.err == nil {
				own.results, o.results = o.results[:len(p.entries):len(p.entries)], o.results[len(p.entries):]
			}
			p.done <- own
		}
	}
	at := b.node.rotator.clock.stamp()
	var entries []state.Entry
	for _, p := range group {
		for _, e := range p.entries {
			e.At = at
			entries = append(entries, e)
		}
	}
	data, err := state.EncodeBatch(entries)
	if err != nil {
		tell(failed(ErrNotCommitted, err))
		return
	}
	future := b.node.raft().Apply(data, enqueueTime)
	b.node.wg.Go(func() { tell(b.result(future, len(entries))) })
}

// result waits for one log entry.
func (b *batcher) result(f raft.ApplyFuture, commands int) outcome {
	if err := b.node.await(b.node.ctx, f); err != nil {
		return outcome{err: writeError(err)}
	}
	done, ok := f.Response().(applied)
	if !ok || len(done.results) != commands {
		return failed(ErrUnknown, fmt.Errorf("entry %d came back with %d results for %d commands", f.Index(), len(done.results), commands))
	}
	return outcome{results: done.results, index: done.index}
}

// writeError sorts the library's errors: did the write certainly not happen?
func writeError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		// Turned away before it was appended: another may take it.
		return kindError{ErrNoLeader, err}
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return kindError{ErrNotCommitted, err} // never appended
	default:
		// Leadership lost, node closed or fenced: the entry may be in the log of others.
		return kindError{ErrUnknown, err}
	}
}
