package zone

// Outcome is what a look-up came to. One table turns it into a message.
type Outcome uint8

const (
	Found    Outcome = 1 // the RRset asked for
	Alias    Outcome = 2 // a CNAME (or DNAME) whose end lies outside what we may follow
	Referral Outcome = 3 // the name lies at or below a cut (RFC 1034 section 4.3.2 step 3b)
	NoData   Outcome = 4 // the name exists, the type does not (RFC 2308 section 2.2)
	NoName   Outcome = 5 // the name does not exist (RFC 2308 section 2.1)
	Refused  Outcome = 6 // no zone of ours
)

// answer is what a look-up found: references into branches, pools and platform
// zones, of fixed size, reused from query to query.
type answer struct {
	outcome Outcome
	rcode   uint8 // RCODE of the reply: that of the chain's last name (RFC 6604 section 3)
	aa      bool  // we are an authority for the first name (RFC 1034 section 4.3.1)
	// minimal: the question was ANY and the name has data. appendAnswer appends
	// no answer then; the caller adds one HINFO and counts it (RFC 8482 section 4.2).
	minimal bool

	refs      [maxRefs]ref // in the order of the message
	used      int
	answers   int // how many of refs are in the answer section
	authority int // and how many in the authority section; the rest is additional
	soa       soa

	tenant uint32 // whose zones the chain is in
	bound  bool   // whether it is in any tenant's yet
	hops   int
	labels int                 // followed so far
	seen   [maxHops + 1]uint64 // hashes of the chain's names
	dnames int                 // how many DNAMEs are among the answers,
	above  [maxHops]uint64     // and the hashes of their owners
	// origin is the hash of what the first name was answered from, for rate limits:
	// the name itself, or where names without number are answered alike the
	// wildcard, the DNAME, the cut, or the zone that has no such name.
	origin uint64
	// watched is the hash of a name asked for whose queries are counted; 0: none.
	watched uint64
	name    *path // the chain's last name: own, or what was taken apart ahead
	own     path
	owner   place // where the message has it
	other   path  // a name beside the chain: an address, a reporting domain
}

// Bounds of one answer.
const (
	maxHops      = 8  // CNAMEs and DNAMEs followed
	maxHosts     = 16 // hosts whose addresses are looked for
	maxAddresses = 16 // RRsets in the additional section
	// maxFollowed is how many labels the names have together that an answer goes
	// on to, aliases and hosts: eight and sixteen names of ten are within it, and
	// names of a hundred cost a packet no more than they do.
	maxFollowed = 256
	// Each hop takes two refs at most, the end of the chain two (a pool's TXT and
	// the domain's own), and one is for the authority section.
	maxRefs = 2*maxHops + 3 + maxAddresses
)

// place is where in the message a name is written without compression: in the
// question, or in the data of records.
type place struct {
	ref int16  // whose records; or fromQuestion
	at  uint16 // offset in the records, or in the question's name
}

const fromQuestion = -1

// refKind says how a ref is written.
type refKind uint8

const (
	refRecords refKind = iota // prebuilt records
	refSOA                    // the SOA of the answer
	refSynth                  // the CNAME that a DNAME makes (RFC 6672 section 2.2)
)

// ref is a part of a message: one RRset, or the part of one that lies in one
// place.
type ref struct {
	records
	kind   refKind
	owner  place
	glue   bool   // additional, but not to be left out (RFC 9471 section 3.1)
	prefix uint8  // refSynth: octets of the owner that stay
	target string // refSynth: what follows them; glue and addresses: their owner
	ttl    uint32 // refSynth
	begin  int    // where it was written, once it was
}

// soa is the SOA of an answer; there is at most one.
type soa struct {
	mname, rname Name
	serial, ttl  uint32
	// How much of the names is written out, the rest being a pointer: of mname to
	// the owner, of rname to the end of mname; 0: all.
	mnameCut, rnameCut int
}

func (a *answer) reset(q *query) {
	a.outcome, a.rcode, a.aa, a.minimal = Refused, rcodeRefused, false, false
	a.used, a.answers, a.authority = 0, 0, 0
	a.tenant, a.bound, a.hops, a.labels, a.dnames = 0, false, 0, 0, 0
	a.name = q.ahead
	if a.name == nil {
		a.name = &a.own
		a.name.setAsked(q.asked)
	}
	a.seen[0] = a.name.hash[a.name.count]
	a.origin, a.watched = a.seen[0], 0
	a.owner = place{ref: fromQuestion}
}

// add appends records of the owner at a place; nothing where there are none.
func (a *answer) add(r records, owner place) bool {
	if r.count == 0 {
		return false
	}
	to := &a.refs[a.used]
	to.records, to.owner = r, owner
	to.kind, to.glue, to.target = refRecords, false, ""
	a.used++
	return true
}

// from notes what the first name is answered from.
func (a *answer) from(hash uint64) {
	if a.hops == 0 {
		a.origin = hash
	}
}

// suffixPlace is where the message has the suffix of d labels of the last name.
func (a *answer) suffixPlace(d int) place {
	return place{ref: a.owner.ref, at: a.owner.at + uint16(a.name.offset[d])}
}

// end closes the chain with an outcome.
func (a *answer) end(o Outcome, rcode uint8) {
	a.outcome, a.rcode = o, rcode
}
