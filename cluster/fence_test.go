package cluster

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"authd/cluster/state"
)

func TestDiskErrorFencesTheLeaderAndTheOthersGoOn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	claim(t, leader, "send.customer.test.")
	id := leader.c.ID
	full := func() error { return syscall.ENOSPC }
	leader.store.fault.Store(&full)

	_, _, err := leader.Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "lost", Name: "x"})
	if err == nil {
		t.Fatal("a write succeeded on a full disk")
	}
	eventually(t, "the fence", func() bool { return leader.fence.err() != nil })
	if h := strings.Join(leader.Health(), "; "); !strings.Contains(h, "fenced off") || !strings.Contains(h, "no space left") {
		t.Errorf("health %q does not say why", h)
	}
	_, _, err = leader.Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "lost", Name: "x"})
	if !errors.Is(err, ErrNotCommitted) && !errors.Is(err, ErrNoLeader) {
		t.Errorf("a write on a fenced node: %v", err)
	}
	wantNoDiff(t, leader) // DNS goes on
	if leader.Machine().DomainCount() != 1 {
		t.Error("the fenced node lost its state")
	}

	delete(c.nodes, id)
	next := c.leader()
	index := write(t, next, "after")
	must(t, leader.Close(within(t, 10*time.Second)))

	// A successor over the same directory catches up.
	c.start(id)
	must(t, c.nodes[id].WaitApplied(within(t, 20*time.Second), index))
	wantSame(t, c.nodes[id], next)
}

func TestMarkThatCannotBeWrittenFences(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	eventually(t, "the rotator's first word", func() bool { return n.Machine().CookieSecrets().CurrentAt != 0 })
	must(t, n.mark.file.Close())
	_, _, err := n.Propose(within(t, 5*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "x", Name: "x"})
	if !errors.Is(err, ErrUnknown) {
		t.Errorf("%v: the entry is in the log, so its fate is unknown", err)
	}
	if n.fence.err() == nil {
		t.Error("not fenced")
	}
}

func TestEntryOfALaterReleaseFencesInsteadOfBeingSkipped(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	write(t, n, "before")
	n.raft().Apply([]byte("no batch of this release"), time.Second)
	eventually(t, "the fence", func() bool { return n.fence.err() != nil })
	if h := strings.Join(n.Health(), "; "); !strings.Contains(h, "upgrade") {
		t.Errorf("health %q does not say what to do", h)
	}
	if n.Machine().Index() >= n.raft().LastIndex() {
		t.Error("the entry was skipped")
	}
}

func TestLeaderWhoseDiskHangsIsReplaced(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	write(t, leader, "before")
	thaw := make(chan struct{})
	hang := func() error { <-thaw; return nil }
	leader.store.fault.Store(&hang)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go leader.Propose(ctx, Actor{ID: "test"}, state.AddTenant{ID: "stuck", Name: "x"})
	c.anotherLeads(leader)
	close(thaw)
	index := write(t, c.leader(), "after")
	c.waitAll(index)
}
