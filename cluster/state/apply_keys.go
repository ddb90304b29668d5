package state

import (
	"errors"
	"slices"

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
	if !sameStages(ring, next) {
		touched(&d)
	}
	if slices.Equal(ring.Records(d.Algorithms), next.Records(d.Algorithms)) {
		// As when a standby is confirmed: what is answered stays as it is.
		d.Branch = old.Branch.With(d.Serial, next.Append(make([]byte, 0, usualRing)))
		w.keepBranch(old, &d, ring, next)
	} else if result.Refusal = w.keep(old, &d, ring, next); result.Refusal != nil {
		return result
	}
	if c.Material != nil && c.Material.Maker != "" {
		w.madeBy(plain(c.Material.Maker, maxMaker), ring, next)
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

// sameStages says whether no query can tell two rings of a domain apart.
func sameStages(a, b keys.Ring) bool {
	return slices.EqualFunc(a.Keys, b.Keys, func(a, b keys.Key) bool { return a.Stage == b.Stage })
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
			if k, ok := findKey(d, ring, c.From); c.Step.Kind == keys.StepActivate && (!ok || k.Stage != keys.Standby) {
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
	if c.Step.CreatedAt != 0 && c.Step.CreatedAt != k.CreatedAt {
		return false, stale("key", "key %d of %s is another than the step was proposed for: the state was replaced since", c.Step.Key, quoteName(d.Name))
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
	touched(&d)
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

// bringKey puts a key that an operator brought into a domain's ring.
func (w *writer) bringKey(c BringKey) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	result := Result{Token: c.Token}
	switch {
	case old.State == Leaving:
		result.Refusal = conflict("domain", nil, "%s is leaving and takes no keys: restore it first", quoteName(old.Name))
	case !slices.Contains(old.Algorithms, c.Material.Algorithm):
		result.Refusal = invalid("key", "it is of %s, and %s signs with other algorithms", c.Material.Algorithm, quoteName(old.Name))
	case !c.Material.Imported:
		result.Refusal = invalid("key", "it is not marked as one that an operator brought")
	}
	if result.Refusal != nil {
		return result
	}
	ring := old.Ring()
	next, err := ring.Bring(&c.Material, w.time)
	if err != nil {
		result.Refusal = bringRefusal(old, err)
		return result
	}
	d := *old
	touched(&d)
	if result.Refusal = w.keep(old, &d, ring, next); result.Refusal != nil {
		return result
	}
	w.about.key = d.Selector(next.Keys[len(next.Keys)-1])
	result.Changed = true
	return result
}

func bringRefusal(d *Domain, err error) *Refusal {
	var used *keys.InUse
	if errors.As(err, &used) {
		return conflict("key", []Token{d.Token}, "%s has this key already, at selector %s", quoteName(d.Name), quote(d.Prefix+used.Selector))
	}
	return keyRefusal("key", err)
}

// checkMaterial checks what a ring has that it did not have before.
func (w *writer) checkMaterial(d *Domain, was, ring keys.Ring) *Refusal {
	for i, k := range ring.Keys {
		if had, ok := was.ByID(k.ID); ok && had.Payload == k.Payload && len(had.Sealed) == len(k.Sealed) {
			continue
		}
		if !printable(k.Payload) || len(k.Payload) > maxPayload || len(k.Sealed) > maxSealed {
			return invalid("keys", "key %d: want at most %d octets of printable ASCII", k.ID, maxPayload)
		}
		if k.Payload == "" {
			continue
		}
		for _, o := range ring.Keys[:i] {
			if o.Payload == k.Payload {
				return conflict("keys", []Token{d.Token}, "keys %s and %s of %s are the same: bring another", quote(d.Selector(o)), quote(d.Selector(k)), quoteName(d.Name))
			}
		}
		if r := w.checkForeign(d, k); r != nil {
			return r
		}
	}
	return nil
}

// checkForeign refuses a key that another tenant has already: whoever holds the
// private half could sign for both. A private half is a proof, a public one is
// not: who merely published a key does not keep its owner from bringing it.
func (w *writer) checkForeign(d *Domain, k keys.Key) *Refusal {
	holders := w.holders(hashOfKey(k.Payload))
	if len(holders) >= maxKeyHolders {
		if first, ok := w.find(holders[0]); ok && first.Tenant == d.Tenant && sharesKey(first, k) {
			return nil // all that share a key are one tenant's
		}
		return conflict("keys", nil, "key %s looks like that of many other claims: bring another", quote(d.Selector(k)))
	}
	for _, token := range holders {
		o, ok := w.find(token)
		if !ok || o.Tenant == d.Tenant {
			continue
		}
		for _, other := range o.Ring().Keys {
			if other.Payload == k.Payload && (k.PublicOnly || !other.PublicOnly) {
				return conflict("keys", []Token{token}, "key %s is another tenant's already (claim %s): bring a key of its own", quote(d.Selector(k)), token)
			}
		}
	}
	return nil
}

func sharesKey(d *Domain, k keys.Key) bool {
	return slices.ContainsFunc(d.Ring().Keys, func(o keys.Key) bool { return o.Payload == k.Payload })
}

// sharesWithin says whether two keys of a ring are the same.
func sharesWithin(ring keys.Ring) bool {
	for i, k := range ring.Keys {
		for _, o := range ring.Keys[:i] {
			if k.Payload != "" && k.Payload == o.Payload {
				return true
			}
		}
	}
	return false
}

// keyUse is what the indexes keep of a ring: the hashes of the public keys that
// DNS answers with, and the versions of the key-encryption key that its private
// halves are sealed under.
type keyUse struct {
	hashes   []keyHash
	versions []uint16
}

// useOf leaves out what another ring has as well.
func useOf(ring, other keys.Ring) (u keyUse) {
	for _, k := range ring.Keys {
		o, _ := other.ByID(k.ID)
		if k.Payload != "" && k.Payload != o.Payload {
			if h := hashOfKey(k.Payload); !slices.Contains(u.hashes, h) {
				u.hashes = append(u.hashes, h)
			}
		}
		if len(k.Sealed) > 0 && string(k.Sealed) != string(o.Sealed) {
			u.versions = append(u.versions, keys.SealedVersion(k.Sealed))
		}
	}
	return u
}

// trackKeys keeps the indexes when a claim's ring becomes another.
func (w *writer) trackKeys(t Token, old, next keys.Ring) {
	w.forgetKeys(t, useOf(old, next))
	w.learnKeys(t, useOf(next, old))
}

func (w *writer) learnKeys(t Token, u keyUse) {
	for _, h := range u.hashes {
		w.keys.add(h, t)
	}
	w.countSealed(u.versions, 1)
}

func (w *writer) forgetKeys(t Token, u keyUse) {
	for _, h := range u.hashes {
		w.keys.drop(h, t)
	}
	w.countSealed(u.versions, -1)
}
