package zone

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

const (
	testToken  = "abcdefghijklmnopqrstuvwxyz"
	otherToken = "zyxwvutsrqponmlkjihgfedcba"
)

// rsaPayload is as long as the record of an RSA-2048 key.
var rsaPayload = "v=DKIM1; k=rsa; p=" + strings.Repeat("M", 392)

// set is an RRset that a test is sure of.
func set(t testing.TB, owner string, typ Type, ttl uint32, values ...string) RRset {
	t.Helper()
	s, err := ParseRRset(name(t, owner), typ, ttl, values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testPlatform(t testing.TB) PlatformPlan {
	return PlatformPlan{
		Form: Form, Number: 1, Apex: name(t, "p.example"), Contact: name(t, "hostmaster.p.example"), Serial: 7,
		NS: []Name{name(t, "ns1.p.example"), name(t, "ns2.p.example")},
		Servers: []NameServer{
			{"ns1", []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
			{"ns2", []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
		},
		Records: []RRset{
			set(t, "mx1.p.example", TypeA, 300, "192.0.2.25"),
			set(t, "www.p.example", TypeCNAME, 300, "mx1.p.example"),
		},
	}
}

func testPool(t testing.TB) PoolPlan {
	return PoolPlan{
		Form: Form, Number: 1, ID: "default", Serial: 100, SPF: []string{"ip4:192.0.2.0/24"}, SPFAll: "~all",
		MX: []MX{{10, name(t, "mx1.p.example")}}, ClickA: []netip.Addr{netip.MustParseAddr("192.0.2.80")},
		IncludeBase: name(t, "default.spf.p.example"),
	}
}

func delegatedPlan(t testing.TB, zone, token string) Plan {
	apex := name(t, zone)
	key, err := apex.Child("2511-abcdef", "_domainkey")
	if err != nil {
		t.Fatal(err)
	}
	return Plan{
		Form: Form, Mode: Delegated, Tenant: 1, Pool: 1, Serial: 5, Zone: apex, Proven: true,
		Servers: []ServerName{{name(t, token+".ns1.p.example"), 1, "ns1"}, {name(t, token+".ns2.p.example"), 1, "ns2"}},
		Keys:    []KeyRecord{{Owner: key, TTL: TTLKey, Payload: rsaPayload}},
	}
}

func cnamePlan(t testing.TB, token string) Plan {
	p := Plan{Form: Form, Mode: CNAME, Tenant: 2, Pool: 1, Serial: 5}
	for _, slot := range []string{"k1", "k2", "k3"} {
		target := Target{name(t, slot+"."+token+".dkim.p.example"), 1}
		p.Targets.Keys = append(p.Targets.Keys, target)
		p.Keys = append(p.Keys, KeyRecord{Owner: target.Name, TTL: TTLKey, Payload: rsaPayload})
	}
	p.Targets.Bounce = Target{name(t, token+".bounce.p.example"), 1}
	p.Targets.Click = Target{name(t, token+".click.p.example"), 1}
	p.Targets.DMARC = Target{name(t, token+".dmarc.p.example"), 1}
	return p
}

func mustRender(t testing.TB, p Plan) Branch        { t.Helper(); return rendered(t, Render, p) }
func mustRenderPool(t testing.TB, p PoolPlan) *Pool { t.Helper(); return rendered(t, RenderPool, p) }
func mustRenderPlatform(t testing.TB, p PlatformPlan) *Platform {
	t.Helper()
	return rendered(t, RenderPlatform, p)
}

func rendered[P, A any](t testing.TB, render func(P) (A, error), p P) A {
	t.Helper()
	out, err := render(p)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// testTree has a pool, a platform zone and the branches.
func testTree(t testing.TB, plans ...Plan) *Tree {
	t.Helper()
	tree := NewTree()
	e := tree.Edit()
	e.SetPool(1, mustRenderPool(t, testPool(t)))
	e.SetPlatform(1, mustRenderPlatform(t, testPlatform(t)))
	for _, p := range plans {
		e.Put("", mustRender(t, p))
	}
	e.Commit()
	return tree
}

// sections are the lines of the reply to a question over TCP, sorted within each
// section.
func sections(t interface{ Fatalf(string, ...any) }, r *Responder, n Name, typ Type) []string {
	packet := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, n...)
	packet = append(packet, byte(typ>>8), byte(typ), 0, classIN)
	var reply dns.Msg
	out := r.Reply(nil, packet, true)
	if err := reply.Unpack(out); err != nil {
		t.Fatalf("%s %s: unpacking %x: %v", n, typ, out, err)
	}
	lines := printReply(&reply)
	for i := range lines {
		lines[i] = expand(lines[i])
	}
	answer, authority := 1+len(reply.Answer), 1+len(reply.Answer)+len(reply.Ns)
	slices.Sort(lines[1:answer])
	slices.Sort(lines[answer:authority])
	slices.Sort(lines[authority:])
	return lines
}
