package zone

// A block is how answers lie in memory: the answers of a domain (Branch) or of a
// platform zone, pointer-free, in one allocation.
//
//	header   form, flags, number of anchors and nodes, tenant, pool, serial,
//	         where the attachment begins
//	index    a node each: 32 bits of the hash of its full name, where it is; by hash
//	anchors  kind, platform zone, name
//	nodes    anchor, flags, labels in front of the anchor's name, RRsets
//	attachment
//
// Integers are little-endian. RRsets are records as a message has them, with the
// name of the question (a pointer to offset 12) as their owner.
type block = string

// Offsets in the header.
const (
	atForm       = 0  // octet; entMark: not a block, see entBranch
	atFlags      = 1  // octet
	atAnchors    = 2  // 16 bits
	atNodes      = 4  // 32 bits
	atTenant     = 8  // 32 bits
	atPool       = 12 // 32 bits
	atSerial     = 16 // 32 bits
	atAttachment = 20 // 32 bits
	blockHeader  = 24

	indexEntry = 8 // hash and offset, 32 bits each
	anchorHead = 6 // kind, platform (32 bits), length of the name
	nodeHead   = 7 // anchor (16), flags (16), RRsets (16), length of the labels (8)
	rrsetHead  = 6 // type, records, octets: 16 bits each
	recordHead = 12
)

// Flags of a block.
const flagPolicy = 1 // has a DMARC policy of its own

// anchorKind is what an anchor is the beginning of.
type anchorKind uint8

const (
	anchorZone     anchorKind = 1 // a zone of its own, with SOA
	anchorTarget   anchorKind = 2 // a part of a platform zone
	anchorHidden   anchorKind = 3 // an unproven zone: kept, not answered
	anchorPlatform anchorKind = 4 // a platform zone
)

// Flags of a node.
const (
	nodeBelow    = 1 << iota // exists whether it has records or not (RFC 8020)
	nodeApex                 // has the zone's SOA
	nodeMail                 // has the pool's MX and SPF
	nodeClick                // has the pool's tracking host
	nodePolicy               // has the pool's DMARC policy
	nodeServer               // has the addresses of a name server, whose label follows
	nodeCut                  // has NS and is not an apex
	nodeDNAME                // has DNAME
	nodeReport               // report authorisations live below; a list's number follows
	nodeWatched              // TXT queries are counted: a key that signs no more
	nodeHidden               // is at or below a cut
	nodeReported             // is at or below a node with nodeReport
)

func u16(s string, at int) int {
	_ = s[at+1]
	return int(s[at]) | int(s[at+1])<<8
}

func u32(s string, at int) uint32 {
	_ = s[at+3]
	return uint32(s[at]) | uint32(s[at+1])<<8 | uint32(s[at+2])<<16 | uint32(s[at+3])<<24
}

// anchor is one anchor of a block.
type anchor struct {
	index    int
	kind     anchorKind
	platform uint32
	name     string
}

// anchorAt reads the anchor at an offset and gives that of the next.
func anchorAt(b block, at int) (a anchor, next int) {
	next = at + anchorHead + int(b[at+5])
	return anchor{kind: anchorKind(b[at]), platform: u32(b, at+1), name: b[at+anchorHead : next]}, next
}

// firstAnchor is where the anchors of a block begin.
func firstAnchor(b block) int { return blockHeader + int(u32(b, atNodes))*indexEntry }

// findAnchor finds the anchor with exactly the name of suffix. Hidden ones are
// not found.
func findAnchor(b block, suffix []byte) (anchor, bool) {
	at := firstAnchor(b)
	for i := range u16(b, atAnchors) {
		a, next := anchorAt(b, at)
		if len(a.name) == len(suffix) && a.name == string(suffix) && a.kind != anchorHidden {
			a.index = i
			return a, true
		}
		at = next
	}
	return anchor{}, false
}

// anchors lists all anchors of a block, off the query path.
func anchors(b block) []anchor {
	list := make([]anchor, 0, u16(b, atAnchors))
	at := firstAnchor(b)
	for i := range u16(b, atAnchors) {
		a, next := anchorAt(b, at)
		a.index = i
		list = append(list, a)
		at = next
	}
	return list
}

// node is one owner name in a block; without one the zero value.
type node struct {
	b  block
	at int
}

func (n node) there() bool    { return n.b != "" }
func (n node) anchor() int    { return u16(n.b, n.at) }
func (n node) flags() int     { return u16(n.b, n.at+2) }
func (n node) sets() int      { return u16(n.b, n.at+4) }
func (n node) has(f int) bool { return n.flags()&f != 0 }

// labels are those in front of the anchor's name.
func (n node) labels() string {
	at := n.at + nodeHead
	return n.b[at : at+int(n.b[n.at+6])]
}

// server is the label of the name server whose addresses the node has.
func (n node) server() string {
	at := n.at + nodeHead + int(n.b[n.at+6])
	return n.b[at+1 : at+1+int(n.b[at])]
}

// report is the number of the node's list of pools.
func (n node) report() int { return u16(n.b, n.at+nodeHead+int(n.b[n.at+6])) }

// records is where the node's RRsets begin.
func (n node) records() int {
	at := n.at + nodeHead + int(n.b[n.at+6])
	switch flags := n.flags(); {
	case flags&nodeServer != 0:
		at += 1 + int(n.b[at])
	case flags&nodeReport != 0:
		at += 2
	}
	return at
}

// records is a prebuilt RRset: records as a message has them, whose owner is a
// pointer to the question's name.
type records struct {
	wire  string
	t     Type
	count uint16
}

// set is the node's own RRset of a type; without records where it has none.
func (n node) set(t Type) records {
	at := n.records()
	for range n.sets() {
		r, next := recordsAt(n.b, at)
		if r.t >= t { // in order
			if r.t == t {
				return r
			}
			break
		}
		at = next
	}
	return records{}
}

func recordsAt(b block, at int) (r records, next int) {
	next = at + rrsetHead + u16(b, at+4)
	return records{t: Type(u16(b, at)), count: uint16(u16(b, at+2)), wire: b[at+rrsetHead : next]}, next
}

// nodeHash is the part of a name's hash that the index keeps.
func nodeHash(h uint64) uint32 { return uint32(h >> 16) }

// firstNode is the position in the index of the first node with a hash, if any. Its
// comparisons compile to conditional moves: the processor would predict branches wrong
// half of the time.
func firstNode(b block, h uint32) int {
	first, left := 0, int(u32(b, atNodes))
	for left > 0 {
		half := (left + 1) / 2
		next := first
		if u32(b, blockHeader+(first+half-1)*indexEntry) < h {
			next = first + half
		}
		first = next
		left -= half
	}
	return first
}

// nodeAt is the node at a position in the index, if its hash is h.
func nodeAt(b block, i int, h uint32) (node, bool) {
	if i >= int(u32(b, atNodes)) || u32(b, blockHeader+i*indexEntry) != h {
		return node{}, false
	}
	return node{b: b, at: int(u32(b, blockHeader+i*indexEntry+4))}, true
}

// nodeEnd is where the node at a position in the index ends: the next one, in the
// order of the index, begins there, or what is behind all nodes.
func nodeEnd(b block, i int) int {
	if i+1 < int(u32(b, atNodes)) {
		return int(u32(b, blockHeader+(i+1)*indexEntry+4))
	}
	return int(u32(b, atAttachment))
}

// findNode finds the node of the anchor whose labels in front are these.
func findNode(b block, a int, hash uint64, labels []byte) (node, bool) {
	h := nodeHash(hash)
	for i := firstNode(b, h); ; i++ {
		n, ok := nodeAt(b, i, h)
		if !ok {
			return node{}, false
		}
		if n.anchor() == a && n.labels() == string(labels) {
			return n, true
		}
	}
}

// findWildcard finds the node "*" and these labels (RFC 4592 section 2.1.1);
// parent is the hash of what the labels and the anchor make.
func findWildcard(b block, a int, parent uint64, labels []byte) (node, bool) {
	h := nodeHash(hashLabel(parent, []byte{'*'}))
	for i := firstNode(b, h); ; i++ {
		n, ok := nodeAt(b, i, h)
		if !ok {
			return node{}, false
		}
		if l := n.labels(); n.anchor() == a && len(l) == len(labels)+2 && l[:2] == "\x01*" && l[2:] == string(labels) {
			return n, true
		}
	}
}

// entMark is the first octet of what is no block but the name of an empty
// non-terminal: a name that exists because anchors lie below it (RFC 8020).
const entMark = 0xff

// entBranch is what a slot of the tree holds for an empty non-terminal.
func entBranch(n Name) Branch { return Branch(append([]byte{entMark}, n...)) }

func isENT(b Branch) bool { return b[atForm] == entMark }
