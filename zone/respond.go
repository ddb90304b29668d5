package zone

import (
	"encoding/binary"
	"slices"
)

// Responder answers messages from a tree. Each worker has its own: it holds the
// buffers of the query at hand and is not safe for concurrent use.
type Responder struct {
	tree   *Tree
	nsid   string
	query  query
	answer answer
	tally  tally // taken by the worker that owns the responder
}

// NewResponder makes a responder; nsid may be empty, and is cut at MaxNSID.
func NewResponder(t *Tree, nsid string) *Responder {
	return &Responder{tree: t, nsid: nsid[:min(len(nsid), MaxNSID)]}
}

// Sizes of messages in octets.
const (
	MaxUDP = 1232 // what we send at most over UDP, and offer in EDNS (DNS flag day 2020)
	MinUDP = 512  // without EDNS (RFC 1035 section 2.3.4)
	MaxTCP = 65535

	// MaxNSID is the longest server identifier: with it an error about the
	// longest name still fits in MinUDP.
	MaxNSID = 128
)

// Response codes (RFC 6895 section 2.3). The upper bits of those past 15 are in
// the OPT record.
const (
	rcodeSuccess  = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeYXDomain = 6
	rcodeNotAuth  = 9
	rcodeBadVers  = 16

	tsigBadKey = 17 // RFC 8945 section 3; not an RCODE of the header
)

// Reply appends the reply to a message to dst, which has room for MaxUDP (or
// over TCP MaxTCP) octets more, and returns it; unchanged where there is no
// reply. It never allocates.
//
// A reply that is no answer is never longer than the message it replies to,
// but for the NSID that an EDNS query asked for.
func (r *Responder) Reply(dst, message []byte, tcp bool) []byte {
	q := &r.query
	v := q.parse(message)
	if v == silent {
		r.tally[slotDropped]++
		return dst
	}
	limit := q.limit(tcp)
	dst = slices.Grow(dst, limit)
	start := len(dst)
	rcode := v.rcode()
	dst = appendHead(dst, message, q, rcode)
	if v == genuine {
		dst = r.appendGenuine(dst, start, limit)
		rcode = int(dst[start+3] & 0x0f)
	}
	if q.edns {
		dst = r.appendOPT(dst, start, rcode)
	}
	if v == unknownKey {
		dst = q.appendUnknownKey(dst, start)
	}
	r.tally[slotRcodes+rcode]++
	if q.end > headerSize {
		r.tally[slotTypes+typeGroup(q.qtype)]++
	}
	return dst
}

// appendGenuine looks the question up and appends the sections of the answer.
func (r *Responder) appendGenuine(dst []byte, start, limit int) []byte {
	q, a := &r.query, &r.answer
	r.tree.lookup(q, a)
	room := limit
	if q.edns {
		room -= r.optLength()
	}
	dst, truncated := appendAnswer(dst, start, q, a, room)
	if a.minimal {
		dst = appendHINFO(dst, start)
	}
	if truncated {
		r.tally[slotTruncated]++
	}
	r.tally[slotOutcomes+int(a.outcome)%outcomeSlots]++
	return dst
}

// rcode is the response code of a verdict that is the whole reply.
func (v verdict) rcode() int {
	switch v {
	case malformed:
		return rcodeFormErr
	case notImplemented:
		return rcodeNotImp
	case refused:
		return rcodeRefused
	case badVersion:
		return rcodeBadVers
	case unknownKey:
		return rcodeNotAuth
	}
	return rcodeSuccess
}

// limit is how long the reply may be in octets.
func (q *query) limit(tcp bool) int {
	switch {
	case tcp:
		return MaxTCP
	case q.edns:
		return min(int(q.size), MaxUDP)
	}
	return MinUDP
}

// appendHead appends the header and, where one was understood, the question as
// it was asked. Of the flags only OPCODE and RD are repeated: RA, AD and CD are
// not for an authority to set (RFC 4035 section 3.1.6), Z is reserved.
func appendHead(dst, message []byte, q *query, rcode int) []byte {
	flags := 0x80 | q.opcode<<3
	if q.rd {
		flags |= 0x01
	}
	questions := byte(0)
	if q.end > headerSize {
		questions = 1
	}
	dst = append(dst, message[0], message[1], flags, byte(rcode&0x0f), 0, questions, 0, 0, 0, 0, 0, 0)
	return append(dst, message[headerSize:q.end]...)
}

// optLength is the length of what appendOPT appends.
func (r *Responder) optLength() int {
	if r.query.nsid && r.nsid != "" {
		return optSize + optionHeader + len(r.nsid)
	}
	return optSize
}

// appendOPT appends our OPT record (RFC 6891 section 6.1): version 0, DO
// repeated, other flags clear. NSID is the only option we answer; extended
// errors and cookies would be appended here.
func (r *Responder) appendOPT(dst []byte, start, rcode int) []byte {
	var do byte
	if r.query.do {
		do = optDO
	}
	length := r.optLength() - optSize
	dst = append(dst, 0, 0, byte(typeOPT), MaxUDP>>8, MaxUDP&0xff, byte(rcode>>4), 0, do, 0, byte(length>>8), byte(length))
	if length > 0 {
		dst = append(dst, 0, optionNSID, 0, byte(len(r.nsid)))
		dst = append(dst, r.nsid...)
	}
	addCount(dst[start:], countAdditional)
	return dst
}

// appendUnknownKey appends the TSIG record of an unsigned refusal: that of the
// query without its MAC, saying BADKEY (RFC 8945 section 5.3.2). It stands last.
func (q *query) appendUnknownKey(dst []byte, start int) []byte {
	const fixed = 16 // time, fudge, MAC size, original id, error, other length
	s := &q.tsig
	if s.key == nil {
		return dst
	}
	length := len(s.algorithm) + fixed
	dst = append(dst, s.key...)
	dst = append(dst, 0, byte(typeTSIG), 0, classANY, 0, 0, 0, 0, byte(length>>8), byte(length))
	dst = append(dst, s.algorithm...)
	dst = append(dst, s.signed...)
	dst = append(dst, 0, 0)
	dst = append(dst, s.original...)
	dst = append(dst, 0, tsigBadKey, 0, 0)
	addCount(dst[start:], countAdditional)
	return dst
}

// appendHINFO appends the one record that says that ANY is not answered in full
// (RFC 8482 section 4.2).
func appendHINFO(dst []byte, start int) []byte {
	dst = append(dst, 0xc0, headerSize, 0, byte(typeHINFO), 0, classIN, 0, 0, ttlHINFO>>8, ttlHINFO&0xff, 0, 9)
	dst = append(dst, "\x07RFC8482\x00"...)
	addCount(dst[start:], countAnswer)
	return dst
}

const typeHINFO Type = 13

const ttlHINFO = 3600

// Offsets of counts in a header.
const (
	countAnswer     = 6
	countAdditional = 10
)

func addCount(message []byte, at int) {
	binary.BigEndian.PutUint16(message[at:], binary.BigEndian.Uint16(message[at:])+1)
}
