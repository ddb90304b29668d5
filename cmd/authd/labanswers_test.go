package main_test

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// answer is an RRset that DNS must answer, as the API says.
type answer struct {
	owner  string
	qtype  uint16
	wanted string // the records, one a line, sorted, TTL included
}

// newAnswer makes an answer from the API's presentation forms.
func newAnswer(name, qtype string, ttl uint32, values []string) (answer, error) {
	a := answer{owner: dns.CanonicalName(name), qtype: dns.StringToType[qtype]}
	var rrs []dns.RR
	for _, v := range values {
		rr, err := dns.NewRR(fmt.Sprintf("%s %d IN %s %s", a.owner, ttl, qtype, v))
		if err != nil {
			return answer{}, fmt.Errorf("%s %s: %w", name, qtype, err)
		}
		rrs = append(rrs, rr)
	}
	a.wanted = canonical(rrs)
	return a, nil
}

// canonical writes records so that equal sets are equal strings: TXT strings
// joined, because how a text is cut carries no meaning (RFC 7208 section 3.3).
func canonical(rrs []dns.RR) string {
	lines := make([]string, 0, len(rrs))
	for _, rr := range rrs {
		h := *rr.Header()
		line := fmt.Sprintf("%s %d %s ", dns.CanonicalName(h.Name), h.Ttl, dns.TypeToString[h.Rrtype])
		if txt, ok := rr.(*dns.TXT); ok {
			line += strings.Join(txt.Txt, "")
		} else {
			line += strings.ToLower(strings.TrimPrefix(rr.String(), h.String()))
		}
		lines = append(lines, line)
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// checkBatch is how many questions go over one TCP connection, or from one
// socket, before the next.
const checkBatch = 500

// mustAnswer asks the servers for every answer over UDP and TCP and fails the
// test where one differs.
func (l *lab) mustAnswer(when string, answers []answer, servers ...string) {
	l.Helper()
	if len(answers) == 0 {
		l.Fatalf("%s: nothing to ask for", when)
	}
	asked, wrong := askAll(answers, servers...)
	if wrong != nil {
		l.Fatalf("%s: %d of %d answers are wrong, among them:\n%s", when, len(wrong), asked, strings.Join(wrong[:min(len(wrong), 5)], "\n"))
	}
	l.Logf("%s: %d answers right at %d nodes over UDP and TCP", when, asked, len(servers))
}

// askAll asks the servers for every answer over UDP and TCP, and describes those
// that differ.
func askAll(answers []answer, servers ...string) (asked int, wrong []string) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex // guards asked and wrong
	)
	limit := make(chan struct{}, 8)
	for _, server := range servers {
		for _, network := range []string{"udp", "tcp"} {
			for part := range slices.Chunk(answers, checkBatch) {
				limit <- struct{}{}
				wg.Go(func() {
					defer func() { <-limit }()
					bad := compare(network, server, part)
					mu.Lock()
					defer mu.Unlock()
					wrong = append(wrong, bad...)
					asked += len(part)
				})
			}
		}
	}
	wg.Wait()
	return asked, wrong
}

// compare asks one server for answers over one connection and describes those
// that differ.
func compare(network, server string, answers []answer) (wrong []string) {
	c := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 1232}
	conn, err := c.Dial(server)
	if err != nil {
		return []string{fmt.Sprintf("%s %s: %v", network, server, err)}
	}
	defer conn.Close()
	for _, a := range answers {
		m := new(dns.Msg).SetQuestion(a.owner, a.qtype)
		m.SetEdns0(1232, false)
		r, _, err := c.ExchangeWithConn(m, conn)
		if err != nil {
			return append(wrong, fmt.Sprintf("%s %s: %s %s: %v", network, server, a.owner, dns.TypeToString[a.qtype], err))
		}
		if w := a.differs(r); w != "" {
			wrong = append(wrong, fmt.Sprintf("%s %s: %s", network, server, w))
		}
	}
	return wrong
}

// differs says how a reply differs from what is wanted; empty where it does not.
func (a answer) differs(r *dns.Msg) string {
	if got := canonical(r.Answer); got != a.wanted || r.Rcode != dns.RcodeSuccess || !r.Authoritative || r.Truncated {
		return fmt.Sprintf("%s %s: %s aa=%v tc=%v\n got %s\nwant %s",
			a.owner, dns.TypeToString[a.qtype], dns.RcodeToString[r.Rcode], r.Authoritative, r.Truncated, got, a.wanted)
	}
	return ""
}

// dig asks with dig, a second client, and compares.
func (l *lab) dig(server string, a answer) {
	l.Helper()
	host, port, _ := strings.Cut(server, ":")
	out := l.run("dig", "@"+host, "-p", port, "+noall", "+answer", "+norecurse", "+tries=1", "-q", a.owner, "-t", dns.TypeToString[a.qtype])
	var rrs []dns.RR
	zp := dns.NewZoneParser(strings.NewReader(out), ".", "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		rrs = append(rrs, rr)
	}
	if got := canonical(rrs); got != a.wanted || zp.Err() != nil {
		l.Fatalf("dig %s %s at %s (%v):\n got %s\nwant %s", a.owner, dns.TypeToString[a.qtype], server, zp.Err(), got, a.wanted)
	}
}
