package zone

import "encoding/binary"

// query is one question as a packet asked it, parsed by our own parser for the
// one shape that queries have. Slices alias the packet.
type query struct {
	id     uint16
	opcode uint8
	rd     bool // echoed (RFC 1035 section 4.1.1)

	ahead *path  // of the question's name, where Expect took it apart; reset by the caller
	asked []byte // QNAME as asked, wire form, case kept
	qtype Type
	class uint16
	end   int // offset of the octet behind the question; headerSize where none was understood

	edns      bool
	version   uint8
	do        bool
	size      uint16 // requestor's UDP payload size, at least 512
	nsid      bool   // the NSID option was there (RFC 5001)
	keepalive bool   // the option of RFC 7828 was there
	cookie    []byte // of the first COOKIE option (RFC 7873); nil without one

	tsig signature // of a message that carries one
}

// signature is what the reply to a message signed with a key we do not know
// repeats of its TSIG record (RFC 8945 section 4.2).
type signature struct {
	key       []byte // owner; nil where it was compressed, and then nothing is repeated
	algorithm []byte
	signed    []byte // time signed and fudge: 8 octets
	original  []byte // original id: 2 octets
}

// verdict is what vetting a message decides before anything is looked up.
type verdict uint8

const (
	genuine        verdict = iota // one question that the tree answers
	silent                        // no reply at all
	malformed                     // FORMERR
	notImplemented                // NOTIMP
	refused                       // REFUSED
	badVersion                    // BADVERS: an EDNS version that is not 0
	unknownKey                    // NOTAUTH with BADKEY: a TSIG, and we share no key with anyone
	cookieOnly                    // no question, only a COOKIE: NOERROR (RFC 7873 section 5.4)
)

const (
	headerSize     = 12
	maxName        = 255 // RFC 1035 section 2.3.4
	maxLabel       = 63
	recordFixed    = 10 // octets of a record between its owner and its data
	optSize        = 1 + recordFixed
	classIN        = 1
	classANY       = 255
	optionNSID     = 3
	optionAlive    = 11 // edns-tcp-keepalive (RFC 7828)
	optionExtended = 15 // extended error (RFC 8914)
	opcodeQuery    = 0
	optDO          = 0x80 // of the third octet of the TTL (RFC 6891 section 6.1.3)
	optionHeader   = 4

	// maxAdditional is how many additional records a query may bring: OPT and a
	// signature are all there is to bring. More is refused from the count alone,
	// so that no packet buys a long scan.
	maxAdditional = 2
)

// Types that only ask or only carry (RFC 6895 section 3.1).
const (
	typeOPT  Type = 41
	typeTSIG Type = 250
	typeIXFR Type = 251
	typeAXFR Type = 252

	// firstMeta begins the types that RFC 6895 keeps for questions and
	// transport: no zone can hold one.
	firstMeta Type = 128
)

// parse reads a message and decides what to do with it. It is total: any octets
// give a verdict, and it follows no compression pointer, so its work is bounded
// by the length of the message.
//
// Octets behind the last record make a message malformed: every octet of a
// message we answer was understood.
func (q *query) parse(message []byte) verdict {
	q.opcode, q.rd, q.asked, q.qtype, q.class, q.end = 0, false, nil, 0, 0, headerSize
	q.edns, q.version, q.do, q.size, q.nsid = false, 0, false, MinUDP, false
	q.keepalive, q.cookie = false, nil
	q.tsig = signature{}

	if len(message) < headerSize || message[2]&0x80 != 0 {
		return silent // no id to repeat; or a response, which replies would loop with
	}
	q.id = binary.BigEndian.Uint16(message)
	q.opcode = message[2] >> 3 & 0x0f
	q.rd = message[2]&0x01 != 0
	if q.opcode != opcodeQuery {
		return notImplemented // NOTIFY, UPDATE and the rest, before any further parsing
	}
	questions := binary.BigEndian.Uint16(message[4:])
	if questions > 1 || questions == 1 && !q.question(message) {
		return malformed
	}
	answers := binary.BigEndian.Uint16(message[6:])
	authority := binary.BigEndian.Uint16(message[8:])
	additional := binary.BigEndian.Uint16(message[10:])
	if answers != 0 || additional > maxAdditional {
		return malformed
	}
	// An IXFR question brings the SOA it knows (RFC 1995 section 3), no other anything.
	if authority > 1 || authority == 1 && q.qtype != typeIXFR {
		return malformed
	}
	if !q.records(message, int(authority), int(additional)) {
		return malformed
	}
	return q.vet(questions == 0)
}

// vet judges a well-formed query by what it asks.
func (q *query) vet(nothing bool) verdict {
	switch {
	case nothing && q.tsig.signed != nil:
		return malformed
	case q.tsig.signed != nil:
		return unknownKey // RFC 8945 section 5.2.1
	case q.version != 0:
		return badVersion // RFC 6891 section 6.1.3
	case nothing && q.cookie == nil:
		return malformed
	case nothing:
		return cookieOnly
	case q.class != classIN:
		return refused
	case q.qtype == typeOPT:
		return malformed // a record of messages, not of zones: RFC 6891 section 6.1.1
	case q.qtype < firstMeta || q.qtype >= TypeANY:
		return genuine
	case q.qtype == typeAXFR || q.qtype == typeIXFR:
		return refused // a policy, not ignorance: RFC 5936 section 2.2.1
	case q.qtype == firstMeta || q.qtype == typeTSIG:
		return malformed // NXNAME (RFC 9824 section 3.5), and a record of messages
	}
	return notImplemented // also what is not assigned yet (RFC 8906 section 3.1.2)
}

// question reads the question. On success q.end is behind it.
func (q *query) question(message []byte) bool {
	length := 0
	if q.ahead != nil {
		length = q.ahead.length
	} else {
		length = nameLength(message[headerSize:])
	}
	end := headerSize + length + 4
	if length == 0 || end > len(message) {
		return false
	}
	q.asked = message[headerSize : headerSize+length]
	q.qtype = Type(binary.BigEndian.Uint16(message[end-4:]))
	q.class = binary.BigEndian.Uint16(message[end-2:])
	q.end = end
	return true
}

// records reads what follows the question, to the last octet.
func (q *query) records(message []byte, authority, additional int) bool {
	at := q.end
	for i := range authority + additional {
		owner := at
		length, plain := ownerLength(message[at:])
		fixed := at + length
		if length == 0 || fixed+recordFixed > len(message) {
			return false
		}
		data := fixed + recordFixed
		at = data + int(binary.BigEndian.Uint16(message[data-2:]))
		t := Type(binary.BigEndian.Uint16(message[fixed:]))
		last := i == authority+additional-1
		ok := at <= len(message)
		switch {
		case t == typeOPT && i >= authority:
			// Marked as seen before it is judged, and only with its whole head
			// there: the FORMERR to a bad OPT has one (RFC 6891 section 7) and is
			// no longer than the query.
			twice := q.edns
			q.edns = true
			ok = ok && !twice && length == 1 && q.opt(message[fixed:at])
		case t == typeOPT:
			ok = false
		case t == typeTSIG && ok:
			var key []byte
			if plain {
				key = message[owner:fixed]
			}
			ok = last && i >= authority && q.signature(key, message[fixed:at])
		}
		if !ok {
			return false
		}
	}
	return at == len(message)
}

// opt reads an OPT record from its type on (RFC 6891 section 6.1.2). Flags that we
// do not know are passed over. What another version has for options is not ours to
// judge: it is told that we do not know it (section 6.1.3).
func (q *query) opt(record []byte) bool {
	q.size = max(MinUDP, binary.BigEndian.Uint16(record[2:]))
	q.version = record[5]
	q.do = record[6]&optDO != 0
	return q.version != 0 || q.options(record[recordFixed:])
}

// options reads the options of an OPT record. Those that we do not know are passed
// over; so are cookies after the first (RFC 7873 section 5.2), and what a keepalive
// option says (RFC 7828 section 3.2.1 has clients say nothing).
func (q *query) options(options []byte) bool {
	for len(options) > 0 {
		if len(options) < optionHeader {
			return false
		}
		next := optionHeader + int(binary.BigEndian.Uint16(options[2:]))
		if next > len(options) {
			return false
		}
		switch binary.BigEndian.Uint16(options) {
		case optionNSID:
			q.nsid = true
		case optionAlive:
			q.keepalive = true
		case optionCookie:
			if q.cookie != nil {
				break
			}
			if !cookieFits(next - optionHeader) {
				return false // and not kept: the reply repeats all of a client's half
			}
			q.cookie = options[optionHeader:next]
		}
		options = options[next:]
	}
	return true
}

// signature reads a TSIG record from its type on (RFC 8945 section 4.2).
func (q *query) signature(key, record []byte) bool {
	const timeAndFudge, macSize, tail = 8, 2, 6 // tail: original id, error, other length
	if binary.BigEndian.Uint16(record[2:]) != classANY || binary.BigEndian.Uint32(record[4:]) != 0 {
		return false
	}
	data := record[recordFixed:]
	algorithm := nameLength(data)
	rest := data[algorithm:]
	if algorithm == 0 || len(rest) < timeAndFudge+macSize+tail {
		return false
	}
	mac := int(binary.BigEndian.Uint16(rest[timeAndFudge:]))
	after := rest[timeAndFudge+macSize:]
	if len(after) < mac+tail {
		return false
	}
	after = after[mac:]
	if len(after) != tail+int(binary.BigEndian.Uint16(after[4:])) {
		return false
	}
	q.tsig = signature{key: key, algorithm: data[:algorithm], signed: rest[:timeAndFudge], original: after[:2]}
	return true
}

// nameLength is the length of the uncompressed name at the beginning of b, root
// label included; 0 where there is none: cut off, too long, a compression
// pointer or one of the reserved label types. A pointer in the first name of a
// message has nowhere legal to point (RFC 1035 section 4.1.4: a prior occurrence).
func nameLength(b []byte) int {
	for at := 0; at < len(b) && at < maxName; {
		label := int(b[at])
		if label == 0 {
			return at + 1
		}
		if label > maxLabel {
			return 0
		}
		at += 1 + label
	}
	return 0
}

// ownerLength is nameLength for a name that may end in a compression pointer,
// which is passed over, not followed; plain says that there was none.
func ownerLength(b []byte) (length int, plain bool) {
	for at := 0; at < len(b) && at < maxName; {
		label := int(b[at])
		switch {
		case label == 0:
			return at + 1, true
		case label >= 0xc0 && at+2 <= len(b):
			return at + 2, false
		case label > maxLabel:
			return 0, false
		}
		at += 1 + label
	}
	return 0, false
}

// fold writes name to dst with A to Z in lower case. Length octets are at most
// 63 and so never letters, which lets eight octets go at a time whatever they are.
// Where there is more behind the name, as in a message, the last eight go so too.
func fold(dst *[256]byte, name []byte) {
	const (
		ones = 0x0101010101010101
		high = 0x80 * ones
	)
	if whole := (len(name) + 7) &^ 7; whole <= min(cap(name), len(dst)) {
		name = name[:whole]
	}
	i := 0
	for ; i+8 <= len(name); i += 8 {
		x := binary.LittleEndian.Uint64(name[i:])
		low := x &^ high
		// The high bit of an octet of each sum says "at least A" and "past Z".
		upper := (low + (0x80-'A')*ones) &^ (low + (0x80-'Z'-1)*ones) &^ x & high
		binary.LittleEndian.PutUint64(dst[i:], x|upper>>2)
	}
	for ; i < len(name); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst[i] = c
	}
}
