package zone

import (
	"bytes"
	"testing"
)

// The names of an SOA are compressed (RFC 3597 section 4 allows it): of a
// platform zone's to its owner, of a customer's RNAME to the end of MNAME.
func TestNamesOfSOAAreCompressed(t *testing.T) {
	tree := testTree(t, delegatedPlan(t, "send.customer.test", testToken))
	r := NewResponder(tree, "")
	for _, c := range []struct{ asked, data string }{
		{"nothing.p.example", "\x03ns1\xc0\x14\x0ahostmaster\xc0\x14"},
		{"p.example", "\x03ns1\xc0\x0c\x0ahostmaster\xc0\x0c"},
		// The SOA is at 44, its data at 56, and p.example 31 octets into MNAME.
		{"nothing.send.customer.test", "\x1a" + testToken + "\x03ns1\x01p\x07example\x00\x0ahostmaster\xc0\x57"},
	} {
		asked := name(t, c.asked)
		packet := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, asked...)
		reply := r.Reply(nil, append(packet, 0, byte(TypeSRV), 0, classIN), false)
		begin := len(packet) + 4 + recordHead
		if !bytes.HasPrefix(reply[begin:], []byte(c.data)) || len(reply) != begin+len(c.data)+soaNumbers {
			t.Errorf("%s: the SOA's data are %q, want %q", c.asked, reply[begin:], c.data)
		}
		unpack(t, reply)
	}
}
