package zone

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// model answers questions from plans by searching lists, with nothing in common
// with the tree but the standards: what it says is right because it is slow and
// plain.
type model struct {
	zones []*modelZone
	pools map[uint32]*PoolPlan
}

type modelZone struct {
	apex   Name
	tenant uint32 // 0: a platform zone
	soa    string // RDATA in presentation form
	sets   map[Name][]RRset
	owners map[Name]uint32 // platform zone: the tenant of a target
	cover  map[Name]bool   // platform zone: targets, which hide an operator's records of the same name
}

func newModel(platforms []*PlatformPlan, pools []*PoolPlan, plans []*Plan) *model {
	m := &model{pools: map[uint32]*PoolPlan{}}
	for _, p := range pools {
		m.pools[p.Number] = p
	}
	numbers := map[uint32]*modelZone{}
	servers := map[string]NameServer{}
	contact := map[uint32]Name{}
	for _, p := range platforms {
		z := m.zone(p.Apex, 0, fmt.Sprintf("%s %s %d 7200 1800 1209600 300", p.NS[0], p.Contact, p.Serial))
		numbers[p.Number], contact[p.Number] = z, p.Contact
		z.add(namesRRset(p.Apex, TypeNS, TTLNS, p.NS))
		for _, label := range []string{"dkim", "bounce", "click", "dmarc", "spf"} {
			z.exists(child(p.Apex, label))
		}
		for _, s := range p.Servers {
			servers[s.Label] = s
			z.addresses(child(p.Apex, s.Label), TTLServer, s)
		}
		for _, s := range p.Records {
			z.add(s)
		}
	}
	for _, p := range plans {
		for _, s := range p.Servers {
			z := numbers[s.Platform]
			z.target(s.Name, p.Tenant)
			z.addresses(s.Name, TTLServer, servers[s.Server])
		}
		if p.Mode == CNAME {
			m.addTargets(numbers, p)
		} else if p.Proven {
			m.addZone(p, contact[p.Servers[0].Platform])
		}
	}
	return m
}

func child(n Name, labels ...string) Name {
	c, err := n.Child(labels...)
	if err != nil {
		panic(err)
	}
	return c
}

func (m *model) zone(apex Name, tenant uint32, soa string) *modelZone {
	z := &modelZone{apex: apex, tenant: tenant, soa: soa, sets: map[Name][]RRset{}, owners: map[Name]uint32{}, cover: map[Name]bool{}}
	z.exists(apex)
	m.zones = append(m.zones, z)
	return z
}

func (z *modelZone) exists(n Name) { z.sets[n] = append(z.sets[n], nil...) }

// target makes a name a tenant's; an operator's records there are hidden.
func (z *modelZone) target(n Name, tenant uint32) {
	z.sets[n] = nil
	z.owners[n], z.cover[n] = tenant, true
}

func (z *modelZone) add(s RRset) {
	for i, have := range z.sets[s.Owner] {
		if have.Type == s.Type { // a pool's SPF and the texts beside it
			have.Data = sortData(slices.Concat(have.Data, s.Data))
			z.sets[s.Owner][i] = have
			return
		}
	}
	if len(s.Data) > 0 {
		z.sets[s.Owner] = append(z.sets[s.Owner], s)
	}
}

func (z *modelZone) addresses(n Name, ttl uint32, s NameServer) {
	for _, a := range s.Addresses {
		t := TypeA
		if a.Is6() {
			t = TypeAAAA
		}
		z.add(RRset{Owner: n, Type: t, TTL: ttl, Data: [][]byte{a.AsSlice()}})
	}
}

func (z *modelZone) addMail(n Name, pool *PoolPlan) {
	if pool == nil {
		return
	}
	for _, mx := range pool.MX {
		z.add(RRset{Owner: n, Type: TypeMX, TTL: TTLMail, Data: [][]byte{append([]byte{byte(mx.Preference >> 8), byte(mx.Preference)}, mx.Host...)}})
	}
	if len(pool.SPF) > 0 {
		z.add(TextRRset(n, TTLMail, "v=spf1 "+strings.Join(pool.SPF, " ")+" "+pool.SPFAll))
	}
}

func (z *modelZone) addClick(n Name, pool *PoolPlan) {
	if pool == nil {
		return
	}
	if pool.ClickCNAME != "" {
		z.add(namesRRset(n, TypeCNAME, TTLClick, []Name{pool.ClickCNAME}))
	}
	z.addresses(n, TTLClick, NameServer{Addresses: pool.ClickA})
}

func (m *model) addTargets(numbers map[uint32]*modelZone, p *Plan) {
	pool := m.pools[p.Pool]
	put := func(t Target, fill func(z *modelZone)) {
		if t.Name == "" {
			return
		}
		z := numbers[t.Platform]
		z.target(t.Name, p.Tenant)
		fill(z)
	}
	for _, t := range p.Targets.Keys {
		put(t, func(z *modelZone) {
			if up := t.Name.Parent(); len(up.Label()) == tokenLength {
				z.owners[up] = p.Tenant // empty, but this tenant's
			}
			for _, k := range p.Keys {
				if k.Owner == t.Name {
					z.add(TextRRset(k.Owner, k.TTL, k.Payload))
				}
			}
		})
	}
	put(p.Targets.Bounce, func(z *modelZone) { z.addMail(p.Targets.Bounce.Name, pool) })
	put(p.Targets.Click, func(z *modelZone) { z.addClick(p.Targets.Click.Name, pool) })
	if p.DMARC != "" {
		put(p.Targets.DMARC, func(z *modelZone) { z.add(TextRRset(p.Targets.DMARC.Name, TTLPolicy, p.DMARC)) })
	}
}

func (m *model) addZone(p *Plan, contact Name) {
	pool := m.pools[p.Pool]
	serial := p.Serial
	if pool != nil {
		serial += pool.Serial
	}
	z := m.zone(p.Zone, p.Tenant, fmt.Sprintf("%s %s %d 7200 1800 1209600 300", p.Servers[0].Name, contact, serial))
	var ns []Name
	for _, s := range p.Servers {
		ns = append(ns, s.Name)
	}
	z.add(namesRRset(p.Zone, TypeNS, TTLNS, ns))
	z.addMail(p.Zone, pool)
	z.addMail(child(p.Zone, "bounce"), pool)
	z.addClick(child(p.Zone, "click"), pool)
	z.exists(child(p.Zone, "_domainkey"))
	switch {
	case p.DMARC != "":
		z.add(TextRRset(child(p.Zone, "_dmarc"), TTLPolicy, p.DMARC))
	case pool != nil && pool.DMARC != "":
		z.add(TextRRset(child(p.Zone, "_dmarc"), TTLPolicy, pool.DMARC))
	}
	for _, k := range p.Keys {
		z.add(TextRRset(k.Owner, k.TTL, k.Payload))
	}
	for _, s := range p.Records {
		z.add(s)
	}
}

// modelReply is what the model says, as printReply would print it.
type modelReply struct {
	rcode                         string
	aa                            bool
	answer, authority, additional []string
}

func (r *modelReply) lines() []string {
	head := "reply " + r.rcode
	if r.aa {
		head += " aa"
	}
	for _, section := range [][]string{r.answer, r.authority, r.additional} {
		slices.Sort(section)
	}
	return slices.Concat([]string{head}, r.answer, r.authority, r.additional)
}

// print shows one RRset of a section.
func print(section string, owner Name, s RRset) []string {
	var lines []string
	for _, v := range s.Values() {
		lines = append(lines, fmt.Sprintf("%s %s %d %s %s", section, owner, s.TTL, s.Type, v))
	}
	return lines
}

func (z *modelZone) printSOA(section string, ttl int) string {
	return fmt.Sprintf("%s %s %d SOA %s", section, z.apex, ttl, z.soa)
}

// has says whether a name exists in the zone: it or a name below it is there,
// zones cut out of it included (RFC 8020).
func (m *model) has(z *modelZone, n Name) bool {
	for have := range z.sets {
		if have.In(n) {
			return true
		}
	}
	for _, other := range m.zones {
		if other != z && other.apex.In(z.apex) && other.apex.In(n) && other.apex != n {
			return true
		}
	}
	return false
}

func (z *modelZone) set(n Name, t Type) (RRset, bool) {
	for _, s := range z.sets[n] {
		if s.Type == t {
			return s, true
		}
	}
	return RRset{}, false
}

// closest is the zone with the longest apex at or above a name.
func (m *model) closest(n Name, above bool) *modelZone {
	var best *modelZone
	for _, z := range m.zones {
		if n.In(z.apex) && (!above || n != z.apex) && (best == nil || z.apex.Labels() > best.apex.Labels()) {
			best = z
		}
	}
	return best
}

// suffixes are the names from just below the apex, or below the lowest target
// above n, down to n: a target is found whatever an operator has above it.
func (z *modelZone) suffixes(n Name) (start Name, list []Name) {
	for start = n; start != z.apex && !z.cover[start]; start = start.Parent() {
		list = append(list, start)
	}
	slices.Reverse(list)
	return start, list
}

// ask answers a question.
func (m *model) ask(n Name, t Type) *modelReply {
	r := &modelReply{rcode: "NOERROR"}
	var tenant uint32
	seen := map[Name]bool{n: true}
	var hosts []Name
	var referred *modelZone
	for hops := 0; ; hops++ {
		z := m.closest(n, false)
		apexDS := t == TypeDS && z != nil && n == z.apex
		if apexDS {
			if up := m.closest(n, true); up != nil {
				z = up
			} else {
				apexDS = false
			}
		}
		if z == nil && hops == 0 {
			r.rcode = "REFUSED"
			return r
		}
		r.aa = r.aa || hops == 0
		if z == nil || hops == maxHops {
			return r
		}
		owner := cmp.Or(z.tenant, z.owners[n])
		if owner != 0 && tenant != 0 && owner != tenant {
			return r
		}
		tenant = cmp.Or(tenant, owner)
		next, targets := m.step(r, z, n, t, hops, apexDS)
		if next == "" {
			hosts = targets
			if r.rcode == "referral" {
				r.rcode, referred = "NOERROR", z
			}
			break
		}
		if seen[next] {
			return r
		}
		n, seen[next] = next, true
	}
	m.addHosts(r, hosts, tenant, referred)
	return r
}

// step asks one zone: the next name of the chain or the hosts to add.
func (m *model) step(r *modelReply, z *modelZone, n Name, t Type, hops int, apexDS bool) (next Name, hosts []Name) {
	encloser, below := z.suffixes(n)
	for _, s := range below {
		if !m.has(z, s) {
			break
		}
		encloser = s
		if cut, ok := z.set(s, TypeNS); ok && (s != n || t != TypeDS) {
			r.authority = print("authority", s, cut)
			r.aa = r.aa && hops > 0
			r.rcode = "referral"
			return "", targets(cut)
		}
		if d, ok := z.set(s, TypeDNAME); ok && s != n {
			r.tell(print("answer", s, d))
			made := string(n[:len(n)-len(s)]) + string(d.Data[0])
			if len(made) > maxName {
				r.rcode = "YXDOMAIN"
				return "", nil
			}
			r.answer = append(r.answer, fmt.Sprintf("answer %s %d CNAME %s", n, d.TTL, Name(made)))
			if t == TypeCNAME || t == TypeANY {
				return "", nil
			}
			return Name(made), nil
		}
	}
	source := n
	if encloser != n {
		source = Name("\x01*" + string(encloser))
		if !m.has(z, source) && !apexDS {
			r.rcode = "NXDOMAIN"
		}
		if !m.has(z, source) || apexDS {
			r.authority = []string{z.printSOA("authority", TTLNegative)}
			return "", nil
		}
	}
	return m.stepAt(r, z, n, source, t)
}

func (m *model) stepAt(r *modelReply, z *modelZone, n, source Name, t Type) (next Name, hosts []Name) {
	if t == TypeANY && (len(z.sets[source]) > 0 || source == z.apex) {
		r.answer = append(r.answer, fmt.Sprintf("answer %s 3600 HINFO \"RFC8482\" \"\"", n))
		return "", nil
	}
	if c, ok := z.set(source, TypeCNAME); ok && t != TypeCNAME {
		r.answer = append(r.answer, print("answer", n, c)...)
		return Name(c.Data[0]), nil
	}
	if t == TypeSOA && source == z.apex {
		r.answer = append(r.answer, z.printSOA("answer", TTLSOA))
		return "", nil
	}
	s, ok := z.set(source, t)
	if !ok {
		r.authority = []string{z.printSOA("authority", TTLNegative)}
		return "", nil
	}
	r.tell(print("answer", n, s))
	return "", targets(s)
}

// tell adds an RRset to the answer section, once: a chain may come by a DNAME twice.
func (r *modelReply) tell(lines []string) {
	if !slices.Contains(r.answer, lines[0]) {
		r.answer = append(r.answer, lines...)
	}
}

// targets are the hosts that a set's records name.
func targets(s RRset) []Name {
	at, ok := targetOffset(s.Type)
	if !ok || s.Type == TypeCNAME || s.Type == TypeDNAME || s.Type == TypePTR {
		return nil
	}
	var list []Name
	for _, d := range s.Data {
		if n := Name(d[at:]); !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// addHosts adds addresses; referred is the zone of a referral, whose glue counts.
func (m *model) addHosts(r *modelReply, hosts []Name, tenant uint32, referred *modelZone) {
	for _, h := range hosts {
		z := m.closest(h, false)
		if z == nil {
			continue
		}
		if owner := cmp.Or(z.tenant, z.owners[h]); owner != 0 && owner != tenant {
			continue
		}
		below := false
		_, list := z.suffixes(h)
		for _, s := range list {
			_, cut := z.set(s, TypeNS)
			_, dname := z.set(s, TypeDNAME)
			below = below || cut || dname && s != h
		}
		if below && referred == nil {
			continue
		}
		for _, t := range []Type{TypeA, TypeAAAA} {
			if s, ok := z.set(h, t); ok {
				r.additional = append(r.additional, print("additional", h, s)...)
			}
		}
	}
}
