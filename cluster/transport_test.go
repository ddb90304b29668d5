package cluster

import (
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
