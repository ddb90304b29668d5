package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
)

// memberDays is how long members come and go; they do so for at least a month, since it
// takes weeks until all has been tried and keys are retired again.
const memberDays = 1

// Five voters, whose members come and go. Longer: AUTHD_VIRTUAL_DAYS=365
// AUTHD_VIRTUAL_SEED=7 go test ./cluster -run MembersComeAndGo -v -timeout 1h.
func TestMembersComeAndGoThroughFaultsForAMonth(t *testing.T) {
	whole := time.Duration(fromEnvironment(t, "AUTHD_VIRTUAL_DAYS", memberDays)) * day
	chance := fromEnvironment(t, "AUTHD_VIRTUAL_SEED", virtualSeed)
	const founders = 5
	foreign := imageOfAnother(t)
	forMonthsOf(t, founders, func(t *testing.T, v *virtual) {
		v.rotates()
		r := rand.New(rand.NewPCG(chance, founders))
		v.operator.foreign = foreign
		live := func(d time.Duration, with func([]fault, time.Duration, uint64) []fault) {
			chance := r.Uint64()
			v.live(d, with(faultsOver(d, chance, founders), d, chance))
			v.settle()
		}
		for time.Since(v.began) < whole {
			for _, change := range []func(*rand.Rand){v.replaceTheDead, v.returnsAfterItsRemoval, v.wipedNodeJoinsAgain, v.leaderIsRemoved, v.anotherAnswersWithoutAVote} {
				live(2*day, withRestores)
				change(r)
			}
			before, changed := v.total(), time.Now()
			live(14*day, withoutRestores)
			if after := v.total(); after.activated == before.activated {
				t.Errorf("%s: since members last changed no key was activated", v.now())
			}
			v.wantNoneOverdue(changed)
		}
		for _, id := range v.ids() {
			if left := time.Until(v.nodes[id].CertificateExpiry()); left < CertificateLife/3-2*day {
				t.Errorf("the certificate of %s ends in %s and was not renewed", id, left)
			}
		}
		t.Logf("%d certificates renewed, %d nodes let in", v.log.seen("certificate renewed"), v.log.seen("node let in"))
	})
}

// wantNoneOverdue waits until nothing is due, and looks at what holds keys that drain: what
// a node does not know, for as long as it was away, and no longer. A node that joined cannot
// say what its host did before: keys that drained by then are kept as if it had handed them
// out at that moment.
func (v *virtual) wantNoneOverdue(changed time.Time) {
	v.t.Helper()
	const away = 4 * day // what faults in a row may keep a node away
	v.wait("all that is due", 6*time.Hour, func() bool {
		m := v.waitLeader().Machine()
		return len(m.DueAfter(state.Task{}, 1, time.Now().Add(-10*time.Minute).Unix())) == 0
	})
	m := v.waitLeader().Machine()
	for d := range m.Domains(state.Token{}) {
		pool, _ := m.Pool(d.Pool)
		for _, k := range d.Ring().Keys {
			since := time.Unix(k.DrainedAt, 0)
			if since.Before(changed) {
				since = changed
			}
			most := since.Add(away + pool.Policy.SignerHold + pool.Policy.DrainFloor)
			if held := time.Unix(k.HeldUntil, 0); held.After(most) {
				v.t.Errorf("%s: key %s of %s drains since %s and is held until %s, at most until %s", v.now(), k.Selector, d.Name, time.Unix(k.DrainedAt, 0).UTC(), held.UTC(), most.UTC())
			}
		}
	}
}

// during lets a change happen while a node is away one way or the other, which five
// voters can do without. It is none of those that the change is about.
func (v *virtual) during(r *rand.Rand, about []string, change func(leader *Node)) {
	v.t.Helper()
	ids := slices.DeleteFunc(v.ids(), func(id string) bool { return slices.Contains(about, id) })
	away := ids[r.IntN(len(ids))]
	here := slices.DeleteFunc(v.others(away), func(id string) bool { return v.nodes[id] == nil })
	v.count.faults++
	switch r.IntN(4) {
	case 0:
		v.kill(away)
	case 1:
		v.isolate(away)
	case 2:
		v.cutAll(away, true, false)
	default:
		here = append(here, away) // a quiet day
	}
	change(v.waitLeader(here...))
	v.heal()
	v.bringBack(away)
}

// part is who takes part from now on.
func (v *virtual) part(id string, takes bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.in = slices.DeleteFunc(slices.Clone(v.in), func(other string) bool { return other == id })
	if takes {
		v.in = append(v.in, id)
		slices.Sort(v.in)
	}
}

// spare is a host that takes no part.
func (v *virtual) spare() string {
	in := v.ids()
	for _, m := range v.members {
		if !slices.Contains(in, m.ID) {
			return m.ID
		}
	}
	v.t.Fatal("no host is left")
	return ""
}

// some is a node that does not lead.
func (v *virtual) some(r *rand.Rand) string {
	others := v.others(v.waitLeader().c.ID)
	return others[r.IntN(len(others))]
}

// remove removes a node, as an operator does who saw to it that nobody asks it.
func (v *virtual) remove(leader *Node, id string) {
	v.t.Helper()
	v.part(id, false)
	must(v.t, leader.RemovePeer(within(v.t, v.elected()), id))
}

// wipe takes a node's disk away.
func (v *virtual) wipe(id string) {
	must(v.t, os.RemoveAll(v.data(id)))
	v.mu.Lock()
	defer v.mu.Unlock()
	v.forget(id)
	for _, life := range v.keys {
		delete(life.answered, id)
		delete(life.drained, id)
	}
}

// join brings a host in by way of a member, with a token, which is good once.
func (v *virtual) join(leader *Node, via, id string, voter bool) {
	v.t.Helper()
	v.wipe(id)
	m := v.member(id)
	m.Voter = voter
	token, _, err := leader.Invite(within(v.t, time.Minute), Actor{ID: "test"}, m, time.Hour)
	must(v.t, err)
	key, csr := request(v.t)
	ask := func() (Joined, error) {
		return joinOver(within(v.t, time.Minute), v.wires.from(id), v.member(via).Address, token, csr)
	}
	joined, err := ask()
	must(v.t, err)
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "used before") {
		v.t.Errorf("%s: a join token was good twice: %v", v.now(), err)
	}
	v.files[id] = identity(v.t, id, joined.Chain[1], joined.Chain, key)
	v.joined[id] = true
	began := leader.Machine().Index()
	v.start(id)
	n := v.nodes[id]
	v.wait(id+" to open its listeners", v.elected(), n.serving.Load)
	if at := n.Machine().Index(); at < began {
		v.t.Errorf("%s: %s opened its listeners at %d, and the cluster was at %d when it joined", v.now(), id, at, began)
	}
	v.part(id, true)
	if voter {
		v.wait("the vote of "+id, v.elected(), func() bool { return leader.votes(id) })
	} else if leader.votes(id) {
		v.t.Errorf("%s: %s votes", v.now(), id)
	}
}

// A node dies for good, a day later another host takes its place.
func (v *virtual) replaceTheDead(r *rand.Rand) {
	dead, fresh := v.some(r), v.spare()
	v.kill(dead)
	v.count.faults++
	time.Sleep(day)
	v.during(r, []string{dead}, func(leader *Node) {
		v.remove(leader, dead)
		v.join(leader, leader.c.ID, fresh, true)
	})
	v.wipe(dead)
}

// A node is removed while it runs, and comes back on its disk: it must not answer, nor
// have any part in what the others do; with a token and without the disk it may.
func (v *virtual) returnsAfterItsRemoval(r *rand.Rand) {
	id := v.some(r)
	v.during(r, []string{id}, func(leader *Node) { v.remove(leader, id) })
	time.Sleep(6 * time.Hour)
	v.stop(id)
	elections := v.total().elections
	time.Sleep(6 * time.Hour)
	v.start(id)
	outcast := v.nodes[id]
	delete(v.nodes, id)
	time.Sleep(day)
	if outcast.serving.Load() || outcast.leads() {
		v.t.Errorf("%s: %s was removed and came back: it answers %t, leads %t", v.now(), id, outcast.serving.Load(), outcast.leads())
	}
	if n := v.total().elections - elections; n != 0 {
		v.t.Errorf("%s: %d elections because of %s, which was removed", v.now(), n, id)
	}
	if err := v.write(outcast, "outcast-"+time.Now().Format("0102"), time.Minute); err == nil {
		v.t.Errorf("%s: %s was removed and takes writes", v.now(), id)
	}
	v.nodes[id] = outcast
	v.stop(id)
	v.during(r, nil, func(leader *Node) { v.join(leader, leader.c.ID, id, true) })
}

// A voter that lost its disk does not start again as what it was; removed and invited
// again it does.
func (v *virtual) wipedNodeJoinsAgain(r *rand.Rand) {
	id := v.some(r)
	v.kill(id)
	v.count.faults++
	founder := !v.joined[id]
	v.wipe(id)
	if founder {
		n := v.open(id)
		if err := n.Start(); err == nil || !strings.Contains(err.Error(), "taken part in this cluster before") {
			v.t.Errorf("%s: %s lost its disk and starts: %v", v.now(), id, err)
		}
		must(v.t, n.Close(within(v.t, time.Minute)))
	}
	v.during(r, []string{id}, func(leader *Node) {
		v.remove(leader, id)
		follower := v.others(leader.c.ID)
		via := follower[slices.IndexFunc(follower, func(id string) bool { return v.nodes[id] != nil && !v.wires.severed(id, leader.c.ID) })]
		v.join(leader, via, id, true)
	})
}

// The leader removes itself; the others elect, and it comes back as one of them.
func (v *virtual) leaderIsRemoved(r *rand.Rand) {
	old := v.waitLeader()
	id := old.c.ID
	v.remove(old, id)
	v.waitLeader()
	must(v.t, v.write(v.waitLeader(), "without-"+id+time.Now().Format("0102"), v.elected()))
	v.stop(id)
	v.during(r, nil, func(leader *Node) { v.join(leader, leader.c.ID, id, true) })
}

// A host answers without a vote: changes wait for it as for any other, until an operator
// states that it is off. Then it gets its vote, and another that had one goes.
func (v *virtual) anotherAnswersWithoutAVote(r *rand.Rand) {
	fresh := v.spare()
	v.during(r, nil, func(leader *Node) { v.join(leader, leader.c.ID, fresh, false) })
	v.isolate(fresh)
	v.count.faults++
	index, err := v.newPool(v.waitLeader(v.others(fresh)...))
	must(v.t, err)
	leader := v.waitLeader(v.others(fresh)...)
	soon, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := leader.WaitServed(soon, index); err == nil {
		v.t.Errorf("%s: all answer with %d, it is said, and %s is cut off", v.now(), index, fresh)
	}
	v.say(leader, state.SetServing{Node: fresh, Statement: "out of every address list"})
	must(v.t, leader.WaitServed(within(v.t, v.elected()), index))
	v.heal()
	v.wait(fresh+" to catch up", v.elected(), func() bool { return v.nodes[fresh].Machine().Index() >= leader.Machine().Index() })
	v.say(leader, state.SetServing{Node: fresh, Serving: true})
	gone := v.some(r)
	for gone == fresh {
		gone = v.some(r)
	}
	v.during(r, []string{fresh, gone}, func(leader *Node) {
		m := v.member(fresh)
		m.Voter = true
		must(v.t, leader.AddPeer(within(v.t, v.elected()), m))
		v.remove(leader, gone)
	})
	v.stop(gone)
	v.wipe(gone)
}

func (v *virtual) newPool(leader *Node) (index uint64, err error) {
	_, index, err = leader.Propose(within(v.t, v.elected()), Actor{ID: "test"}, state.AddTenant{ID: fmt.Sprintf("p%d", time.Now().Unix()), Name: "x"})
	return index, err
}

func (v *virtual) say(leader *Node, c state.Command) {
	v.t.Helper()
	results, _, err := leader.Propose(within(v.t, v.elected()), Actor{ID: "test"}, c)
	must(v.t, err)
	if r := results[0].Refusal; r != nil {
		v.t.Fatal(r)
	}
}
