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

// What the names answered meanwhile is the other ring's to say, and so is when nodes
// confirmed it.
func TestBackupTakesOverWhatTheOtherRingWaitsFor(t *testing.T) {
	const at = someTime + 10_000
	backup := readyPair(t, Slots)
	backup.Freed = map[string]int64{"k1": at + 700, "k3": at + 100}
	now := backup.clone()
	now.Freed = map[string]int64{"k1": at + 500, "k3": at + 500}
	now.Handed = map[string]int64{"k3": at - 100}
	ring := backup.TakeOver(now, at)
	if ring.Freed["k1"] != at+700 || ring.Freed["k3"] != at+500 || ring.Handed["k3"] != at-100 {
		t.Errorf("freed %v, handed out %v", ring.Freed, ring.Handed)
	}
	if k, _ := ring.Standby(RSA2048); k.ConfirmedAt != someTime {
		t.Error("a standby that both have, confirmed, is confirmed no more")
	}
	now.Keys[1].ConfirmedAt = 0
	if k, _ := backup.TakeOver(now, at).Standby(RSA2048); k.ConfirmedAt != 0 {
		t.Error("a standby that nodes had yet to confirm is confirmed by a backup")
	}
}
