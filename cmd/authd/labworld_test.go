package main_test

import (
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// world is a small internet round a cluster: a root, two top-level domains with
// a platform zone under each, the customers' own name servers, and the platform's public addresses, behind
// which the nodes answer.
type world struct {
	*cluster
	g ledger
	// fronts are what stands behind ns1's and ns2's addresses.
	fronts [2]*backend
}

// Names of the world's customers: the first delegates send.customer.test, the
// second has the five CNAMEs of CNAME mode.
const (
	delegatedDomain = "send.customer.test"
	cnameDomain     = "customer2.test"
)

// domainReply is what the lab reads of GET /v1/domains/{domain}.
type domainReply struct {
	Domain  string `json:"domain"`
	Token   string `json:"token"`
	State   string `json:"state"`
	Records []struct {
		Name  string `json:"name"`
		Type  string `json:"type"`
		Value string `json:"value"`
		TTL   uint32 `json:"ttl"`
	} `json:"records"`
	Keys []keyReply `json:"keys"`
}

type keyReply struct {
	Selector string `json:"selector"`
	Stage    string `json:"stage"`
	ReadyAt  string `json:"ready_at"` // empty: not known yet
}

// customerRecords are the records the customer must add, in master file text.
func (d *domainReply) customerRecords() (text string) {
	for _, r := range d.Records {
		text += fmt.Sprintf("%s %d %s %s\n", dns.Fqdn(r.Name), r.TTL, r.Type, dns.Fqdn(r.Value))
	}
	return text
}

// startWorld starts everything but the customers' name servers, whose zones
// depend on what the platform tells the customers.
func startWorld(c *cluster) *world {
	c.Helper()
	w := &world{cluster: c}
	delegation := nsRecords("p-dns", []string{"ns1.p-dns", "ns2.p-dns"}) +
		serverRecords("ns1.p-dns", 31) + serverRecords("ns2.p-dns", 32)
	example := soa + "@ NS a.nic\na.nic A 192.0.2.12\na.nic AAAA 2001:db8::12\n" + delegation
	test := soa + "@ NS a.nic\na.nic A 192.0.2.11\na.nic AAAA 2001:db8::11\n" + delegation
	for _, z := range []string{"customer", "customer2"} {
		test += nsRecords(z, []string{"ns1." + z, "ns2." + z}) + serverRecords("ns1."+z, 21) + serverRecords("ns2."+z, 22)
	}
	w.knot("root", "127.0.0.10:5353", map[string]string{".": soa + rootZone})
	w.knot("tld-test", "127.0.0.11:5353", map[string]string{"test.": test})
	w.knot("tld-example", "127.0.0.12:5353", map[string]string{"example.": example})
	w.relay(&w.g, "root", newBackend("127.0.0.10:5353"), "192.0.2.10", "2001:db8::10")
	w.relay(&w.g, "test.", newBackend("127.0.0.11:5353"), "192.0.2.11", "2001:db8::11")
	w.relay(&w.g, "example.", newBackend("127.0.0.12:5353"), "192.0.2.12", "2001:db8::12")
	w.relay(&w.g, "customer", newBackend("127.0.0.21:5353"), "192.0.2.21", "192.0.2.22", "2001:db8::21", "2001:db8::22")
	w.fronts = [2]*backend{newBackend(c.dns(1)), newBackend(c.dns(2))}
	w.relay(&w.g, "platform", w.fronts[0], "192.0.2.31", "2001:db8::31")
	w.relay(&w.g, "platform", w.fronts[1], "192.0.2.32", "2001:db8::32")
	for i := range 2 {
		c.call(1, "PUT", fmt.Sprintf("/v1/nameservers/ns%d", i+1), map[string]any{
			"addresses": []string{fmt.Sprintf("192.0.2.3%d", i+1), fmt.Sprintf("2001:db8::3%d", i+1)},
		}, nil)
	}
	c.call(1, "PUT", "/v1/zones/p-dns.example?wait=served", map[string]any{"contact": "hostmaster.p-dns.example"}, nil)
	w.platform("default")
	return w
}

// platform makes the pools and the tenant that lab domains use.
func (c *cluster) platform(pools ...string) {
	c.Helper()
	for i, pool := range pools {
		c.call(1, "PUT", "/v1/pools/"+pool+"?wait=served", map[string]any{
			"spf": []string{fmt.Sprintf("ip4:198.51.100.%d", 16*i), "ip6:2001:db8:25::/48"}, "spf_all": "~all",
			"mx":    []any{map[string]any{"preference": 10, "host": "mx1.p-dns.test."}},
			"click": map[string]any{"a": []string{"192.0.2.80"}, "aaaa": []string{"2001:db8::80"}},
		}, nil)
	}
	c.call(1, "POST", "/v1/tenants?wait=served", map[string]any{"id": "acme", "name": "Acme"}, nil)
}

// add claims a domain for the tenant acme and gives it as the API shows it.
func (c *cluster) add(domain, mode string) (d domainReply) {
	c.Helper()
	c.call(1, "POST", "/v1/tenants/acme/domains?wait=served", map[string]any{"domain": domain, "mode": mode, "pool": "default"}, &d)
	return d
}

// domain is a domain as a node shows it.
func (c *cluster) domain(node int, domain string) (d domainReply) {
	c.Helper()
	c.call(node, "GET", "/v1/domains/"+domain, nil, &d)
	return d
}

// customers starts the customers' own name servers: their zones hold the records
// that the platform asked them to add, and nothing else.
func (w *world) customers(delegated, cnames string) {
	w.Helper()
	zone := soa + nsRecords("@", []string{"ns1", "ns2"}) + serverRecords("ns1", 21) + serverRecords("ns2", 22)
	w.knot("customers", "127.0.0.21:5353", map[string]string{
		"customer.test.":  zone + delegated,
		"customer2.test.": zone + cnames,
	})
}

// resolve starts a cold, strictly minimising resolver (RFC 9156).
func (w *world) resolve() *process {
	return w.unbound(rootHints, "qname-minimisation: yes", "qname-minimisation-strict: yes")
}

// lookupTXT looks a name up through the lab's resolver, for verifiers.
func lookupTXT(name string) ([]string, error) {
	r, err := ask("udp", resolverAddress, name, dns.TypeTXT)
	if err == nil && r.Truncated {
		r, err = ask("tcp", resolverAddress, name, dns.TypeTXT)
	}
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("looking up %s: %s", name, dns.RcodeToString[r.Rcode])
	}
	var texts []string
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			texts = append(texts, strings.Join(txt.Txt, ""))
		}
	}
	return texts, nil
}
