package state

import (
	"fmt"
	"strings"
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

func TestExtraRecords(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "acme"))
	w.must(ProveDomain{Token: tok(1), Seen: []Token{tok(1)}})
	put := func(s zone.RRset) PutDomainRecord { return PutDomainRecord{Token: tok(1), Set: s} }
	w.must(put(rrset("www.send.customer.test", zone.TypeA, 300, "192.0.2.1")))
	if r := w.must(put(rrset("www.send.customer.test", zone.TypeA, 300, "192.0.2.1"))); r.Changed {
		t.Error("the same again changed something")
	}
	before := w.domain(tok(1)).Serial
	w.must(put(rrset("send.customer.test", zone.TypeTXT, 3600, "site-verification=1")))
	if w.domain(tok(1)).Serial == before {
		t.Error("the serial did not rise")
	}
	if s, ok := w.served(tok(1), "send.customer.test", zone.TypeTXT); !ok || len(s.Data) != 2 {
		t.Errorf("TXT beside SPF is %v", s.Values())
	}
	ns := rrset("sub.send.customer.test", zone.TypeNS, 300, "ns.other.test.")
	for _, c := range []struct {
		what    string
		command PutDomainRecord
		field   string
		word    string
	}{
		{"outside", put(rrset("customer.test", zone.TypeA, 300, "192.0.2.1")), "name", "not in send.customer.test"},
		{"managed key", put(rrset("x._domainkey.send.customer.test", zone.TypeTXT, 300, "x")), "values", "managed"},
		{"managed MX", put(rrset("bounce.send.customer.test", zone.TypeMX, 300, "1 mx.test.")), "values", "managed"},
		{"beside a CNAME", put(rrset("www.send.customer.test", zone.TypeCNAME, 300, "x.test.")), "values", "CNAME"},
		{"NS without admin", put(ns), "type", "admin"},
		{"TTL too low", put(zone.RRset{Owner: name("a.send.customer.test"), Type: zone.TypeA, TTL: 59, Data: [][]byte{{192, 0, 2, 1}}}), "ttl", "60"},
		{"TTL too high", put(zone.RRset{Owner: name("a.send.customer.test"), Type: zone.TypeA, TTL: 86401, Data: [][]byte{{192, 0, 2, 1}}}), "ttl", "86400"},
		{"TTL unlike SPF's", put(rrset("send.customer.test", zone.TypeTXT, 300, "x")), "ttl", "3600"},
		{"SOA", put(zone.RRset{Owner: name("send.customer.test"), Type: zone.TypeSOA, TTL: 300, Data: [][]byte{{0}}}), "type", "SOA"},
		{"not RDATA", put(zone.RRset{Owner: name("a.send.customer.test"), Type: zone.TypeA, TTL: 300, Data: [][]byte{{1}}}), "values", ""},
		{"a value twice", put(zone.RRset{Owner: name("a.send.customer.test"), Type: zone.TypeA, TTL: 300, Data: [][]byte{{192, 0, 2, 1}, {192, 0, 2, 1}}}), "values[1]", "twice"},
		{"in mode cname", PutDomainRecord{Token: tok(2), Set: rrset("www.customer.test", zone.TypeA, 300, "192.0.2.1")}, "name", "cname"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			w.refuse(c.command, Invalid, c.field, c.word)
		})
	}
	w.t = t
	w.must(PutDomainRecord{Token: tok(1), Set: ns, Admin: true})
	w.must(put(zone.RRset{Owner: name("www.send.customer.test"), Type: zone.TypeA}))
	if _, ok := w.served(tok(1), "www.send.customer.test", zone.TypeA); ok {
		t.Error("a removed record is answered")
	}
	if r := w.must(put(zone.RRset{Owner: name("www.send.customer.test"), Type: zone.TypeA})); r.Changed {
		t.Error("removing twice changed something")
	}
}

func TestExtraRecordsAreBounded(t *testing.T) {
	d := []zone.RRset{}
	octets := 0
	long := make([]byte, 60000)
	for i := range 10 {
		owner := name(fmt.Sprintf("r%d.send.customer.test", i))
		if _, r := editRecords(&d, &octets, zone.RRset{Owner: owner, Type: 99, TTL: 300, Data: [][]byte{long}}, 100, 300_000); r != nil {
			if r.Field != "values" || i != 4 {
				t.Fatalf("refused %d with %v", i, r)
			}
			break
		}
	}
	if _, r := editRecords(&d, &octets, rrset("z.send.customer.test", zone.TypeA, 300, "192.0.2.1"), len(d), 300_000); r == nil || r.Field != "name" {
		t.Errorf("one more than the most: %v", r)
	}
	if octets != rrsetsSize(d) {
		t.Errorf("counted %d octets of %d", octets, rrsetsSize(d))
	}
}

func TestOctetsOfRecordsAreBounded(t *testing.T) {
	text := func(owner string) zone.RRset {
		var values []string
		for i := range 7 {
			values = append(values, fmt.Sprint(i, strings.Repeat("x", 4000)))
		}
		return rrset(owner, zone.TypeTXT, 300, values...)
	}
	w := newWorld(t)
	delegated := w.claim(1, "send.customer1.example", "acme")
	var sets []zone.RRset
	for n := range maxDomainOctets / 28_000 {
		sets = append(sets, text(fmt.Sprintf("x%02d.send.customer1.example", n)))
	}
	w.must(SetDomainRecords{Token: delegated, Sets: sets})
	more := text("y.send.customer1.example")
	w.refuse(SetDomainRecords{Token: delegated, Sets: []zone.RRset{more}}, Invalid, "sets", "octets of records in all")
	w.refuse(PutDomainRecord{Token: delegated, Set: more}, Invalid, "values", "octets of records in all")
	w.must(PutDomainRecord{Token: delegated, Set: zone.RRset{Owner: name("x00.send.customer1.example"), Type: zone.TypeTXT}}) // one goes
	w.must(PutDomainRecord{Token: delegated, Set: more})
}

// What is handed to others is an admin's to change, not only to add.
func TestDelegationsAreAnAdminsToChange(t *testing.T) {
	w := newWorld(t)
	d := w.claim(1, "send.customer1.example", "acme")
	cut := func(server string) []zone.RRset {
		return []zone.RRset{rrset("sub.send.customer1.example", zone.TypeNS, 300, server)}
	}
	w.must(SetDomainRecords{Token: d, Sets: cut("ns.example.test."), Admin: true})
	w.refuse(SetDomainRecords{Token: d, Sets: cut("ns.elsewhere.test.")}, Invalid, "sets", "admin scope")
	w.refuse(SetDomainRecords{Token: d, Replace: true}, Invalid, "sets", "admin scope")
	w.must(SetDomainRecords{Token: d, Sets: cut("ns.example.test.")}) // as it is
}
