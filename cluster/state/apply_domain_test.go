package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"authd/keys"
	"authd/zone"
)

func TestDelegatedClaimWaitsForItsProof(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	d := w.domain(tok(1))
	if d.State != Pending || d.GoneAt != start+14*day {
		t.Fatalf("state %d until %d, want pending until %d", d.State, d.GoneAt, start+14*day)
	}
	if _, ok := w.served(tok(1), "send.customer.test", zone.TypeMX); ok {
		t.Error("an unproven zone is answered")
	}
	if _, ok := w.served(tok(1), tok(1).String()+".ns1.p-dns.test", zone.TypeA); !ok {
		t.Error("the server name of an unproven claim is not answered: the parent could not be delegated")
	}
	w.must(ProveDomain{Token: tok(1), Seen: []Token{tok(1)}})
	if d = w.domain(tok(1)); d.State != Live || d.ProvenAt != start || d.GoneAt != 0 {
		t.Fatalf("after the proof: %+v", d)
	}
	if _, ok := w.served(tok(1), "send.customer.test", zone.TypeMX); !ok {
		t.Error("a proven zone is not answered")
	}
	if got := d.Ring().Keys[0].Payload; got != "v=DKIM1; k=rsa; p=AAAA"+tok(1).String() {
		t.Errorf("the key's payload is %q", got)
	}
}

func TestServerNamesGoOverThePlatformZonesInTurn(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	var got []string
	for _, r := range w.domain(tok(1)).CustomerRecords() {
		got = append(got, fmt.Sprint(r.Name, " ", r.Type, " ", r.Value, " ", r.TTL))
	}
	want := []string{
		"send.customer.test NS " + tok(1).String() + ".ns1.p-dns.test. 86400",
		"send.customer.test NS " + tok(1).String() + ".ns2.p-dns.example. 86400",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestServerNamesAreFixedWithTheClaim(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	before := w.domain(tok(1)).Servers
	for _, n := range []string{"ns10", "ns3", "ns4"} {
		w.must(PutNameServer{n, w.m.tables().serversInOrder()[0].Addresses})
	}
	if got := w.domain(tok(1)).Servers; !slices.Equal(got, before) {
		t.Errorf("they are %v now, were %v", got, before)
	}
	w.must(claimOf(tok(2), "send.other.test", zone.Delegated, "acme"))
	var labels []string
	for _, s := range w.domain(tok(2)).Servers {
		labels = append(labels, s.Server)
	}
	if !slices.Equal(labels, []string{"ns1", "ns2", "ns3", "ns4"}) {
		t.Errorf("a new claim gets %v: want four, ns10 not before ns3", labels)
	}
}

func TestCNAMEClaimIsServedAtOnce(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	d := w.domain(tok(1))
	T := tok(1).String()
	var got []string
	for _, r := range d.CustomerRecords() {
		got = append(got, r.Name+" "+r.Value)
	}
	want := []string{
		"k1._domainkey.customer.test k1." + T + ".dkim.p-dns.test.",
		"k2._domainkey.customer.test k2." + T + ".dkim.p-dns.test.",
		"k3._domainkey.customer.test k3." + T + ".dkim.p-dns.test.",
		"bounce.customer.test " + T + ".bounce.p-dns.test.",
		"click.customer.test " + T + ".click.p-dns.test.",
	}
	if d.State != Live || !slices.Equal(got, want) {
		t.Fatalf("state %d, records %q, want %q", d.State, got, want)
	}
	for slot, want := range map[string]string{"k1": "v=DKIM1; k=rsa; p=AAAA" + T, "k2": "v=DKIM1; k=rsa; p=BBBB" + T, "k3": "v=DKIM1; k=rsa; p="} {
		s, ok := w.served(tok(1), slot+"."+T+".dkim.p-dns.test", zone.TypeTXT)
		if !ok || s.Values()[0] != `"`+want+`"` {
			t.Errorf("slot %s answers %v", slot, s.Values())
		}
	}
	// The DMARC target is given out, and answers, once there is a policy.
	policy := "v=DMARC1; p=none"
	w.must(PatchDomain{Token: tok(1), DMARC: &policy})
	if _, ok := w.served(tok(1), T+".dmarc.p-dns.test", zone.TypeTXT); !ok {
		t.Error("the policy is not answered")
	}
	if records := w.domain(tok(1)).CustomerRecords(); records[len(records)-1].Name != "_dmarc.customer.test" {
		t.Errorf("the last record is %v", records[len(records)-1])
	}
}

func TestSecondCNAMEClaimGetsAnotherPrefix(t *testing.T) {
	w := newWorld(t)
	w.must(AddTenant{ID: "third"})
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "zeta"))
	w.must(claimOf(tok(3), "customer.test", zone.CNAME, "third"))
	names := make(map[string]Token)
	for n := range uint64(3) {
		for _, r := range w.domain(tok(n + 1)).CustomerRecords() {
			if other, ok := names[r.Name]; ok {
				t.Errorf("%s is asked for by claims %s and %s", r.Name, other, tok(n+1))
			}
			names[r.Name] = tok(n + 1)
		}
	}
	for n, want := range []string{"k1", "t2-k1", "t3-k1"} {
		d := w.domain(tok(uint64(n) + 1))
		if got := d.Selector(d.Ring().Keys[0]); got != want {
			t.Errorf("claim %d signs with selector %s, want %s", n+1, got, want)
		}
	}
	w.who.Reason = "test"
	w.must(LeaveDomain{Token: tok(2), Now: true})
	w.must(claimOf(tok(4), "customer.test", zone.CNAME, "zeta"))
	if got := w.domain(tok(4)).Prefix; got != "t2-" {
		t.Errorf("the prefix that became free is not used: %q", got)
	}
}

func TestClaimIsRefused(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "acme"))
	w.who.Reason = "test"
	w.must(claimOf(tok(3), "gone.customer.test", zone.CNAME, "acme"))
	w.must(LeaveDomain{Token: tok(3), Now: true})
	w.must(claimOf(tok(4), "left.customer.test", zone.CNAME, "acme"))
	w.must(LeaveDomain{Token: tok(4)})
	fast := spec()
	fast.Policy.Period = fast.Policy.DrainCeiling
	w.must(PutPool{"fast", fast})

	change := func(mode zone.Mode, edit func(*AddDomain)) AddDomain {
		c := claimOf(tok(9), "new.customer.test", mode, "acme")
		edit(&c)
		return c
	}
	const delegated, cname = zone.Delegated, zone.CNAME
	for _, c := range []struct {
		what    string
		command AddDomain
		kind    RefusalKind
		field   string
		word    string
	}{
		{"no token", change(delegated, func(c *AddDomain) { c.Token = Token{} }), Invalid, "token", ""},
		{"a token in use", change(delegated, func(c *AddDomain) { c.Token = tok(1) }), Conflict, "token", tok(1).String()},
		{"a token that was used", change(delegated, func(c *AddDomain) { c.Token = tok(3) }), Conflict, "token", tok(3).String()},
		{"no name", change(delegated, func(c *AddDomain) { c.Name = "" }), Invalid, "domain", ""},
		{"octets that are no name", change(delegated, func(c *AddDomain) { c.Name = "\x03ab" }), Invalid, "domain", ""},
		{"a name in capitals", change(delegated, func(c *AddDomain) { c.Name = "\x02AB\x04test\x00" }), Invalid, "domain", ""},
		{"a wildcard", change(delegated, func(c *AddDomain) { c.Name = name("*.customer.test") }), Invalid, "domain", "wildcard"},
		{"one label", change(delegated, func(c *AddDomain) { c.Name = name("test") }), Invalid, "domain", ""},
		{"no mode", change(delegated, func(c *AddDomain) { c.Mode = 0 }), Invalid, "mode", "cname"},
		{"an unknown tenant", change(delegated, func(c *AddDomain) { c.Tenant = "nobody" }), NotFound, "tenant", "nobody"},
		{"an unknown pool", change(delegated, func(c *AddDomain) { c.Pool = "none" }), Invalid, "pool", "none"},
		{"a platform zone", change(delegated, func(c *AddDomain) { c.Name = name("p-dns.test"); c.Override = true }), Conflict, "domain", "p-dns.test"},
		{"inside a platform zone", change(delegated, func(c *AddDomain) { c.Name = name("x.p-dns.test"); c.Registrable = "" }), Conflict, "domain", "p-dns.test"},
		{"above a platform zone", change(cname, func(c *AddDomain) { c.Name = name("p-dns.test").Parent(); c.Registrable = "" }), Invalid, "domain", ""},
		{"a public suffix", change(cname, func(c *AddDomain) { c.Name = name("co.test"); c.Suffix = true; c.Registrable = "" }), Invalid, "domain", "public suffix"},
		{"the registrable domain", change(delegated, func(c *AddDomain) { c.Name = name("customer.test") }), Invalid, "domain", "send.customer.test"},
		{"a registrable domain elsewhere", change(delegated, func(c *AddDomain) { c.Registrable = name("other.test") }), Invalid, "domain", "other.test"},
		{"the same again", change(delegated, func(c *AddDomain) { c.Name = name("send.customer.test") }), Conflict, "domain", tok(1).String()},
		{"the same that is leaving", change(cname, func(c *AddDomain) { c.Name = name("left.customer.test") }), Conflict, "domain", "restore"},
		{"a pool too fast for slots", change(cname, func(c *AddDomain) { c.Pool = "fast" }), Invalid, "pool", "fast"},
		{"targets in mode delegated", change(delegated, func(c *AddDomain) { c.Bound.Click = name("x.p-dns.test") }), Invalid, "targets", "cname"},
		{"a policy that receivers ignore", change(delegated, func(c *AddDomain) { c.DMARC = "p=none" }), Invalid, "dmarc", "v=DMARC1"},
		{"a label without a name", change(delegated, func(c *AddDomain) { c.Labels = map[string]string{"": "x"} }), Invalid, "labels", ""},
		{"signing for itself", change(delegated, func(c *AddDomain) { c.SignsFor = []zone.Name{c.Name} }), Invalid, "signs_for[0]", "itself"},
		{"signing for a name twice", change(delegated, func(c *AddDomain) { c.SignsFor = []zone.Name{name("a.test"), name("a.test")} }), Invalid, "signs_for[1]", "twice"},
		{"no active key", change(delegated, func(c *AddDomain) { c.Active = nil }), Invalid, "keys", "rsa2048"},
		{"two active keys", change(delegated, func(c *AddDomain) { c.Active = append(c.Active[:1:1], c.Active[0]) }), Invalid, "keys", "2 active"},
		{"a key of another algorithm", change(delegated, func(c *AddDomain) { c.Standby[0].Algorithm = keys.Ed25519 }), Invalid, "keys", "ed25519"},
		{"a bad selector", change(delegated, func(c *AddDomain) { c.Active[0].Selector = "no spaces" }), Invalid, "keys", "selector"},
		{"a payload with controls", change(delegated, func(c *AddDomain) { c.Active[0].Payload = "v=DKIM1; p=\n" }), Invalid, "keys", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			w.refuse(c.command, c.kind, c.field, c.word)
		})
	}
	w.t = t
	override := claimOf(tok(9), "whole.test", zone.Delegated, "acme")
	override.Override = true
	w.must(override)
}

func TestClaimNeedsWhereToPointAt(t *testing.T) {
	w := newWorld(t)
	w.must(DropNameServer{"ns2"})
	w.refuse(DropNameServer{"ns1"}, Conflict, "nameserver", "last")
	m := Empty()
	w2 := &world{t: t, m: m, at: start}
	w2.must(PutPlatform{name("p-dns.test"), name("hostmaster.p-dns.test")})
	w2.must(PutPool{"default", spec()})
	w2.must(AddTenant{ID: "acme"})
	w2.refuse(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"), Conflict, "domain", "name server")
}

func TestBoundTargets(t *testing.T) {
	w := newWorld(t)
	w.must(PutRecord{name("p-dns.test"), rrset("www.p-dns.test", zone.TypeA, 300, "192.0.2.9")})
	w.must(PutRecord{name("p-dns.test"), rrset("lent.p-dns.test", zone.TypeNS, 300, "ns.other.test.")})
	bound := func(token Token, b BoundTargets) AddDomain {
		c := claimOf(token, "bound.test", zone.CNAME, "acme")
		c.Bound = b
		return c
	}
	keys3 := []zone.Name{name("s1.old.p-dns.test"), name("s2.old.p-dns.test"), name("s3.old.p-dns.example")}
	first := bound(tok(1), BoundTargets{Keys: keys3, Bounce: name("rp.old.p-dns.test")})
	w.must(first)
	d := w.domain(tok(1))
	if d.Targets.Keys[2] != (zone.Target{Name: keys3[2], Platform: 2}) || d.Targets.Bounce.Name != name("rp.old.p-dns.test") {
		t.Fatalf("targets %+v", d.Targets)
	}
	if d.Targets.Click.Name != name(tok(1).String()+".click.p-dns.test") {
		t.Errorf("the target that was not bound is %s", d.Targets.Click.Name)
	}
	if s, ok := w.served(tok(1), "s1.old.p-dns.test", zone.TypeTXT); !ok || !strings.Contains(s.Values()[0], "AAAA") {
		t.Errorf("the bound slot answers %v", s)
	}
	for _, c := range []struct {
		what  string
		bound BoundTargets
		kind  RefusalKind
		field string
		word  string
	}{
		{"outside", BoundTargets{Click: name("x.elsewhere.test")}, Invalid, "targets.click", "platform zone"},
		{"the apex", BoundTargets{Click: name("p-dns.test")}, Invalid, "targets.click", "platform zone"},
		{"no name", BoundTargets{Click: "\x07x"}, Invalid, "targets.click", "not a domain name"},
		{"below dkim", BoundTargets{Click: name("a.dkim.p-dns.test")}, Invalid, "targets.click", "managed"},
		{"a server", BoundTargets{Click: name("ns7.p-dns.test")}, Invalid, "targets.click", "managed"},
		{"spf itself", BoundTargets{Click: name("spf.p-dns.test")}, Invalid, "targets.click", "managed"},
		{"report names", BoundTargets{Click: name("a._report._dmarc.p-dns.test")}, Invalid, "targets.click", "managed"},
		{"a wildcard", BoundTargets{Click: name("*.p-dns.test")}, Invalid, "targets.click", "wildcard"},
		{"like a token", BoundTargets{Click: name(tok(5).String() + ".dkim.x.p-dns.test")}, Invalid, "targets.click", "base32"},
		{"operator's", BoundTargets{Click: name("www.p-dns.test")}, Conflict, "targets.click", "A records"},
		{"below a delegation", BoundTargets{Click: name("x.lent.p-dns.test")}, Conflict, "targets.click", "lent"},
		{"another claim's", BoundTargets{Click: keys3[0]}, Conflict, "targets.click", tok(1).String()},
		{"twice", BoundTargets{Click: name("t.p-dns.test"), Bounce: name("t.p-dns.test")}, Invalid, "targets.click", "twice"},
		{"two keys", BoundTargets{Keys: keys3[:2]}, Invalid, "targets.keys", "3"},
		{"a key without a name", BoundTargets{Keys: []zone.Name{name("n1.p-dns.test"), "", name("n3.p-dns.test")}}, Invalid, "targets.keys[1]", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			w.t = t
			add := bound(tok(2), c.bound)
			add.Name, add.Registrable = name("second.test"), name("second.test")
			w.refuse(add, c.kind, c.field, c.word)
		})
	}
	w.t = t
	w.refuse(PutRecord{name("p-dns.test"), rrset("s1.old.p-dns.test", zone.TypeA, 300, "192.0.2.9")}, Conflict, "name", tok(1).String())
	w.refuse(PutRecord{name("p-dns.test"), rrset("old.p-dns.test", zone.TypeNS, 300, "ns.other.test.")}, Conflict, "name", "hide")
	w.must(PutRecord{name("p-dns.test"), rrset("old.p-dns.test", zone.TypeA, 300, "192.0.2.9")})

	w.who.Reason = "test"
	w.must(LeaveDomain{Token: tok(1), Now: true})
	again := bound(tok(2), BoundTargets{Keys: keys3})
	w.refuse(again, Conflict, "targets.keys[0]", "ended")
	w.refuse(PutRecord{name("p-dns.test"), rrset("s1.old.p-dns.test", zone.TypeA, 300, "192.0.2.9")}, Conflict, "name", "ended")
}

func TestSerialNeverGoesBackWhenTheDomainMoves(t *testing.T) {
	w := newWorld(t)
	other := spec()
	w.must(PutPool{"other", other})
	for i := range 5 {
		p := spec()
		p.ClickA = p.ClickA[:0]
		p.MX[0].Preference = uint16(i)
		w.must(PutPool{"default", p})
	}
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	soa := func() uint32 { return w.m.tables().zoneSerial(w.domain(tok(1))) }
	for _, pool := range []string{"other", "default", "other"} {
		before := soa()
		w.must(PatchDomain{Token: tok(1), Pool: &pool})
		if after := soa(); int32(after-before) <= 0 {
			t.Errorf("moving to %s took the serial from %d to %d", pool, before, after)
		}
	}
	w.refuse(DropPool{"other"}, Conflict, "pool", "1 domains")
	w.must(DropPool{"default"})
}

func TestPatchChangesWhatIsGivenAlone(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	labels := map[string]string{"tier": "gold"}
	signs := []zone.Name{name("customer.test")}
	w.must(PatchDomain{Token: tok(1), Labels: &labels, SignsFor: &signs})
	if r := w.must(PatchDomain{Token: tok(1), Labels: &labels, SignsFor: &signs}); r.Changed {
		t.Error("the same again changed something")
	}
	d := w.domain(tok(1))
	if d.Labels["tier"] != "gold" || !slices.Equal(d.SignsFor, signs) || d.Pool != "default" {
		t.Fatalf("%+v", d)
	}
	w.refuse(PatchDomain{Token: tok(1), Labels: &labels, Serial: d.Serial - 1}, Stale, "serial", "read it again")
	w.refuse(PatchDomain{Token: tok(8), Labels: &labels}, NotFound, "domain")
	none := "none"
	w.refuse(PatchDomain{Token: tok(1), Pool: &none}, Invalid, "pool", "none")
	bad := "v=DMARC1; p=none; psd=y"
	w.refuse(PatchDomain{Token: tok(1), DMARC: &bad}, Invalid, "dmarc", "psd")
	empty := []zone.Name{}
	w.must(PatchDomain{Token: tok(1), SignsFor: &empty, Serial: d.Serial})
	w.must(ProveDomain{Token: tok(1), Seen: []Token{tok(1)}})
	if _, ok := w.m.SignerFor(name("customer.test"), ""); ok {
		t.Error("it still signs for the name that was taken back")
	}
}

// One tenant alone cannot keep others from listing a name.
func TestOneTenantListsANameABoundedNumberOfTimes(t *testing.T) {
	w := newWorld(t)
	list := func(n int, tenant string) AddDomain {
		c := claimOf(tok(uint64(n)), fmt.Sprintf("send%d.%s.test", n, tenant), zone.CNAME, tenant)
		c.SignsFor = []zone.Name{name("customer.test")}
		return c
	}
	for n := range maxListers {
		w.must(list(n+1, "zeta"))
	}
	w.refuse(list(maxListers+1, "zeta"), Conflict, "signs_for[0]", "customer.test", "at most 16")
	w.must(list(maxListers+2, "acme"))
	same := []zone.Name{name("customer.test"), name("other.test")}
	w.must(PatchDomain{Token: tok(1), SignsFor: &same}) // it is one of them
}

// Who lists a name may have a thousand records: a domain that lists a hundred such
// names would stop all nodes for as long as decoding those takes.
func TestListersAreCountedForTheSameWhateverTheyHold(t *testing.T) {
	w := newWorld(t)
	signs := []zone.Name{name("customer.test")}
	lister := claimOf(tok(1), "send.customer.test", zone.Delegated, "acme")
	lister.SignsFor = signs
	w.must(lister)
	w.must(claimOf(tok(2), "send2.customer.test", zone.Delegated, "acme"))
	other := w.domain(tok(2))
	cost := func() float64 {
		a := w.m.Applier()
		return testing.AllocsPerRun(10, func() {
			if _, r := a.w.checkSignsFor(other, signs); r != nil {
				t.Fatal(r)
			}
		})
	}
	before := cost()
	w.fill(tok(1))
	if after := cost(); after != before {
		t.Errorf("%.0f allocations, %.0f without the lister's records", after, before)
	}
}

func TestReportAuthorisationHasOneHolder(t *testing.T) {
	w := newWorld(t)
	policy := "v=DMARC1; p=none; rua=mailto:d@dmarc-in.p-dns.test,mailto:x@elsewhere.test"
	first := claimOf(tok(1), "customer.test", zone.CNAME, "acme")
	first.DMARC = policy
	second := claimOf(tok(2), "customer.test", zone.CNAME, "zeta")
	second.DMARC = policy
	w.must(first)
	w.must(second)
	report := "customer.test._report._dmarc.dmarc-in.p-dns.test"
	holders := func() (list []Token) {
		for d := range w.m.Domains(Token{}) {
			if _, ok := w.served(d.Token, report, zone.TypeTXT); ok {
				list = append(list, d.Token)
			}
		}
		return list
	}
	if got := holders(); len(got) != 1 {
		t.Fatalf("held by %v", got)
	}
	w.refuse(DropPlatform{name("p-dns.test")}, Conflict, "zone")
	none := ""
	w.must(PatchDomain{Token: holders()[0], DMARC: &none})
	if got := holders(); len(got) != 1 {
		t.Fatalf("after one gave its policy up it is held by %v", got)
	}
	w.who.Reason = "test"
	w.must(LeaveDomain{Token: holders()[0], Now: true})
	if got := holders(); len(got) != 0 {
		t.Fatalf("after both are gone it is held by %v", got)
	}
	w.checkIndexes()
}

func TestTenantMayClaimANameOnceAMode(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer1.example", zone.Delegated, "acme"))
	w.must(claimOf(tok(2), "send.customer1.example", zone.CNAME, "acme"))
	w.refuse(claimOf(tok(3), "send.customer1.example", zone.CNAME, "acme"), Conflict, "domain", `claimed by tenant "acme" already`)
	like := tok(1)
	like[len(like)-1] ^= 1
	w.refuse(claimOf(like, "send.customer3.example", zone.Delegated, "zeta"), Conflict, "token", "begins like")
}

func TestClaimsToOneNameAreBounded(t *testing.T) {
	w := newWorld(t)
	var entries []Entry
	for n := range maxClaims {
		id := fmt.Sprintf("t%d", n)
		entries = append(entries, Entry{At: w.at, Command: AddTenant{ID: id, Name: id}},
			Entry{At: w.at, Command: claimOf(tok(uint64(n+1)), "send.customer1.example", zone.Delegated, id)})
	}
	w.all(entries)
	w.refuse(claimOf(tok(maxClaims+1), "send.customer1.example", zone.Delegated, "acme"), Conflict, "domain", "at most 256")
}
