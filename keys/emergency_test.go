package keys

import (
	"maps"
	"strings"
	"testing"
)

// TestEmergencyIsRefusedForWhatIsNoKeyOfTheDomain and changes nothing then.
func TestEmergencyIsRefusedForWhatIsNoKeyOfTheDomain(t *testing.T) {
	r, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1"), testMaterial(2, Ed25519, "s2")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		from uint32
		old  Fate
		at   int64
		says string
	}{
		"no such key":      {9, FateDrain, someTime, "no such key"},
		"of the other":     {2, FateDrain, someTime, "no such key"},
		"no such fate":     {1, 0, someTime, "fate 0"},
		"a time before us": {1, FateDrain, 0, "1970"},
	} {
		if _, err := r.Emergency(RSA2048, c.from, c.old, c.at); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", what, err, c.says)
		}
	}
}

// An emergency that is asked for again does not begin its ten minutes anew, and a
// plain rotation does not take away its urgency.
func TestRepeatedWishesChangeNothing(t *testing.T) {
	late := int64(someTime + 10_000)
	r, err := readyPair(t, Minted).Emergency(RSA2048, 1, FateSwitch, late)
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Emergency(RSA2048, 1, FateSwitch, late+60)
	if k, _ := again.ByID(1); err != nil || k.SwitchBy != late+SwitchTime {
		t.Errorf("revoked at %d at the latest, %v", k.SwitchBy-late, err)
	}
	waiting, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if waiting, err = waiting.Emergency(RSA2048, 0, FateRevoke, late); err != nil {
		t.Fatal(err)
	}
	renewed, err := waiting.Renew(RSA2048, late, DefaultPolicy())
	if err != nil || !maps.Equal(renewed.Urgent, waiting.Urgent) {
		t.Errorf("%+v became %+v, %v", waiting.Urgent, renewed.Urgent, err)
	}
	// Nothing signs yet: the old key stays until something does.
	bare, err := r.RevokeAnyway(2, late)
	if err != nil {
		t.Fatal(err)
	}
	if kept, err := bare.Emergency(RSA2048, 1, FateRevoke, late); err != nil {
		t.Error(err)
	} else if k, _ := kept.ByID(1); k.Stage != Draining {
		t.Errorf("no key signs, and key 1 is %s", k.Stage)
	}
}

func TestRenewalIsRefusedForKeysKeptElsewhere(t *testing.T) {
	public := Material{Algorithm: RSA2048, Selector: "elsewhere", Payload: "v=DKIM1; k=rsa; p=key1", PublicOnly: true, Imported: true}
	r, err := Start(Minted, 0, someTime, []Material{public}, []Material{testMaterial(2, RSA2048, "s2")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Renew(RSA2048, someTime, DefaultPolicy()); err == nil || !strings.Contains(err.Error(), "elsewhere") {
		t.Errorf("%v", err)
	}
}

// The key that an emergency replaces drains where that was asked for, also where
// another key that signs elsewhere has the third slot.
func TestEmergencyThatDrainsSparesTheKeyItReplaces(t *testing.T) {
	late := int64(someTime + 10_000)
	r, err := readyPair(t, Slots).Bring(&Material{Algorithm: RSA2048, Payload: "v=DKIM1; k=rsa; p=elsewhere", PublicOnly: true, Imported: true}, late)
	if err != nil || len(r.Keys) != slotCount {
		t.Fatalf("%d keys, %v", len(r.Keys), err)
	}
	if r, err = r.Emergency(RSA2048, 1, FateDrain, late); err != nil {
		t.Fatal(err)
	}
	if k, _ := r.ByID(1); k.Stage != Draining {
		t.Errorf("it is %s", k.Stage)
	}
}

// What is said of the next key's time comes true where nothing is in the way.
func TestOutlookIsWhenTheNextKeyIsReady(t *testing.T) {
	for _, c := range []struct {
		mode          RingMode
		freed, handed map[string]int64
	}{
		{Minted, nil, nil},
		{Slots, map[string]int64{"k2": someTime + 900, "k3": someTime + 700}, nil},
		{Slots, map[string]int64{"k2": someTime + 900, "k3": someTime + 700}, map[string]int64{"k3": someTime - 500}},
	} {
		mode := c.mode
		r, err := Start(mode, 0, someTime, []Material{testMaterial(1, RSA2048, map[RingMode]string{Minted: "s1"}[mode])}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Freed, r.Handed = c.freed, c.handed
		said := r.Outlook(RSA2048, someTime, DefaultPolicy())
		_, due, ok := r.Next(DefaultPolicy())
		m := testMaterial(2, RSA2048, map[RingMode]string{Minted: "s2"}[mode])
		if !ok {
			t.Fatalf("%s: nothing is planned", mode)
		}
		if r, err = r.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, due, DefaultPolicy(), &m); err != nil {
			t.Fatal(err)
		}
		if again := r.Outlook(RSA2048, due, DefaultPolicy()); again != said {
			t.Errorf("%s: said %d, once it was published %d", mode, said-someTime, again-someTime)
		}
		r = stepped(t, r, due, Step{Kind: StepConfirm, Key: 2})
		if k, _ := r.Standby(RSA2048); k.ReadyAt() != said {
			t.Errorf("%s: said %d, ready %d seconds on", mode, said-someTime, k.ReadyAt()-someTime)
		}
	}
	// Where every slot holds a key, the first to be free is the one that was revoked.
	full := stepped(t, readyPair(t, Slots), someTime+10_000, Step{Kind: StepActivate, Key: 2})
	full, err := full.Bring(&Material{Algorithm: RSA2048, Payload: "v=DKIM1; k=rsa; p=elsewhere", PublicOnly: true, Imported: true}, someTime+10_000)
	if err != nil {
		t.Fatal(err)
	}
	if full, err = full.Revoke(1, someTime+10_000); err != nil {
		t.Fatal(err)
	}
	said, free := full.Outlook(RSA2048, someTime+10_000, DefaultPolicy()), full.Freed["k1"]
	full = stepped(t, full, free, Step{Kind: StepRemove, Key: 1})
	if again := full.Outlook(RSA2048, free, DefaultPolicy()); said != again || said <= free {
		t.Errorf("said %d, once the slot was free %d", said-free, again-free)
	}
}

// A key that comes back by hand is of no rotation, though one waits for its standby.
func TestKeyThatIsRolledBackWasBroughtByNoRotation(t *testing.T) {
	const at = someTime + 10_000
	before := stepped(t, readyPair(t, Minted), at, Step{Kind: StepActivate, Key: 2})
	waits, err := before.Renew(RSA2048, at, DefaultPolicy())
	if err != nil || len(waits.Urgent) == 0 {
		t.Fatal(err, waits.Urgent)
	}
	back := stepped(t, waits.Part(7, before), at, Step{Kind: StepActivate, Key: 1})
	if k, _ := back.ByID(1); k.Stage != Active || k.BroughtBy != 0 {
		t.Errorf("%s, brought by %d", k.Stage, k.BroughtBy)
	}
}
