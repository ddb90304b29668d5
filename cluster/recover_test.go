package cluster

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSurvivorBecomesAClusterAgain(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.withAuthority()
	var want []string
	for _, id := range []string{"acme", "beta", "gamma"} {
		index := write(t, c.leader(), id)
		must(t, c.leader().WaitServed(within(t, 10*time.Second), index))
		want = append(want, id)
	}
	for _, id := range []string{"node-1", "node-2", "node-3"} {
		c.kill(id)
	}

	r, err := OpenRecovery("node-3", c.data("node-3"), "", slog.New(slog.DiscardHandler))
	must(t, err)
	if r.Member.ID != "node-3" || len(r.Lost) != 2 || r.Marked == 0 || r.Last < r.Marked || r.Missing != 0 {
		t.Errorf("%+v", r)
	}
	if _, err := open(c.configOf("node-3"), c.tuning); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a node starts beside its recovery: %v", err)
	}
	must(t, r.Commit("their disks are destroyed"))
	must(t, r.Close())

	c.members = slices.DeleteFunc(slices.Clone(c.members), func(m Member) bool { return m.ID != "node-3" })
	c.start("node-3")
	n := c.leader()
	wantTenants(t, n, want...)
	if len(n.members()) != 1 {
		t.Errorf("members %v", n.members())
	}
	write(t, n, "zeta")
	want = append(want, "zeta")
	slices.Sort(want)
	for _, id := range []string{"node-4", "node-5"} {
		joined := c.join(t, id, true)
		must(t, joined.WaitApplied(within(t, 10*time.Second), n.Machine().Index()))
		wantTenants(t, joined, want...)
		eventually(t, "the vote of "+id, func() bool { return n.votes(id) })
	}
}

func TestRecoveryThatIsNotCommittedChangesNothing(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	index := write(t, c.leader(), "acme")
	must(t, c.leader().WaitServed(within(t, 10*time.Second), index))
	for _, id := range []string{"node-1", "node-2", "node-3"} {
		c.kill(id)
	}
	r, err := OpenRecovery("node-2", c.data("node-2"), "", slog.New(slog.DiscardHandler))
	must(t, err)
	must(t, r.Close())
	if _, err := OpenRecovery("node-7", c.data("node-2"), "", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "belongs to node") {
		t.Errorf("another node's directory: %v", err)
	}
	if _, err := OpenRecovery("node-2", t.TempDir(), "", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "no state") {
		t.Errorf("an empty directory: %v", err)
	}
	c.startAll()
	write(t, c.leader(), "zeta")
	if n := len(c.leader().members()); n != 3 {
		t.Errorf("%d members", n)
	}
}
