package zone

import "testing"

// The zone and the questions of RFC 4592 section 2.2.1, below another apex.
func TestRFC4592Section221(t *testing.T) {
	const zone = "example.test"
	p := delegatedPlan(t, zone, testToken)
	p.Records = []RRset{
		set(t, "*."+zone, TypeTXT, 3600, "this is a wildcard"),
		set(t, "*."+zone, TypeMX, 3600, "10 host1."+zone+"."),
		set(t, "sub.*."+zone, TypeTXT, 3600, "this is not a wildcard"),
		set(t, "host1."+zone, TypeA, 3600, "192.0.2.1"),
		set(t, "_ssh._tcp.host1."+zone, TypeSRV, 3600, "0 5 22 host1."+zone+"."),
		set(t, "_ssh._tcp.host2."+zone, TypeSRV, 3600, "0 5 22 host1."+zone+"."),
		set(t, "subdel."+zone, TypeNS, 3600, "ns.elsewhere.test."),
	}
	tree := testTree(t, p)
	for _, c := range []struct {
		qname    string
		qtype    Type
		outcome  Outcome
		sentence string
	}{
		{"host3", TypeMX, Found, "the answer will be a \"host3.example. IN MX ...\""},
		{"host3", TypeA, NoData, "the answer will reflect \"no error, but no data\" because there is no A RRSet at *.example."},
		{"foo.bar", TypeTXT, Found, "the answer will be \"foo.bar.example. IN TXT ...\" because bar.example. does not exist, but the wildcard does"},
		{"host1", TypeMX, NoData, "because host1.example. exists"},
		{"sub.*", TypeMX, NoData, "because sub.*.example. exists"},
		{"_telnet._tcp.host1", TypeSRV, NoName, "because _tcp.host1.example. exists (without data)"},
		{"host.subdel", TypeA, Referral, "because subdel.example. exists (and is a zone cut)"},
		{"ghost.*", TypeMX, NoName, "because *.example. exists"},
	} {
		q, a := questionOf(t, c.qname+"."+zone, c.qtype), new(answer)
		tree.lookup(q, a)
		if a.outcome != c.outcome {
			t.Errorf("%s %s: outcome %d, want %d: %s", c.qname, c.qtype, a.outcome, c.outcome, c.sentence)
		}
	}
}

// RFC 4592 section 4.2 leaves NS at a wildcard undefined, and section 4.4 DNAME:
// none is ever rendered.
func TestRFC4592Section4(t *testing.T) {
	for _, typ := range []Type{TypeNS, TypeDNAME} {
		p := delegatedPlan(t, "example.test", testToken)
		p.Records = []RRset{set(t, "*.example.test", typ, 3600, "elsewhere.test.")}
		_, err := Render(p)
		wantRefusal(t, "a wildcard "+typ.String(), err, "wildcard")
	}
}
