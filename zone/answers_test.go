package zone

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

var update = flag.Bool("update", false, "write the replies of testdata/answers anew")

const answersDir = "../testdata/answers"

// TestAnswers runs every behaviour of testdata/answers four ways: through the
// look-up as a datagram and as a TCP message, and through real sockets.
func TestAnswers(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(answersDir, "*.txt"))
	if err != nil || len(files) < 60 {
		t.Fatalf("%d behaviours in %s: %v", len(files), answersDir, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			runScenario(t, file)
		})
	}
}

func runScenario(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if first, _, _ := strings.Cut(text, "\n"); !strings.HasPrefix(first, "# ") ||
		!strings.Contains(first, "RFC ") && !strings.Contains(first, "ARCHITECTURE") {
		t.Errorf("the first line cites no clause: %q", first)
	}
	s := parseScenario(t, text)
	if len(s.questions) == 0 {
		t.Fatal("nothing is asked")
	}
	tree := s.tree(t)
	if *update {
		updateScenario(t, file, text, s, tree)
		return
	}
	server, err := Listen(ServerConfig{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Workers: 1, Tree: tree, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close(context.Background())
	for _, q := range s.questions {
		for _, way := range q.ways {
			m := message(q, way)
			check(t, q, way+" look-up", m, replyTo(t, tree, m, way == "tcp"))
			check(t, q, way+" socket", m, exchange(t, server.Addresses()[0].String(), m, way == "tcp"))
		}
	}
}

// message is the question as a packet for one way of asking.
func message(q scenarioQuestion, way string) *dns.Msg {
	m := new(dns.Msg)
	m.Id = 4711
	m.Question = []dns.Question{{Name: q.name, Qtype: uint16(q.qtype), Qclass: dns.ClassINET}}
	if way != "udp512" {
		m.SetEdns0(MaxUDP, false)
	}
	return m
}

func replyTo(t *testing.T, tree *Tree, m *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	out := NewResponder(tree, "").Reply(nil, packet, tcp)
	reply := new(dns.Msg)
	if err := reply.Unpack(out); err != nil {
		t.Fatalf("unpacking %x: %v", out, err)
	}
	if limit := map[bool]int{true: MaxTCP, false: MaxUDP}[tcp]; len(out) > limit || m.IsEdns0() == nil && len(out) > MinUDP {
		t.Errorf("a reply of %d octets", len(out))
	}
	return reply
}

func exchange(t *testing.T, address string, m *dns.Msg, tcp bool) *dns.Msg {
	t.Helper()
	client := dns.Client{Net: "udp", Timeout: 10 * time.Second, UDPSize: MaxUDP}
	if tcp {
		client.Net = "tcp"
	}
	reply, _, err := client.Exchange(m, address)
	if err != nil && (reply == nil || !reply.Truncated) {
		t.Fatalf("asking over %s: %v", client.Net, err)
	}
	return reply
}

// check compares a reply with the one expected.
func check(t *testing.T, q scenarioQuestion, way string, m, reply *dns.Msg) {
	t.Helper()
	got := printReply(reply)
	want := slices.Clone(q.replies)
	for i := range got {
		got[i] = expand(got[i])
	}
	if !slices.Equal(got, want) {
		t.Errorf("line %d, %s %s by %s:\n  got\n    %s\n  want\n    %s", q.line, q.name, q.qtype, way,
			strings.Join(got, "\n    "), strings.Join(want, "\n    "))
	}
	switch {
	case reply.Id != m.Id || !reply.Response || reply.RecursionAvailable || reply.RecursionDesired:
		t.Errorf("line %d, by %s: header %v", q.line, way, reply.MsgHdr)
	case len(reply.Question) != 1 || reply.Question[0] != m.Question[0]:
		t.Errorf("line %d, by %s: the question is repeated as %v", q.line, way, reply.Question)
	case (reply.IsEdns0() == nil) != (m.IsEdns0() == nil):
		t.Errorf("line %d, by %s: EDNS answered %v", q.line, way, reply.IsEdns0())
	}
}

// printReply is a reply as the files have it, but for the OPT record.
func printReply(m *dns.Msg) []string {
	head := "reply " + dns.RcodeToString[m.Rcode]
	if m.Authoritative {
		head += " aa"
	}
	if m.Truncated {
		head += " tc"
	}
	lines := []string{head}
	for _, section := range []struct {
		name    string
		records []dns.RR
	}{{"answer", m.Answer}, {"authority", m.Ns}, {"additional", m.Extra}} {
		for _, rr := range section.records {
			h := rr.Header()
			if h.Rrtype == dns.TypeOPT {
				continue
			}
			data := strings.SplitN(rr.String(), "\t", 5)[4] // name, TTL, class, type
			lines = append(lines, contract(fmt.Sprintf("%s %s %d %s %s", section.name, h.Name, h.Ttl, Type(h.Rrtype), data)))
		}
	}
	return lines
}

// updateScenario writes the file with the replies that are given now. Read the
// difference before you commit it.
func updateScenario(t *testing.T, file, text string, s *scenario, tree *Tree) {
	var out []string
	asked := 0
	skip := false
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, "reply") || skip && strings.HasPrefix(line, "  ") {
			continue
		}
		out = append(out, line)
		skip = strings.HasPrefix(line, "query")
		if !skip {
			continue
		}
		q := s.questions[asked]
		asked++
		lines := printReply(replyTo(t, tree, message(q, q.ways[0]), q.ways[0] == "tcp"))
		out = append(out, lines[0])
		for _, l := range lines[1:] {
			out = append(out, "  "+l)
		}
	}
	if err := os.WriteFile(file, []byte(strings.Join(out, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}
