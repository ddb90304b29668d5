package state

import (
	"fmt"
	"testing"

	"authd/zone"
)

func TestManyExtraRecordsAtOnce(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "acme"))
	w.must(ProveDomain{Token: tok(1), Seen: []Token{tok(1)}})
	a := rrset("a.send.customer.test", zone.TypeA, 300, "192.0.2.1")
	b := rrset("b.send.customer.test", zone.TypeA, 300, "192.0.2.2")
	other := rrset("b.send.customer.test", zone.TypeA, 600, "192.0.2.3")
	ns := rrset("c.send.customer.test", zone.TypeNS, 300, "ns.other.test.")
	set := func(replace, admin bool, sets ...zone.RRset) SetDomainRecords {
		return SetDomainRecords{Token: tok(1), Sets: sets, Replace: replace, Admin: admin}
	}
	held := func(want ...zone.RRset) {
		t.Helper()
		got := w.domain(tok(1)).Records
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("it holds %v, want %v", got, want)
		}
		for _, s := range want {
			if _, ok := w.served(tok(1), s.Owner.Host(), s.Type); !ok {
				t.Errorf("%s %s is not answered", s.Owner, s.Type)
			}
		}
	}
	w.must(set(false, false, a, b))
	held(a, b)
	before := w.domain(tok(1)).Serial
	if r := w.must(set(true, false, a, b)); r.Changed || w.domain(tok(1)).Serial != before {
		t.Error("the same again changed something")
	}
	w.must(set(false, false, other))
	held(a, other)
	if w.domain(tok(1)).Serial == before {
		t.Error("the serial did not rise")
	}
	w.must(set(false, true, ns))
	held(a, other, ns)
	w.refuse(set(true, false, a), Invalid, "sets", "admin") // it would take the delegation away
	w.must(set(true, false, b, ns))
	held(b, ns)
	many := make([]zone.RRset, MaxDomainRecords+1)
	for i := range many {
		many[i] = rrset(fmt.Sprintf("n%05d.send.customer.test", i), zone.TypeA, 300, "192.0.2.1")
	}
	for _, c := range []struct {
		what    string
		command SetDomainRecords
		field   string
		word    string
	}{
		{"in mode cname", SetDomainRecords{Token: tok(2), Sets: []zone.RRset{a}}, "domain", "cname"},
		{"outside", set(false, false, rrset("customer.test", zone.TypeA, 300, "192.0.2.1")), "sets[0].name", "not in"},
		{"one of two managed", set(false, false, a, rrset("click.send.customer.test", zone.TypeA, 300, "192.0.2.1")), "sets", "managed"},
		{"out of order", set(false, false, b, a), "sets[1]", "order"},
		{"twice", set(false, false, a, a), "sets[1]", "twice"},
		{"a removal", set(false, false, zone.RRset{Owner: a.Owner, Type: a.Type}), "sets[0]", "no values"},
		{"too many", set(false, false, many...), "sets", "at most"},
		{"too many with those there", set(false, false, many[1:]...), "sets", "in all"},
		{"NS without admin", set(false, false, rrset("d.send.customer.test", zone.TypeNS, 300, "ns.other.test.")), "sets", "admin"},
		{"below a cut", set(false, true, rrset("x.c.send.customer.test", zone.TypeTXT, 300, "x")), "sets", "hidden"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			w.refuse(c.command, Invalid, c.field, c.word)
		})
	}
	w.t = t
	held(b, ns)
	w.must(set(true, true))
	held()
}
