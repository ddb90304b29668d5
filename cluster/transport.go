package cluster

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transport is Raft's network transport with four corrections.
//
//   - Heartbeats take the ordinary way through the library's main goroutine: its
//     fast path changes term and state beside a running append, and nodes can
//     commit different data (hashicorp/raft issue 695).
//   - A leader whose disk hangs falls silent, so that the others elect another:
//     heartbeats come from goroutines of their own and would go on for ever
//     (hashicorp/raft issue 503).
//   - A node that lost entries it had acknowledged takes no part in elections.
//   - Replication rounds that carry no news are held back for a while instead of
//     being sent, so that a short CommitTimeout, which is what tells followers of a
//     commit, costs nothing while nothing happens.
type transport struct {
	*raft.NetworkTransport
	fence *fence
	// stalled says whether the local disk has held up an append for too long.
	stalled func() bool
	// abstains says whether this node must keep out of elections.
	abstains func() bool
	// quiet is how long a round without news may be held back; 0: never.
	quiet time.Duration

	consumer chan raft.RPC
	stop     chan struct{}

	// mu guards what follows. news is closed and replaced when entries were
	// appended or committed: up to these indexes.
	mu                  sync.Mutex
	news                chan struct{}
	appended, committed uint64
	sent                map[raft.ServerID]round
}

// round is the last replication round that a follower answered.
type round struct {
	term, previous, commit uint64
	at                     time.Time
}

var (
	errStalled  = errors.New("withheld: the local log store is stalled")
	errAbstains = errors.New("this node lost log entries and keeps out of elections until it has caught up")
)

func newTransport(t *raft.NetworkTransport, f *fence, quiet time.Duration) *transport {
	w := &transport{
		NetworkTransport: t, fence: f, quiet: quiet,
		stalled:  func() bool { return false },
		abstains: func() bool { return false },
		consumer: make(chan raft.RPC),
		stop:     make(chan struct{}),
		news:     make(chan struct{}),
		sent:     make(map[raft.ServerID]round),
	}
	return w
}

// SetHeartbeatHandler does nothing: see transport.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// AppendEntriesPipeline is not used: replication over a pipeline never resumes
// after a follower's disk hung (hashicorp/raft issue 612).
func (t *transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if len(args.Entries) > 0 {
		return t.send(id, target, args, resp)
	}
	if t.stalled() {
		return errStalled
	}
	heartbeat := args.PrevLogEntry == 0 && args.LeaderCommitIndex == 0
	if !heartbeat && t.hold(id, args) {
		// The follower said exactly this less than t.quiet ago. That is how much too
		// fresh the library now takes its contact to be; the lease is far longer.
		resp.Term, resp.LastLog, resp.Success = args.Term, args.PrevLogEntry, true
		return nil
	}
	return t.send(id, target, args, resp)
}

func (t *transport) send(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	if args.PrevLogEntry == 0 && len(args.Entries) == 0 {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil || !resp.Success || resp.Term != args.Term {
		delete(t.sent, id)
		return err
	}
	r := round{term: args.Term, previous: args.PrevLogEntry, commit: args.LeaderCommitIndex, at: time.Now()}
	if n := len(args.Entries); n > 0 {
		r.previous = args.Entries[n-1].Index
	}
	t.sent[id] = r
	return nil
}

// hold waits while a round would tell a follower nothing. It is false when the
// round is to be sent, true when there is news and Raft should make a new round.
func (t *transport) hold(id raft.ServerID, args *raft.AppendEntriesRequest) bool {
	t.mu.Lock()
	last, ok := t.sent[id]
	news := t.news
	behind := t.appended > args.PrevLogEntry || t.committed > args.LeaderCommitIndex
	t.mu.Unlock()
	if !ok || last.term != args.Term || last.previous != args.PrevLogEntry || last.commit != args.LeaderCommitIndex {
		return false
	}
	left := t.quiet - time.Since(last.at)
	if left <= 0 {
		return false
	}
	if behind { // the news came while Raft made this round
		return true
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-news:
		return true
	case <-timer.C:
		return false
	case <-t.fence.tripped:
		return false
	case <-t.stop:
		return false
	}
}

// wakeAppended and wakeCommitted end the hold of all rounds.
func (t *transport) wakeAppended(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.appended = index
	t.wake()
}

func (t *transport) wakeCommitted(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed = index
	t.wake()
}

// wake is called with mu held.
func (t *transport) wake() {
	close(t.news)
	t.news = make(chan struct{})
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.abstains() {
		return errAbstains
	}
	return t.NetworkTransport.RequestVote(id, target, args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.abstains() {
		return errAbstains
	}
	return t.NetworkTransport.RequestPreVote(id, target, args, resp)
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.consumer }

// run passes requests of others on to Raft, and answers votes itself while this
// node abstains. It ends with the transport.
func (t *transport) run() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if t.refuses(rpc) {
				rpc.Respond(nil, errAbstains)
				continue
			}
			select {
			case t.consumer <- rpc:
			case <-t.stop:
				return
			}
		case <-t.stop:
			return
		}
	}
}

func (t *transport) refuses(rpc raft.RPC) bool {
	switch rpc.Command.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest, *raft.TimeoutNowRequest:
		return t.abstains()
	}
	return false
}

// Close implements raft.WithClose.
func (t *transport) Close() error {
	t.mu.Lock()
	select {
	case <-t.stop:
		t.mu.Unlock()
		return nil
	default:
	}
	close(t.stop)
	t.mu.Unlock()
	err := t.NetworkTransport.Close()
	t.NetworkTransport.CloseStreams()
	return err
}
