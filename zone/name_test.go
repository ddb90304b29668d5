package zone

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// name is a name that a test is sure of.
func name(t testing.TB, text string) Name {
	t.Helper()
	n, err := ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNamesAreFoldedAndAbsolute(t *testing.T) {
	for text, want := range map[string]string{
		"Example.TEST":       "example.test.",
		"example.test.":      "example.test.",
		".":                  ".",
		`a\.b.test`:          `a\.b.test.`,
		`\000\255.test`:      `\000\255.test.`,
		`a\ b.test`:          `a\032b.test.`,
		`\065.test`:          "a.test.",
		"_dmarc.example":     "_dmarc.example.",
		"*.example":          "*.example.",
		`\"\;\(\).x`:         `\"\;\(\).x.`,
		"xn--mnchen-3ya.org": "xn--mnchen-3ya.org.",
	} {
		n, err := ParseName(text)
		if err != nil || n.String() != want {
			t.Errorf("ParseName(%q) = %q, %v; want %q", text, n, err, want)
		}
	}
}

func TestWhatIsNoNameIsRefusedAndQuoted(t *testing.T) {
	long := strings.Repeat("a", 64)
	whole := strings.Repeat("abcdefg.", 32) // 256 octets and the root
	for _, text := range []string{"", "a..b", ".a", "..", long + ".test", whole, `a\`, `a\1`, `a\25`, `a\256.b`} {
		n, err := ParseName(text)
		if err == nil {
			t.Errorf("ParseName(%q) = %q, want an error", text, n)
			continue
		}
		if !strings.Contains(err.Error(), quote(text)) {
			t.Errorf("ParseName(%q): error %q does not quote the input", text, err)
		}
	}
	if _, err := ParseName(strings.Repeat("a", 10000)); len(err.Error()) > 250 {
		t.Errorf("error of %d octets for a long input", len(err.Error()))
	}
	if n, err := ParseName(strings.Repeat("abcdefg.", 31) + "abcde"); err != nil || len(n) != maxName {
		t.Errorf("a name of %d octets: %v", len(n), err)
	}
}

func TestHostsAreNamesThatCanBeClaimed(t *testing.T) {
	for _, text := range []string{"send.customer.example", "xn--mnchen-3ya.example", "_spf.a.example.", "a1.b2", "UPPER.example"} {
		if _, err := ParseHost(text); err != nil {
			t.Errorf("ParseHost(%q): %v", text, err)
		}
	}
	for text, remedy := range map[string]string{
		"example":          "two labels",
		".":                "two labels",
		"*.example.test":   "wildcard",
		"münchen.example":  "A-label",
		"-a.example":       "hyphen",
		"a-.example":       "hyphen",
		"a b.example":      "not allowed",
		`a\.b.example`:     "not allowed",
		"a..example":       "empty label",
		"192.0.2.1":        "address",
		"a.example/b":      "not allowed",
		"a.example\x00.de": "not allowed",
	} {
		if n, err := ParseHost(text); err == nil || !strings.Contains(err.Error(), remedy) {
			t.Errorf("ParseHost(%q) = %q, %v; want an error with %q", text, n, err, remedy)
		}
	}
}

func TestTheTreeOfNames(t *testing.T) {
	zone := name(t, "customer.test")
	n := name(t, "a.b.customer.test")
	if !n.In(zone) || !n.In(n) || !n.In(Root) || zone.In(n) {
		t.Error("In: a.b.customer.test and customer.test")
	}
	if name(t, "xcustomer.test").In(zone) {
		t.Error("xcustomer.test is not in customer.test")
	}
	// \001x… : the tail of a label looks like a name.
	if name(t, `y\008customer.test`).In(zone) {
		t.Error("a tail inside a label is no apex")
	}
	if n.Parent() != name(t, "b.customer.test") || Root.Parent() != Root || n.Label() != "a" || Root.Label() != "" {
		t.Error("Parent or Label")
	}
	if n.Labels() != 4 || Root.Labels() != 0 {
		t.Error("Labels")
	}
	c, err := zone.Child("T", "dkim")
	if err != nil || c != name(t, "t.dkim.customer.test") {
		t.Errorf("Child = %q, %v", c, err)
	}
	if _, err := zone.Child(strings.Repeat("x", 64)); err == nil {
		t.Error("Child took a label of 64 octets")
	}
	if _, err := zone.Child(""); err == nil {
		t.Error("Child took an empty label")
	}
	if _, err := name(t, strings.Repeat("abcdefg.", 31)).Child("abcdef"); err == nil {
		t.Error("Child made a name of 256 octets")
	}
	if n.Host() != "a.b.customer.test" || Root.Host() != "." {
		t.Error("Host")
	}
}

// The order of RFC 4034 section 6.1, its own example.
func TestReverseIsCanonicalOrder(t *testing.T) {
	want := []string{"example.", "a.example.", "yljkjljk.a.example.", "z.a.example.", "zabc.a.example.",
		"z.example.", `\001.z.example.`, "*.z.example.", `\200.z.example.`}
	var names []Name
	for _, text := range want {
		names = append(names, name(t, text))
	}
	slices.Reverse(names)
	slices.SortFunc(names, func(a, b Name) int { return strings.Compare(a.Reverse(), b.Reverse()) })
	for i, n := range names {
		if n.String() != want[i] {
			t.Errorf("position %d: %s, want %s", i, n, want[i])
		}
	}
	if a, b := name(t, `a\000b.test`).Reverse(), name(t, `b.a.test`).Reverse(); strings.HasPrefix(a, name(t, "a.test").Reverse()) ||
		!strings.HasPrefix(b, name(t, "a.test").Reverse()) {
		t.Error("names below, and only they, have the prefix")
	}
}

func FuzzName(f *testing.F) {
	for _, text := range []string{"a.test", ".", `a\.b\000.test.`, `\255`, "..", "A.B.", `\\.\"`, "*._x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseName(text)
		if err != nil {
			return
		}
		if back, err := ParseName(n.String()); err != nil || back != n {
			t.Fatalf("%q: %q reads back as %q, %v", text, n.String(), back, err)
		}
		if l := nameLength([]byte(n)); l != len(n) {
			t.Fatalf("%q: not one wire name: %q", text, string(n))
		}
		buf := make([]byte, 300)
		end, err := dns.PackDomainName(n.String(), buf, 0, nil, false)
		if err != nil || string(buf[:end]) != string(n) {
			t.Fatalf("%q: the library packs %q: %v", n.String(), buf[:end], err)
		}
		if !n.In(n.Parent()) || n != Root && n.Parent().In(n) {
			t.Fatalf("%q: In and Parent disagree", n)
		}
		if !strings.HasPrefix(n.Reverse(), n.Parent().Reverse()) {
			t.Fatalf("%q: Reverse does not follow its parent", n)
		}
	})
}

func TestWhatIsNoNameCanBePrinted(t *testing.T) {
	for _, n := range []Name{"\x03abc", "\x09abc", "abc", "\x01a\x05bc"} {
		if !strings.ContainsAny(n.String(), "abc") || !strings.ContainsAny(n.Host(), "abc") {
			t.Errorf("%q prints as %q and %q", string(n), n.String(), n.Host())
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
