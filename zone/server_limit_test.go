package zone

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// testLimiter has a fixed seed and exempts nobody.
func testLimiter(c RateLimit) *limiter {
	if c.Exempt == nil {
		c.Exempt = []netip.Prefix{}
	}
	l := newLimiter(c)
	l.seed = 1
	return l
}

func udpFrom(address string) *source {
	s := sourceOf(netip.MustParseAddr(address), false)
	return &s
}

// uncounted is how many replies a prefix gets before it counts as busy.
func (l *limiter) uncounted() int { return int(l.busy.depth / l.busy.interval) }

// flood asks at an even rate, in batches of a millisecond that read the clock
// once, and says how many passed.
func (l *limiter) flood(from *source, begin time.Duration, seconds, perSecond int, class limitClass, owner func(i int) uint64) (passed int) {
	for i := range seconds * perSecond {
		now := int64(begin) + int64(i)*1000/int64(perSecond)*(second/1000)
		if l.take(from, now, class, owner(i)) == within {
			passed++
		}
	}
	return passed
}

func same(int) uint64       { return 7 }
func distinct(i int) uint64 { return mix(uint64(i)+1, hashMul) }

func TestFloodForOneNameIsCutToABurst(t *testing.T) {
	for _, c := range []struct {
		class limitClass
		limit int
	}{{classAnswer, defaultAnswers}, {classNoName, defaultNoNames}, {classError, defaultErrors}} {
		l := testLimiter(RateLimit{})
		want := c.limit + l.uncounted()
		// The burst passes at once, and nothing while the flood lasts.
		if got := l.flood(udpFrom("192.0.2.1"), 0, 3, 100_000, c.class, same); got != want {
			t.Errorf("class %d: %d passed of 300,000, want %d", c.class, got, want)
		}
		// Ten seconds later all is forgotten.
		if got := l.flood(udpFrom("192.0.2.200"), 13*time.Second, 1, 100_000, c.class, same); got != want {
			t.Errorf("class %d: %d passed after a pause, want %d", c.class, got, want)
		}
	}
}

func TestWhoAsksMoreSlowlyThanTheLimitIsNotLimited(t *testing.T) {
	l := testLimiter(RateLimit{})
	if got := l.flood(udpFrom("192.0.2.1"), 0, 60, defaultAnswers-10, classAnswer, same); got != 60*(defaultAnswers-10) {
		t.Errorf("%d of %d passed", got, 60*(defaultAnswers-10))
	}
	if got := l.flood(udpFrom("2001:db8::1"), 0, 60, 40, classNoName, same); got != 60*40 {
		t.Errorf("%d of %d NXDOMAINs passed", got, 60*40)
	}
}

// Mail receivers ask for thousands of customers from one prefix.
func TestDistinctNamesFromOnePrefixAreNeverLimited(t *testing.T) {
	for _, from := range []string{"192.0.2.1", "2001:db8::1"} {
		l := testLimiter(RateLimit{})
		if got := l.flood(udpFrom(from), 0, 5, 20_000, classAnswer, distinct); got != 5*20_000 {
			t.Errorf("from %s %d of %d passed", from, got, 5*20_000)
		}
	}
}

func TestTotalOfAPrefixIsPassedOnAtItsRate(t *testing.T) {
	l := testLimiter(RateLimit{Total: 1000})
	got := l.flood(udpFrom("192.0.2.1"), 0, 10, 5000, classAnswer, distinct)
	if want := 10*1000 + 1000 + l.uncounted(); got < want-10 || got > want {
		t.Errorf("%d passed, want %d in ten seconds with the burst", got, want)
	}
}

func TestLimitsAreOfPrefixOwnerAndClass(t *testing.T) {
	l := testLimiter(RateLimit{})
	l.flood(udpFrom("192.0.2.1"), 0, 1, 10_000, classAnswer, same)
	l.flood(udpFrom("2001:db8:0:100::1"), 0, 1, 10_000, classAnswer, same)
	for _, c := range []struct {
		name  string
		from  string
		class limitClass
		owner uint64
		want  overLimit
	}{
		{"the same", "192.0.2.1", classAnswer, 7, overOwner},
		{"a neighbour in the /24", "192.0.2.254", classAnswer, 7, overOwner},
		{"the next /24", "192.0.3.1", classAnswer, 7, within},
		{"another name", "192.0.2.1", classAnswer, 8, within},
		{"another outcome", "192.0.2.1", classNoName, 7, within},
		{"a neighbour in the /56", "2001:db8:0:1ff::1", classAnswer, 7, overOwner},
		{"the next /56", "2001:db8:0:200::1", classAnswer, 7, within},
	} {
		if got := l.take(udpFrom(c.from), second, c.class, c.owner); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestExemptPrefixesAreNotLimited(t *testing.T) {
	exempt := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("2001:db8::/32")}
	for _, c := range []struct {
		name   string
		exempt []netip.Prefix
		from   string
		want   bool
	}{
		{"listed", exempt, "192.0.2.1", true},
		{"listed IPv6", exempt, "2001:db8::1", true},
		{"beside it", exempt, "192.0.2.129", false},
		{"loopback by default", nil, "127.0.0.1", true},
		{"IPv6 loopback by default", nil, "::1", true},
		{"any other by default", nil, "192.0.2.1", false},
		{"loopback where the list is empty", []netip.Prefix{}, "127.0.0.1", false},
	} {
		l := newLimiter(RateLimit{Exempt: c.exempt})
		passed := l.flood(udpFrom(c.from), 0, 1, 10_000, classAnswer, same)
		if (passed == 10_000) != c.want {
			t.Errorf("%s: %d of 10,000 passed", c.name, passed)
		}
	}
}

func TestWhatAnswersComeFrom(t *testing.T) {
	plan := delegatedPlan(t, "send.customer.test", testToken)
	plan.Records = []RRset{
		set(t, "*.wild.send.customer.test", TypeTXT, 300, `"x"`),
		set(t, "below.send.customer.test", TypeNS, 300, "ns.elsewhere.test."),
		set(t, "old.send.customer.test", TypeDNAME, 300, "new.elsewhere.test."),
		set(t, "www.send.customer.test", TypeA, 300, "192.0.2.1"),
	}
	tree := testTree(t, plan, cnamePlan(t, otherToken))
	responder := NewResponder(tree, "")
	origin := func(qname string, qtype uint16) uint64 {
		responder.Reply(nil, ask(t, qname, qtype), true)
		return responder.answer.origin
	}
	for _, c := range []struct {
		name, one, other string
		qtype            uint16
		same             bool
	}{
		{"two names", "www.send.customer.test.", "send.customer.test.", dns.TypeA, false},
		{"one name in two cases", "www.send.customer.test.", "WWW.send.customer.test.", dns.TypeA, true},
		{"a wildcard's names", "a.wild.send.customer.test.", "b.wild.send.customer.test.", dns.TypeTXT, true},
		{"a wildcard's names without data", "a.wild.send.customer.test.", "b.wild.send.customer.test.", dns.TypeMX, true},
		{"names that do not exist", "a.send.customer.test.", "c.b.send.customer.test.", dns.TypeTXT, true},
		{"names that do not exist of two zones", "a.send.customer.test.", "a.p.example.", dns.TypeTXT, false},
		{"names below one delegation", "a.below.send.customer.test.", "b.below.send.customer.test.", dns.TypeA, true},
		{"names below one DNAME", "a.old.send.customer.test.", "b.old.send.customer.test.", dns.TypeA, true},
		{"two customers' targets", "k1." + otherToken + ".dkim.p.example.", otherToken + ".bounce.p.example.", dns.TypeTXT, false},
		{"two customers' targets without data", "k1." + otherToken + ".dkim.p.example.", otherToken + ".bounce.p.example.", dns.TypeAAAA, false},
	} {
		if got := origin(c.one, c.qtype) == origin(c.other, c.qtype); got != c.same {
			t.Errorf("%s: counted together %t, want %t", c.name, got, c.same)
		}
	}
}

func TestLimiterNeedsNoMemory(t *testing.T) {
	l := testLimiter(RateLimit{Exempt: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	from, i := udpFrom("198.51.100.1"), 0
	if n := testing.AllocsPerRun(1000, func() { i++; l.take(from, int64(i), classAnswer, distinct(i/2)) }); n != 0 {
		t.Errorf("%v allocations", n)
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
