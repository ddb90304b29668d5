package zone

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// builder collects the nodes of a block.
type builder struct {
	form       uint8
	flags      uint8
	tenant     uint32
	pool       uint32
	serial     uint32
	anchors    []anchor
	nodes      buildNodes
	inherited  bool // there are cuts or report nodes, which mark what lies below
	attachment []byte
}

type buildNode struct {
	name   Name
	anchor int
	flags  int
	server string // with nodeServer
	report int    // with nodeReport
	sets   []RRset
}

// buildNodes finds nodes by name. A domain has about ten, which are compared one by
// one and are in one piece; a platform zone may have thousands.
type buildNodes struct {
	list  []*buildNode
	room  []buildNode
	named map[Name]*buildNode // where there are more than fewNodes
}

const fewNodes = 16

// at is the node of a name, or nil.
func (s *buildNodes) at(n Name) *buildNode {
	if s.named != nil {
		return s.named[n]
	}
	for _, at := range s.list {
		if at.name == n {
			return at
		}
	}
	return nil
}

// add adds a node whose name is not there.
func (s *buildNodes) add(n buildNode) *buildNode {
	if s.list == nil {
		s.list, s.room = make([]*buildNode, 0, fewNodes), make([]buildNode, 0, fewNodes)
	}
	if len(s.room) == cap(s.room) {
		s.room = make([]buildNode, 0, fewNodes)
	}
	s.room = append(s.room, n)
	at := &s.room[len(s.room)-1]
	s.list = append(s.list, at)
	if s.named != nil {
		s.named[n.name] = at
	} else if len(s.list) > fewNodes {
		s.named = make(map[Name]*buildNode)
		for _, at := range s.list {
			s.named[at.name] = at
		}
	}
	return at
}

// anchorAt adds an anchor and the node at it, or finds them.
func (b *builder) anchorAt(kind anchorKind, platform uint32, n Name) *buildNode {
	for i, a := range b.anchors {
		if a.name == string(n) {
			return b.node(i, n)
		}
	}
	b.anchors = append(b.anchors, anchor{kind: kind, platform: platform, name: string(n)})
	at := b.node(len(b.anchors)-1, n)
	at.flags |= nodeBelow
	return at
}

// node is the node of a name at or below an anchor. The names between the two
// exist from then on (RFC 8020).
func (b *builder) node(anchor int, n Name) *buildNode {
	if at := b.nodes.at(n); at != nil {
		return at
	}
	at := b.nodes.add(buildNode{name: n, anchor: anchor})
	if string(n) != b.anchors[anchor].name {
		b.node(anchor, n.Parent()).flags |= nodeBelow
	}
	return at
}

// Bounds of a zone, far above what people have, so that no question and no change
// costs much more than others.
const (
	// maxTypes is how many types of records a name may have: they are looked through
	// one by one.
	maxTypes = 32
	// maxAlike is how many names may have one hash in the index: they are compared one
	// by one. By chance one in a thousand of the largest zones has two; by intent
	// anybody can make as many as he likes.
	maxAlike = 8
	// maxNames and maxPlatformNames are how many names a zone may have, with those above
	// its records: a record of five octets may have a hundred.
	maxNames         = 8192
	maxPlatformNames = 65536
)

// room says whether the zone may have another name.
func (b *builder) room() error {
	most := maxNames
	if b.anchors[0].kind == anchorPlatform {
		most = maxPlatformNames
	}
	if len(b.nodes.list) >= most {
		return fmt.Errorf("%d names with those above its records, a zone has at most %d: leave some out, or use names of fewer labels", len(b.nodes.list), most)
	}
	return nil
}

// checkAlike refuses names that were chosen to have one hash.
func checkAlike(nodes []hashedNode) error {
	for i := maxAlike; i < len(nodes); i++ {
		if nodes[i-maxAlike].hash == nodes[i].hash {
			return fmt.Errorf("%s and %d others have the same hash, as names have that were made for it: choose another", nodes[i].name, maxAlike)
		}
	}
	return nil
}

// add gives a node an RRset. It refuses a second one of the same type.
func (at *buildNode) add(s RRset) error {
	for _, have := range at.sets {
		if have.Type == s.Type {
			return fmt.Errorf("%s %s is there twice", s.Owner, s.Type)
		}
	}
	if len(at.sets) == maxTypes {
		return fmt.Errorf("%s %s: %d other types there, a name has at most %d", s.Owner, s.Type, len(at.sets), maxTypes)
	}
	if len(s.Data) > 0 {
		at.sets = append(at.sets, s)
	}
	return nil
}

func (at *buildNode) has(t Type) bool {
	return slices.ContainsFunc(at.sets, func(s RRset) bool { return s.Type == t })
}

// hashedNode is a node and the hash of its name.
type hashedNode struct {
	hash uint32
	*buildNode
}

// sorted are the nodes by the hash of their names, then by name: the same for
// the same names.
func (b *builder) sorted() []hashedNode {
	var p path
	list := make([]hashedNode, 0, len(b.nodes.list))
	for _, at := range b.nodes.list {
		p.setName(string(at.name))
		list = append(list, hashedNode{nodeHash(p.hash[p.count]), at})
	}
	slices.SortFunc(list, func(x, y hashedNode) int {
		return cmp.Or(cmp.Compare(x.hash, y.hash), strings.Compare(string(x.name), string(y.name)))
	})
	return list
}

// maxAnchors bounds the anchors of one block, which are searched one by one.
const maxAnchors = 64

// guess estimates the size of the block, so that it is allocated once.
func (b *builder) guess(nodes []hashedNode) int {
	size := blockHeader + len(b.attachment) + len(nodes)*(indexEntry+48)
	for _, at := range nodes {
		for _, s := range at.sets {
			for _, data := range s.Data {
				size += len(data) + 32
			}
		}
	}
	return size
}

// build writes the block.
func (b *builder) build() (block, error) {
	if len(b.anchors) > maxAnchors {
		return "", fmt.Errorf("%d names outside the zone, at most %d", len(b.anchors), maxAnchors)
	}
	if b.inherited {
		b.inherit()
	}
	nodes := b.sorted()
	if err := checkAlike(nodes); err != nil {
		return "", err
	}
	out := make([]byte, blockHeader+len(nodes)*indexEntry, b.guess(nodes))
	out[atForm], out[atFlags] = b.form, b.flags
	le := binary.LittleEndian
	le.PutUint16(out[atAnchors:], uint16(len(b.anchors)))
	le.PutUint32(out[atNodes:], uint32(len(nodes)))
	le.PutUint32(out[atTenant:], b.tenant)
	le.PutUint32(out[atPool:], b.pool)
	le.PutUint32(out[atSerial:], b.serial)
	for _, a := range b.anchors {
		out = append(out, byte(a.kind))
		out = le.AppendUint32(out, a.platform)
		out = append(out, byte(len(a.name)))
		out = append(out, a.name...)
	}
	for i, at := range nodes {
		le.PutUint32(out[blockHeader+i*indexEntry:], at.hash)
		le.PutUint32(out[blockHeader+i*indexEntry+4:], uint32(len(out)))
		out = b.appendNode(out, at.buildNode)
	}
	le.PutUint32(out[atAttachment:], uint32(len(out)))
	out = append(out, b.attachment...)
	return block(out), nil
}

// inherit marks what lies at and below cuts and report nodes, so that a look-up sees
// from any node whether there is one above it.
func (b *builder) inherit() {
	for _, at := range b.nodes.list {
		apex := Name(b.anchors[at.anchor].name)
		for up := at.name; up != apex; up = up.Parent() {
			above := b.nodes.at(up).flags
			if above&nodeCut != 0 {
				at.flags |= nodeHidden
			}
			if above&nodeReport != 0 {
				at.flags |= nodeReported
			}
		}
	}
}

func (b *builder) appendNode(out []byte, at *buildNode) []byte {
	le := binary.LittleEndian
	labels := at.name[:len(at.name)-len(b.anchors[at.anchor].name)]
	out = le.AppendUint16(out, uint16(at.anchor))
	out = le.AppendUint16(out, uint16(at.flags))
	out = le.AppendUint16(out, uint16(len(at.sets)))
	out = append(out, byte(len(labels)))
	out = append(out, labels...)
	switch {
	case at.flags&nodeServer != 0:
		out = append(out, byte(len(at.server)))
		out = append(out, at.server...)
	case at.flags&nodeReport != 0:
		out = le.AppendUint16(out, uint16(at.report))
	}
	slices.SortFunc(at.sets, func(x, y RRset) int { return cmp.Compare(x.Type, y.Type) })
	for _, s := range at.sets {
		out = le.AppendUint16(out, uint16(s.Type))
		out = le.AppendUint16(out, uint16(len(s.Data)))
		length := len(out)
		out = appendRecords(le.AppendUint16(out, 0), s.Type, s.TTL, s.Data)
		le.PutUint16(out[length:], uint16(len(out)-length-2))
	}
	return out
}

// questionPointer is the compression pointer to the name of the question.
const questionPointer = 0xc000 | headerSize

// wireRecords makes records as a message has them.
func wireRecords(t Type, ttl uint32, data [][]byte) records {
	return records{wire: string(appendRecords(nil, t, ttl, data)), t: t, count: uint16(len(data))}
}

func appendRecords(out []byte, t Type, ttl uint32, data [][]byte) []byte {
	be := binary.BigEndian
	for _, d := range data {
		out = be.AppendUint16(out, questionPointer)
		out = be.AppendUint16(out, uint16(t))
		out = be.AppendUint16(out, classIN)
		out = be.AppendUint32(out, ttl)
		out = be.AppendUint16(out, uint16(len(d)))
		out = append(out, d...)
	}
	return out
}

// rrset reads prebuilt records back.
func (r records) rrset(owner Name) RRset {
	s := RRset{Owner: owner, Type: r.t}
	for at := 0; at < len(r.wire); {
		length := int(r.wire[at+10])<<8 | int(r.wire[at+11])
		s.TTL = uint32(r.wire[at+6])<<24 | uint32(r.wire[at+7])<<16 | uint32(r.wire[at+8])<<8 | uint32(r.wire[at+9])
		s.Data = append(s.Data, bytes.Clone([]byte(r.wire[at+recordHead:at+recordHead+length])))
		at += recordHead + length
	}
	return s
}

// namesRRset is an RRset whose data are names alone.
func namesRRset(owner Name, t Type, ttl uint32, names []Name) RRset {
	s := RRset{Owner: owner, Type: t, TTL: ttl, Data: make([][]byte, 0, len(names))}
	for _, n := range names {
		s.Data = append(s.Data, []byte(n))
	}
	s.Data = sortData(s.Data)
	return s
}
