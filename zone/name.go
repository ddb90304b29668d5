package zone

import (
	"fmt"
	"strings"
)

// Name is an absolute domain name in uncompressed wire form (RFC 1035 section
// 3.1) with A to Z folded to lower case (RFC 4343), so that two names are equal
// when their strings are. Labels are octets: dots and NULs inside are legal.
// The zero value is no name at all; the root is Root.
type Name string

// Root is the root of the DNS tree.
const Root Name = "\x00"

// maxLabels is how many labels a name of maxName octets can have.
const maxLabels = maxName / 2

// ParseName reads presentation form (RFC 1035 section 5.1: \. and \DDD
// escapes), with or without the final dot. The error quotes the input, bounded.
func ParseName(text string) (Name, error) {
	if text == "." {
		return Root, nil
	}
	if text == "" {
		return "", fmt.Errorf("parsing name %s: empty", quote(text))
	}
	wire := make([]byte, 1, len(text)+2)
	start := 0 // of the current label's length octet
	for i := 0; i < len(text); {
		if text[i] == '.' {
			if err := endLabel(wire, start); err != nil {
				return "", fmt.Errorf("parsing name %s: %w", quote(text), err)
			}
			start = len(wire)
			wire = append(wire, 0)
			i++
			continue
		}
		c, n, err := octet(text[i:])
		if err != nil {
			return "", fmt.Errorf("parsing name %s: %w", quote(text), err)
		}
		wire = append(wire, lower(c))
		i += n
	}
	if start != len(wire)-1 { // no final dot
		if err := endLabel(wire, start); err != nil {
			return "", fmt.Errorf("parsing name %s: %w", quote(text), err)
		}
		wire = append(wire, 0)
	}
	if len(wire) > maxName {
		return "", fmt.Errorf("parsing name %s: %d octets, a name has at most %d", quote(text), len(wire), maxName)
	}
	return Name(wire), nil
}

// endLabel writes the length octet of the label that began at start.
func endLabel(wire []byte, start int) error {
	switch n := len(wire) - start - 1; {
	case n == 0:
		return fmt.Errorf("empty label")
	case n > maxLabel:
		return fmt.Errorf("label of %d octets, at most %d", n, maxLabel)
	default:
		wire[start] = byte(n)
		return nil
	}
}

// octet reads one octet of a label and says how many characters it took.
func octet(text string) (c byte, n int, err error) {
	if text[0] != '\\' {
		return text[0], 1, nil
	}
	if len(text) < 2 {
		return 0, 0, fmt.Errorf(`\ at the end`)
	}
	if !digit(text[1]) {
		return text[1], 2, nil
	}
	if len(text) < 4 || !digit(text[2]) || !digit(text[3]) {
		return 0, 0, fmt.Errorf(`\ and a digit without two more`)
	}
	v := int(text[1]-'0')*100 + int(text[2]-'0')*10 + int(text[3]-'0')
	if v > 255 {
		return 0, 0, fmt.Errorf(`\%d is no octet`, v)
	}
	return byte(v), 4, nil
}

// ParseHost reads a name that a customer or operator may claim: ParseName, and
// besides only letters, digits, hyphens and underscores, no label that begins or
// ends with a hyphen, no wildcard, at least two labels, IDNs in A-label form.
func ParseHost(text string) (Name, error) {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c >= 0x80:
			return "", fmt.Errorf("parsing host name %s: write an internationalised name in its A-label form (xn--…)", quote(text))
		case c == '*':
			return "", fmt.Errorf("parsing host name %s: a wildcard cannot be claimed, give the name itself", quote(text))
		case c != '.' && c != '-' && c != '_' && !digit(c) && (lower(c) < 'a' || lower(c) > 'z'):
			return "", fmt.Errorf("parsing host name %s: %q is not allowed, only letters, digits, hyphens and underscores are", quote(text), c)
		}
	}
	n, err := ParseName(text)
	if err != nil {
		return "", err
	}
	if n.Labels() < 2 {
		return "", fmt.Errorf("parsing host name %s: it needs at least two labels", quote(text))
	}
	allDigits := false // of the last label
	for rest := n; rest != Root; rest = rest.Parent() {
		l := rest.Label()
		if l[0] == '-' || l[len(l)-1] == '-' {
			return "", fmt.Errorf("parsing host name %s: a label begins or ends with a hyphen", quote(text))
		}
		allDigits = strings.Trim(l, "0123456789") == ""
	}
	if allDigits {
		return "", fmt.Errorf("parsing host name %s: an address is not a name", quote(text))
	}
	return n, nil
}

// String is the presentation form with the final dot. It ends for any octets, so
// that an error can quote what is no name.
func (n Name) String() string {
	if n == "" {
		return ""
	}
	if n == Root {
		return "."
	}
	var b strings.Builder
	b.Grow(len(n))
	for rest := n; len(rest) > 1; rest = rest.Parent() {
		for _, c := range []byte(rest.Label()) {
			switch {
			case strings.IndexByte(`."\();@$`, c) >= 0:
				b.WriteByte('\\')
				b.WriteByte(c)
			case c <= ' ' || c > '~':
				fmt.Fprintf(&b, `\%03d`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('.')
	}
	return b.String()
}

// Host is the presentation form without the final dot, as the API shows it.
func (n Name) Host() string {
	if n == Root {
		return "."
	}
	return strings.TrimSuffix(n.String(), ".")
}

// In says whether n is apex or below it.
func (n Name) In(apex Name) bool {
	if apex == "" || len(n) < len(apex) || n[len(n)-len(apex):] != apex {
		return false
	}
	// The tail must begin where a label does: "xa.b" is not in "a.b".
	at := 0
	for at < len(n)-len(apex) {
		at += int(n[at]) + 1
	}
	return at == len(n)-len(apex)
}

// Parent drops the first label; the parent of the root is the root.
func (n Name) Parent() Name {
	if len(n) < 2 {
		return n
	}
	return n[min(1+int(n[0]), len(n)):]
}

// Label is the first label without its length octet; empty for the root.
func (n Name) Label() string {
	if len(n) < 2 {
		return ""
	}
	return string(n[1:min(1+int(n[0]), len(n))])
}

// Labels counts the labels without the root's.
func (n Name) Labels() int {
	count := 0
	for rest := n; len(rest) > 1; rest = rest.Parent() {
		count++
	}
	return count
}

// Child puts labels in front of n, the last argument next to n:
// P.Child("t", "dkim") is t.dkim.P. It fails where a label or the whole is too long.
func (n Name) Child(labels ...string) (Name, error) {
	if n == "" {
		return "", fmt.Errorf("extending a name: there is none")
	}
	size := len(n)
	for _, l := range labels {
		if l == "" || len(l) > maxLabel {
			return "", fmt.Errorf("extending %s by %s: a label has 1 to %d octets", n, quote(l), maxLabel)
		}
		size += len(l) + 1
	}
	if size > maxName {
		return "", fmt.Errorf("extending %s by %s: %d octets, a name has at most %d", n, quote(strings.Join(labels, ".")), size, maxName)
	}
	var room [maxName]byte
	wire := room[:0]
	for _, l := range labels {
		wire = append(wire, byte(len(l)))
		for _, c := range []byte(l) {
			wire = append(wire, lower(c))
		}
	}
	return Name(append(wire, n...)), nil
}

// Reverse is a key whose byte order is the canonical order of RFC 4034 section
// 6.1: all names below n have n.Reverse() as a prefix, and follow it directly.
//
// Labels are written from the last to the first, each ended by an octet that
// sorts before all others: 0 and 1 inside a label become 1,1 and 1,2.
func (n Name) Reverse() string {
	var room [300]byte // most fit
	return string(n.AppendReverse(room[:0]))
}

// AppendReverse appends Reverse to a key.
func (n Name) AppendReverse(key []byte) []byte {
	var begins [maxLabels]uint8
	count := 0
	for at := 0; at+1 < len(n); at += 1 + int(n[at]) {
		begins[count] = uint8(at)
		count++
	}
	for i := count - 1; i >= 0; i-- {
		for _, c := range []byte(n[begins[i]:].Label()) {
			if c <= 1 {
				key = append(key, 1, c+1)
			} else {
				key = append(key, c)
			}
		}
		key = append(key, 0)
	}
	return key
}

// nameIn reads the uncompressed name at the start of wire, folded to lower
// case; false where there is none.
func nameIn(wire []byte) (Name, bool) {
	length := nameLength(wire)
	if length == 0 {
		return "", false
	}
	folded := make([]byte, length)
	for i := range folded {
		folded[i] = lower(wire[i])
	}
	return Name(folded), true
}

// lower folds one octet (RFC 4343). Length octets are below 64 and stay.
func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// quoteLimit is how much of a bad input an error repeats, in octets.
const quoteLimit = 80

// quote is an input as an error shows it: quoted and bounded.
func quote(text string) string {
	if len(text) > quoteLimit {
		return fmt.Sprintf("%q…", text[:quoteLimit])
	}
	return fmt.Sprintf("%q", text)
}
