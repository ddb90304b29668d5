package state

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"authd/keys"
	"authd/zone"
)

// succeed is what takes the place of now where a backup began to when it was from.
func succeed(t failer, backup, from, now Machine) Machine {
	t.Helper()
	s, err := LoadSuccession(bytes.NewReader(image(t, backup)), from, now.Time(), true)
	if err != nil {
		t.Fatalf("the backup does not load: %v", err)
	}
	next, tree := s.Succeed(now)
	if diff := tree.Diff(next.Tree()); diff != nil {
		t.Fatalf("its index is another's: %v", diff)
	}
	if next.Sum() != next.Recount(nil) {
		t.Fatalf("its sum does not follow")
	}
	checkMachine(t, next)
	return next
}

// Whatever happens between the beginning of a restore and its end, nothing goes back, and
// what comes of it is no less careful than a restore that began at its end.
func TestSuccessionPassesWhatCameSinceItBegan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		run := newRun(t)
		batches := func() Machine {
			for range rapid.IntRange(0, 5).Draw(t, "batches") {
				run.batch()
			}
			return run.machines[0]
		}
		batches()
		backup := batches()
		if rapid.Bool().Draw(t, "another cluster's") {
			run = newRun(t)
		}
		from := batches()
		now := batches()
		next, atOnce := succeed(t, backup, from, now), succeed(t, backup, now, now)
		checkPassed(t, next, now)
		for d := range atOnce.Domains(Token{}) {
			got, ok := next.Domain(d.Token)
			if !ok || got.Name != d.Name || got.Serial != d.Serial {
				t.Fatalf("claim %s is %+v, and %+v where all was done at the end", d.Token, got, d)
			}
			checkAsCareful(t, got.Ring(), d.Ring())
		}
		if next.DomainCount() != atOnce.DomainCount() || next.Epoch() != now.Epoch() {
			t.Fatalf("%d claims, epoch %d", next.DomainCount(), next.Epoch())
		}
	})
}

// checkPassed holds a machine to what one that it takes the place of has shown.
func checkPassed(t failer, next, now Machine) {
	t.Helper()
	is, was := next.tables(), now.tables()
	for d := range now.Domains(Token{}) {
		for _, own := range is.claimsTo(d.Name) {
			if d.Mode == zone.Delegated && own.Mode == zone.Delegated && int32(is.zoneSerial(own)-was.zoneSerial(d)) <= 0 {
				t.Fatalf("%s showed %d and shows %d", d.Name, was.zoneSerial(d), is.zoneSerial(own))
			}
		}
	}
	for p := range now.Platforms() {
		if own, ok := is.platformAt(p.Apex); ok && int32(own.Serial-p.Serial) <= 0 {
			t.Fatalf("%s showed %d and shows %d", p.Apex, p.Serial, own.Serial)
		}
	}
	was.gone.each(func(v [16]byte) bool {
		if _, back := next.Domain(Token(v)); !back && !next.Tombstoned(Token(v)) {
			t.Fatalf("token %s is free again", Token(v))
		}
		return true
	})
	held := is.boundHashes()
	was.goneBound.each(func(v [16]byte) bool {
		if !held[v] && !is.goneBound.has(v) {
			t.Fatalf("a name that was bound is free again")
		}
		return true
	})
	for _, own := range is.pools.values() {
		if p, ok := now.Pool(own.ID); ok && own.Policy.Hold(now.Time()) < p.Policy.Hold(now.Time()) {
			t.Fatalf("pool %s: signers were told longer", own.ID)
		}
	}
}

// checkAsCareful holds a ring to another: keys are ready no sooner, slots free no sooner.
func checkAsCareful(t failer, ring, other keys.Ring) {
	t.Helper()
	for slot, until := range other.Freed {
		if ring.Freed[slot] < until {
			t.Fatalf("slot %s is free at %d, not at %d", slot, ring.Freed[slot], until)
		}
	}
	for i := range other.Keys {
		k := &other.Keys[i]
		got, ok := ring.ByID(k.ID)
		if !ok || got.Stage != k.Stage || got.Selector != k.Selector || got.ConfirmedAt != 0 && got.ConfirmedAt != k.ConfirmedAt || got.Gap < k.Gap || got.HeldBefore < k.HeldBefore {
			t.Fatalf("key %d is %+v, not %+v", k.ID, got, k)
		}
	}
}

// What was given up after a backup was made is not anybody's when it is restored,
// but what the backup has belongs to whom it belonged.
func TestWhatWasGivenUpSinceABackupStaysBurned(t *testing.T) {
	w := newWorld(t)
	bound := func(n uint64, domain, label string) AddDomain {
		c := claimOf(tok(n), domain, zone.CNAME, "acme")
		c.Name, c.Registrable = name(domain), name(domain)
		c.Bound = BoundTargets{Bounce: name(label + ".p-dns.test")}
		return c
	}
	w.must(bound(1, "first.test", "one"))
	backup := w.m
	w.must(bound(2, "second.test", "two"))
	w.who.Reason = "test"
	for n := range uint64(2) {
		w.must(LeaveDomain{Token: tok(n + 1), Now: true})
	}
	if !w.m.Tombstoned(tok(1)) || !w.m.Tombstoned(tok(2)) {
		t.Fatal("nothing was given up")
	}
	// As it is restored: by its image.
	w.m = succeed(t, backup, w.m, w.m)
	if _, ok := w.m.Domain(tok(1)); !ok || w.m.Tombstoned(tok(1)) {
		t.Error("the claim of the backup did not come back")
	}
	w.checkIndexes()
	w.refuse(bound(2, "third.test", "three"), Conflict, "token")
	w.refuse(bound(3, "third.test", "two"), Conflict, "targets.bounce", "ended")
	w.refuse(bound(3, "third.test", "one"), Conflict, "targets.bounce", tok(1).String())
	w.must(bound(3, "third.test", "three"))
	if w.m.Sum() != w.m.Recount(nil) {
		t.Error("the sum does not follow")
	}
}

// A backup's standby may sign only once every node answers it again: what they answered
// meanwhile, nothing or another key, caches may hold.
func TestStandbyOfABackupIsConfirmedAnewWhereItWasNotServedMeanwhile(t *testing.T) {
	w := newWorld(t)
	modes := []zone.Mode{zone.Delegated, zone.CNAME, zone.Delegated}
	for i, mode := range modes {
		token := tok(uint64(i + 1))
		w.must(claimOf(token, []string{"send.one.test", "two.test", "send.three.test"}[i], mode, "acme"))
		w.must(StepKey{Token: token, Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
	}
	backup := w.m
	w.later(3600)
	w.must(RevokeKey{Token: tok(1), Selector: "2601-bbbbbb"})
	brought := material(3, "k2", "CCCC")
	brought.Imported = true
	w.must(BringKey{Token: tok(2), Material: brought})
	w.later(60)
	w.m = succeed(t, backup, w.m, w.m)
	confirmed, _ := w.domain(tok(3)).Ring().ByID(2)
	if confirmed.ConfirmedAt == 0 {
		t.Error("the standby that was served all the while is asked for again")
	}
	w.must(ReplaceKey{Token: tok(3), Algorithm: keys.RSA2048, Old: keys.FateDrain})
	for i, gap := range []int64{keys.GapMinted, keys.TTLLong + keys.TTLStretch} {
		token := tok(uint64(i + 1))
		confirm := StepKey{Token: token, Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}}
		activate := StepKey{Token: token, Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true}
		w.refuse(activate, TooEarly, "key", "not every serving node has confirmed")
		w.must(confirm)
		if r := w.refuse(activate, TooEarly, "key"); r.At != w.at+gap {
			t.Errorf("claim %d: ready %d s after its confirmation, want %d", i+1, r.At-w.at, gap)
		}
		w.later(gap)
		w.must(activate)
	}
	w.checkIndexes()
	if w.m.Sum() != w.m.Recount(nil) {
		t.Error("the sum does not follow")
	}
}

// A restored backup shows no serial again, also where nothing was shown since.
func TestRestoredBackupGoesOnPastEverySerial(t *testing.T) {
	for _, changes := range []int{0, 1, 5} {
		w := newWorld(t)
		delegated := w.claim(1, "send.customer1.example", "acme")
		w.prove(delegated)
		w.must(claimOf(tok(2), "customer2.example", zone.CNAME, "acme"))
		backup := w.m
		for n := range changes {
			w.must(PutDomainRecord{Token: delegated, Set: rrset(fmt.Sprintf("x%d.send.customer1.example", n), zone.TypeA, 300, "192.0.2.1")})
			w.must(PutRecord{Apex: name("p-dns.test"), Set: rrset(fmt.Sprintf("x%d.p-dns.test", n), zone.TypeA, 300, "192.0.2.1")})
		}
		from := w.m
		for n := range changes {
			pool := spec()
			pool.SPF = []string{fmt.Sprintf("ip4:198.51.100.%d", n)}
			w.must(PutPool{"default", pool})
		}
		now := w.m.NextEpoch()
		shown, next := now.tables(), succeed(t, backup, from, now)
		is := next.tables()
		d, _ := next.Domain(delegated)
		before, _ := w.m.Domain(delegated)
		if got, was := is.zoneSerial(d), shown.zoneSerial(before); int32(got-was) <= 0 {
			t.Errorf("%d changes: the zone showed %d and shows %d", changes, was, got)
		}
		got, _ := is.platformAt(name("p-dns.test"))
		was, _ := shown.platformAt(name("p-dns.test"))
		if int32(got.Serial-was.Serial) <= 0 {
			t.Errorf("%d changes: the platform zone showed %d and shows %d", changes, was.Serial, got.Serial)
		}
		if next.Epoch() != backup.Epoch()+1 {
			t.Errorf("epoch %d is the backup's, not the cluster's", next.Epoch())
		}
		// And answers with it, as one that reads it from an image does.
		again, err := ReadImage(bytes.NewReader(image(t, next)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := filled(next).Diff(filled(again)); diff != nil {
			t.Errorf("%d changes: it answers otherwise than its image: %v", changes, diff)
		}
		if next.Sum() != again.Sum() || next.Sum() != next.Recount(nil) {
			t.Error("its sum is not that of its image")
		}
	}
}

// A proposal may wait while a backup takes the place of what was asked about: what all
// nodes confirmed is not confirmed of another key with the same number.
func TestConfirmationOfAKeyIsOfNoOtherThatABackupHas(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(RevokeKey{Token: tok(1), Selector: "2601-bbbbbb"})
	begun := w.m
	standby := func() StepKey {
		w.t.Helper()
		w.later(60)
		w.must(w.stepOf(w.publishing(tok(1))))
		return w.stepOf(w.m.Due(1, w.at)[0])
	}
	standby()
	backup := w.m
	w.m = begun // as a restore of an older one left it
	confirm := standby()
	if confirm.Step.Kind != keys.StepConfirm {
		t.Fatalf("%+v", confirm)
	}
	again := succeed(t, backup, w.m, w.m)
	confirmable := w.m
	w.m = again
	w.refuse(confirm, Stale, "key", "replaced")
	w.m = confirmable
	w.must(confirm)
}

// What signers were told before a restore they go by after it.
func TestFloorsCountWithTheHoldThatWasInForceBeforeARestore(t *testing.T) {
	long, other := spec(), "long"
	long.Policy.SignerHold = 5 * 24 * time.Hour
	for what, longer := range map[string][]Command{
		"of the pool":            {PutPool{"default", long}},
		"of another pool":        {PutPool{other, long}, PatchDomain{Token: tok(1), Pool: &other}},
		"of another pool, since": {PutPool{other, spec()}, PatchDomain{Token: tok(1), Pool: &other}, PutPool{other, long}},
	} {
		w := newWorld(t)
		w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
		w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
		backup := w.m
		var from Machine // before the last of them
		for _, c := range longer {
			from = w.m
			w.must(c)
		}
		w.m = succeed(t, backup, from, w.m)
		told := w.at + 5*day
		w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true})
		w.at = told + 6*day
		revoke := StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepRevoke, Algorithm: keys.RSA2048, Key: 1, Evidence: &keys.Evidence{Complete: true}}, Manual: true}
		if r := w.do(revoke).Refusal; r == nil || r.At != told+7*day {
			t.Errorf("%s: %+v", what, r)
		}
		if w.m.Sum() != w.m.Recount(nil) {
			t.Errorf("%s: the sum does not follow", what)
		}
	}
}
