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
