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

// startRotation begins one and returns its id.
func startRotation(t testing.TB, n *Node, spec state.RotationSpec) state.Token {
	t.Helper()
	id, err := n.NewToken()
	must(t, err)
	settle(t, n, state.StartRotation{ID: id, RotationSpec: spec})
	return id
}

// TestRotationOfAFleetGoesOnAfterItsLeaderIsKilled, and switches every domain once.
func TestRotationOfAFleetGoesOnAfterItsLeaderIsKilled(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	tokens := c.fleet(leader, 12)
	id := startRotation(t, leader, state.RotationSpec{
		Scope: state.RotationScope{All: true}, Emergency: true, Old: keys.FateRevoke,
		Canary: []uint8{25, 100}, Total: 12,
	})
	eventually(t, "the first stage", func() bool { return rotationOf(leader, id).State == state.RotationPaused })
	if r := rotationOf(leader, id); r.Switched != 3 || r.Begun != 3 {
		t.Fatalf("%+v", r)
	}
	c.waitAll(leader.Machine().Index())
	c.kill(leader.c.ID)
	next := c.leader()
	settle(t, next, state.ControlRotation{ID: id, Verb: state.RotationResume})
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
	spec := state.RotationSpec{Scope: state.RotationScope{All: true}, Old: keys.FateDrain, Total: 2}
	planned := startRotation(t, n, spec)
	spec.Emergency, spec.Old = true, keys.FateRevoke
	urgent := startRotation(t, n, spec)
	eventually(t, "the emergency", func() bool { return rotationOf(n, urgent).State == state.RotationDone })
	if r := rotationOf(n, urgent); r.Switched != 2 {
		t.Errorf("%+v", r)
	}
	if r := rotationOf(n, planned); r.Begun != 0 {
		t.Errorf("a planned rotation goes on by a clock that is wrong: %+v", r)
	}
}
