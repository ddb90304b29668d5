package state

import (
	"encoding/base32"
	"fmt"
)

// Token identifies one claim of one tenant to one name: 128 random bits, never
// chosen, never reused. It is in every name the customer is given.
type Token [16]byte

// TokenLength is the length of a token's text.
const TokenLength = 26

// tokenText is the alphabet of RFC 4648 section 6 in lower case, so that a token
// is a label in canonical form, without padding.
var tokenText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String is the 26 lower-case base32 characters (RFC 4648 section 6 alphabet,
// no padding) used in names and in the API.
func (t Token) String() string { return tokenText.EncodeToString(t[:]) }

// ParseToken reads what String writes. It refuses anything else, unused bits
// included.
func ParseToken(text string) (Token, error) {
	var t Token
	if len(text) != TokenLength {
		return t, fmt.Errorf("reading token %s: want %d characters of a-z and 2-7", quote(text), TokenLength)
	}
	// The decoder skips line ends; a token has none.
	for i := range len(text) {
		if text[i] < ' ' {
			return t, fmt.Errorf("reading token %s: want %d characters of a-z and 2-7", quote(text), TokenLength)
		}
	}
	raw, err := tokenText.DecodeString(text)
	if err != nil {
		return t, fmt.Errorf("reading token %s: want %d characters of a-z and 2-7", quote(text), TokenLength)
	}
	copy(t[:], raw)
	if t.String() != text {
		return Token{}, fmt.Errorf("reading token %s: the last character carries unused bits", quote(text))
	}
	return t, nil
}

// MarshalBinary gives the 16 octets, for the log.
func (t Token) MarshalBinary() ([]byte, error) { return t[:], nil }

// UnmarshalBinary reads 16 octets and nothing else.
func (t *Token) UnmarshalBinary(b []byte) error {
	if len(b) != len(t) {
		return fmt.Errorf("reading token: %d octets, want %d", len(b), len(t))
	}
	copy(t[:], b)
	return nil
}

// key is the token as a key of the machine's maps.
// Next is the token after this one, in order; after the last comes the zero one.
func (t Token) Next() Token {
	for i := len(t) - 1; i >= 0; i-- {
		if t[i]++; t[i] != 0 {
			break
		}
	}
	return t
}

func (t Token) key() string { return string(t[:]) }

// tokenOf is the inverse of key.
func tokenOf(key string) (t Token) {
	copy(t[:], key)
	return t
}
