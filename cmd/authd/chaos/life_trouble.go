package main

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"syscall"
	"time"
)

// trouble hurts the cluster again and again, and heals it.
func (l *life) trouble(ctx context.Context, seed uint64) error {
	t := &trial{world: l.w, random: mathrand.New(mathrand.NewPCG(seed, 4))}
	hurts := []struct {
		name   string
		weight int
		leader bool
		do     func(n *node) error
	}{
		{"follower killed", 4, false, func(n *node) error { return l.kill(ctx, n, t.between(0, 3*time.Second)) }},
		{"leader killed", 3, true, func(n *node) error { return l.kill(ctx, n, t.between(0, 3*time.Second)) }},
		{"follower cut off", 3, false, func(n *node) error { return l.burnBehind(ctx, t, n) }},
		{"leader cut off", 2, true, func(n *node) error { return cutOff(ctx, t, n, false, false) }},
		{"leader deaf", 1, true, func(n *node) error { return cutOff(ctx, t, n, false, true) }},
		{"leader mute", 1, true, func(n *node) error { return cutOff(ctx, t, n, true, false) }},
		{"leadership handed over", 3, true, func(n *node) error {
			return l.w.must(ctx, n, http.MethodPost, "/v1/cluster/leader", map[string]any{}, nil)
		}},
		{"restarted", 2, false, func(n *node) error {
			if err := n.stop(); err != nil {
				return err
			}
			return n.start()
		}},
		{"handed to a successor", 2, false, func(n *node) error {
			pid, err := n.pid()
			if err != nil {
				return err
			}
			return syscall.Kill(pid, syscall.SIGHUP)
		}},
	}
	var deck []int
	for i, h := range hurts {
		for range h.weight {
			deck = append(deck, i)
		}
	}
	for {
		pause(ctx, t.between(1500*time.Millisecond, 6*time.Second))
		if ctx.Err() != nil {
			return nil
		}
		h := hurts[deck[t.random.IntN(len(deck))]]
		n, err := l.w.leader(ctx)
		if err == nil && !h.leader {
			n = t.others(n)[t.random.IntN(nodeCount-1)]
		}
		if err == nil {
			err = h.do(n)
		}
		if err == nil {
			err = l.w.whole(ctx, recoverLimit)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", h.name, err)
		}
		l.mu.Lock()
		l.faults[h.name]++
		l.mu.Unlock()
	}
}

func (l *life) kill(ctx context.Context, n *node, down time.Duration) error {
	if err := n.kill(); err != nil {
		return err
	}
	pause(ctx, down)
	return n.start()
}

// burnBehind cuts a follower off and has keys made anew meanwhile, in an emergency:
// they must not sign before that node answers them too, however long it takes. It
// takes longer than the leader waits for an answer.
func (l *life) burnBehind(ctx context.Context, t *trial, n *node) error {
	if err := t.isolate(n, false, false); err != nil {
		return err
	}
	const keys = 4
	hasty := l.hasty()
	for range keys {
		l.order(ctx, storeLeaked(), hasty[t.random.IntN(len(hasty))], t.others(n)[t.random.IntN(nodeCount-1)])
	}
	pause(ctx, t.between(7*time.Second, 12*time.Second))
	return t.rejoin(n)
}

func cutOff(ctx context.Context, t *trial, n *node, hears, sends bool) error {
	d := t.between(2*time.Second, 10*time.Second)
	if err := t.isolate(n, hears, sends); err != nil {
		return err
	}
	pause(ctx, d)
	return t.rejoin(n)
}

// order is something that operators ask for.
type order struct {
	name    string
	weight  int
	revokes bool // so that mail may fail by request
	// ask is the request, and the key that it is for.
	ask func(s *subject, v *domainView) (path string, body map[string]any, key keyView)
}

// rotate is the name of a plain rotation, after which some want the old key back.
const rotate = "rotate"

func rollBack() order {
	return order{"roll back", 2, false, func(s *subject, v *domainView) (string, map[string]any, keyView) {
		k := keyAt(v, "active")
		return "/v1/domains/" + s.token + "/rollback", map[string]any{"from": k.Selector, "reason": "chaos"}, k
	}}
}

// urgent is a request of an emergency.
func urgent(old, compromised string) func(s *subject, v *domainView) (string, map[string]any, keyView) {
	return func(s *subject, v *domainView) (string, map[string]any, keyView) {
		k := keyAt(v, "active")
		return "/v1/domains/" + s.token + "/rotate", map[string]any{"from": k.Selector, "emergency": true, "old": old, "compromised": compromised, "reason": "chaos"}, k
	}
}

func storeLeaked() order { return order{"emergency, store", 1, true, urgent("drain", "store")} }

func orders() []order {
	plain := func(s *subject, v *domainView) (string, map[string]any, keyView) {
		k := keyAt(v, "active")
		return "/v1/domains/" + s.token + "/rotate", map[string]any{"from": k.Selector}, k
	}
	return []order{
		{rotate, 6, false, plain},
		rollBack(),
		{"rotation of one by /v1/rotations", 2, false, func(s *subject, v *domainView) (string, map[string]any, keyView) {
			return "/v1/rotations", map[string]any{"scope": map[string]any{"domains": []string{s.token}}, "reason": "chaos"}, keyAt(v, "active")
		}},
		{"emergency, drain", 1, true, urgent("drain", "key")},
		{"emergency, revoke", 1, true, urgent("revoke", "key")},
		{"emergency, revoke when switched", 1, true, urgent("revoke_when_switched", "key")},
		storeLeaked(),
		{"revoke a draining key", 2, true, func(s *subject, v *domainView) (string, map[string]any, keyView) {
			k := keyAt(v, "draining")
			return "/v1/domains/" + s.token + "/keys/" + k.Selector + "/revoke", map[string]any{"reason": "chaos"}, k
		}},
	}
}

// keyAt is a key at a stage, the zero one where there is none.
func keyAt(v *domainView, stage string) keyView {
	for _, k := range v.Keys {
		if k.Stage == stage {
			return k
		}
	}
	return keyView{}
}

// hasty are the domains that operators ask for in haste.
func (l *life) hasty() (list []*subject) {
	for _, s := range l.all {
		if s.emergencies {
			list = append(list, s)
		}
	}
	return list
}

// operate asks for rotations by hand, in emergencies, back and forth.
func (l *life) operate(ctx context.Context, seed uint64, each time.Duration) {
	random := mathrand.New(mathrand.NewPCG(seed, 5))
	var deck []order
	for _, o := range orders() {
		for range o.weight {
			deck = append(deck, o)
		}
	}
	hasty := l.hasty()
	for ctx.Err() == nil {
		pause(ctx, time.Duration(random.Int64N(int64(2*each))))
		o, list := deck[random.IntN(len(deck))], l.all
		if o.revokes {
			list = hasty
		}
		s, n := list[random.IntN(len(list))], l.w.nodes[random.IntN(nodeCount)]
		did := l.order(ctx, o, s, n)
		switch again := random.IntN(3); {
		case !did || o.name != rotate:
		case again == 0:
			pause(ctx, time.Duration(random.Int64N(int64(l.clock.real(24*time.Hour)/2))))
			l.order(ctx, rollBack(), s, n)
		case again == 1: // once more at once: the standby after it has to be seen by all
			pause(ctx, 300*time.Millisecond)
			l.order(ctx, o, s, n)
		}
	}
}

// order asks for something and says whether it was done.
func (l *life) order(ctx context.Context, o order, s *subject, n *node) bool {
	v, err := l.domain(ctx, s.token)
	if err != nil {
		return false
	}
	path, body, key := o.ask(s, v)
	if key.Selector == "" {
		return false
	}
	if o.revokes {
		// The request names one key; in slots an emergency may take the older ones too,
		// to make room.
		s.mu.Lock()
		for _, k := range v.Keys {
			if k.ID == key.ID && body["old"] != "drain" || s.slots && body["emergency"] != nil && k.Stage == "draining" {
				s.excused[pOf(k.Public)] = true
			}
		}
		s.mu.Unlock()
	}
	r, err := l.w.request(ctx, n, http.MethodPost, path, body, nil)
	did := err == nil && r.status/100 == 2
	what := o.name
	if !did {
		what += ": not done"
	}
	l.mu.Lock()
	l.requests[what]++
	l.mu.Unlock()
	return did
}
