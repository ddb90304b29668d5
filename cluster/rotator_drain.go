package cluster

import (
	"fmt"
	"strings"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

// switchRest is how long a key that waits for its signers is left alone before
// they are asked for again.
const switchRest = 5 * time.Second

// runDrain asks the nodes about draining keys that are due. One that does not say
// what it saw holds them, and nothing else.
func (r *rotator) runDrain() {
	for {
		select {
		case c := <-r.drain:
			r.drained(c)
			r.wake()
		case <-r.node.ctx.Done():
			return
		}
	}
}

func (r *rotator) drained(c confirmation) {
	m := r.node.Machine()
	if !r.clock.serves(m.Time()) {
		return
	}
	now := r.node.c.Now().Unix()
	var asks []keyAsk
	var overdue, of []state.Task
	for _, t := range c.tasks {
		d, ok := m.Domain(t.Token)
		if !ok {
			continue
		}
		ring := d.Ring()
		k, ok := ring.ByID(t.Step.Key)
		switch {
		case !ok:
		case r.holds(m, t, now, nil) == 0:
			overdue = append(overdue, t)
		default:
			asks, of = append(asks, askOf(m, d, ring, k)), append(of, t)
		}
	}
	if len(overdue) > 0 {
		// Their time is up whatever anybody saw: a node that does not say is not waited for.
		r.propose(overdue, func(t state.Task) (state.Command, error) { return state.StepKey{Token: t.Token, Step: t.Step}, nil })
	}
	if len(asks) == 0 {
		return
	}
	uses := r.node.gather(r.node.ctx, evidenceAsk{Index: c.index, Keys: asks, Now: now})
	now = r.node.c.Now().Unix() // a node that did not answer was waited for
	var ready []state.Task
	missing := ""
	for i, t := range of {
		e := uses[i].Evidence(asks[i].Hold, now)
		if !e.Complete {
			missing = strings.Join(uses[i].Missing, ", ")
		}
		if rested := r.holds(m, t, now, &e); rested > 0 {
			r.lay(t, rested)
			continue
		}
		t.Step.Evidence = &e
		ready = append(ready, t)
	}
	r.mu.Lock()
	r.unheard = ""
	if missing != "" {
		r.unheard = fmt.Sprintf("%d draining keys wait: %s did not say whether they are still asked for", len(of)-len(ready), missing)
	}
	r.mu.Unlock()
	r.propose(ready, func(t state.Task) (state.Command, error) {
		return state.StepKey{Token: t.Token, Step: t.Step}, nil
	})
}

// holds says how long to leave a revocation alone that the machine would refuse
// for now; 0: propose it.
func (r *rotator) holds(m state.Machine, t state.Task, now int64, e *keys.Evidence) time.Duration {
	d, ok := m.Domain(t.Token)
	if !ok {
		return refusedRest
	}
	policy := keys.DefaultPolicy()
	if pool, ok := m.Pool(d.Pool); ok {
		policy = pool.Policy
	}
	ring := d.Ring()
	k, _ := ring.ByID(t.Step.Key)
	switch _, err := ring.RevocableAt(k.ID, now, policy, e); {
	case err == nil:
		return 0
	case k.SwitchBy != 0:
		return min(switchRest, time.Duration(max(k.SwitchBy-now, 0))*time.Second)
	}
	return refusedRest
}
