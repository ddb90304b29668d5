package zone

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// realm is a tree with what it holds written out as zones, for other servers.
type realm struct {
	*testing.T
	random *rand.Rand
	tree   *Tree
	zones  []realmZone
	owners []Name // of records, and the names above them
	cuts   []Name // owners of NS and DNAME that are no apex
}

// realmZone is a zone as text has it.
type realmZone struct {
	apex   Name
	tenant uint32 // 0: a platform zone
	sets   []RRset
}

// Sizes of a realm. More zones say no more: what matters is how names lie within
// one, and beside those of another.
const (
	realmZones   = 16
	realmRecords = 40 // of one zone
)

// newRealm draws zones of three tenants, domains in mode CNAME and a platform
// zone, all with extra records of many kinds.
func newRealm(t *testing.T, seed uint64) *realm {
	w := &realm{T: t, random: rand.New(rand.NewPCG(seed, 1)), tree: NewTree()}
	e := w.tree.Edit()
	pool := mustRenderPool(t, testPool(t))
	e.SetPool(1, pool)
	platform := w.platform()
	rendered := mustRenderPlatform(t, platform)
	e.SetPlatform(1, rendered)
	own := realmZone{apex: platform.Apex, sets: rendered.Served()}
	for i := range realmZones {
		apex := fmt.Sprintf("z%d.customer.test", i)
		if i >= realmZones-2 { // within another of the same tenant
			apex = fmt.Sprintf("b.z%d.customer.test", i-realmZones+2)
		}
		p := delegatedPlan(t, apex, w.token(i))
		p.Tenant = uint32(i%(realmZones-2)%3) + 1
		p.Records = w.records(p.Zone, func(sets []RRset) bool {
			try := p
			try.Records = sets
			_, err := Render(try)
			return err == nil
		})
		b := mustRender(t, p)
		e.Put("", b)
		zone := realmZone{apex: p.Zone, tenant: p.Tenant}
		for _, s := range Served(b, pool, []*Platform{rendered}) {
			if s.Owner.In(p.Zone) {
				zone.sets = append(zone.sets, s)
			} else {
				own.sets = append(own.sets, s)
			}
		}
		w.zones = append(w.zones, zone)
	}
	for i := range 4 {
		p := cnamePlan(t, w.token(realmZones+i))
		p.Tenant = uint32(i%3) + 1
		if i%2 == 0 {
			p.DMARC = "v=DMARC1; p=none"
		}
		b := mustRender(t, p)
		e.Put("", b)
		own.sets = append(own.sets, Served(b, pool, []*Platform{rendered})...)
	}
	e.Commit()
	w.zones = append(w.zones, own)
	w.survey()
	return w
}

// token is the i-th, 26 base32 characters.
func (w *realm) token(i int) string { return fmt.Sprintf("%c%s", 'a'+i, testToken[:25]) }

func (w *realm) pick(from ...string) string { return from[w.random.IntN(len(from))] }

// platform draws an operator's records.
func (w *realm) platform() PlatformPlan {
	p := testPlatform(w.T)
	p.Records = append(p.Records, w.records(p.Apex, func(sets []RRset) bool {
		try := p
		try.Records = append(slices.Clone(p.Records), sets...)
		_, err := RenderPlatform(try)
		return err == nil
	})...)
	return p
}

// records draws extra records that a zone can have together.
func (w *realm) records(apex Name, good func([]RRset) bool) []RRset {
	var sets []RRset
	for len(sets) < realmRecords {
		more := w.draw(apex)
		if next := append(slices.Clone(sets), more...); good(next) {
			sets = next
		}
	}
	return sets
}

var realmLabels = []string{"a", "b", "c", "a.b", "*", "*.a", "www", "_sip._tcp", "ent.deep", `o\.dd`, `n\000l.b`, `h\255h`, "xyz", "mail"}

func (w *realm) owner(apex Name) Name {
	text := w.pick(realmLabels...)
	for w.random.IntN(3) == 0 {
		text = w.pick("a", "b", "c", "x", "xyz") + "." + text
	}
	if w.random.IntN(12) == 0 {
		return apex
	}
	return name(w.T, text+"."+apex.String())
}

// target is a name that may lie anywhere.
func (w *realm) target(apex Name) string {
	switch w.random.IntN(8) {
	case 0:
		return "host.elsewhere.example."
	case 1:
		return w.pick("www", "mx1", "nothing", "a", "b.a") + ".p.example."
	case 2:
		return w.owner(name(w.T, fmt.Sprintf("z%d.customer.test", w.random.IntN(realmZones-2)))).String()
	case 3:
		return w.pick("nothing", "_domainkey", "click", "bounce") + "." + apex.String()
	case 4:
		if w.random.IntN(2) == 0 {
			return w.pick("b.z0", "b.z1") + ".customer.test."
		}
	}
	return w.owner(apex).String()
}

// draw is one RRset, or a delegation with what belongs to it.
func (w *realm) draw(apex Name) []RRset {
	owner := w.owner(apex)
	text := owner.String()
	ttl := []uint32{60, 300, 3600, 86400}[w.random.IntN(4)]
	one := func(typ Type, values ...string) []RRset { return []RRset{set(w.T, text, typ, ttl, values...)} }
	address := fmt.Sprintf("192.0.2.%d", w.random.IntN(250)+1)
	switch w.random.IntN(18) {
	case 0, 1:
		return one(TypeA, address, "192.0.2.251")
	case 2:
		return one(TypeAAAA, "2001:db8::1:"+fmt.Sprint(w.random.IntN(99)))
	case 3:
		ttl = TTLMail
		return one(TypeTXT, fmt.Sprintf(`"text %d" "and more"`, w.random.IntN(1000)))
	case 4:
		return one(TypeMX, "10 "+w.target(apex), "20 "+w.target(apex))
	case 5:
		return one(TypeSRV, "1 2 5060 "+w.target(apex))
	case 6, 7, 8:
		return one(TypeCNAME, w.target(apex))
	case 9, 10:
		if apex.Label() == "b" || owner.In(child(apex, "b")) {
			break // NSD refuses a DNAME that has names of another zone below it
		}
		return one(TypeDNAME, w.target(apex))
	case 11, 12:
		return w.delegation(text, ttl)
	case 13:
		return one(Type(dns.TypeCAA), `0 issue "ca.example"`)
	case 14:
		return one(Type(65280), `\# 3 c0ffee`)
	case 15:
		return one(Type(dns.TypeHTTPS), "1 . alpn=h2")
	case 16:
		return one(TypePTR, w.target(apex))
	}
	long := make([]string, 30) // too much for one datagram
	for i := range long {
		long[i] = fmt.Sprintf(`"%d %s"`, i, strings.Repeat("x", 50))
	}
	ttl = TTLMail
	return one(TypeTXT, long...)
}

// delegation is a cut, with servers below it, beside it or elsewhere.
func (w *realm) delegation(owner string, ttl uint32) []RRset {
	below := []string{"ns." + owner, "ns2." + owner}
	switch w.random.IntN(4) {
	case 0:
		return []RRset{set(w.T, owner, TypeNS, ttl, "ns.elsewhere.example.", "ns1.p.example.")}
	case 1:
		return []RRset{set(w.T, owner, TypeNS, ttl, below[0], "ns.elsewhere.example."), set(w.T, below[0], TypeA, ttl, "192.0.2.53")}
	case 2:
		return []RRset{set(w.T, owner, TypeNS, ttl, below...), set(w.T, below[0], TypeA, ttl, "192.0.2.53"),
			set(w.T, below[0], TypeAAAA, ttl, "2001:db8::53"), set(w.T, below[1], TypeA, ttl, "192.0.2.54")}
	}
	return []RRset{set(w.T, owner, TypeNS, ttl, below[0]), set(w.T, below[0], TypeA, ttl, "192.0.2.53"),
		set(w.T, owner, TypeDS, ttl, "1 13 2 "+strings.Repeat("ab", 32))}
}

// survey lists the names of the realm.
func (w *realm) survey() {
	seen := map[Name]bool{}
	for _, z := range w.zones {
		for _, s := range z.sets {
			for n := s.Owner; n.In(z.apex) && !seen[n]; n = n.Parent() {
				seen[n] = true
				w.owners = append(w.owners, n)
			}
			if (s.Type == TypeNS || s.Type == TypeDNAME) && s.Owner != z.apex {
				w.cuts = append(w.cuts, s.Owner)
			}
		}
	}
}

// text is a zone as RFC 1035 section 5 has it.
func (z realmZone) text() string {
	var b strings.Builder
	for _, s := range z.sets {
		for _, v := range s.Values() {
			fmt.Fprintf(&b, "%s %d IN %s %s\n", s.Owner, s.TTL, s.Type, v)
		}
	}
	return b.String()
}

// question is one to all servers.
type question struct {
	name   Name
	qtype  Type
	tcp    bool
	packet []byte
}

func (q question) String() string {
	way := "UDP"
	if q.tcp {
		way = "TCP"
	}
	return fmt.Sprintf("%s %s over %s %x", q.name, q.qtype, way, q.packet)
}

// question draws one.
func (w *realm) question() question {
	q := question{name: w.askedName(), tcp: w.random.IntN(10) == 0}
	q.qtype = w.askedType(q.name)
	head := []byte{byte(w.random.IntN(256)), byte(w.random.IntN(256)), 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	if w.random.IntN(2) == 0 {
		head[2] |= 0x01 // RD
	}
	if w.random.IntN(4) == 0 {
		head[3] |= 0x10 // CD
	}
	if w.random.IntN(4) == 0 {
		head[3] |= 0x20 // AD
	}
	q.packet = head
	mixed := w.random.IntN(2) == 0
	for _, c := range []byte(q.name) {
		if mixed && c >= 'a' && c <= 'z' && w.random.IntN(2) == 0 { // no length octet is a letter
			c -= 'a' - 'A'
		}
		q.packet = append(q.packet, c)
	}
	q.packet = append(q.packet, byte(q.qtype>>8), byte(q.qtype), 0, classIN)
	return w.withOPT(q)
}

// withOPT adds EDNS, in most of the ways it comes.
func (w *realm) withOPT(q question) question {
	if w.random.IntN(3) == 0 {
		return q
	}
	size := []uint16{512, 1232, 1232, 4096, 100, 65535}[w.random.IntN(6)]
	var version, flags byte
	var options []byte
	switch w.random.IntN(12) {
	case 0:
		version = byte(w.random.IntN(255)) + 1
	case 1:
		flags = 0x40 // a flag that nobody knows
	case 2, 3:
		flags = 0x80 // DO
	case 4:
		options = []byte{0xfd, 0xe9, 0, 2, 1, 2} // 65001, which nobody knows
	}
	q.packet[11] = 1
	q.packet = append(q.packet, 0, 0, 41, byte(size>>8), byte(size), 0, version, flags, 0, 0, byte(len(options)))
	q.packet = append(q.packet, options...)
	return q
}

// askedName draws a name: one that is there, a missing one, one below, one beside.
func (w *realm) askedName() Name {
	n := w.owners[w.random.IntN(len(w.owners))]
	label := func() string { return w.pick("nothing", "a", "b", "*", "ns", "xyz", `q\.q`, "0") }
	below := func(n Name, labels ...string) Name {
		for _, l := range labels {
			if out, err := n.Child(name(w.T, l).Label()); err == nil {
				n = out
			}
		}
		return n
	}
	switch w.random.IntN(10) {
	case 0:
		return below(n, label())
	case 1:
		return below(n, label(), label())
	case 2:
		return below(n.Parent(), label())
	case 3:
		return below(w.cuts[w.random.IntN(len(w.cuts))], label())
	case 4:
		return w.cuts[w.random.IntN(len(w.cuts))]
	case 5:
		if n.Label() == "*" {
			return below(n.Parent(), label())
		}
	case 6:
		if w.random.IntN(20) == 0 {
			return name(w.T, w.pick("elsewhere.example.", "customer.test.", "test.", "example.", "a.b.c.", "."))
		}
	}
	return n
}

func (w *realm) askedType(n Name) Type {
	if w.random.IntN(2) == 0 {
		var there []Type
		for _, z := range w.zones {
			for _, s := range z.sets {
				if s.Owner == n {
					there = append(there, s.Type)
				}
			}
		}
		if len(there) > 0 {
			return there[w.random.IntN(len(there))]
		}
	}
	types := []Type{TypeA, TypeA, TypeAAAA, TypeNS, TypeSOA, TypeCNAME, TypeDNAME, TypeDS, TypeDS, TypeTXT, TypeMX, TypeSRV, TypePTR, TypeANY,
		65280, 65281, Type(dns.TypeHTTPS), Type(dns.TypeCAA), Type(dns.TypeDNSKEY), Type(dns.TypeNSEC), Type(dns.TypeRRSIG), Type(dns.TypeNULL)}
	return types[w.random.IntN(len(types))]
}
