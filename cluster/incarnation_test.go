package cluster

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// recovered is a cluster of three of which node-3 was recovered alone, and runs.
// What the others had acknowledged last, node-3 never received.
func recovered(t *testing.T) *testCluster {
	t.Helper()
	c := newTestCluster(t, 3)
	c.startAll()
	c.withAuthority()
	index := write(t, c.leader(), "acme")
	must(t, c.leader().WaitServed(within(t, 20*time.Second), index))
	c.kill("node-3")
	c.waitAll(write(t, c.leader(), "without-3"))
	c.kill("node-1")
	c.kill("node-2")
	r, err := OpenRecovery("node-3", c.data("node-3"), "", slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, r.Commit("their disks are destroyed"))
	must(t, r.Close())
	old := c.members
	c.members = slices.DeleteFunc(slices.Clone(old), func(m Member) bool { return m.ID != "node-3" })
	c.start("node-3")
	if e := c.leader().Machine().Epoch(); e != 1 {
		t.Fatalf("epoch %d after a recovery", e)
	}
	c.members = old
	return c
}

// Two of three that come back are a majority of what was: without the epoch they
// elect a leader and answer beside the recovered one.
func TestOldMembersCannotFormTheirClusterAgain(t *testing.T) {
	c := recovered(t)
	survivor := c.nodes["node-3"]
	index := write(t, survivor, "after")
	// They meet the recovered node before they elect one of theirs, also where nothing
	// else has a processor: who led by then would be told of two clusters, and go on.
	c.tuning.heartbeat, c.tuning.election = 30*time.Second, 30*time.Second
	c.start("node-1", "node-2")
	for _, id := range []string{"node-1", "node-2"} {
		n := c.nodes[id]
		eventually(t, id+" to stand down", func() bool {
			n.AskPeers(within(t, 5*time.Second)) // as a process does when it starts
			return n.fence.err() != nil
		})
		if err := n.fence.err().Error(); !strings.Contains(err, "epoch 1, here 0") || !strings.Contains(err, "delete its data directory") {
			t.Errorf("%s: %s", id, err)
		}
		if has(n, "after") {
			t.Errorf("%s took entries of another incarnation", id)
		}
	}
	if n := survivor; n.fence.err() != nil || !has(n, "after") || n.Machine().Index() < index {
		t.Errorf("the recovered node: %v, index %d", n.fence.err(), n.Machine().Index())
	}
	told := ""
	for _, k := range survivor.Checks() {
		if k.Name == "epoch" {
			told = k.Detail
		}
	}
	if !strings.Contains(told, "before the cluster was recovered") {
		t.Errorf("its operator reads %q", told)
	}
	if f := survivor.Figures(); f.Epoch != 1 || f.LinkRefused == 0 {
		t.Errorf("figures: epoch %d, refused %d", f.Epoch, f.LinkRefused)
	}
	// It is for good: the node does not start again, not even with nobody there.
	c.stop("node-1")
	c.stop("node-3")
	if _, err := open(c.configOf("node-1"), c.tuning); err == nil || !strings.Contains(err.Error(), "add it again") {
		t.Errorf("started again: %v", err)
	}
	must(t, os.Remove(filepath.Join(c.data("node-1"), supersededFile)))
	n, err := open(c.configOf("node-1"), c.tuning)
	must(t, err)
	must(t, n.Close(within(t, 10*time.Second)))
}

// A name that was invited again is a member of the new cluster, so only the epoch
// tells its old disk from an empty one.
func TestOldDiskDoesNotRejoinUnderItsName(t *testing.T) {
	c := recovered(t)
	survivor := c.nodes["node-3"]
	must(t, survivor.AddPeer(within(t, 10*time.Second), Member{ID: "node-1", Address: c.member("node-1").Address}))
	c.start("node-1")
	old := c.nodes["node-1"]
	eventually(t, "node-1 to stand down", func() bool { return old.fence.err() != nil })
	index := write(t, survivor, "after")
	if has(old, "after") {
		t.Error("entries went on top of another history")
	}
	c.stop("node-1")
	must(t, os.RemoveAll(c.data("node-1")))
	config := c.configOf("node-1")
	config.Bootstrap = nil
	n, err := open(config, c.tuning)
	must(t, err)
	c.nodes["node-1"] = n
	must(t, n.Start())
	must(t, n.WaitApplied(within(t, 20*time.Second), index))
	wantTenants(t, n, "acme", "after")
	if e := n.Machine().Epoch(); e != 1 {
		t.Errorf("it joined in epoch %d", e)
	}
}

// A recovery by mistake must not take a majority down that was never lost.
func TestARunningMajorityIsNotSuperseded(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.waitAll(write(t, c.leader(), "acme"))
	c.kill("node-3")
	c.leader()
	r, err := OpenRecovery("node-3", c.data("node-3"), "", slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, r.Commit("their disks are destroyed"))
	must(t, r.Close())
	lone := c.open("node-3")
	must(t, lone.Start())
	majority := []*Node{c.nodes["node-1"], c.nodes["node-2"]}
	delete(c.nodes, "node-3")
	t.Cleanup(func() { lone.Close(within(t, 10*time.Second)) })
	eventually(t, "the alarm of both sides", func() bool {
		return lone.rival.problem() != "" && majority[0].rival.problem()+majority[1].rival.problem() != ""
	})
	c.waitAll(write(t, c.leader(), "goes-on"))
	for _, n := range majority {
		if n.fence.err() != nil || Superseded(n.c.DataDir) != nil {
			t.Errorf("%s gave up a cluster that works: %v", n.c.ID, n.fence.err())
		}
	}
}

// An alarm of two clusters goes when the other one has not been met for a while.
func TestAlarmOfARivalEnds(t *testing.T) {
	var r rival
	if why := r.problem(); why != "" {
		t.Errorf("never met: %q", why)
	}
	if r.met(errors.New("two clusters")); r.problem() != "two clusters" {
		t.Errorf("met now: %q", r.problem())
	}
	r.at = r.at.Add(-rivalTime - time.Second)
	if why := r.problem(); why != "" {
		t.Errorf("met a while ago: %q", why)
	}
}

// A node that is no member ends no cluster, whatever it says of itself.
func TestStrangerOfALaterIncarnationEndsNothing(t *testing.T) {
	ca := newAuthority(t)
	end := func(id string, of incarnation, superseded *atomic.Int32) *link {
		return linkWith(t, ca.tls(id), func(l *link) {
			l.own = func() incarnation { return of }
			l.outdated, l.superseded = func(error) {}, func(error) { superseded.Add(1) }
		}, "node-1", "node-2")
	}
	var ours, theirs atomic.Int32
	if _, err := ask(t, end("node-9", incarnation{epoch: 2, state: true}, &theirs), end("node-1", incarnation{epoch: 1, state: true}, &ours), "node-1"); err == nil || ours.Load() > 0 {
		t.Errorf("%v, superseded %d times", err, ours.Load())
	}
}
