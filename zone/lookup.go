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
}

// lookup fills a with what the tree holds for the question. It depends on
// q.asked, q.folded and q.qtype alone; class and opcode are the caller's.
func (t *Tree) lookup(q *query, a *answer) { panic("todo") }
