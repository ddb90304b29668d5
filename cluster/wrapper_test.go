package cluster

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// The library's defects that we wrap, each with a test that fails without its
// wrapper. Those of the fence are in fence_test.go.

// plainStreams is a stream layer without TLS.
type plainStreams struct{ net.Listener }

func (plainStreams) Dial(a raft.ServerAddress, d time.Duration) (net.Conn, error) {
	return net.DialTimeout("tcp", string(a), d)
}

// newWrapped is a transport of ours on a port of its own.
func newWrapped(t *testing.T) *transport {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	w := newTransport(newNetwork(plainStreams{l}, raftLogger(slog.New(slog.DiscardHandler))), newFence(slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { w.Close() })
	go w.run()
	return w
}

func (t *transport) at() raft.ServerAddress { return t.LocalAddr() }

// A heartbeat that takes the library's fast path changes term and state beside a
// running append (hashicorp/raft issue 695).
func TestHeartbeatsTakeTheOrdinaryWay(t *testing.T) {
	from, to := newWrapped(t), newWrapped(t)
	var _ raft.Transport = to // what the library calls
	to.SetHeartbeatHandler(func(rpc raft.RPC) {
		t.Error("a heartbeat took the fast path")
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	answered := make(chan error, 1)
	go func() {
		heartbeat := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, Addr: []byte("node-1")}, Term: 7}
		answered <- from.AppendEntries("node-2", to.at(), heartbeat, new(raft.AppendEntriesResponse))
	}()
	select {
	case rpc := <-to.Consumer():
		if q, ok := rpc.Command.(*raft.AppendEntriesRequest); !ok || q.Term != 7 {
			t.Errorf("got %+v", rpc.Command)
		}
		rpc.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
		must(t, <-answered)
	case err := <-answered:
		t.Errorf("answered beside the main goroutine: %v", err)
	}
}

// A leader whose disk hangs must fall silent: heartbeats come from goroutines of
// their own (hashicorp/raft issue 503).
func TestStalledLogHoldsHeartbeatsBack(t *testing.T) {
	from, to := newWrapped(t), newWrapped(t)
	stalled := true
	from.stalled = func() bool { return stalled }
	header := raft.RPCHeader{ProtocolVersion: 3, Addr: []byte("node-1")}
	heartbeat := &raft.AppendEntriesRequest{RPCHeader: header, Term: 7}
	if err := from.AppendEntries("node-2", to.at(), heartbeat, new(raft.AppendEntriesResponse)); !errors.Is(err, errStalled) {
		t.Fatalf("sent with a stalled log: %v", err)
	}
	go func() {
		for range 2 {
			rpc := <-to.Consumer()
			rpc.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
		}
	}()
	// What is stored already goes on to the others, and heartbeats come back.
	entries := &raft.AppendEntriesRequest{RPCHeader: header, Term: 7, Entries: []*raft.Log{{Index: 1, Term: 7}}}
	must(t, from.AppendEntries("node-2", to.at(), entries, new(raft.AppendEntriesResponse)))
	stalled = false
	must(t, from.AppendEntries("node-2", to.at(), heartbeat, new(raft.AppendEntriesResponse)))
}

// Replication over the library's pipeline never resumes after a follower's disk
// hung (hashicorp/raft issue 612).
func TestReplicationUsesNoPipeline(t *testing.T) {
	if _, err := newWrapped(t).AppendEntriesPipeline("node-2", ""); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("%v", err)
	}
}

// The hung disk of a leader costs at most ten seconds of writes, also where its word
// to the others is lost: it falls silent, the others' patience ends, which the library
// draws from up to twice the time, and they elect.
func TestTimersReplaceAHungLeaderWithinTenSeconds(t *testing.T) {
	d := defaultTuning()
	if worst := d.stall + 2*d.heartbeat + d.election; worst > 10*time.Second {
		t.Errorf("%s", worst)
	}
}

// hangs are what a hanging disk holds up first: an append, or, where the last one was done
// already, the note of how far the log is applied.
var hangs = []struct {
	name  string
	fault func(n *Node) *diskFault
}{
	{"append", func(n *Node) *diskFault { return &n.store.fault }},
	{"mark", func(n *Node) *diskFault { return &n.mark.fault }},
}

// hold has the disk hang at a place until thaw.
func hold(t *testing.T, fault *diskFault) (thaw func()) {
	frozen := make(chan struct{})
	thaw = sync.OnceFunc(func() { close(frozen) })
	t.Cleanup(thaw) // before the node is closed
	hang := func() error { <-frozen; return nil }
	fault.Store(&hang)
	return thaw
}

// Both while its disk hangs: the old leader says so, takes no writes, and sends
// those who ask it elsewhere, although the library still calls it the leader.
func TestLeaderWhoseDiskHangsSaysSoAndTakesNoWrites(t *testing.T) {
	for _, h := range hangs {
		t.Run(h.name, func(t *testing.T) { leaderWhoseDiskHangs(t, h.fault) })
	}
}

func leaderWhoseDiskHangs(t *testing.T, fault func(*Node) *diskFault) {
	c := newTestCluster(t, 3)
	c.tuning.patience = 10 * time.Millisecond
	c.startAll()
	old := c.leader()
	write(t, old, "before")
	thaw := hold(t, fault(old))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stuck := make(chan error, 1)
	go func() {
		_, _, err := old.Propose(ctx, Actor{ID: "test"}, state.AddTenant{ID: "stuck", Name: "x"})
		stuck <- err
	}()
	eventually(t, "the stall to be noticed", old.stalled)
	if old.leads() || old.Leader() == old.c.ID {
		t.Error("it still takes itself for the leader")
	}
	if h := strings.Join(old.Health(), "; "); !strings.Contains(h, "has been hanging") {
		t.Errorf("health %q", h)
	}
	_, _, err := old.Propose(within(t, 5*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "late", Name: "x"})
	if !errors.Is(err, ErrNoLeader) {
		t.Errorf("a write meanwhile: %v", err)
	}
	if m := old.Machine(); m.DomainCount() != 0 || !has(old, "before") {
		t.Error("answers are gone")
	}
	c.anotherLeads(old)
	thaw()
	if err := <-stuck; err != nil && !errors.Is(err, ErrUnknown) {
		t.Errorf("the write that hung: %v", err)
	}
	index := write(t, c.leader(), "after")
	c.waitAll(index)
	wantSame(t, old, c.leader())
}

// The others would not miss it before the test gives up: it is its own word that has
// them elect, and those who wait for its disk hear of it too.
func TestLeaderWhoseDiskHangsTellsAnotherToLead(t *testing.T) {
	for _, h := range hangs {
		t.Run(h.name, func(t *testing.T) { heirOfHangingDisk(t, h.fault) })
	}
}

func heirOfHangingDisk(t *testing.T, fault func(*Node) *diskFault) {
	c := patient(t)
	old := c.leader()
	c.waitAll(write(t, old, "before"))
	thaw := hold(t, fault(old))
	_, _, err := old.Propose(within(t, time.Minute), Actor{ID: "test"}, state.AddTenant{ID: "stuck", Name: "x"})
	// Not committed, where it still waited for an entry before it.
	if !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotCommitted) || !strings.Contains(err.Error(), "the disk hangs") {
		t.Errorf("the write that hung: %v", err)
	}
	c.anotherLeads(old)
	thaw()
	index := write(t, c.leader(), "after")
	c.waitAll(index)
	wantSame(t, old, c.leader())
}

func TestHeirIsTheVoterWithMostOfTheLogWhereAMajorityFollows(t *testing.T) {
	members := []Member{{"node-1", "1", true}, {"node-2", "2", true}, {"node-3", "3", true}, {"node-4", "4", false}}
	has := func(term, last uint64) *follower { return &follower{term: term, last: last} }
	for name, c := range map[string]struct {
		followers map[raft.ServerID]*follower
		want      string
	}{
		"the furthest":             {map[raft.ServerID]*follower{"node-2": has(7, 90), "node-3": has(7, 91), "node-4": has(7, 99)}, "node-3"},
		"one alone":                {map[raft.ServerID]*follower{"node-2": has(7, 90), "node-4": has(7, 99)}, ""},
		"one of an earlier term":   {map[raft.ServerID]*follower{"node-2": has(7, 90), "node-3": has(6, 91)}, ""},
		"one that was removed":     {map[raft.ServerID]*follower{"node-2": has(7, 90), "node-5": has(7, 91)}, ""},
		"itself is no follower":    {map[raft.ServerID]*follower{"node-1": has(7, 99), "node-2": has(7, 90)}, ""},
		"as far as one another is": {map[raft.ServerID]*follower{"node-2": has(7, 90), "node-3": has(7, 90)}, "node-3"},
	} {
		tr := &transport{followers: c.followers}
		if heir, ok := tr.heir(7, "node-1", members); heir.ID != c.want || ok != (c.want != "") {
			t.Errorf("%s: %q, %t", name, heir.ID, ok)
		}
	}
}

// install hands a node a snapshot as the library does.
func install(t *testing.T, n *Node, image []byte, index uint64) {
	t.Helper()
	meta := &raft.SnapshotMeta{ID: "1-1-1", Index: index, Term: 1}
	done := make(chan error, 1)
	go func() { // the fence would park it
		done <- n.fsm.Restore(openSnapshot{io.NopCloser(bytes.NewReader(image)), meta})
	}()
	select {
	case err := <-done:
		must(t, err)
	case <-n.fence.tripped:
	}
}

// A leader that sends one snapshot after the other never ends by itself
// (hashicorp/raft issue 697).
func TestSnapshotsOneAfterTheOtherEndInAFreshStart(t *testing.T) {
	c := newTestCluster(t, 1)
	n := c.open("node-1")
	t.Cleanup(n.fence.free)
	var image bytes.Buffer
	must(t, state.Empty().WriteImage(&image))
	for i := range uint64(maxInstalls) {
		install(t, n, image.Bytes(), 10+i)
	}
	data, err := state.EncodeBatch([]state.Entry{{At: 1, Command: state.Reschedule{}}})
	must(t, err)
	n.fsm.Apply(&raft.Log{Index: 20, Type: raft.LogCommand, Data: data}) // progress: it counts from the start
	for i := range uint64(maxInstalls) {
		install(t, n, image.Bytes(), 30+i)
	}
	if n.fence.err() != nil {
		t.Fatalf("fenced after progress: %v", n.fence.err())
	}
	install(t, n, image.Bytes(), 40)
	if err := n.fence.err(); err == nil || !strings.Contains(err.Error(), "one after the other") {
		t.Fatalf("the fence: %v", err)
	}
	if _, err := os.Stat(filepath.Join(c.data("node-1"), divergedFile)); err != nil {
		t.Errorf("the successor would go on with it: %v", err)
	}
}

// deadlineConn notes how long it may take, and is lost.
type deadlineConn struct {
	net.Conn
	until *time.Time
}

func (c deadlineConn) SetDeadline(t time.Time) error {
	if t.After(*c.until) {
		*c.until = t
	}
	return c.Conn.SetDeadline(t)
}

type deadlineStreams struct {
	plainStreams
	until *time.Time
}

func (s deadlineStreams) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	near, far := net.Pipe()
	far.Close()
	return deadlineConn{near, s.until}, nil
}

// The library would wait eleven hours for 1 GiB, with the replication of that
// follower standing still.
func TestSnapshotIsNotWaitedForWithoutBounds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var until time.Time
	network := newNetwork(deadlineStreams{plainStreams{l}, &until}, raftLogger(slog.New(slog.DiscardHandler)))
	defer network.Close()
	args := &raft.InstallSnapshotRequest{Size: 1 << 30}
	err = network.InstallSnapshot("node-2", "x", args, new(raft.InstallSnapshotResponse), bytes.NewReader(nil))
	if err == nil {
		t.Fatal("sent to nobody")
	}
	if most := time.Until(until); most > 6*time.Minute || most < time.Minute {
		t.Errorf("1 GiB may take %s", most)
	}
}

// The library compacts from entry 0 where an install has left no log.
func TestClearingAnEmptyLogEnds(t *testing.T) {
	s, err := openStore(t.TempDir(), true, newFence(slog.New(slog.DiscardHandler)))
	must(t, err)
	defer s.Close()
	must(t, s.DeleteRange(0, 652))
	must(t, s.StoreLogs([]*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1}}))
	must(t, s.DeleteRange(0, 652))
	if last, err := s.LastIndex(); err != nil || last != 0 {
		t.Errorf("the log ends at %d: %v", last, err)
	}
}
