package cluster

import (
	"fmt"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// hourly is production's tuning for runs of hours. Followers that miss a commit
// hear of it after a second: the library's timer would be most of the run.
func hourly() tuning {
	t := defaultTuning()
	t.commit = time.Second
	t.noSync = true
	return t
}

// rotates sets up domains of both modes whose keys turn as fast as a policy may.
func (v *virtual) rotates() {
	v.t.Helper()
	minted := keys.DefaultPolicy()
	minted.Period, minted.Drain, minted.DrainCeiling, minted.RevokedFor = 5*day, 7*day, 7*day, day
	slots := minted
	slots.Period = 8 * day
	leader := v.waitLeader()
	for id, policy := range map[string]keys.Policy{"default": minted, "slots": slots} {
		results, _, err := leader.Propose(within(v.t, v.elected()), Actor{ID: "test"}, state.PutPool{ID: id, Spec: state.PoolSpec{
			SPF: []string{"ip4:192.0.2.0/24"}, SPFAll: "~all", Policy: policy,
		}})
		must(v.t, err)
		if r := results[0].Refusal; r != nil {
			v.t.Fatal(r)
		}
	}
	claim(v.t, leader, "send.customer.test.")
	claim(v.t, leader, "post.customer.test.")
	token, err := leader.NewToken()
	must(v.t, err)
	active, standby, err := leader.ClaimKeys(within(v.t, v.elected()), token, keys.Slots, []keys.Algorithm{keys.RSA2048})
	must(v.t, err)
	results, _, err := leader.Propose(within(v.t, v.elected()), Actor{ID: "test"}, state.AddDomain{
		Token: token, Name: parseName(v.t, "slots.test."), Mode: zone.CNAME, Tenant: "acme", Pool: "slots",
		Registrable: parseName(v.t, "slots.test."), Active: active, Standby: standby,
	})
	must(v.t, err)
	if r := results[0].Refusal; r != nil {
		v.t.Fatal(r)
	}
}

func TestIsolatedLeaderIsReplacedForHoursAndReturns(t *testing.T) {
	inVirtualTime(t, hourly(), func(t *testing.T, v *virtual) {
		claim(t, v.waitLeader(), "send.customer.test.")
		for _, name := range []string{"apart", "mute", "deaf"} {
			old := v.waitLeader()
			id := old.c.ID
			must(t, v.write(old, "before-"+name, time.Minute))
			v.count.faults++
			v.cutAll(id, name != "deaf", name != "mute")
			began := time.Now()
			v.writes.Go(func() { v.write(old, "at-once-"+name, time.Minute) })
			fresh := v.waitLeader(v.others(id)...)
			// The followers wait up to 4 s for the old one, and may have to vote twice.
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("%s: a new leader after %s", name, took)
			}
			must(t, v.write(fresh, "after-"+name, time.Minute))
			for i := range 60 {
				time.Sleep(time.Minute)
				if old.leads() || old.Leader() != "" && name != "mute" {
					t.Errorf("%s: %s cut off for %s: leads %v, takes %q for the leader", name, id, time.Since(began), old.leads(), old.Leader())
				}
				if err := v.write(old, fmt.Sprintf("lost-%s-%d", name, i), 10*time.Second); err == nil {
					t.Errorf("%s: %s acknowledged a write that it cannot have replicated", name, id)
				}
			}
			must(t, v.write(fresh, "late-"+name, time.Minute))
			v.wantAnswers(id, old)
			v.settle()
		}
	})
}

func TestFlappingLinksLoseNothing(t *testing.T) {
	inVirtualTime(t, hourly(), func(t *testing.T, v *virtual) {
		// Shorter than what a connection survives, and longer.
		for _, pause := range []time.Duration{time.Second, 5 * time.Second, 25 * time.Second} {
			for i := range 60 {
				id := v.ids()[i%3]
				v.count.faults++
				v.cutAll(id, i%2 == 0, i%3 == 0)
				time.Sleep(pause)
				v.heal()
				n := v.nodes[v.others(id)[0]]
				v.writes.Go(func() { v.write(n, fmt.Sprintf("flap-%s-%d", pause, i), time.Minute) })
				time.Sleep(pause)
			}
			v.settle()
		}
	})
}

// compact makes a snapshot and keeps as little of the log behind it as may be.
func compact(n *Node) error {
	n.tail.mu.Lock()
	n.tail.octets = 1 << 40
	n.tail.mu.Unlock()
	return n.snapshot()
}

// cutAll cuts what a node sends, what it receives, or both.
func (v *virtual) cutAll(id string, sends, receives bool) {
	for _, other := range v.members {
		if sends && other.ID != id {
			v.wires.cut(id, other.ID)
		}
		if receives && other.ID != id {
			v.wires.cut(other.ID, id)
		}
	}
}

func TestSlowNetworkKeepsItsLeader(t *testing.T) {
	tuning := hourly()
	inVirtualTime(t, tuning, func(t *testing.T, v *virtual) {
		// As far as nodes can be apart: a heartbeat comes 400 ms after the last at most,
		// it and its answer take 300 ms, and a leader gives up after a second without.
		v.wires.latency = 150 * time.Millisecond
		v.settle()
		leader, elections := v.waitLeader(), v.total().elections
		for i := range 120 {
			time.Sleep(time.Minute)
			must(t, v.write(leader, fmt.Sprintf("slow-%d", i), time.Minute))
			for _, n := range v.nodes {
				if n == leader {
					continue
				}
				if last := time.Since(n.raft().LastContact()); last > tuning.heartbeat {
					t.Errorf("%s: %s heard nothing of its leader for %s", v.now(), n.c.ID, last)
				}
			}
		}
		if after := v.total().elections; after != elections {
			t.Errorf("%d elections in two quiet hours", after-elections)
		}
	})
}

func TestFollowerThatWasAwayInstallsASnapshot(t *testing.T) {
	tuning := hourly()
	tuning.trailing = 16
	inVirtualTime(t, tuning, func(t *testing.T, v *virtual) {
		claim(t, v.waitLeader(), "send.customer.test.")
		for round := range 3 {
			leader := v.waitLeader()
			away := v.others(leader.c.ID)[round%2]
			v.count.faults++
			v.stop(away)
			for i := range 100 {
				must(t, v.write(leader, fmt.Sprintf("away-%d-%d", round, i), time.Minute))
			}
			must(t, compact(leader))
			time.Sleep(time.Hour)
			before := v.total().installs
			v.start(away)
			v.wait("the snapshot", time.Minute, func() bool { return v.total().installs > before })
			v.wait("what came after it", time.Minute, func() bool { return v.nodes[away].Machine().Index() >= leader.Machine().Index() })
			v.settle()
			if got := v.total().installs; got != before+1 {
				t.Errorf("%d installs, want one", got-before)
			}
		}
	})
}

// Left alone the library tries less and less often, and a node that returns after ten
// minutes waits for up to ten seconds, in which it opens no listener.
func TestNodeThatReturnsIsFedAtOnce(t *testing.T) {
	inVirtualTime(t, hourly(), func(t *testing.T, v *virtual) {
		for round, away := range []time.Duration{3 * time.Second, 6 * time.Second, time.Minute, time.Hour} {
			leader := v.waitLeader()
			id := v.others(leader.c.ID)[round%2]
			v.count.faults++
			v.stop(id)
			began := time.Now()
			for i := 0; time.Since(began) < away; i++ {
				must(t, v.write(leader, fmt.Sprintf("without-%d-%d", round, i), time.Minute))
				time.Sleep(away / 20)
			}
			v.start(id)
			began = time.Now()
			n := v.nodes[id] // does as serve does before it opens listeners
			must(t, n.WaitApplied(within(t, time.Minute), n.AskPeers(t.Context())))
			if got, want := n.Machine().Index(), leader.Machine().Index(); got < want {
				t.Errorf("after %s away it would serve %d, its leader is at %d", away, got, want)
			}
			if took := time.Since(began); took > 200*time.Millisecond {
				t.Errorf("after %s away it took %s to be sent what it had missed", away, took)
			}
		}
	})
}

func TestNothingRetiresWithoutQuorumForAMonth(t *testing.T) {
	forMonths(t, func(t *testing.T, v *virtual) {
		v.rotates()
		time.Sleep(12 * day) // keys drain, and new ones wait
		before, machines := v.total(), make(map[string]uint64)
		for id, n := range v.nodes {
			machines[id] = n.Machine().Index()
			v.isolate(id)
		}
		v.count.faults++
		for i := range 30 {
			time.Sleep(day)
			for id, n := range v.nodes {
				if err := v.write(n, fmt.Sprintf("alone-%s-%d", id, i), time.Minute); err == nil {
					t.Errorf("%s: %s acknowledged a write alone", v.now(), id)
				}
				v.wantAnswers(id, n)
			}
		}
		for id, n := range v.nodes {
			if ran := n.Machine().Index() - machines[id]; ran > 8 {
				t.Errorf("%s applied %d entries alone", id, ran)
			}
		}
		if after := v.total(); after.retired != before.retired || after.activated != before.activated {
			t.Errorf("without a quorum %d keys were retired and %d activated", after.retired-before.retired, after.activated-before.activated)
		}
		v.heal()
		v.wait("rotation by itself", 3*day, func() bool {
			after := v.total()
			return after.retired > before.retired && after.activated > before.activated
		})
	})
}

// Its listeners may be answering and its signers signing: what began to drain
// without it stays, and whoever is ready goes on.
func TestNodeAwayForWeeksHoldsWhatDrainedWithoutIt(t *testing.T) {
	forMonths(t, func(t *testing.T, v *virtual) {
		v.rotates()
		time.Sleep(2 * day)
		away, before := v.others(v.waitLeader().c.ID)[0], v.total()
		v.count.faults++
		v.isolate(away)
		time.Sleep(16 * day)
		while := v.total()
		if while.activated <= before.activated || while.retired != before.retired {
			t.Errorf("%d keys activated and %d retired while a node was away", while.activated-before.activated, while.retired-before.retired)
		}
		v.wantAnswers(away, v.nodes[away])
		v.heal()
		v.wait("what was held to go", 2*day, func() bool { return v.total().retired > while.retired })
	})
}
