package state

import (
	"fmt"
	"testing"
	"time"

	"authd/keys"
	"authd/zone"
)

func TestStoreLeakedForAFleetReplacesActiveKeysFirstThenStandbys(t *testing.T) {
	w := manyOf(t, 6)
	w.must(start1(RotationSpec{Scope: RotationScope{Pool: "default"}, Emergency: true, Store: true, Old: keys.FateRevoke, Total: 6}))
	r := w.advance()
	if r.State != RotationRunning || r.Waiting != 6 || r.Switched != 0 {
		t.Fatalf("%+v", r)
	}
	for d := range w.m.Domains(Token{}) {
		if w.stageOf(d.Token, 1) != keys.Active || w.stageOf(d.Token, 2) != keys.Revoked || w.m.RotationOutcome(r, d) != OutcomeWaiting {
			t.Fatalf("%s: %s and %s", d.Name.Host(), w.stageOf(d.Token, 1), w.stageOf(d.Token, 2))
		}
	}
	if w.must(StepKey(w.stepOf(w.publishing(tok(1))))); w.rotation().Keyed != 1 || w.rotation().KeyedAt != w.m.Time() {
		t.Fatalf("%+v", w.rotation())
	}
	w.dueAll() // keys are made
	w.dueAll() // and confirmed
	if r = w.rotation(); r.Keyed != 6 || r.Waiting != 6 {
		t.Fatalf("%+v", r)
	}
	w.later(keys.GapMinted + 1)
	w.dueAll()
	if r = w.rotation(); r.Switched != 3 { // the minted ones
		t.Fatalf("%+v", r)
	}
	w.later(2 * 3600)
	w.refill()
	w.later(3 * 3600)
	w.refill()
	if r = w.rotation(); r.State != RotationDone || r.Switched != 6 || r.Refilled != 6 || r.Keyed != 0 {
		t.Errorf("%+v", r)
	}
	w.refuse(ControlRotation{tok(99), RotationRollback}, Conflict, "id", "leaked store")
	w.checkIndexes()
}

// TestEmergencyOfOneAlgorithmIsNoPartOfTheRotationThatTheOtherWaitsIn.
func TestEmergencyOfOneAlgorithmIsNoPartOfTheRotationThatTheOtherWaitsIn(t *testing.T) {
	w := newWorld(t)
	two := spec()
	two.Policy.Algorithms = []keys.Algorithm{keys.RSA2048, keys.Ed25519}
	w.must(PutPool{ID: "default", Spec: two})
	c := claimOf(tok(1), "send.customer.test", zone.Delegated, "acme")
	ed := func(id uint32, selector string) keys.Material {
		m := material(id, selector, fmt.Sprintf("E%d", id))
		m.Algorithm, m.Payload = keys.Ed25519, fmt.Sprintf("v=DKIM1; k=ed25519; p=E%d", id)
		return m
	}
	c.Active = append(c.Active, ed(2, "2601-cccccc"))
	c.Standby = []keys.Material{ed(3, "2601-dddddd")}
	w.must(c)
	w.prove(tok(1))
	step := func(kind keys.StepKind, id uint32) StepKey {
		return StepKey{Token: tok(1), Step: keys.Step{Kind: kind, Algorithm: keys.Ed25519, Key: id}}
	}
	w.must(step(keys.StepConfirm, 3))
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Total: 1}))
	if r := w.advance(); r.Waiting != 1 || w.stageOf(tok(1), 3) != keys.Active {
		t.Fatalf("%+v", r)
	}
	publish, m := step(keys.StepPublish, 0), ed(4, "2601-eeeeee")
	publish.Material = &m
	w.must(publish)
	w.must(step(keys.StepConfirm, 4))
	w.later(keys.GapMinted)
	w.must(ReplaceKey{Token: tok(1), Algorithm: keys.Ed25519, Old: keys.FateDrain})
	if r := w.rotation(); r.Waiting != 1 || w.stageOf(tok(1), 4) != keys.Active {
		t.Fatalf("the other algorithm left the rotation: %+v", r)
	}
	w.must(ControlRotation{tok(99), RotationRollback})
	w.advance()
	if ring := w.domain(tok(1)).Ring(); len(ring.Urgent) != 0 || w.stageOf(tok(1), 4) != keys.Active {
		t.Errorf("wishes %v, and the key of the emergency is %s", ring.Urgent, w.stageOf(tok(1), 4))
	}
}

// TestEmergencyOfAKeyThatDrainsLeavesTheDomainInItsRotation, where it waits for a standby.
func TestEmergencyOfAKeyThatDrainsLeavesTheDomainInItsRotation(t *testing.T) {
	w := manyOf(t, 1)
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true})
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Total: 1}))
	if r := w.advance(); r.Waiting != 1 {
		t.Fatalf("%+v", r)
	}
	old, _ := w.domain(tok(1)).Ring().ByID(1)
	w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, From: old.Selector, Old: keys.FateRevoke})
	if r := w.rotation(); r.Waiting != 1 || w.stageOf(tok(1), 1) != keys.Revoked {
		t.Errorf("the key is %s; %+v", w.stageOf(tok(1), 1), r)
	}
	w.checkIndexes()
}

// TestEmergencyTakesADomainOverFromAPlainRotation and leaves both counts true.
func TestEmergencyTakesADomainOverFromAPlainRotation(t *testing.T) {
	w := manyOf(t, 3)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Total: 3}))
	w.advance()
	second := StartRotation{tok(98), RotationSpec{Scope: RotationScope{Tokens: []Token{tok(1)}}, Emergency: true, Old: keys.FateRevoke, Total: 1}}
	w.must(second)
	w.advance()
	a := w.rotation()
	b, _ := w.m.Rotation(tok(98))
	if a.Waiting != 2 || a.Dropped != 1 || b.Switched != 1 || b.State != RotationDone || w.stageOf(tok(1), 1) != keys.Revoked {
		t.Errorf("%+v\n%+v", a, b)
	}
	w.checkIndexes()
}

// What has to wait in a drill or a plain rotation does not make less of an emergency
// that waits already, and the way back of either does not withdraw it.
func TestEmergencyThatWaitsIsNotTakenOverByLess(t *testing.T) {
	for name, spec := range map[string]RotationSpec{
		"a drill":                   {Emergency: true, Drill: true},
		"a plain rotation":          {},
		"an emergency that drains":  {Emergency: true},
		"a drill that says nothing": {Drill: true},
	} {
		w := newWorld(t)
		w.must(claimOf(tok(1), "one.customer.test", zone.CNAME, "acme")) // nobody confirmed its standby
		w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, Old: keys.FateRevoke})
		spec.Scope, spec.Total = RotationScope{All: true}, 1
		w.must(start1(spec))
		if r := w.advance(); r.Skipped != 1 || r.Waiting != 0 {
			t.Errorf("%s: %+v", name, r)
		}
		w.must(ControlRotation{tok(99), RotationRollback})
		w.advance()
		w.refill()
		if stage := w.stageOf(tok(1), 1); stage != keys.Revoked {
			t.Errorf("%s: the key that leaked is %s", name, stage)
		}
	}
}

// TestEmergencyOfOneDomainIsNotWithdrawnWithARotation that waited for the same standby.
func TestEmergencyOfOneDomainIsNotWithdrawnWithARotation(t *testing.T) {
	for _, old := range []keys.Fate{keys.FateDrain, keys.FateRevoke, keys.FateSwitch} {
		w := newWorld(t)
		w.must(claimOf(tok(1), "one.customer.test", zone.CNAME, "acme"))
		w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Drill: true, Total: 1}))
		if r := w.advance(); r.Waiting != 1 {
			t.Fatalf("%+v", r)
		}
		w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, Old: old})
		w.must(ControlRotation{tok(99), RotationRollback})
		if r := w.advance(); r.State != RotationDone || r.Waiting != 0 || r.Dropped != 1 {
			t.Errorf("%s: %+v", old, r)
		}
		if wish := w.domain(tok(1)).Ring().Urgent[keys.RSA2048]; !wish.Serious() || wish.Old != old {
			t.Errorf("%s: what waits is %+v", old, wish)
		}
		w.checkIndexes()
	}
}

// TestDrillOfAFleetRevokesNothing in slots either, where an emergency makes room.
func TestDrillOfAFleetRevokesNothing(t *testing.T) {
	w := manyOf(t, 4) // two in slots
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Drill: true, Total: 4}))
	w.advance()
	for range 2 {
		w.later(3 * 3600)
		w.refill()
	}
	w.must(StartRotation{tok(98), RotationSpec{Scope: RotationScope{All: true}, Drill: true, Old: keys.FateDrain, Total: 4}})
	w.advance()
	r, _ := w.m.Rotation(tok(98))
	if r.Switched != 4 || r.ForSlot != 0 {
		t.Errorf("%+v", r)
	}
	for i := range uint64(4) {
		for _, k := range w.domain(tok(i + 1)).Ring().Keys {
			if k.Stage == keys.Revoked {
				t.Errorf("domain %d: %s is revoked", i+1, k.Selector)
			}
		}
	}
}

// TestLeakedStoreTakesTheKeysThatDrain: they are in the sum of what is exposed, and
// none of them was revoked for its slot.
func TestLeakedStoreTakesTheKeysThatDrain(t *testing.T) {
	policy := spec().Policy
	drains := int64((policy.SignerHold + policy.Drain) / time.Second)
	for old, exposed := range map[keys.Fate]int64{keys.FateRevoke: 0, keys.FateSwitch: keys.SwitchTime, keys.FateDrain: drains - 6*3600} {
		w := manyOf(t, 4)
		w.must(StartRotation{tok(98), RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Old: keys.FateDrain, Total: 4}})
		w.must(AdvanceRotation{tok(98)})
		for range 2 {
			w.later(3 * 3600)
			w.refill()
		}
		w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Store: true, Old: old, Total: 4}))
		if r := w.advance(); r.Waiting != 4 || r.ForSlot != 0 || r.Exposed != w.at+exposed+keys.TTLLong {
			t.Errorf("%s: %d s from now, want %d: %+v", old, r.Exposed-keys.TTLLong-w.at, exposed, r)
		}
		for i := range uint64(4) {
			k, _ := w.domain(tok(i + 1)).Ring().ByID(1)
			if (k.Stage == keys.Revoked) != (old == keys.FateRevoke) || (k.SwitchBy != 0) != (old == keys.FateSwitch) {
				t.Errorf("%s: the key of before is %s, until %d", old, k.Stage, k.SwitchBy)
			}
		}
		w.checkIndexes()
	}
}

// TestLeakedStoreTakesTheKeysOfDomainsThatLeave, which have no next key: they are
// published until their floor, and would sign again if the domain came back.
func TestLeakedStoreTakesTheKeysOfDomainsThatLeave(t *testing.T) {
	for _, old := range []keys.Fate{keys.FateDrain, keys.FateRevoke, keys.FateSwitch} {
		w := manyOf(t, 2)
		w.must(LeaveDomain{Token: tok(1)})
		w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Store: true, Old: old, Total: 2}))
		if r := w.advance(); r.Skipped != 1 || r.Waiting != 1 {
			t.Errorf("%s: %+v", old, r)
		}
		k, _ := w.domain(tok(1)).Ring().ByID(1)
		if (k.Stage == keys.Revoked) != (old == keys.FateRevoke) || (k.SwitchBy != 0) != (old == keys.FateSwitch) {
			t.Errorf("%s: %s, until %d", old, k.Stage, k.SwitchBy)
		}
		needs := len(w.domain(tok(1)).Ring().ReviveNeeds([]keys.Algorithm{keys.RSA2048}))
		if (needs == 0) != (old == keys.FateDrain) {
			t.Errorf("%s: the domain comes back with %d new keys", old, needs)
		}
		w.checkIndexes()
	}
}
