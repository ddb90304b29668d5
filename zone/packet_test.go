package zone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// packetTree serves p-dns.test with what the tests of packets and sockets ask
// for: a short TXT, one past what UDP carries, one past 512 octets.
func packetTree(t testing.TB) *Tree {
	t.Helper()
	apex := mustName(t, "p-dns.test")
	text := func(owner string, length int) RRset {
		return TextRRset(mustName(t, owner), 300, strings.Repeat("x", length))
	}
	platform, err := RenderPlatform(PlatformPlan{
		Form: Form, Number: 1, Apex: apex, Contact: mustName(t, "hostmaster.p-dns.test"), Serial: 1,
		NS: []Name{mustName(t, "ns1.p-dns.test")},
		Records: []RRset{
			text("short.p-dns.test", 20), text("key.p-dns.test", 400), text("medium.p-dns.test", 800),
			text("big.p-dns.test", 3000), text("huge.p-dns.test", 30_000),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	tree := NewTree()
	edit := tree.Edit()
	edit.SetPlatform(1, platform)
	edit.Commit()
	return tree
}

func mustName(t testing.TB, text string) Name {
	t.Helper()
	name, err := ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// ask is a query in wire form; change may alter it before it is packed.
func ask(t testing.TB, name string, qtype uint16, change ...func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.RecursionDesired = false
	for _, c := range change {
		c(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func edns(size uint16, options ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		m.SetEdns0(size, false)
		m.IsEdns0().Option = options
	}
}

// respond is the reply of a fresh responder, nil where there is none.
func respond(t testing.TB, tree *Tree, message []byte, tcp bool) *dns.Msg {
	t.Helper()
	b := NewResponder(tree, "node-1").Reply(nil, message, tcp)
	if len(b) == 0 {
		return nil
	}
	return unpack(t, b)
}

func unpack(t testing.TB, b []byte) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	if err := m.Unpack(b); err != nil {
		t.Fatalf("reply cannot be read: %v: %x", err, b)
	}
	return m
}

// summary is a reply in one line, for comparing.
func summary(m *dns.Msg) string {
	if m == nil {
		return "silence"
	}
	parts := []string{rcodeNames()[m.Rcode]}
	for flag, set := range map[string]bool{"tc": m.Truncated, "ra": m.RecursionAvailable, "ad": m.AuthenticatedData, "cd": m.CheckingDisabled, "z": m.Zero} {
		if set {
			parts = append(parts, flag)
		}
	}
	parts = append(parts, fmt.Sprintf("qd%d", len(m.Question)))
	if m.IsEdns0() != nil {
		parts = append(parts, "opt")
	}
	if m.IsTsig() != nil {
		parts = append(parts, "tsig")
	}
	return strings.Join(parts, " ")
}
