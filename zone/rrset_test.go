package zone

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestRecordsAreReadSortedAndWithoutDuplicates(t *testing.T) {
	s, err := ParseRRset(name(t, "a.test"), TypeMX, 300, []string{"20 MX2.test.", "10 mx1.test", "20 mx2.TEST"})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.Values(), "|"); got != "10 mx1.test.|20 mx2.test." {
		t.Errorf("values %q", got)
	}
}

func TestATextOfAnyLengthIsCutIntoStrings(t *testing.T) {
	text := strings.Repeat("v=DKIM1; p=x", 50) // 600 octets, with semicolons
	s, err := ParseRRset(name(t, "a.test"), TypeTXT, 300, []string{text})
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Data[0]; d[0] != 255 || d[256] != 255 || d[512] != 90 || joinText(string(d)) != text {
		t.Errorf("strings of %d, %d, %d octets", d[0], d[256], d[512])
	}
	two, err := ParseRRset(name(t, "a.test"), TypeTXT, 300, []string{`"one" "two; \"three\""`})
	if err != nil || string(two.Data[0]) != "\x03one\x0ctwo; \"three\"" {
		t.Errorf("quoted strings: %q, %v", two.Data, err)
	}
	if e := TextRRset(name(t, "a.test"), 300, ""); len(e.Data[0]) != 1 || e.Values()[0] != `""` {
		t.Errorf("an empty text is one empty string: %q", e.Data)
	}
}

// What is read without the library is what the library reads, and shown as it shows it.
func TestPlainTextsAreWhatTheLibraryMakesOfThem(t *testing.T) {
	long := strings.Repeat("k", 255)
	for value, plain := range map[string]bool{
		`"a"`: true, `"a" "b c"`: true, `"a"   "b"`: true, `"v=1; p=x" "(y)" "@"`: true, `"` + long + `" "` + long + `"`: true,
		`"a""b"`: false, `""`: false, `"a" ""`: false, `"a\"b"`: false, `"a\\"`: false, `"a\065"`: false, "\"a\tb\"": false, `"ä"`: false,
		`"` + long + `k"`: false, `"a" b`: false, "\"a\"\t\"b\"": false,
	} {
		theirs, err := libraryData(TypeTXT, value)
		if err != nil {
			t.Fatalf("%s: %v", value, err)
		}
		own, ok := plainStrings(value)
		if ok != plain || ok && !bytes.Equal(own, theirs) {
			t.Errorf("%s is read as %q, %t; by the library as %q", value, own, ok, theirs)
		}
		if data, err := parseData(TypeTXT, value); err != nil || !bytes.Equal(data, theirs) {
			t.Errorf("%s is read as %q, %v; by the library as %q", value, data, err, theirs)
		}
		shown, ok := plainText(theirs)
		rr, _, err := dns.UnpackRRWithHeader(dns.RR_Header{Name: ".", Rrtype: dns.TypeTXT, Class: dns.ClassINET, Rdlength: uint16(len(theirs))}, theirs, 0)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.TrimPrefix(rr.String(), rr.Header().String()); ok && shown != want || dataText(TypeTXT, theirs) != want {
			t.Errorf("%q is shown as %s, and by dataText as %s; by the library as %s", theirs, shown, dataText(TypeTXT, theirs), want)
		}
	}
}

func TestUnknownTypesAreOctets(t *testing.T) {
	typ, err := ParseType("TYPE65400")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseRRset(name(t, "a.test"), typ, 300, []string{`\# 3 abcdef`})
	if err != nil || !bytes.Equal(s.Data[0], []byte{0xab, 0xcd, 0xef}) || s.Values()[0] != `\# 3 abcdef` {
		t.Errorf("%q, %v", s.Data, err)
	}
	if a, err := ParseRRset(name(t, "a.test"), TypeA, 300, []string{`\# 4 c0000201`}); err != nil || a.Values()[0] != "192.0.2.1" {
		t.Errorf("a known type in the generic form: %v, %v", a.Values(), err)
	}
}

func TestTypesHaveNames(t *testing.T) {
	for text, want := range map[string]Type{"a": TypeA, "TXT": TypeTXT, "type16": TypeTXT, "TYPE65535": 65535, "CAA": 257, "https": 65} {
		if got, err := ParseType(text); err != nil || got != want {
			t.Errorf("ParseType(%q) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "TYPE", "TYPE0", "TYPE65536", "TYPE-1", "TYPE+1", "NONSENSE", "None", "Reserved"} {
		if got, err := ParseType(text); err == nil {
			t.Errorf("ParseType(%q) = %d, want an error", text, got)
		}
	}
	if Type(65400).String() != "TYPE65400" || TypeDNAME.String() != "DNAME" {
		t.Error("String")
	}
}

func TestWhatIsNoRRsetIsRefused(t *testing.T) {
	for _, c := range []struct {
		t      Type
		ttl    uint32
		values []string
		reason string
	}{
		{TypeSOA, 300, []string{"a. b. 1 2 3 4 5"}, "managed"},
		{TypeANY, 300, []string{"x"}, "meta"},
		{typeAXFR, 300, []string{"x"}, "meta"},
		{typeOPT, 300, []string{`\# 0`}, "meta"},
		{Type(dns.TypeRRSIG), 300, []string{"x"}, "signer"},
		{TypeA, 59, []string{"192.0.2.1"}, "TTL 59"},
		{TypeA, 86401, []string{"192.0.2.1"}, "TTL 86401"},
		{TypeA, 300, nil, "no values"},
		{TypeA, 300, []string{"192.0.2"}, `"192.0.2"`},
		{TypeA, 300, []string{"2001:db8::1"}, `"2001:db8::1"`},
		{TypeA, 300, []string{`\# 3 c00002`}, "A data"},
		{TypeAAAA, 300, []string{"::ffff:192.0.2.1 x"}, "AAAA"},
		{TypeCNAME, 300, []string{"a.test.", "b.test."}, "at most one"},
		{TypeDNAME, 300, []string{"a.test.", "b.test."}, "at most one"},
		{TypeMX, 300, []string{"mx.test."}, "MX"},
		{TypeMX, 300, []string{"10 mx.test. ; a comment"}, "comment"},
		{TypeMX, 300, []string{"10 mx.test.\n60 IN A 192.0.2.1"}, "line end"},
		{TypeMX, 300, []string{"10 @"}, "@"},
		{TypeMX, 300, []string{""}, "empty"},
		{TypeTXT, 300, []string{""}, "empty"},
		{TypeTXT, 300, []string{`"open`}, "quote"},
		{TypeTXT, 300, []string{strings.Repeat("x", 70000)}, "at most"},
		{TypeCNAME, 300, []string{strings.Repeat("x", 64) + ".test."}, "CNAME"},
		{Type(65400), 300, []string{"plain"}, "TYPE65400"},
	} {
		s, err := ParseRRset("\x01a\x04test\x00", c.t, c.ttl, c.values)
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s %d %.60q = %v, %v; want an error with %q", c.t, c.ttl, c.values, s.Data, err, c.reason)
		}
	}
}

func FuzzRRset(f *testing.F) {
	for _, c := range []struct {
		t     uint16
		value string
	}{
		{1, "192.0.2.1"}, {28, "2001:db8::1"}, {15, "10 mx.test."}, {16, "plain; text"}, {16, `"a" "b\"\007"`}, {16, `"v=1; x" "(two)"  "@"`}, {16, `"" "b"`},
		{257, `0 issue "ca.test"`}, {33, "0 5 443 a.test."}, {65, `1 . alpn=h2 ipv4hint=192.0.2.1`}, {65400, `\# 2 abcd`},
		{39, `a\.b.test.`}, {35, `100 10 "u" "sip" "!^.*$!x!" .`}, {29, "42 21 54 N 71 06 18 W 24m"}, {44, "1 1 ab"}, {52, "3 1 1 abcd"},
	} {
		f.Add(c.t, c.value)
	}
	f.Fuzz(func(t *testing.T, typ uint16, value string) {
		if own, ok := plainStrings(value); ok && len(own) <= maxRRset {
			theirs, err := libraryData(TypeTXT, value)
			if err != nil || !bytes.Equal(own, theirs) {
				t.Fatalf("TXT %q is read as %x, by the library as %x: %v", value, own, theirs, err)
			}
		}
		s, err := ParseRRset("\x01a\x00", Type(typ), 300, []string{value})
		if err != nil {
			return
		}
		back, err := ParseRRset(s.Owner, s.Type, s.TTL, s.Values())
		if err != nil || len(back.Data) != 1 || !bytes.Equal(back.Data[0], s.Data[0]) {
			t.Fatalf("%s %q gives %x, shown as %q, read back as %x: %v", s.Type, value, s.Data, s.Values(), back.Data, err)
		}
	})
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
