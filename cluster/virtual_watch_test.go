package cluster

import (
	"fmt"
	"slices"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// watch holds every machine that a node publishes against what must never be.
func (v *virtual) watch(n *Node) {
	for {
		changed := n.fsm.next()
		v.saw(n, n.Machine())
		select {
		case <-changed:
		case <-n.ctx.Done():
			return
		}
	}
}

func (v *virtual) saw(n *Node, m state.Machine) {
	v.mu.Lock()
	defer v.mu.Unlock()
	id, index := n.c.ID, m.Index()
	v.count.machines++
	v.at[id] = max(v.at[id], index)
	if v.apart {
		return
	}
	if v.sums[index] == nil {
		v.sums[index] = make(map[string]state.Sum)
	}
	v.sums[index][id] = m.Sum()
	for other, sum := range v.sums[index] {
		if sum != m.Sum() {
			v.t.Errorf("%s: %s and %s differ at index %d", v.now(), id, other, index)
		}
	}
	if ahead := time.Duration(m.Time()-time.Now().Unix()) * time.Second; ahead > clockApart {
		v.t.Errorf("%s: machine time is %s ahead", v.now(), ahead)
	}
	for d := range m.Domains(state.Token{}) {
		pool, _ := m.Pool(d.Pool)
		if d.Mode == zone.Delegated && d.State != state.Pending { // else no zone is answered
			v.sawSerial(serialOf{id, d.Name}, d.Serial+pool.Serial)
		}
		for _, k := range d.Ring().Keys {
			v.sawKey(id, m, d, k)
		}
	}
	for p := range m.Platforms() {
		v.sawSerial(serialOf{id, p.Apex}, p.Serial)
	}
}

// sawSerial follows a zone at a node: to a secondary a serial that goes back (RFC 1982)
// is a zone that does not change any more.
func (v *virtual) sawSerial(of serialOf, serial uint32) {
	if last, ok := v.serials[of]; ok && int32(serial-last) < 0 {
		v.t.Errorf("%s: %s: serial of %s went from %d to %d", v.now(), of.node, of.zone, last, serial)
	}
	v.serials[of] = serial
}

// sawKey follows a key through its stages.
func (v *virtual) sawKey(id string, m state.Machine, d *state.Domain, k keys.Key) {
	ref := keyRef{d.Token, k.ID, k.CreatedAt}
	life := v.keys[ref]
	if life == nil {
		life = newKeyLife()
		v.keys[ref] = life
	}
	now := time.Now()
	if life.answered[id].IsZero() && k.Stage != keys.Revoked {
		life.answered[id] = now
		if !slices.Contains(v.in, id) {
			life.answered[id] = v.began // nobody has asked it yet, so nobody remembers that there was none
		}
	}
	complain := func(format string, args ...any) {
		v.t.Errorf("%s: %s, key %s of %s: %s", v.now(), id, k.Selector, d.Name, fmt.Sprintf(format, args...))
		v.before.Do(func() { v.t.Logf("before that:\n%s", v.log.since(now.Add(-time.Hour))) })
	}
	if k.ConfirmedAt != 0 && !life.passed && !life.excused {
		life.passed = true
		for _, member := range v.in {
			if _, off := m.Off(member); off {
				life.answered[member] = v.began // nobody asks it, as an operator has stated
			} else if life.answered[member].IsZero() {
				complain("confirmed, and %s has never answered it", member)
			}
		}
	}
	if k.Stage == keys.Active && !life.drained[id].IsZero() { // once more, by a restore
		delete(life.drained, id)
		life.revoked = false
	}
	switch {
	case k.Stage == keys.Active && life.active.IsZero():
		life.active = now
		v.count.activated++
		if k.Gap == 0 || life.excused {
			return // it came with the claim
		}
		for _, member := range v.in {
			if since := life.answered[member]; since.IsZero() || now.Sub(since) < time.Duration(k.Gap-keys.ClockMargin)*time.Second {
				complain("active, and %s answers it since %s", member, since)
			}
		}
	case k.Stage == keys.Draining && life.drained[id].IsZero():
		life.drained[id] = now
	case k.Stage == keys.Revoked && !life.revoked && k.DrainedAt != 0:
		life.revoked = true
		v.count.retired++
		if life.excused {
			return
		}
		pool, _ := m.Pool(d.Pool)
		// The time of an entry is that of its proposal: it is with the others while its
		// leader leads, at the latest.
		least := pool.Policy.SignerHold + pool.Policy.Drain - clockApart - v.tuning.lease
		first := now
		for _, member := range v.in {
			since := life.drained[member]
			if since.IsZero() {
				complain("revoked before %s knew that it drains", member)
			} else if since.Before(first) {
				first = since
			}
		}
		if now.Sub(first) < least {
			complain("revoked %s after it was drained", now.Sub(first))
		}
	}
}

// wantNoneHeld looks for draining keys that wait for a time that no evidence from
// the past can have led to.
func (v *virtual) wantNoneHeld(id string, n *Node) {
	v.t.Helper()
	m := n.Machine()
	for d := range m.Domains(state.Token{}) {
		pool, _ := m.Pool(d.Pool)
		most := time.Now().Add(pool.Policy.SignerHold + max(pool.Policy.DrainFloor, pool.Policy.DrainCeiling) + time.Minute)
		for _, k := range d.Ring().Keys {
			if held := time.Unix(k.HeldUntil, 0); k.Stage == keys.Draining && held.After(most) {
				v.t.Errorf("%s: %s, key %s of %s: held until %s, %s from now", v.now(), id, k.Selector, d.Name, held.UTC(), time.Until(held))
			}
		}
	}
}

// wantAnswers asks a node for all keys that its machine has.
func (v *virtual) wantAnswers(id string, n *Node) {
	v.t.Helper()
	m, dns := n.Machine(), zone.NewResponder(n.Tree(), id)
	for d := range m.Domains(state.Token{}) {
		if d.State == state.Pending {
			continue
		}
		for _, k := range d.Ring().Keys {
			name, err := d.KeyName(k)
			must(v.t, err)
			want := k.Payload
			if k.Stage == keys.Revoked {
				continue // an empty p=, which the index compared has
			}
			if told := askText(dns, name); told.Text != want {
				v.t.Errorf("%s: %s answers %+v for %s, want %q", v.now(), id, told, name, want)
			}
			v.count.answered++
		}
	}
}
