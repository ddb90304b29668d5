package zone

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestQuestionAndFlagsAreEchoed(t *testing.T) {
	tree := packetTree(t)
	message := ask(t, "ShOrT.p-DNS.test.", dns.TypeTXT, func(m *dns.Msg) {
		m.RecursionDesired, m.RecursionAvailable, m.AuthenticatedData = true, true, true
		m.CheckingDisabled, m.Zero, m.Truncated, m.Authoritative = true, true, true, true
	})
	reply := NewResponder(tree, "").Reply(nil, message, false)
	if got := summary(unpack(t, reply)); got != "NOERROR qd1" {
		t.Errorf("got %q, want no flag but QR, AA and RD", got)
	}
	if m := unpack(t, reply); !m.RecursionDesired || !m.Authoritative || !m.Response {
		t.Errorf("header %s", m.MsgHdr.String())
	}
	if end := len(message); !bytes.Equal(reply[headerSize:end], message[headerSize:end]) || !bytes.Equal(reply[:2], message[:2]) {
		t.Errorf("question or id not repeated octet for octet:\n%x\n%x", message, reply)
	}
}

func TestReplyGoesBehindWhatTheBufferHolds(t *testing.T) {
	tree := packetTree(t)
	message := ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232))
	alone := NewResponder(tree, "").Reply(nil, message, true)
	behind := NewResponder(tree, "").Reply([]byte("prefix"), message, true)
	if string(behind[:6]) != "prefix" || !bytes.Equal(behind[6:], alone) {
		t.Errorf("got %q\nwant prefix and %q", behind, alone)
	}
}

func TestLimitsOfLength(t *testing.T) {
	tree := packetTree(t)
	for _, c := range []struct {
		name string
		size int // 0: no EDNS
		tcp  bool
		tc   bool
	}{
		{"short", 0, false, false},
		{"key", 0, false, false},
		{"medium", 0, false, true},
		{"medium", 100, false, true}, // less than 512 counts as 512 (RFC 6891 section 6.2.3)
		{"medium", 512, false, true},
		{"medium", 1232, false, false},
		{"medium", 65535, false, false},
		{"big", 65535, false, true}, // our own limit
		{"big", 0, true, false},
		{"big", 512, true, false}, // the size is of UDP
		{"huge", 0, true, false},
	} {
		t.Run(fmt.Sprintf("%s of %d tcp %t", c.name, c.size, c.tcp), func(t *testing.T) {
			var change []func(*dns.Msg)
			if c.size > 0 {
				change = append(change, edns(uint16(c.size)))
			}
			message := ask(t, c.name+".p-dns.test.", dns.TypeTXT, change...)
			reply := NewResponder(tree, "").Reply(nil, message, c.tcp)
			m := unpack(t, reply)
			limit := map[bool]int{false: min(MaxUDP, max(MinUDP, c.size)), true: MaxTCP}[c.tcp]
			if len(reply) > limit || m.Truncated != c.tc {
				t.Errorf("%d octets, TC %t; want at most %d, TC %t", len(reply), m.Truncated, limit, c.tc)
			}
			if c.tc && len(m.Answer)+len(m.Ns) != 0 {
				t.Errorf("truncated reply with records: %s", m)
			}
			if !c.tc && len(m.Answer) != 1 {
				t.Errorf("%d answers", len(m.Answer))
			}
			if (m.IsEdns0() != nil) != (c.size > 0) {
				t.Error("OPT in the reply just where there was one in the query")
			}
		})
	}
}

func TestEDNSIsAnsweredInOurTerms(t *testing.T) {
	tree := packetTree(t)
	message := ask(t, "short.p-dns.test.", dns.TypeTXT, edns(4096,
		&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{192, 0, 2, 0}},
		&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("unknown")}), func(m *dns.Msg) {
		m.IsEdns0().SetDo()
		m.IsEdns0().SetZ(0x1234)
	})
	opt := respond(t, tree, message, false).IsEdns0()
	if opt.UDPSize() != MaxUDP || opt.Version() != 0 || !opt.Do() || opt.Z() != 0 || len(opt.Option) != 0 {
		t.Errorf("got %s, want our size, DO and nothing else", opt)
	}
	if opt := respond(t, tree, ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232)), false).IsEdns0(); opt.Do() {
		t.Error("DO set without having been asked for")
	}
}

func TestNSIDComesToThoseWhoAsk(t *testing.T) {
	tree := packetTree(t)
	asks := edns(1232, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})
	for _, c := range []struct {
		name, qname string
		change      func(*dns.Msg)
		want        string
	}{
		{"asked for", "short.p-dns.test.", asks, "6e6f64652d31"},
		{"asked for in an error", "elsewhere.test.", asks, "6e6f64652d31"},
		{"not asked for", "short.p-dns.test.", edns(1232), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			for _, o := range respond(t, tree, ask(t, c.qname, dns.TypeTXT, c.change), false).IsEdns0().Option {
				if nsid, ok := o.(*dns.EDNS0_NSID); ok {
					got += nsid.Nsid
				}
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	without := NewResponder(tree, "").Reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT, asks), false)
	if n := len(unpack(t, without).IsEdns0().Option); n != 0 {
		t.Errorf("%d options from a server without NSID", n)
	}
}

func TestNSIDCountsTowardsTheLimit(t *testing.T) {
	// The longest NSID fits in 512 octets beside an error about the longest name,
	// and pushes an answer over the limit rather than past it.
	tree := packetTree(t)
	nsid := string(bytes.Repeat([]byte("n"), MaxNSID+50))
	for _, name := range []string{"key.p-dns.test.", "medium.p-dns.test.", "short.p-dns.test."} {
		message := ask(t, name, dns.TypeTXT, edns(512, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}))
		reply := NewResponder(tree, nsid).Reply(nil, message, false)
		m := unpack(t, reply)
		if len(reply) > 512 || m.IsEdns0() == nil || m.Truncated == (name == "short.p-dns.test.") {
			t.Errorf("%s: %d octets, TC %t", name, len(reply), m.Truncated)
		}
	}
}

func TestANYIsAnsweredWithHINFO(t *testing.T) {
	tree := packetTree(t)
	for _, tcp := range []bool{false, true} {
		m := respond(t, tree, ask(t, "big.p-dns.test.", dns.TypeANY, edns(1232)), tcp)
		if len(m.Answer) != 1 || m.Truncated {
			t.Fatalf("got %s, want one record", m)
		}
		h, ok := m.Answer[0].(*dns.HINFO)
		if !ok || h.Cpu != "RFC8482" || h.Os != "" || h.Hdr.Name != "big.p-dns.test." || h.Hdr.Ttl != 3600 {
			t.Errorf("got %s", m.Answer[0])
		}
	}
	if m := respond(t, tree, ask(t, "none.p-dns.test.", dns.TypeANY), false); m.Rcode != dns.RcodeNameError || len(m.Answer) != 0 {
		t.Errorf("ANY of a name that does not exist: %s", m)
	}
}

func TestUnknownKeyIsToldSo(t *testing.T) {
	message := signedQuery(t)
	reply := NewResponder(packetTree(t), "").Reply(nil, message, false)
	m := unpack(t, reply)
	if got := summary(m); got != "NOTAUTH qd1 opt tsig" {
		t.Fatalf("got %q", got)
	}
	asked := unpack(t, message).IsTsig()
	got := m.IsTsig()
	if got.Hdr.Name != asked.Hdr.Name || got.Algorithm != asked.Algorithm || got.TimeSigned != asked.TimeSigned ||
		got.OrigId != asked.OrigId || got.MACSize != 0 || got.Error != dns.RcodeBadKey {
		t.Errorf("TSIG %s", got)
	}
	if len(reply) > len(message) {
		t.Errorf("reply of %d octets to %d", len(reply), len(message))
	}
}

// Whatever comes, a reply is one that a client can read, is of the question
// asked, keeps to its limit, and is no longer than the query where it is no
// answer.
func TestRepliesToMutatedQueriesAreSound(t *testing.T) {
	const mutations, opcodeRD = 50_000, 0x79
	random := rand.New(rand.NewPCG(8906, 1))
	seeds := append(seedQueries(t),
		ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232)), ask(t, "big.p-dns.test.", dns.TypeTXT),
		ask(t, "medium.p-dns.test.", dns.TypeTXT, edns(700)))
	responder := NewResponder(packetTree(t), "")
	buffer := make([]byte, 0, MaxTCP)
	for i := range mutations {
		message := mutate(random, seeds)
		reply := responder.Reply(buffer, message, i%2 == 0)
		if len(reply) == 0 {
			if len(message) >= headerSize && message[2]&0x80 == 0 {
				t.Fatalf("no reply to %x", message)
			}
			continue
		}
		m := unpack(t, reply)
		answered := m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError
		if !answered && len(reply) > len(message)+responder.optLength()-optSize {
			t.Fatalf("%d octets of error to %d: %x", len(reply), len(message), message)
		}
		if limit := responder.query.limit(i%2 == 0); len(reply) > limit {
			t.Fatalf("%d octets, limit %d: %x", len(reply), limit, message)
		}
		if !m.Response || reply[0] != message[0] || reply[1] != message[1] || m.RecursionAvailable || m.AuthenticatedData || m.CheckingDisabled || m.Zero {
			t.Fatalf("header %s to %x", m.MsgHdr.String(), message)
		}
		if reply[2]&opcodeRD != message[2]&opcodeRD {
			t.Fatalf("OPCODE or RD not repeated to %x", message)
		}
		if len(m.Question) == 1 && !bytes.Equal(reply[headerSize:responder.query.end], message[headerSize:responder.query.end]) {
			t.Fatalf("another question in the reply to %x", message)
		}
	}
}

func TestRepliesAllocateNothing(t *testing.T) {
	responder := NewResponder(packetTree(t), "node-1")
	buffer := make([]byte, 0, MaxTCP)
	for name, message := range map[string][]byte{
		"answer":    ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})),
		"truncated": ask(t, "big.p-dns.test.", dns.TypeTXT, edns(1232)),
		"no name":   ask(t, "none.p-dns.test.", dns.TypeTXT, edns(1232)),
		"no data":   ask(t, "short.p-dns.test.", dns.TypeA),
		"any":       ask(t, "short.p-dns.test.", dns.TypeANY),
		"refused":   ask(t, "elsewhere.test.", dns.TypeTXT, edns(1232)),
		"malformed": ask(t, "short.p-dns.test.", dns.TypeTXT)[:20],
		"signed":    signedQuery(t),
		"silent":    {1, 2, 3},
	} {
		for _, tcp := range []bool{false, true} {
			if n := testing.AllocsPerRun(200, func() { responder.Reply(buffer, message, tcp) }); n != 0 {
				t.Errorf("%s, TCP %t: %v allocations", name, tcp, n)
			}
		}
	}
}

// A reply may be as long as its limit and no octet longer; one that is cut has
// nothing left, and says so in its counts.
func TestReplyIsCutAtTheOctetPastItsLimit(t *testing.T) {
	p := delegatedPlan(t, "send.customer.test", testToken)
	p.Records = []RRset{set(t, "old.send.customer.test", TypeDNAME, 300, "elsewhere.test."), set(t, "t.send.customer.test", TypeTXT, 300, "x")}
	tree := testTree(t, p)
	for _, c := range []struct {
		name    string
		t       Type
		outcome Outcome
	}{
		{"t.send.customer.test", TypeTXT, Found}, {"nothing.send.customer.test", TypeA, NoName},
		{"send.customer.test", TypeSOA, Found}, {"x.old.send.customer.test", TypeA, Alias},
	} {
		q, a := questionOf(t, c.name, c.t), new(answer)
		tree.lookup(q, a)
		if a.outcome != c.outcome {
			t.Fatalf("%s: outcome %d", c.name, a.outcome)
		}
		reply := func(limit int) ([]byte, bool) {
			return appendAnswer(appendQuestion(make([]byte, 0, MaxTCP), q), 0, q, a, limit)
		}
		whole, _ := reply(MaxTCP)
		if exact, cut := reply(len(whole)); cut || len(exact) != len(whole) {
			t.Errorf("%s %s: %d octets are cut at %d", c.name, c.t, len(whole), len(whole))
		}
		short, cut := reply(len(whole) - 1)
		if !cut || len(short) != q.end || short[2]&flagTC == 0 {
			t.Errorf("%s %s: %d octets at a limit of %d, cut %v", c.name, c.t, len(short), len(whole)-1, cut)
		}
		for _, at := range []int{countAnswer, countAnswer + 2, countAdditional} {
			if n := binary.BigEndian.Uint16(short[at:]); n != 0 {
				t.Errorf("%s %s: cut, and it counts %d records", c.name, c.t, n)
			}
		}
	}
}

func TestServerIdentifierIsCutAtItsBound(t *testing.T) {
	r := NewResponder(packetTree(t), strings.Repeat("n", MaxNSID+1))
	m := unpack(t, r.Reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232, &dns.EDNS0_NSID{Code: dns.EDNS0NSID})), false))
	for _, o := range m.IsEdns0().Option {
		if id, ok := o.(*dns.EDNS0_NSID); ok {
			if len(id.Nsid) != 2*MaxNSID {
				t.Errorf("%d octets", len(id.Nsid)/2)
			}
			return
		}
	}
	t.Error("no identifier")
}
