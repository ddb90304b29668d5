package keys

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"
)

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

// A bound's last value is allowed, the next is not.
func TestPolicyBoundsAreAllowedThemselves(t *testing.T) {
	wide := DefaultPolicy()
	wide.Period, wide.DrainFloor, wide.Drain, wide.DrainCeiling = 100*day, 20*day, 30*day, 60*day
	for name, c := range map[string]struct {
		set         func(*Policy, time.Duration)
		least, most time.Duration
		slots       bool
	}{
		"drain_ceiling": {set: func(p *Policy, d time.Duration) { p.DrainCeiling = d }, least: 30 * day, most: 60 * day},
		"drain_floor":   {set: func(p *Policy, d time.Duration) { p.DrainFloor = d }, least: 7 * day, most: 30 * day},
		"drain":         {set: func(p *Policy, d time.Duration) { p.Drain = d }, least: 20 * day, most: 60 * day},
		"signer_hold":   {set: func(p *Policy, d time.Duration) { p.SignerHold = d }, least: time.Minute, most: 7 * day},
		"period":        {set: func(p *Policy, d time.Duration) { p.Period = d }, least: 5 * day, most: 730 * day},
		"period in slots": {set: func(p *Policy, d time.Duration) { p.Period = d }, slots: true,
			least: 61 * day, most: 730 * day},
		"soak":            {set: func(p *Policy, d time.Duration) { p.Soak = d }, least: 0, most: 30 * day},
		"soak and period": {set: func(p *Policy, d time.Duration) { p.Period, p.Soak = 6*day, d }, least: 0, most: 6 * day},
		"rollback":        {set: func(p *Policy, d time.Duration) { p.Rollback = d }, least: 0, most: 20 * day},
		"revoked_for":     {set: func(p *Policy, d time.Duration) { p.RevokedFor = d }, least: day, most: 90 * day},
		"quiet":           {set: func(p *Policy, d time.Duration) { p.Quiet = d }, least: time.Hour, most: 20 * day},
	} {
		for value, ok := range map[time.Duration]bool{c.least: true, c.most: true, c.least - time.Second: false, c.most + time.Second: false} {
			p := wide
			c.set(&p, value)
			if err := p.Check(c.slots); (err == nil) != ok {
				t.Errorf("%s of %s: %v", name, value, err)
			}
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

// Of several empty slots the next standby goes to the one that is free first.
func TestNextStandbyTakesTheSlotThatIsFreeFirst(t *testing.T) {
	r, err := Start(Slots, 0, someTime, []Material{testMaterial(1, RSA2048, "")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Freed = map[string]int64{"k2": someTime + 9000, "k3": someTime + 5000}
	if _, due, ok := r.Next(DefaultPolicy()); !ok || due != someTime+5000 {
		t.Errorf("due at %d, %v", due-someTime, ok)
	}
	r.Freed = map[string]int64{"k2": someTime + 5000, "k3": someTime + 9000}
	if _, due, ok := r.Next(DefaultPolicy()); !ok || due != someTime+5000 {
		t.Errorf("due at %d, %v", due-someTime, ok)
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

func TestKeysThatOperatorsBringAreRefusedWhereThereIsNoPlace(t *testing.T) {
	late := int64(someTime + 10_000)
	brought := testMaterial(3, RSA2048, "s9")
	brought.Imported = true
	public := func(selector string) *Material {
		return &Material{Algorithm: RSA2048, Selector: selector, Payload: "v=DKIM1; k=rsa; p=public" + selector, PublicOnly: true, Imported: true}
	}
	r := readyPair(t, Minted)
	if _, err := r.Retire(late).Bring(&brought, late); err == nil || !strings.Contains(err.Error(), "leaving") {
		t.Errorf("while leaving: %v", err)
	}
	same := testMaterial(3, RSA2048, "s9")
	same.Payload = r.Keys[0].Payload
	var used *InUse
	if _, err := r.Bring(&same, late); !errors.As(err, &used) || used.Selector != "s1" {
		t.Errorf("the same key: %v", err)
	}
	wish, err := r.Emergency(RSA2048, 1, FateDrain, someTime) // its standby is not ready
	if err != nil || len(wish.Urgent) != 1 {
		t.Fatalf("%+v, %v", wish.Urgent, err)
	}
	if _, err := wish.Bring(&brought, someTime); err == nil || !strings.Contains(err.Error(), "emergency") {
		t.Errorf("in place of the standby that an emergency waits for: %v", err)
	}
	for mode, most := range map[RingMode]int{Minted: maxPublicOnly, Slots: 1} {
		full, err := Start(mode, 0, someTime, []Material{testMaterial(1, RSA2048, map[RingMode]string{Minted: "s1"}[mode])}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range most + 1 {
			m := public("")
			if m.Payload += string(rune('a' + i)); mode == Minted {
				m.Selector = "p" + string(rune('a'+i))
			}
			next, err := full.Bring(m, late)
			if (err == nil) != (i < most) {
				t.Fatalf("%s: public-only key %d: %v", mode, i+1, err)
			}
			if err == nil {
				full = next
			}
		}
	}
}

// Who asks for a key that signs no more has an old signature: that, and nothing
// else, is counted.
func TestOnlyKeysThatSignNoMoreAreWatched(t *testing.T) {
	late := int64(someTime + 10_000)
	r := stepped(t, readyPair(t, Slots), late, Step{Kind: StepActivate, Key: 2})
	watched := func(r Ring) (selectors string) {
		for _, record := range r.Records([]Algorithm{RSA2048}) {
			if record.Watched {
				selectors += record.Selector + " "
			}
		}
		return selectors
	}
	if got := watched(readyPair(t, Slots)); got != "" {
		t.Errorf("an active key, a standby and an empty slot: %sis watched", got)
	}
	if got := watched(r); got != "k1 " {
		t.Errorf("a draining key: %q", got)
	}
	if r, err := r.Revoke(1, late); err != nil || watched(r) != "k1 " {
		t.Errorf("a revoked key: %q, %v", watched(r), err)
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
	for mode, freed := range map[RingMode]map[string]int64{Minted: nil, Slots: {"k2": someTime + 900, "k3": someTime + 700}} {
		r, err := Start(mode, 0, someTime, []Material{testMaterial(1, RSA2048, map[RingMode]string{Minted: "s1"}[mode])}, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Freed = freed
		said := r.Outlook(RSA2048, someTime, DefaultPolicy())
		_, due, ok := r.Next(DefaultPolicy())
		m := testMaterial(2, RSA2048, map[RingMode]string{Minted: "s2"}[mode])
		if !ok {
			t.Fatalf("%s: nothing is planned", mode)
		}
		if r, err = r.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, due, DefaultPolicy(), &m); err != nil {
			t.Fatal(err)
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
