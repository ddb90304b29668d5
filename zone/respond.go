package zone

// Responder answers messages from a tree. Each worker has its own: it holds the
// buffers of the query at hand and is not safe for concurrent use.
type Responder struct{ responder }

type responder struct{}

// NewResponder makes a responder; nsid may be empty.
func NewResponder(t *Tree, nsid string) *Responder { panic("todo") }

// Reply appends the reply to a message to dst, which has room for MaxUDP (or
// over TCP MaxTCP) octets more, and returns it; unchanged where there is no
// reply. It never allocates.
func (r *Responder) Reply(dst, message []byte, tcp bool) []byte { panic("todo") }

// Sizes of messages in octets.
const (
	MaxUDP = 1232 // what we send at most over UDP, and offer in EDNS (DNS flag day 2020)
	MinUDP = 512  // without EDNS (RFC 1035 section 2.3.4)
	MaxTCP = 65535
)
