package zone

import (
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"
)

// Responder answers messages from a tree. Each worker has its own: it holds the
// buffers of the query at hand and is not safe for concurrent use.
type Responder struct {
	tree   *Tree
	nsid   string
	query  query
	answer answer
	watch  *watchShard // nil: queries for keys are not counted
	tally  tally       // taken by the worker that owns the responder

	// What begin reads once for a batch.
	guard   *guard // nil: nothing is limited, cookies are not looked at
	secrets *CookieSecrets
	now     int64       // nanoseconds since the server started
	unix    uint32      // seconds since 1970
	census  *censusList // nil: no domain's queries are counted

	// Of the query at hand.
	options replyOptions
	cookie  [cookieSize]byte // where options has optionsCookie

	expecting expecting // of the batch at hand
}

// guard is what the responders of a server share.
type guard struct {
	secrets   atomic.Pointer[CookieSecrets]
	limiter   *limiter // nil: nothing is limited
	started   time.Time
	keepalive uint16  // how long an idle connection lasts, in tenths of a second
	census    *Census // nil: nothing is ever counted
}

// replyOptions are the EDNS options of a reply.
type replyOptions struct {
	nsid, cookie, keepalive bool
	extended                extendedError // noExtended: none
}

// extendedError says more of a reply than its RCODE (RFC 8914 section 4). We
// send it without text: the codes say all there is to say.
type extendedError uint16

const (
	noExtended extendedError = 0 // "Other Error", which we never send
	// notReady is for a node that listens before it has anything to answer from.
	// Ours does not listen then.
	notReady         extendedError = 14
	notAuthoritative extendedError = 20
	notSupported     extendedError = 21
)

// NewResponder makes a responder; nsid may be empty, and is cut at MaxNSID.
func NewResponder(t *Tree, nsid string) *Responder { return newResponder(t, nsid, nil) }

func newResponder(t *Tree, nsid string, g *guard) *Responder {
	return &Responder{tree: t, nsid: nsid[:min(len(nsid), MaxNSID)], guard: g}
}

// begin reads what holds for a batch of messages.
func (r *Responder) begin(now time.Time) {
	if r.guard == nil {
		return
	}
	r.secrets = r.guard.secrets.Load()
	r.now, r.unix = int64(now.Sub(r.guard.started)), uint32(now.Unix())
	r.census = r.guard.census.at(r.unix)
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
	rcodeSuccess   = 0
	rcodeFormErr   = 1
	rcodeServFail  = 2
	rcodeNXDomain  = 3
	rcodeNotImp    = 4
	rcodeRefused   = 5
	rcodeYXDomain  = 6
	rcodeNotAuth   = 9
	rcodeBadVers   = 16
	rcodeBadCookie = 23

	tsigBadKey = 17 // RFC 8945 section 3; not an RCODE of the header
)

// Reply appends the reply to a message to dst and returns it, unchanged where there
// is no reply. With room in dst for MaxUDP octets more (over TCP MaxTCP) it never
// allocates.
//
// A reply that is no answer is longer than its message by the EDNS options that we
// answer with at most, and one past a rate limit is no longer at all.
func (r *Responder) Reply(dst, message []byte, tcp bool) []byte {
	return r.reply(dst, message, &source{tcp: tcp})
}

// reply is Reply to a source.
func (r *Responder) reply(dst, message []byte, from *source) []byte {
	q := &r.query
	v := q.parse(message)
	if v == silent {
		q.spend()
		r.tally[slotDropped]++
		return dst
	}
	cookie := r.secrets.judge(&r.cookie, q.cookie, from, r.unix)
	r.tally[slotCookies+int(cookie)]++
	if v == cookieOnly && cookie == cookieNone {
		v = malformed // as a server without cookies has it
	}
	rcode := v.rcode()
	if v == genuine {
		r.tree.lookup(q, &r.answer)
		if r.answer.watched != 0 && r.watch != nil {
			r.watch.note(r.answer.watched)
		}
		rcode = int(r.answer.rcode)
		r.tally[slotOutcomes+int(r.answer.outcome)%outcomeSlots]++
		if r.census != nil {
			r.census.note(q, r.answer.outcome, r.unix)
		}
	}
	r.choose(v, cookie, from)
	cut := false
	switch {
	case cookie != cookieGood && r.limited(v, from):
		r.options = replyOptions{}
		if cut = r.cuttable(v); cut {
			rcode = r.cutRcode(cookie, message)
		}
	case v == cookieOnly && cookie == cookieBad:
		rcode = rcodeBadCookie // RFC 7873 section 5.4
	}

	limit := q.limit(from.tcp)
	if !from.tcp { // over TCP most replies are far shorter than the limit
		dst = slices.Grow(dst, limit)
	}
	start := len(dst)
	dst = appendHead(dst, message, q, rcode)
	switch {
	case cut && rcode == rcodeSuccess:
		dst[start+2] |= flagTC
		r.tally[slotTruncated]++
	case v == genuine && !cut:
		dst = r.appendSections(dst, start, limit)
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
	q.spend()
	return dst
}

// appendSections appends the sections of the answer that was looked up.
func (r *Responder) appendSections(dst []byte, start, limit int) []byte {
	q, a := &r.query, &r.answer
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
	return dst
}

// choose decides which EDNS options the reply has.
func (r *Responder) choose(v verdict, cookie cookieState, from *source) {
	q := &r.query
	r.options = replyOptions{nsid: q.nsid && r.nsid != "", cookie: cookie != cookieNone}
	if !q.edns {
		return
	}
	// Over UDP the option means nothing (RFC 7828 section 3.2.1).
	r.options.keepalive = q.keepalive && from.tcp && r.guard != nil
	switch {
	case v == genuine && r.answer.outcome == Refused:
		r.options.extended = notAuthoritative
	case v == refused || v == notImplemented:
		r.options.extended = notSupported
	}
}

// limited counts a reply and says whether it is past a limit. TCP is not counted:
// its addresses are not forged, and its connections have limits of their own.
func (r *Responder) limited(v verdict, from *source) bool {
	if from.tcp || from.length == 0 || r.guard == nil || r.guard.limiter == nil {
		return false
	}
	class, owner := classError, uint64(0)
	if r.cuttable(v) {
		class, owner = classAnswer, r.answer.origin
		if r.answer.outcome == NoName {
			class = classNoName
		}
	}
	switch r.guard.limiter.take(from, r.now, class, owner) {
	case within:
		return false
	case overTotal:
		r.tally[slotLimited+int(limitClasses)]++
	default:
		r.tally[slotLimited+int(class)]++
	}
	return true
}

// cuttable says whether the reply has anything that a limit may cut off. An error has
// nothing but its options: TC would only make its sender ask again over TCP.
func (r *Responder) cuttable(v verdict) bool { return v == genuine && r.answer.outcome != Refused }

// cutRcode is the response code of an answer past its limit: NOERROR, with TC; or
// BADCOOKIE to a client whose cookie is not ours any more (RFC 7873 section 5.2.3),
// which makes it ask again with the cookie of the reply. A client that has no
// server's half yet gets none: the reply would be longer than the query.
func (r *Responder) cutRcode(cookie cookieState, message []byte) int {
	if cookie != cookieBad || r.query.end+optSize+optionHeader+cookieSize > len(message) {
		return rcodeSuccess
	}
	r.options.cookie = true
	return rcodeBadCookie
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
	length, o := optSize, &r.options
	if o.nsid {
		length += optionHeader + len(r.nsid)
	}
	if o.cookie {
		length += optionHeader + cookieSize
	}
	if o.keepalive {
		length += optionHeader + 2
	}
	if o.extended != noExtended {
		length += optionHeader + 2
	}
	return length
}

// appendOPT appends our OPT record (RFC 6891 section 6.1): version 0, DO
// repeated, other flags clear, and the options chosen.
func (r *Responder) appendOPT(dst []byte, start, rcode int) []byte {
	var do byte
	if r.query.do {
		do = optDO
	}
	length, o := r.optLength()-optSize, &r.options
	dst = append(dst, 0, 0, byte(typeOPT), MaxUDP>>8, MaxUDP&0xff, byte(rcode>>4), 0, do, 0, byte(length>>8), byte(length))
	if o.nsid {
		dst = append(dst, 0, optionNSID, 0, byte(len(r.nsid)))
		dst = append(dst, r.nsid...)
	}
	if o.cookie {
		dst = append(dst, 0, optionCookie, 0, cookieSize)
		dst = append(dst, r.cookie[:]...)
	}
	if o.keepalive {
		dst = append(dst, 0, optionAlive, 0, 2, byte(r.guard.keepalive>>8), byte(r.guard.keepalive))
	}
	if o.extended != noExtended {
		dst = append(dst, 0, optionExtended, 0, 2, byte(o.extended>>8), byte(o.extended))
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
