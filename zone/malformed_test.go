package zone

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"
)

// shape is a message that no client of ours has a reason to send.
type shape struct {
	name    string
	message []byte
	want    string // summary of the reply
}

// Parts of messages, in octets.
const (
	askTXT  = "\x05short\x05p-dns\x04test\x00\x00\x10\x00\x01"
	plainEx = "\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00" // an OPT without options
)

// raw makes a message of a flags word, four counts and what follows.
func raw(flags uint16, qd, an, ns, ar uint16, parts ...string) []byte {
	b := []byte{0xab, 0xcd}
	for _, v := range []uint16{flags, qd, an, ns, ar} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// rawQuestion is a question of one name in wire form.
func rawQuestion(name string, qtype, class uint16) string {
	b := binary.BigEndian.AppendUint16([]byte(name), qtype)
	return string(binary.BigEndian.AppendUint16(b, class))
}

// rawOPT is an OPT record with the given owner, version and data.
func rawOPT(owner string, version byte, length uint16, data string) string {
	b := []byte(owner + "\x00\x29\x04\xd0\x00")
	b = append(b, version, 0, 0)
	return string(binary.BigEndian.AppendUint16(b, length)) + data
}

func repeat(s string, n int) string { return string(bytes.Repeat([]byte(s), n)) }

func shapes(t testing.TB) []shape {
	signed := signedQuery(t)
	flip := func(at int, to byte) []byte {
		b := bytes.Clone(signed)
		b[len(b)+at] = to
		return b
	}
	all := []shape{
		// Not a message, or not a query: nobody to answer.
		{"empty", nil, "silence"},
		{"one octet", []byte{0}, "silence"},
		{"eleven octets", raw(0, 1, 0, 0, 0)[:11], "silence"},
		{"response", raw(0x8000, 1, 0, 0, 0, askTXT), "silence"},
		{"response with errors", raw(0x8001, 0, 0, 0, 0), "silence"},
		// Opcodes (RFC 8906 section 8.1.4).
		{"inverse query", raw(1<<11, 0, 1, 0, 0), "NOTIMP qd0"},
		{"status", raw(2<<11, 1, 0, 0, 0, askTXT), "NOTIMP qd0"},
		{"notify", raw(4<<11, 1, 0, 0, 0, askTXT), "NOTIMP qd0"},
		{"update", raw(5<<11, 1, 0, 0, 0, askTXT), "NOTIMP qd0"},
		{"stateful operations", raw(6<<11, 0, 0, 0, 0), "NOTIMP qd0"},
		{"opcode 15 and garbage", raw(15<<11, 65535, 65535, 65535, 65535, "\xff\xff"), "NOTIMP qd0"},
		// Counts.
		{"no question", raw(0, 0, 0, 0, 0), "FORMERR qd0"},
		{"no question and no cookie", raw(0, 0, 0, 0, 1, plainEx), "FORMERR qd0 opt"},
		{"two questions", raw(0, 2, 0, 0, 0, askTXT, askTXT), "FORMERR qd0"},
		{"65535 questions", raw(0, 65535, 0, 0, 0, askTXT), "FORMERR qd0"},
		{"question promised and missing", raw(0, 1, 0, 0, 0), "FORMERR qd0"},
		{"answer record", raw(0, 1, 1, 0, 0, askTXT, "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01"), "FORMERR qd1"},
		{"authority record", raw(0, 1, 0, 1, 0, askTXT, "\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\x7f\x00\x00\x01"), "FORMERR qd1"},
		{"three additional records", raw(0, 1, 0, 0, 3, askTXT, plainEx, "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00", "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x00"), "FORMERR qd1"},
		{"65535 additional records", raw(0, 1, 0, 0, 65535, askTXT, plainEx), "FORMERR qd1"},
		{"additional record promised and missing", raw(0, 1, 0, 0, 1, askTXT), "FORMERR qd1"},
		{"octets behind the question", raw(0, 1, 0, 0, 0, askTXT, "\x00"), "FORMERR qd1"},
		{"octets behind the OPT", raw(0, 1, 0, 0, 1, askTXT, plainEx, "tail"), "FORMERR qd1 opt"},
		// Names.
		{"pointer to itself", raw(0, 1, 0, 0, 0, rawQuestion("\xc0\x0c", 16, 1)), "FORMERR qd0"},
		{"pointer forward", raw(0, 1, 0, 0, 0, rawQuestion("\xc0\x0e\x01a\x00", 16, 1)), "FORMERR qd0"},
		{"pointer into the header", raw(0, 1, 0, 0, 0, rawQuestion("\x01a\xc0\x00", 16, 1)), "FORMERR qd0"},
		{"pointers in a circle", raw(0, 1, 0, 0, 0, rawQuestion("\xc0\x0e\xc0\x0c", 16, 1)), "FORMERR qd0"},
		{"pointer past the end", raw(0, 1, 0, 0, 0, rawQuestion("\xff\xff", 16, 1)), "FORMERR qd0"},
		{"label of 64 octets", raw(0, 1, 0, 0, 0, rawQuestion("\x40"+repeat("a", 64)+"\x00", 16, 1)), "FORMERR qd0"},
		{"reserved label type", raw(0, 1, 0, 0, 0, rawQuestion("\x80a\x00", 16, 1)), "FORMERR qd0"},
		{"name of 256 octets", raw(0, 1, 0, 0, 0, rawQuestion(repeat("\x3f"+repeat("a", 63), 3)+"\x3e"+repeat("b", 62)+"\x00", 16, 1)), "FORMERR qd0"},
		{"128 labels", raw(0, 1, 0, 0, 0, rawQuestion(repeat("\x01a", 128)+"\x00", 16, 1)), "FORMERR qd0"},
		{"label past the end", raw(0, 1, 0, 0, 0, "\x3fabc"), "FORMERR qd0"},
		{"name without a root", raw(0, 1, 0, 0, 0, "\x05short\x05p-dns\x04test"), "FORMERR qd0"},
		{"type cut off", raw(0, 1, 0, 0, 0, "\x04test\x00\x00"), "FORMERR qd0"},
		{"class cut off", raw(0, 1, 0, 0, 0, "\x04test\x00\x00\x10\x00"), "FORMERR qd0"},
		// EDNS (RFC 6891 section 6.1.1 and 7).
		{"two OPTs", raw(0, 1, 0, 0, 2, askTXT, plainEx, plainEx), "FORMERR qd1 opt"},
		{"OPT of another owner", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x01a\x00", 0, 0, "")), "FORMERR qd1 opt"},
		{"OPT of a compressed owner", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\xc0\x1c", 0, 0, "")), "FORMERR qd1 opt"},
		{"OPT cut off in its head", raw(0, 1, 0, 0, 1, askTXT, plainEx[:8]), "FORMERR qd1"},
		{"OPT data past the end", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 0, 9, "")), "FORMERR qd1 opt"},
		{"option past the OPT", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 0, 6, "\x00\x03\x00\x09ab")), "FORMERR qd1 opt"},
		{"option cut off in its head", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 0, 3, "\x00\x03\x00")), "FORMERR qd1 opt"},
		{"EDNS version 1", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 1, 0, "")), "BADVERS qd1 opt"},
		{"EDNS version 255", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 255, 0, "")), "BADVERS qd1 opt"},
		{"options of EDNS version 1", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 1, 6, "\x00\x03\x00\x09ab")), "BADVERS qd1 opt"},
		{"cookie of another length in EDNS version 1", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 1, 5, "\x00\x0a\x00\x01a")), "BADVERS qd1 opt"},
		{"EDNS version 1 and no question", raw(0, 0, 0, 0, 1, rawOPT("\x00", 1, 0, "")), "BADVERS qd0 opt"},
		{"1,900 octets of options", raw(0, 1, 0, 0, 1, askTXT, rawOPT("\x00", 1, 1900, repeat("\xfd\xe9\x00\x00", 475))), "BADVERS qd1 opt"},
		// TSIG (RFC 8945 section 5.1 and 5.2).
		{"TSIG of an unknown key", signed, "NOTAUTH qd1 opt tsig"},
		{"TSIG cut off", signed[:len(signed)-1], "FORMERR qd1 opt"},
		{"TSIG with other data promised", flip(-1, 1), "FORMERR qd1 opt"},
		{"TSIG before the last record", raw(0, 1, 0, 0, 2, askTXT, tsigOf(signed), plainEx), "FORMERR qd1"},
		{"TSIG twice", raw(0, 1, 0, 0, 2, askTXT, tsigOf(signed), tsigOf(signed)), "FORMERR qd1"},
		{"TSIG of class IN", raw(0, 1, 0, 0, 1, askTXT, "\x00\x00\xfa\x00\x01"+tsigOf(signed)[14:]), "FORMERR qd1"},
		// Questions that no zone answers.
		{"class CHAOS", raw(0, 1, 0, 0, 0, rawQuestion("\x07version\x04bind\x00", 16, 3)), "REFUSED qd1"},
		{"class ANY", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 16, 255)), "REFUSED qd1"},
		{"class 0", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 16, 0)), "REFUSED qd1"},
		{"transfer", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 252, 1)), "REFUSED qd1"},
		{"incremental transfer", raw(0, 1, 0, 1, 0, rawQuestion("\x05p-dns\x04test\x00", 251, 1), "\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x00\x00\x00"), "REFUSED qd1"},
		{"question for OPT", raw(0, 1, 0, 0, 1, rawQuestion("\x05p-dns\x04test\x00", 41, 1), plainEx), "FORMERR qd1 opt"},
		{"question for TSIG", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 250, 1)), "FORMERR qd1"},
		{"question for TKEY", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 249, 1)), "NOTIMP qd1"},
		{"question for NXNAME", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 128, 1)), "FORMERR qd1"},
		{"question for a meta type that is not assigned", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 200, 1)), "NOTIMP qd1"},
		{"question for MAILA", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 254, 1)), "NOTIMP qd1"},
		{"question for MAILB", raw(0, 1, 0, 0, 0, rawQuestion("\x05p-dns\x04test\x00", 253, 1)), "NOTIMP qd1"},
		{"question of the root", raw(0, 1, 0, 0, 0, rawQuestion("\x00", 2, 1)), "REFUSED qd1"},
		{"question of a single label", raw(0, 1, 0, 0, 0, rawQuestion("\x04test\x00", 2, 1)), "REFUSED qd1"},
	}
	return all
}

// tsigOf is the TSIG record at the end of a signed query.
func tsigOf(signed []byte) string {
	return string(signed[bytes.LastIndex(signed, []byte("\x03key\x04test\x00")):])
}

func TestMalformedMessages(t *testing.T) {
	tree := packetTree(t)
	for _, s := range shapes(t) {
		t.Run(s.name, func(t *testing.T) {
			for _, tcp := range []bool{false, true} {
				reply := NewResponder(tree, "").Reply(nil, s.message, tcp)
				got := "silence"
				if len(reply) > 0 {
					got = summary(unpack(t, reply))
				}
				if got != s.want {
					t.Errorf("TCP %t: got %q, want %q", tcp, got, s.want)
				}
				if len(reply) > len(s.message) {
					t.Errorf("TCP %t: reply of %d octets to %d", tcp, len(reply), len(s.message))
				}
			}
		})
	}
}

// Odd, but a question like any other.
func TestUnusualQuestionsAreAnswered(t *testing.T) {
	tree := packetTree(t)
	foreign := "\xc0\x0c\xfe\xfe\x00\x01\x00\x00\x00\x00\x00\x03abc" // a private type, its owner compressed
	for _, c := range []struct {
		name    string
		message []byte
		want    string
	}{
		{"type 0", raw(0, 1, 0, 0, 0, rawQuestion("\x05short\x05p-dns\x04test\x00", 0, 1)), "NOERROR qd1"},
		{"type 65280", raw(0, 1, 0, 0, 0, rawQuestion("\x05short\x05p-dns\x04test\x00", 65280, 1)), "NOERROR qd1"},
		{"type 65535", raw(0, 1, 0, 0, 0, rawQuestion("\x05short\x05p-dns\x04test\x00", 65535, 1)), "NOERROR qd1"},
		{"unknown type of a name that does not exist", raw(0, 1, 0, 0, 0, rawQuestion("\x04none\x05p-dns\x04test\x00", 65535, 1)), "NXDOMAIN qd1"},
		{"all flags", raw(0x07f0, 1, 0, 0, 0, askTXT), "NOERROR qd1"},
		{"NUL and octets past ASCII in labels", raw(0, 1, 0, 0, 0, rawQuestion("\x03\x00\xff\xc0\x05p-dns\x04test\x00", 16, 1)), "NXDOMAIN qd1"},
		{"127 labels", raw(0, 1, 0, 0, 0, rawQuestion(repeat("\x01a", 127)+"\x00", 16, 1)), "REFUSED qd1"},
		{"name of 255 octets", raw(0, 1, 0, 0, 0, rawQuestion(repeat("\x3f"+repeat("a", 63), 3)+"\x32"+repeat("b", 50)+"\x05p-dns\x04test\x00", 16, 1)), "NXDOMAIN qd1"},
		{"record of a foreign type", raw(0, 1, 0, 0, 2, askTXT, foreign, plainEx), "NOERROR qd1 opt"},
		{"all EDNS flags and an unknown option", raw(0, 1, 0, 0, 1, askTXT, "\x00\x00\x29\x04\xd0\x00\x00\xff\xff\x00\x06\xfd\xe9\x00\x02ab"), "NOERROR qd1 opt"},
		{"SIG(0) record", raw(0, 1, 0, 0, 1, askTXT, "\x00\x00\x18\x00\xff\x00\x00\x00\x00\x00\x04abcd"), "NOERROR qd1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := summary(respond(t, tree, c.message, false)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	if t1 := unpack(t, raw(0, 1, 0, 0, 0, askTXT)).Question[0]; t1.Name != "short.p-dns.test." || t1.Qtype != dns.TypeTXT {
		t.Fatalf("the tests ask for %v", t1)
	}
}
