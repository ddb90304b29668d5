package state

import (
	"bytes"
	"maps"
	"slices"

	"authd/keys"
)

// Verbs of ControlRotation. Kept in the log: never renumber.
const (
	RotationPause    uint8 = 1
	RotationResume   uint8 = 2 // or go on to the next stage, whatever is waited for
	RotationAbort    uint8 = 3
	RotationRollback uint8 = 4
)

const (
	// rotateShare is how many domains one log entry rotates, and rotateLook how many
	// it looks at: what takes well under 20 ms, during which nothing else applies.
	rotateShare = 128
	rotateLook  = 4000
)

// startRotation takes a rotation up; AdvanceRotation carries it out.
func (w *writer) startRotation(c StartRotation) Result {
	if _, twice := w.rotation(c.ID); twice {
		return Result{Token: c.ID}
	}
	if r := w.checkRotation(c); r != nil {
		return refused(r)
	}
	if r := w.makeRoom(c); r != nil {
		return refused(r)
	}
	w.rotationNumber++
	spec := c.RotationSpec
	if spec.Drill {
		spec.Old = keys.FateDrain
	}
	if len(spec.Canary) == 0 {
		spec.Canary = []uint8{100}
	}
	w.rotations.Set(w.rotationNumber, &Rotation{
		ID: c.ID, Number: w.rotationNumber, RotationSpec: spec,
		Actor: plain(w.entry.Actor, maxActor), Reason: plain(w.entry.Reason, maxReason),
		StartedAt: w.time, State: RotationRunning, Tenant: w.scopeTenant(&spec.Scope),
	})
	return Result{Token: c.ID, Changed: true}
}

// scopeTenant is the tenant that all domains of a scope are of, whatever happens to them;
// empty: there is none.
func (w *writer) scopeTenant(s *RotationScope) (owner string) {
	for i, t := range s.Tokens {
		d, ok := w.find(t)
		if !ok || i > 0 && d.Tenant != owner {
			return ""
		}
		owner = d.Tenant
	}
	return s.Tenant + owner // one of the two is empty
}

func (w *writer) checkRotation(c StartRotation) *Refusal {
	if r := w.checkRotationScope(&c.Scope); r != nil {
		return r
	}
	urgent := c.Emergency || c.Drill
	switch {
	case c.Old < keys.FateDrain || c.Old > keys.FateSwitch:
		return invalid("old", "%s is unknown, want drain, revoke or revoke_when_switched", c.Old)
	case !urgent && c.Old != keys.FateDrain:
		return invalid("old", "%s goes with an emergency alone: make it one, or let the old keys drain", c.Old)
	case c.Store && (!urgent || c.Drill):
		return invalid("compromised", "a leaked store goes with an emergency alone, and not with a drill, which burns nothing")
	case len(c.Canary) > maxStages || len(c.Canary) > 0 && c.Canary[len(c.Canary)-1] != 100:
		return invalid("canary", "want at most %d stages in percent, rising, the last of them 100", maxStages)
	case c.Hold < 0 || c.Hold > maxHold:
		return invalid("hold", "%d s, want 0 to %d", c.Hold, maxHold)
	}
	for i, share := range c.Canary {
		if share == 0 || share > 100 || i > 0 && share <= c.Canary[i-1] {
			return invalid("canary", "stage %d is %d %%: want percents that rise to 100", i+1, share)
		}
	}
	return nil
}

func (w *writer) checkRotationScope(s *RotationScope) *Refusal {
	given := 0
	for _, is := range []bool{s.Tenant != "", s.Pool != "", len(s.Tokens) > 0, s.All} {
		if is {
			given++
		}
	}
	if given != 1 {
		return invalid("scope", "want one of tenant, pool, domains, all; %d are given", given)
	}
	if s.Tenant != "" {
		if _, ok := w.tenants.Get(s.Tenant); !ok {
			return notFound("scope.tenant", "no tenant %s", quote(s.Tenant))
		}
	}
	if s.Pool != "" {
		if _, ok := w.pools.Get(s.Pool); !ok {
			return notFound("scope.pool", "no pool %s", quote(s.Pool))
		}
	}
	if len(s.Tokens) > maxRotationList {
		return invalid("scope.domains", "%d domains, at most %d in a list: use a tenant or a pool", len(s.Tokens), maxRotationList)
	}
	for i, t := range s.Tokens {
		if _, ok := w.domains.Get(t.key()); !ok {
			return notFound("scope.domains", "no claim %s", t)
		}
		if i > 0 && t.key() <= s.Tokens[i-1].key() {
			return invalid("scope.domains", "claim %s is not behind the one before: want them in order, each once", t)
		}
	}
	return nil
}

// makeRoom forgets the oldest rotation that has ended where there are too many, of a
// tenant that begins one its own: no tenant pushes out what others may want to look at,
// or roll back. Only a plain one is refused while many are under way, and a tenant's own
// while that has many: one that could hold all places could keep an emergency waiting.
func (w *writer) makeRoom(c StartRotation) *Refusal {
	most := MaxRotations
	if !c.Emergency {
		most = maxPlainRotations
	}
	all, own := held{}, held{}
	tenant := w.tenantOf(w.entry.Actor)
	w.rotations.Scan(func(number uint32, r *Rotation) bool {
		all.add(number, r)
		if tenant != "" && w.tenantOf(r.Actor) == tenant {
			own.add(number, r)
		}
		return true
	})
	switch {
	case own.open >= maxTenantRotations:
		return conflict("scope", nil, "%d rotations of tenant %s are under way, at most %d at a time: let one end, or abort it", own.open, quote(tenant), maxTenantRotations)
	case all.open >= most:
		return conflict("scope", nil, "%d rotations are under way, at most %d at a time: let one end, or abort it", all.open, most)
	case own.all >= maxTenantRotations:
		w.rotations.Delete(own.oldest)
	case all.all >= MaxRotations:
		w.rotations.Delete(all.oldest)
	}
	return nil
}

// held counts rotations that are kept.
type held struct {
	all, open int
	oldest    uint32 // of those that have ended
}

func (h *held) add(number uint32, r *Rotation) {
	h.all++
	if !r.Ended() {
		h.open++
	} else if h.oldest == 0 {
		h.oldest = number
	}
}

// tenantOf is the tenant whose access token an actor is; empty: it is none's.
func (t *tables) tenantOf(actor string) string {
	if a, ok := t.access.Get(actor); ok {
		return a.Scope.tenant()
	}
	return ""
}

// controlRotation pauses, resumes, aborts and rolls back.
func (w *writer) controlRotation(c ControlRotation) Result {
	old, ok := w.rotation(c.ID)
	if !ok {
		return refused(notFound("id", "no rotation %s: it never was, or %d others came after it", c.ID, MaxRotations))
	}
	next, result := *old, Result{Token: c.ID}
	ended := conflict("id", nil, "rotation %s is %s: nothing more of it is begun", c.ID, old.State)
	switch {
	case c.Verb == RotationPause && old.Ended(), c.Verb == RotationResume && old.Ended():
		result.Refusal = ended
	case c.Verb == RotationPause:
		next.State, next.HeldAt = RotationPaused, 0 // a hold would end by itself
	case c.Verb == RotationResume:
		next.goOn()
	case c.Verb == RotationAbort && old.State == RotationDone:
		result.Refusal = conflict("id", nil, "rotation %s is done: roll it back instead", c.ID)
	case c.Verb == RotationAbort:
		next.State = RotationAborted
		if next.EndedAt == 0 {
			next.EndedAt = w.time
		}
	case c.Verb == RotationRollback:
		result.Refusal = next.turnBack()
	default:
		result.Refusal = invalid("verb", "verb %d is unknown", c.Verb)
	}
	if result.Refusal != nil || sameRotation(&next, old) {
		return result
	}
	w.rotations.Set(next.Number, &next)
	w.settleRotation(next.Number)
	result.Changed = true
	return result
}

// sameRotation compares what a verb changes.
func sameRotation(a, b *Rotation) bool {
	return a.State == b.State && a.HeldAt == b.HeldAt && a.Stage == b.Stage && a.Back == b.Back
}

// goOn ends a pause, a hold, or a stage that waits for its last domains.
func (r *Rotation) goOn() {
	stageOver := r.HeldAt != 0 || r.passed() >= r.limit() && (r.State == RotationRunning || r.Waiting == 0)
	if stageOver && int(r.Stage)+1 < len(r.Canary) {
		r.Stage++
	}
	r.State, r.HeldAt = RotationRunning, 0
}

// turnBack begins the way back over what was begun.
func (r *Rotation) turnBack() *Refusal {
	switch {
	case r.Back && r.State == RotationAborted:
		r.State, r.EndedAt = RotationRunning, 0 // where it was
		return nil
	case r.Back:
		return nil
	case r.Store:
		return conflict("id", nil, "the keys before rotation %s are in the leaked store: there is no way back to them", r.ID)
	case r.Emergency && !r.Drill && r.Old != keys.FateDrain:
		return conflict("id", nil, "rotation %s revokes the old keys, and a revoked key never signs again: rotate forward instead", r.ID)
	}
	r.Back, r.State, r.HeldAt, r.EndedAt = true, RotationRunning, 0, 0
	if !r.Walked {
		r.Until = r.Next
		if r.Until == "" { // nothing was begun
			r.Until = "\x00"
		}
	}
	r.Next, r.Walked = "", false
	return nil
}

// advanceRotation goes on with the next domains. It may be proposed more often
// than there is something to do, and several may be under way.
func (w *writer) advanceRotation(c AdvanceRotation) Result {
	r, ok := w.rotation(c.ID)
	if !ok || !r.Due(w.time) {
		return Result{Token: c.ID}
	}
	w.about.told = true
	if r.State == RotationPaused {
		next := *r
		next.goOn()
		w.rotations.Set(next.Number, &next)
		r = &next
	}
	list, cursor, walked := w.nextInRotation(r)
	for _, d := range list {
		if r.Back {
			w.returnOne(r, d)
		} else {
			w.rotateOne(r, d)
		}
	}
	w.editRotation(r.Number, func(r *Rotation) { r.Next, r.Walked = cursor, walked })
	w.settleRotation(r.Number)
	return Result{Token: c.ID, Changed: true}
}

// nextInRotation are the next domains, as many as this log entry may still rotate.
func (w *writer) nextInRotation(r *Rotation) (list []*Domain, cursor string, walked bool) {
	room := min(int64(rotateShare-w.rotated), int64(r.limit())-int64(r.passed()))
	looked := 0
	cursor, walked = r.Next, true
	if room <= 0 {
		return nil, cursor, false
	}
	w.inRotation(r, r.Next, func(d *Domain, in bool) bool {
		key := d.Token.key()
		if r.Until != "" && key >= r.Until {
			return false
		}
		if int64(len(list)) == room || looked == rotateLook {
			walked = false
			return false
		}
		looked++
		cursor = key + "\x00"
		if in {
			list = append(list, d)
		}
		return true
	})
	w.rotated += len(list)
	return list, cursor, walked
}

// rotateOne begins with one domain.
func (w *writer) rotateOne(r *Rotation, old *Domain) {
	ring := old.Ring()
	next, told := w.turned(r, old, ring)
	skipped := true
	if told != nil {
		next = next.Part(r.Number, ring)
		refusal := w.keepRotated(r, old, ring, next, told)
		skipped = refusal != nil || next.Rotation == 0 // nothing signs, and the next key does already all it can
	}
	w.editRotation(r.Number, func(r *Rotation) {
		r.Begun++
		if skipped {
			r.Skipped++
		} else if r.Oldest == 0 || old.CreatedAt < r.Oldest {
			r.Oldest = old.CreatedAt
		}
	})
}

// turned is the ring of one domain after its rotation or with the wish for it,
// and the command that one domain alone would have had; nil where it is skipped.
func (w *writer) turned(r *Rotation, d *Domain, ring keys.Ring) (keys.Ring, Command) {
	urgent := r.Emergency || r.Drill
	switch {
	case d.State == Leaving && r.Store:
		return turnedLeaving(r, d, ring, w.time)
	case d.State == Leaving || !urgent && w.suspended(d):
		return ring, nil
	}
	if r.Old == keys.FateDrain && !r.Store && waitsSeriously(ring) {
		return ring, nil // it would make less of the emergency, and its way back withdraw it
	}
	policy := w.policy(d)
	next := ring
	var told Command
	for _, a := range d.Algorithms {
		active, ok := next.Active(a)
		if !ok && !urgent {
			continue
		}
		var after keys.Ring
		var err error
		switch {
		case !urgent:
			after, err = next.Renew(a, w.time, policy)
		case r.Drill:
			after, err = next.Drill(a, active.ID, w.time)
		case r.Store:
			after, err = next.Burn(a, active.ID, r.Old, w.time)
		default:
			after, err = next.Emergency(a, active.ID, r.Old, w.time)
		}
		if err != nil {
			continue // its private half is elsewhere, or it has no place for a key
		}
		next = after
		from := ""
		if ok {
			from = d.Selector(active)
		}
		told = ReplaceKey{Token: d.Token, Algorithm: a, From: from, Old: r.Old, Store: r.Store}
		if !urgent {
			told = StepKey{Token: d.Token, Step: keys.Step{Kind: keys.StepActivate, Algorithm: a, Key: active.ID}, From: from, Manual: true}
			w.about.step = keys.StepActivate.String()
			if next.Urgent[a].Planned {
				w.about.step += ", once the standby has soaked,"
			}
		}
	}
	return next, told
}

// turnedLeaving is the ring of a domain that leaves and whose keys leaked with the
// store: it has nothing to switch to, and is skipped for the counts.
func turnedLeaving(r *Rotation, d *Domain, ring keys.Ring, at int64) (next keys.Ring, told Command) {
	next = ring
	for _, a := range d.Algorithms {
		next = next.BurnLeft(a, r.Old, at)
		told = ReplaceKey{Token: d.Token, Algorithm: a, Old: r.Old, Store: true}
	}
	return next, told
}

// waitsSeriously says whether an emergency, no drill, waits for its standby.
func waitsSeriously(ring keys.Ring) bool {
	for _, wish := range ring.Urgent {
		if wish.Serious() {
			return true
		}
	}
	return false
}

// returnOne takes one domain back: what waits is withdrawn, and the key that was
// replaced signs again where it may.
func (w *writer) returnOne(r *Rotation, old *Domain) {
	ring := old.Ring()
	next, kept := ring, false
	var told Command
	for _, a := range old.Algorithms {
		if next.Rotation == r.Number && next.Urgent[a].Key != 0 {
			next = next.Withdraw(a)
			told = StepKey{Token: old.Token, Step: keys.Step{Kind: keys.StepActivate, Algorithm: a}, Manual: true}
			w.about.step = "withdraw " + keys.StepActivate.String()
			continue
		}
		active, ok := next.Active(a)
		if !ok || active.BroughtBy != int64(r.Number) {
			continue // it never switched, or another key came since, which is not ours to undo
		}
		step := keys.Step{Kind: keys.StepActivate, Algorithm: a, Key: next.RolledFrom[a]}
		after, err := next.Take(step, w.time, w.policy(old), nil)
		if err != nil {
			kept = true
			continue
		}
		next = after
		told = StepKey{Token: old.Token, Step: step, From: old.Selector(active), Manual: true}
		w.about.step = step.Kind.String()
	}
	if next.Rotation == r.Number {
		next.Rotation = 0
	}
	switch {
	case told != nil:
		kept = w.keepRotated(r, old, ring, next, told) != nil || kept
	case !kept:
		kept = true // it never switched
	}
	w.editRotation(r.Number, func(r *Rotation) {
		if kept {
			r.Kept++
		} else {
			r.Returned++
		}
	})
}

// keepRotated stores one domain, with an audit entry of its own: its timeline
// shows the change as if it had been asked for alone.
func (w *writer) keepRotated(r *Rotation, old *Domain, ring, next keys.Ring, told Command) *Refusal {
	stays := slices.EqualFunc(ring.Keys, next.Keys, func(a, b keys.Key) bool { return a.Stage == b.Stage })
	if stays && ring.Rotation == next.Rotation && maps.Equal(ring.Urgent, next.Urgent) && bytes.Equal(ring.Append(nil), next.Append(nil)) {
		return nil
	}
	d := *old
	if !stays {
		touched(&d)
	}
	w.about.domains, w.about.key = w.about.domains[:0], ""
	if refusal := w.keep(old, &d, ring, next); refusal != nil {
		return refusal
	}
	if c, ok := told.(ReplaceKey); ok {
		w.about.key, w.about.step = c.From, ""
		if len(next.Urgent) > 0 {
			w.about.step = "; waits for the standby"
		}
	}
	w.record(Entry{At: w.entry.At, Actor: r.Actor, Source: "rotation " + r.ID.String(), Reason: r.Reason, Command: told}, Result{Token: d.Token})
	return nil
}

// editRotation changes a rotation that is kept.
func (w *writer) editRotation(number uint32, change func(*Rotation)) {
	if old, ok := w.rotations.Get(number); ok {
		next := *old
		change(&next)
		w.rotations.Set(number, &next)
	}
}

// settleRotation ends a rotation, or a stage of it, that has nothing left to do.
func (w *writer) settleRotation(number uint32) {
	r, ok := w.rotations.Get(number)
	if !ok || r.State != RotationRunning || r.Waiting > 0 && !r.Back {
		return
	}
	switch {
	case r.Walked:
		w.editRotation(number, func(r *Rotation) { r.State, r.EndedAt = RotationDone, w.time })
	case r.passed() >= r.limit():
		w.editRotation(number, func(r *Rotation) { r.State, r.HeldAt = RotationPaused, max(w.time, 1) })
	}
}
