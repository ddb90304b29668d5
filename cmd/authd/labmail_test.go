package main_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// debianPython is Debian's own Python, which python3-dkim is installed for.
const debianPython = "/usr/bin/python3"

// verifyScript verifies the message of a file with dkimpy, asking one resolver.
const verifyScript = `
import sys, dkim, dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = [sys.argv[2]], 53
def txt(name, timeout=5):
    if isinstance(name, bytes):
        name = name.decode("ascii")
    return b"".join(next(iter(resolver.resolve(name, "TXT", lifetime=timeout))).strings)
with open(sys.argv[1], "rb") as f:
    print("verified" if dkim.verify(f.read(), dnsfunc=txt) else "refused")
`

// signingKey is an element of GET /v1/dkim/{domain}.
type signingKey struct {
	Domain   string `json:"domain"`
	Selector string `json:"selector"`
	Key      string `json:"key"`
}

// signingKeys are the keys that a mail server would sign with now.
func (c *cluster) signingKeys(node int, domain string) []signingKey {
	c.Helper()
	var doc struct {
		Data struct {
			Selectors []signingKey `json:"selectors"`
		} `json:"data"`
	}
	c.call(node, "GET", "/v1/dkim/"+domain, nil, &doc)
	return doc.Data.Selectors
}

// sign signs a message as a mail server does, with the key that a node gives.
func (c *cluster) sign(node int, domain string) (message []byte, selector string) {
	c.Helper()
	keys := c.signingKeys(node, domain)
	if len(keys) != 1 {
		c.Fatalf("node %d gives %d signing keys for %s, not one", node, len(keys), domain)
	}
	block, _ := pem.Decode([]byte(keys[0].Key))
	if block == nil {
		c.Fatalf("the signing key of %s is not PEM", domain)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		c.Fatal(err)
	}
	text := fmt.Sprintf("From: Shop <news@%s>\r\nTo: someone@example.test\r\nSubject: Your order\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@%s>\r\n\r\nThank you.\r\n", domain, domain)
	var signed bytes.Buffer
	err = dkim.Sign(&signed, strings.NewReader(text), &dkim.SignOptions{
		Domain: domain, Selector: keys[0].Selector, Signer: private.(crypto.Signer),
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	})
	if err != nil {
		c.Fatal(err)
	}
	return signed.Bytes(), keys[0].Selector
}

// verify verifies a message with two independent verifiers through the lab's
// resolver.
func (l *lab) verify(what string, message []byte) error {
	l.Helper()
	results, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{LookupTXT: lookupTXT})
	if err != nil || len(results) != 1 {
		return fmt.Errorf("%s: go-msgauth: %d signatures, %w", what, len(results), err)
	}
	if results[0].Err != nil {
		return fmt.Errorf("%s: go-msgauth: %w", what, results[0].Err)
	}
	script := l.write("verify.py", verifyScript)
	host, _, _ := strings.Cut(resolverAddress, ":")
	out, err := exec.Command(debianPython, script, l.write("message.eml", string(message)), host).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "verified" {
		return fmt.Errorf("%s: dkimpy: %v %s", what, err, out)
	}
	return nil
}

// requirePython ends the test where the second verifier is missing.
func requirePython(t *testing.T) bool {
	t.Helper()
	if out, err := exec.Command(debianPython, "-c", "import dkim, dns.resolver").CombinedOutput(); err != nil {
		missing(t, "no python3-dkim here (%v %s): apt-get install python3-dkim python3-dnspython", err, out)
		return false
	}
	return true
}

// TestRotationBothKeysVerifyDuringDrain signs with the key of before and of
// after a rotation, in both modes; both messages verify at every node, with two
// verifiers, through a resolver that follows the customers' own DNS.
func TestRotationBothKeysVerifyDuringDrain(t *testing.T) {
	if !requirePython(t) {
		return
	}
	l := enterLab(t)
	if l == nil {
		return
	}
	w := startWorld(l.startDev(l.build("")))
	delegated, cname := w.addReady(delegatedDomain, "delegated", "default"), w.addReady(cnameDomain, "cname", "default")
	w.customers(delegated.customerRecords(), cname.customerRecords())
	type mail struct {
		what    string
		message []byte
	}
	var sent []mail
	for _, domain := range []string{delegatedDomain, cnameDomain} {
		message, before := w.sign(1, domain)
		sent = append(sent, mail{domain + " signed before", message})
		w.rotate(domain, before)
		message, after := w.sign(3, domain)
		if after == before {
			w.Fatalf("%s: still signing with %s after its rotation", domain, before)
		}
		sent = append(sent, mail{domain + " signed after", message})
	}
	tampered := bytes.Replace(sent[0].message, []byte("Thank you."), []byte("Thank YOU."), 1)
	for node := 1; node <= labNodes; node++ {
		for _, f := range w.fronts {
			f.set(w.dns(node))
		}
		u := w.resolve() // cold, so that this node is what answers
		for _, m := range sent {
			if err := l.verify(fmt.Sprintf("%s, at node %d", m.what, node), m.message); err != nil {
				l.Fatal(err)
			}
		}
		if l.verify("tampered with", tampered) == nil {
			l.Fatal("a message that was tampered with verifies")
		}
		u.end(syscall.SIGKILL)
	}

	// Signers read, and receivers verify, from one node that nobody answers.
	w.killAll(1, 2, 3)
	w.serve(2)
	for _, f := range w.fronts {
		f.set(w.dns(2))
	}
	w.resolve()
	for _, domain := range []string{delegatedDomain, cnameDomain} {
		message, _ := w.sign(2, domain)
		if err := l.verify(domain+" signed with one node left", message); err != nil {
			l.Fatal(err)
		}
	}
	t.Logf("%d messages verified at each of %d nodes with go-msgauth and dkimpy", len(sent), labNodes)
}

// addReady claims a domain whose standby came with the claim: such a one may
// sign as soon as every node is seen to answer it, any later one after the TTL of
// its absence. A claim made before the first keys were milled is ended again.
func (c *cluster) addReady(domain, mode, pool string) (d domainReply) {
	c.Helper()
	c.eventually(time.Minute, "a claim of "+domain+" with its standby", func() error {
		d = domainReply{}
		c.call(1, "POST", "/v1/tenants/acme/domains?wait=served", map[string]any{"domain": domain, "mode": mode, "pool": pool}, &d)
		if slices.ContainsFunc(d.Keys, func(k keyReply) bool { return k.Stage == "standby" }) {
			return nil
		}
		c.call(1, "DELETE", "/v1/domains/"+d.Token+"?now=true&reason=lab", nil, nil)
		return errors.New("no key was ready for it")
	})
	c.eventually(labSettle, "the standby of "+domain+" ready", func() error {
		for _, k := range c.domain(1, domain).Keys {
			if k.Stage == "standby" && k.ReadyAt == "" {
				return errors.New("it is not confirmed yet")
			}
		}
		return nil
	})
	return d
}

// rotate rotates a domain's key and waits until every node answers with it.
func (c *cluster) rotate(domain, from string) {
	c.Helper()
	c.call(2, "POST", "/v1/domains/"+domain+"/rotate?wait=served", map[string]any{"from": from, "reason": "lab"}, nil)
}
