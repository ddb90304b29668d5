package zone

import "encoding/binary"

// appendAnswer appends the sections of an answer to dst, where header and
// question of the message that starts at offset start are already written, and
// sets AA, TC, RCODE and the four counts in its header, OPCODE, QR, RD and the
// rest being the caller's. The message never gets longer than limit octets: the
// caller leaves room for its OPT record and counts it in ARCOUNT himself
// afterwards. What does not fit is cut down to header and question with TC;
// additional records are dropped before that, without TC, other than glue
// (RFC 9471 section 3.1). With room in dst it does not allocate.
func appendAnswer(dst []byte, start int, q *query, a *answer, limit int) (out []byte, truncated bool) {
	var w writer
	w.out, w.start, w.limit, w.a = dst, start, start+limit, a
	question := len(dst)
	var counts [3]uint16 // answer, authority, additional
	fits := true
	for i := 0; i < a.used && fits; i++ {
		section := 2
		switch {
		case i < a.answers:
			section = 0
		case i < a.answers+a.authority:
			section = 1
		}
		if w.write(i) {
			counts[section] += a.refs[i].count
		} else if section < 2 || a.refs[i].glue {
			fits = false
		}
	}
	if !fits {
		w.out, counts = w.out[:question], [3]uint16{}
	}
	h := w.out[start:]
	h[2] &^= flagAA | flagTC
	if a.aa {
		h[2] |= flagAA
	}
	if !fits {
		h[2] |= flagTC
	}
	h[3] = h[3]&^0x0f | a.rcode
	for i, n := range counts {
		binary.BigEndian.PutUint16(h[countAnswer+2*i:], n)
	}
	return w.out, !fits
}

// Flags in the third octet of a header (RFC 1035 section 4.1.1).
const (
	flagAA = 0x04
	flagTC = 0x02
)

// writer writes the refs of an answer into a message.
type writer struct {
	out   []byte
	start int // of the message
	limit int // of out
	a     *answer
}

// write appends a ref; false, and nothing appended, where it does not fit.
func (w *writer) write(i int) bool {
	r := &w.a.refs[i]
	r.begin = len(w.out)
	pointer := w.pointer(r.owner)
	switch r.kind {
	case refSOA:
		return w.writeSOA(pointer)
	case refSynth:
		return w.writeSynth(r, pointer)
	}
	at := len(w.out)
	if at+len(r.wire) > w.limit {
		return false
	}
	w.out = append(w.out, r.wire...)
	if pointer == questionPointer {
		return true
	}
	for at < len(w.out) {
		binary.BigEndian.PutUint16(w.out[at:], pointer)
		at += recordHead + int(binary.BigEndian.Uint16(w.out[at+10:]))
	}
	return true
}

// offset is where in the message, counted from its start, a place is.
func (w *writer) offset(p place) int {
	if p.ref == fromQuestion {
		return headerSize + int(p.at)
	}
	return w.a.refs[p.ref].begin - w.start + int(p.at)
}

// maxPointer is how far into a message a compression pointer reaches (RFC 1035
// section 4.1.4). All that we point to is nearer: the question, the records of a
// chain, and the first hosts behind it.
const maxPointer = 0x3fff

const farthest = headerSize + maxName + 4 + (2*maxHops+maxHosts)*(recordHead+6+maxName)

var _ [maxPointer - farthest]struct{} // does not compile where that is wrong

func (w *writer) pointer(p place) uint16 { return 0xc000 | uint16(w.offset(p)) }

// Timers of our SOA records in seconds (RFC 1035 section 3.3.13). There are no
// secondaries yet; these suit one.
const (
	soaRefresh = 7200
	soaRetry   = 1800
	soaExpire  = 1209600
	soaNumbers = 5 * 4
)

// writeSOA writes the SOA, the only record whose data are compressed (RFC 3597
// section 4): all others are copied as they were built, for whatever question.
func (w *writer) writeSOA(pointer uint16) bool {
	s := &w.a.soa
	mname, rname := len(s.mname), len(s.rname) // as written
	apex := pointer                            // where the end of rname is
	if s.mnameCut > 0 {
		mname = s.mnameCut + 2
	} else {
		apex = 0xc000 | uint16(len(w.out)-w.start+recordHead+mname-(rname-s.rnameCut))
	}
	if s.rnameCut > 0 {
		rname = s.rnameCut + 2
	}
	length := mname + rname + soaNumbers
	if len(w.out)+recordHead+length > w.limit {
		return false
	}
	w.head(pointer, TypeSOA, s.ttl, length)
	w.cut(s.mname, s.mnameCut, pointer)
	w.cut(s.rname, s.rnameCut, apex)
	w.out = s.appendNumbers(w.out)
	return true
}

// cut writes a name of which the first octets differ from what a pointer leads
// to; none: the whole name.
func (w *writer) cut(n Name, octets int, pointer uint16) {
	if octets == 0 {
		w.out = append(w.out, n...)
		return
	}
	w.out = append(w.out, n[:octets]...)
	w.out = binary.BigEndian.AppendUint16(w.out, pointer)
}

// appendData appends the RDATA without compression.
func (s *soa) appendData(out []byte) []byte {
	out = append(out, s.mname...)
	out = append(out, s.rname...)
	return s.appendNumbers(out)
}

func (s *soa) appendNumbers(out []byte) []byte {
	for _, n := range [...]uint32{s.serial, soaRefresh, soaRetry, soaExpire, TTLNegative} {
		out = binary.BigEndian.AppendUint32(out, n)
	}
	return out
}

// writeSynth writes the CNAME that a DNAME makes: the labels in front of the
// DNAME's owner, as they were asked, and its target.
func (w *writer) writeSynth(r *ref, pointer uint16) bool {
	length := int(r.prefix) + len(r.target)
	if len(w.out)+recordHead+length > w.limit {
		return false
	}
	w.head(pointer, TypeCNAME, r.ttl, length)
	from := w.start + w.offset(r.owner)
	w.out = append(w.out, w.out[from:from+int(r.prefix)]...)
	w.out = append(w.out, r.target...)
	return true
}

// head writes a record up to its data.
func (w *writer) head(pointer uint16, t Type, ttl uint32, length int) {
	be := binary.BigEndian
	w.out = be.AppendUint16(w.out, pointer)
	w.out = be.AppendUint16(w.out, uint16(t))
	w.out = be.AppendUint16(w.out, classIN)
	w.out = be.AppendUint32(w.out, ttl)
	w.out = be.AppendUint16(w.out, uint16(length))
}
