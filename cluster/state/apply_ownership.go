package state

import (
	"slices"

	"authd/zone"
)

// proveDomain makes a pending claim the owner of its subtree. Where another
// tenant owned the name and the parent no longer carries that one's token,
// ownership moves in this one command: at no index do two claims own a name.
// A claim in mode cname comes to own nothing: see proveAliases.
func (w *writer) proveDomain(c ProveDomain) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	result := Result{Token: c.Token}
	if result.Refusal = w.checkProof(old, c); result.Refusal != nil {
		return result
	}
	if old.Mode == zone.CNAME {
		result.Changed = w.proveAliases(old, c)
		return result
	}
	if old.owns() {
		return result
	}
	owner := w.ownerOf(old.Name)
	if result.Refusal = w.checkOwnership(old, owner); result.Refusal != nil {
		return result
	}
	d := *old
	d.State, d.ProvenAt, d.GoneAt, d.AttestedBy = Live, w.time, 0, w.attestor(c)
	touched(&d)
	if owner != nil {
		// The zone goes on with another claim's answers: its serial must not fall.
		if pool, was := w.zoneSerial(&d), w.zoneSerial(owner); int32(was-pool) >= 0 {
			d.Serial += was - pool + 1
		}
	}
	ring := old.Ring()
	branch, err := w.render(&d, ring)
	if err != nil {
		result.Refusal = invalid("domain", "%v", err)
		return result
	}
	d.Branch = branch
	if owner != nil {
		w.disown(owner)
	}
	w.owned.add(d.Name, d.Token)
	w.put(old, &d, ring)
	result.Changed = true
	return result
}

// checkProof checks what the proposer saw, or that an admin may speak for it.
func (w *writer) checkProof(d *Domain, c ProveDomain) *Refusal {
	if d.State == Leaving {
		return conflict("domain", []Token{d.Token}, "claim %s of %s is leaving: restore it first", d.Token, quoteName(d.Name))
	}
	if c.Attested && w.entry.Reason == "" {
		return invalid("reason", "attesting %s needs a reason", quoteName(d.Name))
	}
	if d.Mode == zone.CNAME {
		return w.checkAliases(d, c)
	}
	if c.Attested {
		if o := w.ownerOf(d.Name); o != nil && o.Token != d.Token {
			return conflict("domain", []Token{o.Token}, "%s is proven for tenant %s by claim %s: only the parent's own servers can move it, or an admin ends that claim", quoteName(d.Name), quote(o.Tenant), o.Token)
		}
		return nil
	}
	if !slices.Contains(c.Seen, d.Token) {
		return invalid("domain", "the parent's servers do not delegate %s to names of claim %s: add its NS records", quoteName(d.Name), d.Token)
	}
	var others []Token
	for _, o := range w.claimsTo(d.Name) {
		if o.Token != d.Token && slices.Contains(c.Seen, o.Token) {
			others = append(others, o.Token)
		}
	}
	if others != nil {
		return conflict("domain", others, "the parent's servers name two claims to %s, %s and %s, which proves neither: keep the NS records of one", quoteName(d.Name), d.Token, tokenList(others))
	}
	return nil
}

// checkAliases is checkProof in mode cname. That two claims have their CNAMEs in one
// zone is nothing wrong: they have other names, and a customer may have two providers.
func (w *writer) checkAliases(d *Domain, c ProveDomain) *Refusal {
	if !c.Attested {
		if !slices.Contains(c.Seen, d.Token) {
			return invalid("domain", "no CNAME below %s leads to a key of claim %s: add its CNAME records", quoteName(d.Name), d.Token)
		}
		return nil
	}
	for _, o := range w.claimsTo(d.Name) {
		if o.Tenant != d.Tenant && o.vouches(d.Name) == vouchCNAME {
			return conflict("domain", []Token{o.Token}, "%s is proven for tenant %s by claim %s: only the customer's own CNAMEs can move it, or an admin ends that claim", quoteName(d.Name), quote(o.Tenant), o.Token)
		}
	}
	return nil
}

// checkOwnership keeps one owner over every subtree: no other tenant may own a
// name above or below. owner is the present owner of the name itself, where it
// is about to lose it; otherwise an owner there is in the way too.
//
// Above, it looks at each label. Below, it looks at the owned names in turn and
// at each one's own subtree not at all, because the same rule held there; so the
// cost is bounded by the zones that the same tenant has proven directly below.
// Tenants read what it says, so it names no other: an admin finds it by the claim.
func (t *tables) checkOwnership(d *Domain, owner *Domain) *Refusal {
	if o := t.ownerAbove(d.Name); o != nil && o.Tenant != d.Tenant && (owner == nil || o.Token != owner.Token) {
		return conflict("domain", []Token{o.Token}, "%s lies within %s, which another tenant has proven: claim %s", quoteName(d.Name), quoteName(o.Name), o.Token)
	}
	if owner != nil {
		// It hides what is above it: look from the parent on.
		if o := t.ownerAbove(d.Name.Parent()); o != nil && o.Tenant != d.Tenant {
			return conflict("domain", []Token{o.Token}, "%s lies within %s, which another tenant has proven: claim %s", quoteName(d.Name), quoteName(o.Name), o.Token)
		}
	}
	prefix := d.Name.Reverse()
	for from := prefix + belowName; ; {
		below := t.owned.first(from, prefix)
		if len(below) == 0 {
			return nil
		}
		r, _ := t.domains.Get(below[0].key())
		o := r.head()
		if o.Tenant != d.Tenant {
			return conflict("domain", []Token{o.Token}, "%s lies above %s, which another tenant has proven: claim %s", quoteName(d.Name), quoteName(o.Name), o.Token)
		}
		from = afterSubtree(o.Name)
	}
}

// owns says whether the claim is the proven owner of its name. A leaving one
// goes on owning until it is gone or the parent names another.
func (d *Domain) owns() bool { return d.Mode == zone.Delegated && d.ProvenAt != 0 }

// ownerOf is the proven claim to exactly a name.
func (t *tables) ownerOf(n zone.Name) *Domain {
	owner := t.all(t.owned.at(n))
	if len(owner) == 0 {
		return nil
	}
	return owner[0]
}

// ownerAbove is the nearest proven claim to a name or one above it.
func (t *tables) ownerAbove(n zone.Name) *Domain {
	for ; n != zone.Root; n = n.Parent() {
		if d := t.ownerOf(n); d != nil {
			return d
		}
	}
	return nil
}

// zoneSerial is what the SOA of a delegated zone says.
func (t *tables) zoneSerial(d *Domain) uint32 {
	pool, _ := t.pools.Get(d.Pool)
	return d.Serial + pool.Serial
}

// disown takes a name from a claim that the parent no longer names: it waits for
// a proof again, or goes on leaving.
func (w *writer) disown(old *Domain) {
	d := *old
	d.ProvenAt, d.AttestedBy = 0, ""
	if d.State == Live {
		d.State, d.GoneAt = Pending, w.time+pendingFor
	}
	touched(&d)
	ring := old.Ring()
	branch, err := w.render(&d, ring)
	if err != nil {
		panic("claim " + d.Token.String() + " does not render without its zone: " + err.Error() + ": this is a defect: stop this node and report it")
	}
	d.Branch = branch
	w.owned.drop(d.Name, d.Token)
	w.put(old, &d, ring)
}
