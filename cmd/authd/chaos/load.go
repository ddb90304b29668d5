package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// What the load works on: delegated domains with records, names that clients
// claim and drop against each other, and names that each client claims once.
const (
	clients         = 9
	servedClient    = 0 // waits until every node serves what it wrote
	delegations     = 6
	sharedRegisters = 3 // a domain
	contested       = 6
)

func delegation(i int) string    { return fmt.Sprintf("d%d.chaos.test", i) }
func contestedName(i int) string { return fmt.Sprintf("c%d.contested.test", i) }

// claim is a name that was claimed once and must stay.
type claim struct {
	name, token string
	query       []byte
}

// load are the clients and what they know.
type load struct {
	w    *world
	seed uint64

	past    atomic.Pointer[history]
	running sync.RWMutex // clients hold it for reading while they work
	stop    chan struct{}
	wg      sync.WaitGroup
	serial  atomic.Int64

	mu     sync.Mutex // guards what follows
	own    []*register
	active [clients][]*register
	claims []claim
	round  int       // of runs
	last   time.Time // of the last acknowledged write
	worst  time.Duration
	struck time.Time     // when the fault came
	back   time.Duration // until the first write that was begun after it was acknowledged; 0: none yet
}

// setUp gives a new cluster what the load works on.
func (l *load) setUp(ctx context.Context) error {
	n := l.w.nodes[0]
	steps := []struct {
		method, path string
		body         any
	}{
		{"PUT", "/v1/nameservers/ns1", map[string]any{"addresses": []string{"192.0.2.53"}}},
		{"PUT", "/v1/nameservers/ns2", map[string]any{"addresses": []string{"198.51.100.53"}}},
		{"PUT", "/v1/zones/p-dns.test", map[string]any{}},
		{"PUT", "/v1/pools/default", map[string]any{
			"spf": []string{"ip4:192.0.2.0/24"}, "spf_all": "~all",
			"mx":    []any{map[string]any{"preference": 10, "host": "mx1.p-dns.test."}},
			"click": map[string]any{"a": []string{"192.0.2.80"}},
		}},
		{"POST", "/v1/tenants", map[string]any{"id": "acme", "name": "Acme"}},
	}
	for i := range delegations {
		steps = append(steps,
			struct {
				method, path string
				body         any
			}{"POST", "/v1/tenants/acme/domains", map[string]any{"domain": delegation(i), "mode": "delegated"}},
			struct {
				method, path string
				body         any
			}{"POST", "/v1/domains/" + delegation(i) + "/attest?wait=served", map[string]any{"reason": "chaos"}})
	}
	for _, s := range steps {
		if err := l.w.must(ctx, n, s.method, s.path, s.body, nil); err != nil {
			return err
		}
	}
	for c := range clients {
		for range 2 {
			if err := l.newRegister(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

// newRegister makes a record for a client, and waits until all nodes answer it.
func (l *load) newRegister(ctx context.Context, client int) error {
	k := l.serial.Add(1)
	r := &register{domain: delegation(int(k) % delegations), label: fmt.Sprintf("r%d", k)}
	r.query = question(r.name())
	r.ceiling.Store(1)
	r.acked.Store(1)
	path := recordPath(r.domain, r.label) + "?wait=served"
	body, from := recordBody(1), time.Now()
	for _, n := range l.w.nodes { // whichever takes it
		got, err := l.w.request(ctx, n, http.MethodPut, path, body, nil)
		if err == nil && got.status == http.StatusOK {
			r.served.Store(1)
			l.past.Load().note(operation{client: client, key: r.name(), kind: put, value: value(1), from: from, to: time.Now()})
			l.mu.Lock()
			l.own = append(l.own, r)
			l.active[client] = append(l.active[client], r)
			l.mu.Unlock()
			return nil
		}
	}
	return fmt.Errorf("adding record %s: no node takes it", r.name())
}

func recordPath(domain, label string) string {
	return "/v1/domains/" + domain + "/records/" + label + "/TXT"
}

func recordBody(number int64) map[string]any {
	return map[string]any{"ttl": 60, "values": []string{value(number)}}
}

// registers are all that have been written, also those that rest.
func (l *load) registers() []*register {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own[:len(l.own):len(l.own)]
}

func (l *load) start(ctx context.Context) {
	l.stop = make(chan struct{})
	for i := range clients {
		c := &client{l: l, id: i, node: i % nodeCount, random: rand.New(rand.NewPCG(l.seed, uint64(i)))}
		l.wg.Go(func() { c.run(ctx) })
	}
}

func (l *load) end() {
	close(l.stop)
	l.wg.Wait()
}

// acknowledged notes a write that was confirmed.
func (l *load) acknowledged(from time.Time) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.IsZero() {
		l.worst = max(l.worst, now.Sub(l.last))
	}
	l.last = now
	if !l.struck.IsZero() && l.back == 0 && from.After(l.struck) {
		l.back = now.Sub(l.struck)
	}
}

// begin starts the count of a run; strike is the moment of its fault.
func (l *load) begin() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.round++
	l.last, l.worst, l.struck, l.back = time.Time{}, 0, time.Time{}, 0
}

func (l *load) strike() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.struck, l.back, l.worst, l.last = time.Now(), 0, 0, time.Now()
}

// gaps are the longest time without an acknowledged write since the fault, and
// the time to the first that was begun after it.
func (l *load) gaps() (worst, back time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.worst, l.back
}
