package zone

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// costly is a kind of message that may cost more than those of mail.
type costly struct {
	name    string
	message []byte
}

// shapesTree is a fleet with zones of one tenant that have the most of everything
// that answering one question may look at.
func shapesTree(t testing.TB, domains int) (*Tree, [][]byte) {
	tree, questions := fleet(t, domains)
	mix := make([][]byte, len(questions))
	for i, q := range questions {
		mix[i] = ask(t, Name(q.asked).String(), uint16(q.qtype), edns(1232))
	}
	e := tree.Edit()
	// A chain of aliases through ten zones, each hop in another one.
	for i := range 10 {
		p := delegatedPlan(t, fmt.Sprintf("hop%d.test", i), mapDigits(fmt.Sprintf("%026d", 9_000_000+i)))
		p.Records = []RRset{set(t, fmt.Sprintf("a.hop%d.test", i), TypeCNAME, 300, fmt.Sprintf("a.hop%d.test", i+1))}
		e.Put("", mustRender(t, p))
	}
	p := delegatedPlan(t, "worst.test", mapDigits(fmt.Sprintf("%026d", 9_100_000)))
	deep := strings.Repeat("x.", 121) + "worst.test"
	var servers, exchangers []string
	for i := range 13 {
		host := fmt.Sprintf("ns%d.cut.worst.test", i)
		servers = append(servers, host)
		p.Records = append(p.Records, set(t, host, TypeA, 300, "192.0.2.9"), set(t, host, TypeAAAA, 300, "2001:db8::9"))
	}
	for i := range 20 {
		host := fmt.Sprintf("mx%d.worst.test", i)
		exchangers = append(exchangers, "10 "+host)
		p.Records = append(p.Records, set(t, host, TypeA, 300, "192.0.2.9", "192.0.2.10"), set(t, host, TypeAAAA, 300, "2001:db8::9"))
	}
	// As many hosts as an answer has room for to name, that have no addresses; and
	// the longest chain of the longest names, to as many of such names.
	var bare, long []string
	for i := range 60 {
		bare = append(bare, fmt.Sprintf("10 h%d.worst.test", i))
	}
	for i := range 4 {
		long = append(long, fmt.Sprintf("10 %s%d.l.worst.test", strings.Repeat("m.", 117), i))
		p.Records = append(p.Records, set(t, long[i][3:], TypeA, 300, "192.0.2.9"), set(t, long[i][3:], TypeAAAA, 300, "2001:db8::9"))
	}
	link := func(i int) string { return fmt.Sprintf("%s%d.l.worst.test", strings.Repeat("c.", 117), i) }
	for i := range maxHops - 1 {
		p.Records = append(p.Records, set(t, link(i), TypeCNAME, 300, link(i+1)))
	}
	// As many types as a name may have, which are named as a host as often as hosts are
	// looked for; and as many names as may have one hash.
	var again []string
	for i := range maxHosts {
		again = append(again, fmt.Sprintf("%d types.worst.test", i))
	}
	for i := range maxTypes {
		p.Records = append(p.Records, set(t, "types.worst.test", manyTypes(i), 300, `\# 1 00`))
	}
	for _, label := range alike(t, p.Zone, maxAlike) {
		s := set(t, "x.test", TypeTXT, 300, `"alike"`)
		s.Owner = child(p.Zone, label)
		p.Records = append(p.Records, s)
	}
	p.Records = append(p.Records, set(t, "again.worst.test", TypeMX, 300, again...),
		set(t, "bare.worst.test", TypeMX, 300, bare...), set(t, "long.worst.test", TypeMX, 300, long...),
		set(t, link(maxHops-1), TypeMX, 300, long[:2]...),
		set(t, "cut.worst.test", TypeNS, 300, servers...), set(t, "many.worst.test", TypeMX, 300, exchangers...),
		set(t, "*.wild.worst.test", TypeTXT, 300, `"any"`), set(t, "old.worst.test", TypeDNAME, 300, "wild.worst.test"),
		set(t, deep, TypeTXT, 300, `"deep"`))
	e.Put("", mustRender(t, p))
	e.Commit()
	return tree, mix
}

// manyTypes are types whose data may be anything, those that are looked for last.
func manyTypes(i int) Type { return Type(65280 + i) }

// costliest are those that we know of.
func costliest(t testing.TB) []costly {
	label := strings.Repeat("y", 63)
	longest := label + "." + label + "." + label + "." + strings.Repeat("z", 50) + ".worst.test."
	q := func(name string, qtype uint16) []byte { return ask(t, name, qtype, edns(1232)) }
	list := []costly{
		{"127 labels, not ours", q(strings.Repeat("x.", 127), dns.TypeTXT)},
		{"123 labels that exist", q(strings.Repeat("x.", 121)+"worst.test.", dns.TypeTXT)},
		{"123 labels below an existing name", q("y."+strings.Repeat("x.", 120)+"worst.test.", dns.TypeTXT)},
		{"124 labels below a platform zone", q(strings.Repeat("x.", 122)+"p.example.", dns.TypeTXT)},
		{"110 labels below a token", q(strings.Repeat("x.", 106)+testToken+".dkim.p.example.", dns.TypeTXT)},
		{"longest name, no such name", q(longest, dns.TypeTXT)},
		{"chain of aliases through ten zones", q("a.hop0.test.", dns.TypeTXT)},
		{"wildcard, 100 labels deep", q(strings.Repeat("x.", 100)+"wild.worst.test.", dns.TypeTXT)},
		{"DNAME to a wildcard, 90 labels deep", q(strings.Repeat("x.", 90)+"old.worst.test.", dns.TypeTXT)},
		{"referral with 26 addresses of glue", q("below.cut.worst.test.", dns.TypeA)},
		{"MX with 40 RRsets of addresses", q("many.worst.test.", dns.TypeMX)},
		{"MX with 60 hosts without addresses", ask(t, "bare.worst.test.", dns.TypeMX, edns(4096))},
		{"MX with 4 hosts of 121 labels", q("long.worst.test.", dns.TypeMX)},
		{"8 aliases of 121 labels to MX with hosts of 121 labels", q(strings.Repeat("c.", 117)+"0.l.worst.test.", dns.TypeMX)},
		{"MX with 16 times a host of 32 types", q("again.worst.test.", dns.TypeMX)},
		{"last of 32 types", q("types.worst.test.", uint16(manyTypes(maxTypes-1)))},
		{"a name like seven others", q(child(name(t, "worst.test"), alike(t, name(t, "worst.test"), maxAlike)[maxAlike-1]).String(), dns.TypeTXT)},
		{"ANY", q("many.worst.test.", dns.TypeANY)},
	}
	options := func(m *dns.Msg) {
		o := m.IsEdns0()
		for range 250 {
			o.Option = append(o.Option, &dns.EDNS0_LOCAL{Code: 65001})
		}
	}
	list = append(list, costly{"250 EDNS options", ask(t, "many.worst.test.", dns.TypeTXT, edns(1232), options)})
	header := func(questions, additional uint16) []byte {
		b := make([]byte, headerSize)
		binary.BigEndian.PutUint16(b[4:], questions)
		binary.BigEndian.PutUint16(b[10:], additional)
		return b
	}
	records := header(1, 65535)
	records = append(records, "\x05worst\x04test\x00\x00\x10\x00\x01"...)
	records = append(records, bytes.Repeat([]byte{0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0}, 100)...)
	pointers := append(header(1, 1), "\x05worst\x04test\x00\x00\x10\x00\x01"...)
	pointers = append(pointers, bytes.Repeat([]byte{0xc0, headerSize}, 500)...)
	list = append(list, costly{"100 records behind the question", records}, costly{"500 compression pointers", pointers},
		costly{"a pointer to itself", append(header(1, 0), 0xc0, headerSize, 0, 16, 0, 1)},
		costly{"1,200 octets of ones", bytes.Repeat([]byte{1}, 1200)}, costly{"a header alone", header(1, 0)})
	return list
}

// BenchmarkShapes is what the costliest messages we know of take, as multiples of
// mail's, each a domain of its own, in batches as the server has them. Processor
// time, without sockets: go test -run '^$' -bench Shapes ./zone
func BenchmarkShapes(b *testing.B) {
	tree, mix := shapesTree(b, 50_000)
	r, buffer := NewResponder(tree, ""), make([]byte, 0, MaxUDP)
	batch, mail := make([][]byte, expectSize), 0.0
	measure := func(name string, messages [][]byte) {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread() // for threadTime
			defer runtime.UnlockOSThread()
			i, left, began := uint32(1), 0, threadTime(b)
			for b.Loop() {
				if left == 0 {
					for k := range batch {
						i = i*1664525 + 1013904223
						batch[k] = messages[int(uint64(i)*uint64(len(messages))>>32)]
					}
					r.Expect(batch)
					left = len(batch)
				}
				left--
				r.Expected(left)
				r.Reply(buffer, batch[left], false)
			}
			cost := float64(threadTime(b)-began) / float64(b.N)
			if name == "mail" {
				mail = cost
			}
			b.ReportMetric(cost, "cpu-ns/op")
			b.ReportMetric(cost/mail, "of-mail")
		})
	}
	measure("mail", mix)
	for _, s := range costliest(b) {
		measure(strings.ReplaceAll(s.name, ",", ""), [][]byte{s.message})
	}
}

// threadTime is the processor time of this thread, in nanoseconds.
func threadTime(b *testing.B) int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		b.Fatal(err)
	}
	return now.Nano()
}

// TestShapesAreAnsweredWithinBounds: what a message may make the server do is
// bounded whatever it holds, and every shape gets the reply that its name says.
func TestShapesAreAnsweredWithinBounds(t *testing.T) {
	tree, _ := shapesTree(t, 100)
	r := NewResponder(tree, "")
	want := map[string]int{"chain of aliases through ten zones": maxHops, "123 labels that exist": 1, "wildcard, 100 labels deep": 1, "MX with 40 RRsets of addresses": 20,
		"MX with 60 hosts without addresses": 60, "8 aliases of 121 labels to MX with hosts of 121 labels": 3,
		"MX with 16 times a host of 32 types": 16, "last of 32 types": 1, "a name like seven others": 1}
	for _, s := range costliest(t) {
		if n := testing.AllocsPerRun(10, func() { r.Reply(make([]byte, 0, MaxTCP), s.message, false) }); n > 1 {
			t.Errorf("%s: %v allocations, want that of the buffer at most", s.name, n)
		}
		r.answer = answer{}
		reply := r.Reply(make([]byte, 0, MaxTCP), s.message, true)
		if a := &r.answer; a.used > maxRefs || a.hops > maxHops {
			t.Errorf("%s: %d RRsets, %d hops", s.name, a.used, a.hops)
		}
		if len(s.message) < headerSize+5 || s.message[2] != 0 || len(reply) == 0 {
			continue
		}
		m := unpack(t, reply)
		if n, ok := want[s.name]; ok && len(m.Answer) != n {
			t.Errorf("%s: %s", s.name, summary(m))
		}
	}
	if !slices.ContainsFunc(costliest(t), func(s costly) bool { return len(s.message) > 1000 }) {
		t.Error("no shape is long")
	}
}
