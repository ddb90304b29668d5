package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// coldRounds is how often each case is measured with a new resolver: unbound
// chooses among servers at random, so that counts differ.
const coldRounds = 3

// layout is one way of naming servers, in the measurement.
type layout struct {
	title string
	// ns are the targets of the customers' NS records ("%s" is the claim's
	// token); none means CNAME mode.
	ns []string
	// crossed: each platform zone's own NS set names a server of the other,
	// for which its parent has no in-domain glue (RFC 9471 section 2).
	crossed bool
}

// coldLayouts are the candidates; P1 is p-dns.test, P2 is p-dns.example.
var coldLayouts = []layout{
	{"delegated, token names in P1 and P2", []string{"%s.ns1.p-dns.test.", "%s.ns2.p-dns.example."}, false},
	{"delegated, token names in P1 alone", []string{"%s.ns1.p-dns.test.", "%s.ns2.p-dns.test."}, false},
	{"delegated, shared names in P1 and P2", []string{"ns1.p-dns.test.", "ns2.p-dns.example."}, false},
	{"delegated, shared names in P1 alone", []string{"ns1.p-dns.test.", "ns2.p-dns.test."}, false},
	{"CNAME, target in P1", nil, false},
	{"delegated, token names in P1 and P2", []string{"%s.ns1.p-dns.test.", "%s.ns2.p-dns.example."}, true},
	{"delegated, shared names in P1 and P2", []string{"ns1.p-dns.test.", "ns2.p-dns.example."}, true},
	{"CNAME, target in P1", nil, true},
}

// coldTokens are the claims of the two customers, customer.test and customer2.test.
var coldTokens = []string{"aaaaaaaaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbbbbbbbb"}

var coldCustomers = []string{"customer.test.", "customer2.test."}

// TestColdResolverUpstreamQueries counts what a cold unbound asks to reach a
// DKIM TXT in each mode and prints the table of bench/RESULTS.md.
func TestColdResolverUpstreamQueries(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	var table strings.Builder
	fmt.Fprintf(&table, "| Layout | glue of P | QNAME minimisation | first customer: until answered | in all | by server | second customer: until answered | in all | by server |\n")
	fmt.Fprintf(&table, "|---|---|---|---|---|---|---|---|---|\n")
	for i, y := range coldLayouts {
		l.Run(fmt.Sprint(i), func(t *testing.T) {
			w := startColdWorld(&lab{T: t, dir: t.TempDir()}, y)
			for _, strict := range []string{"no", "yes"} {
				w.measure(&table, y, strict)
			}
		})
	}
	l.Run("authd", func(t *testing.T) { measureAuthd(&lab{T: t, dir: t.TempDir()}, &table) })
	t.Logf("upstream queries of a cold unbound for one DKIM TXT; median (min–max) of %d rounds\n%s", coldRounds, table.String())
}

// measureAuthd measures what the candidates became: authd itself behind the
// platform's addresses, with the names that it gave the customers.
func measureAuthd(l *lab, table *strings.Builder) {
	binary := l.build("lab")
	for _, mode := range []string{"delegated", "cname"} {
		l.Run(mode, func(t *testing.T) {
			world := startWorld((&lab{T: t, dir: t.TempDir()}).startDev(binary))
			y := layout{title: "authd, " + mode}
			w := &coldWorld{lab: world.lab, g: &world.g}
			var zones []string
			for _, c := range coldCustomers {
				domain := strings.TrimSuffix(c, ".")
				if mode == "delegated" {
					domain = "send." + domain
				}
				d := world.add(domain, mode)
				zones = append(zones, d.customerRecords())
				w.names = append(w.names, world.keyName(d))
			}
			world.customers(zones[0], zones[1])
			world.caughtUp(1, 2, 3)
			for _, strict := range []string{"no", "yes"} {
				w.measure(table, y, strict)
			}
		})
	}
}

// keyName is the name at which receivers look for a domain's active key.
func (c *cluster) keyName(d domainReply) string {
	c.Helper()
	for _, k := range d.Keys {
		if k.Stage == "active" {
			return k.Selector + "._domainkey." + d.Domain + "."
		}
	}
	c.Fatalf("%s has no active key", d.Domain)
	return ""
}

// coldWorld is the servers of one layout.
type coldWorld struct {
	*lab
	g     *ledger
	names []string // of the customers' keys
}

func startColdWorld(l *lab, y layout) *coldWorld {
	w := &coldWorld{lab: l, g: new(ledger)}
	tld := map[string]string{
		"test.":    soa + "@ NS a.nic\na.nic A 192.0.2.11\na.nic AAAA 2001:db8::11\n",
		"example.": soa + "@ NS a.nic\na.nic A 192.0.2.12\na.nic AAAA 2001:db8::12\n",
	}
	platform := map[string]string{}
	for i, p := range []string{"p-dns.test.", "p-dns.example."} {
		_, parent, _ := strings.Cut(p, ".")
		ns := []string{"ns1." + p, "ns2." + p}
		if y.crossed {
			ns = []string{"ns1.p-dns.test.", "ns2.p-dns.example."}
		}
		platform[p] = soa + nsRecords("@", ns) + serverRecords("ns1", 31) + serverRecords("ns2", 32)
		tld[parent] += nsRecords(p, ns)
		for n, name := range ns {
			if strings.HasSuffix(name, p) {
				tld[parent] += serverRecords(name, 31+n)
			}
		}
		for _, token := range coldTokens {
			platform[p] += serverRecords(token+".ns1", 31) + serverRecords(token+".ns2", 32)
			if i == 0 {
				platform[p] += fmt.Sprintf("k1.%s.dkim TXT \"v=DKIM1; k=ed25519; p=AAAA\"\n", token)
			}
		}
	}
	customers := map[string]string{}
	for i, c := range coldCustomers {
		w.names = append(w.names, "k1._domainkey."+c)
		tld["test."] += nsRecords(c, []string{"ns1." + c, "ns2." + c}) +
			serverRecords("ns1."+c, 21) + serverRecords("ns2."+c, 22)
		customers[c] = soa + nsRecords("@", []string{"ns1", "ns2"}) + serverRecords("ns1", 21) + serverRecords("ns2", 22)
		if y.ns == nil {
			customers[c] += fmt.Sprintf("k1._domainkey CNAME k1.%s.dkim.p-dns.test.\n", coldTokens[i])
			continue
		}
		w.names[i] = "k1._domainkey.send." + c
		var ns []string
		for _, pattern := range y.ns {
			ns = append(ns, strings.ReplaceAll(pattern, "%s", coldTokens[i]))
		}
		customers[c] += nsRecords("send", ns)
		platform["send."+c] = soa + nsRecords("@", ns) + "k1._domainkey TXT \"v=DKIM1; k=ed25519; p=AAAA\"\n"
	}
	w.knot("root", "127.0.0.10:5353", map[string]string{".": soa + rootZone})
	w.knot("tld-test", "127.0.0.11:5353", map[string]string{"test.": tld["test."]})
	w.knot("tld-example", "127.0.0.12:5353", map[string]string{"example.": tld["example."]})
	w.knot("customers", "127.0.0.21:5353", customers)
	w.knot("platform", "127.0.0.31:5353", platform)
	w.relay(w.g, "root", newBackend("127.0.0.10:5353"), "192.0.2.10", "2001:db8::10")
	w.relay(w.g, "test.", newBackend("127.0.0.11:5353"), "192.0.2.11", "2001:db8::11")
	w.relay(w.g, "example.", newBackend("127.0.0.12:5353"), "192.0.2.12", "2001:db8::12")
	w.relay(w.g, "customer", newBackend("127.0.0.21:5353"), "192.0.2.21", "192.0.2.22", "2001:db8::21", "2001:db8::22")
	w.relay(w.g, "platform", newBackend("127.0.0.31:5353"), "192.0.2.31", "192.0.2.32", "2001:db8::31", "2001:db8::32")
	return w
}

// rootZone is the root of the lab's DNS, less its SOA: two top-level domains.
const rootZone = `@ NS a.root.example.
a.root.example. A 192.0.2.10
a.root.example. AAAA 2001:db8::10
test. NS a.nic.test.
a.nic.test. A 192.0.2.11
a.nic.test. AAAA 2001:db8::11
example. NS a.nic.example.
a.nic.example. A 192.0.2.12
a.nic.example. AAAA 2001:db8::12
`

// rootHints are what the lab's resolvers know at the start.
const rootHints = `. 3600 NS a.root.example.
a.root.example. 3600 A 192.0.2.10
a.root.example. 3600 AAAA 2001:db8::10
`

// nsRecords is an NS RRset with a day's TTL, in master file text.
func nsRecords(owner string, targets []string) (text string) {
	for _, t := range targets {
		text += fmt.Sprintf("%s 86400 NS %s\n", owner, t)
	}
	return text
}

// serverRecords are the addresses of a server in the lab's networks.
func serverRecords(owner string, n int) string {
	return fmt.Sprintf("%s A 192.0.2.%d\n%s AAAA 2001:db8::%d\n", owner, n, owner, n)
}

// count is one measurement: questions until the answer, and with those that the
// resolver asked in the background after it.
type count struct {
	answered, all int
	servers       map[string]int // of all
}

// measure adds a row: the first customer with a cold cache, then the second with
// the cache that the first left.
func (w *coldWorld) measure(table *strings.Builder, y layout, strict string) {
	w.Helper()
	var first, second []count
	for range coldRounds {
		u := w.unbound(rootHints, "qname-minimisation: yes", "qname-minimisation-strict: "+strict)
		first = append(first, w.count(y, 0))
		second = append(second, w.count(y, 1))
		u.end(9)
	}
	glue := "in-domain"
	if y.crossed {
		glue = "none for the second"
	}
	minimisation := map[string]string{"no": "default", "yes": "strict"}[strict]
	fmt.Fprintf(table, "| %s | %s | %s | %s | %s |\n", y.title, glue, minimisation, cells(first), cells(second))
}

// count asks for one customer's DKIM TXT.
func (w *coldWorld) count(y layout, customer int) count {
	w.Helper()
	w.g.forget()
	name := w.names[customer]
	r, err := ask("udp", resolverAddress, name, dns.TypeTXT)
	if err != nil {
		w.Fatalf("asking unbound for %s: %v", name, err)
	}
	c := count{answered: len(w.g.all()), servers: map[string]int{}}
	if !slices.ContainsFunc(r.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeTXT }) {
		w.Fatalf("no TXT at %s:\n%s\nasked: %v", name, r, w.g.all())
	}
	w.g.settle(200 * time.Millisecond)
	all := w.g.all()
	for _, a := range all {
		c.servers[a.server]++
	}
	c.all = len(all)
	if testing.Verbose() {
		w.Logf("%s, customer %d: %d until answered: %v", y.title, customer+1, c.answered, all)
	}
	return c
}

// cells are the three cells of a row for one customer.
func cells(counts []count) string {
	slices.SortFunc(counts, func(a, b count) int { return a.all - b.all })
	middle := counts[len(counts)/2]
	var by []string
	for _, s := range []string{"root", "test.", "example.", "customer", "platform"} {
		if n := middle.servers[s]; n > 0 {
			by = append(by, fmt.Sprintf("%s %d", s, n))
		}
	}
	return fmt.Sprintf("%s | %s | %s",
		spread(counts, func(c count) int { return c.answered }),
		spread(counts, func(c count) int { return c.all }), strings.Join(by, ", "))
}

// spread is the median with the smallest and largest value.
func spread(counts []count, of func(count) int) string {
	var values []int
	for _, c := range counts {
		values = append(values, of(c))
	}
	slices.Sort(values)
	return fmt.Sprintf("%d (%d–%d)", values[len(values)/2], values[0], values[len(values)-1])
}
