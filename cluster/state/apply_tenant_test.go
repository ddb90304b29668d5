package state

import (
	"fmt"
	"testing"

	"authd/zone"
)

// numbered is a claim of acme to a name of its own.
func numbered(n uint64) AddDomain {
	return claimOf(tok(n), fmt.Sprintf("send.customer%d.example", n), zone.CNAME, "acme")
}

func TestATenantsOwnTokensAddDomainsUpToItsBound(t *testing.T) {
	w := newWorld(t)
	w.must(AddAccessToken{AccessToken{ID: "own", Hash: [32]byte{1}, Scope: "tenant:acme"}})
	w.must(LimitTenant{"acme", 2})
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

	w.must(LimitTenant{"acme", 4})
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
	w.must(LimitTenant{"acme", 1})
	full(6, "4", "1")
	if tenant, _ := w.m.Tenant("acme"); tenant.Domains != 4 || tenant.DomainLimit() != 1 {
		t.Errorf("%+v", tenant)
	}
	w.checkIndexes()
}

func TestTenantsHaveABoundByDefault(t *testing.T) {
	w := newWorld(t)
	if r := w.must(LimitTenant{"acme", 0}); r.Changed {
		t.Error("the bound that it has changed something")
	}
	at := func(n int) *Refusal {
		forged := w.m.tables().fork()
		(&writer{tables: forged}).countTenant("acme", n)
		return Machine{t: forged}.RoomFor("acme")
	}
	if at(DefaultTenantDomains-1) != nil || at(DefaultTenantDomains) == nil {
		t.Error("the default does not bound")
	}
	w.must(LimitTenant{"acme", DefaultTenantDomains + 1})
	if at(DefaultTenantDomains) != nil {
		t.Error("a bound above the default does not let more in")
	}
	w.must(LimitTenant{"acme", 0})
	if at(DefaultTenantDomains) == nil {
		t.Error("0 is not the default again")
	}
}

func TestABoundOfATenantIsChecked(t *testing.T) {
	w := newWorld(t)
	w.refuse(LimitTenant{"nobody", 1}, NotFound, "tenant", "nobody")
	w.refuse(LimitTenant{"acme", MaxDomains + 1}, Invalid, "max_domains", "at most 20000000")
	w.refuse(AddTenant{ID: "new", MaxDomains: MaxDomains + 1}, Invalid, "max_domains")
	w.must(AddTenant{ID: "new", MaxDomains: 3})
	for _, again := range []AddTenant{{ID: "new", MaxDomains: 3}, {ID: "new"}} {
		if r := w.must(again); r.Changed {
			t.Errorf("adding %+v again changed something", again)
		}
	}
	w.refuse(AddTenant{ID: "new", MaxDomains: 4}, Conflict, "max_domains", "at most 3")
	if tenant, _ := w.m.Tenant("new"); tenant.DomainLimit() != 3 {
		t.Errorf("%+v", tenant)
	}
	w.checkIndexes()
}
