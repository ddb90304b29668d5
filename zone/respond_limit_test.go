package zone

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// testSecrets are for cookies of the tests.
var testSecrets = CookieSecrets{Current: CookieSecret{1, 2, 3}, Previous: CookieSecret{4, 5, 6}}

// testEpoch is when the tests' servers started.
var testEpoch = time.Unix(1_800_000_000, 0)

// guarded is a responder with cookies and limits that starts at testEpoch.
func guarded(t testing.TB, c RateLimit) *Responder {
	t.Helper()
	g := &guard{limiter: newLimiter(c), started: testEpoch, keepalive: 100}
	if g.limiter != nil {
		g.limiter.seed = 1
	}
	g.secrets.Store(&testSecrets)
	r := newResponder(packetTree(t), "node-1", g)
	r.begin(testEpoch)
	return r
}

func cookieOption(text string) dns.EDNS0 {
	return &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: text}
}

const clientCookie = "0011223344556677"

// cookieOf is the cookie of a reply, in hex; empty: none.
func cookieOf(m *dns.Msg) string {
	if opt := m.IsEdns0(); opt != nil {
		return firstCookie(opt)
	}
	return ""
}

// extendedOf is the extended error of a reply; -1: none.
func extendedOf(t testing.TB, m *dns.Msg) int {
	t.Helper()
	if opt := m.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if e, ok := o.(*dns.EDNS0_EDE); ok {
				if e.ExtraText != "" {
					t.Errorf("text %q in an extended error", e.ExtraText)
				}
				return int(e.InfoCode)
			}
		}
	}
	return -1
}

func TestCookieIsAnsweredWithACookie(t *testing.T) {
	r := guarded(t, RateLimit{})
	from := udpFrom("192.0.2.1")
	reply := func(qname, cookie string) *dns.Msg {
		return unpack(t, r.reply(nil, ask(t, qname, dns.TypeTXT, edns(1232, cookieOption(cookie))), from))
	}
	first := reply("short.p-dns.test.", clientCookie)
	good := cookieOf(first)
	if len(good) != 2*cookieSize || good[:16] != clientCookie || len(first.Answer) != 1 {
		t.Fatalf("to a client's cookie %q with %d answers", good, len(first.Answer))
	}
	if got := cookieOf(reply("short.p-dns.test.", good)); got != good {
		t.Errorf("to our cookie %q, want it again", got)
	}
	if got := cookieOf(reply("elsewhere.test.", good)); got != good {
		t.Errorf("in an error %q", got)
	}
	bad := good[:len(good)-2] + "00"
	if bad == good {
		bad = good[:len(good)-2] + "01"
	}
	m := reply("short.p-dns.test.", bad)
	if m.Rcode != dns.RcodeSuccess || len(m.Answer) != 1 || cookieOf(m) != good {
		t.Errorf("to a cookie that is not ours: %s with %q, want the answer and a new cookie", dns.RcodeToString[m.Rcode], cookieOf(m))
	}
	from = udpFrom("192.0.2.2")
	if got := cookieOf(reply("short.p-dns.test.", good)); got == good {
		t.Error("one cookie is good from two addresses")
	}
	if got := cookieOf(unpack(t, r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232)), from))); got != "" {
		t.Errorf("without being asked for one: %q", got)
	}
}

// RFC 7873 section 5.4.
func TestCookieAloneIsAnswered(t *testing.T) {
	r := guarded(t, RateLimit{})
	from := udpFrom("2001:db8::1")
	alone := func(cookie string, change ...func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg)
		m.SetEdns0(1232, false)
		if cookie != "" {
			m.IsEdns0().Option = []dns.EDNS0{cookieOption(cookie)}
		}
		for _, c := range change {
			c(m)
		}
		b, err := m.Pack()
		if err != nil {
			t.Fatal(err)
		}
		return unpack(t, r.reply(nil, b, from))
	}
	m := alone(clientCookie)
	good := cookieOf(m)
	if summary(m) != "NOERROR qd0 opt" || len(good) != 2*cookieSize {
		t.Errorf("to a client's cookie %s with %q", summary(m), good)
	}
	if m := alone(good); summary(m) != "NOERROR qd0 opt" || cookieOf(m) != good {
		t.Errorf("to ours %s with %q", summary(m), cookieOf(m))
	}
	if m := alone(clientCookie + "0100000000000000aabbccddeeff0011"); summary(m) != "BADCOOKIE qd0 opt" || cookieOf(m) != good {
		t.Errorf("to one that is not ours %s with %q", summary(m), cookieOf(m))
	}
	if m := alone(""); summary(m) != "FORMERR qd0 opt" {
		t.Errorf("without a cookie %s", summary(m))
	}
	if m := alone(clientCookie, func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }); summary(m) != "BADVERS qd0 opt" {
		t.Errorf("in another version %s", summary(m))
	}
	r.secrets = nil
	if m := alone(clientCookie); summary(m) != "FORMERR qd0 opt" || cookieOf(m) != "" {
		t.Errorf("by a server without secrets %s", summary(m))
	}
}

func TestCookiesOfOtherLengthsAreMalformed(t *testing.T) {
	r := guarded(t, RateLimit{})
	// What the responder holds of the client before is not the next one's to learn.
	r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232, cookieOption(clientCookie))), udpFrom("198.51.100.1"))
	for length := range 50 {
		message := ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232, &dns.EDNS0_LOCAL{Code: dns.EDNS0COOKIE, Data: make([]byte, length)}))
		want := "FORMERR qd1 opt"
		if cookieFits(length) {
			want = "NOERROR qd1 opt"
		}
		m := unpack(t, r.reply(nil, message, udpFrom("192.0.2.1")))
		if got := summary(m); got != want {
			t.Errorf("%d octets: %s, want %s", length, got, want)
		}
		if got := cookieOf(m); (got != "") != cookieFits(length) {
			t.Errorf("%d octets: the reply has the cookie %q", length, got)
		}
	}
}

func TestErrorsSayWhy(t *testing.T) {
	r := guarded(t, RateLimit{})
	class := func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }
	for _, c := range []struct {
		name    string
		message []byte
		want    int
	}{
		{"no zone of ours", ask(t, "elsewhere.test.", dns.TypeTXT, edns(1232)), int(dns.ExtendedErrorCodeNotAuthoritative)},
		{"without EDNS", ask(t, "elsewhere.test.", dns.TypeTXT), -1},
		{"transfer", ask(t, "p-dns.test.", dns.TypeAXFR, edns(1232)), int(dns.ExtendedErrorCodeNotSupported)},
		{"class", ask(t, "version.bind.", dns.TypeTXT, edns(1232), class), int(dns.ExtendedErrorCodeNotSupported)},
		{"TKEY", ask(t, "p-dns.test.", dns.TypeTKEY, edns(1232)), int(dns.ExtendedErrorCodeNotSupported)},
		{"answer", ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232)), -1},
		{"no name", ask(t, "none.p-dns.test.", dns.TypeTXT, edns(1232)), -1},
	} {
		if got := extendedOf(t, unpack(t, r.reply(nil, c.message, udpFrom("192.0.2.1")))); got != c.want {
			t.Errorf("%s: code %d, want %d", c.name, got, c.want)
		}
	}
}

func TestKeepaliveIsAnsweredOverTCP(t *testing.T) {
	r := guarded(t, RateLimit{})
	asks := edns(1232, &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})
	for _, c := range []struct {
		tcp    bool
		change func(*dns.Msg)
		want   string
	}{{true, asks, "100"}, {true, edns(1232), ""}, {false, asks, ""}} {
		from := sourceOf(netip.MustParseAddr("192.0.2.1"), c.tcp)
		got := ""
		for _, o := range unpack(t, r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT, c.change), &from)).IsEdns0().Option {
			got += fmt.Sprint(o.(*dns.EDNS0_TCP_KEEPALIVE).Timeout)
		}
		if got != c.want {
			t.Errorf("TCP %t: timeout %q, want %q", c.tcp, got, c.want)
		}
	}
}

// exhaust asks until the source is past the limit.
func exhaust(t testing.TB, r *Responder, message []byte, from *source) {
	t.Helper()
	for range 1000 {
		r.reply(nil, message, from)
	}
}

func TestPastALimitAnswersAreCut(t *testing.T) {
	const other = clientCookie + "0100000000000000aabbccddeeff0011"
	tcp := sourceOf(netip.MustParseAddr("192.0.2.9"), true)
	for _, c := range []struct {
		name, qname string
		change      func(*dns.Msg)
		from        *source
		want        string
	}{
		{"answer", "key.p-dns.test.", edns(1232), udpFrom("192.0.2.9"), "NOERROR tc qd1 opt"},
		{"answer without EDNS", "key.p-dns.test.", func(*dns.Msg) {}, udpFrom("192.0.2.9"), "NOERROR tc qd1"},
		{"no name", "none.p-dns.test.", edns(1232), udpFrom("192.0.2.9"), "NOERROR tc qd1 opt"},
		{"with NSID", "key.p-dns.test.", edns(1232, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}), udpFrom("192.0.2.9"), "NOERROR tc qd1 opt"},
		{"client's cookie", "key.p-dns.test.", edns(1232, cookieOption(clientCookie)), udpFrom("192.0.2.9"), "NOERROR tc qd1 opt"},
		{"a cookie that is not ours", "key.p-dns.test.", edns(1232, cookieOption(other)), udpFrom("192.0.2.9"), "BADCOOKIE qd1 opt"},
		{"a short one that is not ours", "key.p-dns.test.", edns(1232, cookieOption(clientCookie+"0123456789abcdef")), udpFrom("192.0.2.9"), "NOERROR tc qd1 opt"},
		{"refused", "elsewhere.test.", edns(1232), udpFrom("192.0.2.9"), "REFUSED qd1 opt"},
		{"TCP", "key.p-dns.test.", edns(1232), &tcp, "NOERROR qd1 opt"},
		{"another prefix", "key.p-dns.test.", edns(1232), udpFrom("192.0.3.9"), "NOERROR qd1 opt"},
		{"another name", "short.p-dns.test.", edns(1232), udpFrom("192.0.2.9"), "NOERROR qd1 opt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := guarded(t, RateLimit{})
			for _, qname := range []string{"key.p-dns.test.", "none.p-dns.test.", "elsewhere.test."} {
				exhaust(t, r, ask(t, qname, dns.TypeTXT, edns(1232)), udpFrom("192.0.2.1"))
			}
			message := ask(t, c.qname, dns.TypeTXT, c.change)
			reply := r.reply(nil, message, c.from)
			m := unpack(t, reply)
			if got := summary(m); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			cut := m.Truncated || m.Rcode != dns.RcodeSuccess
			if cut && len(reply) > len(message) {
				t.Errorf("%d octets to %d", len(reply), len(message))
			}
			if cut == (len(m.Answer) > 0) {
				t.Errorf("%d answers", len(m.Answer))
			}
			if extendedOf(t, m) != -1 {
				t.Error("an extended error past the limit")
			}
			if m.Rcode == dns.RcodeBadCookie {
				again := r.reply(nil, ask(t, c.qname, dns.TypeTXT, edns(1232, cookieOption(cookieOf(m)))), c.from)
				if len(unpack(t, again).Answer) != 1 {
					t.Error("the cookie that came with BADCOOKIE does not help")
				}
			}
		})
	}
}

func TestValidCookieIsNotLimitedAndNotCounted(t *testing.T) {
	r := guarded(t, RateLimit{})
	from := udpFrom("192.0.2.1")
	good := cookieOf(unpack(t, r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232, cookieOption(clientCookie))), from)))
	message := ask(t, "key.p-dns.test.", dns.TypeTXT, edns(1232, cookieOption(good)))
	for i := range 5000 {
		if m := unpack(t, r.reply(nil, message, from)); len(m.Answer) != 1 {
			t.Fatalf("query %d: %s", i, summary(m))
		}
	}
	if m := unpack(t, r.reply(nil, ask(t, "key.p-dns.test.", dns.TypeTXT), from)); len(m.Answer) != 1 {
		t.Errorf("a neighbour without a cookie after them: %s", summary(m))
	}
}

// The acceptance in short: a flood in the name of one prefix gets a burst in full
// and then no octet more than it sends, and a client in that prefix still gets
// its answers, through TC and TCP.
func TestFloodInTheNameOfAPrefixIsNotAmplified(t *testing.T) {
	const perSecond, seconds, batch = 100_000, 2, 64
	r := guarded(t, RateLimit{})
	message := ask(t, "key.p-dns.test.", dns.TypeTXT, edns(1232))
	client := ask(t, "key.p-dns.test.", dns.TypeTXT, edns(1232), func(m *dns.Msg) { m.Id = 77 })
	tcp := sourceOf(netip.MustParseAddr("192.0.2.77"), true)
	buffer := make([]byte, 0, MaxTCP)
	in, out, full, resolved, tries := 0, 0, 0, 0, 0
	for i := range seconds * perSecond {
		if i%batch == 0 { // which share a look at the clock
			r.begin(testEpoch.Add(time.Duration(i) * time.Second / perSecond))
		}
		reply := r.reply(buffer, message, udpFrom(fmt.Sprintf("192.0.2.%d", i%256)))
		if len(reply) == 0 {
			t.Fatal("silence")
		}
		if len(reply) > len(message) {
			full++
		}
		if i >= perSecond { // past the burst
			in, out = in+len(message), out+len(reply)
		}
		if i%2000 == 1000 {
			tries++
			m := unpack(t, r.reply(buffer, client, udpFrom("192.0.2.77")))
			if m.Truncated {
				m = unpack(t, r.reply(buffer, client, &tcp))
			}
			if len(m.Answer) == 1 && m.Id == 77 {
				resolved++
			}
		}
	}
	if want := defaultAnswers + r.guard.limiter.uncounted(); full > want || full < defaultAnswers {
		t.Errorf("%d answers in full, want %d", full, want)
	}
	if out > in {
		t.Errorf("%d octets out to %d in", out, in)
	}
	if resolved != tries {
		t.Errorf("the client got %d answers of %d", resolved, tries)
	}
}

// Nothing that a limit or an option adds may break what holds for every reply.
func TestEverythingOnAllocatesNothing(t *testing.T) {
	r := guarded(t, RateLimit{Exempt: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}})
	buffer := make([]byte, 0, MaxTCP)
	good := cookieOf(unpack(t, r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT, edns(1232, cookieOption(clientCookie))), udpFrom("192.0.2.1"))))
	all := func(cookie string) func(*dns.Msg) {
		return edns(1232, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}, cookieOption(cookie), &dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE})
	}
	tcp := sourceOf(netip.MustParseAddr("192.0.2.1"), true)
	for name, message := range map[string][]byte{
		"no cookie":     ask(t, "key.p-dns.test.", dns.TypeTXT, edns(1232)),
		"client cookie": ask(t, "key.p-dns.test.", dns.TypeTXT, all(clientCookie)),
		"good cookie":   ask(t, "key.p-dns.test.", dns.TypeTXT, all(good)),
		"bad cookie":    ask(t, "key.p-dns.test.", dns.TypeTXT, all(good[:46]+"0000")),
		"no name":       ask(t, "none.p-dns.test.", dns.TypeTXT, all(clientCookie)),
		"refused":       ask(t, "elsewhere.test.", dns.TypeTXT, all(clientCookie)),
	} {
		for _, from := range []*source{udpFrom("192.0.2.1"), udpFrom("198.51.100.1"), udpFrom("2001:db8::1"), &tcp} {
			if n := testing.AllocsPerRun(500, func() { r.reply(buffer, message, from) }); n != 0 {
				t.Errorf("%s from %s: %v allocations", name, from.addr(), n)
			}
		}
	}
}

// FuzzGuardedReply sends arbitrary octets to a responder with everything on.
func FuzzGuardedReply(f *testing.F) {
	for _, seed := range seedQueries(f) {
		f.Add(seed, false)
		f.Add(seed, true)
	}
	r := guarded(f, RateLimit{})
	buffer := make([]byte, 0, MaxTCP)
	f.Fuzz(func(t *testing.T, message []byte, tcp bool) {
		from := sourceOf(netip.MustParseAddr("192.0.2.1"), tcp)
		reply := r.reply(buffer, message, &from)
		if len(reply) == 0 {
			if len(message) >= headerSize && message[2]&0x80 == 0 {
				t.Fatal("no reply to a query")
			}
			return
		}
		m := unpack(t, reply)
		if len(reply) > max(r.query.limit(tcp), len(message)) {
			t.Errorf("%d octets to\n%s", len(reply), hex.Dump(message))
		}
		if m.Truncated && !tcp && len(m.Answer)+len(m.Ns) > 0 {
			t.Errorf("TC with records to\n%s", hex.Dump(message))
		}
	})
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
