package state

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"authd/keys"
	"authd/zone"
)

// runDue takes every step that is due, as the rotator would.
func (w *world) runDue() {
	w.t.Helper()
	for range 100 {
		tasks := w.m.Due(1, w.at)
		if len(tasks) == 0 {
			return
		}
		if tasks[0].Expire {
			w.must(ExpireDomain{tasks[0].Token})
			continue
		}
		w.must(w.stepOf(tasks[0]))
	}
	w.t.Fatal("the queue does not get shorter")
}

// stepOf is the command for a task, with key material where it needs some.
func (w *world) stepOf(task Task) StepKey {
	c := StepKey{Token: task.Token, Step: task.Step}
	if c.Step.Kind == keys.StepRevoke {
		c.Step.Evidence = &keys.Evidence{Complete: true}
	}
	if task.Step.Kind == keys.StepPublish {
		ring := w.domain(task.Token).Ring()
		selector := ""
		if ring.Mode == keys.Minted {
			selector = mintSelector(w.at, ring.NextID)
		}
		m := material(ring.NextID, selector, fmt.Sprintf("P%dx%s", ring.NextID, task.Token))
		c.Material = &m
	}
	return c
}

// mintSelector is a selector of the month, as keys.MintSelector draws them.
func mintSelector(at int64, n uint32) string {
	return timeOf(at).Format("0601") + "-" + "aaa" + string([]byte{'a' + byte(n/676%26), 'a' + byte(n/26%26), 'a' + byte(n%26)})
}

func TestRotationTakesItsSteps(t *testing.T) {
	for _, mode := range []zone.Mode{zone.Delegated, zone.CNAME} {
		w := newWorld(t)
		w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
		w.must(claimOf(tok(2), "send.customer.test", zone.Delegated, "acme"))
		w.prove(tok(2))
		token := tok(1)
		if mode == zone.Delegated {
			token = tok(2)
		}
		first, _ := w.domain(token).Ring().Active(keys.RSA2048)
		serial := w.domain(token).Serial
		for range 130 {
			w.later(day)
			w.runDue()
		}
		ring := w.domain(token).Ring()
		second, ok := ring.Active(keys.RSA2048)
		if !ok || second.ID == first.ID {
			t.Fatalf("mode %d: after 130 days %d is active still", mode, second.ID)
		}
		if _, ok := ring.Standby(keys.RSA2048); !ok {
			t.Errorf("mode %d: no standby", mode)
		}
		if int32(w.domain(token).Serial-serial) <= 0 {
			t.Errorf("mode %d: serial went from %d to %d", mode, serial, w.domain(token).Serial)
		}
		w.checkIndexes()
	}
}

func TestManualRotationNeedsAReadyStandby(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.prove(tok(1))
	activate := StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, From: "2601-aaaaaa", Manual: true}
	scheduled := activate
	scheduled.Manual = false
	w.refuse(activate, TooEarly, "key", "confirmed")
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
	r := w.refuse(scheduled, TooEarly, "key")
	if r.At <= w.at {
		t.Errorf("too early, but for %d at %d", r.At, w.at)
	}
	w.must(activate)
	if k, _ := w.domain(tok(1)).Ring().Active(keys.RSA2048); k.ID != 2 {
		t.Fatalf("active is %d", k.ID)
	}
	if r := w.must(activate); r.Changed {
		t.Error("asking twice rotated twice")
	}
	stalePublish := StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}, From: "2601-aaaaaa", Manual: true}
	m := material(3, "2601-cccccc", "CCCC")
	stalePublish.Material = &m
	w.refuse(stalePublish, Stale, "from", "2601-bbbbbb")
}

func TestRevocationRestsOnEvidence(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, From: "2601-aaaaaa", Manual: true})
	revoke := func(e *keys.Evidence) StepKey {
		return StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepRevoke, Algorithm: keys.RSA2048, Key: 1, Evidence: e}}
	}
	silent := &keys.Evidence{Complete: true}
	w.later(7 * day)
	w.refuse(revoke(silent), TooEarly, "key")
	early := revoke(silent)
	early.Manual = true
	w.refuse(early, TooEarly, "key") // whoever proposes it, the floor stays
	w.later(4 * day)
	w.refuse(revoke(nil), TooEarly, "key", "not every serving node")
	w.refuse(revoke(&keys.Evidence{AskedAt: w.at}), TooEarly, "key", "not every serving node")
	serial := w.domain(tok(1)).Serial
	w.must(revoke(&keys.Evidence{Complete: true, AskedAt: w.at - 3600}))
	if k, _ := w.domain(tok(1)).Ring().ByID(1); k.Stage != keys.Draining || k.HeldUntil != w.at-3600+2*day {
		t.Errorf("put off: %+v", k)
	}
	if now := w.domain(tok(1)).Serial; now != serial {
		t.Error("a revocation put off raised the serial, though nothing is answered otherwise")
	}
	w.refuse(revoke(silent), TooEarly, "key")
	w.later(2 * day)
	w.must(revoke(silent))
	if k, _ := w.domain(tok(1)).Ring().ByID(1); k.Stage != keys.Revoked {
		t.Errorf("asked no more: %+v", k)
	}
}

func TestStepsThatDoNotFitAreRefused(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	m := material(3, "2601-cccccc", "CCCC")
	step := func(kind keys.StepKind, key uint32) StepKey {
		return StepKey{Token: tok(1), Step: keys.Step{Kind: kind, Algorithm: keys.RSA2048, Key: key}}
	}
	publish := step(keys.StepPublish, 0)
	publish.Material = &m
	w.refuse(publish, Stale, "key", "standby")
	w.refuse(step(keys.StepRevoke, 1), Stale, "key", "do not wait")
	w.refuse(step(keys.StepRemove, 9), NotFound, "key", "no key 9")
	w.refuse(step(keys.StepConfirm, 0), NotFound, "key")
	manual := step(keys.StepRevoke, 1)
	manual.Manual = true
	w.refuse(manual, Invalid, "key", "not draining")
	w.refuse(StepKey{Token: tok(5)}, NotFound, "domain")
	w.must(step(keys.StepConfirm, 2))
	if r := w.must(step(keys.StepConfirm, 2)); r.Changed {
		t.Error("confirming twice changed something")
	}
}

func TestRevoking(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.prove(tok(1))
	w.refuse(RevokeKey{Token: tok(1), Selector: "nope"}, NotFound, "selector", "nope")
	w.refuse(RevokeKey{Token: tok(1), Selector: "2601-aaaaaa"}, TooEarly, "selector")
	w.must(RevokeKey{Token: tok(1), Selector: "2601-aaaaaa", Force: true})
	s, ok := w.served(tok(1), "2601-aaaaaa._domainkey.send.customer.test", zone.TypeTXT)
	if !ok || s.Values()[0] != `"v=DKIM1; k=rsa; p="` || s.TTL != zone.TTLKeyShort {
		t.Errorf("the revoked key answers %v", s)
	}
	if k, _ := w.domain(tok(1)).Ring().Active(keys.RSA2048); k.ID != 2 {
		t.Errorf("active is %d", k.ID)
	}
	if r := w.must(RevokeKey{Token: tok(1), Selector: "2601-aaaaaa"}); r.Changed {
		t.Error("revoking twice changed something")
	}
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "zeta"))
	w.must(claimOf(tok(3), "customer.test", zone.CNAME, "acme"))
	w.must(RevokeKey{Token: tok(3), Selector: "t2-k2"}) // the name that signers and receivers know
	if k, _ := w.domain(tok(3)).Ring().BySelector("k2"); k.Stage != keys.Revoked {
		t.Errorf("k2 is %s", k.Stage)
	}
}

func TestImportedKeyBelongsToOneTenant(t *testing.T) {
	w := newWorld(t)
	bring := func(n uint64, domain, tenant string) AddDomain {
		c := claimOf(tok(n), domain, zone.Delegated, tenant)
		c.Active[0].Imported, c.Active[0].Payload = true, "v=DKIM1; k=rsa; p=SHARED"
		return c
	}
	w.must(bring(1, "a.customer.test", "acme"))
	w.must(bring(2, "b.customer.test", "acme")) // a tenant may use one key for many
	r := w.refuse(bring(3, "c.customer.test", "zeta"), Conflict, "keys", "another tenant")
	if len(r.Conflicts) != 1 {
		t.Errorf("conflicts are %v", r.Conflicts)
	}
	w.who.Reason = "test"
	w.must(LeaveDomain{Token: tok(1), Now: true})
	w.refuse(bring(3, "c.customer.test", "zeta"), Conflict, "keys")
	w.must(LeaveDomain{Token: tok(2), Now: true})
	w.must(bring(3, "c.customer.test", "zeta"))
}

func TestTwoAlgorithmsHaveASetOfSlotsEach(t *testing.T) {
	w := newWorld(t)
	p := spec()
	p.Policy.Algorithms = []keys.Algorithm{keys.RSA2048, keys.Ed25519}
	w.must(PutPool{"both", p})
	c := claimOf(tok(1), "customer.test", zone.CNAME, "acme")
	c.Pool = "both"
	w.refuse(c, Invalid, "keys", "ed25519")
	ed := keys.Material{Algorithm: keys.Ed25519, ID: 2, Payload: "v=DKIM1; k=ed25519; p=EEEE", Sealed: []byte("sealed")}
	c.Active = append(c.Active, ed)
	c.Standby[0].ID = 3
	w.must(c)
	d := w.domain(tok(1))
	if len(d.Targets.Keys) != 6 || d.Targets.Keys[3].Name != name("ke1."+tok(1).String()+".dkim.p-dns.test") {
		t.Fatalf("targets %v", d.Targets.Keys)
	}
	if s, ok := w.served(tok(1), "ke1."+tok(1).String()+".dkim.p-dns.test", zone.TypeTXT); !ok || s.Values()[0] != `"`+ed.Payload+`"` {
		t.Errorf("ke1 answers %v", s)
	}
	if s, ok := w.served(tok(1), "ke3."+tok(1).String()+".dkim.p-dns.test", zone.TypeTXT); !ok || s.Values()[0] != `"v=DKIM1; k=ed25519; p="` {
		t.Errorf("ke3 answers %v", s)
	}
	// The pool's algorithms count for new claims: slots were fixed with this one.
	w.must(PutPool{"both", spec()})
	if got := w.domain(tok(1)).Algorithms; len(got) != 2 {
		t.Errorf("algorithms are %v", got)
	}
}

func TestPolicyOfThePoolReachesItsDomains(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.prove(tok(1))
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
	slow := w.domain(tok(1)).DueAt
	p := spec()
	p.Policy.Period /= 2
	w.must(PutPool{"default", p})
	if !w.m.Rescheduling() {
		t.Fatal("a new pace does not ask for rescheduling")
	}
	for w.m.Rescheduling() {
		w.must(Reschedule{})
	}
	fast := w.domain(tok(1)).DueAt
	if fast >= slow-30*day {
		t.Errorf("due at %d, with twice the period at %d", fast, slow)
	}
	if r := w.must(Reschedule{}); r.Changed {
		t.Error("rescheduling with nothing to do changed something")
	}
	// A slower pace needs no sweep to be right: the step is refused when it comes.
	w.must(PutPool{"default", spec()})
	w.at = fast
	tasks := w.m.Due(10, w.at)
	if len(tasks) != 1 {
		t.Fatalf("due are %v", tasks)
	}
	before := w.m
	next, results, _ := before.Apply(w.index+1, []Entry{{At: w.at, Command: w.stepOf(tasks[0])}})
	if results[0].Refusal == nil || results[0].Refusal.Kind != TooEarly {
		t.Fatalf("%s", results[0].text())
	}
	if d, _ := next.Domain(tok(1)); d.DueAt != slow {
		t.Errorf("due at %d, want %d", d.DueAt, slow)
	}
}

// TestFloorsCountWithTheHoldThatSignersWereTold, whatever the pool says by now, and in
// whichever pool the domain is.
func TestFloorsCountWithTheHoldThatSignersWereTold(t *testing.T) {
	short := spec()
	short.Policy.SignerHold = time.Hour
	long := spec()
	long.Policy.SignerHold = 5 * 24 * time.Hour
	other := "short"
	for what, c := range map[string]struct {
		shorten Command
		before  bool // the key drains before that
		leaves  bool
	}{
		"lowered while it drains":  {PutPool{"default", short}, true, false},
		"lowered before it drains": {PutPool{"default", short}, false, false},
		"lowered before it leaves": {PutPool{"default", short}, false, true},
		"moved while it drains":    {PatchDomain{Token: tok(1), Pool: &other}, true, false},
		"moved before it drains":   {PatchDomain{Token: tok(1), Pool: &other}, false, false},
		"moved before it leaves":   {PatchDomain{Token: tok(1), Pool: &other}, false, true},
	} {
		w := newWorld(t)
		w.must(PutPool{"default", long})
		w.must(PutPool{other, short})
		w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
		w.prove(tok(1))
		w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
		drain := Command(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true})
		if c.leaves {
			drain = LeaveDomain{Token: tok(1)}
		}
		told := w.at + 5*day // what is fetched now is used until then
		if c.before {
			w.must(drain)
			w.must(c.shorten)
		} else {
			w.must(c.shorten)
			w.later(2 * day)
			w.must(drain)
		}
		again, err := ReadImage(bytes.NewReader(image(t, w.m)))
		if err != nil {
			t.Fatal(err)
		}
		w.m = again
		w.at = told + 6*day
		revoke := StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepRevoke, Algorithm: keys.RSA2048, Key: 1, Evidence: &keys.Evidence{Complete: true}}, Manual: true}
		if r := w.do(revoke).Refusal; r == nil || r.At != told+7*day {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

func TestDueListsAreBoundedAndGoOn(t *testing.T) {
	w := newWorld(t)
	for n := range uint64(7) {
		w.must(claimOf(tok(n+1), fmt.Sprintf("c%d.test", n), zone.CNAME, "acme"))
	}
	seen := make(map[Token]bool)
	var last Task
	for range 10 {
		tasks := w.m.DueAfter(last, 2, w.at)
		if len(tasks) == 0 {
			break
		}
		if len(tasks) > 2 {
			t.Fatalf("%d tasks", len(tasks))
		}
		for _, task := range tasks {
			if seen[task.Token] || task.Step.Kind != keys.StepConfirm {
				t.Errorf("task %+v", task)
			}
			seen[task.Token] = true
		}
		last = tasks[len(tasks)-1]
	}
	if len(seen) != 7 {
		t.Errorf("%d of 7 claims were listed", len(seen))
	}
	if got := w.m.Due(100, start-1); len(got) != 0 {
		t.Errorf("%d tasks are due before their time", len(got))
	}
}

func timeOf(at int64) time.Time { return time.Unix(at, 0).UTC() }

// A step that is refused for what its key is leaves no trace either, also where
// names of the claim are in platform zones, which count their changes.
func TestRefusedStepDoesNotCountAsAChange(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer1.example", zone.CNAME, "acme"))
	c := claimOf(tok(2), "customer2.example", zone.CNAME, "zeta")
	c.Standby = nil
	w.must(c)
	m := material(2, "", "AAAA"+tok(1).String())
	w.refuse(StepKey{Token: tok(2), Step: keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}, Material: &m}, Conflict, "keys", "another tenant's")
	m.Payload = "v=DKIM1; k=rsa; p=\x01"
	w.refuse(StepKey{Token: tok(2), Step: keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}, Material: &m}, Invalid, "keys", "printable")
}

// What the rotator may do it may do at its second, and not one before.
func TestScheduledStepsAreTakenAtTheirSecond(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer1.example", zone.Delegated, "acme"))
	w.runDue() // the standby is confirmed
	_, due, ok := w.domain(tok(1)).Ring().Next(keys.DefaultPolicy())
	if !ok || due <= w.at {
		t.Fatalf("nothing is planned: %d", due)
	}
	task := Task{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}}
	w.at = due - 1
	w.refuse(w.stepOf(task), TooEarly, "key", "not due")
	w.at = due
	w.must(w.stepOf(task))
}

// A suspended tenant's domain is not rotated by hand; a leaked key is replaced.
func TestSuspendedTenantsDomainIsNotRotatedByHand(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer1.example", zone.Delegated, "acme"))
	w.runDue()
	w.must(SuspendTenant{ID: "acme", Suspended: true})
	step := StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true}
	w.refuse(step, Conflict, "domain", "suspended")
	w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, Old: keys.FateDrain})
	if active, _ := w.domain(tok(1)).Ring().Active(keys.RSA2048); active.ID != 2 {
		t.Errorf("key %d signs", active.ID)
	}
}
