package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"authd/zone"
)

func (w *world) claim(n uint64, domain, tenant string) Token {
	w.t.Helper()
	w.must(claimOf(tok(n), domain, zone.Delegated, tenant))
	return tok(n)
}

func (w *world) prove(t Token) {
	w.t.Helper()
	w.must(ProveDomain{Token: t, Seen: []Token{t}})
}

// fill gives a claim records that cost something to decode.
func (w *world) fill(t Token) {
	w.t.Helper()
	c := SetDomainRecords{Token: t}
	for n := range 200 {
		c.Sets = append(c.Sets, rrset(fmt.Sprintf("n%d.%s", n, w.domain(t).Name.Host()), zone.TypeA, 300, "192.0.2.1"))
	}
	slices.SortFunc(c.Sets, compareRecords)
	w.must(c)
}

func TestPendingClaimsExcludeNobody(t *testing.T) {
	w := newWorld(t)
	a, b := w.claim(1, "send.customer.test", "acme"), w.claim(2, "send.customer.test", "zeta")
	if n := len(w.m.Claims(name("send.customer.test"))); n != 2 {
		t.Fatalf("%d claims", n)
	}
	w.prove(b)
	if w.domain(a).State != Pending || w.domain(b).State != Live {
		t.Error("the wrong one is proven")
	}
}

func TestParentNamingTwoClaimsProvesNeither(t *testing.T) {
	w := newWorld(t)
	a, b := w.claim(1, "send.customer.test", "acme"), w.claim(2, "send.customer.test", "zeta")
	r := w.refuse(ProveDomain{Token: a, Seen: []Token{b, a}}, Conflict, "domain", "two claims")
	if !slices.Equal(r.Conflicts, []Token{b}) {
		t.Errorf("conflicts are %v", r.Conflicts)
	}
	w.refuse(ProveDomain{Token: a, Seen: []Token{b}}, Invalid, "domain", a.String())
	w.refuse(ProveDomain{Token: a}, Invalid, "domain")
	// A token of nobody, or of a claim to another name, is no second claim.
	c := w.claim(3, "other.customer.test", "zeta")
	w.must(ProveDomain{Token: a, Seen: []Token{a, c, tok(99)}})
}

// Tenants read the refusal: it does not say whose the other claim is.
func TestRefusedProofNamesNoOtherTenant(t *testing.T) {
	w := newWorld(t)
	w.prove(w.claim(1, "x.customer.test", "acme"))
	within := w.claim(2, "send.x.customer.test", "zeta")
	w.prove(w.claim(3, "send.x.other.test", "acme"))
	above := w.claim(4, "x.other.test", "zeta")
	for _, token := range []Token{within, above} {
		if r := w.refuse(ProveDomain{Token: token, Seen: []Token{token}}, Conflict, "domain"); strings.Contains(r.Message, "acme") {
			t.Errorf("refused with %q", r.Message)
		}
	}
}

func TestOwnershipMovesWithTheParent(t *testing.T) {
	w := newWorld(t)
	a := w.claim(1, "send.customer.test", "acme")
	w.prove(a)
	for range 3 {
		w.must(PutDomainRecord{Token: a, Set: rrset("x.send.customer.test", zone.TypeA, uint32(300+w.index), "192.0.2.1")})
	}
	was := w.m.tables().zoneSerial(w.domain(a))
	b := w.claim(2, "send.customer.test", "zeta")
	w.refuse(ProveDomain{Token: b, Seen: []Token{a, b}}, Conflict, "domain")
	w.later(5)
	w.prove(b)
	if d := w.domain(a); d.State != Pending || d.ProvenAt != 0 || d.GoneAt != w.at+14*day {
		t.Errorf("the loser is %+v", d)
	}
	if _, ok := w.served(a, "send.customer.test", zone.TypeMX); ok {
		t.Error("the loser still answers the zone")
	}
	if _, ok := w.served(b, "send.customer.test", zone.TypeMX); !ok {
		t.Error("the winner does not answer the zone")
	}
	if now := w.m.tables().zoneSerial(w.domain(b)); int32(now-was) <= 0 {
		t.Errorf("the zone's serial went from %d to %d", was, now)
	}
	w.prove(a) // and back
	if w.domain(b).State != Pending {
		t.Error("it did not move back")
	}
}

func TestLeavingOwnerLosesTheNameToTheParentsWord(t *testing.T) {
	w := newWorld(t)
	a := w.claim(1, "send.customer.test", "acme")
	w.prove(a)
	w.must(LeaveDomain{Token: a})
	b := w.claim(2, "send.customer.test", "zeta")
	w.prove(b)
	if d := w.domain(a); d.State != Leaving || d.ProvenAt != 0 || d.GoneAt != start+14*day {
		t.Errorf("the loser is %+v", d)
	}
	w.must(RestoreDomain{Token: a})
	if d := w.domain(a); d.State != Pending || d.GoneAt != start+14*day {
		t.Errorf("restored as %+v: want pending, as another owns the name", d)
	}
	w.checkIndexes()
}

func TestNoOtherTenantWithinOrAboveAProvenZone(t *testing.T) {
	w := newWorld(t)
	middle := w.claim(1, "mail.dept.customer.test", "acme")
	w.prove(middle)
	below, above := w.claim(2, "a.b.mail.dept.customer.test", "zeta"), w.claim(3, "dept.customer.test", "zeta")
	for _, other := range []Token{below, above} {
		r := w.refuse(ProveDomain{Token: other, Seen: []Token{other}}, Conflict, "domain", middle.String())
		if !slices.Equal(r.Conflicts, []Token{middle}) {
			t.Errorf("conflicts are %v", r.Conflicts)
		}
		w.who.Reason = "they said so"
		w.refuse(ProveDomain{Token: other, Attested: true}, Conflict, "domain", middle.String())
	}
	// Neighbours that merely look alike are no conflict.
	for n, domain := range []string{"xmail.dept.customer.test", "mail.dept2.customer.test", "mail-dept.customer.test", "mailx.dept.customer.test"} {
		w.prove(w.claim(10+uint64(n), domain, "zeta"))
	}
	// The tenant's own zones may nest.
	w.prove(w.claim(20, "own.mail.dept.customer.test", "acme"))
	w.prove(w.claim(21, "deep.own.mail.dept.customer.test", "acme"))
	w.refuse(ProveDomain{Token: above, Seen: []Token{above}}, Conflict, "domain")
	w.who.Reason = "test"
	w.must(LeaveDomain{Token: middle, Now: true})
	// Its nested zones still stand.
	w.refuse(ProveDomain{Token: above, Seen: []Token{above}}, Conflict, "domain", tok(20).String())
	w.prove(w.claim(22, "x.mail.dept.customer.test", "zeta"))
}

func TestMovedNameMustNotHoldOthersZones(t *testing.T) {
	w := newWorld(t)
	a := w.claim(1, "send.customer.test", "acme")
	w.prove(a)
	nested := w.claim(2, "x.send.customer.test", "acme")
	w.prove(nested)
	b := w.claim(3, "send.customer.test", "zeta")
	w.refuse(ProveDomain{Token: b, Seen: []Token{b}}, Conflict, "domain", nested.String())
	if w.domain(a).State != Live {
		t.Error("the refused move took the name from its owner")
	}
}

func TestAttesting(t *testing.T) {
	w := newWorld(t)
	a, b := w.claim(1, "send.customer.test", "acme"), w.claim(2, "send.customer.test", "zeta")
	w.refuse(ProveDomain{Token: a, Attested: true}, Invalid, "reason")
	w.who.Reason = "ticket 7"
	w.must(ProveDomain{Token: a, Attested: true})
	if got := w.domain(a).AttestedBy; got != "admin-1: ticket 7" {
		t.Errorf("attested by %q", got)
	}
	r := w.refuse(ProveDomain{Token: b, Attested: true}, Conflict, "domain", a.String())
	if !slices.Equal(r.Conflicts, []Token{a}) {
		t.Errorf("conflicts are %v", r.Conflicts)
	}
	if r := w.must(ProveDomain{Token: a, Attested: true}); r.Changed {
		t.Error("attesting twice changed something")
	}
	w.must(LeaveDomain{Token: b})
	w.refuse(ProveDomain{Token: b, Seen: []Token{b}}, Conflict, "domain", "restore")
}

func TestCNAMEClaimMayLieInAnothersProvenZone(t *testing.T) {
	w := newWorld(t)
	w.prove(w.claim(1, "send.customer.test", "acme"))
	w.must(claimOf(tok(2), "send.customer.test", zone.CNAME, "zeta"))
	w.must(claimOf(tok(3), "x.send.customer.test", zone.CNAME, "zeta"))
	signs := claimOf(tok(4), "elsewhere.test", zone.CNAME, "zeta")
	signs.SignsFor = []zone.Name{name("x.send.customer.test")}
	w.refuse(signs, Conflict, "signs_for[0]", tok(1).String())
}

func TestWithoutVerificationClaimsAreLiveButNotTwice(t *testing.T) {
	w := newWorld(t)
	w.must(SetSettings{Settings{ClusterID: "test", VerificationOff: true}})
	a := w.claim(1, "send.customer.test", "acme")
	if w.domain(a).State != Live {
		t.Error("not live from the start")
	}
	w.refuse(claimOf(tok(2), "send.customer.test", zone.Delegated, "zeta"), Conflict, "domain", a.String())
	w.refuse(claimOf(tok(2), "x.send.customer.test", zone.Delegated, "zeta"), Conflict, "domain", a.String())
	w.must(claimOf(tok(2), "x.send.customer.test", zone.Delegated, "acme"))
	w.refuse(SetSettings{Settings{ClusterID: "other"}}, Conflict, "cluster_id", "for ever")
}

// A tenant that owns a name below may own the name above it, and is held off by
// another tenant's wherever that lies.
func TestOwnershipLooksPastTheTenantsOwnZones(t *testing.T) {
	w := newWorld(t)
	a, z, top := w.claim(1, "a.mail.customer.example", "acme"), w.claim(2, "b.mail.customer.example", "zeta"), w.claim(3, "mail.customer.example", "acme")
	w.prove(a)
	w.prove(z)
	w.refuse(ProveDomain{Token: top, Seen: []Token{top}}, Conflict, "domain", `lies above "b.mail.customer.example"`)
	w.who.Reason = "moved"
	w.must(LeaveDomain{Token: z, Now: true})
	w.prove(top)
}

// A tenant may have thousands of zones below a name, with records in each.
func TestOwnershipCostsTheSameWhateverTheZonesBelowHold(t *testing.T) {
	w := newWorld(t)
	top := w.claim(1, "mail.customer.example", "acme")
	below := w.claim(2, "a.mail.customer.example", "acme")
	w.prove(below)
	cost := func() float64 {
		return testing.AllocsPerRun(10, func() {
			if r := w.m.tables().checkOwnership(w.domain(top), nil); r != nil {
				t.Fatal(r)
			}
		})
	}
	before := cost()
	w.fill(below)
	if after := cost(); after != before {
		t.Errorf("%.0f allocations, %.0f without the records of the zone below", after, before)
	}
}
