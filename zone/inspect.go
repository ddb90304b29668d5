package zone

import (
	"errors"
	"fmt"
)

// Inspector checks branches that come from a file, not from Render. It allocates
// nothing when it is used again. Not safe for concurrent use.
type Inspector struct {
	path path
	b    block
}

// errShape says that no Render wrote these octets.
var errShape = errors.New("damaged answers")

// Check is nil where the octets have the shape of a block of this release's Form:
// no question then makes a reader leave it or fail. What its answers say is not
// looked at.
func (i *Inspector) Check(b Branch) error {
	if len(b) < blockHeader || b[atForm] != Form {
		return fmt.Errorf("%w: no branch of form %d", errShape, Form)
	}
	i.b = block(b)
	count, nodes := u16(i.b, atAnchors), int(u32(i.b, atNodes))
	end := int(u32(i.b, atAttachment))
	if count > maxAnchors || end > len(b) || nodes > (end-blockHeader)/(indexEntry+nodeHead) {
		return fmt.Errorf("%w: counts do not fit", errShape)
	}
	var names [maxAnchors]string
	zones := false
	at := firstAnchor(i.b)
	for k := range count {
		if at+anchorHead > end || at+anchorHead+int(i.b[at+5]) > end {
			return fmt.Errorf("%w: anchor %d", errShape, k)
		}
		a, next := anchorAt(i.b, at)
		if a.kind < anchorZone || a.kind > anchorHidden || wireName(a.name) != len(a.name) || len(a.name) < 2 {
			return fmt.Errorf("%w: anchor %d", errShape, k)
		}
		zones = zones || a.kind == anchorZone
		names[k], at = a.name, next
	}
	if zones && count < 2 { // firstServer
		return fmt.Errorf("%w: a zone without a server's name", errShape)
	}
	last := uint32(0)
	for k := range nodes {
		entry := blockHeader + k*indexEntry
		hash, where := u32(i.b, entry), int(u32(i.b, entry+4))
		if hash < last || where < at || !i.node(where, end, names[:count], hash) {
			return fmt.Errorf("%w: node %d", errShape, k)
		}
		last = hash
	}
	return nil
}

// node checks the node at an offset; all of it lies before end.
func (i *Inspector) node(at, end int, anchors []string, hash uint32) bool {
	if at+nodeHead > end {
		return false
	}
	n := node{i.b, at}
	size := int(i.b[at+6])
	if n.anchor() >= len(anchors) || at+nodeHead+size > end {
		return false
	}
	labels, anchor := n.labels(), anchors[n.anchor()]
	if size+len(anchor) > maxName || !wholeLabels(labels) {
		return false
	}
	i.path.length = copy(i.path.name[:maxName], labels)
	i.path.length += copy(i.path.name[i.path.length:maxName], anchor)
	i.path.split()
	if nodeHash(i.path.hash[i.path.count]) != hash {
		return false
	}
	at += nodeHead + size
	if n.has(nodeServer) {
		if at >= end || at+1+int(i.b[at]) > end {
			return false
		}
		at += 1 + int(i.b[at])
	}
	return !n.has(nodeReport) && i.sets(n, at, end) // only platform zones have reports
}

// sets checks a node's RRsets.
func (i *Inspector) sets(n node, at, end int) bool {
	dname := false
	for range n.sets() {
		if at+rrsetHead > end || at+rrsetHead+u16(i.b, at+4) > end {
			return false
		}
		r, next := recordsAt(i.b, at)
		if !soundRecords(r) {
			return false
		}
		dname = dname || r.t == TypeDNAME
		at = next
	}
	return dname || !n.has(nodeDNAME)
}

// soundRecords checks that records are as many as they say, of one type, and
// that names in them which answers follow are names.
func soundRecords(r records) bool {
	offset, named := targetOffset(r.t)
	single := r.t == TypeCNAME || r.t == TypeDNAME
	if r.count == 0 || single && r.count != 1 {
		return false
	}
	at := 0
	for range r.count {
		if at+recordHead > len(r.wire) {
			return false
		}
		next := at + recordHead + int(r.wire[at+10])<<8 + int(r.wire[at+11])
		if next > len(r.wire) || int(r.wire[at])<<8+int(r.wire[at+1]) != questionPointer || int(r.wire[at+2])<<8+int(r.wire[at+3]) != int(r.t) {
			return false
		}
		if name := min(at+recordHead+offset, next); named && (name == next || wireName(r.wire[name:next]) != next-name) {
			return false
		}
		at = next
	}
	return at == len(r.wire)
}

// wireName is how many octets the uncompressed name at the start of s has; 0
// where there is none.
func wireName(s string) int {
	for at := 0; at < len(s) && at < maxName; at += int(s[at]) + 1 {
		if s[at] == 0 {
			return at + 1
		}
		if s[at] > maxLabel {
			return 0
		}
	}
	return 0
}

// wholeLabels says whether s is labels, without the root.
func wholeLabels(s string) bool {
	for len(s) > 0 {
		size := int(s[0])
		if size == 0 || size > maxLabel || size >= len(s) {
			return false
		}
		s = s[size+1:]
	}
	return true
}

// Tenant is the number of the Plan's tenant; Pool and Serial are the Plan's, too.
func (b Branch) Tenant() uint32 { return b.number(atTenant) }
func (b Branch) Pool() uint32   { return b.number(atPool) }
func (b Branch) Serial() uint32 { return b.number(atSerial) }

func (b Branch) number(at int) uint32 {
	if b == "" {
		return 0
	}
	return u32(block(b), at)
}
