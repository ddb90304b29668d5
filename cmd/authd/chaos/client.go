package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	think    = 20 * time.Millisecond
	backOff  = 50 * time.Millisecond
	retryFor = 15 * time.Second // with an Idempotency-Key
)

// client makes one request after the other.
type client struct {
	l      *load
	id     int
	node   int // the next request goes there
	round  int // the run that it last came home for
	count  int64
	random *rand.Rand
}

func (c *client) run(ctx context.Context) {
	for {
		select {
		case <-c.l.stop:
			return
		case <-time.After(think/2 + time.Duration(c.random.Int64N(int64(think)))):
		}
		c.home()
		c.l.running.RLock()
		o := c.one(ctx)
		c.l.running.RUnlock()
		if o != done {
			time.Sleep(backOff)
		}
	}
}

// home goes back, for a new run, to the node that this client began at. After a rolling
// restart all would be at one node, and its fault would seem to be everybody's.
func (c *client) home() {
	c.l.mu.Lock()
	round := c.l.round
	c.l.mu.Unlock()
	if round != c.round {
		c.round, c.node = round, c.id%nodeCount
	}
}

// one does one operation.
func (c *client) one(ctx context.Context) outcome {
	if c.id == servedClient {
		return c.writeOwn(ctx)
	}
	switch p := c.random.IntN(100); {
	case p < 45:
		return c.writeOwn(ctx)
	case p < 70:
		return c.writeShared(ctx)
	case p < 85:
		return c.contest(ctx)
	case p < 95:
		return c.claim(ctx)
	default:
		return c.rotate(ctx)
	}
}

// try makes one request and says what became of it. Where the node cannot be
// reached, or does not serve, the next request goes to another.
func (c *client) try(ctx context.Context, method, path string, body any, onceKey string) (*response, int, outcome) {
	node := c.node
	header := map[string]string{}
	if onceKey != "" {
		header["Idempotency-Key"] = onceKey
	}
	r, err := c.l.w.request(ctx, c.l.w.nodes[node], method, path, body, header)
	if err != nil {
		c.node = (c.node + 1) % nodeCount
		if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
			return nil, node, refused
		}
		return nil, node, unknown
	}
	if r.status == http.StatusServiceUnavailable {
		c.node = (c.node + 1) % nodeCount // it says so: no leader, fenced off, stopped
	}
	return r, node, judge(r)
}

// judge sorts replies to writes.
func judge(r *response) outcome {
	var problem struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(r.body, &problem) // no problem document: the status says enough
	switch {
	case r.status/100 == 2, problem.Code == "not_served_yet":
		return done
	case problem.Code == "outcome_unknown", r.status == http.StatusInternalServerError, r.status == http.StatusGatewayTimeout:
		return unknown
	}
	return refused
}

// firmly repeats a request with an Idempotency-Key until its outcome is known.
func (c *client) firmly(ctx context.Context, method, path string, body any) (r *response, node int, o outcome) {
	key := fmt.Sprintf("chaos-%d-%d-%d", c.l.seed, c.id, c.l.serial.Add(1))
	maybe := false
	for deadline := time.Now().Add(retryFor); ; {
		r, node, o = c.try(ctx, method, path, body, key)
		switch {
		case o == done:
			return r, node, o
		case o == unknown:
			maybe = true
		case r != nil && r.status/100 == 4 && r.status != http.StatusTooManyRequests:
			return r, node, o // decided, by the machine
		case !maybe:
			return r, node, o
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return r, node, unknown
		}
		c.node = (c.node + 1) % nodeCount
		time.Sleep(backOff)
	}
}

// writeOwn raises a register of this client's own. One whose write has an
// unknown outcome is left alone, so that it can only go up.
func (c *client) writeOwn(ctx context.Context) outcome {
	c.l.mu.Lock()
	mine := c.l.active[c.id]
	c.l.mu.Unlock()
	if len(mine) == 0 {
		if err := c.l.newRegister(ctx, c.id); err != nil {
			return refused
		}
		return done
	}
	k := c.random.IntN(len(mine))
	r := mine[k]
	number := r.ceiling.Load() + 1
	r.ceiling.Store(number)
	path, once := recordPath(r.domain, r.label), c.random.IntN(3) == 0
	if c.id == servedClient {
		path += "?wait=served"
	}
	from := time.Now()
	var reply *response
	var node int
	var o outcome
	if once {
		reply, node, o = c.firmly(ctx, http.MethodPut, path, recordBody(number))
	} else {
		reply, node, o = c.try(ctx, http.MethodPut, path, recordBody(number), "")
	}
	c.l.past.Load().note(operation{client: c.id, key: r.name(), kind: put, value: value(number), from: from, to: time.Now(), outcome: o})
	switch o {
	case done:
		raise(&r.acked, number)
		raise(&r.seen[node], number)
		if c.id == servedClient {
			if reply.status == http.StatusOK {
				raise(&r.served, number)
			}
		} else {
			c.l.acknowledged(from)
		}
	case unknown:
		c.l.mu.Lock()
		c.l.active[c.id] = append(mine[:k:k], mine[k+1:]...)
		c.l.mu.Unlock()
	}
	return o
}

// writeShared writes a register that all clients write, and then reads another at
// the same node. A node that has answered a write has applied all that was
// acknowledged before it, so the read is as good as one at the leader, at a
// moment since the write began.
func (c *client) writeShared(ctx context.Context) outcome {
	domain, label := c.shared()
	c.count++
	v := fmt.Sprintf("v%d-%d", c.id, c.l.serial.Add(1))
	from := time.Now()
	_, node, o := c.try(ctx, http.MethodPut, recordPath(domain, label), map[string]any{"ttl": 60, "values": []string{v}}, "")
	c.l.past.Load().note(operation{client: c.id, key: label + "." + domain, kind: put, value: v, from: from, to: time.Now(), outcome: o})
	if o != done {
		return o
	}
	c.l.acknowledged(from)
	domain, label = c.shared()
	if got, err := c.l.w.record(ctx, c.l.w.nodes[node], domain, label); err == nil {
		c.l.past.Load().note(operation{client: c.id, key: label + "." + domain, kind: get, value: got, from: from, to: time.Now()})
	}
	return done
}

func (c *client) shared() (domain, label string) {
	return delegation(c.random.IntN(delegations)), fmt.Sprintf("s%d", c.random.IntN(sharedRegisters))
}

// record reads a TXT record at a node; empty where there is none.
func (w *world) record(ctx context.Context, n *node, domain, label string) (string, error) {
	r, err := w.request(ctx, n, http.MethodGet, "/v1/domains/"+domain+"/records", nil, nil)
	if err != nil {
		return "", err
	}
	var all struct {
		Items []struct {
			Name   string   `json:"name"`
			Type   string   `json:"type"`
			Values []string `json:"values"`
		} `json:"items"`
	}
	if r.status != http.StatusOK {
		return "", fmt.Errorf("%d: %s", r.status, r.body)
	}
	if err := json.Unmarshal(r.body, &all); err != nil {
		return "", err
	}
	for _, x := range all.Items {
		if x.Name == label && x.Type == "TXT" && len(x.Values) == 1 {
			return strings.Trim(x.Values[0], `"`), nil
		}
	}
	return "", nil
}

// claimed is the token of the claim to a name at a node; empty where there is none.
func (w *world) claimed(ctx context.Context, n *node, name string) (string, error) {
	r, err := w.request(ctx, n, http.MethodGet, "/v1/domains/"+name, nil, nil)
	if err != nil {
		return "", err
	}
	switch r.status {
	case http.StatusNotFound:
		return "", nil
	case http.StatusOK:
		return tokenOf(r), nil
	}
	return "", fmt.Errorf("%d: %s", r.status, r.body)
}

func tokenOf(r *response) string {
	var d struct {
		Token string `json:"token"`
	}
	_ = json.Unmarshal(r.body, &d) // no token: what compares it says so
	return d.Token
}

// contest claims a name that others claim too, or drops it where it is claimed.
func (c *client) contest(ctx context.Context) outcome {
	name := contestedName(c.random.IntN(contested))
	token, err := c.l.w.claimed(ctx, c.l.w.nodes[c.node], name)
	if err != nil {
		c.node = (c.node + 1) % nodeCount
		return refused
	}
	from := time.Now()
	var r *response
	var o outcome
	op := operation{client: c.id, key: name, kind: add}
	var node int
	if token == "" {
		r, node, o = c.try(ctx, http.MethodPost, "/v1/tenants/acme/domains", map[string]any{"domain": name, "mode": "cname"}, "")
		switch {
		case o == done:
			op.value = tokenOf(r)
		case r != nil && r.status == http.StatusGone:
			// It was made, and dropped by another before the reply was put together.
			o = unknown
		}
	} else {
		op.kind, op.value = drop, token
		_, node, o = c.try(ctx, http.MethodDelete, "/v1/domains/"+token+"?now=true&reason="+url.QueryEscape("the load drops it"), nil, "")
	}
	op.from, op.to, op.outcome = from, time.Now(), o
	c.l.past.Load().note(op)
	if o != done {
		// A refusal may rest on what the node had applied: no fault.
		if o == refused && r != nil && r.status/100 == 4 {
			return done
		}
		return o
	}
	c.l.acknowledged(from)
	name = contestedName(c.random.IntN(contested))
	if got, err := c.l.w.claimed(ctx, c.l.w.nodes[node], name); err == nil {
		c.l.past.Load().note(operation{client: c.id, key: name, kind: get, value: got, from: from, to: time.Now()})
	}
	return done
}

// claim claims a new name, once and for all.
func (c *client) claim(ctx context.Context) outcome {
	name := fmt.Sprintf("u%d-%d.claims.test", c.id, c.l.serial.Add(1))
	from := time.Now()
	r, _, o := c.firmly(ctx, http.MethodPost, "/v1/tenants/acme/domains", map[string]any{"domain": name, "mode": "cname"})
	op := operation{client: c.id, key: name, kind: add, from: from, to: time.Now(), outcome: o}
	if o == done {
		op.value = tokenOf(r)
		c.l.acknowledged(from)
		c.l.mu.Lock()
		c.l.claims = append(c.l.claims, claim{name, op.value, question("k1." + op.value + ".dkim.p-dns.test")})
		c.l.mu.Unlock()
	}
	c.l.past.Load().note(op)
	return o
}

// rotate switches a domain to its next key.
func (c *client) rotate(ctx context.Context) outcome {
	from := time.Now()
	r, _, o := c.try(ctx, http.MethodPost, "/v1/domains/"+delegation(c.random.IntN(delegations))+"/rotate",
		map[string]any{"emergency": true, "reason": "chaos"}, "")
	switch {
	case o == done:
		c.l.acknowledged(from)
	case o == refused && r != nil && r.status/100 == 4:
		return done // too early, or no slot: decided
	}
	return o
}
