package zone

import "slices"

// view is the part of the tree that is asked about a name: a customer's zone, a
// platform zone, or a target within one.
type view struct {
	b        block
	anchor   anchor
	depth    int            // labels of the anchor
	apex     int            // labels of the zone: the anchor's own, except for targets
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
	var v view
	for {
		n, from, ok := t.locate(&v, a.name, q.qtype == TypeDS)
		if ok && a.hops == 0 {
			a.aa = true
		}
		if !ok || !a.enter(&v) {
			if a.hops > 0 {
				a.end(Alias, rcodeSuccess)
			}
			break
		}
		if t.search(q, a, &v, n, from) == done {
			break
		}
	}
	if a.authority == 0 {
		a.answers = a.used
	}
	t.addresses(a)
}

// locate sets v to the longest anchor or platform zone above or at a name, and
// gives the name's node there, if any, and how many of its labels certainly exist.
// For a DS question the zone whose apex the name is stands back for the one above
// it.
//
// Views are filled field by field where they are: one that is put together
// elsewhere and copied is read before it was written, which the processor waits
// for longer than all else here takes.
func (t *Tree) locate(v *view, p *path, ds bool) (n node, from int, ok bool) {
	c := t.common.Load()
	skipped := 0
	for d := c.anchors.atMost(p.count); d > 0; d = c.anchors.atMost(d - 1) {
		if !t.viewAt(v, c, p, d) {
			continue
		}
		if ds && d == p.count && v.apex == d {
			skipped = d
			continue
		}
		v.parent = skipped > 0
		if n = v.node(p, p.count); v.anchor.kind == anchorTarget && !n.there() {
			n, d = v.around(p)
		}
		return n, d, true
	}
	if skipped == 0 || !t.viewAt(v, c, p, skipped) {
		return n, 0, false
	}
	return v.node(p, p.count), skipped, true
}

// around turns the view of a target into that of its platform zone for a name
// below it that is not the target's own: an operator may have records there.
func (v *view) around(p *path) (n node, from int) {
	from = v.depth
	for v.node(p, from+1).there() {
		from++
	}
	parent := v.parent
	v.of(v.platform, v.common)
	v.parent = parent
	return v.node(p, p.count), from
}

// viewAt sets v to the anchor or platform zone with exactly the suffix of d labels.
func (t *Tree) viewAt(v *view, c *common, p *path, d int) bool {
	if key, ok := p.tokenKey(d); ok {
		if b, a, ok := t.find(p, d, key); ok {
			return t.view(v, b, a, p, d)
		}
	}
	if c.depths.has(d) {
		if b, a, ok := t.find(p, d, p.hash[d]); ok {
			return t.view(v, b, a, p, d)
		}
	}
	for _, z := range c.platforms {
		if z.labels == d && z.hash == p.hash[d] && string(z.apex) == string(p.suffix(d)) {
			v.of(z, c)
			return true
		}
	}
	return false
}

// of sets v to a platform zone.
func (v *view) of(z *platformEntry, c *common) {
	v.b = z.block
	v.anchor = anchor{kind: anchorPlatform, name: string(z.apex)}
	v.depth, v.apex = z.labels, z.labels
	v.platform, v.pool, v.common = z, nil, c
	v.parent = false
}

// view sets v to a branch seen through one of its anchors. The shared tables are
// read anew: they were published before the branch was.
func (t *Tree) view(v *view, b Branch, an anchor, p *path, d int) bool {
	c := t.common.Load()
	v.b, v.anchor = block(b), an
	v.depth, v.apex = d, d
	v.platform, v.pool, v.common = c.platform(an.platform), c.pools[u32(block(b), atPool)], c
	v.parent = false
	if an.kind == anchorTarget {
		if v.platform == nil || v.platform.labels > d || v.platform.hash != p.hash[v.platform.labels] {
			return false // its platform zone is not there
		}
		v.apex = v.platform.labels
	}
	return true
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

// search asks one zone for the last name of the chain, which has the node n
// there, if any, and of which the suffix of from labels exists and is no cut.
func (t *Tree) search(q *query, a *answer, v *view, n node, from int) step {
	p := a.name
	exists, d := n.there(), p.count
	if !exists { // go on with the last name on the way to it that has a node, of d labels
		d = deepest(from, p.count-1, func(d int) bool { return v.node(p, d).there() })
		n = v.node(p, d)
	}
	if d > from && n.has(nodeHidden) {
		at := v.topmost(p, nodeHidden, from, d)
		if cut := v.node(p, at); cut.there() && cut.has(nodeCut) && (at < p.count || q.qtype != TypeDS) {
			return v.refer(a, cut, at)
		}
	}
	switch {
	case exists:
		return v.answer(q, a, n)
	case d > from && n.has(nodeDNAME): // below one there are no nodes
		return v.dname(q, a, n, d)
	}
	encloser := t.encloser(v, p, d) // RFC 4592 section 3.3.1
	switch {
	case encloser == p.count || v.parent:
	case d > from && n.has(nodeReported):
		return t.reported(q, a, v, from, d)
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

// encloser is how many labels the closest encloser of a name has, of which d
// have a node: anchors of others may lie below it.
func (t *Tree) encloser(v *view, p *path, d int) int {
	exists := func(d int) bool { return v.common.depths.has(d) && t.ent(p, d) }
	if d == p.count || !exists(d+1) { // nearly always, and each look leaves the caches
		return d
	}
	return deepest(d+1, p.count, exists)
}

// deepest is the largest number of labels from low to high that exists, as low
// does. Where a name exists, all names above it do (RFC 8020): halving finds it,
// so that no number of labels makes a question costly.
func deepest(low, high int, exists func(d int) bool) int {
	for low < high {
		if mid := (low + high + 1) / 2; exists(mid) {
			low = mid
		} else {
			high = mid - 1
		}
	}
	return low
}

// topmost is how many labels the first node past from has that has a flag which
// nodes inherit, as that of d labels did.
func (v *view) topmost(p *path, flag, from, d int) int {
	return 1 + deepest(from, d-1, func(d int) bool {
		n := v.node(p, d)
		return n.there() && !n.has(flag)
	})
}

// node finds the node with the suffix of d labels, if the name exists: a
// managed name that a pool leaves empty does not.
func (v *view) node(p *path, d int) node {
	labels := p.name[p.offset[d] : p.length-len(v.anchor.name)]
	n, ok := findNode(v.b, v.anchor.index, p.hash[d], labels)
	if !ok || !v.exists(n) {
		return node{}
	}
	return n
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
	if a.labels += a.name.count; a.hops == maxHops || a.labels > maxFollowed {
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
	v.soa(&a.soa, ttl)
	a.add(records{t: TypeSOA, count: 1}, a.suffixPlace(v.apex))
	a.refs[a.used-1].kind = refSOA
}

// soa sets s to the SOA of the view's zone, with its counter as it is now.
func (v *view) soa(s *soa, ttl uint32) {
	s.ttl = ttl
	z := v.platform
	if v.anchor.kind != anchorZone {
		s.mname, s.rname, s.serial = z.mname, z.contact, z.serial
		s.mnameCut, s.rnameCut = z.mnameCut, z.contactCut
		return
	}
	s.mname, s.rname, s.serial = v.firstServer(), Root, u32(v.b, atSerial)
	s.mnameCut, s.rnameCut = 0, 0
	if z != nil {
		s.rname = z.contact
		if s.mname.In(z.apex) { // always, but a branch says so of itself
			s.rnameCut = z.contactCut
		}
	}
	if v.pool != nil {
		s.serial += v.pool.serial // wraps (RFC 1982)
	}
}

// firstServer is the first name server of a customer's zone: its anchor follows
// the zone's.
func (v *view) firstServer() Name {
	_, next := anchorAt(v.b, firstAnchor(v.b))
	s, _ := anchorAt(v.b, next)
	return Name(s.name)
}
