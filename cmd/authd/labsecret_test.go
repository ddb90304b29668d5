package main_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A needle is a part of a private key in one of the forms it might be written in.
type needle struct {
	what  string
	bytes []byte
}

// needleSize is how many octets of a secret are searched for: few enough that
// a file that holds half of it is found, enough that none is there by chance.
const needleSize = 24

// needles are the forms of a secret: raw, hex, and base64 at each of the three
// alignments that it may have inside something longer.
func needles(what string, secret []byte) (all []needle) {
	for at := 0; at+needleSize <= len(secret); at += needleSize {
		part := secret[at : at+needleSize]
		all = append(all, needle{what, part},
			needle{what + " in hex", []byte(hex.EncodeToString(part))},
			needle{what + " in capital hex", []byte(strings.ToUpper(hex.EncodeToString(part)))})
		for shift := range 3 {
			for name, encoding := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
				text := encoding.EncodeToString(append(make([]byte, shift), part...))
				// Characters that depend on the octets before and after are left out.
				first, last := (shift*8+5)/6, (shift+needleSize)*8/6
				all = append(all, needle{fmt.Sprintf("%s in %s", what, name), []byte(text[first:last])})
			}
		}
	}
	return all
}

// privateParts are the parts of a private key, as signers get it, that must stay
// secret: of RSA from PEM, of Ed25519 the seed in base64.
func privateParts(l *lab, text string) (all []needle) {
	l.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		seed, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(seed) != ed25519.SeedSize {
			l.Fatalf("the signing key is neither PEM nor a seed: %v", err)
		}
		return needles("seed", seed)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		l.Fatal(err)
	}
	switch k := private.(type) {
	case *rsa.PrivateKey:
		all = append(all, needles("prime p", k.Primes[0].Bytes())...)
		all = append(all, needles("prime q", k.Primes[1].Bytes())...)
		all = append(all, needles("exponent d", k.D.Bytes())...)
		all = append(all, needles("exponent d mod p-1", k.Precomputed.Dp.Bytes())...)
		all = append(all, needles("exponent d mod q-1", k.Precomputed.Dq.Bytes())...)
		all = append(all, needles("inverse of q", k.Precomputed.Qinv.Bytes())...)
	case ed25519.PrivateKey:
		all = append(all, needles("seed", k.Seed())...)
	default:
		l.Fatalf("a signing key of type %T", k)
	}
	return all
}

// search gives the needles found in a file, also across line breaks.
func search(l *lab, path string, all []needle) (found []string) {
	l.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		l.Fatal(err)
	}
	joined := bytes.ReplaceAll(bytes.ReplaceAll(content, []byte("\n"), nil), []byte("\r"), nil)
	for _, n := range all {
		if bytes.Contains(content, n.bytes) || bytes.Contains(joined, n.bytes) {
			found = append(found, fmt.Sprintf("%s: %s", filepath.Base(path), n.what))
		}
	}
	return found
}

// TestPrivateKeyNeverInClear searches every file of a cluster that added,
// rotated and saved for every private key that it handed out.
func TestPrivateKeyNeverInClear(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	c := l.startDev(l.build(""))
	c.platform("default")
	c.call(1, "PUT", "/v1/pools/both?wait=served", map[string]any{
		"spf": []string{"ip4:198.51.100.0/24"}, "spf_all": "~all",
		"mx":    []any{map[string]any{"preference": 10, "host": "mx1.p-dns.test."}},
		"click": map[string]any{"a": []string{"192.0.2.80"}},
		"dkim":  map[string]any{"algorithms": []string{"rsa2048", "ed25519"}},
	}, nil)
	var secrets []needle
	keys := map[string]bool{}
	collect := func(domain string) {
		for _, k := range c.signingKeys(1, domain) {
			if !keys[k.Key] {
				keys[k.Key] = true
				secrets = append(secrets, privateParts(l, k.Key)...)
			}
		}
	}
	for i, pool := range []string{"default", "default", "both", "both"} {
		mode := []string{"delegated", "cname"}[i%2]
		domain := fmt.Sprintf("send%d.customer.test", i)
		c.addReady(domain, mode, pool)
		collect(domain)
		if pool == "default" {
			c.rotate(domain, "")
		}
		collect(domain)
	}
	const distinct = 2 + 2 + 2 + 2 // two keys for each: by rotation or by algorithm
	if len(keys) != distinct {
		l.Fatalf("%d different private keys were handed out, not %d", len(keys), distinct)
	}
	saved := filepath.Join(l.dir, "saved.snapshot")
	if out, err := c.cli(1, "operator", "snapshot", "save", saved); err != nil {
		l.Fatalf("saving a snapshot: %v\n%s", err, out)
	}

	// The search finds what is there: the test is worth nothing otherwise.
	for key := range keys {
		decoy := filepath.Join(l.dir, "decoy")
		if err := os.WriteFile(decoy, []byte("x"+key), 0o600); err != nil {
			l.Fatal(err)
		}
		if len(search(l, decoy, privateParts(l, key))) == 0 {
			l.Fatal("the search does not find a key in PEM")
		}
		if err := os.Remove(decoy); err != nil {
			l.Fatal(err)
		}
	}

	c.restartAll() // so that logs are compacted, marks written and children gone
	files := c.dataFiles()
	var found []string
	logs := 0
	for _, path := range files {
		if strings.HasSuffix(path, "raft.db") {
			logs++
		}
		found = append(found, search(l, path, secrets)...)
	}
	if logs != labNodes {
		l.Fatalf("%d logs among the files searched, not %d", logs, labNodes)
	}
	if len(found) > 0 {
		l.Fatalf("private keys in clear:\n%s", strings.Join(found, "\n"))
	}
	t.Logf("no part of %d private keys in %d files, searched for %d forms", len(keys), len(files), len(secrets))
}
