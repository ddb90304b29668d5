package state

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"authd/keys"
	"authd/zone"
)

func TestPlatformZones(t *testing.T) {
	w := newWorld(t)
	apex, contact := name("p-dns.test"), name("hostmaster.p-dns.test")
	if r := w.must(PutPlatform{apex, contact}); r.Changed {
		t.Error("the same again changed something")
	}
	w.must(PutPlatform{apex, name(`dns\.team.p-dns.test`)})
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.refuse(PutPlatform{"\x01", contact}, Invalid, "zone")
	w.refuse(PutPlatform{name("new.test"), ""}, Invalid, "contact", "hostmaster.new.test")
	w.refuse(PutPlatform{name("x.p-dns.test"), contact}, Conflict, "zone", "p-dns.test")
	for _, n := range []string{"customer.test", "send.customer.test", "x.send.customer.test"} {
		r := w.refuse(PutPlatform{name(n), contact}, Conflict, "zone", tok(1).String())
		if len(r.Conflicts) != 1 {
			t.Errorf("conflicts are %v", r.Conflicts)
		}
	}
	w.must(PutPlatform{name("omer.test"), contact}) // looks alike only
	long := strings.Repeat("a234567890.", 15) + "test"
	w.refuse(PutPlatform{name(long), contact}, Invalid, "zone", "octets")

	w.refuse(DropPlatform{name("none.test")}, NotFound, "zone", "none.test")
	w.refuse(DropPlatform{apex}, Conflict, "zone", "1 claims")
	w.refuse(DropPlatform{name("p-dns.example")}, Conflict, "zone", "1 claims")
	w.must(DropPlatform{name("omer.test")})
	w.who.Reason = "test"
	w.must(LeaveDomain{Token: tok(1), Now: true})
	w.refuse(DropPlatform{apex}, Conflict, "zone", "1 pools")
	w.must(DropPlatform{name("p-dns.example")})
	for i := range maxPlatforms - 1 {
		w.must(PutPlatform{name(fmt.Sprintf("more%d.test", i)), contact})
	}
	w.refuse(PutPlatform{name("toomany.test"), contact}, Invalid, "zone", fmt.Sprint(maxPlatforms))
	if p, _ := w.m.Platform(name("more0.test")); p.Number != 4 {
		t.Errorf("number %d: numbers of removed zones are used again", p.Number)
	}
}

func TestEveryVisibleChangeOfAPlatformZoneAdvancesItsSerial(t *testing.T) {
	w := newWorld(t)
	apex := name("p-dns.test")
	serial := func() uint32 {
		p, _ := w.m.Platform(apex)
		shown := ""
		for _, s := range w.m.PlatformServed(p) {
			if s.Type == zone.TypeSOA {
				shown = s.Values()[0]
			}
		}
		if !strings.Contains(shown, fmt.Sprint(p.Serial)) {
			t.Fatalf("the SOA shows %q, the counter is %d", shown, p.Serial)
		}
		return p.Serial
	}
	policy := "v=DMARC1; p=none"
	long := spec()
	for i := range 60 {
		long.SPF = append(long.SPF, fmt.Sprintf("ip4:198.51.%d.0/24", 100+i))
	}
	last := serial()
	w.who.Reason = "test"
	for _, c := range []Command{
		PutRecord{apex, rrset("www.p-dns.test", zone.TypeA, 300, "192.0.2.9")},
		PutNameServer{"ns1", []netip.Addr{netip.MustParseAddr("192.0.2.54")}},
		PutNameServer{"ns3", []netip.Addr{netip.MustParseAddr("192.0.2.55")}},
		claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"),
		claimOf(tok(2), "customer.test", zone.CNAME, "acme"),
		PatchDomain{Token: tok(2), DMARC: &policy},
		RevokeKey{Token: tok(2), Selector: "k2"},
		LeaveDomain{Token: tok(2)},
		RestoreDomain{Token: tok(2)},
		LeaveDomain{Token: tok(2), Now: true},
		LeaveDomain{Token: tok(1), Now: true},
		DropNameServer{"ns3"},
		PutPool{"default", long},
		PutPool{"default", spec()},
		PutRecord{apex, zone.RRset{Owner: name("www.p-dns.test"), Type: zone.TypeA}},
	} {
		w.must(c)
		if now := serial(); int32(now-last) <= 0 {
			t.Errorf("%T took the serial from %d to %d", c, last, now)
		}
		last = serial()
	}
	if p, _ := w.m.Platform(apex); len(p.Records) != 0 {
		t.Errorf("records left: %v", p.Records)
	}
}

func TestOperatorsRecords(t *testing.T) {
	w := newWorld(t)
	apex := name("p-dns.test")
	put := func(s zone.RRset) PutRecord { return PutRecord{apex, s} }
	w.must(put(rrset("www.p-dns.test", zone.TypeA, 300, "192.0.2.9")))
	w.must(put(rrset("p-dns.test", zone.TypeTXT, 300, "x")))
	w.must(put(rrset("a.p-dns.test", zone.TypeCNAME, 300, "www.p-dns.test.")))
	if r := w.must(put(rrset("www.p-dns.test", zone.TypeA, 300, "192.0.2.9"))); r.Changed {
		t.Error("the same again changed something")
	}
	if p, _ := w.m.Platform(apex); len(p.Records) != 3 || p.Records[0].Owner != apex {
		t.Errorf("records are %v: want canonical order", p.Records)
	}
	for _, c := range []struct {
		what  string
		set   zone.RRset
		field string
	}{
		{"outside", rrset("www.p-dns.example", zone.TypeA, 300, "192.0.2.9"), "name"},
		{"a name server's", rrset("ns1.p-dns.test", zone.TypeA, 300, "192.0.2.9"), "name"},
		{"a future name server's", rrset("x.ns9.p-dns.test", zone.TypeA, 300, "192.0.2.9"), "name"},
		{"below dkim", rrset("x.y.dkim.p-dns.test", zone.TypeTXT, 300, "x"), "name"},
		{"click", rrset("click.p-dns.test", zone.TypeA, 300, "192.0.2.9"), "name"},
		{"a report name", rrset("c.test._report._dmarc.in.p-dns.test", zone.TypeTXT, 300, "v=DMARC1"), "name"},
		{"NS at the apex", rrset("p-dns.test", zone.TypeNS, 300, "ns.test."), "values"},
		{"beside a CNAME", rrset("a.p-dns.test", zone.TypeA, 300, "192.0.2.9"), "values"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			w.refuse(put(c.set), Invalid, c.field)
		})
	}
	w.t = t
	w.must(put(rrset("ns0.p-dns.test", zone.TypeA, 300, "192.0.2.9"))) // no server's label
	w.refuse(PutRecord{name("none.test"), rrset("x.none.test", zone.TypeA, 300, "192.0.2.9")}, NotFound, "zone")
	w.refuse(PutRecord{"\x09", rrset("x.none.test", zone.TypeA, 300, "192.0.2.9")}, Invalid, "zone")
}

func TestNameServers(t *testing.T) {
	w := newWorld(t)
	one := []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	for _, label := range []string{"", "ns", "ns0", "ns01", "ns100", "NS1", "mx1", "ns1x"} {
		w.refuse(PutNameServer{label, one}, Invalid, "nameserver")
	}
	for text, field := range map[string]string{"0.0.0.0": "addresses[0]", "::": "addresses[0]", "224.0.0.1": "addresses[0]", "fe80::1%eth0": "addresses[0]", "::ffff:192.0.2.1": "addresses[0]"} {
		w.refuse(PutNameServer{"ns1", []netip.Addr{netip.MustParseAddr(text)}}, Invalid, field)
	}
	w.refuse(PutNameServer{"ns1", nil}, Invalid, "addresses")
	w.refuse(PutNameServer{"ns1", []netip.Addr{one[0], one[0]}}, Invalid, "addresses", "twice")
	w.refuse(PutNameServer{"ns1", []netip.Addr{{}}}, Invalid, "addresses[0]")
	w.refuse(PutNameServer{"ns1", make([]netip.Addr, maxAddresses+1)}, Invalid, "addresses")
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.refuse(DropNameServer{"ns1"}, Conflict, "nameserver", "1 domains")
	w.refuse(DropNameServer{"ns7"}, NotFound, "nameserver")
	if r := w.must(PutNameServer{"ns2", []netip.Addr{netip.MustParseAddr("198.51.100.53")}}); r.Changed {
		t.Error("the same again changed something")
	}
}

func TestPools(t *testing.T) {
	w := newWorld(t)
	if r := w.must(PutPool{"default", spec()}); r.Changed {
		t.Error("the same again changed something")
	}
	change := func(edit func(*PoolSpec)) PoolSpec {
		s := spec()
		edit(&s)
		return s
	}
	for _, c := range []struct {
		what  string
		spec  PoolSpec
		field string
		word  string
	}{
		{"a mechanism that costs a look-up", change(func(s *PoolSpec) { s.SPF = []string{"ip4:192.0.2.1", "include:x.test"} }), "spf[1]", "include:x.test"},
		{"no address", change(func(s *PoolSpec) { s.SPF = []string{"ip4:x"} }), "spf[0]", "ip4:x"},
		{"another family", change(func(s *PoolSpec) { s.SPF = []string{"ip4:2001:db8::1"} }), "spf[0]", ""},
		{"bits behind the prefix", change(func(s *PoolSpec) { s.SPF = []string{"ip4:192.0.2.1/24"} }), "spf[0]", "192.0.2.0/24"},
		{"everyone", change(func(s *PoolSpec) { s.SPF = []string{"ip4:0.0.0.0/0"} }), "spf[0]", "everyone"},
		{"a qualifier", change(func(s *PoolSpec) { s.SPF = []string{"+ip4:192.0.2.1"} }), "spf[0]", ""},
		{"a zone", change(func(s *PoolSpec) { s.SPF = []string{"ip6:fe80::1%eth0"} }), "spf[0]", ""},
		{"the same twice", change(func(s *PoolSpec) { s.SPF = []string{"ip6:2001:db8::1", "ip6:2001:0db8::1/128"} }), "spf[1]", "twice"},
		{"?all", change(func(s *PoolSpec) { s.SPFAll = "?all" }), "spf_all", "~all"},
		{"no all", change(func(s *PoolSpec) { s.SPFAll = "" }), "spf_all", ""},
		{"an MX that is no host", change(func(s *PoolSpec) { s.MX = append(s.MX, zone.MX{Host: name("*.test")}) }), "mx[1].host", "wildcard"},
		{"an MX twice", change(func(s *PoolSpec) { s.MX = append(s.MX, s.MX[0]) }), "mx[1].host", "twice"},
		{"click twice", change(func(s *PoolSpec) { s.ClickCNAME = name("edge.example") }), "click.cname", "beside"},
		{"click at no address", change(func(s *PoolSpec) { s.ClickA = []netip.Addr{{}} }), "click.a[0]", ""},
		{"a DMARC text without p", change(func(s *PoolSpec) { s.DMARC = "v=DMARC1" }), "dmarc", "p="},
		{"a DMARC text in another order", change(func(s *PoolSpec) { s.DMARC = "p=none; v=DMARC1" }), "dmarc", "first"},
		{"a DMARC text with psd", change(func(s *PoolSpec) { s.DMARC = "v=DMARC1; p=none; psd=n" }), "dmarc", "psd"},
		{"a DMARC text with p twice", change(func(s *PoolSpec) { s.DMARC = "v=DMARC1; p=none; P=reject" }), "dmarc", "twice"},
		{"a DMARC text with an unknown p", change(func(s *PoolSpec) { s.DMARC = "v=DMARC1; p=drop" }), "dmarc", "quarantine"},
		{"a DMARC text too long", change(func(s *PoolSpec) { s.DMARC = "v=DMARC1; p=none; x=" + strings.Repeat("y", 1000) }), "dmarc", "450"},
		{"a period too short", change(func(s *PoolSpec) { s.Policy.Period = 1 }), "dkim.period", ""},
		{"no algorithm", change(func(s *PoolSpec) { s.Policy.Algorithms = nil }), "dkim.algorithms", ""},
		{"too many mechanisms", change(func(s *PoolSpec) { s.SPF = make([]string, maxSPF+1) }), "spf", fmt.Sprint(maxSPF)},
		{"more parts than receivers follow", change(func(s *PoolSpec) {
			s.SPF = nil
			for i := range maxSPF {
				s.SPF = append(s.SPF, fmt.Sprintf("ip6:2001:db8:%x:ffff:ffff:ffff:ffff:ffff", 0x1000+i))
			}
		}), "spf", "merge"},
	} {
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			w.refuse(PutPool{"default", c.spec}, Invalid, c.field, c.word)
			w.refuse(PutPool{"new", c.spec}, Invalid, c.field, c.word)
		})
	}
	w.t = t
	for _, id := range []string{"", "-x", "x-", "X", "a.b", strings.Repeat("x", 64)} {
		w.refuse(PutPool{id, spec()}, Invalid, "pool")
	}
	w.refuse(DropPool{"none"}, NotFound, "pool", "none")
	bare := &world{t: t, m: Empty(), at: start}
	bare.refuse(PutPool{"default", spec()}, Conflict, "pool", "platform zone")

	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	fast := spec()
	fast.Policy.Period = fast.Policy.DrainCeiling
	w.refuse(PutPool{"default", fast}, Invalid, "dkim.period", "slots")
	w.must(PutPool{"other", fast})
	other := "other"
	w.refuse(PatchDomain{Token: tok(1), Pool: &other}, Invalid, "pool", "too fast")
}

func TestPoolChangeIsOneObject(t *testing.T) {
	w := newWorld(t)
	for n := range uint64(20) {
		w.must(claimOf(tok(n+1), fmt.Sprintf("c%d.test", n), zone.CNAME, "acme"))
	}
	s := spec()
	s.SPF = []string{"ip4:203.0.113.0/24"}
	before := w.m
	next, _, delta := w.m.Apply(w.index+1, []Entry{{At: w.at, Command: PutPool{"default", s}}})
	if len(delta.domains) != 0 || len(delta.pools) != 1 {
		t.Errorf("it published %d domains and %d pools", len(delta.domains), len(delta.pools))
	}
	tree := filled(before)
	e := tree.Edit()
	next.Publish(e, before, delta)
	e.Commit()
	if diff := tree.Diff(filled(next)); diff != nil {
		t.Errorf("the index differs: %v", diff)
	}
	d, _ := next.Domain(tok(1))
	answered := ""
	for _, set := range next.Served(d) {
		if set.Owner == d.Targets.Bounce.Name && set.Type == zone.TypeTXT {
			answered = set.Values()[0]
		}
	}
	if !strings.Contains(answered, "203.0.113") {
		t.Errorf("the bounce target answers %q", answered)
	}
}

func TestTenants(t *testing.T) {
	w := newWorld(t)
	if r := w.must(AddTenant{ID: "acme", Name: "Acme"}); r.Changed {
		t.Error("adding again changed something")
	}
	w.refuse(AddTenant{ID: "acme", Name: "Other"}, Conflict, "id", "acme")
	w.refuse(AddTenant{ID: "Acme Ltd", Name: "x"}, Invalid, "id")
	w.refuse(AddTenant{ID: "a", Name: "x\n"}, Invalid, "name")
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	branch := w.domain(tok(1)).Branch
	w.must(SuspendTenant{"acme", true})
	if tenant, _ := w.m.Tenant("acme"); !tenant.Suspended || w.domain(tok(1)).Branch != branch {
		t.Error("suspending did not do what it should, and that alone")
	}
	if r := w.must(SuspendTenant{"acme", true}); r.Changed {
		t.Error("suspending again changed something")
	}
	w.must(SuspendTenant{"acme", false})
	w.refuse(SuspendTenant{"nobody", true}, NotFound, "tenant", "nobody")
	w.later(day)
	w.runDue() // rotations go on
	if k, _ := w.domain(tok(1)).Ring().Standby(keys.RSA2048); k.ConfirmedAt == 0 {
		t.Error("no step was taken")
	}
}

func TestAccessTokens(t *testing.T) {
	w := newWorld(t)
	a := AccessToken{ID: "a1", Hash: [32]byte{1}, Scope: ScopeAdmin, Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, ExpiresAt: start + 1, Note: "ci"}
	w.must(AddAccessToken{a})
	if got, ok := w.m.AccessByHash(a.Hash); !ok || got.ID != "a1" || got.CreatedAt != start {
		t.Fatalf("found %+v", got)
	}
	if r := w.must(AddAccessToken{a}); r.Changed {
		t.Error("adding again changed something")
	}
	change := func(edit func(*AccessToken)) AddAccessToken {
		b := a
		b.ID, b.Hash = "a2", [32]byte{2}
		edit(&b)
		return AddAccessToken{b}
	}
	w.refuse(change(func(b *AccessToken) { b.ID = "a1" }), Conflict, "id")
	w.refuse(change(func(b *AccessToken) { b.Hash = a.Hash }), Conflict, "id")
	w.refuse(change(func(b *AccessToken) { b.ID = "" }), Invalid, "id")
	w.refuse(change(func(b *AccessToken) { b.Hash = [32]byte{} }), Invalid, "id")
	w.refuse(change(func(b *AccessToken) { b.Scope = "root" }), Invalid, "scope", "root")
	w.refuse(change(func(b *AccessToken) { b.Scope = "tenant:nobody" }), Invalid, "scope", "nobody")
	w.refuse(change(func(b *AccessToken) { b.ExpiresAt = start }), Invalid, "expires_at")
	w.refuse(change(func(b *AccessToken) { b.Subnets = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")} }), Invalid, "subnets[0]")
	w.refuse(change(func(b *AccessToken) { b.Note = "\x00" }), Invalid, "note")
	w.must(change(func(b *AccessToken) { b.Scope = "tenant:acme" }))
	w.must(DropAccessToken{"a1"})
	if _, ok := w.m.AccessByHash(a.Hash); ok {
		t.Error("a dropped token is found")
	}
	w.refuse(DropAccessToken{"a1"}, NotFound, "id")
}

func TestTimeOnlyMovesForward(t *testing.T) {
	w := newWorld(t)
	w.at = start - 100
	w.must(AddTenant{ID: "late"})
	if w.m.Time() != start || w.m.Index() != w.index {
		t.Errorf("time %d, index %d", w.m.Time(), w.m.Index())
	}
	if tenant, _ := w.m.Tenant("late"); tenant.CreatedAt != start {
		t.Errorf("created at %d", tenant.CreatedAt)
	}
}

func TestPlatformZoneThatTakesReportsStays(t *testing.T) {
	w := newWorld(t)
	c := claimOf(tok(1), "customer1.example", zone.CNAME, "acme")
	c.DMARC = "v=DMARC1; p=none; rua=mailto:d@reports.p-dns.example"
	w.must(c)
	w.refuse(DropPlatform{name("p-dns.example")}, Conflict, "zone", "DMARC reports")
	empty := ""
	w.must(PatchDomain{Token: tok(1), DMARC: &empty})
	w.must(DropPlatform{name("p-dns.example")})
}
