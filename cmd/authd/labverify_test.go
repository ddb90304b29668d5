package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"
)

// serveWithResolver stops authd dev and starts its nodes with "authd serve",
// their configuration naming the lab's resolver.
func (c *cluster) serveWithResolver() {
	c.Helper()
	c.dev.end(syscall.SIGTERM)
	for i := 1; i <= labNodes; i++ {
		path := filepath.Join(c.dir, fmt.Sprintf("node-%d.toml", i))
		text, err := os.ReadFile(path)
		if err != nil {
			c.Fatal(err)
		}
		if strings.Contains(string(text), "[verify]") {
			c.Fatalf("%s has a [verify] table already", path)
		}
		text = append(text, fmt.Sprintf("\n[verify]\nresolvers = [%q]\n", resolverAddress)...)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			c.Fatal(err)
		}
	}
	for i := 1; i <= labNodes; i++ {
		c.serve(i)
	}
	c.leader(1, 2, 3)
}

// TestVerifyThroughParent proves a claim by what the customer's own name servers
// say, and no other; an unproven zone is refused, an admin can attest. Of two claims in
// mode cname the one signs that the customer's CNAMEs lead to, not the older one.
func TestVerifyThroughParent(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	w := startWorld(l.startDev(l.build("")))
	w.serveWithResolver()
	w.call(1, "PUT", "/v1/cluster/settings", map[string]any{"verification_off": false}, nil)
	claim := w.add(delegatedDomain, "delegated")
	if claim.State != "pending" {
		l.Fatalf("a claim that nobody proved is %s, not pending", claim.State)
	}
	w.call(1, "POST", "/v1/tenants?wait=served", map[string]any{"id": "rival", "name": "Rival"}, nil)
	var rival domainReply
	w.call(1, "POST", "/v1/tenants/rival/domains?wait=served", map[string]any{"domain": delegatedDomain, "mode": "delegated", "pool": "default"}, &rival)
	var squatter domainReply
	w.call(1, "POST", "/v1/tenants/rival/domains?wait=served", map[string]any{"domain": cnameDomain, "mode": "cname", "pool": "default"}, &squatter)
	aliased := w.add(cnameDomain, "cname")
	w.customers(claim.customerRecords(), aliased.customerRecords())
	w.resolve()

	w.mustRefuse(delegatedDomain)
	if d := w.verifyClaim(rival.Token); d.State != "pending" {
		l.Fatalf("a claim whose token the parent does not show is %s", d.State)
	}
	w.mustRefuse(delegatedDomain)
	if d := w.verifyClaim(claim.Token); d.State != "live" {
		l.Fatalf("a claim that the parent delegates is %s", d.State)
	}
	w.caughtUp(1, 2, 3)
	all := w.answersOf(claim.Token)
	l.mustAnswer("proven by its parent", all, w.dns(1), w.dns(2), w.dns(3))
	if d := w.verifyClaim(rival.Token); d.State != "pending" {
		l.Fatalf("a claim to a name that another owns is %s", d.State)
	}

	other := w.add("send.customer2.test", "delegated") // its parent shows nothing
	if d := w.verifyClaim(other.Token); d.State != "pending" {
		l.Fatalf("a claim whose parent shows no delegation is %s", d.State)
	}
	w.call(2, "POST", "/v1/domains/"+other.Token+"/attest?wait=served", map[string]any{"reason": "seen at the registrar"}, nil)
	all = w.answersOf(other.Token)
	l.mustAnswer("attested", all, w.dns(1), w.dns(2), w.dns(3))

	if w.verify(squatter.Token) {
		l.Fatal("a claim to whose keys no CNAME leads is proven")
	}
	if !w.verify(aliased.Token) {
		l.Fatal("the claim to whose keys the CNAMEs lead is not proven")
	}
	w.caughtUp(1, 2, 3)
	if keys := w.signingKeys(2, cnameDomain); len(keys) != 1 || keys[0].Selector != "t2-k1" {
		l.Fatalf("%s is signed for with %d keys, not with t2-k1 alone", cnameDomain, len(keys))
	}
}

// verifyClaim verifies a delegated claim, and gives it as it is then.
func (w *world) verifyClaim(token string) domainReply {
	w.Helper()
	proven := w.verify(token)
	d := w.domain(3, token)
	if proven != (d.State == "live") {
		w.Fatalf("the reply says proven %v, the claim is %s", proven, d.State)
	}
	return d
}

// verify asks node 3 to ask the customer's DNS.
func (w *world) verify(token string) (proven bool) {
	w.Helper()
	r, err := w.try(3, "POST", "/v1/domains/"+token+"/verify?wait=served", nil)
	if err != nil {
		w.Fatal(err)
	}
	if r.status != 200 {
		w.Fatalf("verifying %s: %d\n%s", token, r.status, r.body)
	}
	var said struct {
		Proven bool   `json:"proven"`
		Detail string `json:"detail"`
	}
	w.decode(r.body, &said)
	w.Logf("verify: proven %v: %s", said.Proven, said.Detail)
	return said.Proven
}

// mustRefuse checks that every node refuses a zone.
func (w *world) mustRefuse(apex string) {
	w.Helper()
	for i := 1; i <= labNodes; i++ {
		r, err := ask("udp", w.dns(i), apex, dns.TypeSOA)
		if err != nil || r.Rcode != dns.RcodeRefused {
			w.Fatalf("node %d on the unproven zone %s: %v %v, not REFUSED", i, apex, r, err)
		}
	}
}

// answersOf is what a claim must be answered with.
func (w *world) answersOf(token string) []answer {
	w.Helper()
	return w.answers(1, "/v1/domains/"+token+"/served")
}

// TestResolverFollowsBothModes asks a strictly minimising resolver for every kind
// of name of both modes, by the names that mail receivers ask for.
func TestResolverFollowsBothModes(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	w := startWorld(l.startDev(l.build("lab")))
	delegated, cname := w.add(delegatedDomain, "delegated"), w.add(cnameDomain, "cname")
	w.call(1, "PATCH", "/v1/domains/"+cnameDomain, map[string]any{"dmarc": "v=DMARC1; p=reject"}, nil)
	cname = w.domain(1, cnameDomain)
	w.call(1, "PUT", "/v1/domains/"+delegatedDomain+"/records/a.b.deep/TXT?wait=served", map[string]any{"ttl": 300, "values": []string{"extra"}}, nil)
	w.customers(delegated.customerRecords(), cname.customerRecords())
	w.resolve()

	asked := 0
	all := w.answersOf(delegated.Token)
	platform := w.answers(1, "/v1/zones/p-dns.test/served")
	for _, a := range append(all, platform...) {
		w.resolves(a.owner, a.qtype, a.wanted)
		asked++
	}
	// In CNAME mode the receiver asks for the customer's names.
	targets := w.answersOf(cname.Token)
	for _, record := range cname.Records {
		if record.Type != "CNAME" {
			l.Fatalf("a customer in CNAME mode is asked for a record of type %s", record.Type)
		}
		found := false
		for _, a := range targets {
			if a.owner == dns.CanonicalName(record.Value) {
				found = true
				w.resolves(record.Name, a.qtype, a.wanted)
				asked++
			}
		}
		if !found {
			l.Fatalf("nothing is served at %s, the target of %s", record.Value, record.Name)
		}
	}
	for name, want := range map[string]int{
		"_domainkey." + delegatedDomain:                   dns.RcodeSuccess,   // an empty non-terminal (RFC 8020)
		"b.deep." + delegatedDomain:                       dns.RcodeSuccess,   //
		"none._domainkey." + delegatedDomain:              dns.RcodeNameError, //
		"_dmarc." + delegatedDomain:                       dns.RcodeNameError, // inherited from the parent's policy
		"nobody.dkim.p-dns.test":                          dns.RcodeNameError, //
		strings.ToLower(cname.Token) + ".dkim.p-dns.test": dns.RcodeSuccess,
	} {
		r, err := ask("udp", resolverAddress, name, dns.TypeTXT)
		if err != nil || r.Rcode != want || len(r.Answer) != 0 {
			l.Fatalf("%s TXT through unbound: %v %v, not an empty %s", name, r, err, dns.RcodeToString[want])
		}
		asked++
	}
	t.Logf("unbound with strict QNAME minimisation got %d names of both modes right", asked)
}

// resolves checks what the resolver finds at a name; TTLs may have gone down.
func (w *world) resolves(name string, qtype uint16, wanted string) {
	w.Helper()
	network := "udp"
	for {
		r, err := ask(network, resolverAddress, name, qtype)
		if err != nil {
			w.Fatalf("%s %s through unbound: %v", name, dns.TypeToString[qtype], err)
		}
		if r.Truncated {
			network = "tcp"
			continue
		}
		var rrs []dns.RR
		for _, rr := range r.Answer {
			if rr.Header().Rrtype == qtype {
				rrs = append(rrs, rr)
			}
		}
		if got, want := withoutTTL(canonical(rrs)), withoutTTL(wanted); r.Rcode != dns.RcodeSuccess || got != want {
			w.Fatalf("%s %s through unbound: %s\n got %s\nwant %s", name, dns.TypeToString[qtype], dns.RcodeToString[r.Rcode], got, want)
		}
		return
	}
}

// withoutTTL drops the second field of every line that canonical wrote.
func withoutTTL(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		fields := strings.SplitN(line, " ", 3)
		if len(fields) == 3 {
			line = fields[0] + " " + fields[2]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}
