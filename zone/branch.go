package zone

import (
	"encoding/binary"
	"slices"
	"strings"
)

// Branch is one domain's answers in wire form, with its attachment: an
// immutable, pointer-free value in one allocation. Branches are comparable: the
// same plan always renders to the same bytes. The zero value holds nothing.
//
// Its octets are a block, whose layout is part of Form.
type Branch string

// Anchors are the names under which a tree finds the branch: the zone of a
// proven delegated domain, the server names, the targets.
func (b Branch) Anchors() []Name {
	var names []Name
	for _, a := range b.anchors() {
		names = append(names, Name(a.name))
	}
	return names
}

// anchors are those under which the branch is found.
func (b Branch) anchors() []anchor {
	if b == "" {
		return nil
	}
	return slices.DeleteFunc(anchors(block(b)), func(a anchor) bool { return a.kind == anchorHidden })
}

// Attachment is the Plan's Attachment, aliasing the branch's memory.
func (b Branch) Attachment() string {
	if b == "" {
		return ""
	}
	return string(b[u32(block(b), atAttachment):])
}

// With is the branch of a plan that differs in its serial and attachment alone.
func (b Branch) With(serial uint32, attachment []byte) Branch {
	end := int(u32(block(b), atAttachment))
	var number [4]byte
	binary.LittleEndian.PutUint32(number[:], serial)
	var out strings.Builder // whose octets become the branch without a copy
	out.Grow(end + len(attachment))
	out.WriteString(string(b[:atSerial]))
	out.Write(number[:])
	out.WriteString(string(b[atSerial+len(number) : end]))
	out.Write(attachment)
	return Branch(out.String())
}

// Text is the joined text of the first TXT record that the branch itself (not
// its pool) holds at owner, and whether there is one. It finds records of a zone
// that is not proven, too.
func (b Branch) Text(owner Name) (string, bool) {
	if b == "" || owner == "" {
		return "", false
	}
	var p path
	p.setName(string(owner))
	at := firstAnchor(block(b))
	for i := range u16(block(b), atAnchors) {
		a, next := anchorAt(block(b), at)
		at = next
		if !owner.In(Name(a.name)) {
			continue
		}
		n, ok := findNode(block(b), i, p.hash[p.count], p.name[:p.length-len(a.name)])
		if !ok {
			continue
		}
		if r := n.set(TypeTXT); r.count > 0 {
			length := int(r.wire[10])<<8 | int(r.wire[11])
			return joinText(r.wire[recordHead : recordHead+length]), true
		}
	}
	return "", false
}
