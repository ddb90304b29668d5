package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-msgauth/dkim"
)

// keyView is a key as the API shows it.
type keyView struct {
	ID          uint32     `json:"id"`
	Selector    string     `json:"selector"`
	Stage       string     `json:"stage"`
	Public      string     `json:"public"`
	ReadyAt     *time.Time `json:"ready_at"`
	DueAt       *time.Time `json:"due_at"`
	Next        string     `json:"next"`
	ActivatedAt *time.Time `json:"activated_at"`
}

// domainView is a domain as the API shows it.
type domainView struct {
	Token   string    `json:"token"`
	Keys    []keyView `json:"keys"`
	Records []struct {
		Name  string `json:"name"`
		Type  string `json:"type"`
		Value string `json:"value"`
	} `json:"records"`
}

// mail is a signed message with the right to verify for a time.
type mail struct {
	selector, public string // the p= of the key
	text             []byte
	fetched          time.Time // when its key was asked for
	until            time.Time // how long it has to verify
	last             bool      // its last check was made
}

// subject is a domain that is watched.
type subject struct {
	name, token string
	slots       bool
	emergencies bool            // its keys may be revoked by request
	first       map[uint32]bool // keys that signed from the first second: no standby before them

	mu      sync.Mutex        // one visit at a time; guards what follows
	targets map[string]string // where the customer's CNAMEs point
	mail    map[string]mail   // by the key's p=: the latest
	told    map[string]bool   // activations that were looked at
	pre     map[string]bool   // visits before a step that were planned
	names   []string          // of its keys
	unseen  []string          // names of standbys that are not confirmed
	excused map[string]bool   // p= of keys that a request of ours may have revoked
}

// dnsName is where a receiver finds a selector's record: the customer's name,
// after the customer's CNAME.
func (s *subject) dnsName(selector string) string {
	name := selector + "._domainkey." + s.name + "."
	if target, ok := s.targets[name]; ok {
		return target
	}
	return name
}

// see takes what the API says of the domain's names.
func (s *subject) see(v *domainView) {
	if s.slots && len(s.targets) == 0 {
		s.targets = map[string]string{}
		for _, r := range v.Records {
			if r.Type == "CNAME" {
				s.targets[fqdn(r.Name)] = fqdn(r.Value)
			}
		}
	}
	s.names, s.unseen = s.names[:0], nil
	for _, k := range v.Keys {
		name := s.dnsName(k.Selector)
		s.names = append(s.names, name)
		if k.Stage == "standby" && k.ReadyAt == nil {
			s.unseen = append(s.unseen, name)
		}
	}
}

func fqdn(name string) string { return strings.TrimSuffix(name, ".") + "." }

// pOf is the p= of a TXT payload.
func pOf(payload string) string {
	_, p, _ := strings.Cut(payload, "p=")
	return p
}

// visit looks at a domain because of a transition: mail from before it has to
// verify, and mail that is signed now. before: the transition is yet to come.
func (l *life) visit(ctx context.Context, s *subject, kind string, before bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if kind == endOfRights {
		l.lastChecks(s)
		return
	}
	v, err := l.domain(ctx, s.token)
	if err == nil {
		s.see(v)
		for _, k := range v.Keys {
			l.activation(s, &k, kind)
		}
	} else {
		l.miss("a domain could not be read")
	}
	for _, name := range s.names {
		for _, c := range l.caches {
			_, _ = c.ask(name) // so that it has what it can hold against us later
		}
	}
	l.lastChecks(s)
	for _, m := range s.mail {
		l.verify(s, m, kind, true)
	}
	for _, m := range l.sign(ctx, s, kind) {
		l.verify(s, m, kind, before)
		s.mail[m.public] = m
	}
	l.plan(s, v)
}

// lastChecks verifies mail whose rights end, and lets go of what has none; s.mu is
// held.
func (l *life) lastChecks(s *subject) {
	for p, m := range s.mail {
		switch left := l.clock.until(m.until); {
		case left <= 0:
			if !m.last {
				l.miss("mails whose rights ended before the last check came")
			}
			delete(s.mail, p)
		case left < 2*lastCheck && !m.last:
			l.verify(s, m, endOfRights, true)
			m.last = true
			s.mail[p] = m
		}
	}
}

// lastCheck is how long before the end of a mail's rights it is verified a last
// time, in our seconds, and preVisit how long before a step is due the domain is
// visited.
const (
	lastCheck = 150 * time.Millisecond
	preVisit  = 120 * time.Millisecond
	restVisit = 10 * time.Second
)

// plan plans the next visits; s.mu is held.
func (l *life) plan(s *subject, v *domainView) {
	now := time.Now()
	l.queue.add(now.Add(restVisit), s, atRest, false)
	for p, m := range s.mail {
		id := fmt.Sprint("end", p, m.until.UnixNano())
		if d := l.clock.until(m.until) - lastCheck; d < restVisit && !s.pre[id] {
			s.pre[id] = true
			l.queue.add(now.Add(d), s, endOfRights, true)
		}
	}
	if v == nil {
		return
	}
	for _, k := range v.Keys {
		if k.DueAt == nil || k.Next == "" || k.Next == "confirm" {
			continue
		}
		id := fmt.Sprint(k.ID, k.Next, k.DueAt.Unix())
		if d := l.clock.until(*k.DueAt) - preVisit; d > 0 && d < restVisit && !s.pre[id] {
			s.pre[id] = true
			l.queue.add(now.Add(d), s, stepKind(k.Next, s.slots), true)
		}
	}
}

// activation holds an activation against what the key's standby waited for, and
// against what the caches replied at that very moment.
func (l *life) activation(s *subject, k *keyView, kind string) {
	if k.Stage != "active" || k.ActivatedAt == nil {
		return
	}
	id := fmt.Sprint(k.ID, k.ActivatedAt.Unix())
	if s.told[id] {
		return
	}
	s.told[id] = true
	early := !s.first[k.ID] && (k.ReadyAt == nil || k.ActivatedAt.Before(*k.ReadyAt))
	if early {
		l.complain("%s: %s is active since %s, its standby ready at %v", s.name, k.Selector, k.ActivatedAt, k.ReadyAt)
	}
	for i, c := range l.caches {
		text, ok := c.reply(s.dnsName(k.Selector), *k.ActivatedAt)
		if ok && text != k.Public {
			early = true
			l.complain("%s: %s is active since %s, when the cache of node-%d still had another record: %s", s.name, k.Selector, k.ActivatedAt, i+1, c.describe(s.dnsName(k.Selector)))
		}
	}
	l.count(kind, func(c *counts) {
		c.activations++
		if early {
			c.early++
		}
	})
}

// sign signs with whatever a node says is active.
func (l *life) sign(ctx context.Context, s *subject, kind string) (signed []mail) {
	n := l.anyNode()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	fetched := l.clock.now()
	r, err := l.w.request(ctx, n, http.MethodGet, "/v1/dkim/"+s.name, nil, nil)
	if err != nil || r.status != http.StatusOK {
		l.miss("a signer got no answer")
		return nil
	}
	var doc struct {
		Data struct {
			Selectors []struct {
				Selector string `json:"selector"`
				Key      string `json:"key"`
				Public   string `json:"pubkey"`
			} `json:"selectors"`
		} `json:"data"`
	}
	if err := json.Unmarshal(r.body, &doc); err != nil || len(doc.Data.Selectors) == 0 {
		l.complain("%s gives no key to sign for %s with: %s", n.id(), s.name, r.body)
		l.count(kind, func(c *counts) { c.failed++ })
		return nil
	}
	for _, k := range doc.Data.Selectors {
		m := mail{selector: k.Selector, public: k.Public, fetched: fetched, until: fetched.Add(signerHold + drainFloor)}
		if m.text, err = signed1(s.name, k.Selector, k.Key); err != nil {
			l.complain("%s: signing with %s from %s: %v", s.name, k.Selector, n.id(), err)
			l.count(kind, func(c *counts) { c.failed++ })
			continue
		}
		signed = append(signed, m)
	}
	return signed
}

// signed1 signs a message as a mail server does.
func signed1(domain, selector, key string) ([]byte, error) {
	var private crypto.Signer
	if block, _ := pem.Decode([]byte(key)); block != nil {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, err
		}
		private = parsed.(crypto.Signer)
	} else {
		seed, err := base64.StdEncoding.DecodeString(key)
		if err != nil || len(seed) != ed25519.SeedSize {
			return nil, fmt.Errorf("a key that is neither PEM nor a seed (%w)", err)
		}
		private = ed25519.NewKeyFromSeed(seed)
	}
	text := fmt.Sprintf("From: Shop <news@%[1]s>\r\nTo: someone@example.test\r\nSubject: Your order\r\n"+
		"Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <1@%[1]s>\r\n\r\nThank you.\r\n", domain)
	var out bytes.Buffer
	err := dkim.Sign(&out, strings.NewReader(text), &dkim.SignOptions{
		Domain: domain, Selector: selector, Signer: private, Hash: crypto.SHA256,
		HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
	})
	return out.Bytes(), err
}

// verify verifies a mail as a receiver does, through every node and through every
// cache. What nobody answers is no check.
func (l *life) verify(s *subject, m mail, kind string, before bool) {
	name := s.dnsName(m.selector)
	for i, c := range l.caches {
		if !l.clock.now().Before(m.until) {
			return
		}
		direct, err := askTXT(c.node, name)
		if err == nil {
			l.judge(s, m, kind, before, fmt.Sprintf("node-%d", i+1), direct.text)
		}
		if text, ok := c.look(name); ok {
			l.judge(s, m, kind, before, fmt.Sprintf("the cache of node-%d", i+1), text)
		}
	}
}

func (l *life) judge(s *subject, m mail, kind string, before bool, who, record string) {
	err := verified(m.text, record)
	if err != nil && !l.clock.now().Before(m.until) {
		return // its rights ended while the question was under way
	}
	excused := err != nil && s.excused[m.public]
	l.count(kind, func(c *counts) {
		switch {
		case excused:
			c.excused++
		case before:
			c.before++
		default:
			c.after++
		}
		if err != nil && !excused {
			c.failed++
		}
	})
	if err == nil || excused {
		return
	}
	at := slices.IndexFunc(l.caches[:], func(c *cache) bool { return strings.HasSuffix(who, fmt.Sprint(c.node)) })
	l.complain("%s (%s): mail of %s signed with %s fails at %s on %s: %v; it answers %.60q; that cache: %s", s.name, s.token, m.fetched.UTC().Format("02T15:04:05"), m.selector,
		who, l.clock.now().UTC().Format("02T15:04:05"), err, record, l.caches[at].describe(s.dnsName(m.selector)))
}

// verified verifies a message against a key record.
func verified(message []byte, record string) error {
	results, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) {
			if record == "" {
				return nil, errNoRecord
			}
			return []string{record}, nil
		},
	})
	switch {
	case err != nil:
		return err
	case len(results) != 1:
		return fmt.Errorf("%d signatures", len(results))
	}
	return results[0].Err
}

// errNoRecord is a name that is not there.
var errNoRecord = fmt.Errorf("no such record")
