package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// The contract these tests hold is in ARCHITECTURE.md, "The index contract".

// snapshotIDs are the snapshots on a node's disk, oldest first.
func (c *testCluster) snapshotIDs(id string) []string {
	c.t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.data(id), snapshotDir))
	must(c.t, err)
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	sort.Slice(ids, func(i, j int) bool { return snapshotIndex(ids[i]) < snapshotIndex(ids[j]) })
	return ids
}

// snapshotIndex reads "term-index-milliseconds".
func snapshotIndex(id string) (index uint64) {
	var term, at uint64
	fmt.Sscanf(id, "%d-%d-%d", &term, &index, &at)
	return index
}

// damage flips a bit in the middle of a snapshot.
func (c *testCluster) damage(id, snapshot string) {
	c.t.Helper()
	path := filepath.Join(c.data(id), snapshotDir, snapshot, "state.bin")
	b, err := os.ReadFile(path)
	must(c.t, err)
	b[len(b)/2] ^= 1
	must(c.t, os.WriteFile(path, b, 0o600))
}

// writeMany adds count tenants and returns their names and the last index.
func writeMany(t testing.TB, n *Node, prefix string, count int) (names []string, index uint64) {
	t.Helper()
	for i := range count {
		id := fmt.Sprintf("%s-%02d", prefix, i)
		names = append(names, id)
		index = write(t, n, id)
	}
	return names, index
}

func sorted(lists ...[]string) []string {
	var all []string
	for _, l := range lists {
		all = append(all, l...)
	}
	sort.Strings(all)
	return all
}

// wantEverywhere waits for an index, and wants one state of all nodes, in machine
// and DNS.
func (c *testCluster) wantEverywhere(index uint64, tenants ...string) {
	c.t.Helper()
	c.waitAll(index)
	leader := c.leader()
	for _, n := range c.nodes {
		wantTenants(c.t, n, tenants...)
		wantNoDiff(c.t, n)
		wantSame(c.t, leader, n)
	}
}

// wantSame compares the machines of two nodes, once they are at one index.
func wantSame(t testing.TB, a, b *Node) {
	t.Helper()
	var mine, theirs state.Machine
	eventually(t, "the same index on both", func() bool {
		mine, theirs = a.Machine(), b.Machine()
		return mine.Index() == theirs.Index()
	})
	var x, y bytes.Buffer
	must(t, mine.WriteImage(&x))
	must(t, theirs.WriteImage(&y))
	if !bytes.Equal(x.Bytes(), y.Bytes()) {
		t.Fatalf("%s and %s differ at index %d", a.c.ID, b.c.ID, mine.Index())
	}
}

func TestBrokenNewestSnapshotFallsBackToTheOlderOneAndTheLog(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	claim(t, leader, "send.customer.test.")
	first, _ := writeMany(t, leader, "a", 5)
	must(t, leader.snapshot())
	second, _ := writeMany(t, leader, "b", 5)
	must(t, leader.snapshot())
	third, index := writeMany(t, leader, "c", 5)
	id := leader.c.ID
	want := sorted([]string{"acme"}, first, second, third)
	c.kill(id)

	snaps := c.snapshotIDs(id)
	if len(snaps) != 2 {
		t.Fatalf("snapshots %v, want 2", snaps)
	}
	c.damage(id, snaps[1])
	n := c.open(id)
	wantTenants(t, n, want...)
	wantNoDiff(t, n)
	if n.start.need != 0 || n.Machine().Index() < index {
		t.Fatalf("at index %d, need %d; everything up to %d is on disk", n.Machine().Index(), n.start.need, index)
	}
	listed, err := n.snaps.List()
	must(t, err)
	if len(listed) != 1 || listed[0].ID != snaps[0] {
		t.Fatalf("listed snapshots %v, want only %s, which the machine was built from", listed, snaps[0])
	}
	must(t, n.Start())
	c.wantEverywhere(write(t, c.leader(), "later"), sorted(want, []string{"later"})...)
}

func TestBrokenSnapshotWithoutItsLogWaitsForTheOthersAndDoesNotVote(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	names, index := writeMany(t, leader, "a", 10)
	c.waitAll(index)
	follower := c.follower()
	id := follower.c.ID
	must(t, follower.snapshot())
	c.kill(id)
	// The log behind the snapshot is gone, as after compaction or an install.
	store, err := openStore(c.data(id), false, newFence(follower.logger))
	must(t, err)
	last, err := store.LastIndex()
	must(t, err)
	must(t, store.DeleteRange(1, last-1))
	must(t, store.Close())
	c.damage(id, c.snapshotIDs(id)[0])

	n := c.open(id)
	if n.start.need < index {
		t.Fatalf("node at index %d may serve from %d, but had applied %d", n.Machine().Index(), n.start.need, index)
	}
	if !n.abstains() {
		t.Fatal("a node that lost acknowledged entries would vote")
	}
	if h := strings.Join(n.Health(), "; "); !strings.Contains(h, "state on disk reaches") {
		t.Errorf("health %q does not say that the state is not whole", h)
	}
	must(t, n.Start())
	if need := n.AskPeers(within(t, 5*time.Second)); need < index {
		t.Errorf("peers say %d, want at least %d", need, index)
	}
	must(t, n.WaitApplied(within(t, 20*time.Second), index))
	wantTenants(t, n, names...)
	eventually(t, "voting again", func() bool { return !n.abstains() })
	wantNoDiff(t, n)
}

// Such a node would found its cluster anew, and answer that nothing exists.
func TestNodeOfWhichOnlyABrokenSnapshotIsLeftDoesNotStart(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	writeMany(t, c.leader(), "a", 10)
	must(t, c.leader().snapshot())
	c.kill("node-1")
	c.damage("node-1", c.snapshotIDs("node-1")[0])
	entries, err := os.ReadDir(c.data("node-1"))
	must(t, err)
	for _, e := range entries {
		if e.Name() != snapshotDir {
			must(t, os.RemoveAll(filepath.Join(c.data("node-1"), e.Name())))
		}
	}
	for range 2 { // it was set aside the first time
		if n, err := open(c.configOf("node-1"), c.tuning); err == nil {
			n.Close(t.Context())
			t.Fatal("the node started empty")
		} else if !strings.Contains(err.Error(), "cannot be read") || !strings.Contains(err.Error(), "add it again") {
			t.Fatalf("%v: names neither the snapshot nor the remedy", err)
		}
	}
}

func TestSnapshotIsRefusedWhileTheLogIsFedOnceMore(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	names, index := writeMany(t, c.leader(), "a", 10)
	c.waitAll(index)
	for _, m := range c.members {
		c.kill(m.ID)
	}

	// One alone: Raft feeds nothing, because nothing is known to be committed.
	c.start("node-1")
	n := c.nodes["node-1"]
	wantTenants(t, n, names...)
	if err := n.snapshot(); err != nil {
		t.Fatalf("snapshot of nothing: %v", err)
	}
	if snaps := c.snapshotIDs("node-1"); len(snaps) != 0 {
		t.Fatalf("snapshots %v, though Raft has fed nothing", snaps)
	}
	// In the middle of the skip it is refused: it would be labelled too low.
	half := &fsm{startedAt: n.fsm.startedAt, fed: n.fsm.startedAt - 1, mark: n.mark}
	half.machine.Store(n.fsm.machine.Load())
	if _, err := half.Snapshot(); !errors.Is(err, errNotFed) {
		t.Fatalf("snapshot during the skip: %v, want it refused", err)
	}

	c.start("node-2", "node-3")
	after, index := writeMany(t, c.leader(), "b", 3)
	c.waitAll(index)
	for id, n := range c.nodes {
		must(t, n.snapshot())
		snaps := c.snapshotIDs(id)
		if len(snaps) != 1 || snapshotIndex(snaps[0]) < index {
			t.Fatalf("%s: snapshots %v, want one at %d or later", id, snaps, index)
		}
	}
	c.stopAll()
	for _, m := range c.members {
		wantTenants(t, c.open(m.ID), sorted(names, after)...)
	}
}

func TestSnapshotLabelledWithAnotherIndexIsRefused(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	write(t, c.leader(), "a")
	n := c.leader()
	sink, err := n.snaps.Create(1, n.Machine().Index()-1, 1, raft.Configuration{}, 1, n.transport)
	must(t, err)
	defer sink.Cancel()
	if err := (&image{n.Machine(), n.fsm, 0}).Persist(sink); err == nil {
		t.Fatal("an image was written under a lower index: its entries would be applied twice")
	}
}

// A snapshot past it would not be trusted at the next start, and the log before it is gone.
func TestSnapshotIsNotPastTheDurableMark(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	write(t, n, "a")
	must(t, n.snapshot())
	metas, err := n.snaps.List()
	must(t, err)
	n.mark.mu.Lock()
	defer n.mark.mu.Unlock()
	if n.mark.synced.Index < metas[0].Index {
		t.Errorf("a snapshot of %d, and on disk is the mark %d", metas[0].Index, n.mark.synced.Index)
	}
}

// restoreInto restores an image into a cluster, writes, restarts all, and
// compares.
func restoreInto(t *testing.T, image []byte, wantFromImage []string, older bool) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	count := 2
	if older {
		count = 60
	}
	_, before := writeMany(t, leader, "gone", count)
	restored := restore(t, leader, image)
	if restored <= before {
		t.Fatalf("index %d after the restore, %d before: it must not go back", restored, before)
	}
	after, index := writeMany(t, leader, "after", 3)
	want := sorted(wantFromImage, after)
	c.wantEverywhere(index, want...)
	must(t, leader.WaitServed(within(t, 10*time.Second), index))
	for _, m := range c.members {
		c.kill(m.ID)
	}
	for _, m := range c.members {
		n := c.open(m.ID)
		wantTenants(t, n, want...)
		wantNoDiff(t, n)
		if n.Machine().Index() < index {
			t.Errorf("%s starts at %d, want %d", m.ID, n.Machine().Index(), index)
		}
		must(t, n.Start())
	}
	again, index := writeMany(t, c.leader(), "again", 2)
	c.wantEverywhere(index, sorted(want, again)...)
}

// imageAfter is an image of another cluster with that many writes.
func imageAfter(t *testing.T, writes int) (image []byte, tenants []string) {
	c := anotherCluster(t, 1)
	defer c.stopAll()
	c.startAll()
	seed(t, c.leader())
	claim(t, c.leader(), "send.customer.test.")
	tenants, _ = writeMany(t, c.leader(), "kept", writes)
	var b bytes.Buffer
	_, err := c.leader().SaveSnapshot(within(t, 10*time.Second), &b)
	must(t, err)
	return b.Bytes(), append(tenants, "acme")
}

// To replay a restore is to read its image again, and what it lost is missing in the audit
// files.
func TestNodeThatReplaysARestoreMakesASnapshotAndNotesTheGap(t *testing.T) {
	c := newTestCluster(t, 1)
	c.tuning.keep = time.Hour // no snapshot before
	c.startAll()
	image := saved(t, c.leader())
	write(t, c.leader(), "gone")
	restore(t, c.leader(), image)
	c.kill("node-1")
	n := c.open("node-1")
	if !n.tail.due(time.Now(), 0) || !n.trail.restored.Load() {
		t.Errorf("a snapshot is due: %v, the state was replaced: %v", n.tail.due(time.Now(), 0), n.trail.restored.Load())
	}
}

func TestUserRestoreIntoAYoungerCluster(t *testing.T) {
	image, tenants := imageAfter(t, 40)
	restoreInto(t, image, tenants, false)
}

func TestUserRestoreIntoAnOlderCluster(t *testing.T) {
	image, tenants := imageAfter(t, 2)
	restoreInto(t, image, tenants, true)
}

// calledBy says whether a function is among the callers.
func calledBy(name string) bool {
	var at [64]uintptr
	frames := runtime.CallersFrames(at[:runtime.Callers(2, at[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "."+name) {
			return true
		}
		if !more {
			return false
		}
	}
}

func TestDamagedImageIsNotRestored(t *testing.T) {
	image, _ := imageAfter(t, 2)
	image[len(image)/2] ^= 1
	c := newTestCluster(t, 1)
	c.startAll()
	write(t, c.leader(), "kept")
	_, err := c.leader().RestoreSnapshot(within(t, 10*time.Second), Actor{}, bytes.NewReader(image), false)
	if !errors.Is(err, ErrNotCommitted) {
		t.Fatalf("restoring a damaged image: %v, want it not committed", err)
	}
	write(t, c.leader(), "later")
	wantTenants(t, c.leader(), "kept", "later")
}

// divergent gives a stopped node a tail that nobody committed: entries of its
// own term behind what it had applied.
func (c *testCluster) divergent(id string, count int) {
	c.t.Helper()
	f := newFence(c.configOf(id).Logger)
	store, err := openStore(c.data(id), false, f)
	must(c.t, err)
	defer store.Close()
	last, err := store.LastIndex()
	must(c.t, err)
	var l raft.Log
	must(c.t, store.GetLog(last, &l))
	data, err := state.EncodeBatch([]state.Entry{{At: 1, Actor: "test", Command: state.AddTenant{ID: "never-committed", Name: "x"}}})
	must(c.t, err)
	for i := range count {
		must(c.t, store.StoreLog(&raft.Log{Index: last + 1 + uint64(i), Term: l.Term, Type: raft.LogCommand, Data: data}))
	}
}

// newTerm has the running nodes elect another leader, so that what was appended
// in the term before and not committed is divergent.
func (c *testCluster) newTerm() {
	c.t.Helper()
	must(c.t, c.leader().TransferLeader(within(c.t, 10*time.Second), ""))
	c.leader()
}

// onlySnapshots leaves the running nodes little but a snapshot to bring others up with.
func (c *testCluster) onlySnapshots() {
	c.t.Helper()
	for _, n := range c.nodes {
		n.tail.octets = 1 << 40 // so that the library keeps as little as it may
		must(c.t, n.snapshot())
	}
}

func TestInstallOverADivergentTailThenABrokenInstall(t *testing.T) {
	c := newTestCluster(t, 3)
	c.tuning.trailing = 1
	c.startAll()
	names, index := writeMany(t, c.leader(), "a", 5)
	c.waitAll(index)
	follower := c.follower()
	id := follower.c.ID
	must(t, follower.snapshot()) // the older one, to fall back to
	c.kill(id)
	c.divergent(id, 30)

	// The others go on in another term, and compact.
	c.newTerm()
	more, index := writeMany(t, c.leader(), "b", 10)
	names = append(names, more...)
	c.waitAll(index)
	c.onlySnapshots()

	// The divergent tail is not replayed, and the install replaces it.
	n := c.open(id)
	if has(n, "never-committed") {
		t.Fatal("an entry was served that nobody committed")
	}
	must(t, n.Start())
	must(t, n.WaitApplied(within(t, 20*time.Second), index))
	wantTenants(t, n, sorted(names)...)
	if base := n.mark.get().Base; base == 0 {
		t.Fatal("the node caught up without an install: the test shows nothing")
	}
	more, index = writeMany(t, c.leader(), "c", 3)
	names = append(names, more...)
	c.waitAll(index)
	wantTenants(t, n, sorted(names)...)
	c.kill(id)

	// Then the installed snapshot breaks. The one before it is still there, and
	// what the log holds must not be replayed over it.
	snaps := c.snapshotIDs(id)
	if len(snaps) != 2 {
		t.Fatalf("snapshots %v, want the older one and the installed one", snaps)
	}
	c.damage(id, snaps[1])
	n = c.open(id)
	if has(n, "never-committed") {
		t.Fatal("the divergent tail came back")
	}
	if n.start.need < index || !n.abstains() {
		t.Fatalf("at index %d: need %d (want %d), keeps out of elections: %v (want true)", n.Machine().Index(), n.start.need, index, n.abstains())
	}
	must(t, n.Start())
	c.wantEverywhere(write(t, c.leader(), "d"), sorted(names, []string{"d"})...)
}

func TestCrashBetweenInstallAndClearingTheLogDoesNotBringTheTailBack(t *testing.T) {
	c := newTestCluster(t, 3)
	c.tuning.trailing = 1
	c.startAll()
	names, index := writeMany(t, c.leader(), "a", 5)
	c.waitAll(index)
	id := c.follower().c.ID
	c.kill(id)
	c.divergent(id, 30)
	c.newTerm()
	more, index := writeMany(t, c.leader(), "b", 10)
	names = append(names, more...)
	c.waitAll(index)
	c.onlySnapshots()
	// What the library does up to the crash: the snapshot is on disk, the machine
	// replaced, the log not yet cleared.
	leader := c.leader()
	meta, r := newestImage(t, leader)
	n := c.open(id)
	sink, err := n.snaps.Create(meta.Version, meta.Index, meta.Term, meta.Configuration, meta.ConfigurationIndex, leader.transport)
	must(t, err)
	b := new(bytes.Buffer)
	_, err = b.ReadFrom(r)
	must(t, err)
	_, err = sink.Write(b.Bytes())
	must(t, err)
	must(t, sink.Close())
	_, own, err := n.snaps.Open(sink.ID())
	must(t, err)
	must(t, n.fsm.Restore(own))
	must(t, own.Close())
	c.stop(id)

	n = c.open(id)
	wantTenants(t, n, sorted(names)...)
	if first, err := n.store.FirstIndex(); err != nil || first != 0 {
		t.Fatalf("the log begins at %d (%v), want it cleared", first, err)
	}
	must(t, n.Start())
	last := write(t, c.leader(), "c")
	c.waitAll(last)
	wantTenants(t, n, sorted(names, []string{"c"})...)
	wantSame(t, n, leader)
}

func TestReceivedSnapshotThatWasNotTakenOverIsSetAside(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	names, _ := writeMany(t, n, "a", 3)
	// Written to the end, but the process dies before the machine was replaced.
	sink, err := n.snaps.Create(1, n.Machine().Index()+100, 99, raft.Configuration{}, 1, n.transport)
	must(t, err)
	must(t, state.Empty().WriteImage(sink))
	must(t, sink.Close())
	if listed, err := n.snaps.List(); err != nil || len(listed) != 0 {
		t.Fatalf("listed before it was taken over: %v, %v", listed, err)
	}
	c.kill("node-1")
	n = c.open("node-1")
	wantTenants(t, n, names...)
	if left := c.snapshotIDs("node-1"); len(left) != 0 {
		t.Errorf("still in the store: %v", left)
	}
}

// newestImage is the snapshot that a node would send to others.
func newestImage(t testing.TB, n *Node) (*raft.SnapshotMeta, io.ReadCloser) {
	t.Helper()
	metas, err := n.snaps.List()
	must(t, err)
	meta, image, err := n.snaps.Open(metas[0].ID)
	must(t, err)
	t.Cleanup(func() { image.Close() })
	return meta, image
}

// late are the messages of a leader that the network kept, for a node that hears nothing
// else.
type late struct {
	from raft.RPCHeader
	term uint64
	to   *Node
}

func lateFrom(leader *Node) late {
	return late{term: leader.raft().CurrentTerm(), from: raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.c.ID), Addr: []byte(leader.c.Bind),
	}}
}

func (l late) tell(message any, image io.Reader) (any, error) {
	answer := make(chan raft.RPCResponse, 1)
	l.to.transport.vouched <- raft.RPC{RespChan: answer, Command: message, Reader: image}
	r := <-answer
	return r.Response, r.Error
}

func (l late) install(meta *raft.SnapshotMeta, image io.Reader) error {
	answer, err := l.tell(&raft.InstallSnapshotRequest{
		RPCHeader: l.from, SnapshotVersion: meta.Version, Term: l.term, LastLogIndex: meta.Index, LastLogTerm: meta.Term,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: meta.Size,
	}, image)
	if r, ok := answer.(*raft.InstallSnapshotResponse); err == nil && (!ok || !r.Success) {
		return fmt.Errorf("answered %+v", answer)
	}
	return err
}

func (l late) follows(t testing.TB, prev, of uint64, commit uint64, entries ...*raft.Log) bool {
	t.Helper()
	answer, err := l.tell(&raft.AppendEntriesRequest{
		RPCHeader: l.from, Term: l.term, PrevLogEntry: prev, PrevLogTerm: of, LeaderCommitIndex: commit, Entries: entries,
	}, nil)
	must(t, err)
	return answer.(*raft.AppendEntriesResponse).Success
}

// A leader that was deposed, and whose log was cut, sends its last snapshot to who has not
// heard of its successor. A node whose log goes further has no use for it.
func TestOlderSnapshotDoesNotTakeTheStateBack(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	before, _ := writeMany(t, leader, "a", 3)
	must(t, leader.snapshot())
	meta, image := newestImage(t, leader)
	after, index := writeMany(t, leader, "b", 3)
	c.waitAll(index)
	id, from := c.follower().c.ID, lateFrom(leader)
	for _, m := range c.members {
		c.kill(m.ID)
	}
	c.start(id)
	from.to = c.nodes[id]
	if err := from.install(meta, image); err == nil || !strings.Contains(err.Error(), "is refused") {
		t.Errorf("a snapshot of %d at a node that had applied %d: %v", meta.Index, index, err)
	}
	wantTenants(t, from.to, sorted(before, after)...)
}

// A follower whose own tail a snapshot superseded goes on believing in it. What a leader
// said of a commit before it had sent the entries, or sent before the snapshot, must not
// have it pass over what is still to come.
func TestSupersededTailIsNeverTakenForCommitted(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	before, index := writeMany(t, leader, "a", 5)
	c.waitAll(index)
	follower := c.follower()
	id, had := follower.c.ID, follower.raft().LastIndex()
	c.kill(id)
	must(t, leader.snapshot())
	meta, image := newestImage(t, leader)
	after, index := writeMany(t, leader, "b", 3)
	var entries []*raft.Log
	for i := meta.Index + 1; i <= index; i++ {
		l := new(raft.Log)
		must(t, leader.store.GetLog(i, l))
		entries = append(entries, l)
	}
	from := lateFrom(leader)
	c.stopAll()
	c.divergent(id, int(index-had))

	c.start(id)
	n := c.nodes[id]
	from.to = n
	must(t, from.install(meta, image))
	if base := n.store.base.Load(); base.stale != index {
		t.Fatalf("the superseded tail ends at %d, want %d: the test shows nothing", base.stale, index)
	}
	last := entries[len(entries)-1]
	if from.follows(t, last.Index, last.Term, last.Index) {
		t.Errorf("it says that it has %d, and the snapshot is of %d", last.Index, meta.Index)
	}
	if !from.follows(t, meta.Index, meta.Term, last.Index) || !from.follows(t, meta.Index, meta.Term, last.Index, entries...) {
		t.Error("what follows the snapshot is refused")
	}
	must(t, n.WaitApplied(within(t, 20*time.Second), index))
	wantTenants(t, n, sorted(before, after)...)
}
