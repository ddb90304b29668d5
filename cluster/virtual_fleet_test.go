package cluster

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/keys/keystest"
	"authd/zone"
)

// pacedSource gives Ed25519 pairs, each after some time.
type pacedSource struct {
	keys.Source
	pace func() time.Duration
}

func (s *pacedSource) Take(ctx context.Context, a keys.Algorithm) (*keys.Pair, error) {
	select {
	case <-time.After(s.pace()):
		return s.Source.Take(ctx, a)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// claimMany adds delegated domains that sign with Ed25519, whose keys cost nothing.
func claimMany(t testing.TB, n *Node, count int) {
	t.Helper()
	var batch []state.Command
	for i := range count {
		token, err := n.NewToken()
		must(t, err)
		active, standby, err := n.ClaimKeys(n.ctx, token, keys.Minted, []keys.Algorithm{keys.Ed25519})
		must(t, err)
		batch = append(batch, state.AddDomain{
			Token: token, Name: parseName(t, fmt.Sprintf("send.customer-%d.test.", i)), Mode: zone.Delegated, Tenant: "acme", Pool: "default",
			Registrable: parseName(t, fmt.Sprintf("customer-%d.test.", i)), Active: active, Standby: standby,
		})
	}
	for share := range slices.Chunk(batch, 100) {
		settle(t, n, share...)
	}
}

// found starts a cluster with so many domains whose standbys are confirmed.
func (v *virtual) found(domains int) (leader *Node) {
	v.t.Helper()
	v.many = true
	v.startAll()
	leader = v.waitLeader()
	seed(v.t, leader)
	pool, _ := leader.Machine().Pool("default")
	says := pool.PoolSpec
	says.Policy.Algorithms = []keys.Algorithm{keys.Ed25519}
	v.say(leader, state.PutPool{ID: "default", Spec: says})
	claimMany(v.t, leader, domains)
	v.wait("confirmed standbys", 2*time.Hour, func() bool { return countKeys(leader, keys.Standby) == domains })
	return leader
}

// countKeys is how many keys are at a stage; of standbys, how many are confirmed.
func countKeys(n *Node, stage keys.Stage) (count int) {
	for d := range n.Machine().Domains(state.Token{}) {
		for _, k := range d.Ring().Keys {
			if k.Stage == stage && (stage != keys.Standby || k.ConfirmedAt != 0) {
				count++
			}
		}
	}
	return count
}

// TestDomainsSwitchWhileKeysOfOthersAreMade: of a leaked store each domain signs
// with its new key as soon as caches allow, not when the last has its key; and the
// ETA is right within 20 % for as long as a minute is left, by the real rotator.
func TestDomainsSwitchWhileKeysOfOthersAreMade(t *testing.T) {
	const domains, pace = 700, 600 * time.Millisecond // with 420 s longer than caches hold what was there
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3, hourly())
		quick := time.Duration(0)
		v.source = &pacedSource{keystest.Source(), func() time.Duration { return quick }}
		leader := v.found(domains)

		quick = pace
		spec := state.RotationSpec{Scope: state.RotationScope{All: true}, Emergency: true, Store: true, Old: keys.FateRevoke, Total: domains, Tail: keys.GapMinted}
		spec.Expected = time.Now().Unix() + domains*int64(pace)/int64(time.Second) + spec.Tail + state.SwitchTime
		id := startRotation(t, leader, spec)
		began := time.Now()
		type said struct{ at, eta int64 }
		var all []said
		var first time.Duration
		v.wait("the end", time.Hour, func() bool {
			r := rotationOf(leader, id)
			if first == 0 && r.Switched > 0 {
				first = time.Since(began)
			}
			if r.State == state.RotationRunning {
				all = append(all, said{time.Now().Unix(), r.ETA(leader.Machine().Time())})
			}
			return r.State == state.RotationDone
		})
		r := rotationOf(leader, id)
		if most := time.Duration(keys.GapMinted)*time.Second + 20*time.Second; first > most {
			t.Errorf("the first domain switched after %s, want %s", first, most)
		}
		for _, s := range all {
			left := r.EndedAt - s.at
			if off := max(s.eta-r.EndedAt, r.EndedAt-s.eta); left >= 60 && 5*off > left {
				t.Errorf("after %d s it says %d s more, and it took %d", s.at-r.StartedAt, s.eta-s.at, left)
			}
		}
		if r.Switched != domains || len(r.Makers) != 1 || r.Makers[0].Node != leader.c.ID {
			t.Errorf("%+v", r)
		}
		v.end()
	})
}

// TestDeadNodeDelaysNoDeadline: ten minutes after the switch the old keys of an
// emergency are revoked whatever anybody saw of them, so nobody is waited for.
func TestDeadNodeDelaysNoDeadline(t *testing.T) {
	const domains = 2*maxTold + 1
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, 3, hourly())
		leader := v.found(domains)
		v.isolate(v.others(leader.c.ID)[0])
		id := startRotation(t, leader, state.RotationSpec{Scope: state.RotationScope{All: true}, Emergency: true, Old: keys.FateSwitch, Total: domains})
		v.wait("the switch", time.Minute, func() bool { return rotationOf(leader, id).State == state.RotationDone })
		switched := time.Now()
		v.wait("the end of the old keys", time.Hour, func() bool { return countKeys(leader, keys.Revoked) == domains })
		if took := time.Since(switched); took > keys.SwitchTime*time.Second+gatherTime+2*time.Second {
			t.Errorf("the last old key was revoked %s after the switch", took)
		}
		v.end()
	})
}
