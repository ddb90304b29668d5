package cluster

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// transport is Raft's network transport with some corrections.
//
//   - Heartbeats take the ordinary way through the library's main goroutine: its
//     fast path changes term and state beside a running append, and nodes can
//     commit different data (hashicorp/raft issue 695).
//   - A leader whose disk hangs falls silent, so that the others elect another:
//     heartbeats come from goroutines of their own and would go on for ever
//     (hashicorp/raft issue 503).
//   - A node that lost entries it had acknowledged takes no part in elections.
//   - Followers are told of a commit at once. The library tells them with the next
//     entries or after CommitTimeout; a short one costs a share of a core for ever,
//     an entry of our own costs an fsync on every node.
//   - What a leader says of commits counts as far as it has sent what they are of
//     (Raft dissertation, figure 3.1), and a tail that a snapshot superseded is no log:
//     see bound.
//   - A snapshot that would take this node's state back is refused.
//   - Nobody but the leader calls to an election: the library's message names no term.
//   - A wish to be elected waits while this node is about to give its leader up: see
//     suspicion.
//   - A peer that returns is sent what it missed at once: see reach.
//   - Messages count only in the name of the node whose certificate they came with:
//     see sender.
//   - What an election is made of is sent again where a kept connection had ended: the
//     library tries once, and who wanted to lead rests for two to four seconds because a
//     peer was restarted since they last spoke.
type transport struct {
	*raft.NetworkTransport
	fence *fence
	// stalled says whether the local disk has held up an append for too long.
	stalled func() bool
	// abstains says whether this node must keep out of elections.
	abstains func() bool
	// roomFor says why a snapshot of a size cannot be taken; empty: it can.
	roomFor func(octets int64) string
	// leads says whether this node is the leader, and leader who is, empty: nobody known.
	leads  func() bool
	leader func() string
	// broken counts kept connections that had ended when they were used.
	broken func() uint64
	// feeds says whether this node leads and has a member at an address; that is
	// looked at again and again where nothing else ends a wait.
	feeds func(id raft.ServerID, target raft.ServerAddress) bool
	look  time.Duration
	ended <-chan struct{} // closed when this node's part ends
	// ends is where this node's log ends where the library believes in a tail beyond that,
	// which a snapshot superseded; stale: it does.
	ends func() (index uint64, stale bool)
	// last is where it ends as the library has it, applied the index of the machine.
	last, applied func() uint64
	reach         reach
	// suspicion is nil where every wish to be elected goes straight to the library.
	suspicion *suspicion

	consumer chan raft.RPC
	vouched  chan raft.RPC // what peers said, each in its own name: see sender
	stop     chan struct{}

	// mu guards what follows.
	mu        sync.Mutex
	committed uint64 // what is known to be committed
	followers map[raft.ServerID]*follower
	senders   map[string]*sender
}

// follower is what a follower has said it has, in the term of this leader.
type follower struct {
	address raft.ServerAddress
	like    raft.AppendEntriesRequest // the leader's last, without its entries
	term    uint64
	last    uint64 // the last entry that it has as the leader has it
	at      uint64 // the term of that
	told    uint64 // of this commit
	telling bool
}

// maxInstall bounds the snapshots that are taken from a leader: some thirty
// million domains, more than memory holds.
const maxInstall = 64 << 30

var (
	errStalled  = errors.New("withheld: the local log store is stalled")
	errDefers   = errors.New("another node that noticed the leader's silence goes first")
	errAbstains = errors.New("this node lost log entries and keeps out of elections until it has caught up")
)

func newTransport(t *raft.NetworkTransport, f *fence) *transport {
	return &transport{
		NetworkTransport: t, fence: f,
		stalled:   func() bool { return false },
		abstains:  func() bool { return false },
		leads:     func() bool { return false },
		leader:    func() string { return "" },
		broken:    func() uint64 { return 0 },
		roomFor:   func(int64) string { return "" },
		last:      func() uint64 { return 0 },
		applied:   func() uint64 { return 0 },
		ends:      func() (uint64, bool) { return 0, false },
		feeds:     func(raft.ServerID, raft.ServerAddress) bool { return false },
		look:      time.Second,
		reach:     reach{back: make(map[raft.ServerID]chan struct{})},
		consumer:  make(chan raft.RPC),
		vouched:   make(chan raft.RPC),
		stop:      make(chan struct{}),
		followers: make(map[raft.ServerID]*follower),
		senders:   make(map[string]*sender),
	}
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
	if len(args.Entries) == 0 && t.stalled() {
		return errStalled
	}
	heartbeat := len(args.Entries) == 0 && args.PrevLogEntry == 0
	if !heartbeat {
		if err := t.hold(id, target); err != nil {
			return err
		}
	}
	err := t.NetworkTransport.AppendEntries(id, target, args, resp)
	t.reach.tried(id, err)
	if !heartbeat {
		t.note(id, target, args, err == nil && resp.Success && resp.Term == args.Term)
	}
	return err
}

// note remembers what a follower has after a round of replication.
func (t *transport) note(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, has bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !has {
		delete(t.followers, id)
		return
	}
	f := t.followers[id]
	if f == nil || f.term != args.Term {
		f = &follower{term: args.Term}
		t.followers[id] = f
	}
	f.address, f.like = target, *args
	f.like.Entries = nil
	f.last, f.at = args.PrevLogEntry, args.PrevLogTerm
	if n := len(args.Entries); n > 0 {
		f.last, f.at = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	f.told = max(f.told, min(args.LeaderCommitIndex, f.last))
	t.tell(id, f)
}

// commit notes that entries are committed, and tells the followers.
func (t *transport) commit(index uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed = max(t.committed, index)
	for id, f := range t.followers {
		t.tell(id, f)
	}
}

// news is what to tell a follower of a commit; 0: nothing. It is no further than
// what the follower is known to have: beyond that its log may hold a tail that is
// not the leader's.
func (f *follower) news(committed uint64) uint64 {
	if index := min(committed, f.last); index > f.told {
		return index
	}
	return 0
}

// tell tells a follower what is new: an ordinary message of this term's leader, of
// which the library learns nothing. One at a time is under way. Called with mu held.
func (t *transport) tell(id raft.ServerID, f *follower) {
	index := f.news(t.committed)
	if index == 0 || f.telling || !t.leads() || t.stalled() {
		return
	}
	f.telling, f.told = true, index
	args := f.like // its term and leader are those of f
	args.PrevLogEntry, args.PrevLogTerm, args.LeaderCommitIndex = f.last, f.at, index
	target := f.address
	go func() {
		var resp raft.AppendEntriesResponse
		err := t.NetworkTransport.AppendEntries(id, target, &args, &resp)
		t.mu.Lock()
		defer t.mu.Unlock()
		f.telling = false
		if err == nil && t.followers[id] == f {
			t.tell(id, f)
		}
	}()
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.abstains() {
		return errAbstains
	}
	return t.again(func() error { return t.NetworkTransport.RequestVote(id, target, args, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.abstains() {
		return errAbstains
	}
	if t.suspicion != nil && !t.suspicion.asks(args) {
		return errDefers
	}
	return t.again(func() error { return t.NetworkTransport.RequestPreVote(id, target, args, resp) })
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.again(func() error { return t.NetworkTransport.TimeoutNow(id, target, args, resp) })
}

// again sends a request that does no harm twice until it went over a connection that
// lived. Each that had ended leaves the library's pool.
func (t *transport) again(send func() error) (err error) {
	for range pooledConns + 1 {
		before := t.broken()
		if err = send(); err == nil || t.broken() == before {
			return err
		}
	}
	return err
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.consumer }

// run passes requests of others on to Raft, and answers votes itself while this
// node abstains. It ends with the transport.
func (t *transport) run() {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-t.vouched:
		case rpc = <-t.NetworkTransport.Consumer():
		case <-t.stop:
			return
		}
		if err := t.refuses(rpc); err != nil {
			rpc.Respond(nil, err)
			continue
		}
		if q, ok := rpc.Command.(*raft.AppendEntriesRequest); ok && t.bound(rpc, q) {
			continue
		}
		if q, ok := rpc.Command.(*raft.RequestPreVoteRequest); ok && t.suspicion != nil {
			t.weigh(rpc, q)
			continue
		}
		t.pass(rpc)
	}
}

// bound keeps a follower from taking for the leader's log what is none, or answers.
//
// The library applies up to the leader's commit or the end of its own log, whichever
// is lower. Where a snapshot superseded a tail that it goes on believing in, that end
// is of nothing: it would pass over entries that are still to come, for good. A message
// that was under way when the snapshot came may even continue that tail.
func (t *transport) bound(rpc raft.RPC, q *raft.AppendEntriesRequest) (answered bool) {
	q.LeaderCommitIndex = min(q.LeaderCommitIndex, q.PrevLogEntry+uint64(len(q.Entries)))
	end, stale := t.ends()
	if !stale || q.PrevLogEntry <= end {
		return false
	}
	rpc.Respond(&raft.AppendEntriesResponse{Term: q.Term, LastLog: end, NoRetryBackoff: true}, nil)
	return true
}

// weigh answers a wish to be elected, passes it on, or lets it wait.
func (t *transport) weigh(rpc raft.RPC, q *raft.RequestPreVoteRequest) {
	switch {
	case t.suspicion.beats(q):
		rpc.Respond(nil, errDefers)
	case t.suspicion.doubts():
		go func() {
			t.suspicion.settle(q, t.stop)
			t.pass(rpc)
		}()
	default:
		t.pass(rpc)
	}
}

// pass gives a request to the library.
func (t *transport) pass(rpc raft.RPC) {
	select {
	case t.consumer <- rpc:
	case <-t.stop:
	}
}

func (t *transport) refuses(rpc raft.RPC) error {
	switch c := rpc.Command.(type) {
	case *raft.RequestVoteRequest, *raft.RequestPreVoteRequest:
		if t.abstains() {
			return errAbstains
		}
	case *raft.TimeoutNowRequest:
		if t.abstains() {
			return errAbstains
		}
		// It names no term. A process that was stopped while it led would depose, as the
		// first thing it does, who leads since.
		if leader := t.leader(); leader != "" && leader != string(c.ID) {
			return fmt.Errorf("%s cannot call to an election: %s leads", c.ID, leader)
		}
	case *raft.InstallSnapshotRequest:
		// What follows is not read: the library ends the connection on it.
		if c.Size <= 0 || c.Size > maxInstall {
			return fmt.Errorf("a snapshot of %d octets is refused: want 1 to %d", c.Size, int64(maxInstall))
		}
		if why := t.roomFor(c.Size); why != "" {
			return errors.New("a snapshot is refused: " + why)
		}
		// A leader never needs to send what is applied here: its log goes on from there. One
		// that was deposed, and whose log was cut, may try, and the state would go back.
		if _, stale := t.ends(); !stale && c.LastLogIndex < min(t.last(), t.applied()) {
			return fmt.Errorf("a snapshot of index %d is refused: the state here is of %d", c.LastLogIndex, t.applied())
		}
	}
	return nil
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
	networks := []*raft.NetworkTransport{t.NetworkTransport}
	for _, from := range t.senders {
		networks = append(networks, from.network)
	}
	t.mu.Unlock()
	var err error
	for _, n := range networks {
		err = errors.Join(err, n.Close())
		n.CloseStreams()
	}
	return err
}
