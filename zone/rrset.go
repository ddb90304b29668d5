package zone

// Type is an RR type (RFC 1035 section 3.2.2).
type Type uint16

// The types that authd writes itself. Any other comes from records that
// operators and customers add.
const (
	TypeA     Type = 1
	TypeNS    Type = 2
	TypeCNAME Type = 5
	TypeSOA   Type = 6
	TypeMX    Type = 15
	TypeTXT   Type = 16
	TypeAAAA  Type = 28
	TypeDNAME Type = 39
	TypeANY   Type = 255
)

// ParseType reads a mnemonic or TYPEnnn (RFC 3597 section 5).
func ParseType(text string) (Type, error) { panic("todo") }

// String is the mnemonic, or TYPEnnn.
func (t Type) String() string { panic("todo") }

// RRset is one owner's records of one type: data in wire form, uncompressed,
// sorted and without duplicates. It must not be modified once made.
type RRset struct {
	Owner Name     `cbor:"1,keyasint"`
	Type  Type     `cbor:"2,keyasint"`
	TTL   uint32   `cbor:"3,keyasint"` // seconds
	Data  [][]byte `cbor:"4,keyasint"` // RDATA, one element a record
}

// ParseRRset reads records from presentation form. Values are RDATA text (RFC
// 1035 section 5.1, RFC 3597 \# form included); a TXT value that is not quoted
// is taken as one text and split into strings of at most 255 octets. It refuses
// meta types, SOA, a TTL outside MinTTL to MaxTTL, no values, and two values for
// CNAME or DNAME. The error names the value.
func ParseRRset(owner Name, t Type, ttl uint32, values []string) (RRset, error) { panic("todo") }

// Values is the presentation form of the data, in the order kept.
func (s RRset) Values() []string { panic("todo") }

// TextRRset is a TXT RRset of one record whose text is cut into strings of at
// most 255 octets (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2).
func TextRRset(owner Name, ttl uint32, text string) RRset { panic("todo") }
