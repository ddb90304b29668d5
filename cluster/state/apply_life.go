package state

import (
	"errors"

	"authd/keys"
	"authd/zone"
)

// leaveDomain starts a claim's end, or ends it at once.
func (w *writer) leaveDomain(c LeaveDomain) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		if c.Now && w.gone.has(c.Token) {
			return Result{Token: c.Token} // it is gone, as asked
		}
		return refused(r)
	}
	result := Result{Token: c.Token, Changed: true}
	if c.Now {
		if w.entry.Reason == "" {
			return Result{Token: c.Token, Refusal: invalid("reason", "ending %s at once needs a reason: bounces of mail already sent are lost", quoteName(old.Name))}
		}
		w.remove(old)
		return result
	}
	if old.State == Leaving {
		return Result{Token: c.Token}
	}
	was := old.Ring()
	ring := was.Retire(w.time)
	d := *old
	d.State, d.LeavingAt = Leaving, w.time
	d.GoneAt = max(w.time+leavingFor, ring.DrainedBy(w.policy(old)))
	touched(&d)
	if r := w.keep(old, &d, was, ring); r != nil {
		return Result{Token: c.Token, Refusal: r}
	}
	return result
}

// restoreDomain revives a leaving claim.
func (w *writer) restoreDomain(c RestoreDomain) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	if old.State != Leaving {
		return Result{Token: c.Token}
	}
	was := old.Ring()
	ring, err := was.Revive(w.time, old.Algorithms, c.Active)
	if err != nil {
		return Result{Token: c.Token, Refusal: keyRefusal("keys", err)}
	}
	d := *old
	d.State, d.LeavingAt, d.GoneAt = Live, 0, 0
	if d.Mode == zone.Delegated && d.ProvenAt == 0 {
		if w.settings.VerificationOff && w.checkOwnership(&d, nil) == nil {
			d.ProvenAt = w.time
			w.owned.add(d.Name, d.Token)
		} else {
			d.State, d.GoneAt = Pending, w.time+pendingFor
		}
	}
	touched(&d)
	if r := w.keep(old, &d, was, ring); r != nil {
		if old.ProvenAt != d.ProvenAt {
			w.owned.drop(d.Name, d.Token)
		}
		return Result{Token: c.Token, Refusal: r}
	}
	return Result{Token: c.Token, Changed: true}
}

// expireDomain ends a claim whose time has come.
func (w *writer) expireDomain(c ExpireDomain) Result {
	d, r := w.claim(c.Token)
	if r != nil {
		if w.gone.has(c.Token) {
			return Result{Token: c.Token}
		}
		return refused(r)
	}
	result := Result{Token: c.Token}
	switch {
	case d.GoneAt == 0:
		result.Refusal = stale("domain", "claim %s of %s neither waits for its proof nor is leaving", d.Token, quoteName(d.Name))
	case d.GoneAt > w.time:
		result.Refusal = tooEarly("domain", d.GoneAt, "claim %s of %s ends later", d.Token, quoteName(d.Name))
	default:
		w.remove(d)
		result.Changed = true
	}
	return result
}

// keep renders and stores a claim whose ring was another; a refusal stores
// nothing.
func (w *writer) keep(old, d *Domain, was, ring keys.Ring) *Refusal {
	if r := w.checkMaterial(d, was, ring); r != nil {
		return r
	}
	branch, err := w.render(d, ring)
	if err != nil {
		return invalid("domain", "%v", err)
	}
	d.Branch = branch
	w.keepBranch(old, d, was, ring)
	return nil
}

// keepBranch is keep of a claim whose branch is made, with no key that it did not
// have.
func (w *writer) keepBranch(old, d *Domain, was, ring keys.Ring) {
	if d.Mode == zone.CNAME && d.Serial != old.Serial {
		w.bumpPlatforms(d)
	}
	w.trackKeys(d.Token, was, ring)
	w.tally(was, ring)
	w.exposure(d, was, ring)
	w.put(old, d, ring)
}

// link stores all that points at a new claim. The image reader calls it too, so
// nothing here may depend on the command.
func (w *writer) link(d *Domain, use keyUse) {
	w.each(d, func(x *nameIndex, n zone.Name) { x.add(n, d.Token) })
	w.count(d, 1)
	w.learnKeys(d.Token, use)
}

// remove ends a claim: its names are gone, and its token and bound names are
// tombstones for ever, so that no stale delegation or CNAME can be picked up by
// anyone else.
func (w *writer) remove(d *Domain) {
	w.sawDomain(d)
	w.bumpPlatforms(d)
	w.each(d, func(x *nameIndex, n zone.Name) { x.drop(n, d.Token) })
	for _, n := range d.boundNames() {
		w.buryName(n)
	}
	w.count(d, -1)
	w.forgetKeys(d.Token, useOf(d.Ring(), keys.Ring{}))
	w.tally(d.Ring(), keys.Ring{})
	if at := d.wakeAt(); at != 0 {
		w.due.Delete(dueKey(at, d.Token))
	}
	w.waits(d.Token, d.waitsUntil(), 0)
	w.countTenant(d.Tenant, 0, -w.dropDomain(d.Token).unusual())
	w.bury(d.Token)
	w.delta.domain(d.Token)
	w.settleReports(d.Name)
}

// boundNames are the target names that an admin bound.
func (d *Domain) boundNames() (names []zone.Name) {
	token := d.Token.text()
	add := func(t zone.Target, labels ...string) {
		if t.Name != "" && !token.isIn(t, labels...) {
			names = append(names, t.Name)
		}
	}
	for i, t := range d.Targets.Keys {
		add(t, keySlotLabel(d.Algorithms, i), labelDKIM)
	}
	add(d.Targets.Bounce, labelBounce)
	add(d.Targets.Click, labelClick)
	add(d.Targets.DMARC, labelDMARC)
	return names
}

// count keeps how many claims use an object, so that none in use is removed.
func (w *writer) count(d *Domain, by int) {
	w.countPool(d, by)
	w.countTenant(d.Tenant, by, 0)
	for _, s := range d.Servers {
		if e, ok := w.servers.Get(s.Server); ok {
			next := *e
			next.domains += by
			w.servers.Set(s.Server, &next)
		}
	}
	// Reports come and go while the claim lives; a platform zone that merely
	// takes reports may be removed.
	held := *d
	held.Reports = nil
	for _, number := range held.platformNumbers() {
		if e, ok := w.platforms.Get(number); ok {
			next := *e
			next.domains += by
			w.platforms.Set(number, &next)
		}
	}
}

func (w *writer) countPool(d *Domain, by int) {
	p, ok := w.pools.Get(d.Pool)
	if !ok {
		return
	}
	next := *p
	next.domains += by
	if d.Mode == zone.CNAME {
		next.slots += by
	}
	w.pools.Set(d.Pool, &next)
}

// settleReports decides which of the claims to a name holds its report
// authorisation names: several may have a policy, but a name has one branch. The
// first claim in order of token that wants a name has it.
func (w *writer) settleReports(n zone.Name) {
	claims := w.claimsTo(n)
	wanted := make(map[zone.Name]bool)
	for _, old := range claims {
		var reports []zone.Target
		for _, t := range w.reportTargets(n, old.DMARC) {
			if !wanted[t.Name] {
				wanted[t.Name] = true
				reports = append(reports, t)
			}
		}
		if equalTargets(old.Reports, reports) {
			continue
		}
		d := *old
		d.Reports = reports
		ring := old.Ring()
		branch, err := w.render(&d, ring)
		if err != nil {
			panic("report names of claim " + d.Token.String() + " do not render: " + err.Error() + ": this is a defect: stop this node and report it")
		}
		d.Branch = branch
		for _, t := range old.Reports {
			w.reports.drop(t.Name, d.Token)
			w.bumpPlatform(t.Platform)
		}
		for _, t := range reports {
			w.reports.add(t.Name, d.Token)
			w.bumpPlatform(t.Platform)
		}
		w.put(old, &d, ring)
	}
}

func equalTargets(a, b []zone.Target) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// keyRefusal makes a refusal of what the ring says.
func keyRefusal(field string, err error) *Refusal {
	var early *keys.NotReady
	if errors.As(err, &early) {
		return tooEarly(field, early.At, "%v", err)
	}
	return invalid(field, "%v", err)
}
