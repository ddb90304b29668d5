package state

// Token identifies one claim of one tenant to one name: 128 random bits, never
// chosen, never reused. It is in every name the customer is given.
type Token [16]byte

// String is the 26 lower-case base32 characters (RFC 4648 section 6 alphabet,
// no padding) used in names and in the API.
func (t Token) String() string { panic("todo") }

// ParseToken reads what String writes. It refuses anything else, unused bits
// included.
func ParseToken(text string) (Token, error) { panic("todo") }
