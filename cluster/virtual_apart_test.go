package cluster

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

// Old members that do not reach the recovered node go on as a cluster: they cannot know.
// They wait for the node that they miss, so they retire nothing and no key of theirs gets
// past the barrier, while the recovered one turns its keys alone. Once they meet both
// raise the alarm; ended as the runbook says, an old disk does not come back.
func TestOldMembersOutOfReachRetireNothing(t *testing.T) {
	forMonths(t, func(t *testing.T, v *virtual) {
		v.rotates()
		time.Sleep(4 * day)
		id := v.others(v.waitLeader().c.ID)[0]
		v.stop(id)
		r, err := OpenRecovery(id, v.data(id), "", slog.New(slog.DiscardHandler))
		must(t, err)
		living := func() []string { return r.living(within(t, time.Minute), v.wires.from(id), v.ca.pool) }
		if found := living(); len(found) != 2 {
			t.Fatalf("a recovery beside two nodes that live finds %q", found)
		}
		v.isolate(id)
		v.count.faults++
		if found := living(); len(found) != 0 {
			t.Fatalf("over a cut it finds %q", found)
		}
		must(t, r.Commit("the disks are destroyed, I believe"))
		must(t, r.Close())
		v.mu.Lock()
		v.apart = true // two histories from here on
		v.mu.Unlock()
		v.start(id)
		alone, old := v.waitLeader(id), v.waitLeader(v.others(id)...)
		split := old.Machine()
		time.Sleep(20 * day)

		old = v.waitLeader(v.others(id)...)
		must(t, v.write(old, "of-the-old", time.Minute))
		for d := range old.Machine().Domains(state.Token{}) {
			was, _ := split.Domain(d.Token)
			switched := 0
			for _, k := range d.Ring().Keys {
				before, known := was.Ring().ByID(k.ID)
				if k.ActivatedAt > split.Time() {
					switched++
				}
				if known && before.Stage != keys.Revoked && k.Stage == keys.Revoked || !known && k.ConfirmedAt != 0 {
					t.Errorf("%s: the old half took key %s of %s to %v (confirmed %d) without %s", v.now(), k.Selector, d.Name, k.Stage, k.ConfirmedAt, id)
				}
			}
			if switched > 1 {
				t.Errorf("%s: the old half switched %s %d times", v.now(), d.Name, switched)
			}
			lone, _ := alone.Machine().Domain(d.Token)
			mine, _ := lone.Ring().Active(keys.RSA2048)
			theirs, _ := d.Ring().Active(keys.RSA2048)
			if mine.Selector == theirs.Selector {
				t.Errorf("%s: the recovered half does not turn the keys of %s", v.now(), d.Name)
			}
		}
		if problems := strings.Join(old.Health(), "; "); !strings.Contains(problems, id) {
			t.Errorf("the operator of the old half reads nothing of %s: %q", id, problems)
		}

		v.heal()
		v.wait("the alarm of both halves", time.Hour, func() bool {
			met := 0
			for _, n := range v.nodes {
				if n.rival.problem() != "" {
					met++
				}
			}
			return met >= 2 && alone.rival.problem() != ""
		})
		// Nor does one that loses its leader for a moment: a majority lived with it.
		last := v.others(id)[slices.IndexFunc(v.others(id), func(other string) bool { return v.nodes[other] != old })]
		v.stop(old.c.ID)
		time.Sleep(day)
		if err := v.nodes[last].fence.err(); err != nil {
			t.Errorf("%s gave up a cluster that worked: %v", last, err)
		}
		v.stop(last)
		// One of them is started all the same, and hears of no majority.
		late := v.others(id)[0]
		v.start(late)
		v.wait(late+" to stand down", time.Hour, func() bool { return v.nodes[late].fence.err() != nil })
		must(t, v.write(alone, "goes-on", time.Minute))
	})
}
