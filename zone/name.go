package zone

// Name is an absolute domain name in uncompressed wire form (RFC 1035 section
// 3.1) with A to Z folded to lower case (RFC 4343), so that two names are equal
// when their strings are. Labels are octets: dots and NULs inside are legal.
// The zero value is no name at all; the root is Root.
type Name string

// Root is the root of the DNS tree.
const Root Name = "\x00"

// ParseName reads presentation form (RFC 1035 section 5.1: \. and \DDD
// escapes), with or without the final dot. The error quotes the input, bounded.
func ParseName(text string) (Name, error) { panic("todo") }

// ParseHost reads a name that a customer or operator may claim: ParseName, and
// besides only letters, digits, hyphens and underscores, no label that begins or
// ends with a hyphen, no wildcard, at least two labels, IDNs in A-label form.
func ParseHost(text string) (Name, error) { panic("todo") }

// String is the presentation form with the final dot.
func (n Name) String() string { panic("todo") }

// Host is the presentation form without the final dot, as the API shows it.
func (n Name) Host() string { panic("todo") }

// In says whether n is apex or below it.
func (n Name) In(apex Name) bool { panic("todo") }

// Parent drops the first label; the parent of the root is the root.
func (n Name) Parent() Name { panic("todo") }

// Label is the first label without its length octet; empty for the root.
func (n Name) Label() string { panic("todo") }

// Labels counts the labels without the root's.
func (n Name) Labels() int { panic("todo") }

// Child puts labels in front of n, the last argument next to n:
// P.Child("t", "dkim") is t.dkim.P. It fails where a label or the whole is too long.
func (n Name) Child(labels ...string) (Name, error) { panic("todo") }

// Reverse is a key whose byte order is the canonical order of RFC 4034 section
// 6.1: all names below n have n.Reverse() as a prefix, and follow it directly.
func (n Name) Reverse() string { panic("todo") }
