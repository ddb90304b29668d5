package zone

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

// Nothing on the query path allocates, whatever the outcome.
func TestLookupDoesNotAllocate(t *testing.T) {
	p := delegatedPlan(t, "send.customer.test", testToken)
	p.Records = []RRset{set(t, "www.send.customer.test", TypeCNAME, 300, "mx1.p.example."), set(t, "*.w.send.customer.test", TypeTXT, 300, "x"),
		set(t, "old.send.customer.test", TypeDNAME, 300, "new.send.customer.test."), set(t, "sub.send.customer.test", TypeNS, 300, "ns1.p.example.")}
	tree := testTree(t, p, cnamePlan(t, otherToken))
	for _, c := range []struct {
		name    string
		t       Type
		outcome Outcome
	}{
		{"2511-abcdef._domainkey.send.customer.test", TypeTXT, Found},
		{"k1." + otherToken + ".dkim.p.example", TypeTXT, Found},
		{"send.customer.test", TypeNS, Found},
		{"send.customer.test", TypeMX, Found},
		{"send.customer.test", TypeSOA, Found},
		{"www.send.customer.test", TypeA, Found},
		{"a.w.send.customer.test", TypeTXT, Found},
		{"bounce.old.send.customer.test", TypeMX, NoName},
		{"x.sub.send.customer.test", TypeA, Referral},
		{"_domainkey.send.customer.test", TypeTXT, NoData},
		{"nothing.send.customer.test", TypeA, NoName},
		{"x." + otherToken + ".dkim.p.example", TypeTXT, NoName},
		{"elsewhere.test", TypeA, Refused},
	} {
		q, a := questionOf(t, c.name, c.t), new(answer)
		buffer := make([]byte, 0, MaxTCP)
		allocations := testing.AllocsPerRun(100, func() {
			tree.lookup(q, a)
			appendAnswer(appendQuestion(buffer, q), 0, q, a, MaxUDP)
		})
		if allocations != 0 || a.outcome != c.outcome {
			t.Errorf("%s %s: %v allocations, outcome %d, want none and %d", c.name, c.t, allocations, a.outcome, c.outcome)
		}
	}
}

// questionOf is a question as the parser leaves it.
func questionOf(t testing.TB, text string, typ Type) *query {
	q := &query{asked: []byte(name(t, text)), qtype: typ, class: classIN}
	q.end = headerSize + len(q.asked) + 4
	return q
}

// appendQuestion appends header and question of a reply.
func appendQuestion(b []byte, q *query) []byte {
	b = append(b, 0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	b = append(b, q.asked...)
	return append(b, byte(q.qtype>>8), byte(q.qtype), 0, classIN)
}

// A reader sees one branch or the other while branches, pools and platform zones
// are replaced, never a mixture and never a gap.
func TestReadersSeeWholeBranches(t *testing.T) {
	before := delegatedPlan(t, "send.customer.test", testToken)
	after := delegatedPlan(t, "send.customer.test", testToken)
	after.Serial, after.Keys[0].Payload = before.Serial+1, "v=DKIM1; p="
	plans := []Plan{before, after}
	tree := testTree(t, before)
	branches := [2]Branch{mustRender(t, before), mustRender(t, after)}
	pool := mustRenderPool(t, testPool(t))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			q, a := questionOf(t, "2511-abcdef._domainkey.send.customer.test", TypeTXT), new(answer)
			for {
				select {
				case <-stop:
					return
				default:
				}
				tree.lookup(q, a)
				if a.outcome != Found || a.answers != 1 {
					t.Errorf("outcome %d", a.outcome)
					return
				}
				text := joinText(a.refs[0].wire[recordHead:])
				if text != plans[0].Keys[0].Payload && text != plans[1].Keys[0].Payload {
					t.Errorf("half a branch: %q", text)
					return
				}
			}
		}()
	}
	for i := range 2000 {
		e := tree.Edit()
		e.Put(branches[i%2], branches[(i+1)%2])
		other := mustRender(t, delegatedPlan(t, fmt.Sprintf("z%d.test", i), fmt.Sprintf("%026d", i)))
		e.Put("", other)
		e.SetPool(1, pool)
		e.SetSerial(1, uint32(i))
		e.Commit()
	}
	close(stop)
	readers.Wait()
}

// fleet is a tree of n domains, half of them in each mode, with what to ask.
func fleet(b testing.TB, n int) (*Tree, []*query) {
	tree := testTree(b)
	e := tree.Edit()
	var questions []*query
	for i := range n {
		token := mapDigits(fmt.Sprintf("%026d", i))
		if i%2 == 0 {
			zone := fmt.Sprintf("send.customer-%d.test", i)
			e.Put("", mustRender(b, delegatedPlan(b, zone, token)))
			questions = append(questions, questionOf(b, "2511-abcdef._domainkey."+zone, TypeTXT))
			continue
		}
		e.Put("", mustRender(b, cnamePlan(b, token)))
		questions = append(questions, questionOf(b, "k2."+token+".dkim.p.example", TypeTXT))
	}
	e.Commit()
	return tree, questions
}

// mapDigits turns digits into base32 letters, so that a number is a token.
func mapDigits(text string) string {
	out := []byte(text)
	for i := range out {
		out[i] += 'a' - '0'
	}
	return string(out)
}

func BenchmarkLookup(b *testing.B) {
	tree, questions := fleet(b, 100_000)
	a := new(answer)
	buffer := make([]byte, 0, MaxUDP)
	b.ReportAllocs()
	i := uint32(1)
	for b.Loop() {
		i = i*1664525 + 1013904223 // another domain each time: what a cache holds does not help
		q := questions[int(uint64(i)*uint64(len(questions))>>32)]
		tree.lookup(q, a)
		appendAnswer(appendQuestion(buffer, q), 0, q, a, MaxUDP)
	}
}

// BenchmarkBatch is a message of a full batch, as the server answers it: read
// ahead of first, then answered. Each is for another domain.
func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{10, 100_000, 400_000} {
		b.Run(fmt.Sprint(n, " domains"), func(b *testing.B) {
			tree, questions := fleet(b, n)
			messages := make([][]byte, len(questions))
			for i, q := range questions {
				messages[i] = ask(b, Name(q.asked).String(), uint16(q.qtype), edns(1232))
			}
			r, buffer := NewResponder(tree, ""), make([]byte, 0, MaxUDP)
			batch, left, i := make([][]byte, expectSize), 0, uint32(1)
			b.ReportAllocs()
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
				r.Reply(buffer, batch[left], false)
			}
		})
	}
}

// BenchmarkPut is one change, rendered and published: its cost must not grow
// with the number of domains, but for the slots of the shards it copies.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint(n, " domains"), func(b *testing.B) {
			tree, _ := fleet(b, n)
			p := cnamePlan(b, mapDigits(fmt.Sprintf("%026d", 77)))
			have := mustRender(b, p)
			b.ReportAllocs()
			for b.Loop() {
				p.Serial++
				next := mustRender(b, p)
				e := tree.Edit()
				e.Put(have, next)
				e.Commit()
				have = next
			}
		})
	}
}

// A name that a DNAME makes may have 255 octets (RFC 6672 section 2.2).
func TestNameThatADNAMEMakesMayBeAsLongAsAName(t *testing.T) {
	label := strings.Repeat("a", 60)
	p := delegatedPlan(t, "send.customer.test", testToken)
	p.Records = []RRset{set(t, "old.send.customer.test", TypeDNAME, 300, label+"."+label+"."+label+".test.")} // 189 octets
	tree := testTree(t, p)
	for made, want := range map[int]uint8{maxName: rcodeSuccess, maxName + 1: rcodeYXDomain} {
		prefix := strings.Repeat("b", 62) + "." + strings.Repeat("c", made-189-63-1)
		q, a := questionOf(t, prefix+".old.send.customer.test", TypeA), new(answer)
		tree.lookup(q, a)
		if a.rcode != want {
			t.Errorf("%d octets: rcode %d, want %d", made, a.rcode, want)
		}
	}
}
