package zone

// query is one question as a packet asked it, parsed by our own parser for the
// one shape that queries have. Slices alias the packet.
type query struct {
	id     uint16
	opcode uint8
	rd     bool // echoed (RFC 1035 section 4.1.1)

	asked  []byte    // QNAME as asked, wire form, case kept
	folded [256]byte // the same in lower case; length len(asked)
	qtype  Type
	class  uint16
	end    int // offset of the octet behind the question

	edns    bool
	version uint8
	do      bool
	size    uint16 // requestor's UDP payload size, at least 512
	nsid    bool   // the NSID option was there (RFC 5001)
}
