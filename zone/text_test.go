package zone

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

var textLimits = TextLimits{Octets: 1 << 20, Records: 10000}

// parseText reads a text for send.customer.test and shows the RRsets.
func parseText(t *testing.T, text string) ([]string, []Note, error) {
	t.Helper()
	sets, notes, err := ParseZone(name(t, "send.customer.test"), strings.NewReader(text), textLimits)
	var shown []string
	for _, s := range sets {
		for _, v := range s.Values() {
			shown = append(shown, fmt.Sprintf("%s %d %s %s", s.Owner, s.TTL, s.Type, v))
		}
	}
	return shown, notes, err
}

func TestZoneTextInAllItsForms(t *testing.T) {
	got, notes, err := parseText(t, `; the file of a platform
$TTL 1h
@	IN SOA ns.old.test. hostmaster.old.test. ( 1 ; serial
		7200 1800 1209600 300 )
	IN NS ns.old.test.
@ CAA 0 issue "ca.example; policy=ev"
WWW 300 A 192.0.2.7
    300 A 192.0.2.8
www 300 IN A 192.0.2.7
$ORIGIN deep
a A 192.0.2.9
@ IN 600 TXT "a;b" ( "c(d" )
$ORIGIN send.customer.test.
$TTL 600
*.wild CNAME www
alias CNAME mail.other.test.
a\ b\.c A 192.0.2.10
odd TYPE65280 \# 3 c0ffee
svc HTTPS 1 . alpn=h2
sub NS ns.sub
sub DS 1 13 2 `+strings.Repeat("ab", 32)+`
ns.sub A 192.0.2.11
tree DNAME target.test.
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`send.customer.test. 3600 CAA 0 issue "ca.example; policy=ev"`,
		`a\032b\.c.send.customer.test. 600 A 192.0.2.10`,
		`alias.send.customer.test. 600 CNAME mail.other.test.`,
		`deep.send.customer.test. 600 TXT "a;b" "c(d"`,
		`a.deep.send.customer.test. 3600 A 192.0.2.9`,
		`odd.send.customer.test. 600 TYPE65280 \# 3 c0ffee`,
		`sub.send.customer.test. 600 NS ns.sub.send.customer.test.`,
		`sub.send.customer.test. 600 DS 1 13 2 ` + strings.ToUpper(strings.Repeat("ab", 32)),
		`ns.sub.send.customer.test. 600 A 192.0.2.11`,
		`svc.send.customer.test. 600 HTTPS 1 . alpn="h2"`,
		`tree.send.customer.test. 600 DNAME target.test.`,
		`*.wild.send.customer.test. 600 CNAME www.send.customer.test.`,
		`www.send.customer.test. 300 A 192.0.2.7`,
		`www.send.customer.test. 300 A 192.0.2.8`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i, line := range []int{3, 5, 9} {
		if len(notes) != 3 || notes[i].Line != line {
			t.Errorf("notes %v, want of lines 3, 5 and 9", notes)
		}
	}
}

// Each bad line is named, with what is wrong, and the lines after it are read.
func TestBadZoneTextIsRefusedWithTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"$INCLUDE other.zone":                        "1: $INCLUDE is not taken",
		"$GENERATE 1-9 a$ A 192.0.2.$":               "1: $GENERATE is not taken",
		"$generate 1-9 a$ A 192.0.2.$":               "1: $GENERATE is not taken",
		"$FOO":                                       "1: \"$FOO\" is no directive",
		"$TTL soon":                                  `1: $TTL: "soon" is no time`,
		"a 60 CNAME b\na 60 A 192.0.2.1":             "2: a.send.customer.test. A: line 1 has CNAME there",
		"a 60 A 192.0.2.1\na 60 CNAME b":             "2: a.send.customer.test. CNAME: line 1 has A there",
		"a 60 CNAME b\na 60 CNAME c":                 "2: a.send.customer.test. CNAME: line 1 has another",
		"a 60 DNAME b\na 60 DNAME c":                 "2: a.send.customer.test. DNAME: line 1 has another",
		"a.test. 60 A 192.0.2.1":                     "1: a.test. A lies outside",
		"a 60 A 192.0.2.1\n\na 61 A 192.0.2.2":       "3: a.send.customer.test. A: TTL 61, but line 1 has 60",
		"a 59 A 192.0.2.1":                           "1: a.send.customer.test. A: TTL 59, must be 60 to 86400",
		"a 2d A 192.0.2.1":                           "1: a.send.customer.test. A: TTL 172800, must",
		"a A 192.0.2.1":                              "1: missing TTL",
		"  60 A 192.0.2.1":                           "1: no owner name",
		"a 60 CH A 192.0.2.1":                        "1: class CH",
		"a 60 A 192.0.2.256":                         "1: bad A A",
		"a 60 in caa":                                "1: a.send.customer.test. CAA: no data",
		"ns 60 ns":                                   "1: ns.send.customer.test. NS: no data",
		"a 60 A":                                     "1: ",
		"a 60":                                       "1: ",
		"a 60 TXT \"open":                            "1: a quote is not closed",
		"a 60 TXT ( b\nc":                            "1: a ( is not closed",
		"a 60 TXT b )":                               "1: a ) without its (",
		"a 60 TXT b\\":                               `1: a \ at the end`,
		strings.Repeat("a", 64) + " 60 A 192.0.2.1":  "label of 64 octets",
		"@ 60 MX 10 mx":                              "1: send.customer.test. MX is managed",
		"_dmarc 60 TXT v=DMARC1":                     "1: _dmarc.send.customer.test. TXT is managed",
		"s._domainkey 60 TXT v=DKIM1":                "1: s._domainkey.send.customer.test. TXT is managed",
		"click 60 A 192.0.2.1":                       "1: click.send.customer.test. A is managed",
		"bounce 60 MX 10 mx":                         "1: bounce.send.customer.test. MX is managed",
		"@ 3600 TXT \"v=spf1 -all\"":                 "1: send.customer.test. TXT: an SPF record is there already",
		"@ 60 TXT verification":                      "1: send.customer.test. TXT: TTL 60, but it joins the SPF",
		"@ 60 CNAME a":                               "1: send.customer.test. CNAME: not at the apex",
		"* 60 NS ns":                                 "1: *.send.customer.test. NS: a wildcard cannot be a cut",
		"a 60 DS 1 13 2 " + strings.Repeat("ab", 32): "1: a.send.customer.test. DS: only beside an NS",
		"a 60 NS ns\nb.a 60 TXT x":                   "2: b.a.send.customer.test. TXT: hidden by the delegation",
		"a 60 DNAME b\nb.a 60 TXT x":                 "2: b.a.send.customer.test.: hidden by the DNAME",
		"a 60 RRSIG A 13 2 60 20260101000000 20250101000000 1 test. AAAA": "1: adding RRSIG records",
		"a.b 60 SOA a. b. 1 1 1 1 1":                                      "1: adding SOA records",
	} {
		_, _, err := parseText(t, text+"\ngood 60 A 192.0.2.1\n")
		bad, ok := errors.AsType[*TextError](err)
		if strings.Contains(text, "( b") { // it swallows the good line, too
			_, _, err = parseText(t, text)
			bad, ok = errors.AsType[*TextError](err)
		}
		if !ok {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if len(bad.Lines) != 1 || !strings.Contains(err.Error(), want) || len(err.Error()) > 600 {
			t.Errorf("%q: %v\nwant %s", text, err, want)
		}
	}
}

// The library's form for a type cannot show all that the octets of one may be.
func TestGenericDataOfKnownTypesAreTakenOctetByOctet(t *testing.T) {
	for _, line := range []string{`CAA \# 4 0001615c`, `300 IN CAA \# 4 ( 0001 615c )`, `IN 300 CAA \# 4 0001615c`, `CAA \# 4 0001615C`} {
		sets, _, err := ParseZone(name(t, "send.customer.test"), strings.NewReader("$TTL 300\na "+line), textLimits)
		if err != nil || len(sets) != 1 || string(sets[0].Data[0]) != "\x00\x01a\\" {
			t.Errorf("%s: %v, %v", line, sets, err)
		}
	}
	for _, line := range []string{`A \# 3 c00002`, `A \# 4 c00002`, `A \#`, `A \# 4 xx`} {
		if sets, _, err := parseText(t, "$TTL 300\na "+line); err == nil || !strings.Contains(err.Error(), "line 2: ") {
			t.Errorf("%s: %q, %v", line, sets, err)
		}
	}
	if got, _, err := parseText(t, "$TTL 300\na TXT \"TXT \\# 1 00\""); err != nil || got[0] != `a.send.customer.test. 300 TXT "TXT # 1 00"` {
		t.Errorf("what is quoted is text: %q, %v", got, err)
	}
}

func TestEveryBadLineIsListedUpToABound(t *testing.T) {
	_, _, err := parseText(t, strings.Repeat("a 60 A none\n", maxLineErrors+7))
	bad, ok := errors.AsType[*TextError](err)
	if !ok || len(bad.Lines) != maxLineErrors || bad.More != 7 || bad.Lines[2].Line != 3 {
		t.Errorf("got %v", err)
	}
	if !strings.HasSuffix(err.Error(), "and 7 more") {
		t.Errorf("%v", err)
	}
}

func TestZoneTextIsBounded(t *testing.T) {
	apex := name(t, "send.customer.test")
	text := "a 60 A 192.0.2.1\nb 60 A 192.0.2.1\n"
	for _, limits := range []TextLimits{{Octets: len(text) - 1, Records: 9}, {Octets: 99, Records: 1}} {
		if _, _, err := ParseZone(apex, strings.NewReader(text), limits); err == nil {
			t.Errorf("%+v: taken", limits)
		}
	}
	if sets, _, err := ParseZone(apex, strings.NewReader(text), TextLimits{Octets: len(text), Records: 2}); err != nil || len(sets) != 2 {
		t.Errorf("within its bounds: %v, %v", sets, err)
	}
}

// What ParseZone takes, Render takes, and its own text reads back the same.
func FuzzParseZone(f *testing.F) {
	for _, seed := range []string{
		"a 60 A 192.0.2.1\n", "$TTL 60\n@ TXT ( \"a;b\" ; c\n \"d\" )\n", "$ORIGIN b\n@ 60 CNAME a\n", "a 60 TYPE9 \\# 1 00\n",
		"* 60 MX 0 .\n", "a 60 NS b.a\nb.a 60 A 192.0.2.1\n", "a 60 DNAME .\n", "\\000.\\255 60 SVCB 1 . key9=x\n", "@ IN SOA . . 1 1 1 1 1",
	} {
		f.Add(seed)
	}
	apex := name(f, "send.customer.test")
	f.Fuzz(func(t *testing.T, text string) {
		sets, _, err := ParseZone(apex, strings.NewReader(text), TextLimits{Octets: 4096, Records: 50})
		if err != nil {
			return
		}
		plan := Plan{Form: Form, Mode: Delegated, Zone: apex, Proven: true, Records: sets,
			Servers: []ServerName{{Name: name(t, "t.ns1.p.example"), Platform: 1, Server: "ns1"}}}
		if _, err := Render(plan); err != nil {
			t.Fatalf("taken, and not rendered: %v", err)
		}
		var b strings.Builder
		for _, s := range sets {
			for _, v := range s.Values() {
				fmt.Fprintf(&b, "%s %d IN %s %s\n", s.Owner, s.TTL, s.Type, v)
			}
		}
		again, _, err := ParseZone(apex, strings.NewReader(b.String()), textLimits)
		if err != nil || len(sets)+len(again) > 0 && !reflect.DeepEqual(sets, again) {
			t.Fatalf("written out as\n%s\nit reads back as %v, %v", b.String(), again, err)
		}
	})
}
