package zone

import (
	"encoding/binary"
	"math/bits"
)

// path is a name taken apart once for a look-up: where each suffix begins and
// its hash. Suffixes are numbered by their labels: 0 is the root, count the
// whole name. It is reused and never cleared.
type path struct {
	name   [256]byte
	length int
	count  int
	// token is the number of labels of a suffix whose tokenKey is known; 0: of none.
	token     int
	tokenHash uint64
	offset    [maxLabels + 1]uint8
	hash      [maxLabels + 1]uint64
}

// set takes apart a folded wire name of at most maxName octets.
func (p *path) set(name []byte) {
	p.length = copy(p.name[:maxName], name)
	p.split()
}

// setName is set for a Name.
func (p *path) setName(name string) {
	p.length = copy(p.name[:maxName], name)
	p.split()
}

// setAsked is set for a wire name as it was asked, of at most maxName octets.
func (p *path) setAsked(name []byte) {
	fold(&p.name, name)
	p.length = len(name)
	p.split()
}

func (p *path) split() {
	p.token = 0
	var begin [maxLabels + 1]uint8
	count, at := 0, uint8(0)
	for p.name[at] != 0 {
		begin[count] = at
		count++
		at += p.name[at] + 1
	}
	p.count = count
	p.offset[0], p.hash[0] = at, rootHash
	h := uint64(rootHash)
	for d := 1; d <= count; d++ {
		at := begin[count-d]
		h = hashLabel(h, p.name[at+1:at+1+p.name[at]])
		p.offset[d], p.hash[d] = at, h
	}
}

// suffix is the suffix of d labels in wire form.
func (p *path) suffix(d int) []byte { return p.name[p.offset[d]:p.length] }

// label is the first label of the suffix of d labels.
func (p *path) label(d int) []byte {
	at := p.offset[d]
	return p.name[at+1 : at+1+p.name[at]]
}

// Odd numbers with no pattern in their bits. They are part of Form, since branches hold
// hashes of nodes.
const (
	rootHash  = 0x9e3779b97f4a7c15
	tokenSeed = 0xd6e8feb86659fd93
	hashMul   = 0xa0761d6478bd642f
	hashEnd   = 0xe7037ed1a0b428db
)

// hashLabel extends a parent's hash by a label: one multiplication for every
// eight octets and one for the rest, whose number is in its highest octet. It is
// not keyed: whoever could make names collide would need them as anchors, and
// those are random tokens or proven zones.
func hashLabel(parent uint64, label []byte) uint64 {
	h := parent
	for len(label) >= 8 {
		h = mix(h^binary.LittleEndian.Uint64(label), hashMul)
		label = label[8:]
	}
	return mix(h^tailOf(label)^uint64(len(label))<<56, hashEnd)
}

// tailOf is up to seven octets as a number. Labels are parts of names mostly,
// with room behind them, which one load may read too.
func tailOf(label []byte) uint64 {
	if cap(label) >= 8 {
		return binary.LittleEndian.Uint64(label[:8]) & (1<<(8*len(label)) - 1)
	}
	var tail uint64
	for i, c := range label {
		tail |= uint64(c) << (8 * i)
	}
	return tail
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// tokenKey is the key of every anchor whose first label is a token and second
// a reserved label: T.dkim.P, T.bounce.P and T.ns1.P share one slot of the tree.
// It looks at the suffix of d labels; false where it has another shape.
func (p *path) tokenKey(d int) (uint64, bool) {
	if d < 3 || p.name[p.offset[d]] != tokenLength {
		return 0, false
	}
	if d == p.token {
		return p.tokenHash, true
	}
	token := p.label(d)
	if !reservedLabel(string(p.label(d-1))) || !tokenShaped(token) {
		return 0, false
	}
	p.token, p.tokenHash = d, hashLabel(tokenSeed, token)
	return p.tokenHash, true
}

// key is under which slot of the tree the anchor of d labels is found.
func (p *path) key(d int, kind anchorKind) uint64 {
	if kind == anchorTarget {
		if k, ok := p.tokenKey(d); ok {
			return k
		}
	}
	return p.hash[d]
}

// tokenLength is the length of a claim's token in names: 128 bits in base32.
const tokenLength = 26

// tokenShaped says whether a label is 26 characters of a-z and 2-7. It looks at
// eight at a time, at the last eight from behind.
func tokenShaped(label []byte) bool {
	if len(label) != tokenLength {
		return false
	}
	le := binary.LittleEndian
	return tokenOctets(le.Uint64(label))&tokenOctets(le.Uint64(label[8:]))&
		tokenOctets(le.Uint64(label[16:]))&tokenOctets(le.Uint64(label[tokenLength-8:])) == highBits
}

// tokenOctets has the high bit of each of eight octets set that is a character
// of a token.
func tokenOctets(x uint64) uint64 {
	low := x &^ highBits
	letter := (low + (0x80-'a')*eachOctet) &^ (low + (0x80-'z'-1)*eachOctet)
	number := (low + (0x80-'2')*eachOctet) &^ (low + (0x80-'7'-1)*eachOctet)
	return (letter | number) &^ x & highBits
}

const (
	eachOctet = 0x0101010101010101
	highBits  = 0x80 * eachOctet
)

// reservedLabel says whether a label directly below a platform zone's apex
// belongs to authd: the parents of targets and the name servers' names.
func reservedLabel(label string) bool {
	switch label {
	case "dkim", "bounce", "click", "dmarc", "spf":
		return true
	}
	return serverLabel(label)
}

// serverLabel says whether a label is a name server's: ns1, ns2, …
func serverLabel(label string) bool {
	if len(label) < 3 || len(label) > 6 || label[:2] != "ns" || label[2] == '0' {
		return false
	}
	for _, c := range []byte(label[2:]) {
		if !digit(c) {
			return false
		}
	}
	return true
}
