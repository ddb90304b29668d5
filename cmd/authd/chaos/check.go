package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// verdict is what the checks after a fault found.
type verdict struct {
	lost, wrong int
	illegal     bool
	undecided   bool
	differ      bool
	complaints  []string
	culprits    []string // the operations of an illegal history
}

func (v *verdict) say(format string, args ...any) {
	v.complaints = append(v.complaints, fmt.Sprintf(format, args...))
}

// verify holds the whole cluster, at rest, against what clients were told. from
// is the first claim that no earlier check has looked at.
func (l *load) verify(ctx context.Context, from int) (v verdict, err error) {
	if err := l.level(ctx); err != nil {
		return v, err
	}
	h := l.past.Load()
	l.verifyRegisters(&v)
	l.verifyClaims(&v, from)
	if err := l.readBack(ctx, h, &v); err != nil {
		return v, err
	}
	if err := l.sameImages(ctx); err != nil {
		v.differ = true
		v.say("%v", err)
	}
	switch h.check() {
	case porcupine.Illegal:
		v.illegal = true
		v.say("the history has no order")
		v.culprits = h.culprits()
	case porcupine.Unknown:
		v.undecided = true
		v.say("no order was found for the history in %s", checkTime)
	}
	return v, nil
}

// level waits until all nodes have applied a write that begins now.
func (l *load) level(ctx context.Context) error {
	path := recordPath(delegation(0), "level") + "?wait=served"
	return until(ctx, recoverLimit, "all nodes level", func() error {
		r, err := l.w.request(ctx, l.w.nodes[0], http.MethodPut, path, recordBody(l.serial.Add(1)), nil)
		if err != nil {
			return err
		}
		if r.status != http.StatusOK {
			return fmt.Errorf("%d: %s", r.status, r.body)
		}
		return nil
	})
}

// verifyRegisters asks every node for every record.
func (l *load) verifyRegisters(v *verdict) {
	for _, r := range l.registers() {
		values := map[string]bool{}
		for i := range l.w.nodes {
			text, err := askPatiently(i+1, r.query)
			if err != nil {
				v.wrong++
				v.say("node-%d, asked for %s: %v", i+1, r.name(), err)
				continue
			}
			values[text] = true
			number, err := strconv.ParseInt(strings.TrimPrefix(text, "v"), 10, 64)
			switch acked := r.acked.Load(); {
			case err != nil || number > r.ceiling.Load():
				v.wrong++
				v.say("node-%d has %s as %q, and nobody wrote that", i+1, r.name(), text)
			case number < acked:
				v.lost++
				v.say("node-%d has %s at %d, acknowledged was %d", i+1, r.name(), number, acked)
			}
		}
		if len(values) > 1 {
			v.wrong++
			v.say("nodes differ in %s: %v", r.name(), values)
		}
	}
}

// verifyClaims asks every node for the key of every claim.
func (l *load) verifyClaims(v *verdict, from int) {
	l.mu.Lock()
	claims := l.claims[from:]
	l.mu.Unlock()
	for _, c := range claims {
		for i := range l.w.nodes {
			if text, err := askPatiently(i+1, c.query); err != nil || !strings.HasPrefix(text, "v=DKIM1") {
				v.lost++
				v.say("node-%d does not answer for claim %s of %s: %q %v", i+1, c.token, c.name, text, err)
			}
		}
	}
}

// askPatiently asks again where nothing came; what came counts at once.
func askPatiently(n int, query []byte) (text string, err error) {
	for range 3 {
		if text, err = ask(n, query); err == nil || !isTimeout(err) {
			return text, err
		}
	}
	return text, err
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// readBack ends the history with what all that was written is now. All nodes
// are level, so any will do.
func (l *load) readBack(ctx context.Context, h *history, v *verdict) error {
	n := l.w.nodes[0]
	note := func(key, value string, from time.Time) {
		h.note(operation{client: clients, key: key, kind: get, value: value, from: from, to: time.Now()})
	}
	read := func(label, domain string) error {
		from := time.Now()
		got, err := l.w.record(ctx, n, domain, label)
		if err == nil {
			note(label+"."+domain, got, from)
		}
		return err
	}
	for i := range delegations {
		for k := range sharedRegisters {
			if err := read(fmt.Sprintf("s%d", k), delegation(i)); err != nil {
				return err
			}
		}
	}
	for _, r := range l.registers() {
		from := time.Now()
		text, err := askPatiently(n.i, r.query)
		if err != nil {
			return err
		}
		note(r.name(), text, from)
	}
	for i := range contested {
		from := time.Now()
		got, err := l.w.claimed(ctx, n, contestedName(i))
		if err != nil {
			v.wrong++
			v.say("%s: %v", contestedName(i), err)
			continue
		}
		note(contestedName(i), got, from)
	}
	return nil
}

// carry starts the next history where this one ended: with what was read back,
// and with what may yet happen.
func (l *load) carry() {
	old := l.past.Load()
	next := newHistory()
	last := map[string]operation{}
	old.mu.Lock()
	for _, o := range old.ops {
		if o.kind == get && o.client == clients {
			last[o.key] = o
		}
	}
	old.mu.Unlock()
	begin := next.start
	for key, o := range last {
		o.kind, o.carriedOff = put, true
		if strings.HasSuffix(key, ".contested.test") && o.value != "" {
			o.kind = add
		}
		o.from, o.to = begin, begin.Add(1)
		if o.value != "" {
			next.note(o)
		}
	}
	for _, o := range old.unknowns(time.Now().Add(-2 * time.Minute)) {
		o.from = begin.Add(2)
		next.note(o)
	}
	l.past.Store(next)
}

// sameImages compares the machines of all nodes, as each would save it.
func (l *load) sameImages(ctx context.Context) error {
	return until(ctx, 20*time.Second, "equal machines", func() error {
		var sums [nodeCount][sha256.Size]byte
		for i, n := range l.w.nodes {
			r, err := l.w.request(ctx, n, http.MethodGet, "/v1/cluster/snapshot", nil, nil)
			if err != nil {
				return err
			}
			if r.status != http.StatusOK {
				return fmt.Errorf("%d: %s", r.status, bytes.TrimSpace(r.body))
			}
			sums[i] = sha256.Sum256(r.body)
		}
		for i := 1; i < nodeCount; i++ {
			if sums[i] != sums[0] {
				return fmt.Errorf("node-1 and node-%d differ", i+1)
			}
		}
		return nil
	})
}

// dark asks one node that runs alone for all that it must still know: what it had
// shown, and what every node had confirmed. Where it lost power, forgiven is what
// it had shown: what it forgot of that is counted, and no fault.
func (l *load) dark(n *node, forgiven map[*register]int64) (v verdict, forgotten int) {
	for _, r := range l.registers() {
		text, err := askPatiently(n.i, r.query)
		if err != nil {
			v.wrong++
			v.say("%s alone, asked for %s: %v", n.id(), r.name(), err)
			continue
		}
		number, err := strconv.ParseInt(strings.TrimPrefix(text, "v"), 10, 64)
		served, seen := r.served.Load(), r.seen[n.i-1].Load()
		switch {
		case err != nil || number > r.ceiling.Load():
			v.wrong++
			v.say("%s alone has %s as %q, and nobody wrote that", n.id(), r.name(), text)
		case number < served:
			v.lost++
			v.say("%s alone has %s at %d, confirmed by all was %d", n.id(), r.name(), number, served)
		case number < forgiven[r]:
			forgotten++
		case number < seen:
			v.lost++
			v.say("%s alone has %s at %d, it had answered %d", n.id(), r.name(), number, seen)
		}
	}
	return v, forgotten
}
