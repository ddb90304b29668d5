package cluster

import (
	"fmt"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

// fleet has n domains with confirmed standbys.
func (c *testCluster) fleet(leader *Node, n int) []state.Token {
	c.t.Helper()
	seed(c.t, leader)
	var tokens []state.Token
	for i := range n {
		tokens = append(tokens, claim(c.t, leader, fmt.Sprintf("c%d.customer.test.", i)))
	}
	for _, token := range tokens {
		c.waitRing("a confirmed standby", leader, token, func(r keys.Ring) bool {
			k, ok := r.Standby(keys.RSA2048)
			return ok && k.ConfirmedAt > 0
		})
	}
	return tokens
}

func rotationOf(n *Node, id state.Token) state.Rotation {
	r, ok := n.Machine().Rotation(id)
	if !ok {
		return state.Rotation{}
	}
	return *r
}

// TestRotationOfAFleetGoesOnAfterItsLeaderIsKilled, and switches every domain once.
func TestRotationOfAFleetGoesOnAfterItsLeaderIsKilled(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	tokens := c.fleet(leader, 12)
	id, err := leader.NewToken()
	must(t, err)
	spec := state.RotationSpec{
		Scope: state.RotationScope{All: true}, Emergency: true, Old: keys.FateRevoke,
		Canary: []uint8{25, 100}, Total: 12,
	}
	ctx := within(t, 30*time.Second)
	results, _, err := leader.Propose(ctx, Actor{ID: "test", Reason: "leaked"}, state.StartRotation{ID: id, RotationSpec: spec})
	must(t, err)
	if results[0].Refusal != nil {
		t.Fatal(results[0].Refusal)
	}
	eventually(t, "the first stage", func() bool { return rotationOf(leader, id).State == state.RotationPaused })
	if r := rotationOf(leader, id); r.Switched != 3 || r.Begun != 3 {
		t.Fatalf("%+v", r)
	}
	c.waitAll(leader.Machine().Index())
	c.kill(leader.c.ID)
	next := c.leader()
	_, _, err = next.Propose(ctx, Actor{ID: "test"}, state.ControlRotation{ID: id, Verb: state.RotationResume})
	must(t, err)
	eventually(t, "the rest", func() bool { return rotationOf(next, id).State == state.RotationDone })
	if r := rotationOf(next, id); r.Switched != 12 || r.Begun != 12 {
		t.Fatalf("%+v", r)
	}
	for _, token := range tokens {
		r := ring(t, next, token)
		if k, _ := r.ByID(1); k.Stage != keys.Revoked {
			t.Errorf("claim %s: the leaked key is %s", token, k.Stage)
		}
	}
	// The dead node holds every confirmation, but no publication: all get a key again.
	c.start(leader.c.ID)
	eventually(t, "a standby for everyone", func() bool { return rotationOf(next, id).Refilled == 12 })
	c.waitAll(next.Machine().Index())
	for _, n := range c.nodes {
		wantNoDiff(t, n)
	}
}

// TestEmergencyOfAFleetNeedsNoClockToBeRight, which a planned rotation waits for.
func TestEmergencyOfAFleetNeedsNoClockToBeRight(t *testing.T) {
	c := newTestCluster(t, 1)
	clock := c.withClock()
	c.startAll()
	n := c.leader()
	c.fleet(n, 2)
	clock.add(-time.Hour)
	n.rotator.wake()
	eventually(t, "a word about the clock", func() bool { return !n.rotator.clock.serves(n.Machine().Time()) })
	begin := func(spec state.RotationSpec) state.Token {
		id, err := n.NewToken()
		must(t, err)
		spec.Scope, spec.Total = state.RotationScope{All: true}, 2
		results, _, err := n.Propose(within(t, 30*time.Second), Actor{ID: "test", Reason: "leaked"}, state.StartRotation{ID: id, RotationSpec: spec})
		must(t, err)
		if results[0].Refusal != nil {
			t.Fatal(results[0].Refusal)
		}
		return id
	}
	planned := begin(state.RotationSpec{Old: keys.FateDrain})
	urgent := begin(state.RotationSpec{Emergency: true, Old: keys.FateRevoke})
	eventually(t, "the emergency", func() bool { return rotationOf(n, urgent).State == state.RotationDone })
	if r := rotationOf(n, urgent); r.Switched != 2 {
		t.Errorf("%+v", r)
	}
	if r := rotationOf(n, planned); r.Begun != 0 {
		t.Errorf("a planned rotation goes on by a clock that is wrong: %+v", r)
	}
}
