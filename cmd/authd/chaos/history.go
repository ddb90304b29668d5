package main

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// outcome is what a client knows of its operation.
type outcome int

const (
	done    outcome = iota // it happened
	refused                // it certainly did not
	unknown                // it may have, or may yet
)

// kind is what an operation does to its key.
type kind int

const (
	put  kind = iota // a record gets a value
	add              // a name is claimed; the value is the claim's token
	drop             // the claim with a token ends
	get              // the value, or the token; empty: none
)

// operation is one call of a client, from before it was sent until after its
// answer came.
type operation struct {
	client     int
	key        string
	kind       kind
	value      string
	from, to   time.Time
	outcome    outcome
	carriedOff bool // unknown, of an earlier history
}

// unknownToken is a claim whose token its client was never told.
const unknownToken = "?"

// history collects the operations of one run. Safe for concurrent use.
type history struct {
	mu    sync.Mutex
	start time.Time
	ops   []operation
}

func newHistory() *history { return &history{start: time.Now()} }

func (h *history) note(o operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, o)
}

// tallied is how many operations there were, and how many succeeded.
func (h *history) tallied() (all, succeeded int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		if o.carriedOff {
			continue
		}
		all++
		if o.outcome == done {
			succeeded++
		}
	}
	return all, succeeded
}

// unknowns are operations that may yet happen, for the history that follows.
func (h *history) unknowns(since time.Time) (left []operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		if o.outcome == unknown && o.from.After(since) {
			o.carriedOff = true
			left = append(left, o)
		}
	}
	return left
}

// model is one key at a time: a register, or a name that is claimed or not. A
// claim's token is drawn by the server; one that got lost on its way is "?".
func model() porcupine.Model {
	return porcupine.Model{
		Partition: func(all []porcupine.Operation) (parts [][]porcupine.Operation) {
			byKey := map[string]int{}
			for _, o := range all {
				key := o.Input.(operation).key
				i, known := byKey[key]
				if !known {
					i = len(parts)
					byKey[key] = i
					parts = append(parts, nil)
				}
				parts[i] = append(parts[i], o)
			}
			return parts
		},
		Init: func() any { return "" },
		Step: func(s, input, _ any) (bool, any) { return step(s.(string), input.(operation)) },
		DescribeOperation: func(input, _ any) string {
			o := input.(operation)
			return o.key + ": " + o.String()
		},
		DescribeState: func(s any) string { return s.(string) },
	}
}

// step applies one operation to a key's state, and says whether it can have had
// its outcome there.
func step(state string, o operation) (bool, string) {
	switch o.kind {
	case put:
		return true, o.value
	case add:
		if o.outcome == unknown {
			if state == "" {
				return true, unknownToken
			}
			return true, state
		}
		return state == "", o.value
	case drop:
		if state != o.value && state != unknownToken {
			return true, state // it was gone: dropping it again is no fault
		}
		return true, ""
	default:
		if state == unknownToken && o.value != "" {
			return true, o.value
		}
		return state == o.value, state
	}
}

// checkTime bounds the search for an order; what it ends without is not legal.
const checkTime = 30 * time.Second

// check looks for an order of the operations in which each had its outcome. What
// is unknown stays open to the end: it may have happened at any time since it was
// sent, and where it did not, it is as good as after everything.
func (h *history) check() porcupine.CheckResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []porcupine.Operation
	for _, o := range h.ops {
		if o.outcome == refused {
			continue
		}
		to := o.to.Sub(h.start).Nanoseconds()
		if o.outcome == unknown {
			to = math.MaxInt64
		}
		all = append(all, porcupine.Operation{
			ClientId: o.client, Input: o, Call: o.from.Sub(h.start).Nanoseconds(), Return: to,
		})
	}
	return porcupine.CheckOperationsTimeout(model(), all, checkTime)
}

// culprits are the keys whose part of the history is illegal, with their operations.
func (h *history) culprits() (lines []string) {
	byKey := map[string]*history{}
	for _, o := range h.ops {
		if byKey[o.key] == nil {
			byKey[o.key] = &history{start: h.start}
		}
		byKey[o.key].ops = append(byKey[o.key].ops, o)
	}
	for key, part := range byKey {
		if part.check() != porcupine.Illegal {
			continue
		}
		lines = append(lines, "no order for "+key+":")
		for _, o := range part.ops {
			lines = append(lines, fmt.Sprintf("  %.4f to %.4f client %d %s", o.from.Sub(h.start).Seconds(), o.to.Sub(h.start).Seconds(), o.client, o))
		}
	}
	return lines
}

func (o operation) String() string {
	return fmt.Sprintf("%s %q, %s", [...]string{"put", "add", "drop", "get"}[o.kind], o.value, [...]string{"done", "refused", "unknown"}[o.outcome])
}
