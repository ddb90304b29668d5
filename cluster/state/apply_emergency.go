package state

import (
	"bytes"

	"authd/keys"
)

// replaceKey is an emergency for one key of a domain.
func (w *writer) replaceKey(c ReplaceKey) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	result := Result{Token: c.Token}
	ring := old.Ring()
	var from keys.Key
	switch active, signing := ring.Active(c.Algorithm); {
	case old.State == Leaving:
		result.Refusal = conflict("domain", nil, "%s is leaving: nothing signs for it any more; revoke its keys one by one, or restore it first", quoteName(old.Name))
	case c.From != "":
		if from, result.Refusal = replaceable(old, ring, c); result.Refusal != nil {
			return result
		}
	case signing:
		from = active
	}
	if result.Refusal != nil {
		return result
	}
	alone := ring
	alone.Rotation = 0 // what is asked for alone the way back of a rotation does not undo
	emergency := alone.Emergency
	if c.Store {
		emergency = alone.Burn
	}
	next, err := emergency(c.Algorithm, from.ID, c.Old, w.time)
	if err != nil {
		result.Refusal = keyRefusal("key", err)
		return result
	}
	_, waits := next.Urgent[c.Algorithm]
	if from.ID != 0 && from.Stage != keys.Active || !waits && len(next.Urgent) > 0 {
		next.Rotation = ring.Rotation // what else waits is part of it still
	}
	if bytes.Equal(ring.Append(nil), next.Append(nil)) {
		return result
	}
	d := *old
	if !sameStages(ring, next) {
		touched(&d)
	}
	if result.Refusal = w.keep(old, &d, ring, next); result.Refusal != nil {
		return result
	}
	if from.ID != 0 {
		w.about.key = d.Selector(from)
	}
	if waits {
		w.about.step = "; waits for the standby"
	}
	result.Changed = true
	return result
}

// replaceable finds the key that the caller of an emergency saw active.
func replaceable(d *Domain, ring keys.Ring, c ReplaceKey) (keys.Key, *Refusal) {
	k, ok := findKey(d, ring, c.From)
	switch {
	case !ok || k.Algorithm != c.Algorithm:
		return keys.Key{}, stale("from", "%s has no %s key %s now: look at its keys, or leave from out", quoteName(d.Name), c.Algorithm, quote(c.From))
	case k.Stage == keys.Standby:
		return keys.Key{}, stale("from", "%s of %s is standby and has signed nothing: revoke it instead", quote(c.From), quoteName(d.Name))
	}
	return k, nil
}
