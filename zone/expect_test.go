package zone

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"
)

// TestExpectingChangesNoAnswer asks in batches, with what no query is between.
func TestExpectingChangesNoAnswer(t *testing.T) {
	tree := packetTree(t)
	var batch [][]byte
	for _, name := range []string{"key.p-dns.test.", "none.p-dns.test.", "elsewhere.test.", ".",
		"k1.aaaaaaaaaaaaaaaaaaaaaaaaaa.dkim.p-dns.test.", "aaaaaaaaaaaaaaaaaaaaaaaaaa.ns1.p-dns.test."} {
		for _, kind := range []uint16{dns.TypeTXT, dns.TypeDS, dns.TypeANY} {
			batch = append(batch, ask(t, name, kind, edns(1232)))
		}
	}
	whole := batch[0]
	for cut := range len(whole) {
		batch = append(batch, whole[:cut])
	}
	batch = append(batch, nil, bytes.Repeat([]byte{0xff}, 600), append(whole[:headerSize:headerSize], bytes.Repeat([]byte{63}, 300)...))

	plain, expecting := NewResponder(tree, ""), NewResponder(tree, "")
	for size := 1; size <= len(batch); size += 7 {
		for from := 0; from < len(batch); from += size {
			part := batch[from:min(from+size, len(batch))]
			expecting.Expect(part)
			for i, m := range part {
				want := plain.Reply(make([]byte, 0, MaxUDP), m, false)
				expecting.Expected(i)
				if got := expecting.Reply(make([]byte, 0, MaxUDP), m, false); !bytes.Equal(got, want) {
					t.Fatalf("%x in a batch of %d is answered with %x, alone with %x", m, len(part), got, want)
				}
			}
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { expecting.Expect(batch) }); allocs != 0 {
		t.Errorf("Expect allocates %.1f times", allocs)
	}
}
