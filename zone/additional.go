package zone

// addresses fills the additional section: the addresses of the hosts that MX,
// SRV and NS records in the answer or the authority section name (RFC 1034
// section 4.3.2 step 6), within the bounds of chains.
func (t *Tree) addresses(a *answer) {
	filled, hosts := a.answers+a.authority, 0
	for i := range filled {
		at, ok := targetOffset(a.refs[i].t)
		if !ok || a.refs[i].kind != refRecords || a.refs[i].t == TypeCNAME || a.refs[i].t == TypeDNAME || a.refs[i].t == TypePTR {
			continue
		}
		wire := a.refs[i].wire
		for begin := 0; begin < len(wire); {
			end := begin + recordHead + int(wire[begin+10])<<8 + int(wire[begin+11])
			target := begin + recordHead + at
			t.address(a, filled, wire[target:end], place{ref: int16(i), at: uint16(target)})
			if hosts++; hosts == maxHosts || a.used+2 > filled+maxAddresses || a.labels > maxFollowed {
				return
			}
			begin = end
		}
	}
}

// address adds the addresses of one host.
func (t *Tree) address(a *answer, filled int, host string, at place) {
	for _, r := range a.refs[filled:a.used] {
		if r.target == host {
			return
		}
	}
	p := &a.other
	p.setName(host)
	a.labels += p.count
	var v view
	n, _, ok := t.locate(&v, p, false)
	if !ok || v.anchor.kind != anchorPlatform && (!a.bound || u32(v.b, atTenant) != a.tenant) {
		return
	}
	if !n.there() || n.has(nodeHidden) && a.outcome != Referral {
		return // below a cut we are no authority: only as glue of a delegation
	}
	for _, typ := range [...]Type{TypeA, TypeAAAA} {
		for _, r := range [...]records{v.shared(n, typ), n.set(typ)} {
			if a.add(r, at) {
				a.refs[a.used-1].target, a.refs[a.used-1].glue = host, n.has(nodeHidden)
			}
		}
	}
}

// reportWire is the TXT record of a report authorisation, with TTLPolicy.
const reportWire = "\xc0\x0c\x00\x10\x00\x01\x00\x00\x0e\x10\x00\x09\x08" + reportText

// reported answers a name that does not exist, below the node of d labels, which
// is at or below a report node.
func (t *Tree) reported(q *query, a *answer, v *view, from, d int) step {
	at := v.topmost(a.name, nodeReported, from, d)
	n := v.node(a.name, at)
	if !n.there() || !n.has(nodeReport) {
		return v.negative(a, NoData, rcodeSuccess)
	}
	s := t.report(q, a, v, n, at)
	if a.outcome == NoData { // any name below has none
		a.from(a.name.hash[at])
	}
	return s
}

// report answers below _report._dmarc.<host>: a delegated domain that inherits
// the policy of a pool which sends its reports to the host has its authorisation
// there, every other name is empty (RFC 9990 section 4). The report node has the
// suffix of d labels.
func (t *Tree) report(q *query, a *answer, v *view, n node, d int) step {
	p := &a.other
	p.length = copy(p.name[:], a.name.name[:a.name.offset[d]])
	p.name[p.length] = 0
	p.set(p.name[:p.length+1])
	b, an, ok := t.find(p, p.count, p.hash[p.count])
	if !ok || an.kind != anchorZone || b[atFlags]&flagPolicy != 0 {
		return v.negative(a, NoData, rcodeSuccess)
	}
	for _, pool := range v.platform.reports[n.report()] {
		if pool != u32(block(b), atPool) {
			continue
		}
		switch q.qtype {
		case TypeTXT:
			a.add(records{wire: reportWire, t: TypeTXT, count: 1}, a.owner)
			a.end(Found, rcodeSuccess)
			return done
		case TypeANY:
			a.minimal = true
			a.end(Found, rcodeSuccess)
			return done
		}
	}
	return v.negative(a, NoData, rcodeSuccess)
}
