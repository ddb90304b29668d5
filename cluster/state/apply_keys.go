package state

import (
	"authd/keys"
)

// stepKey takes one step of a domain's ring. What is due was decided by the
// machine that the proposer saw; it is decided again here, so that a step
// proposed twice, or by a leader that was deposed, happens once.
func (w *writer) stepKey(c StepKey) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	result := Result{Token: c.Token}
	ring, policy := old.Ring(), w.policy(old)
	if taken, r := w.alreadyTaken(old, ring, c); taken || r != nil {
		result.Refusal = r
		return result
	}
	if c.Manual && c.Step.Kind == keys.StepActivate && w.suspended(old) {
		result.Refusal = conflict("domain", nil, "tenant %s of %s is suspended: resume it first; for a leaked key make it an emergency, which is carried out all the same", old.Tenant, quoteName(old.Name))
		return result
	}
	if !c.Manual {
		if result.Refusal = w.checkDue(old, ring, policy, c.Step); result.Refusal != nil {
			return result
		}
	}
	next, err := ring.Take(c.Step, w.time, policy, c.Material)
	if err != nil {
		result.Refusal = keyRefusal("key", err)
		return result
	}
	d := *old
	if c.Step.Kind != keys.StepConfirm { // which no query sees
		w.touched(&d)
	}
	if result.Refusal = w.keep(old, &d, ring, next); result.Refusal != nil {
		return result
	}
	w.sawStep(&d, ring, next, c.Step)
	result.Changed = true
	return result
}

// suspended says whether a claim's tenant is.
func (t *tables) suspended(d *Domain) bool {
	tenant, ok := t.tenants.Get(d.Tenant)
	return ok && tenant.Suspended
}

// alreadyTaken says whether a step has happened already, and refuses one whose
// caller saw another active key.
func (w *writer) alreadyTaken(d *Domain, ring keys.Ring, c StepKey) (bool, *Refusal) {
	if c.From != "" {
		active, ok := ring.Active(c.Step.Algorithm)
		if !ok {
			return false, stale("from", "no key of %s signs for %s now", c.Step.Algorithm, quoteName(d.Name))
		}
		if c.From != active.Selector && c.From != d.Selector(active) {
			if c.Step.Kind == keys.StepActivate {
				return true, nil
			}
			return false, stale("from", "%s signs with %s now, not with %s", quoteName(d.Name), quote(d.Selector(active)), quote(c.From))
		}
	}
	if c.Step.Kind == keys.StepPublish {
		if k, ok := ring.Standby(c.Step.Algorithm); ok {
			return false, stale("key", "%s has a standby of %s already: %s", quoteName(d.Name), c.Step.Algorithm, quote(d.Selector(k)))
		}
		return false, nil
	}
	k, ok := ring.ByID(c.Step.Key)
	if !ok {
		if c.Step.Key > 0 && c.Step.Key < ring.NextID {
			return c.Step.Kind == keys.StepRemove, stale("key", "key %d of %s is gone", c.Step.Key, quoteName(d.Name)).unless(c.Step.Kind == keys.StepRemove)
		}
		return false, notFound("key", "%s has no key %d", quoteName(d.Name), c.Step.Key)
	}
	switch c.Step.Kind {
	case keys.StepConfirm:
		return k.ConfirmedAt != 0 || k.Stage != keys.Standby, nil
	case keys.StepActivate:
		return k.Stage == keys.Active, nil
	case keys.StepRevoke:
		return k.Stage == keys.Revoked, nil
	}
	return false, nil
}

// unless gives no refusal where a condition holds.
func (r *Refusal) unless(condition bool) *Refusal {
	if condition {
		return nil
	}
	return r
}

// checkDue refuses a step that the ring does not wait for now. Where the queue
// had it earlier than the policy has it now, the claim gets its new place.
func (w *writer) checkDue(d *Domain, ring keys.Ring, policy keys.Policy, step keys.Step) *Refusal {
	for _, p := range ring.Plan(policy) {
		if p.Kind != step.Kind || p.Algorithm != step.Algorithm || p.Key != step.Key {
			continue
		}
		if p.Due <= w.time {
			return nil
		}
		if w.dueAt(d, ring) != d.DueAt {
			next := *d
			w.put(d, &next, ring)
		}
		return tooEarly("key", p.Due, "%s of a key of %s is not due yet", step.Kind, quoteName(d.Name))
	}
	return stale("key", "the keys of %s do not wait for that step (%s) now", quoteName(d.Name), step.Kind)
}

// revokeKey answers a key with an empty p= at once.
func (w *writer) revokeKey(c RevokeKey) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	result := Result{Token: c.Token}
	ring := old.Ring()
	key, ok := findKey(old, ring, c.Selector)
	if !ok {
		result.Refusal = notFound("selector", "%s has no key %s", quoteName(old.Name), quote(c.Selector))
		return result
	}
	if key.Stage == keys.Revoked {
		return result
	}
	revoke := ring.Revoke
	if c.Force {
		revoke = ring.RevokeAnyway
	}
	next, err := revoke(key.ID, w.time)
	if err != nil {
		result.Refusal = keyRefusal("selector", err)
		return result
	}
	d := *old
	w.touched(&d)
	if result.Refusal = w.keep(old, &d, ring, next); result.Refusal != nil {
		return result
	}
	w.about.key = d.Selector(key)
	result.Changed = true
	return result
}

// findKey finds a key by the ring's selector or the one that signers use.
func findKey(d *Domain, ring keys.Ring, selector string) (keys.Key, bool) {
	if k, ok := ring.BySelector(selector); ok {
		return k, true
	}
	for _, k := range ring.Keys {
		if d.Selector(k) == selector {
			return k, true
		}
	}
	return keys.Key{}, false
}

// checkFirstKeys checks that a claim brings one active key an algorithm of its
// pool, and at most one standby.
func checkFirstKeys(c AddDomain, algorithms []keys.Algorithm) *Refusal {
	count := func(list []keys.Material, a keys.Algorithm) (n int) {
		for _, m := range list {
			if m.Algorithm == a {
				n++
			}
		}
		return n
	}
	for _, a := range algorithms {
		if n := count(c.Active, a); n != 1 {
			return invalid("keys", "%d active keys of %s: want one", n, a)
		}
		if n := count(c.Standby, a); n > 1 {
			return invalid("keys", "%d standby keys of %s: want at most one", n, a)
		}
	}
	for _, list := range [][]keys.Material{c.Active, c.Standby} {
		for _, m := range list {
			known := false
			for _, a := range algorithms {
				known = known || a == m.Algorithm
			}
			if !known {
				return invalid("keys", "a key of %s: the pool signs with other algorithms", m.Algorithm)
			}
		}
	}
	return nil
}

// checkMaterial refuses keys that another tenant has brought already: who holds
// the private half could sign for both.
func (w *writer) checkMaterial(d *Domain, ring keys.Ring) *Refusal {
	tenant, _ := w.tenants.Get(d.Tenant)
	for _, k := range ring.Keys {
		if !printable(k.Payload) || len(k.Payload) > maxPayload || len(k.Sealed) > maxSealed {
			return invalid("keys", "key %d: want at most %d octets of printable ASCII", k.ID, maxPayload)
		}
		if !k.Imported || k.Payload == "" {
			continue
		}
		hash := hash16(k.Payload)
		var holder *Token
		w.imported.Ascend(string(hash[:]), func(key string, number uint32) bool {
			if key[:len(hash)] == string(hash[:]) && number != tenant.Number {
				t := tokenOf(key[len(hash):])
				holder = &t
			}
			return false
		})
		if holder != nil {
			return conflict("keys", []Token{*holder}, "key %s is another tenant's already (claim %s): bring a key of its own", quote(d.Selector(k)), *holder)
		}
	}
	return nil
}

// trackImported keeps the index of keys that operators brought.
func (w *writer) trackImported(d *Domain, old, next keys.Ring) {
	index := func(k keys.Key) (string, bool) {
		if !k.Imported || k.Payload == "" {
			return "", false
		}
		hash := hash16(k.Payload)
		return string(hash[:]) + d.Token.key(), true
	}
	for _, k := range old.Keys {
		if key, ok := index(k); ok {
			w.imported.Delete(key)
		}
	}
	tenant, _ := w.tenants.Get(d.Tenant)
	for _, k := range next.Keys {
		if key, ok := index(k); ok {
			w.imported.Set(key, tenant.Number)
		}
	}
}
