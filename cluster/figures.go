package cluster

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"authd/keys"
)

// Check is one thing that a node looks at to say whether it is ready.
type Check struct {
	Name   string
	OK     bool
	Blocks bool   // where it is not OK the node is not to be sent queries
	API    bool   // where it is not OK the node is not to be sent requests to the API
	Detail string // what is wrong and what to do; empty where it is OK
}

// Checks are what the node knows of itself, always the same in the same order.
func (n *Node) Checks() []Check {
	var list []Check
	const dns, requests, neither = 1, 2, 0
	add := func(name string, ends int, problem string) {
		list = append(list, Check{Name: name, OK: problem == "", Blocks: ends&dns != 0, API: ends&requests != 0, Detail: problem})
	}
	index := n.fsm.current().Index()
	when := func(bad bool, format string, args ...any) string {
		if !bad {
			return ""
		}
		return fmt.Sprintf(format, args...)
	}
	add("state", dns|requests, when(index < n.start.need, "state on disk reaches index %d of %d: wait until Raft has caught up", index, n.start.need))
	cause := n.fence.err()
	add("fence", dns|requests, when(cause != nil, "fenced off: %v: DNS goes on, start a successor", cause))
	members := n.members()
	add("member", dns|requests, when(len(members) > 0 && !contains(members, n.c.ID), "not a member of the cluster: add it again"))
	add("serving", dns, n.offProblem())
	add("leader", neither, when(n.Leader() == "", "no leader known: writes wait, DNS goes on; bring back enough voters for a majority"))
	add("peers", neither, n.silentProblem())
	logProblem := when(n.stalled(), "a write to the disk hangs: look at that of %s", n.c.DataDir)
	_, at := n.store.damages()
	if logProblem == "" {
		logProblem = when(at > 0, "entry %d of the log is damaged, which the snapshot covers: nothing is lost, but look at the disk of %s", at, n.c.DataDir)
	}
	add("log", neither, logProblem)
	add("disk", neither, n.disk.stops())
	n.checker.mu.Lock()
	alarm := n.checker.alarm
	if alarm == "" {
		alarm = n.checker.diverged
	}
	memory := n.checker.memory
	n.checker.mu.Unlock()
	add("state_check", neither, alarm)
	add("memory", neither, memory)
	add("clock", neither, n.rotator.clock.health())
	add("certificate", neither, n.certificateProblem())
	add("kek", requests, n.seals.problemNow())
	add("kek_file", neither, n.keeperProblem())
	add("mill", neither, n.millProblem())
	add("epoch", neither, n.rival.problem())
	add("audit", neither, strings.Join(n.trail.problems(), "; "))
	add("evidence", neither, strings.Join(n.evidence.problems(), "; "))
	add("reads", neither, strings.Join(n.journal.problems(), "; "))
	return list
}

// maxSaid bounds what one check may say to another node.
const maxSaid = 400

// told lists the checks that are not OK, for other nodes to show.
func (n *Node) told() []string {
	var list []string
	for _, k := range n.Checks() {
		if !k.OK {
			text := k.Name + ": " + k.Detail
			list = append(list, strings.ToValidUTF8(text[:min(len(text), maxSaid)], ""))
		}
	}
	return list
}

// silence is what a leader knows of the nodes that its heartbeats do not reach.
type silence struct {
	mu    sync.Mutex
	since map[string]time.Time // of the last contact, by node
}

// watchSilence keeps n.silent. It starts empty with each leader, whose heartbeats find
// out within seconds.
func (n *Node) watchSilence() {
	const room = 64 // where it is full, the next failed heartbeat tells again
	news := make(chan raft.Observation, room)
	observer := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.FailedHeartbeatObservation, raft.ResumedHeartbeatObservation, raft.RaftState:
			return true
		}
		return false
	})
	n.raft().RegisterObserver(observer)
	defer n.raft().DeregisterObserver(observer)
	for {
		select {
		case o := <-news:
			n.silent.observe(o.Data, n.c.Now())
		case <-n.ctx.Done():
			return
		}
	}
}

func (s *silence) observe(what any, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o := what.(type) {
	case raft.FailedHeartbeatObservation:
		if s.since == nil {
			s.since = make(map[string]time.Time)
		}
		if id := string(o.PeerID); s.since[id].IsZero() {
			s.since[id] = now
		}
	case raft.ResumedHeartbeatObservation:
		delete(s.since, string(o.PeerID))
	case raft.RaftState:
		s.since = nil
	}
}

// silentFor is how long heartbeats must have failed before a node counts as away.
const silentFor = 5 * time.Second

// silentProblem names the nodes that this leader does not reach and that nobody
// stated to be off.
func (n *Node) silentProblem() string {
	if !n.leads() {
		return ""
	}
	m := n.Machine()
	n.silent.mu.Lock()
	defer n.silent.mu.Unlock()
	var away []string
	for _, o := range n.others() {
		since, silent := n.silent.since[o.ID]
		if _, off := m.Off(o.ID); silent && !off && n.c.Now().Sub(since) >= silentFor {
			away = append(away, fmt.Sprintf("%s (%s) since %s", o.ID, o.Address, since.UTC().Format(time.RFC3339)))
		}
	}
	if len(away) == 0 {
		return ""
	}
	return "not reached: " + strings.Join(away, ", ") + "; start it again, or replace it, or state that it is off: authd operator raft set-serving"
}

// millProblem says what is wrong with the source of keys; empty: nothing, or the source
// cannot tell.
func (n *Node) millProblem() string {
	s, ok := n.c.Source.(keys.Faulty)
	if !ok {
		return ""
	}
	if err := s.Fault(); err != nil {
		return fmt.Sprintf("no keys are made: %v; %d are ready, then adding domains and rotations wait", err, n.c.Source.Ready())
	}
	return ""
}

// keeperProblem says that the file of key-encryption keys cannot be read any more.
func (n *Node) keeperProblem() string {
	if k, ok := n.c.Keeper.(keys.Faulty); ok {
		if err := k.Fault(); err != nil {
			return fmt.Sprintf("keys.kek_file does not read any more: %v; this node goes on with what it held, and would not start again: copy the file of another node", err)
		}
	}
	return ""
}

// Figures are what the metrics show of a node's mechanisms.
type Figures struct {
	Term, LastIndex, CommitIndex uint64
	State                        string // of Raft: Leader, Follower, Candidate
	Fenced, Stalled              bool
	// MarkBehind is how many entries the durable mark lies behind what is applied.
	MarkBehind uint64
	// TailEntries and TailOctets are what a start would replay.
	TailEntries, TailOctets int64
	// Waiting and UnderWay are writes that wait for their turn at this leader, and
	// log entries that are not committed yet.
	Waiting, UnderWay int
	Disk              DiskState
	Check             CheckCounts
	ClockAhead        time.Duration // of machine time; negative: behind
	Epoch             uint32        // of the cluster: how often it was recovered from one node
	LogDamaged        uint64        // how often a damaged entry of the log was met that the snapshot covers
	LinkRefused       uint64        // connections and messages of other nodes that were turned away
	Keys              KeyCounts
	Proofs            ProofCounts
}

// KeyCounts are what became of RSA pairs on a node since it started.
type KeyCounts struct {
	Ready int    // at the moment
	Made  uint64 // by its own mill
	// Given are those it gave to other nodes, Taken those it took of them, and Refused
	// how often it took one for no good.
	Given, Taken, Refused uint64
}

// Figures reads the figures as they are now.
func (n *Node) Figures() Figures {
	m := n.fsm.current()
	f := Figures{
		Fenced: n.fence.err() != nil, Stalled: n.stalled(),
		Disk: n.Disk(), Check: n.CheckCounts(),
		State: "None", Epoch: m.Epoch(), LinkRefused: n.link.refused.Load(),
	}
	if m.Time() > 0 {
		f.ClockAhead = time.Duration(n.c.Now().Unix()-m.Time()) * time.Second
	}
	f.Proofs = n.prover.counted()
	f.LogDamaged, _ = n.store.damages()
	f.Keys = KeyCounts{Ready: n.c.Source.Ready(), Given: n.mills.given.Load(), Taken: n.mills.taken.Load(), Refused: n.mills.refused.Load()}
	if n.mills.pool != nil {
		f.Keys.Made = n.mills.pool.Made()
	}
	n.mark.mu.Lock()
	f.MarkBehind = n.mark.value.Index - min(n.mark.synced.Index, n.mark.value.Index)
	n.mark.mu.Unlock()
	n.tail.mu.Lock()
	f.TailEntries, f.TailOctets = n.tail.entries, n.tail.octets
	n.tail.mu.Unlock()
	if r := n.raft(); r != nil && !f.Fenced {
		f.State, f.LastIndex, f.CommitIndex = r.State().String(), r.LastIndex(), r.CommitIndex()
		f.Term, _ = strconv.ParseUint(r.Stats()["term"], 10, 64) // the library always has it
		f.Waiting, f.UnderWay = len(n.batcher.queue), int(n.batcher.flying.Load())
	}
	return f
}
