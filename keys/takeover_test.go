package keys

import "testing"

// TestNoWayBackToAKeyThatWasRevokedSinceABackup, though the backup has it draining.
func TestNoWayBackToAKeyThatWasRevokedSinceABackup(t *testing.T) {
	const at = someTime + 10_000
	backup := stepped(t, readyPair(t, Minted), at, Step{Kind: StepActivate, Key: 2})
	back := Step{Kind: StepActivate, Key: 1}
	stepped(t, backup.TakeOver(backup, at+1), at+1, back)
	now, err := backup.Revoke(1, at+1)
	if err != nil {
		t.Fatal(err)
	}
	for what, other := range map[string]Ring{"revoked": now, "gone": {}} {
		if _, err := backup.TakeOver(other, at+2).Take(back, at+2, DefaultPolicy(), nil); err == nil {
			t.Errorf("%s meanwhile, the key signs again at once", what)
		}
	}
}

// TestSlotsThatAnotherRingServedAreFilledOnceCachesLetGo, though the backup has them empty.
func TestSlotsThatAnotherRingServedAreFilledOnceCachesLetGo(t *testing.T) {
	backup, err := Start(Slots, 0, someTime, []Material{testMaterial(1, RSA2048, "")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	const at = someTime + 10_000
	now := stepped(t, readyPair(t, Slots), at, Step{Kind: StepActivate, Key: 2})
	ring := backup.TakeOver(now, at)
	if freed := ring.Freed["k2"]; freed != at+TTLLong+TTLStretch || ring.gap("k2") != TTLLong+TTLStretch || ring.Handed["k2"] != -at {
		t.Errorf("k2, which signed, is free %d s later, its next key waits %d s, handed out %d", freed-at, ring.gap("k2"), ring.Handed["k2"])
	}
	if place, err := ring.Place(RSA2048, at); err != nil || place.Selector != "k3" {
		t.Errorf("the next key goes to %q, %v", place.Selector, err)
	}
}
