package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestFollowersLearnOfACommitAtOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	c.tuning.commit = time.Hour // so that the library never tells them
	c.tuning.lease = c.tuning.heartbeat
	c.startAll()
	leader := c.leader()
	for range 3 {
		_, index := writeMany(t, leader, "t", 5)
		c.waitAll(index)
	}
}

func TestCommitIsToldNoFurtherThanWhatAFollowerHas(t *testing.T) {
	f := &follower{term: 3, last: 10, told: 7}
	for committed, want := range map[uint64]uint64{6: 0, 7: 0, 9: 9, 10: 10, 25: 10} {
		if got := f.news(committed); got != want {
			t.Errorf("with %d committed told %d, want %d", committed, got, want)
		}
	}
}

func TestFailedRoundForgetsWhatAFollowerHas(t *testing.T) {
	w := newTransport(nil, nil)
	args := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 9, PrevLogTerm: 2, Entries: []*raft.Log{{Index: 10, Term: 3}}, LeaderCommitIndex: 9}
	w.note("node-2", "", args, true)
	if f := w.followers["node-2"]; f == nil || f.last != 10 || f.at != 3 || f.told != 9 {
		t.Fatalf("noted %+v", f)
	}
	w.note("node-2", "", args, false)
	if w.followers["node-2"] != nil {
		t.Error("still taken to have the entry")
	}
}

// The library would try once: a node that led before, and asks for votes again, has
// connections in its pool to the process that a peer was then.
func TestVotesAreAskedForOfAPeerThatWasRestarted(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	before := c.leader()
	c.waitAll(write(t, before, "acme"))
	must(t, before.TransferLeader(within(t, 10*time.Second), ""))
	var restarted string
	eventually(t, "another leader", func() bool { return c.leader() != before })
	for id, n := range c.nodes {
		if n != before && !n.leads() {
			restarted = id
		}
	}
	c.kill(restarted)
	c.start(restarted)
	c.waitAll(write(t, c.leader(), "zeta"))
	header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(before.c.ID), Addr: []byte(before.transport.LocalAddr())}
	at := raft.ServerAddress(c.member(restarted).Address)
	broken := before.link.broken.Load()
	if err := before.transport.RequestVote(raft.ServerID(restarted), at, &raft.RequestVoteRequest{RPCHeader: header}, new(raft.RequestVoteResponse)); err != nil {
		t.Errorf("asking for a vote: %v", err)
	}
	if before.link.broken.Load() == broken {
		t.Error("no connection had ended: the test shows nothing")
	}
}

// A node that lost entries it may have acknowledged neither votes nor stands,
// whichever way it is asked.
func TestNodeThatAbstainsTakesNoPartInElections(t *testing.T) {
	abstains := &transport{abstains: func() bool { return true }, roomFor: func(int64) string { return "" }}
	for _, ask := range []any{&raft.RequestVoteRequest{}, &raft.RequestPreVoteRequest{}, &raft.TimeoutNowRequest{}} {
		if err := abstains.refuses(raft.RPC{Command: ask}); !errors.Is(err, errAbstains) {
			t.Errorf("asked with a %T: %v", ask, err)
		}
	}
	if err := abstains.refuses(raft.RPC{Command: &raft.AppendEntriesRequest{}}); err != nil {
		t.Errorf("entries, which it needs: %v", err)
	}
	if err := abstains.RequestVote("node-2", "x", nil, nil); !errors.Is(err, errAbstains) {
		t.Errorf("it stands: %v", err)
	}
	if err := abstains.RequestPreVote("node-2", "x", nil, nil); !errors.Is(err, errAbstains) {
		t.Errorf("it wishes to stand: %v", err)
	}
}

// A leader that was stopped, and goes on where another leads, takes its disk to have hung
// and would have a third elect.
func TestOnlyTheLeaderCallsToAnElection(t *testing.T) {
	tr := newTransport(nil, nil)
	for _, c := range []struct {
		leader string
		heard  bool
	}{{"", true}, {"node-1", true}, {"node-2", false}, {"node-3", false}} {
		tr.leader = func() string { return c.leader }
		call := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ID: []byte("node-1")}}
		if err := tr.refuses(raft.RPC{Command: call}); (err == nil) != c.heard {
			t.Errorf("node-1 calls where %q leads: %v", c.leader, err)
		}
	}
}

func TestInstallOfAnImpossibleSizeIsRefused(t *testing.T) {
	tr := newTransport(nil, nil)
	tr.roomFor = func(octets int64) string {
		if octets > 1<<30 {
			return "disk: 1 GiB free"
		}
		return ""
	}
	for size, word := range map[int64]string{
		-1: "refused", 0: "refused", maxInstall + 1: "refused", 2 << 30: "1 GiB free", 1 << 30: "",
	} {
		err := tr.refuses(raft.RPC{Command: &raft.InstallSnapshotRequest{Size: size}})
		switch {
		case word == "" && err != nil:
			t.Errorf("a snapshot of %d octets: %v", size, err)
		case word != "" && (err == nil || !strings.Contains(err.Error(), word)):
			t.Errorf("a snapshot of %d octets: %v, want %q", size, err, word)
		}
	}
}

// Where this node's log lacks what it applied, a snapshot of before that is taken: the
// entries after it follow.
func TestInstallThatWouldTakeTheStateBackIsRefused(t *testing.T) {
	tr := newTransport(nil, nil)
	tr.applied = func() uint64 { return 383 }
	for _, c := range []struct {
		end, of      uint64
		stale, taken bool
	}{
		{390, 121, false, false}, {383, 382, false, false}, {390, 383, false, true}, {390, 384, false, true},
		{200, 250, false, true}, {200, 121, false, false}, {390, 121, true, true},
	} {
		tr.last, tr.ends = func() uint64 { return c.end }, func() (uint64, bool) { return 0, c.stale }
		err := tr.refuses(raft.RPC{Command: &raft.InstallSnapshotRequest{Size: 1, LastLogIndex: c.of}})
		if (err == nil) != c.taken {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
