package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The policy of every pool, in the time of the run: the shortest that is allowed,
// so that keys turn fast, and the default of what protects mail.
const (
	signerHold = 24 * time.Hour
	drainFloor = 7 * 24 * time.Hour
)

// lifePools are what the domains are in. Slots turn slower: a key has to drain
// before its slot is free.
var lifePools = []struct {
	name   string
	share  int // of the domains
	slots  bool
	period time.Duration
	dkim   map[string]any
}{
	{"minted-rsa", 3, false, 120 * time.Hour, map[string]any{"algorithms": []string{"rsa2048"}, "drain": "240h", "drain_ceiling": "288h"}},
	{"minted-ed", 3, false, 120 * time.Hour, map[string]any{"algorithms": []string{"ed25519"}, "drain": "168h", "drain_ceiling": "288h"}},
	{"slots-rsa", 2, true, 216 * time.Hour, map[string]any{"algorithms": []string{"rsa2048"}, "drain": "168h", "drain_ceiling": "192h", "soak": "12h"}},
	{"slots-both", 1, true, 216 * time.Hour, map[string]any{"algorithms": []string{"rsa2048", "ed25519"}, "drain": "168h", "drain_ceiling": "192h", "soak": "12h"}},
}

// Kinds of transitions, in the order of the table.
const (
	published   = "standby published"
	refilled    = "slot refilled"
	confirmed   = "standby confirmed"
	activated   = "activated by schedule"
	byHand      = "activated by hand"
	emergency   = "emergency"
	rolledBack  = "rolled back"
	putOff      = "revocation put off"
	revoked     = "revoked after its drain"
	onRequest   = "revoked by request"
	removed     = "removed"
	endOfRights = "end of a mail's rights"
	atRest      = "at rest"
)

var kinds = []string{published, refilled, confirmed, activated, byHand, emergency, rolledBack, putOff, revoked, onRequest, removed, endOfRights, atRest}

// stepKind is the kind of a step of the schedule.
func stepKind(step string, slots bool) string {
	switch step {
	case "publish":
		if slots {
			return refilled
		}
		return published
	case "confirm":
		return confirmed
	case "activate":
		return activated
	case "revoke":
		return revoked
	case "remove":
		return removed
	}
	return ""
}

// counts are what the checks at one kind of transition came to.
type counts struct {
	seen          int // of all domains
	before, after int // checks of mail from before it, and from after it
	activations   int // that were held against the caches
	failed, early int
	excused       int // of keys that were revoked by request
}

// life is a run in which keys live fast: a cluster whose time is scaled, rotating
// by schedule, by hand and in emergencies while it is hurt, and receivers that
// verify what signers sign.
type life struct {
	w       *world
	clock   *scaled
	out     io.Writer
	caches  [nodeCount]*cache
	queue   *queue
	watched map[string]*subject // by token
	all     []*subject

	mu         sync.Mutex // guards what follows
	random     *rand.Rand
	table      map[string]*counts
	missed     map[string]int
	faults     map[string]int
	requests   map[string]int
	complaints int
	seq        uint64 // the last change that was taken
	rotations  int
	standbys   map[string]standby // by claim and selector, unless they have signed
	signed     map[string]bool    // those that have
	done       chan struct{}      // closed once there were enough rotations
	target     int
}

// standby is what the audit says of a key that did not sign yet.
type standby struct {
	fresh       bool // its name was never known before
	slots       bool
	confirmedAt time.Time
}

func (l *life) count(kind string, f func(*counts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.table[kind]
	if c == nil {
		c = &counts{}
		l.table[kind] = c
	}
	f(c)
}

func (l *life) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.say(format, args...)
}

// say is complain with mu held. What goes wrong goes wrong again and again: the
// first times are enough to look for it.
func (l *life) say(format string, args ...any) {
	if l.complaints++; l.complaints <= 30 {
		fmt.Fprintf(l.out, "  "+format+"\n", args...)
	}
}

// miss counts what could not be checked.
func (l *life) miss(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.missed[what]++
}

func (l *life) intN(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.random.IntN(n)
}

func (l *life) anyNode() *node { return l.w.nodes[l.intN(nodeCount)] }

// domain reads a domain from any node.
func (l *life) domain(ctx context.Context, token string) (*domainView, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	r, err := l.w.request(ctx, l.anyNode(), http.MethodGet, "/v1/domains/"+token, nil, nil)
	if err != nil {
		return nil, err
	}
	if r.status != http.StatusOK {
		return nil, fmt.Errorf("%d: %s", r.status, r.body)
	}
	v := new(domainView)
	return v, json.Unmarshal(r.body, v)
}

// setUp makes the pools, and the domains over a period, so that they do not all
// rotate at once for ever.
func (l *life) setUp(ctx context.Context, domains, watched int) error {
	n := l.w.nodes[0]
	for _, s := range []struct {
		method, path string
		body         any
	}{
		{"PUT", "/v1/nameservers/ns1", map[string]any{"addresses": []string{"192.0.2.53"}}},
		{"PUT", "/v1/zones/p-dns.test", map[string]any{}},
		{"POST", "/v1/tenants", map[string]any{"id": "acme", "name": "Acme"}},
	} {
		if err := l.w.must(ctx, n, s.method, s.path, s.body, nil); err != nil {
			return err
		}
	}
	for _, p := range lifePools {
		p.dkim["period"], p.dkim["signer_hold"], p.dkim["drain_floor"] = p.period.String(), signerHold.String(), drainFloor.String()
		p.dkim["revoked_for"], p.dkim["quiet"] = "24h", "24h"
		if err := l.w.must(ctx, n, http.MethodPut, "/v1/pools/"+p.name, map[string]any{"dkim": p.dkim}, nil); err != nil {
			return err
		}
	}
	var deck []int
	for i, p := range lifePools {
		for range p.share {
			deck = append(deck, i)
		}
	}
	var wg sync.WaitGroup
	errs := make(chan error, domains)
	began, spread := time.Now(), l.clock.real(lifePools[0].period)
	for i := range domains {
		pool := lifePools[deck[l.intN(len(deck))]]
		pause(ctx, time.Until(began.Add(spread*time.Duration(i)/time.Duration(domains))))
		nth := i * watched / domains
		wg.Go(func() { errs <- l.claim(ctx, i, pool.name, pool.slots, nth != (i+1)*watched/domains, nth%4 == 0) })
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (l *life) claim(ctx context.Context, i int, pool string, slots, watched, emergencies bool) error {
	name, mode := fmt.Sprintf("d%d.life.test", i), "delegated"
	if slots {
		mode = "cname"
	}
	var v domainView
	if err := l.w.must(ctx, l.w.nodes[i%nodeCount], http.MethodPost, "/v1/tenants/acme/domains?wait=served", map[string]any{"domain": name, "mode": mode, "pool": pool}, &v); err != nil {
		return err
	}
	if !slots {
		if err := l.w.must(ctx, l.w.nodes[i%nodeCount], http.MethodPost, "/v1/domains/"+v.Token+"/attest?wait=served", map[string]any{"reason": "chaos"}, nil); err != nil {
			return err
		}
	}
	s := &subject{
		name: name, token: v.Token, slots: slots, emergencies: emergencies,
		mail: map[string]mail{}, told: map[string]bool{}, pre: map[string]bool{}, excused: map[string]bool{},
		first: map[uint32]bool{},
	}
	l.mu.Lock()
	for _, k := range v.Keys {
		if k.Stage == "active" {
			s.first[k.ID] = true
			l.signed[v.Token+k.Selector] = true
		}
	}
	if watched {
		l.watched[v.Token] = s
		l.all = append(l.all, s)
	}
	l.mu.Unlock()
	if watched {
		l.queue.add(time.Now(), s, atRest, false)
	}
	return nil
}

// change is a line of the audit.
type change struct {
	Seq     uint64    `json:"seq"`
	At      time.Time `json:"at"`
	Command string    `json:"command"`
	Subject string    `json:"subject"`
	Key     string    `json:"key"`
	Summary string    `json:"summary"`
}

// follow takes the changes from a node as they happen. All nodes are followed at
// once: whoever is cut off tells late.
func (l *life) follow(ctx context.Context, n *node) {
	for ctx.Err() == nil {
		if err := l.stream(ctx, n); err != nil {
			pause(ctx, 50*time.Millisecond)
		}
	}
}

func (l *life) stream(ctx context.Context, n *node) error {
	l.mu.Lock()
	after := l.seq
	l.mu.Unlock()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/events?after=%d", n.url(), after), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+l.w.token)
	got, err := l.w.client[n.i-1].Do(r)
	if err != nil {
		return err
	}
	defer got.Body.Close()
	if got.StatusCode != http.StatusOK {
		return errors.New(got.Status)
	}
	for s := bufio.NewScanner(got.Body); s.Scan(); {
		data, ok := strings.CutPrefix(s.Text(), "data:")
		if !ok {
			continue
		}
		var c change
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			return err
		}
		if kind := l.take(&c); kind != "" {
			l.mu.Lock()
			s := l.watched[c.Subject]
			l.mu.Unlock()
			if s != nil {
				l.queue.add(time.Now(), s, kind, false)
			}
		}
	}
	return io.ErrUnexpectedEOF
}

// take counts a change that is new, and says of which kind it is; empty: of none.
func (l *life) take(c *change) (kind string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Seq <= l.seq {
		return ""
	}
	l.seq = c.Seq
	id := c.Subject + c.Key
	step, _, manual := strings.Cut(c.Summary, " by hand")
	switch {
	case c.Command == "RevokeKey":
		kind = onRequest
	case c.Command == "ReplaceKey":
		kind = emergency
		if !strings.Contains(c.Summary, "waits") && l.signed[id] {
			l.rotations++
		}
	case c.Command != "StepKey":
		return ""
	case step == "activate":
		kind = l.activates(c, id, manual)
	case strings.HasPrefix(step, "revoke put off"):
		kind = putOff
	default:
		slots := strings.HasPrefix(c.Key, "k")
		kind = stepKind(step, slots)
		switch step {
		case "publish":
			l.standbys[id] = standby{slots: slots}
			delete(l.signed, id)
		case "confirm":
			b, known := l.standbys[id]
			b.fresh, b.slots, b.confirmedAt = !known, slots, c.At
			l.standbys[id] = b
		}
	}
	if kind == "" {
		return ""
	}
	if l.table[kind] == nil {
		l.table[kind] = &counts{}
	}
	l.table[kind].seen++
	if l.rotations >= l.target && l.target > 0 {
		l.target = 0
		close(l.done)
	}
	return kind
}

// activates holds an activation of any domain against its standby's confirmation
// and what caches may have held then; mu is held.
func (l *life) activates(c *change, id string, manual bool) string {
	if l.signed[id] {
		return rolledBack
	}
	l.rotations++
	kind := activated
	if manual {
		kind = byHand
	}
	b, known := l.standbys[id]
	if !known {
		return kind // by a rotation of many, whose entry names no key
	}
	ready := b.confirmedAt
	switch {
	case b.fresh:
	case b.slots:
		ready = ready.Add(time.Hour) // the TTL of a key that signed there before
	default:
		ready = ready.Add(300 * time.Second) // of its absence
	}
	if b.confirmedAt.IsZero() || c.At.Before(ready) {
		if l.table[kind] == nil {
			l.table[kind] = &counts{}
		}
		l.table[kind].early++
		l.say("%s of %s activated at %s, confirmed at %s", c.Key, c.Subject, c.At, b.confirmedAt)
	}
	delete(l.standbys, id)
	l.signed[id] = true
	return kind
}

// poll asks the caches for standbys that are not confirmed: while a node does not
// know them a cache holds that they are not there.
func (l *life) poll(ctx context.Context) {
	const most = 16
	for ctx.Err() == nil {
		var names []string
		l.mu.Lock()
		all := l.all
		l.mu.Unlock()
		for _, s := range all {
			if s.mu.TryLock() {
				names = append(names, s.unseen...)
				s.mu.Unlock()
			}
			if len(names) >= most {
				break
			}
		}
		for _, name := range names {
			for _, c := range l.caches {
				_, _ = c.ask(name)
			}
		}
		pause(ctx, 40*time.Millisecond)
	}
}

// startLife starts a cluster for a run in scaled time.
func startLife(ctx context.Context, o options, out io.Writer) (*life, error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	primes := filepath.Join(o.dir, fmt.Sprintf("primes-%d", o.primes()))
	if err := writePrimes(primes, o.primes()); err != nil {
		return nil, fmt.Errorf("making primes: %w", err)
	}
	dir := filepath.Join(o.dir, "life")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &life{
		clock: startTime(o.factor), out: out, queue: newQueue(), watched: map[string]*subject{},
		random: rand.New(rand.NewPCG(o.seed, 3)), table: map[string]*counts{}, missed: map[string]int{}, faults: map[string]int{},
		requests: map[string]int{}, standbys: map[string]standby{}, signed: map[string]bool{}, done: make(chan struct{}), target: o.life,
	}
	for i := range l.caches {
		l.caches[i] = &cache{node: i + 1, clock: l.clock, held: map[string][]held{}}
	}
	w, err := newWorld(ctx, dir, o.binary, true, l.clock.now, l.clock.env(), "AUTHD_LAB_PRIMES="+primes)
	l.w = w
	return l, err
}
