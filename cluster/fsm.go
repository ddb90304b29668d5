package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
	"authd/zone"
)

// fsm carries committed entries into the machine and the machine into the tree.
// Raft calls its methods from one goroutine; readers come from anywhere.
type fsm struct {
	tree   *zone.Tree
	mark   *mark
	fence  *fence
	logger *slog.Logger
	// adopted is told of a snapshot that replaces the machine, restored of an operator's
	// restore that did, replaced of both before the new machine is shown.
	adopted            func(*raft.SnapshotMeta) error
	restored, replaced func()
	// void notes that what this node has on disk is to be given up.
	void func(why string) error
	// committed is called when entries are known to be committed, before they are applied.
	committed func(index uint64)
	// checks is given the machine after every entry at which nodes compare theirs.
	checks func(state.Machine)

	machine atomic.Pointer[state.Machine]
	// restoring: a whole state is being read in.
	restoring atomic.Bool
	// open: an operator's restore is open in the log, see applier.
	open atomic.Bool
	// installed counts the snapshots that replaced the machine.
	installed atomic.Uint64

	// Of Raft's goroutine alone.
	//
	// startedAt is the index of the machine that the dark start built: Raft feeds
	// the entries up to it once more, and they are skipped. A restore clears it
	// (index contract, c).
	startedAt uint64
	fed       uint64 // the last entry that Raft fed
	installs  int    // snapshots that replaced the machine, with no entry applied between
	applier   applier

	// spent is told what applying cost, for the snapshot policy.
	spent func(time.Duration)

	// mu guards changed, which is closed and replaced after every publication.
	mu      sync.Mutex
	changed chan struct{}
}

// newFSM goes on from what the dark start built.
func newFSM(built start, tree *zone.Tree, mk *mark, f *fence, logger *slog.Logger) *fsm {
	s := &fsm{
		tree: tree, mark: mk, fence: f, logger: logger,
		adopted: func(*raft.SnapshotMeta) error { return nil }, void: func(string) error { return nil },
		restored: func() {}, replaced: func() {},
		committed: func(uint64) {}, checks: func(state.Machine) {}, spent: func(time.Duration) {},
		startedAt: built.machine.Index(),
		applier:   applier{indexes: true, open: built.open},
		changed:   make(chan struct{}),
	}
	s.machine.Store(&built.machine)
	s.open.Store(built.open != nil)
	return s
}

// applied is what a command entry answers its proposer.
type applied struct {
	index   uint64
	results []state.Result
}

// Apply implements raft.FSM.
func (s *fsm) Apply(l *raft.Log) any { return s.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: many entries, one publication, one mark.
// What cannot be applied fences the node, because skipping it would make this
// replica differ from the others.
func (s *fsm) ApplyBatch(logs []*raft.Log) []any {
	s.committed(logs[len(logs)-1].Index)
	began := time.Now()
	responses, err := s.apply(logs)
	if err != nil {
		s.fence.stop("applying the log: %w", err)
	}
	s.spent(time.Since(began))
	return responses
}

func (s *fsm) apply(logs []*raft.Log) (responses []any, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.logger.Error("panic while applying", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic between %d and %d: %v", logs[0].Index, logs[len(logs)-1].Index, r)
		}
	}()
	old, a := s.current(), &s.applier
	a.begin(old)
	responses = make([]any, len(logs))
	for i, l := range logs {
		s.fed = l.Index
		if l.Index <= s.startedAt {
			continue
		}
		if l.Index <= a.machine.Index() {
			return nil, fmt.Errorf("entry %d after index %d: this replica does not follow the log", l.Index, a.machine.Index())
		}
		e, err := decode(l)
		if err != nil {
			return nil, err
		}
		s.restoring.Store(e.step.ends())
		if responses[i], err = a.take(l, e); err != nil {
			return nil, err
		}
		if a.machine.Checks() { // the machine at this very place is compared
			s.checks(a.here())
		}
	}
	s.restoring.Store(false)
	s.open.Store(a.open != nil)
	return responses, s.publish(old)
}

// publish shows what the entries came to: first what is durable, then the answers, last
// the machine.
func (s *fsm) publish(old state.Machine) error {
	m := s.applier.end()
	if m.Index() == old.Index() {
		return nil
	}
	s.installs = 0
	if err := s.mark.apply(m.Index()); err != nil {
		return err
	}
	if s.applier.replaced {
		s.replace("a restore", s.applier.restoredIndex(m), old, m)
		s.restored()
		return nil
	}
	e := s.tree.Edit()
	m.Publish(e, old, s.applier.changes)
	e.Commit()
	s.show(m)
	return nil
}

// replace shows a machine that need have nothing in common with the one before.
func (s *fsm) replace(by string, index *zone.Tree, old, m state.Machine) {
	s.replaced()
	s.tree.Take(index)
	s.show(m)
	// What was replaced is garbage the size of the state, which an idle node would keep.
	go debug.FreeOSMemory()
	s.logger.Info("state replaced by "+by, "index", m.Index(), "was", old.Index())
}

// show makes a machine the current one. It comes last: who finds its index there takes
// it for answered, and for marked, so that no restart goes behind it.
func (s *fsm) show(m state.Machine) {
	s.machine.Store(&m)
	s.announce()
}

// current is the machine as published.
func (s *fsm) current() state.Machine { return *s.machine.Load() }

// announce wakes who waits for an index.
func (s *fsm) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
}

// next is closed by the next publication.
func (s *fsm) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

var (
	errNotFed = errors.New("the log was not fed past the index this node started at; try again later")
	errOpen   = errors.New("a restore is under way, whose image is in the log alone; try again later")
)

// Snapshot implements raft.FSM: a copy of a small struct. Until Raft has fed past
// the machine of the dark start it would label the image with a lower index, and
// entries would be applied twice after a restore.
func (s *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if s.fed < s.startedAt {
		return nil, errNotFed
	}
	if s.applier.open != nil {
		return nil, errOpen
	}
	return &image{machine: s.current(), fsm: s, installed: s.installed.Load()}, nil
}

// Restore implements raft.FSM: it replaces the machine, whatever its index was.
func (s *fsm) Restore(r io.ReadCloser) error {
	s.restoring.Store(true)
	s.installed.Add(1)
	defer s.restoring.Store(false)
	meta, ok := metaOf(r)
	if !ok {
		return errors.New("restoring snapshot: its metadata is not known")
	}
	m, err := loadImage(r, meta.Index, s.current())
	if err != nil {
		return fmt.Errorf("restoring snapshot %s: %w", meta.ID, err)
	}
	s.installs++
	if s.installs > maxInstalls {
		s.livelocked(meta)
	}
	// Durable before it is seen: from here on the log up to this index is void,
	// also if the process dies before Raft has cleared it.
	err = s.mark.set(func(v *markValue) { v.Index, v.Base = meta.Index, meta.Index })
	if err == nil {
		err = s.adopted(meta)
	}
	if err != nil {
		s.fence.stop("restoring snapshot %s: %w", meta.ID, err)
	}
	s.startedAt, s.fed = 0, meta.Index
	s.applier.giveUp() // no snapshot is of a place where a restore is open
	s.open.Store(false)
	s.replace("a snapshot", m.Tree(), s.current(), m)
	return nil
}

// maxInstalls is how many snapshots may replace the machine one after the other.
// Where a follower's log contradicts the leader's in a way that neither resolves,
// the leader sends snapshots for ever, each a long transfer (hashicorp/raft issue
// 697). The store answers for the known causes (logBase); this ends unknown ones.
const maxInstalls = 3

// livelocked gives up what this node has and fences it: its successor begins with
// nothing, which no leader's log contradicts.
func (s *fsm) livelocked(meta *raft.SnapshotMeta) {
	cause := fmt.Errorf("%d snapshots were installed one after the other and no entry followed: snapshot %s is not taken", s.installs-1, meta.ID)
	if err := s.void(cause.Error()); err != nil {
		s.logger.Error("noting that this node's state is void", "error", err)
	}
	s.fence.stop("%w", cause)
}

// image is a machine on its way into a snapshot.
type image struct {
	machine   state.Machine
	fsm       *fsm
	installed uint64 // the fsm's, when it was taken
}

// Persist implements raft.FSMSnapshot.
func (i *image) Persist(sink raft.SnapshotSink) error {
	if own, ok := sink.(*snapshotSink); ok {
		if own.index != i.machine.Index() {
			return fmt.Errorf("writing snapshot: Raft calls it %d, the machine is at %d", own.index, i.machine.Index())
		}
		own.own = true
	}
	if err := i.machine.WriteImage(sink); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	// Raft would take its last snapshot to be this one, and its log, which begins behind
	// the other, to have a hole: it would send followers the other for ever.
	if i.fsm.installed.Load() != i.installed {
		return fmt.Errorf("writing snapshot %d: another has replaced the state meanwhile", i.machine.Index())
	}
	// A snapshot beyond the durable mark would not be trusted at the next start.
	return i.fsm.mark.sync(i.machine.Index())
}

// Release implements raft.FSMSnapshot.
func (i *image) Release() {}
