package zone

import (
	"encoding/binary"
	"fmt"
	"math/rand"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

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

// Names that do not exist have a limit of their own, which is lower: each is
// answered from its zone, whatever it is.
func TestFloodOfNamesThatDoNotExistIsCutSooner(t *testing.T) {
	r := guarded(t, RateLimit{Answers: 1000, NoNames: 10})
	cut := 0
	for n := range 200 {
		if m := unpack(t, r.reply(nil, ask(t, fmt.Sprintf("no%d.p-dns.test.", n), dns.TypeA), udpFrom("192.0.2.1"))); m.Truncated {
			cut++
		}
	}
	if cut < 150 {
		t.Errorf("%d of 200 in one moment are cut", cut)
	}
	for range 200 {
		if m := unpack(t, r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT), udpFrom("192.0.2.1"))); m.Truncated {
			t.Fatal("an answer is cut for names that do not exist")
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

// A secret that is not set recognises nothing: who knows that it is all zeroes
// could make cookies for any address.
func TestCookiesOfSecretsThatAreNotSetAreBad(t *testing.T) {
	from := sourceOf(netip.MustParseAddr("192.0.2.1"), false)
	const now = 1_800_000_000
	made := func(s *CookieSecret, version byte) []byte {
		cookie := make([]byte, cookieSize)
		copy(cookie, "client!!")
		cookie[clientCookieSize] = version
		binary.BigEndian.PutUint32(cookie[12:], now)
		binary.LittleEndian.PutUint64(cookie[cookieSize-8:], s.hash(cookie, &from))
		return cookie
	}
	secrets := &CookieSecrets{Current: CookieSecret{1}}
	var reply [cookieSize]byte
	for what, c := range map[string]struct {
		cookie []byte
		want   cookieState
	}{
		"ours":          {made(&secrets.Current, cookieVersion), cookieGood},
		"of no secret":  {made(&CookieSecret{}, cookieVersion), cookieBad},
		"of no version": {made(&secrets.Current, cookieVersion+1), cookieBad},
	} {
		if got := secrets.judge(&reply, c.cookie, &from, now); got != c.want {
			t.Errorf("%s: %d, want %d", what, got, c.want)
		}
	}
	// A good one is repeated for half an hour, and made anew from then on.
	old := made(&secrets.Current, cookieVersion)
	for age, same := range map[uint32]bool{cookieFresh: true, cookieFresh + 1: false} {
		if got := secrets.judge(&reply, old, &from, now+age); got != cookieGood || (string(reply[:]) == string(old)) != same {
			t.Errorf("%d s old: %d, the same again: %v", age, got, !same)
		}
	}
}

func TestRatesAndExemptionsOutOfBoundsAreRefused(t *testing.T) {
	prefixes := func(n int) (list []netip.Prefix) {
		for range n {
			list = append(list, netip.MustParsePrefix("192.0.2.0/24"))
		}
		return list
	}
	for field, c := range map[string]RateLimit{
		"answers: -1":             {Answers: -1},
		"no_names: 100000001":     {NoNames: maxRate + 1},
		"errors: -5":              {Errors: -5},
		"total: 100000001":        {Total: maxRate + 1},
		"exempt: 257":             {Exempt: prefixes(maxExempt + 1)},
		"exempt[1]: 192.0.2.1/24": {Exempt: append(prefixes(1), netip.MustParsePrefix("192.0.2.1/24"))},
		"exempt[0]: ":             {Exempt: []netip.Prefix{{}}},
		"exempt[0]: ::ffff:":      {Exempt: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:192.0.2.0"), 120)}},
	} {
		if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	most := RateLimit{Answers: maxRate, NoNames: maxRate, Errors: maxRate, Total: maxRate, Exempt: prefixes(maxExempt)}
	if err := most.Check(); err != nil {
		t.Error(err)
	}
}

// What comes in a plan is bounded as what is read from text is.
func TestRRsetsOfAPlanAreBounded(t *testing.T) {
	owner := name(t, "a.send.customer.test")
	var many, large [][]byte
	for i := range maxRecords + 1 {
		many = append(many, []byte{192, 0, byte(i >> 8), byte(i)})
	}
	for i := range 3 {
		large = append(large, append([]byte{byte(i)}, make([]byte, maxRRset/2)...))
	}
	for what, c := range map[string]struct {
		set RRset
		ok  bool
	}{
		"as many as there may be": {RRset{owner, TypeA, 300, many[:maxRecords]}, true},
		"one more":                {RRset{owner, TypeA, 300, many}, false},
		"as large as it may be":   {RRset{owner, 65400, 300, [][]byte{large[0][:maxRRset/2], large[1][:maxRRset/2]}}, true},
		"larger":                  {RRset{owner, 65400, 300, large[:2]}, false},
	} {
		if err := checkRRset(c.set); (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, signed := range []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM} {
		if err := checkType(Type(signed)); err == nil || !strings.Contains(err.Error(), "signer") {
			t.Errorf("%s: %v", Type(signed), err)
		}
	}
}

// One domain's count ends at its own time, while another's goes on; and nobody
// looks at names once the last has ended.
func TestEachCensusEndsAtItsOwnTime(t *testing.T) {
	r := guarded(t, RateLimit{})
	r.guard.census = new(Census)
	c := r.guard.census
	for id, c := range map[string]struct {
		name string
		life time.Duration
	}{"short": {"key.p-dns.test", time.Minute}, "long": {"short.p-dns.test", time.Hour}} {
		if err := r.guard.census.Start(id, []Name{name(t, c.name)}, testEpoch, testEpoch.Add(c.life)); err != nil {
			t.Fatal(err)
		}
	}
	for _, after := range []time.Duration{time.Minute - time.Second, time.Minute, time.Hour - time.Second, time.Hour} {
		r.begin(testEpoch.Add(after))
		if (r.census == nil) != (after == time.Hour) {
			t.Errorf("%s on: looked at names: %v", after, r.census != nil)
		}
		r.reply(nil, ask(t, "key.p-dns.test.", dns.TypeTXT), udpFrom("192.0.2.1"))
		r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT), udpFrom("192.0.2.1"))
	}
	for id, want := range map[string]uint64{"short": 1, "long": 3} {
		if got, ok := c.Read(id); !ok || len(got.Counts) != 1 || got.Counts[0].Queries != want {
			t.Errorf("%s: %+v, want %d", id, got.Counts, want)
		}
	}
}

// Whatever is put in and taken out, in whatever order and however names fall on
// each other, what is there is found and nothing else.
func TestShardFindsWhatItHolds(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	for range 200 {
		s := new(shard)
		held := make(map[uint64]Branch)
		for step := range 100 {
			key := uint64(random.Intn(12)) << 28 // of 2^32: they share homes
			if b, ok := held[key]; ok {
				s.remove(key, b)
				delete(held, key)
			} else {
				held[key] = Branch(fmt.Sprint(key, step))
				s.insert(key, held[key])
			}
			if s.used != len(held) {
				t.Fatalf("%d slots are used for %d branches", s.used, len(held))
			}
			for key, b := range held {
				if _, ok := s.index(key, b); !ok {
					t.Fatalf("after %d steps key %x is lost", step, key)
				}
			}
		}
	}
}

func TestNamesMayHave255Octets(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 49)+".", 5) // 250 octets
	for tail, ok := range map[string]bool{"bbb": true, "bbbb": false} {
		n, err := ParseName(long + tail)
		if (err == nil) != ok || ok && len(n) != maxName {
			t.Errorf("%d octets: %v", len(n), err)
		}
	}
}

func TestValuesThatSayOneThingAndHoldAnotherAreRefused(t *testing.T) {
	owner := name(t, "a.send.customer.test")
	for value, c := range map[string]struct {
		t    Type
		says string
	}{
		"\\# 3 0102":    {65280, "there are 2"},
		"\"a\rb\"":      {TypeTXT, "line end"},
		"\"a\nb\"":      {TypeTXT, "line end"},
		"192.0.2.1 ; x": {TypeA, "comment"},
		"( 192.0.2.1 )": {TypeA, "parentheses"},
	} {
		if _, err := ParseRRset(owner, c.t, 300, []string{value}); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, want …%s…", value, err, c.says)
		}
	}
	for _, policy := range []string{"v=DMARC1; PSD=y", "v=DMARC1; p=none; psd=n", "v=DMARC1;\tp=none", "p=none"} {
		if err := checkPolicy(policy); err == nil {
			t.Errorf("policy %q is taken", policy)
		}
	}
	if _, _, err := addressData([]netip.Addr{netip.MustParseAddr("fe80::1%eth0")}); err == nil {
		t.Error("an address of one machine's link is published")
	}
}

// Receivers follow ten includes, however short their names are.
func TestPoolsThatReceiversWouldNotReadAreRefused(t *testing.T) {
	p := PoolPlan{Form: Form, Number: 1, ID: "p", SPFAll: "~all", IncludeBase: name(t, "a.b")}
	for n := range 200 {
		p.SPF = append(p.SPF, fmt.Sprintf("ip6:2001:db8:1111:2222:3333:4444:5555:%x", 0x1000+n))
	}
	if _, err := RenderPool(p); err == nil || !strings.Contains(err.Error(), "receivers follow 10") {
		t.Errorf("%v", err)
	}
	p.SPF = p.SPF[:50]
	if pool, err := RenderPool(p); err != nil || len(pool.Includes()) < 2 {
		t.Errorf("%v", err)
	}
	for n := range maxRecords + 1 {
		p.MX = append(p.MX, MX{Preference: uint16(n), Host: name(t, "mx.p.example")})
	}
	if _, err := RenderPool(p); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("at most %d", maxRecords)) {
		t.Errorf("%v", err)
	}
}
