package keys

import (
	"fmt"
	"maps"
	"slices"
)

// Revoke answers a key with an empty p= at once, whatever its floor. Revoking
// the active key makes the standby active in the same change; where that is not
// ready, or there is none, Revoke refuses (NotReady says when) and leaves the old
// key signing, because mail without a signature that verifies is worse: see
// RevokeAnyway. Revoking a revoked key changes nothing.
func (r Ring) Revoke(id uint32, at int64) (Ring, error) { return r.revokeKey(id, at, false) }

// RevokeAnyway is Revoke that does not wait for the standby: it becomes active though
// some receivers may not see it yet, and where there is none the algorithm has no
// signing key until the next is published and ready.
func (r Ring) RevokeAnyway(id uint32, at int64) (Ring, error) { return r.revokeKey(id, at, true) }

func (r Ring) revokeKey(id uint32, at int64, anyway bool) (Ring, error) {
	i := r.index(id)
	if i < 0 {
		return Ring{}, fmt.Errorf("revoking key %d: no such key in the ring", id)
	}
	k := &r.Keys[i]
	switch k.Stage {
	case Revoked:
		return r, nil
	case Active:
		return r.revokeActive(i, at, anyway)
	}
	return r.revoked(i, at), nil
}

func (r Ring) revokeActive(i int, at int64, anyway bool) (Ring, error) {
	k := &r.Keys[i]
	j := slices.IndexFunc(r.Keys, func(s Key) bool { return s.Algorithm == k.Algorithm && s.isStandby() })
	if j < 0 {
		if anyway {
			return r.revoked(i, at), nil
		}
		return Ring{}, fmt.Errorf("revoking active %q: %w", k.Selector,
			&NotReady{What: fmt.Sprintf("a standby of %s", k.Algorithm), Why: "none is published yet"})
	}
	if err := r.Keys[j].notReady(at); err != nil && !anyway {
		return Ring{}, fmt.Errorf("revoking active %q: %w", k.Selector, err)
	}
	// In this order, so that there is an active key at every moment.
	return r.succeed(j, at).revoked(i, at), nil
}

// Retire is the ring of a domain that leaves: nothing signs any more, active keys
// drain to their floor, standbys, which signed nothing, are revoked. Where an emergency
// waited, its fate is carried out now, since the key no longer signs, and that key does
// not come back with the domain; if the fate is to drain the wish stays, and is carried
// out if the domain comes back.
func (r Ring) Retire(at int64) Ring {
	if r.RetiredAt != 0 {
		return r
	}
	next := r.clone()
	next.RetiredAt, next.Rotation = at, 0
	maps.DeleteFunc(next.Urgent, func(_ Algorithm, wish Urgent) bool { return !wish.Serious() || wish.Old == FateSwitch })
	for i := range next.Keys {
		k := &next.Keys[i]
		wish := r.Urgent[k.Algorithm]
		switch {
		case k.Stage == Active && wish.Old == FateRevoke:
			next = next.revoked(i, at)
		case k.Stage == Active:
			k.Stage, k.DrainedAt = Draining, at
			if wish.Old == FateSwitch {
				next = next.switching(i, at)
			}
		case k.Stage == Standby:
			next = next.revoked(i, at)
		}
	}
	return next
}

// DrainedBy is when the last of the keys that drain is past its floor; 0: none drains.
func (r Ring) DrainedBy(p Policy) (last int64) {
	for i := range r.Keys {
		if k := &r.Keys[i]; k.Stage == Draining {
			last = max(last, floorAt(k, p))
		}
	}
	return last
}

// Moved is the ring of a domain that leaves a pool with a policy for one with another:
// signers keep what they fetched for as long as the former said.
func (r Ring) Moved(from, to Policy, at int64) Ring {
	next := r.clone()
	for i := range next.Keys {
		k := &next.Keys[i]
		last := at
		if k.Stage == Draining {
			last = k.DrainedAt
		}
		if held := last + from.holdFrom(last); (k.Stage == Active || k.Stage == Draining) && held > last+to.holdFrom(last) {
			k.HeldBefore = max(k.HeldBefore, held)
		}
	}
	return next
}

// ReviveNeeds lists the algorithms for which Revive needs material: those whose
// key of the time of leaving has been revoked meanwhile.
func (r Ring) ReviveNeeds(algorithms []Algorithm) []Algorithm {
	var needed []Algorithm
	for _, a := range algorithms {
		if r.retired(a) < 0 && !r.has(a, Active) {
			needed = append(needed, a)
		}
	}
	return needed
}

// retired is the place of the key that signed when the domain began to leave,
// while it is still draining; -1 otherwise. A rotation in the same second leaves two
// that stopped signing then: it is the one that began later. One that an emergency
// is about to revoke is none.
func (r Ring) retired(a Algorithm) int {
	found := -1
	for i := range r.Keys {
		k := &r.Keys[i]
		if r.RetiredAt == 0 || k.Algorithm != a || k.Stage != Draining || k.DrainedAt != r.RetiredAt || k.SwitchBy != 0 {
			continue
		}
		if found < 0 || k.ActivatedAt >= r.Keys[found].ActivatedAt {
			found = i
		}
	}
	return found
}

// Revive is the ring of a domain that comes back. A key that signed when it left
// and is still draining becomes active again; where it was revoked, material
// takes its place, and material beyond that is ignored. In minted mode a new key
// is active at once, its name never having been answered. In slots every name
// answered an empty p= before, so the new key is a standby, due to sign as soon
// as it is ready; until then the algorithm has no active key.
func (r Ring) Revive(at int64, algorithms []Algorithm, material []Material) (Ring, error) {
	if r.RetiredAt == 0 {
		return r, nil
	}
	needed := r.ReviveNeeds(algorithms)
	next := r.clone()
	for _, a := range algorithms {
		if i := r.retired(a); i >= 0 {
			k := &next.Keys[i]
			k.Stage, k.DrainedAt, k.SwitchBy, k.HeldUntil = Active, 0, 0, 0
		}
	}
	next.RetiredAt = 0
	maps.DeleteFunc(next.Urgent, func(a Algorithm, wish Urgent) bool { k, _ := next.Active(a); return k.ID != wish.Key })
	for i := range material {
		m := &material[i]
		if !slices.Contains(needed, m.Algorithm) {
			continue
		}
		key, err := next.laterKey(m, at)
		if err != nil {
			return Ring{}, fmt.Errorf("reviving ring: %s: %w", m.Algorithm, err)
		}
		if next.Mode == Minted {
			key.Stage, key.ActivatedAt, key.Gap = Active, at, 0
		}
		next = next.with(key)
		needed = slices.DeleteFunc(needed, func(a Algorithm) bool { return a == m.Algorithm })
	}
	if len(needed) > 0 {
		return Ring{}, fmt.Errorf("reviving ring: %s has no key any more: bring material for it", needed[0])
	}
	return next, nil
}
