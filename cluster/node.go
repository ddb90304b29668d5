package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
	"authd/zone"
)

// Errors that callers tell apart. A refusal is not among them: it is a Result.
var (
	// ErrNotCommitted: the write certainly did not happen; try again.
	ErrNotCommitted = errors.New("not committed")
	// ErrUnknown: the write may or may not have happened; look before trying again.
	ErrUnknown = errors.New("outcome unknown")
	// ErrStopped: the cluster takes no writes for now, for a reason that the text
	// names; it did not happen. It is an ErrNotCommitted.
	ErrStopped = fmt.Errorf("%w: writes are stopped", ErrNotCommitted)
	// ErrBusy: more is asked of the leader than it can do; it did not happen. It is
	// an ErrNotCommitted.
	ErrBusy = fmt.Errorf("%w: too many writes at once", ErrNotCommitted)
	// ErrNoLeader: there is no leader to take the write; it did not happen.
	ErrNoLeader = errors.New("no leader")
)

// Node is one member: machine, index, Raft. Safe for concurrent use once opened.
type Node struct {
	c      Config
	tuning tuning
	logger *slog.Logger

	fence *fence
	store *store
	snaps *snapshots
	mark  *mark
	fsm   *fsm
	start start
	link  *link

	// Set by Start.
	library   atomic.Pointer[raft.Raft]
	reign     atomic.Pointer[reign] // of the last leader known
	transport *transport
	batcher   *batcher
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	awaited   atomic.Int64 // what the library was handed and has not answered

	serving   atomic.Bool
	joined    atomic.Bool // a node that joined has learnt how far it must get
	restoring atomic.Bool // a restore that was asked of this node is under way
	tail      tail
	met       *met
	rival     rival
	outcast   rival // who says that this node is no member
	seals     seals
	peers     peers
	rotator   *rotator
	mills     *mills
	trail     *trail
	checker   *checker
	disk      *disk
	silent    silence
	journal   *journal
	evidence  *evidence
	signers   fleetSigners
	barrier   *barrier
	prover    prover
	asker     *zone.Asker
	answers   atomic.Pointer[netip.AddrPort] // of its DNS listener; nil: none

	closing sync.Once
	closed  error
}

// Open builds the machine and the tree from this node's own disk, without Raft
// and without the network. An unreadable store is an error that says what to do.
func Open(c Config) (*Node, error) { return open(c, defaultTuning()) }

func open(c Config, t tuning) (n *Node, err error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	n = &Node{c: c, tuning: t, logger: c.Logger, fence: newFence(c.Logger)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.peers.init(n)
	if err := n.openLink(); err != nil {
		return nil, fmt.Errorf("opening node %s: %w", c.ID, err)
	}
	if err := n.openStores(); err != nil {
		n.closeStores()
		return nil, fmt.Errorf("opening node %s: %w", c.ID, err)
	}
	tree := n.buildTree()
	n.fsm = newFSM(n.start, tree, n.mark, n.fence, n.logger)
	n.openParts(tree)
	n.connectMachine()
	if n.start.need > 0 {
		n.logger.Warn("state on disk is older than what this node had served; it must catch up first",
			"index", n.start.machine.Index(), "need", n.start.need)
	}
	return n, nil
}

// openLink makes the node link, which asks the node about its peers. It does not listen
// yet.
func (n *Node) openLink() (err error) {
	if n.link, err = newLink(n.c.TLS, n.logger); err != nil {
		return err
	}
	l := n.link
	l.network = n.tuning.network
	if n.c.Identity != nil {
		l.roots = n.c.Identity.Roots
	}
	l.admit = n.admit
	l.authority = func() []byte { return n.Machine().Authority().Certificate }
	l.member, l.memberAt = n.isMember, n.memberAt
	l.meets = n.meets
	l.own, l.outdated, l.superseded = n.incarnation, n.rival.met, n.superseded
	l.stranger, l.removed = n.isStranger, n.removed
	l.serve = func(ctx context.Context, peer string, conn net.Conn) { serveCalls(ctx, peer, conn, n.handle) }
	return nil
}

// buildTree publishes the machine that was built from disk.
func (n *Node) buildTree() *zone.Tree {
	began := time.Now()
	tree := n.start.machine.Tree()
	n.logger.Info("state built", "index", n.start.machine.Index(), "domains", n.start.machine.DomainCount(), "read", n.start.read,
		"tail", n.start.tailEntries, "replay", n.start.took, "published", time.Since(began))
	return tree
}

// openParts makes what has goroutines once the node is started.
func (n *Node) openParts(tree *zone.Tree) {
	n.tail.init(n.start)
	n.seals.node = n
	n.rotator = newRotator(n)
	n.prover.node = n
	n.mills = newMills(n)
	n.barrier = &barrier{node: n, waits: make(map[barrierKey]BarrierWait)}
	n.asker = zone.NewAsker(tree)
	if n.tuning.ask == nil {
		n.tuning.ask = n.asker.Texts
	}
	var err error
	if n.evidence, err = newEvidence(n); err != nil {
		n.logger.Error("evidence of keys in use is not written down", "error", err)
	}
	n.trail = newTrail(n.c.DataDir)
	n.trail.restored.Store(n.start.restored)
	n.checker = newChecker(n)
	n.disk = &disk{node: n}
	n.journal = newJournal(n.c.DataDir, n.c.ID, n.c.Now, func() (state.ReadsHead, bool) { return n.Machine().ReadsHead(n.c.ID) })
}

// connectMachine has the machine and the snapshots tell the node's other parts what
// happens there.
func (n *Node) connectMachine() {
	n.fsm.spent, n.fsm.checks = n.tail.applied, n.checker.take
	n.fsm.void = func(why string) error { return markDiverged(n.c.DataDir, why) }
	n.fsm.adopted = func(meta *raft.SnapshotMeta) error {
		n.snaps.adopt(meta.ID)
		return n.store.superseded(meta.Index, meta.Term)
	}
	n.fsm.restored = n.tail.restored
	n.fsm.replaced = func() { n.trail.restored.Store(true) }
	n.snaps.written = n.store.continues
	n.snaps.rests, n.snaps.room = n.tail.rests, n.disk.roomFor
}

// openStores opens what is on disk and builds the machine from it.
func (n *Node) openStores() (err error) {
	dir := n.c.DataDir
	if err := Superseded(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making data directory: %w", err)
	}
	// The store's lock comes first: it keeps other processes out of the rest.
	if n.store, err = openStore(dir, n.tuning.noSync, n.fence); err != nil {
		return err
	}
	if err := n.store.checkOwner(dir, n.c.ID); err != nil {
		return err
	}
	if n.mark, err = openMark(filepath.Join(dir, "mark"), n.fence.trip); err != nil {
		return err
	}
	if n.snaps, err = openSnapshots(dir, n.logger, raftLogger(n.logger)); err != nil {
		return err
	}
	if n.met, err = openMet(filepath.Join(dir, "met")); err != nil {
		return err
	}
	b := builder{store: n.store, snaps: n.snaps, mark: n.mark, dir: dir, logger: n.logger}
	if n.start, err = b.build(); err != nil {
		return err
	}
	if n.start.fresh && len(n.c.Bootstrap) > 0 && n.snaps.hasBroken() {
		return fmt.Errorf("the snapshot in %s cannot be read and there is neither log nor mark: this node had state, and would answer that nothing exists; %s", filepath.Join(dir, brokenDir), replaceNode)
	}
	return nil
}

func (n *Node) closeStores() error {
	var errs []error
	if n.mark != nil {
		errs = append(errs, n.mark.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

// Needs is the index that this node's state must reach before it may answer,
// because its disk holds less than was served from it; 0 where the disk holds all.
//
// A node that joined holds only a part of the log until it is as far as those it
// joined were, whose answers to names in the rest would be that there are none.
func (n *Node) Needs() uint64 {
	if len(n.c.Bootstrap) == 0 {
		return max(n.start.need, n.mark.get().Owed)
	}
	return n.start.need
}

// raft is the library once Start has started it, else nil.
func (n *Node) raft() *raft.Raft { return n.library.Load() }

// Tree is the index that queries read; the same for the life of the node.
func (n *Node) Tree() *zone.Tree { return n.fsm.tree }

// Machine is the state as applied here. READ-ONLY.
func (n *Node) Machine() state.Machine { return n.fsm.current() }

// meets notes that a node takes part in Raft.
func (n *Node) meets(id string) {
	if err := n.met.set(id, true); err != nil {
		n.logger.Error("noting a node that takes part", "node", id, "error", err)
	}
}

// SetServing tells the node whether its DNS listeners are open.
func (n *Node) SetServing(serving bool) { n.serving.Store(serving) }

// Fenced is closed when the node is fenced off: it will take no part in the
// cluster any more, and only a successor can.
func (n *Node) Fenced() <-chan struct{} { return n.fence.tripped }

// Leader is the leader's ID; empty where there is none.
func (n *Node) Leader() string {
	if n.raft() == nil || n.fence.err() != nil {
		return ""
	}
	_, id := n.raft().LeaderWithID()
	if string(id) == n.c.ID && n.stalled() {
		return "" // the others are electing another
	}
	return string(id)
}

// leads says whether this node takes writes.
func (n *Node) leads() bool {
	return n.raft() != nil && n.fence.err() == nil && n.raft().State() == raft.Leader && !n.stalled()
}

// stalled says whether the disk has held up an append, or what is applied, so long that
// this node must not lead: the library would for ever (hashicorp/raft issue 503), because
// it waits for the disk where it would notice that its lease is over, or knows nothing of
// what waits to be applied.
func (n *Node) stalled() bool {
	return n.store.stalled(n.tuning.stall) || n.mark.stalled(n.tuning.stall)
}

// abstains says whether this node must keep out of elections.
func (n *Node) abstains() bool { return n.store.stale() || n.fsm.current().Index() < n.owed() }

// owed is the index before which this node keeps out of elections. A node that
// joins with an empty disk may be a voter that lost it: until it knows how far
// the others are, it keeps out as well.
func (n *Node) owed() uint64 {
	if n.joining() && !n.joined.Load() {
		return Never
	}
	return n.mark.get().Owed
}

// joining says whether this node began with nothing and founds nothing.
func (n *Node) joining() bool { return n.start.fresh && len(n.c.Bootstrap) == 0 }

// Progress grows while this node takes over what it lacks: entries, or the octets
// of a snapshot. busy: it is reading one in just now.
func (n *Node) Progress() (progress uint64, busy bool) {
	return n.fsm.current().Index() + uint64(n.snaps.arrived.Load()), n.fsm.restoring.Load()
}

// WaitApplied waits until this node has applied an index.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	for {
		changed := n.fsm.next()
		at := n.fsm.current().Index()
		if at >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for index %d, this node is at %d: %w", index, at, ctx.Err())
		case <-n.fence.tripped:
			return fmt.Errorf("waiting for index %d, this node is at %d: %w", index, at, errFenced)
		case <-n.ctx.Done():
			return fmt.Errorf("waiting for index %d, this node is at %d: node closed", index, at)
		}
	}
}

// Health says what is wrong with the node, empty where nothing is.
func (n *Node) Health() []string {
	var problems []string
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if cause := n.fence.err(); cause != nil {
		say("fenced off: %v; DNS goes on, start a successor", cause)
	}
	if n.stalled() {
		say("disk: a write to it has been hanging for more than %s: this node does not lead; DNS goes on", n.tuning.stall)
	}
	index := n.fsm.current().Index()
	if index < n.Needs() {
		say("state on disk reaches index %d of %d; not to be served until Raft has caught up", index, n.Needs())
	}
	if n.abstains() {
		say("lost log entries: takes no part in elections until it has caught up")
	}
	if n.raft() == nil {
		say("Raft is not started")
	} else if n.fence.err() == nil && n.Leader() == "" {
		say("no leader known")
	}
	if members := n.members(); len(members) > 0 && !contains(members, n.c.ID) {
		say("not a member of the cluster")
	}
	if p := n.outcast.problem(); p != "" {
		problems = append(problems, p)
	}
	for _, o := range n.fsm.current().OffNodes() {
		say("%s is out of the serving set since %s: no change waits for it", o.ID, time.Unix(o.Since, 0).UTC().Format(time.RFC3339))
	}
	if p := n.certificateProblem(); p != "" {
		problems = append(problems, p)
	}
	problems = append(problems, n.trail.problems()...)
	problems = append(problems, n.evidence.problems()...)
	problems = append(problems, n.checker.problems()...)
	problems = append(problems, n.disk.problems()...)
	problems = append(problems, n.journal.problems()...)
	return append(problems, n.rotator.problems()...)
}
