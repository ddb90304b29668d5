package zone

import "slices"

// view is the part of the tree that is asked about a name: a customer's zone, a
// platform zone, or a target within one.
type view struct {
	b        block
	anchor   anchor
	depth    int            // labels of the anchor
	apex     int            // labels of the zone: the anchor's own, but for targets
	platform *platformEntry // whose zone it is, or that gives the contact
	pool     *Pool          // nil for platform zones, and where there is none
	common   *common
	// parent: the question is for DS at the apex of a zone below, which exists
	// here whatever the zone holds (RFC 4035 section 3.1.4.1).
	parent bool
}

// step is what a zone says of a name.
type step uint8

const (
	done   step = iota // the answer is complete
	follow             // a.name is another name now
)

// lookup fills a with what the tree holds for the question. It depends on
// q.asked and q.qtype alone; class and opcode are the caller's.
//
// It is the algorithm of RFC 1034 section 4.3.2, with RFC 2308, RFC 4592, RFC
// 6604 and RFC 6672. Chains cross within one tenant's zones and the platform's
// only.
func (t *Tree) lookup(q *query, a *answer) {
	a.reset(q)
	for {
		v, from, ok := t.locate(a.name, q.qtype == TypeDS)
		if ok && a.hops == 0 {
			a.aa = true
		}
		if !ok || !a.enter(&v) {
			if a.hops > 0 {
				a.end(Alias, rcodeSuccess)
			}
			break
		}
		if t.search(q, a, &v, from) == done {
			break
		}
	}
	if a.authority == 0 {
		a.answers = a.used
	}
	t.addresses(a)
}

// locate finds the longest anchor or platform zone above or at a name, and how
// many of its labels certainly exist. For a DS question the zone whose apex the
// name is stands back for the one above it.
func (t *Tree) locate(p *path, ds bool) (v view, from int, ok bool) {
	c := t.common.Load()
	var child view
	skipped := false
	for d := p.count; d > 0; d-- {
		v, ok := t.viewAt(c, p, d)
		if !ok {
			continue
		}
		if ds && d == p.count && v.apex == d && !skipped {
			child, skipped = v, true
			continue
		}
		v.parent = skipped
		if v.anchor.kind == anchorTarget {
			v, from := v.around(p)
			return v, from, true
		}
		return v, v.depth, true
	}
	return child, child.depth, skipped
}

// around gives the platform zone of a target for the names below it that are not
// the target's own: an operator may have records there.
func (v view) around(p *path) (view, int) {
	if _, ok := v.node(p, p.count); ok {
		return v, v.depth
	}
	from := v.depth
	for {
		if _, ok := v.node(p, from+1); !ok {
			return platformView(v.platform, v.common), from
		}
		from++
	}
}

// viewAt is the anchor or platform zone with exactly the suffix of d labels.
func (t *Tree) viewAt(c *common, p *path, d int) (view, bool) {
	if key, ok := p.tokenKey(d); ok {
		if b, a, ok := t.find(p, d, key); ok {
			return t.view(b, a, p, d)
		}
	}
	if c.deep(d) {
		if b, a, ok := t.find(p, d, p.hash[d]); ok {
			return t.view(b, a, p, d)
		}
	}
	for _, z := range c.platforms {
		if z.labels == d && z.hash == p.hash[d] && string(z.apex) == string(p.suffix(d)) {
			return platformView(z, c), true
		}
	}
	return view{}, false
}

func platformView(z *platformEntry, c *common) view {
	return view{b: z.block, anchor: anchor{kind: anchorPlatform, name: string(z.apex)},
		depth: z.labels, apex: z.labels, platform: z, common: c}
}

// view is a branch seen through one of its anchors. The shared tables are read
// anew: they were published before the branch was.
func (t *Tree) view(b Branch, an anchor, p *path, d int) (view, bool) {
	c := t.common.Load()
	v := view{b: block(b), anchor: an, depth: d, apex: d, common: c,
		platform: c.platform(an.platform), pool: c.pools[u32(block(b), atPool)]}
	if an.kind == anchorTarget {
		if v.platform == nil || v.platform.labels > d || v.platform.hash != p.hash[v.platform.labels] {
			return view{}, false // its platform zone is not there
		}
		v.apex = v.platform.labels
	}
	return v, true
}

// enter says whether a chain may go on in a view, and binds it to the tenant of
// the first branch.
func (a *answer) enter(v *view) bool {
	if v.anchor.kind == anchorPlatform {
		return true
	}
	tenant := u32(v.b, atTenant)
	if a.bound {
		return a.tenant == tenant
	}
	a.tenant, a.bound = tenant, true
	return true
}

// search asks one zone for the last name of the chain, of which the suffix of
// from labels exists and is no cut.
func (t *Tree) search(q *query, a *answer, v *view, from int) step {
	p := a.name
	if v.b[atFlags]&flagCuts == 0 { // nothing can be hidden: the name itself first
		if n, ok := v.node(p, p.count); ok {
			return v.answer(q, a, n)
		}
	}
	encloser := from // labels of the closest encloser (RFC 4592 section 3.3.1)
	report, reports := node{}, 0
	for d := from + 1; d <= p.count; d++ {
		n, ok := v.node(p, d)
		if !ok {
			if !v.common.deep(d) || !t.ent(p, d) {
				break
			}
			encloser = d
			continue
		}
		encloser = d
		switch {
		case n.has(nodeCut) && (d < p.count || q.qtype != TypeDS):
			return v.refer(a, n, d)
		case n.has(nodeDNAME) && d < p.count:
			return v.dname(q, a, n, d)
		case d == p.count:
			return v.answer(q, a, n)
		case n.has(nodeReport):
			report, reports = n, d
		}
	}
	switch {
	case encloser == p.count && p.count == v.depth:
		if n, ok := v.node(p, p.count); ok {
			return v.answer(q, a, n)
		}
	case encloser == p.count || v.parent:
	case reports > 0:
		s := t.report(q, a, v, report, reports)
		if a.outcome == NoData { // any name below has none
			a.from(p.hash[reports])
		}
		return s
	default:
		labels := p.name[p.offset[encloser] : p.length-len(v.anchor.name)]
		if n, ok := findWildcard(v.b, v.anchor.index, p.hash[encloser], labels); ok {
			a.from(hashLabel(p.hash[encloser], []byte{'*'}))
			return v.answer(q, a, n)
		}
		a.from(p.hash[v.apex])
		return v.negative(a, NoName, rcodeNXDomain)
	}
	return v.negative(a, NoData, rcodeSuccess)
}

// node finds the node with the suffix of d labels, if the name exists: a
// managed name that a pool leaves empty does not.
func (v *view) node(p *path, d int) (node, bool) {
	labels := p.name[p.offset[d] : p.length-len(v.anchor.name)]
	n, ok := findNode(v.b, v.anchor.index, p.hash[d], labels)
	return n, ok && v.exists(n)
}

func (v *view) exists(n node) bool {
	if n.has(nodeBelow) || n.sets() > 0 {
		return true
	}
	pool := v.pool
	switch {
	case pool == nil:
		return false
	case n.has(nodeMail):
		return pool.mx.count+pool.spf.count > 0
	case n.has(nodeClick):
		return pool.clickA.count+pool.clickAAAA.count+pool.clickCNAME.count > 0
	case n.has(nodePolicy):
		return pool.policy.count > 0
	}
	return false
}

// shared is what a node has of a type that is not its own: the pool's share and
// the addresses of name servers.
func (v *view) shared(n node, t Type) records {
	if n.has(nodeServer) {
		return v.serverAddress(n, t)
	}
	pool := v.pool
	switch {
	case pool == nil:
	case n.has(nodeMail) && t == TypeMX:
		return pool.mx
	case n.has(nodeMail) && t == TypeTXT:
		return pool.spf
	case n.has(nodeClick) && t == TypeA:
		return pool.clickA
	case n.has(nodeClick) && t == TypeAAAA:
		return pool.clickAAAA
	case n.has(nodeClick) && t == TypeCNAME:
		return pool.clickCNAME
	case n.has(nodePolicy) && t == TypeTXT:
		return pool.policy
	}
	return records{}
}

func (v *view) serverAddress(n node, t Type) records {
	if v.platform == nil {
		return records{}
	}
	s := v.platform.server(n.server())
	switch {
	case s == nil:
	case t == TypeA:
		return s.a
	case t == TypeAAAA:
		return s.aaaa
	}
	return records{}
}

// answer answers from one node: step 3a of the algorithm.
func (v *view) answer(q *query, a *answer, n node) step {
	if q.qtype == TypeANY {
		if !v.hasData(n) {
			return v.negative(a, NoData, rcodeSuccess)
		}
		a.minimal = true
		a.end(Found, rcodeSuccess)
		return done
	}
	if q.qtype != TypeCNAME {
		alias := n.set(TypeCNAME)
		if alias.count == 0 {
			alias = v.shared(n, TypeCNAME)
		}
		if alias.count > 0 {
			a.add(alias, a.owner)
			a.name.setName(alias.wire[recordHead:])
			return a.alias()
		}
	}
	if q.qtype == TypeTXT && n.has(nodeWatched) {
		a.watched = a.name.hash[a.name.count]
	}
	found := false
	if q.qtype == TypeSOA && n.has(nodeApex) {
		v.addSOA(a, TTLSOA)
		found = true
	}
	found = a.add(v.shared(n, q.qtype), a.owner) || found
	if q.qtype == TypeDNAME && a.hasDNAME(a.name.hash[a.name.count]) {
		found = true // on the way here
	} else {
		found = a.add(n.set(q.qtype), a.owner) || found
	}
	if !found {
		return v.negative(a, NoData, rcodeSuccess)
	}
	a.end(Found, rcodeSuccess)
	return done
}

// hasData says whether a node has records of any type.
func (v *view) hasData(n node) bool {
	if n.sets() > 0 || n.has(nodeApex) {
		return true
	}
	for _, t := range [...]Type{TypeA, TypeAAAA, TypeCNAME, TypeMX, TypeTXT} {
		if v.shared(n, t).count > 0 {
			return true
		}
	}
	return false
}

// alias goes on with a.name, the target of the CNAME that the last ref writes.
func (a *answer) alias() step {
	a.owner = place{ref: int16(a.used - 1), at: recordHead}
	a.hops++
	hash := a.name.hash[a.name.count]
	for _, seen := range a.seen[:a.hops] {
		if seen == hash {
			a.end(Alias, rcodeSuccess) // a loop: what was found so far is all there is
			return done
		}
	}
	if a.hops == maxHops {
		a.end(Alias, rcodeSuccess)
		return done
	}
	a.seen[a.hops] = hash
	return follow
}

// dname answers a name below a DNAME at the suffix of d labels: with the DNAME
// and the CNAME that it makes (RFC 6672 section 3.2).
func (v *view) dname(q *query, a *answer, n node, d int) step {
	r := n.set(TypeDNAME)
	a.from(a.name.hash[d])
	if !a.hasDNAME(a.name.hash[d]) { // a chain may come by it twice
		a.add(r, a.suffixPlace(d))
		a.above[a.dnames] = a.name.hash[d]
		a.dnames++
	}
	target := r.wire[recordHead:]
	prefix := int(a.name.offset[d])
	if prefix+len(target) > maxName {
		a.end(Alias, rcodeYXDomain) // RFC 6672 section 2.2
		return done
	}
	a.add(records{t: TypeCNAME, count: 1}, a.owner)
	synth := &a.refs[a.used-1]
	synth.kind, synth.prefix, synth.target = refSynth, uint8(prefix), target
	synth.ttl = uint32(r.wire[6])<<24 | uint32(r.wire[7])<<16 | uint32(r.wire[8])<<8 | uint32(r.wire[9])
	if q.qtype == TypeCNAME || q.qtype == TypeANY { // the alias is the answer
		a.end(Found, rcodeSuccess)
		return done
	}
	a.other.length = copy(a.other.name[:], a.name.name[:prefix])
	a.other.length += copy(a.other.name[prefix:maxName], target)
	a.name.set(a.other.name[:a.other.length])
	return a.alias()
}

// hasDNAME says whether the DNAME of an owner is among the answers.
func (a *answer) hasDNAME(owner uint64) bool {
	return slices.Contains(a.above[:a.dnames], owner)
}

// refer gives the delegation at a cut (step 3b).
func (v *view) refer(a *answer, n node, d int) step {
	a.answers = a.used
	a.from(a.name.hash[d])
	a.add(n.set(TypeNS), a.suffixPlace(d))
	a.authority = 1
	if a.hops == 0 {
		a.aa = false
	}
	a.end(Referral, rcodeSuccess)
	return done
}

// negative puts the zone's SOA in the authority section (RFC 2308 section 2).
func (v *view) negative(a *answer, o Outcome, rcode uint8) step {
	a.answers = a.used
	v.addSOA(a, TTLNegative)
	a.authority = 1
	a.end(o, rcode)
	return done
}

// addSOA adds the zone's SOA.
func (v *view) addSOA(a *answer, ttl uint32) {
	a.soa = v.soa(ttl)
	a.add(records{t: TypeSOA, count: 1}, a.suffixPlace(v.apex))
	a.refs[a.used-1].kind = refSOA
}

// soa is the SOA of the view's zone, with its counter as it is now.
func (v *view) soa(ttl uint32) soa {
	if v.anchor.kind != anchorZone {
		return soa{mname: v.platform.mname, rname: v.platform.contact, serial: v.platform.serial, ttl: ttl,
			mnameCut: v.platform.mnameCut, rnameCut: v.platform.contactCut}
	}
	s := soa{mname: v.firstServer(), rname: Root, serial: u32(v.b, atSerial), ttl: ttl}
	if v.platform != nil {
		s.rname = v.platform.contact
		if s.mname.In(v.platform.apex) { // always, but a branch says so of itself
			s.rnameCut = v.platform.contactCut
		}
	}
	if v.pool != nil {
		s.serial += v.pool.serial // wraps (RFC 1982)
	}
	return s
}

// firstServer is the first name server of a customer's zone: its anchor follows
// the zone's.
func (v *view) firstServer() Name {
	_, next := anchorAt(v.b, firstAnchor(v.b))
	s, _ := anchorAt(v.b, next)
	return Name(s.name)
}
