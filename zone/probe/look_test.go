package probe

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"authd/zone"
)

// contents answers from a few records of customer.test.
func contents(records ...string) handler {
	return func(m *dns.Msg, q dns.Question, tcp bool) {
		m.Authoritative = true
		m.Ns = append(m.Ns, rr("customer.test. 300 IN NS a.dns.test."))
		for _, text := range records {
			r := rr(text)
			if h := r.Header(); strings.EqualFold(h.Name, q.Name) && (h.Rrtype == q.Qtype || h.Rrtype == dns.TypeCNAME) {
				m.Answer = append(m.Answer, r)
			}
		}
	}
}

func (w *world) look(within string, questions ...Question) (Sight, error) {
	w.t.Helper()
	p, err := New(Config{Resolvers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(w.resolver), w.port)}, ServerPort: w.port})
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Look(w.t.Context(), mustName(within), questions)
}

func mustName(text string) zone.Name {
	n, err := zone.ParseName(text)
	if err != nil {
		panic(err)
	}
	return n
}

func TestLookShowsWhatIsAtANameWhateverWasAskedFor(t *testing.T) {
	alias := "k1._domainkey.customer.test. 300 IN CNAME K1.T.dkim.p-dns.test."
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2", "b.dns.test.=127.0.0.3", "c.dns.test.=127.0.0.4"),
		"127.0.0.2": contents(alias, `customer.test. 300 IN TXT "v=spf1 -all"`),
		"127.0.0.3": contents(alias),
		"127.0.0.4": negative(dns.RcodeRefused),
	})
	name := mustName("k1._domainkey.customer.test")
	s, err := w.look("_domainkey.customer.test", Question{name, "CNAME"}, Question{name, "A"}, Question{mustName("customer.test"), "TXT"}, Question{mustName("no.customer.test"), "A"})
	if err != nil {
		t.Fatal(err)
	}
	if s.Zone.String() != "customer.test." || len(s.Servers) != 2 {
		t.Errorf("%+v", s)
	}
	want := []Record{{"CNAME", "k1.t.dkim.p-dns.test."}}
	for i := range 2 {
		if a := s.Answers[i]; !a.Asked || a.Differ || !slices.Equal(a.Records, want) {
			t.Errorf("question %d: %+v", i, a)
		}
	}
	if a := s.Answers[2]; !a.Asked || !a.Differ || len(a.Records) != 1 || a.Records[0].Type != "TXT" {
		t.Errorf("servers that differ: %+v", a)
	}
	if a := s.Answers[3]; !a.Asked || len(a.Records) != 0 {
		t.Errorf("nothing there: %+v", a)
	}
}

func TestLookSeesADelegationInAReferral(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": referral("T.NS1.p-dns.test."),
	})
	s, err := w.look("send.customer.test", Question{mustName("send.customer.test"), "NS"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []Record{{"NS", "t.ns1.p-dns.test."}}; !slices.Equal(s.Answers[0].Records, want) {
		t.Errorf("%+v", s.Answers)
	}
}

func TestLookThatReachesNobodyIsAnErrorAndItsSizeIsBounded(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": negative(dns.RcodeServerFailure),
	})
	q := Question{mustName("send.customer.test"), "NS"}
	if s, err := w.look("send.customer.test", q); err == nil {
		t.Errorf("%+v", s)
	}
	if _, err := w.look("send.customer.test", slices.Repeat([]Question{q}, maxQuestions+1)...); err == nil {
		t.Error("too many questions were taken")
	}
}

func TestCNAMEsTellWhereTheyLeadAndWhatNobodySaid(t *testing.T) {
	k1, k2, k3 := mustName("k1._domainkey.customer.test"), mustName("k2._domainkey.customer.test"), mustName("k3._domainkey.customer.test")
	there := contents("k1._domainkey.customer.test. 300 IN CNAME K1.T.dkim.p-dns.test.", `k2._domainkey.customer.test. 300 IN TXT "v=DKIM1; p="`)
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) {
			if !strings.HasPrefix(q.Name, "k3.") {
				there(m, q, tcp)
				return
			}
			m.Ns = append(m.Ns, rr("below.customer.test. 300 IN NS ns.elsewhere.test.")) // not its own to say
		},
	})
	p, err := New(Config{Resolvers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(w.resolver), w.port)}, ServerPort: w.port})
	if err != nil {
		t.Fatal(err)
	}
	leads, servers, err := p.CNAMEs(t.Context(), []zone.Name{k1, k2, k3})
	if err != nil || len(servers) != 1 {
		t.Fatalf("%v %v", servers, err)
	}
	if !slices.Equal(leads[0], []zone.Name{mustName("k1.t.dkim.p-dns.test")}) {
		t.Errorf("a CNAME: %v", leads[0])
	}
	if leads[1] == nil || len(leads[1]) != 0 {
		t.Errorf("no CNAME: %v", leads[1])
	}
	if leads[2] != nil {
		t.Errorf("a referral elsewhere says %v", leads[2])
	}
	if _, _, err := p.CNAMEs(t.Context(), nil); err == nil {
		t.Error("no names were taken")
	}
	if _, _, err := p.CNAMEs(t.Context(), []zone.Name{k3}); err == nil {
		t.Error("that nobody answers is no error")
	}
}
