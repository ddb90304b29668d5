package keys

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Each gate opens, or closes, at its second: not one early, not one late.
func TestGatesOpenAtTheirSecond(t *testing.T) {
	p := DefaultPolicy()
	activate, revoke, remove := Step{Kind: StepActivate, Key: 2}, Step{Kind: StepRevoke, Key: 1, Evidence: &Evidence{Complete: true}}, Step{Kind: StepRemove, Key: 1}
	const drained = someTime + 10_000
	draining := func(mode RingMode) Ring { return stepped(t, readyPair(t, mode), drained, activate) }
	floor := drained + seconds(p.SignerHold+p.DrainFloor)
	revoked := stepped(t, draining(Minted), floor, revoke)
	for name, c := range map[string]struct {
		ring  Ring
		step  Step
		opens int64
		shuts int64 // the last second; 0: it stays open
	}{
		"a minted standby's ready time":  {ring: readyPair(t, Minted), step: activate, opens: someTime + GapMinted},
		"a slot's ready time":            {ring: readyPair(t, Slots), step: activate, opens: someTime + TTLShort + TTLStretch},
		"the floor of draining":          {ring: draining(Minted), step: revoke, opens: floor},
		"the floor of draining in slots": {ring: draining(Slots), step: revoke, opens: floor},
		"removal":                        {ring: revoked, step: remove, opens: floor + seconds(p.RevokedFor)},
		"the way back":                   {ring: draining(Minted), step: Step{Kind: StepActivate, Key: 1}, opens: drained, shuts: drained + seconds(p.Rollback)},
	} {
		if _, err := c.ring.Take(c.step, c.opens, p, nil); err != nil {
			t.Errorf("%s: shut at its second: %v", name, err)
		}
		if c.shuts == 0 {
			var early *NotReady
			if _, err := c.ring.Take(c.step, c.opens-1, p, nil); !errors.As(err, &early) || early.At != c.opens {
				t.Errorf("%s: a second early: %v", name, err)
			}
			continue
		}
		if _, err := c.ring.Take(c.step, c.shuts, p, nil); err != nil {
			t.Errorf("%s: shut in its last second: %v", name, err)
		}
		if _, err := c.ring.Take(c.step, c.shuts+1, p, nil); err == nil {
			t.Errorf("%s: open a second too long", name)
		}
	}
	slots := stepped(t, draining(Slots), floor, revoke)
	free := slots.Freed["k1"]
	if slots = stepped(t, slots, free, remove); free != floor+TTLLong+TTLStretch {
		t.Errorf("a slot revoked at %d is free at %d", floor, free)
	}
	for at, ok := range map[int64]bool{free - 1: false, free: true} {
		if slot, err := slots.slotFor(RSA2048, "k1", at); (err == nil) != ok {
			t.Errorf("slot %d at %d of %d: %v", slot, at, free, err)
		}
	}
}

func TestStepsThatDoNotFitTheRingAreRefused(t *testing.T) {
	r := readyPair(t, Minted)
	late := int64(someTime + 10_000)
	two := testMaterial(3, RSA2048, "s3")
	leaving := r.Retire(late)
	for name, c := range map[string]struct {
		ring     Ring
		step     Step
		at       int64
		material *Material
		says     string
	}{
		"before 1970":                {r, Step{Kind: StepActivate, Key: 2}, 0, nil, "1970"},
		"material for a confirm":     {r, Step{Kind: StepConfirm, Key: 1}, late, &two, "material"},
		"publish without material":   {r, Step{Kind: StepPublish, Algorithm: RSA2048}, late, nil, "material"},
		"of another algorithm":       {r, Step{Kind: StepActivate, Key: 2, Algorithm: Ed25519}, late, nil, "not of ed25519"},
		"confirm of an active key":   {r, Step{Kind: StepConfirm, Key: 1}, late, nil, "not standby"},
		"confirm again":              {r, Step{Kind: StepConfirm, Key: 2}, late, nil, "confirmed already"},
		"a second standby":           {r, Step{Kind: StepPublish, Algorithm: RSA2048}, late, &two, "standby already"},
		"end of what does not drain": {r, Step{Kind: StepRevoke, Key: 1, Evidence: &Evidence{Complete: true}}, late * 2, nil, "not draining"},
		"removal of an active key":   {r, Step{Kind: StepRemove, Key: 1}, late * 2, nil, "not revoked"},
		"publish while leaving":      {leaving, Step{Kind: StepPublish, Algorithm: RSA2048}, late, &two, "leaving"},
		"activation while leaving":   {leaving, Step{Kind: StepActivate, Key: 1}, late, nil, "leaving"},
	} {
		if _, err := c.ring.Take(c.step, c.at, DefaultPolicy(), c.material); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", name, err, c.says)
		}
	}
	if again := leaving.Retire(late + day.Nanoseconds()); again.RetiredAt != late {
		t.Errorf("leaving again moved the time to %d", again.RetiredAt)
	}
}

// A key that is taken out of service leaves nothing behind that points to it: a
// ring with such a thing would not decode, and images hold rings.
func TestRevokedKeyLeavesNothingThatPointsToIt(t *testing.T) {
	late := int64(someTime + 10_000)
	waiting, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if waiting, err = waiting.Emergency(RSA2048, 0, FateDrain, late); err != nil || waiting.Urgent[RSA2048].Key != 1 {
		t.Fatalf("%+v, %v", waiting.Urgent, err)
	}
	gone, err := waiting.RevokeAnyway(1, late)
	if err != nil {
		t.Fatal(err)
	}
	if k, _ := gone.ByID(1); len(gone.Urgent) > 0 || k.DrainedAt != late || k.RevokedAt != late || k.Sealed != nil || k.Payload != "" {
		t.Errorf("%+v, %+v", gone.Urgent, k)
	}
	rotated := stepped(t, readyPair(t, Minted), late, Step{Kind: StepActivate, Key: 2})
	if rotated.RolledFrom[RSA2048] != 1 {
		t.Fatalf("%+v", rotated.RolledFrom)
	}
	without, err := rotated.Revoke(1, late)
	if err != nil || len(without.RolledFrom) > 0 {
		t.Errorf("%+v, %v", without.RolledFrom, err)
	}
	for name, r := range map[string]Ring{"with a wish": gone, "with a way back": without} {
		if _, err := DecodeRing(string(r.Append(nil)), payloads(r)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The way back leads to the key that the active one replaced, and to none where
// that was revoked before.
func TestKeyThatReplacedNoneHasNoWayBack(t *testing.T) {
	late := int64(someTime + 10_000)
	r := stepped(t, readyPair(t, Minted), late, Step{Kind: StepActivate, Key: 2})
	r, err := r.RevokeAnyway(2, late)
	if err != nil {
		t.Fatal(err)
	}
	m := testMaterial(3, RSA2048, "s3")
	if r, err = r.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, late, DefaultPolicy(), &m); err != nil {
		t.Fatal(err)
	}
	r = stepped(t, r, late, Step{Kind: StepConfirm, Key: 3})
	r = stepped(t, r, late+GapMinted, Step{Kind: StepActivate, Key: 3})
	if _, err := r.Take(Step{Kind: StepActivate, Key: 1}, late+GapMinted, DefaultPolicy(), nil); err == nil || len(r.RolledFrom) > 0 {
		t.Errorf("key 3 replaced none, and key 1 signs again: %v, %v", r.RolledFrom, err)
	}
}

// Nobody asks a domain that leaves to go on: queries do not keep its keys.
func TestQueriesDoNotKeepTheKeysOfADomainThatLeaves(t *testing.T) {
	p, late := DefaultPolicy(), int64(someTime+10_000)
	r := readyPair(t, Minted).Retire(late)
	end := late + seconds(p.SignerHold+p.DrainFloor)
	if until, err := r.RevocableAt(1, end, p, &Evidence{Complete: true, AskedAt: end - 1}); err != nil || until != end {
		t.Errorf("revocable at %d, %v", until-end, err)
	}
}

func TestStepsLeaveTheOldRingAlone(t *testing.T) {
	for _, mode := range []RingMode{Minted, Slots} {
		r := testRing(t, mode)
		p := DefaultPolicy()
		for range 60 {
			before := r.Append(nil)
			step, due, ok := r.Next(p)
			if !ok {
				t.Fatal("nothing is planned")
			}
			var m *Material
			if step.Kind == StepPublish {
				material := testMaterial(r.NextID, step.Algorithm, "")
				if mode == Minted {
					material.Selector = fmt.Sprintf("s%d", r.NextID)
				}
				m = &material
			}
			step.Evidence = &Evidence{Complete: true}
			next, err := r.Take(step, max(due, someTime), p, m)
			if err != nil {
				t.Fatal(err)
			}
			next.Retire(due + 1)
			if !bytes.Equal(r.Append(nil), before) {
				t.Fatalf("%s changed the ring it was taken on", step.Kind)
			}
			r = next
		}
	}
}

// stepped takes steps that have to be allowed.
func stepped(t *testing.T, r Ring, at int64, steps ...Step) Ring {
	t.Helper()
	for _, s := range steps {
		var err error
		if r, err = r.Take(s, at, DefaultPolicy(), nil); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// readyPair is a ring whose standby (key 2) was confirmed at someTime and has to
// wait for some caches; its active key is 1.
func readyPair(t *testing.T, mode RingMode) Ring {
	t.Helper()
	r, err := Start(mode, 0, someTime, []Material{testMaterial(1, RSA2048, "")}, nil)
	if mode == Minted {
		r, err = Start(mode, 0, someTime, []Material{testMaterial(1, RSA2048, "s1")}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := testMaterial(2, RSA2048, "")
	if mode == Minted {
		m.Selector = "s2"
	}
	if r, err = r.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, someTime, DefaultPolicy(), &m); err != nil {
		t.Fatal(err)
	}
	return stepped(t, r, someTime, Step{Kind: StepConfirm, Key: 2})
}
