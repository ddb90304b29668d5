package zone

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// world draws plans that meet each other: few labels, few zones, few tenants.
type world struct {
	t         *rapid.T
	platforms []*PlatformPlan
	pools     []*PoolPlan
	names     []Name // that records may point at and questions ask for
}

func parsed(text string) Name {
	n, err := ParseName(text)
	if err != nil {
		panic(err)
	}
	return n
}

var (
	worldZones = []string{"a.test", "b.a.test", "c.b.a.test", "e.d.a.test", "g.test", "send.g.test"}
	worldOwner = []string{"@", "www", "w", "*.w", "x.w", "sub", "ns.sub", "y.z", "*", "bounce", "old", "d", "click", "_dmarc"}
	worldBound = []string{"shop.p.example", "k.shop.p.example", "a.b.shop.p.example", "z.q.example", "x.www.p.example"}
)

func newWorld(t *rapid.T) *world {
	w := &world{t: t}
	servers := []NameServer{
		{"ns1", []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}},
		{"ns2", []netip.Addr{netip.MustParseAddr("192.0.2.2")}},
	}
	for _, zone := range worldZones {
		for _, label := range []string{"", "nothing.", "www.", "x.w.", "w.", "q.w.", "sub.", "ns.sub.", "bounce.", "click.", "_dmarc.", "_domainkey.",
			"s1._domainkey.", "d.", "y.z.", "z.", "host.old.", "x.www.", "*.w."} {
			w.names = append(w.names, parsed(label+zone))
		}
	}
	for i, apex := range []string{"p.example", "q.example"} {
		p := &PlatformPlan{Form: Form, Number: uint32(i + 1), Apex: parsed(apex), Contact: parsed("hostmaster." + apex), Serial: rapid.Uint32().Draw(t, "serial"), Servers: servers,
			NS: []Name{parsed("ns1." + apex), parsed("ns2." + apex)}}
		w.platforms = append(w.platforms, p)
		for _, label := range []string{"", "ns1.", "www.", "mx.", "any.", "dkim.", "shop.", "b.shop.", "x.shop.", "w.", "lab.", "x.lab.", "l.leg.", "x.dkim.", "a.b.shop.", "k.shop."} {
			w.names = append(w.names, parsed(label+apex))
		}
	}
	for i := range 8 {
		token := worldToken(i)
		for _, n := range []string{".ns1.p.example", ".ns2.q.example", ".bounce.p.example", ".click.q.example", ".dkim.p.example", ".dmarc.p.example"} {
			w.names = append(w.names, parsed(token+n))
		}
		w.names = append(w.names, parsed("k1."+token+".dkim.p.example"), parsed("x."+token+".dkim.p.example"), parsed("x."+token+".click.q.example"))
	}
	for _, n := range worldBound {
		w.names = append(w.names, parsed(n))
	}
	for _, p := range w.platforms {
		p.Records = w.records(p.Apex, []string{"@", "www", "mx", "*", "x.shop", "w.shop", "lab", "ns.lab", "leg", "x.www"}, func(s []RRset) bool {
			p.Records = s
			_, err := RenderPlatform(*p)
			return err == nil
		})
	}
	for i := range 2 {
		w.pools = append(w.pools, w.pool(uint32(i+1)))
	}
	return w
}

func worldToken(i int) string { return strings.Repeat(string(rune('a'+i)), tokenLength) }

func (w *world) pool(number uint32) *PoolPlan {
	p := &PoolPlan{Form: Form, Number: number, ID: fmt.Sprint("pool", number), Serial: rapid.Uint32().Draw(w.t, "serial")}
	if rapid.Bool().Draw(w.t, "spf") {
		p.SPF, p.SPFAll = []string{"ip4:192.0.2.0/24"}, "~all"
	}
	if rapid.Bool().Draw(w.t, "mx") {
		p.MX = []MX{{10, rapid.SampledFrom(w.names).Draw(w.t, "host")}, {20, parsed("mx.p.example")}}
	}
	switch rapid.IntRange(0, 2).Draw(w.t, "click") {
	case 1:
		p.ClickA = []netip.Addr{netip.MustParseAddr("192.0.2.80"), netip.MustParseAddr("2001:db8::80")}
	case 2:
		p.ClickCNAME = rapid.SampledFrom(w.names).Draw(w.t, "edge")
	}
	if rapid.Bool().Draw(w.t, "policy") {
		p.DMARC = "v=DMARC1; p=none"
	}
	return p
}

// records draws records that are accepted together.
func (w *world) records(apex Name, owners []string, accepted func([]RRset) bool) []RRset {
	var sets []RRset
	for range rapid.IntRange(0, 8).Draw(w.t, "records") {
		owner := apex
		if label := rapid.SampledFrom(owners).Draw(w.t, "owner"); label != "@" {
			owner = parsed(label + "." + apex.String())
		}
		target := rapid.SampledFrom(w.names).Draw(w.t, "target").String()
		kind := rapid.SampledFrom([]struct {
			t Type
			v string
		}{{TypeA, "192.0.2.9"}, {TypeAAAA, "2001:db8::9"}, {TypeTXT, `"text"`}, {TypeCNAME, target}, {TypeCNAME, target}, {TypeMX, "10 " + target},
			{TypeNS, target}, {TypeNS, "ns." + owner.String()}, {TypeDNAME, target}, {TypeSRV, "0 0 25 " + target}, {TypeDS, "1 13 2 ABCD"}}).Draw(w.t, "type")
		s, err := ParseRRset(owner, kind.t, TTLMail, []string{kind.v})
		if err != nil {
			w.t.Fatal(err)
		}
		if next := append(slices.Clone(sets), s); accepted(next) {
			sets = next
		}
	}
	accepted(sets)
	return sets
}

// plan draws the plan of the i-th claim. Claims never share a target; two to
// the same zone are not both proven, which used sees to.
func (w *world) plan(i int, used map[Name]bool) *Plan {
	p := &Plan{Form: Form, Mode: Delegated, Tenant: rapid.Uint32Range(1, 2).Draw(w.t, "tenant"), Serial: rapid.Uint32().Draw(w.t, "serial"),
		Pool: rapid.Uint32Range(1, 3).Draw(w.t, "pool"), Attachment: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(w.t, "attachment")}
	if rapid.Bool().Draw(w.t, "policy") {
		p.DMARC = "v=DMARC1; p=reject"
	}
	token := worldToken(i)
	if rapid.IntRange(0, 2).Draw(w.t, "mode") == 0 {
		p.Mode = CNAME
		w.targets(p, token, used)
		return p
	}
	p.Zone = parsed(rapid.SampledFrom(worldZones).Draw(w.t, "zone"))
	p.Proven = !used[p.Zone] && rapid.IntRange(0, 3).Draw(w.t, "proven") > 0
	if p.Proven {
		used[p.Zone] = true
	}
	p.Servers = []ServerName{{parsed(token + ".ns1.p.example"), 1, "ns1"}, {parsed(token + ".ns2.q.example"), 2, "ns2"}}
	for _, selector := range []string{"s1", "s2"} {
		if rapid.Bool().Draw(w.t, "key") {
			p.Keys = append(p.Keys, KeyRecord{Owner: child(p.Zone, selector, "_domainkey"), TTL: TTLKey, Payload: "v=DKIM1; p=" + selector})
		}
	}
	p.Records = w.records(p.Zone, worldOwner, func(s []RRset) bool {
		p.Records = s
		_, err := Render(*p)
		return err == nil
	})
	return p
}

func (w *world) targets(p *Plan, token string, used map[Name]bool) {
	take := func(generated string, platform uint32) Target {
		if n := parsed(rapid.SampledFrom(worldBound).Draw(w.t, "bound")); !used[n] && rapid.Bool().Draw(w.t, "bind") {
			used[n] = true
			number := uint32(1)
			if n.In(w.platforms[1].Apex) {
				number = 2
			}
			return Target{n, number}
		}
		return Target{parsed(generated), platform}
	}
	for _, slot := range []string{"k1", "k2", "k3"} {
		t := take(slot+"."+token+".dkim.p.example", 1)
		p.Targets.Keys = append(p.Targets.Keys, t)
		p.Keys = append(p.Keys, KeyRecord{Owner: t.Name, TTL: TTLKey, Payload: "v=DKIM1; p=" + slot})
	}
	p.Targets.Bounce = take(token+".bounce.p.example", 1)
	p.Targets.Click = take(token+".click.q.example", 2)
	p.Targets.DMARC = take(token+".dmarc.p.example", 1)
}

func (w *world) tree() *Tree {
	tree := NewTree()
	e := tree.Edit()
	for _, p := range w.platforms {
		e.SetPlatform(p.Number, must(RenderPlatform(*p)))
	}
	for _, p := range w.pools {
		e.SetPool(p.Number, must(RenderPool(*p)))
	}
	e.Commit()
	return tree
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// claims are the plans of a world as they are now.
type claims map[int]*Plan

func (c claims) used(but int) map[Name]bool {
	used := map[Name]bool{}
	for i, p := range c {
		if i == but {
			continue
		}
		if p.Proven {
			used[p.Zone] = true
		}
		for _, t := range append(slices.Clone(p.Targets.Keys), p.Targets.Bounce, p.Targets.Click, p.Targets.DMARC) {
			used[t.Name] = true
		}
	}
	return used
}

func (c claims) list() (plans []*Plan) {
	for _, p := range c {
		plans = append(plans, p)
	}
	return plans
}

// The tree after any changes is the tree built anew from what is left.
func TestTreeEqualsTheTreeRebuilt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		tree := w.tree()
		have := claims{}
		w.change(tree, have, 12)
		rebuilt := w.tree()
		e := rebuilt.Edit()
		for _, p := range have {
			e.Put("", must(Render(*p)))
		}
		e.Commit()
		if d := tree.Diff(rebuilt); d != nil {
			t.Fatalf("differs from the tree rebuilt:\n%s", strings.Join(d, "\n"))
		}
		if len(tree.ents) != len(rebuilt.ents) {
			t.Fatalf("counts %v, rebuilt %v", tree.ents, rebuilt.ents)
		}
		filled := w.tree()
		e = filled.Edit()
		var list []Branch
		for _, p := range have {
			list = append(list, must(Render(*p)))
		}
		e.fillOn(rapid.IntRange(1, 3).Draw(t, "cores"), list)
		e.Commit()
		if d := filled.Diff(rebuilt); d != nil || !maps.Equal(filled.ents, rebuilt.ents) {
			t.Fatalf("the tree filled differs from the tree rebuilt:\n%s", strings.Join(d, "\n"))
		}
		if filled.common.Load().depths != rebuilt.common.Load().depths {
			t.Fatal("the tree filled looks at other depths")
		}
		e = tree.Edit()
		for _, p := range have {
			e.Put(must(Render(*p)), "")
		}
		e.Commit()
		if d := tree.Diff(w.tree()); d != nil {
			t.Fatalf("not empty after all was removed:\n%s", strings.Join(d, "\n"))
		}
	})
}

// change makes n random changes in commits of one to three.
func (w *world) change(tree *Tree, have claims, n int) {
	e := tree.Edit()
	for range n {
		i := rapid.IntRange(0, 7).Draw(w.t, "claim")
		var old, next Branch
		if p := have[i]; p != nil {
			old = must(Render(*p))
		}
		delete(have, i)
		if rapid.IntRange(0, 3).Draw(w.t, "remove") > 0 {
			have[i] = w.plan(i, have.used(i))
			next = must(Render(*have[i]))
		}
		e.Put(old, next)
		if rapid.IntRange(0, 2).Draw(w.t, "commit") == 0 {
			e.Commit()
			e = tree.Edit()
		}
		if rapid.IntRange(0, 5).Draw(w.t, "pool") == 0 {
			p := w.pool(rapid.Uint32Range(1, 2).Draw(w.t, "number"))
			w.pools[p.Number-1] = p
			e.SetPool(p.Number, must(RenderPool(*p)))
		}
		if rapid.IntRange(0, 5).Draw(w.t, "serials") == 0 {
			p := w.platforms[rapid.IntRange(0, 1).Draw(w.t, "number")]
			p.Serial++
			if rapid.Bool().Draw(w.t, "cheap") {
				e.SetSerial(p.Number, p.Serial)
				e.SetPlatform(p.Number, must(RenderPlatform(*p)))
			} else {
				e.SetPlatform(p.Number, must(RenderPlatform(*p)))
			}
		}
	}
	e.Commit()
}

// Whatever is asked, the tree says what the plain model says.
func TestLookupAgreesWithThePlainModel(t *testing.T) {
	types := []Type{TypeA, TypeAAAA, TypeTXT, TypeMX, TypeNS, TypeSOA, TypeCNAME, TypeDS, TypeANY, TypeDNAME, TypeSRV}
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		tree := w.tree()
		have := claims{}
		w.change(tree, have, 8)
		m := newModel(w.platforms, w.pools, have.list())
		r := NewResponder(tree, "")
		for range 40 {
			n := rapid.SampledFrom(w.names).Draw(t, "name")
			if rapid.IntRange(0, 5).Draw(t, "deeper") == 0 && len(n) < 200 {
				n = child(n, rapid.SampledFrom([]string{"x", "*", "w", "q"}).Draw(t, "label"))
			}
			typ := rapid.SampledFrom(types).Draw(t, "type")
			got := sections(t, r, n, typ)
			want := m.ask(n, typ).lines()
			if !slices.Equal(got, want) {
				t.Fatalf("%s %s:\n  got\n    %s\n  want\n    %s\n%s", n, typ, strings.Join(got, "\n    "), strings.Join(want, "\n    "), w.describe(have))
			}
		}
	})
}

// describe shows the plans of a failure.
func (w *world) describe(have claims) string {
	var b strings.Builder
	for i, p := range have {
		fmt.Fprintf(&b, "claim %d: mode %d tenant %d pool %d zone %s proven %v targets %v\n", i, p.Mode, p.Tenant, p.Pool, p.Zone, p.Proven, p.Targets)
		for _, s := range p.Records {
			fmt.Fprintln(&b, "  ", s.Owner, s.Type, s.Values())
		}
	}
	for _, p := range w.platforms {
		for _, s := range p.Records {
			fmt.Fprintln(&b, p.Apex, s.Owner, s.Type, s.Values())
		}
	}
	for _, p := range w.pools {
		fmt.Fprintf(&b, "%+v\n", *p)
	}
	return b.String()
}

// TestTokensAreToldFromOtherLabels holds the reading of eight octets at a time to
// that of one.
func TestTokensAreToldFromOtherLabels(t *testing.T) {
	token := []byte("abcdefghijklmnopqrstuvwxyz")
	for at := range token {
		for c := range 256 {
			label := slices.Clone(token)
			label[at] = byte(c)
			want := 'a' <= c && c <= 'z' || '2' <= c && c <= '7'
			if got := tokenShaped(label); got != want {
				t.Fatalf("%q: shaped like a token: %t, want %t", label, got, want)
			}
		}
	}
	for _, other := range []string{"", "abcdefghijklmnopqrstuvwxy", "abcdefghijklmnopqrstuvwxyza"} {
		if tokenShaped([]byte(other)) {
			t.Errorf("%q is shaped like a token", other)
		}
	}
}

// TestHashesDoNotDependOnWhatIsBehind: the tail of a label is read with what
// follows it where there is room.
func TestHashesDoNotDependOnWhatIsBehind(t *testing.T) {
	for length := range 64 {
		label := bytes.Repeat([]byte("x"), length)
		tight := slices.Clip(slices.Clone(label))
		roomy := append(slices.Clone(label), "behind it"...)[:length]
		if hashLabel(rootHash, tight) != hashLabel(rootHash, roomy) {
			t.Errorf("a label of %d octets has another hash with room behind it", length)
		}
	}
}

func TestLabelCountsAreGoneThroughFromTheDeepest(t *testing.T) {
	for _, want := range [][]int{{}, {1}, {2, 3, 5}, {63}, {64}, {63, 64}, {1, 63, 64, 127}, {127}} {
		var s labelCounts
		for _, d := range want {
			s.add(d)
		}
		var got []int
		for d := s.atMost(maxLabels); d > 0; d = s.atMost(d - 1) {
			got = append(got, d)
		}
		slices.Reverse(got)
		if !slices.Equal(got, want) {
			t.Errorf("%v are gone through as %v", want, got)
		}
		for d := range maxLabels + 1 {
			if s.has(d) != slices.Contains(want, d) {
				t.Errorf("of %v, has(%d) = %v", want, d, s.has(d))
			}
		}
	}
}

// TestDeepNamesAreAnsweredAsShallowOnes has names of up to 110 labels, with a cut, a
// wildcard and a DNAME on the way.
func TestDeepNamesAreAnsweredAsShallowOnes(t *testing.T) {
	chain := func(n int) string { return strings.Repeat("x.", n) }
	p := delegatedPlan(t, "deep.test", testToken)
	p.Records = []RRset{
		set(t, chain(90)+"a.deep.test", TypeTXT, 300, `"end"`),
		set(t, "*."+chain(70)+"a.deep.test", TypeTXT, 300, `"wild"`),
		set(t, "cut."+chain(80)+"a.deep.test", TypeNS, 300, "ns."+chain(20)+"cut."+chain(80)+"a.deep.test"),
		set(t, "ns."+chain(20)+"cut."+chain(80)+"a.deep.test", TypeA, 300, "192.0.2.9"),
		set(t, "moved."+chain(60)+"a.deep.test", TypeDNAME, 300, "a.deep.test"),
	}
	tree := testTree(t, p)
	for _, c := range []struct {
		name string
		want Outcome
	}{
		{chain(90) + "a.deep.test", Found},
		{chain(91) + "a.deep.test", NoName},
		{chain(45) + "a.deep.test", NoData},
		{"y." + chain(70) + "a.deep.test", Found},
		{"y.y.y." + chain(70) + "a.deep.test", Found},
		{"y." + chain(71) + "a.deep.test", NoName},
		{"cut." + chain(80) + "a.deep.test", Referral},
		{chain(10) + "cut." + chain(80) + "a.deep.test", Referral},
		{"ns." + chain(20) + "cut." + chain(80) + "a.deep.test", Referral},
		{"below.ns." + chain(20) + "cut." + chain(80) + "a.deep.test", Referral},
		{chain(90) + "moved.a.deep.test", NoName},
		{chain(25) + "moved." + chain(60) + "a.deep.test", NoData},
		{"moved." + chain(60) + "a.deep.test", NoData},
	} {
		var q query
		if v := q.parse(ask(t, c.name+".", uint16(TypeTXT))); v != genuine {
			t.Fatalf("%s: verdict %d", c.name, v)
		}
		var a answer
		tree.lookup(&q, &a)
		if a.outcome != c.want {
			t.Errorf("%s: outcome %d, want %d", c.name, a.outcome, c.want)
		}
	}
}

// Whatever is put in and taken out, in whatever order and however names fall on
// each other, what is there is found and nothing else.
func TestShardFindsWhatItHolds(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		s := new(shard)
		held := make(map[uint64]Branch)
		for step := range 100 {
			key := uint64(random.IntN(12)) << 28 // of 2^32: they share homes
			if b, ok := held[key]; ok {
				s.remove(key, b)
				delete(held, key)
			} else {
				held[key] = Branch(fmt.Sprint(key, step))
				s.insert(key, held[key])
			}
			if s.used != len(held) {
				t.Fatalf("%d slots are used for %d branches", s.used, len(held))
			}
			for key, b := range held {
				if _, ok := s.index(key, b); !ok {
					t.Fatalf("after %d steps key %x is lost", step, key)
				}
			}
		}
	}
}
