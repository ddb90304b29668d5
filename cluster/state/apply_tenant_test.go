package state

import (
	"fmt"
	"strings"
	"testing"

	"authd/zone"
)

// numbered is a claim of acme to a name of its own.
func numbered(n uint64) AddDomain {
	return claimOf(tok(n), fmt.Sprintf("send.customer%d.example", n), zone.CNAME, "acme")
}

// atMost sets the number of domains.
func atMost(tenant string, domains uint32) LimitTenant {
	return LimitTenant{ID: tenant, MaxDomains: &domains}
}

func TestATenantsOwnTokensAddDomainsUpToItsBound(t *testing.T) {
	w := newWorld(t)
	w.must(AddAccessToken{AccessToken{ID: "own", Hash: [32]byte{1}, Scope: "tenant:acme"}})
	w.must(atMost("acme", 2))
	by := func(actor string) *world {
		w.who = Entry{Actor: actor, Reason: "a test"}
		return w
	}
	full := func(n uint64, has, most string) {
		t.Helper()
		by("own").refuse(numbered(n), Conflict, "tenant", `"acme"`, has+" domains", "at most "+most, "ask the operator")
	}
	by("own").must(numbered(1))
	by("own").must(numbered(2))
	full(3, "2", "2")
	by("own").must(PatchDomain{Token: tok(1), Labels: &map[string]string{"a": "1"}}) // what is there goes on
	by("admin-1").must(numbered(3))
	w.must(claimOf(tok(30), "send.customer30.example", zone.CNAME, "zeta")) // another's does not count
	full(4, "3", "2")

	w.must(atMost("acme", 4))
	by("own").must(numbered(4))
	full(5, "4", "4")

	// One that leaves counts until it is gone.
	by("own").must(LeaveDomain{Token: tok(1)})
	full(5, "4", "4")
	by("own").must(RestoreDomain{Token: tok(1)})
	full(5, "4", "4")
	by("own").must(LeaveDomain{Token: tok(1)})
	w.later(w.domain(tok(1)).GoneAt - w.at)
	by("rotator").must(ExpireDomain{tok(1)})
	by("own").must(numbered(5))
	full(6, "4", "4")

	// A bound below what it has takes nothing away.
	w.must(atMost("acme", 1))
	full(6, "4", "1")
	if tenant, _ := w.m.Tenant("acme"); tenant.Domains != 4 || tenant.DomainLimit() != 1 {
		t.Errorf("%+v", tenant)
	}
	w.checkIndexes()
}

func TestTenantsHaveABoundByDefault(t *testing.T) {
	w := newWorld(t)
	if r := w.must(atMost("acme", 0)); r.Changed {
		t.Error("the bound that it has changed something")
	}
	at := func(n int) *Refusal {
		forged := w.m.tables().fork()
		(&writer{tables: forged}).countTenant("acme", n, 0)
		return Machine{t: forged}.RoomFor("acme")
	}
	if at(defaultTenantDomains-1) != nil || at(defaultTenantDomains) == nil {
		t.Error("the default does not bound")
	}
	w.must(atMost("acme", defaultTenantDomains+1))
	if at(defaultTenantDomains) != nil {
		t.Error("a bound above the default does not let more in")
	}
	w.must(atMost("acme", 0))
	if at(defaultTenantDomains) == nil {
		t.Error("0 is not the default again")
	}
}

func TestABoundOfATenantIsChecked(t *testing.T) {
	w := newWorld(t)
	w.refuse(atMost("nobody", 1), NotFound, "tenant", "nobody")
	w.refuse(atMost("acme", maxDomains+1), Invalid, "max_domains", "at most 20000000")
	w.refuse(AddTenant{ID: "new", MaxDomains: maxDomains + 1}, Invalid, "max_domains")
	tooMany := uint32(maxTenantOctets + 1)
	w.refuse(LimitTenant{ID: "acme", MaxOctets: &tooMany}, Invalid, "max_octets", "at most 1073741824")
	w.refuse(AddTenant{ID: "new", MaxOctets: tooMany}, Invalid, "max_octets")
	w.must(AddTenant{ID: "new", MaxDomains: 3, MaxOctets: 5})
	for _, again := range []AddTenant{{ID: "new", MaxDomains: 3, MaxOctets: 5}, {ID: "new"}} {
		if r := w.must(again); r.Changed {
			t.Errorf("adding %+v again changed something", again)
		}
	}
	w.refuse(AddTenant{ID: "new", MaxDomains: 4}, Conflict, "max_domains", "at most 3")
	w.refuse(AddTenant{ID: "new", MaxOctets: 6}, Conflict, "max_octets", "at most 5")
	if r := w.must(LimitTenant{ID: "new"}); r.Changed {
		t.Error("no bound at all changed something")
	}
	w.must(atMost("new", 0)) // and leaves the other alone
	if tenant, _ := w.m.Tenant("new"); tenant.DomainLimit() != defaultTenantDomains || tenant.OctetLimit() != 5 {
		t.Errorf("%+v", tenant)
	}
	w.checkIndexes()
}

// deep is a record under a name of so many labels that it fills a zone with the names
// above it: a few hundred octets that nodes hold as ten thousand.
func deep(label, domain string) zone.RRset {
	return rrset(label+strings.Repeat(".x", 100)+"."+domain, zone.TypeA, 300, "192.0.2.1")
}

func TestATenantsOwnTokensFillMemoryUpToItsBound(t *testing.T) {
	const domain = "send.customer.test"
	w := newWorld(t)
	w.must(AddAccessToken{AccessToken{ID: "own", Hash: [32]byte{1}, Scope: "tenant:acme"}})
	w.must(claimOf(tok(1), domain, zone.Delegated, "acme"))
	octets := func() int {
		of, _ := w.m.Tenant("acme")
		return of.Octets
	}
	if n := octets(); n != 0 {
		t.Fatalf("a usual domain counts %d octets", n)
	}
	w.must(PutDomainRecord{Token: tok(1), Set: deep("a", domain)})
	one := octets()
	w.must(PutDomainRecord{Token: tok(1), Set: deep("b", domain)})
	if two := octets(); one == 0 || two <= one {
		t.Fatalf("%d octets, then %d", one, two)
	}
	bound := uint32(octets())
	w.must(LimitTenant{ID: "acme", MaxOctets: &bound})

	by := func(actor string) *world {
		w.who = Entry{Actor: actor, Reason: "a test"}
		return w
	}
	labels := map[string]string{"a": "1"}
	signs := []zone.Name{name("customer.test")}
	heavy := claimOf(tok(2), "send2.customer.test", zone.Delegated, "acme")
	for n := range maxSignsFor {
		heavy.SignsFor = append(heavy.SignsFor, name(strings.Repeat("long.", 40)+fmt.Sprintf("n%d.test", n)))
	}
	more := []Command{
		PutDomainRecord{Token: tok(1), Set: rrset("www."+domain, zone.TypeA, 300, "192.0.2.1")},
		SetDomainRecords{Token: tok(1), Sets: []zone.RRset{deep("c", domain)}},
		PatchDomain{Token: tok(1), Labels: &labels},
		PatchDomain{Token: tok(1), SignsFor: &signs},
		heavy,
	}
	for _, c := range more {
		by("own").refuse(c, Conflict, "tenant", `"acme"`, fmt.Sprintf("at most %d", bound), "remove records", "ask the operator")
	}
	if octets() != int(bound) {
		t.Errorf("refusals made it %d octets", octets())
	}
	by("own").must(claimOf(tok(3), "send3.customer.test", zone.CNAME, "acme")) // a usual one has room
	for _, c := range more {
		by("admin-1").must(c)
	}
	w.checkIndexes()

	// What takes away is never refused, and what was taken counts no more.
	by("own").must(SetDomainRecords{Token: tok(1), Replace: true})
	by("own").must(LeaveDomain{Token: tok(2)})
	by("admin-1").must(LeaveDomain{Token: tok(2), Now: true})
	if n := octets(); n != 0 {
		t.Errorf("nothing unusual is left, and counts %d octets", n)
	}
	by("own").must(more[0])
	w.checkIndexes()
}

func TestTenantsMemoryHasABoundByDefault(t *testing.T) {
	w := newWorld(t)
	w.must(AddAccessToken{AccessToken{ID: "own", Hash: [32]byte{1}, Scope: "tenant:acme"}})
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.who.Actor = "own"
	forged := w.m.tables().fork()
	(&writer{tables: forged}).countTenant("acme", 0, defaultTenantOctets)
	w.m = Machine{t: forged}
	w.refuse(PutDomainRecord{Token: tok(1), Set: deep("a", "send.customer.test")}, Conflict, "tenant", "at most 16777216")
}
