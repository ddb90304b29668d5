package cluster

import (
	"fmt"
	"testing"
	"time"
)

func TestThreeNodesAgreeOnEveryWrite(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	claim(t, c.follower(), "send.customer.test.")
	index := write(t, leader, "beta")
	c.wantEverywhere(index, "acme", "beta")
	must(t, leader.WaitServed(within(t, 10*time.Second), index))
	for _, s := range c.follower().Members(within(t, 5*time.Second)) {
		if !s.Healthy || s.Applied < index || !s.Voter {
			t.Errorf("status %+v", s)
		}
	}
}

func TestWritesGoOnAfterTheLeaderDies(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	first := c.leader()
	write(t, first, "before")
	id := first.c.ID
	c.kill(id)
	second := c.leader()
	write(t, second, "between")
	c.start(id)
	index := write(t, c.nodes[id], "through-the-one-that-came-back")
	c.waitAll(index)
	for _, n := range c.nodes {
		wantTenants(t, n, "before", "between", "through-the-one-that-came-back")
	}
}

func TestAllRestartedTogetherHaveEveryWrite(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	seed(t, c.leader())
	claim(t, c.leader(), "send.customer.test.")
	c.stopAll()
	c.startAll()
	index := write(t, c.follower(), "later")
	c.waitAll(index)
	for _, n := range c.nodes {
		wantTenants(t, n, "acme", "later")
		wantNoDiff(t, n)
	}
}

func TestOneNodeAloneAnswersWithEveryServedWrite(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	seed(t, c.leader())
	claim(t, c.leader(), "send.customer.test.")
	var want []string
	want = append(want, "acme")
	var index uint64
	for i := range 5 {
		id := fmt.Sprintf("t%d", i)
		index = write(t, c.leader(), id)
		want = append(want, id)
	}
	must(t, c.leader().WaitServed(within(t, 10*time.Second), index))
	for _, m := range c.members {
		c.kill(m.ID)
	}
	for _, m := range c.members {
		n := c.open(m.ID) // Raft does not exist yet
		wantTenants(t, n, want...)
		wantNoDiff(t, n)
		if n.Machine().DomainCount() != 1 {
			t.Errorf("%s has %d domains, want 1", m.ID, n.Machine().DomainCount())
		}
		c.stop(m.ID)
	}
	// And goes on doing so with Raft running, but nobody to lead.
	c.start("node-1")
	n := c.nodes["node-1"]
	if need := n.AskPeers(within(t, 5*time.Second)); need != 0 {
		t.Errorf("must wait for index %d though nobody answers", need)
	}
	wantTenants(t, n, want...)
}
