package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

// TestSignersOfAFleetAreFoundWhereverTheyFetched: who fetched an old key from one
// node and the new one from another has the new one.
func TestSignersOfAFleetAreFoundWhereverTheyFetched(t *testing.T) {
	c := newTestCluster(t, 3)
	clock := c.withClock()
	c.startAll()
	leader := c.leader()
	tokens := c.fleet(leader, 6)
	c.waitAll(leader.Machine().Index())
	one, two, three := c.nodes["node-1"], c.nodes["node-2"], c.nodes["node-3"]
	for i, token := range tokens {
		one.HandedOut(token, 1, "moves-on")
		three.HandedOut(token, 1, fmt.Sprintf("stays-%d", i%2))
	}
	two.HandedOut(tokens[5], 1, "not-in-it")
	clock.add(time.Minute)
	scope := slices.Clone(tokens[:5])
	slices.SortFunc(scope, func(a, b state.Token) int { return strings.Compare(string(a[:]), string(b[:])) })
	id := startRotation(t, leader, state.RotationSpec{Scope: state.RotationScope{Tokens: scope}, Emergency: true, Old: keys.FateRevoke, Total: 5})
	eventually(t, "the switch", func() bool { return rotationOf(leader, id).State == state.RotationDone })
	c.waitAll(leader.Machine().Index())

	on := func(n *Node, want string) {
		t.Helper()
		n.signers.mu.Lock()
		clear(n.signers.walks) // not what was known last
		n.signers.mu.Unlock()
		if found, ok := n.FleetSigners(within(t, 10*time.Second), id); !ok || strings.Join(found.OnOld, " ") != want || len(found.Unheard) != 0 {
			t.Errorf("%s: on old keys %v (%t), want %s; unheard %v", n.c.ID, found.OnOld, ok, want, found.Unheard)
		}
	}
	on(two, "moves-on stays-0 stays-1")
	for _, token := range tokens {
		two.HandedOut(token, 2, "moves-on")
	}
	one.HandedOut(tokens[0], 2, "stays-0") // one of three
	on(two, "stays-0 stays-1")
	one.HandedOut(tokens[2], 2, "stays-0")
	two.HandedOut(tokens[4], 2, "stays-0")
	on(three, "stays-1")
	clock.add(24 * time.Hour) // signer_hold is over
	on(one, "")

	again, known := one.FleetSigners(within(t, 10*time.Second), id)
	c.kill("node-3")
	if cached, _ := one.FleetSigners(within(t, 10*time.Second), id); !known || !cached.At.Equal(again.At) || len(cached.Unheard) != 0 {
		t.Errorf("a walk soon after another: %+v, after %+v", cached, again)
	}
	one.signers.mu.Lock()
	clear(one.signers.walks)
	one.signers.mu.Unlock()
	if found, _ := one.FleetSigners(within(t, 10*time.Second), id); strings.Join(found.Unheard, " ") != "node-3" {
		t.Errorf("unheard: %v", found.Unheard)
	}
	if _, known := one.FleetSigners(within(t, time.Second), state.Token{9}); known {
		t.Error("an unknown rotation has signers")
	}
}

// A rotation was rolled back: every signer fetched a later key once, and signs with
// the one before again.
func TestSignerThatWentBackToAKeyIsOnIt(t *testing.T) {
	ask := keyAsk{Key: 1, Hold: 100, Later: []uint32{2, 3}}
	for name, c := range map[string]struct {
		list []handed
		on   bool
	}{
		"has it alone":         {[]handed{{Key: 1, At: 950}}, true},
		"has the next":         {[]handed{{Key: 1, At: 950}, {Key: 2, At: 960}}, false},
		"went back":            {[]handed{{Key: 2, At: 940}, {Key: 1, At: 950}}, true},
		"went back and forth":  {[]handed{{Key: 2, At: 940}, {Key: 1, At: 950}, {Key: 3, At: 951}}, false},
		"both in one second":   {[]handed{{Key: 2, At: 950}, {Key: 1, At: 950}}, false},
		"let go of it":         {[]handed{{Key: 2, At: 100}, {Key: 1, At: 899}}, false},
		"never had it":         {[]handed{{Key: 2, At: 950}}, false},
		"has an earlier alone": {[]handed{{Key: 7, At: 950}}, false},
	} {
		if on := onOld(c.list, ask, 1000); on != c.on {
			t.Errorf("%s: on it %t", name, on)
		}
	}
}

// TestLaterKeyIsOneOfTheSameAlgorithm: a signer gets both keys of a domain that
// signs twice, and the second is not the first's successor.
func TestLaterKeyIsOneOfTheSameAlgorithm(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	seed(t, n)
	token := claim(t, n, "send.customer.test.")
	d, _ := n.Machine().Domain(token)
	ring := d.Ring()
	ring.Keys = append(slices.Clone(ring.Keys), keys.Key{ID: 8, Algorithm: keys.Ed25519, Selector: "x", Stage: keys.Active})
	k, _ := ring.ByID(1)
	ask := askOf(n.Machine(), d, ring, k)
	n.HandedOut(token, 1, "signer")
	n.HandedOut(token, 8, "signer")
	told := n.evidence.of(ask, n.c.Now().Unix())
	if len(told.Signers) != 1 || told.Signers[0].Later != 0 {
		t.Errorf("%+v", told.Signers)
	}
	n.HandedOut(token, 2, "signer")
	if told = n.evidence.of(ask, n.c.Now().Unix()); told.Signers[0].Later == 0 {
		t.Errorf("with its successor: %+v", told.Signers)
	}
}
