package zone

import (
	"cmp"
	"slices"
	"strings"
)

// Served lists every RRset a branch answers with the given pool and platform
// zones, as a query would see it, in canonical order: for the API, tests and
// exports, never on the query path. Delegations and their glue are listed as the
// zone holds them. The pool may be nil.
func Served(b Branch, pool *Pool, platforms []*Platform) []RRset {
	if b == "" {
		return nil
	}
	c := &common{}
	for _, p := range platforms {
		c.platforms = append(c.platforms, &platformEntry{Platform: p, serial: p.serial})
	}
	views := make(map[int]*view)
	for _, a := range b.anchors() {
		v := &view{b: block(b), anchor: a, pool: pool, common: c, platform: c.platform(a.platform)}
		if v.platform != nil || a.kind == anchorZone {
			views[a.index] = v
		}
	}
	return servedBy(block(b), views)
}

// Served lists every RRset of the platform zone itself, with the serial it was
// rendered with, in canonical order. The names of domains in it, and the report
// authorisations that follow from their pools, are not among them.
func (p *Platform) Served() []RRset {
	v := &view{b: p.block, anchor: anchors(p.block)[0], platform: &platformEntry{Platform: p, serial: p.serial}, common: &common{}}
	return servedBy(p.block, map[int]*view{0: v})
}

// servedBy lists the nodes of a block whose anchors have a view.
func servedBy(b block, views map[int]*view) []RRset {
	var out []RRset
	for i := range int(u32(b, atNodes)) {
		n := node{b: b, at: int(u32(b, blockHeader+i*indexEntry+4))}
		if v := views[n.anchor()]; v != nil && v.exists(n) {
			out = append(out, v.served(n)...)
		}
	}
	sortSets(out)
	return out
}

// sortSets puts RRsets into canonical order of their owners, then by type.
func sortSets(sets []RRset) {
	keys := make(map[Name]string, len(sets))
	for _, s := range sets {
		keys[s.Owner] = s.Owner.Reverse()
	}
	slices.SortFunc(sets, func(x, y RRset) int {
		return cmp.Or(strings.Compare(keys[x.Owner], keys[y.Owner]), cmp.Compare(x.Type, y.Type))
	})
}

// served lists the RRsets of one node.
func (v *view) served(n node) []RRset {
	owner := Name(n.labels() + v.anchor.name)
	types := []Type{TypeA, TypeAAAA, TypeCNAME, TypeMX, TypeTXT} // of which a node may have a share
	at := n.records()
	for range n.sets() {
		r, next := recordsAt(n.b, at)
		if !slices.Contains(types, r.t) {
			types = append(types, r.t)
		}
		at = next
	}
	var out []RRset
	if n.has(nodeApex) {
		var s soa
		v.soa(&s, TTLSOA)
		out = append(out, RRset{Owner: owner, Type: TypeSOA, TTL: TTLSOA, Data: [][]byte{s.appendData(nil)}})
	}
	for _, t := range types {
		set := v.shared(n, t).rrset(owner)
		own := n.set(t).rrset(owner)
		if len(own.Data) > 0 {
			set.Type, set.TTL, set.Data = t, own.TTL, sortData(append(set.Data, own.Data...))
		}
		if len(set.Data) > 0 {
			out = append(out, set)
		}
	}
	return out
}
