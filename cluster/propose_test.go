package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"authd/cluster/state"
)

func TestFollowersForwardAndHaveAppliedWhenTheyReturn(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	for i := range 20 {
		n := c.follower()
		id := fmt.Sprintf("t%d", i)
		index := write(t, n, id)
		if !has(n, id) || n.Machine().Index() < index {
			t.Fatalf("write %d returned at index %d, and the node is at %d without it", i, index, n.Machine().Index())
		}
	}
}

func TestRefusalsComeBackThroughTheLeader(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	results, _, err := c.follower().Propose(within(t, 10*time.Second), Actor{ID: "test"},
		state.AddTenant{ID: "good", Name: "Good"}, state.SuspendTenant{ID: "nobody", Suspended: true})
	must(t, err)
	if len(results) != 2 || results[0].Refusal != nil || results[1].Refusal == nil {
		t.Fatalf("results %+v", results)
	}
	if r := results[1].Refusal; r.Kind != state.NotFound || r.Message == "" {
		t.Errorf("refusal %+v", r)
	}
}

func TestProposalsThatWaitTogetherShareLogEntries(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	before := write(t, leader, "first")
	const writers, each = 64, 5
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprintf("w%02d-%d", w, i)
				if _, _, err := leader.Propose(within(t, 20*time.Second), Actor{ID: "test"}, state.AddTenant{ID: id, Name: id}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	entries := leader.Machine().Index() - before
	t.Logf("%d writes in %d entries", writers*each, entries)
	if entries > writers*each/2 {
		t.Errorf("%d writes took %d log entries", writers*each, entries)
	}
	count := 0
	for range leader.Machine().Tenants("") {
		count++
	}
	if count != writers*each+1 {
		t.Errorf("%d tenants, want %d", count, writers*each+1)
	}
}

func TestManyCommandsAreCutIntoEntriesInOrder(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	var commands []state.Command
	for i := range state.MaxBatch*2 + 10 {
		commands = append(commands, state.AddTenant{ID: fmt.Sprintf("t%04d", i), Name: "x"})
	}
	results, index, err := c.leader().Propose(within(t, 20*time.Second), Actor{ID: "test"}, commands...)
	must(t, err)
	if len(results) != len(commands) || c.leader().Machine().Index() < index {
		t.Fatalf("%d results at %d, machine at %d", len(results), index, c.leader().Machine().Index())
	}
	batches, err := cut(make([]state.Entry, 0))
	if err != nil || len(batches) != 0 {
		t.Errorf("nothing is cut into %v, %v", batches, err)
	}
}

func TestOversizeCommandIsRefusedBeforeItIsLogged(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	_, _, err := c.leader().Propose(within(t, 10*time.Second), Actor{ID: "test"},
		state.AddTenant{ID: "x", Name: strings.Repeat("x", maxEntry)})
	if !errors.Is(err, ErrNotCommitted) || !strings.Contains(err.Error(), "octets") {
		t.Errorf("%v, want not committed, with the size", err)
	}
}

func TestWriteWithoutALeaderDidNotHappen(t *testing.T) {
	c := newTestCluster(t, 3)
	c.tuning.patience = 300 * time.Millisecond
	c.start("node-1")
	began := time.Now()
	_, _, err := c.nodes["node-1"].Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "x", Name: "x"})
	if !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknown) {
		t.Errorf("%v, want no leader", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s to say so", took)
	}
}

func TestWriteThatLostItsQuorumIsUnknownAndMayHaveHappened(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	write(t, leader, "before")
	id := leader.c.ID
	for other := range c.nodes {
		if other != id {
			c.kill(other)
		}
	}
	_, _, err := leader.Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "maybe", Name: "x"})
	if !errors.Is(err, ErrUnknown) || errors.Is(err, ErrNotCommitted) || errors.Is(err, ErrNoLeader) {
		t.Fatalf("%v, want unknown and nothing else", err)
	}
	if has(leader, "maybe") {
		t.Fatal("applied without a quorum")
	}
	// It did happen: the entry is in this log, and this log wins, because the one
	// other node that comes back cannot be elected without it.
	var others []string
	for _, m := range c.members {
		if m.ID != id {
			others = append(others, m.ID)
		}
	}
	c.start(others[0])
	write(t, c.leader(), "after")
	c.start(others[1])
	index := write(t, c.leader(), "later")
	c.waitAll(index)
	for _, n := range c.nodes {
		if !has(n, "maybe") {
			t.Errorf("%s does not have the entry that the leader's log held", n.c.ID)
		}
	}
}

func TestGivenUpBeforeItWasTakenDidNotHappen(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	leader := c.leader()
	ctx, cancel := context.WithCancel(context.Background())
	// Nobody takes it: this batcher does not run.
	idle := newBatcher(leader)
	done := make(chan outcome)
	go func() {
		done <- idle.submit(ctx, batch{entries: []state.Entry{{Command: state.AddTenant{ID: "x", Name: "x"}}}})
	}()
	p := <-idle.queue
	cancel()
	if o := <-done; !errors.Is(o.err, ErrNotCommitted) || errors.Is(o.err, ErrUnknown) {
		t.Errorf("%v, want not committed", o.err)
	}
	var g group
	g.add(p)
	if list := g.take(); len(list) != 0 {
		t.Error("a proposal whose owner was told that it did not happen was taken")
	}
}

func TestAGroupIsFullWhereTheNextDoesNotFit(t *testing.T) {
	of := func(octets int) *proposal {
		return &proposal{batch: batch{entries: make([]state.Entry, 1), octets: octets}}
	}
	for _, octets := range []int{1, usualEntry / 4, usualEntry, 2 * usualEntry} {
		fit := max(min(usualEntry/octets, state.MaxBatch), 1)
		var g group
		for range fit {
			if g.full() {
				t.Fatalf("full with %d of %d proposals of %d octets", len(g.list), fit, octets)
			}
			g.add(of(octets))
		}
		last := of(octets)
		if g.add(last); !g.full() {
			t.Errorf("%d proposals of %d octets are not too many", fit+1, octets)
		}
		if list := g.take(); len(list) != fit || g.full() || len(g.list) != 1 || g.list[0] != last || g.octets != octets {
			t.Errorf("of %d proposals of %d octets %d are taken, and %d stay", fit+1, octets, len(list), len(g.list))
		}
	}
}

func TestMoreWritesThanTheQueueHoldsAreTurnedAwayAtOnce(t *testing.T) {
	c := newTestCluster(t, 1)
	b := newBatcher(c.open("node-1")) // nobody takes from its queue
	for range maxQueue {
		b.queue <- &proposal{}
	}
	o := b.submit(context.Background(), batch{})
	if !errors.Is(o.err, ErrBusy) || !errors.Is(o.err, ErrNotCommitted) || errors.Is(o.err, ErrUnknown) {
		t.Errorf("%v", o.err)
	}
	over := (&callReply{Code: codeOf(o.err), Text: o.err.Error()}).err() // as a follower hears it
	if !errors.Is(over, ErrBusy) || over.Error() != o.err.Error() {
		t.Errorf("over the link: %v", over)
	}
}

func TestNodeThatIsNotStartedTakesNoWrites(t *testing.T) {
	c := newTestCluster(t, 1)
	n := c.open("node-1")
	if _, _, err := n.Propose(within(t, time.Second), Actor{}, state.AddTenant{ID: "x", Name: "x"}); !errors.Is(err, ErrNotCommitted) {
		t.Errorf("%v, want not committed", err)
	}
}

// A leader whose disk hangs takes what is forwarded to it and answers nothing.
// Who waits for it is told when the leader gives up or another leads, and not when
// its patience ends.
func TestForwardedWritesEndWithTheReign(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	old, follower := c.leader(), c.follower()
	c.waitAll(write(t, old, "before"))
	eventually(t, "a reign", func() bool { r := follower.reign.Load(); return r != nil && r.leader == old.c.ID })

	hold := make(chan struct{})
	defer close(hold)
	hang := func() error { <-hold; return nil }
	old.store.fault.Store(&hang)
	ctx := within(t, 60*time.Second)
	_, _, err := follower.Propose(ctx, Actor{ID: "test"}, state.AddTenant{ID: "hangs", Name: "hangs"})
	if !errors.Is(err, ErrUnknown) || ctx.Err() != nil {
		t.Fatalf("%v, context %v", err, ctx.Err())
	}
	eventually(t, "another leader", func() bool { now := follower.Leader(); return now != old.c.ID && now != "" })
}
