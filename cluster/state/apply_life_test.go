package state

import (
	"fmt"
	"testing"
	"time"

	"authd/keys"
	"authd/zone"
)

// leaving has a claim that was proven and leaves.
func leaving(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.prove(w.claim(1, "send.customer.test", "acme"))
	w.must(LeaveDomain{Token: tok(1)})
	return w
}

func TestLeavingIsNotInstantAndRestoreRevivesTheToken(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(ProveDomain{Token: tok(1), Seen: []Token{tok(1)}})
	before := w.domain(tok(1))
	w.later(100 * day)
	w.must(LeaveDomain{Token: tok(1)})
	d := w.domain(tok(1))
	if d.State != Leaving || d.GoneAt != w.at+14*day {
		t.Fatalf("%+v", d)
	}
	if int32(d.Serial-before.Serial) <= 0 {
		t.Errorf("serial went from %d to %d", before.Serial, d.Serial)
	}
	if _, ok := w.m.SignerFor(name("send.customer.test"), ""); ok {
		t.Error("a leaving domain signs")
	}
	if _, ok := w.served(tok(1), "bounce.send.customer.test", zone.TypeMX); !ok {
		t.Error("the bounce MX of a leaving domain is gone")
	}
	if r := w.must(LeaveDomain{Token: tok(1)}); r.Changed {
		t.Error("leaving twice changed something")
	}
	w.refuse(ExpireDomain{tok(1)}, TooEarly, "domain")
	w.later(3 * day)
	w.must(RestoreDomain{Token: tok(1)})
	d = w.domain(tok(1))
	if d.State != Live || d.ProvenAt != start || d.GoneAt != 0 || d.LeavingAt != 0 {
		t.Fatalf("restored as %+v", d)
	}
	if k, ok := d.Ring().Active(keys.RSA2048); !ok || k.Selector != "2601-aaaaaa" {
		t.Errorf("the key that signs again is %v", k.Selector)
	}
	if r := w.must(RestoreDomain{Token: tok(1)}); r.Changed {
		t.Error("restoring twice changed something")
	}
	w.refuse(ExpireDomain{tok(1)}, Stale, "domain")
}

func TestRestoreAfterTheKeysAreGoneNeedsNewOnes(t *testing.T) {
	w := leaving(t)
	w.later(9 * day)
	w.runDue()
	w.refuse(RestoreDomain{Token: tok(1)}, Invalid, "keys", "rsa2048")
	m := material(3, "2601-cccccc", "CCCC")
	w.must(RestoreDomain{Token: tok(1), Active: []keys.Material{m}})
	if k, ok := w.domain(tok(1)).Ring().Active(keys.RSA2048); !ok || k.Payload != m.Payload {
		t.Errorf("active is %+v", k)
	}
}

func TestGoneIsForEver(t *testing.T) {
	w := leaving(t)
	w.later(14 * day)
	w.runDue()
	if _, ok := w.m.Domain(tok(1)); ok || !w.m.Tombstoned(tok(1)) || len(w.m.Claims(name("send.customer.test"))) != 0 {
		t.Fatal("the claim is still there or has no tombstone")
	}
	w.refuse(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"), Conflict, "token", "never")
	w.refuse(RestoreDomain{Token: tok(1)}, NotFound, "domain", "ended")
	if r := w.must(ExpireDomain{tok(1)}); r.Changed {
		t.Error("ending twice changed something")
	}
	if tasks := w.m.Due(10, w.at+1000*day); len(tasks) != 0 {
		t.Errorf("the queue still holds %v", tasks)
	}
	w.must(claimOf(tok(2), "send.customer.test", zone.Delegated, "zeta"))
}

func TestPendingClaimExpires(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.later(14*day - 1)
	w.refuse(ExpireDomain{tok(1)}, TooEarly, "domain")
	w.later(1)
	tasks := w.m.Due(10, w.at)
	if len(tasks) != 1 || !tasks[0].Expire || tasks[0].Token != tok(1) {
		t.Fatalf("due are %+v", tasks)
	}
	w.must(ExpireDomain{tok(1)})
	if !w.m.Tombstoned(tok(1)) {
		t.Error("no tombstone")
	}
}

func TestEndingAtOnceNeedsAReason(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	w.refuse(LeaveDomain{Token: tok(1), Now: true}, Invalid, "reason")
	w.who.Reason = "fraud"
	w.must(LeaveDomain{Token: tok(1), Now: true})
	if r := w.must(LeaveDomain{Token: tok(1), Now: true}); r.Changed {
		t.Error("ending twice changed something")
	}
	w.refuse(LeaveDomain{Token: tok(7)}, NotFound, "domain", tok(7).String())
}

// A domain that leaves is gone at its time, also where its keys have steps that
// would come later; and never before its last signature is past its floor.
func TestLeavingDomainIsGoneInTime(t *testing.T) {
	w := newWorld(t)
	slow := spec()
	slow.Policy.SignerHold, slow.Policy.DrainFloor, slow.Policy.Drain = 7*24*time.Hour, 20*24*time.Hour, 21*24*time.Hour
	w.must(PutPool{ID: "slow", Spec: slow})
	for n, pool := range []string{"default", "slow"} {
		c := claimOf(tok(uint64(n+1)), fmt.Sprintf("send.customer%d.example", n+1), zone.Delegated, "acme")
		c.Pool = pool
		w.must(c)
		w.must(LeaveDomain{Token: c.Token})
	}
	left := w.at
	if first, second := w.domain(tok(1)).GoneAt, w.domain(tok(2)).GoneAt; first != left+leavingFor || second != left+27*day {
		t.Errorf("gone after %d and %d s", first-left, second-left)
	}
	w.at = left + leavingFor - 1
	w.runDue() // its key is revoked, and would be removed a month later
	w.refuse(ExpireDomain{tok(1)}, TooEarly, "domain")
	w.later(1)
	w.runDue()
	if _, ok := w.m.Domain(tok(1)); ok {
		t.Error("it is there after its time")
	}
	w.at = left + 27*day
	w.runDue()
	if _, ok := w.m.Domain(tok(2)); ok {
		t.Error("the second is there after its time")
	}
}
