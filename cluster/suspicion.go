package cluster

import (
	"bytes"
	"cmp"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// suspicion lets followers notice soon that their leader is gone, and agree on who
// asks for votes.
//
// The library looks at its last contact only when a timer of one to two heartbeat
// timeouts fires, so it may take three of them; the follower that notices first is
// refused, because the others have a leader still, and rests for one to two election
// timeouts more. Here the last contact is watched. Connections that end tell of a
// process that ended, and then a shorter silence will do. And who is asked for a vote
// while its own leader is silent gives that leader up too, and lets the one who asked
// go first.
//
// All this only moves what is chance in Raft: when an election begins. Who wins is
// decided by votes as ever.
type suspicion struct {
	node *Node
	// hears says whether a node has connections of Raft to this one.
	hears func(id string) bool

	// mu guards what follows.
	mu       sync.Mutex
	since    time.Time                  // this node follows
	lowered  bool                       // the heartbeat timeout is
	woken    time.Time                  // the library, last
	jitter   time.Duration              // on top of the silence, so that not all ask at once
	deferred time.Time                  // until when another goes first
	wish     raft.RequestPreVoteRequest // of this node, the last
	wished   time.Time
	// abdicated is set while this node's disk hangs and it has told another to lead.
	abdicated bool
}

func newSuspicion(n *Node) *suspicion {
	return &suspicion{node: n, hears: n.link.hears, since: time.Now()}
}

// Fractions of the heartbeat timeout.
const (
	suspicionTick   = 40 // between two looks
	suspicionJitter = 8
	suspicionAgain  = 4  // before the library is woken again
	suspicionTurn   = 20 // how long another goes first, and a wish is under way
)

func (s *suspicion) run() {
	tick := time.NewTicker(s.node.tuning.heartbeat / suspicionTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look()
		case <-s.node.fence.tripped:
			return
		case <-s.node.ctx.Done():
			return
		}
	}
}

// look begins an election where the leader has been silent for too long, or is this
// node and had better not lead.
func (s *suspicion) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.abdicate()
	t := &s.node.tuning
	silence, leader := s.silence()
	if silence < t.lease {
		s.calm()
		return
	}
	limit := t.heartbeat
	if leader != "" && !s.hears(leader) {
		limit = t.lease
	}
	if silence >= limit+s.jitter {
		s.wake()
	}
}

// silence is for how long a follower has heard no leader, and who that was; 0 for
// who does not follow. mu is held.
func (s *suspicion) silence() (time.Duration, string) {
	r := s.node.raft()
	if r.State() != raft.Follower {
		s.since = time.Now()
		return 0, ""
	}
	heard := r.LastContact()
	if heard.Before(s.since) {
		heard = s.since
	}
	_, id := r.LeaderWithID()
	return time.Since(heard), string(id)
}

// wake has the library look at its last contact now: a shorter heartbeat timeout
// makes it. It must not be shorter than the leader's lease. mu is held.
func (s *suspicion) wake() {
	t := &s.node.tuning
	if time.Since(s.woken) < t.heartbeat/suspicionAgain {
		return
	}
	s.woken, s.lowered = time.Now(), true
	s.jitter = time.Duration(s.woken.Nanosecond()) % (t.heartbeat / suspicionJitter) // chance enough
	s.reload(t.heartbeat)
	s.reload(t.lease)
}

// calm restores the timeout that wake shortened. mu is held.
func (s *suspicion) calm() {
	if s.lowered {
		s.lowered, s.woken = false, time.Time{}
		s.reload(s.node.tuning.heartbeat)
	}
}

func (s *suspicion) reload(heartbeat time.Duration) {
	c := s.node.raft().ReloadableConfig()
	c.HeartbeatTimeout = heartbeat
	if err := s.node.raft().ReloadConfig(c); err != nil {
		s.node.logger.Error("watching the leader", "error", err)
	}
}

// doubts says whether this node may be about to give its leader up. It will know soon;
// until then a request to be elected waits.
func (s *suspicion) doubts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	silence, leader := s.silence()
	return leader != "" && silence >= s.node.tuning.lease/2
}

// settle waits until the leader is given up or heard again. Where q is from a node
// that has all that this one has, it goes first.
func (s *suspicion) settle(q *raft.RequestPreVoteRequest, stop <-chan struct{}) {
	t := &s.node.tuning
	tick := time.NewTicker(t.lease / 100)
	defer tick.Stop()
	for end := time.Now().Add(t.lease); s.doubts() && time.Now().Before(end); {
		s.mu.Lock()
		if silence, _ := s.silence(); silence >= t.lease {
			if q.LastLogIndex >= s.node.raft().LastIndex() {
				s.deferred = time.Now().Add(t.heartbeat / suspicionTurn)
			}
			s.wake()
		}
		s.mu.Unlock()
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// asks says whether this node may ask for votes now; if not, another goes first.
func (s *suspicion) asks(q *raft.RequestPreVoteRequest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.deferred) {
		return false
	}
	s.wish, s.wished = *q, time.Now()
	return true
}

// beats says whether this node's own request, which is under way, goes before q. If both
// were granted each would vote for itself, and neither would win.
func (s *suspicion) beats(q *raft.RequestPreVoteRequest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.wished) > s.node.tuning.heartbeat/suspicionTurn {
		return false
	}
	return cmp.Or(
		cmp.Compare(s.wish.LastLogTerm, q.LastLogTerm),
		cmp.Compare(s.wish.LastLogIndex, q.LastLogIndex),
		bytes.Compare(s.wish.ID, q.ID),
	) > 0
}
