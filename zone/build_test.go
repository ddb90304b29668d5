package zone

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// alike makes labels that all have one hash below a name: the second half of each
// takes back what the first did.
func alike(t testing.TB, parent Name, n int) (labels []string) {
	t.Helper()
	var p path
	p.setName(string(parent))
	for i := uint64(1); len(labels) < n; i++ {
		label := make([]byte, 16)
		binary.LittleEndian.PutUint64(label, i*0x0101010101010101|0x8080808080808080)
		binary.LittleEndian.PutUint64(label[8:], mix(p.hash[p.count]^binary.LittleEndian.Uint64(label), hashMul)^1)
		if !strings.ContainsFunc(string(label), func(r rune) bool { return r >= 'A' && r <= 'Z' }) && len(labels) < n {
			labels = append(labels, string(label))
		}
	}
	return labels
}

// A zone whose names were chosen to lie in one place of the index would be searched
// one by one.
func TestNamesThatWereMadeForOneHashAreRefused(t *testing.T) {
	p := delegatedPlan(t, "send.customer.test", testToken)
	for i, label := range alike(t, p.Zone, maxAlike+1) {
		s := set(t, "x.test", TypeA, 300, "192.0.2.1")
		s.Owner = child(p.Zone, label)
		p.Records = append(p.Records, s)
		_, err := Render(p)
		if refused := err != nil; refused != (i == maxAlike) {
			t.Errorf("%d names: %v", i+1, err)
		} else if refused && !strings.Contains(err.Error(), "hash") {
			t.Error(err)
		}
	}
	for _, s := range p.Records[1:] {
		if NameHash(s.Owner) != NameHash(p.Records[0].Owner) {
			t.Fatalf("%s and %s have two hashes: the test makes others than it says", s.Owner, p.Records[0].Owner)
		}
	}
}

func TestTypesOfANameAreBounded(t *testing.T) {
	p := delegatedPlan(t, "send.customer.test", testToken)
	for i := range maxTypes + 1 {
		p.Records = append(p.Records, set(t, "a.send.customer.test", Type(65280+i), 300, `\# 1 00`))
		if _, err := Render(p); (err != nil) != (i == maxTypes) || err != nil && !strings.Contains(err.Error(), "at most 32") {
			t.Errorf("%d types: %v", i+1, err)
		}
	}
}

// A record of a few octets may stand for a hundred names.
func TestNamesOfAZoneAreBounded(t *testing.T) {
	deep := func(i int) string { return strings.Repeat("x.", 110) + fmt.Sprint(i) }
	var text strings.Builder
	p := delegatedPlan(t, "send.customer.test", testToken)
	for i := range maxNames/110 + 2 {
		p.Records = append(p.Records, set(t, deep(i)+".send.customer.test", TypeA, 300, "192.0.2.1"))
		fmt.Fprintf(&text, "%s 300 A 192.0.2.1\n", deep(i))
	}
	if _, err := Render(p); err == nil || !strings.Contains(err.Error(), "fewer labels") {
		t.Errorf("%d names: %v", len(p.Records)*111, err)
	}
	if _, _, err := parseText(t, text.String()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("line %d: ", len(p.Records))) || strings.Contains(err.Error(), "line 1:") {
		t.Errorf("text of as many: %v", err)
	}
	p.Records = p.Records[:maxNames/120]
	b, err := Render(p)
	if err != nil {
		t.Fatal(err)
	}
	tree := testTree(t)
	e := tree.Edit()
	e.Put("", b)
	e.Commit()
	if m := respond(t, tree, ask(t, deep(3)+".send.customer.test.", dns.TypeA), true); len(m.Answer) != 1 {
		t.Errorf("%s", m)
	}
	plan := testPlatform(t)
	for i := range maxPlatformNames/110 + 2 {
		plan.Records = append(plan.Records, set(t, deep(i)+".p.example", TypeA, 300, "192.0.2.1"))
	}
	if _, err := RenderPlatform(plan); err == nil || !strings.Contains(err.Error(), "fewer labels") {
		t.Errorf("platform zone of %d names: %v", len(plan.Records)*111, err)
	}
}
