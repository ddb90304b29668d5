package keys

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// StepKind is a transition. Values are kept in the log: never renumber.
type StepKind uint8

const (
	StepPublish  StepKind = 1 // add a standby (needs Material)
	StepConfirm  StepKind = 2 // every serving node answers the standby's record
	StepActivate StepKind = 3 // the standby signs, the active one drains
	StepRevoke   StepKind = 4 // a draining key is answered with an empty p=
	StepRemove   StepKind = 5 // a revoked key leaves the ring
)

// String is the step's name in the API and in scenarios.
func (k StepKind) String() string {
	switch k {
	case StepPublish:
		return "publish"
	case StepConfirm:
		return "confirm"
	case StepActivate:
		return "activate"
	case StepRevoke:
		return "revoke"
	case StepRemove:
		return "remove"
	}
	return fmt.Sprintf("step %d", uint8(k))
}

// Step is one transition of one key, or (StepPublish) of one algorithm.
type Step struct {
	Kind      StepKind  `cbor:"1,keyasint"`
	Algorithm Algorithm `cbor:"2,keyasint"`
	Key       uint32    `cbor:"3,keyasint"` // ID; 0 for StepPublish
	// Evidence is what StepRevoke rests on; nil: nothing is known.
	Evidence *Evidence `cbor:"4,keyasint,omitempty"`
	// CreatedAt is the key's, in seconds since 1970, where the step rests on what was asked
	// about that key: after a restore another key may have its ID. 0: it rests on nothing.
	CreatedAt int64 `cbor:"5,keyasint,omitempty"`
}

// Planned is a step and when it is due.
type Planned struct {
	Step
	Due int64 // seconds since 1970
}

// Next says which step is due next and when, and whether there is any. It knows of no
// barrier: StepConfirm is due at once, and whoever proposes it has asked the nodes.
func (r Ring) Next(p Policy) (step Step, due int64, ok bool) {
	planned := r.Plan(p)
	if len(planned) == 0 {
		return Step{}, 0, false
	}
	return planned[0].Step, planned[0].Due, true
}

// Plan lists the steps that the ring waits for, one a key at most, the earliest
// first. A caller whose barrier holds a StepConfirm goes on with the others.
func (r Ring) Plan(p Policy) []Planned {
	var list []Planned
	for i := range r.Keys {
		if next, ok := r.nextOf(&r.Keys[i], p); ok {
			list = append(list, next)
		}
	}
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		if due, ok := r.publishAt(a); ok {
			list = append(list, Planned{Step{Kind: StepPublish, Algorithm: a}, due})
		}
	}
	slices.SortStableFunc(list, func(a, b Planned) int { return cmp.Compare(a.Due, b.Due) })
	return list
}

// nextOf is the step that one key waits for.
func (r Ring) nextOf(k *Key, p Policy) (Planned, bool) {
	switch k.Stage {
	case Standby:
		if k.ConfirmedAt == 0 {
			return planned(StepConfirm, k, k.CreatedAt), true
		}
		due, ok := r.activateAt(k, p)
		return planned(StepActivate, k, due), ok
	case Draining:
		if k.SwitchBy != 0 {
			return planned(StepRevoke, k, k.DrainedAt), true // due until evidence says that all signers switched
		}
		return planned(StepRevoke, k, r.retireAt(k, p)), true
	case Revoked:
		return planned(StepRemove, k, r.removeAt(k, p)), true
	}
	return Planned{}, false
}

func planned(kind StepKind, k *Key, due int64) Planned {
	return Planned{Step{Kind: kind, Algorithm: k.Algorithm, Key: k.ID, CreatedAt: k.CreatedAt}, due}
}

// activateAt is when a confirmed standby is due to sign, and whether it ever is by
// schedule. A key whose private half is elsewhere is neither put to use nor replaced
// by schedule: its signer would not know. In slots it also holds one of three, with
// which the others can hardly turn: rotation is by hand until it is revoked.
func (r Ring) activateAt(standby *Key, p Policy) (int64, bool) {
	if standby.PublicOnly {
		return 0, false
	}
	active, ok := r.Active(standby.Algorithm)
	if wish, urgent := r.Urgent[standby.Algorithm]; urgent {
		if wish.Planned {
			return standby.ReadyAt() + seconds(p.Soak), true
		}
		return standby.ReadyAt(), true
	}
	switch {
	case !ok:
		return standby.ReadyAt(), true // the domain came back; one that leaves has no standby
	case active.PublicOnly || r.Mode == Slots && r.elsewhere(standby.Algorithm) > 0:
		return 0, false
	}
	return max(active.ActivatedAt+r.period(p), standby.ReadyAt()+seconds(p.Soak)), true
}

// period is the policy's, spread by the ring's jitter.
func (r Ring) period(p Policy) int64 {
	period := seconds(p.Period)
	return period + period*int64(r.Jitter)/int64(1000/jitterShare)
}

// drainedFrom is when a draining key's last signature may have been made.
func drainedFrom(k *Key, p Policy) int64 {
	return max(k.DrainedAt+p.holdFrom(k.DrainedAt), k.HeldBefore)
}

// floorAt is the earliest that a draining key may be revoked as a step.
func floorAt(k *Key, p Policy) int64 { return drainedFrom(k, p) + seconds(p.DrainFloor) }

// retireAt is when a draining key is due to be revoked; that of a domain that leaves
// is at its floor already.
func (r Ring) retireAt(k *Key, p Policy) int64 {
	due := max(floorAt(k, p), k.HeldUntil)
	if r.RetiredAt != 0 {
		return due
	}
	return max(due, drainedFrom(k, p)+seconds(p.Drain))
}

// removeAt is when a revoked key leaves the ring; its slot is empty then.
func (r Ring) removeAt(k *Key, p Policy) int64 {
	if r.Mode == Slots {
		return r.Freed[k.Selector]
	}
	return k.RevokedAt + seconds(p.RevokedFor)
}

// publishAt is when an algorithm is due to get a standby.
func (r Ring) publishAt(a Algorithm) (int64, bool) {
	count, latest := 0, int64(0)
	for i := range r.Keys {
		k := &r.Keys[i]
		if k.Algorithm != a {
			continue
		}
		if k.isStandby() {
			return 0, false
		}
		count++
		latest = max(latest, k.ActivatedAt)
	}
	if r.RetiredAt != 0 || count == 0 {
		return 0, false
	}
	if r.Mode == Minted {
		return latest, count < MaxKeys
	}
	var free int64
	found := false
	for slot := uint8(1); slot <= slotCount; slot++ {
		label := SlotLabel(a, slot)
		if _, used := r.BySelector(label); used {
			continue
		}
		if freed := r.Freed[label]; !found || freed < free {
			free, found = freed, true
		}
	}
	return max(latest, free), found
}

// Take carries out a step at a time in seconds since 1970. A manual rotation may take
// StepActivate before it is due; what does not fit the ring is refused whatever Next
// said, and with a *NotReady what is too early: a standby that is not ready, a
// revocation before the floor, a removal before its time.
//
// StepRevoke needs the evidence of every serving node. Where that says that the key is
// still in use, the step is taken and puts the revocation off: see Evidence.
// StepActivate of the key that the active one replaced rolls back, within the policy's
// window. m is nil except for StepPublish.
func (r Ring) Take(s Step, at int64, p Policy, m *Material) (Ring, error) {
	next, err := r.take(s, at, p, m)
	if err != nil {
		return Ring{}, fmt.Errorf("%s %s: %w", s.Kind, r.name(s), err)
	}
	return next, nil
}

// name is how errors name the subject of a step.
func (r Ring) name(s Step) string {
	if s.Kind == StepPublish {
		return s.Algorithm.String()
	}
	if k, ok := r.ByID(s.Key); ok {
		return fmt.Sprintf("key %d (%s)", k.ID, k.Selector)
	}
	return fmt.Sprintf("key %d", s.Key)
}

func (r Ring) take(s Step, at int64, p Policy, m *Material) (Ring, error) {
	if at <= 0 {
		return Ring{}, fmt.Errorf("time %d is not after 1970", at)
	}
	if (m != nil) != (s.Kind == StepPublish) {
		return Ring{}, errors.New("a new key's material belongs to publish, and to it alone")
	}
	if s.Kind == StepPublish {
		return r.publish(s, at, m)
	}
	i := r.index(s.Key)
	if i < 0 {
		return Ring{}, errors.New("no such key in the ring")
	}
	if s.Algorithm != 0 && s.Algorithm != r.Keys[i].Algorithm {
		return Ring{}, fmt.Errorf("the key is of %s, not of %s", r.Keys[i].Algorithm, s.Algorithm)
	}
	switch s.Kind {
	case StepConfirm:
		return r.confirm(i, at, p)
	case StepActivate:
		return r.activate(i, at, p)
	case StepRevoke:
		return r.drained(i, at, p, s.Evidence)
	case StepRemove:
		return r.remove(i, at, p)
	}
	return Ring{}, errors.New("unknown step")
}

func (r Ring) publish(s Step, at int64, m *Material) (Ring, error) {
	if m.Algorithm != s.Algorithm {
		return Ring{}, fmt.Errorf("material is of %s", m.Algorithm)
	}
	if r.RetiredAt != 0 {
		return Ring{}, errors.New("the domain is leaving")
	}
	if k, ok := r.Standby(m.Algorithm); ok {
		return Ring{}, fmt.Errorf("%q is standby already", k.Selector)
	}
	key, err := r.laterKey(m, at)
	if err != nil {
		return Ring{}, err
	}
	return r.with(key).settled(), nil
}

// laterKey is newKey for a ring that has had keys before: names may be in caches.
func (r Ring) laterKey(m *Material, at int64) (Key, error) {
	key, err := r.newKey(m, at)
	if err != nil {
		return Key{}, err
	}
	if r.Mode == Minted && forgotten(key.Selector, at) {
		return Key{}, fmt.Errorf("selector %q is of a month long past and may have been used: mint another", key.Selector)
	}
	key.Gap = r.gap(key.Selector)
	return key, nil
}

// gap is how long caches hold what a name answers before its next key.
func (r Ring) gap(selector string) int64 {
	if r.Mode == Minted {
		return GapMinted
	}
	// A slot that was used answers a short empty p= by now, but nobody has
	// confirmed since when: its key may have been served up to this moment.
	if _, used := r.Freed[selector]; used {
		return TTLLong + TTLStretch
	}
	return TTLShort + TTLStretch
}

func (r Ring) confirm(i int, at int64, p Policy) (Ring, error) {
	if k := &r.Keys[i]; k.Stage != Standby {
		return Ring{}, fmt.Errorf("it is %s, not standby", k.Stage)
	} else if k.ConfirmedAt != 0 {
		return Ring{}, errors.New("it is confirmed already")
	}
	next := r.clone()
	k := &next.Keys[i]
	k.ConfirmedAt = at
	for slot, since := range r.Handed {
		if since < 0 && (slot == k.Selector || k.CreatedAt >= -since) {
			next.Handed[slot] = at // all nodes are past what took the key away
		}
	}
	if last, ok := next.Handed[k.Selector]; ok {
		k.Gap = max(k.Gap, last+p.holdFrom(last)-at)
	}
	return next, nil
}

// handedUntil is when a key that leaves its slot in a hurry was given to a signer for the
// last time, for Handed: a key that was published since it signed may have been confirmed.
func (r Ring) handedUntil(k *Key) int64 {
	until := -k.DrainedAt
	for i := range r.Keys {
		o := &r.Keys[i]
		since := o.CreatedAt >= k.DrainedAt && o.ActivatedAt != k.DrainedAt && o.ConfirmedAt != 0
		if since && (until < 0 || o.ConfirmedAt < until) {
			until = o.ConfirmedAt
		}
	}
	return until
}

func (r Ring) activate(i int, at int64, p Policy) (Ring, error) {
	k := &r.Keys[i]
	if r.RetiredAt != 0 {
		return Ring{}, errors.New("the domain is leaving")
	}
	if k.Stage == Draining {
		return r.rollBack(i, at, p)
	}
	if k.Stage != Standby {
		return Ring{}, fmt.Errorf("it is %s, not standby%s", k.Stage, k.neverAgain())
	}
	if k.PublicOnly {
		return Ring{}, errors.New("its private half is kept elsewhere: nothing here could sign with it")
	}
	if err := k.notReady(at); err != nil {
		return Ring{}, err
	}
	return r.replace(i, at), nil
}

// neverAgain adds the remedy to the refusal of a revoked key.
func (k *Key) neverAgain() string {
	if k.Stage != Revoked {
		return ""
	}
	return ": what was answered with an empty p= never signs again; rotate to the standby instead"
}

// notReady says why a standby must not sign yet: some receiver may not see it.
func (k *Key) notReady(at int64) error {
	what := fmt.Sprintf("standby %q", k.Selector)
	if k.ConfirmedAt == 0 {
		return &NotReady{What: what, Why: "not every serving node has confirmed that it answers the record"}
	}
	if at < k.ReadyAt() {
		return &NotReady{What: what, At: k.ReadyAt()}
	}
	return nil
}

// succeed makes a key active and lets the one before it drain.
func (r Ring) succeed(i int, at int64) Ring {
	next := r.clone()
	k := &next.Keys[i]
	if k.BroughtBy = 0; r.Urgent[k.Algorithm].Key != 0 {
		k.BroughtBy = int64(r.Rotation)
	}
	delete(next.RolledFrom, k.Algorithm)
	delete(next.Urgent, k.Algorithm)
	for j := range next.Keys {
		old := &next.Keys[j]
		if old.Algorithm == k.Algorithm && old.Stage == Active {
			old.Stage, old.DrainedAt = Draining, at
			next.RolledFrom[k.Algorithm] = old.ID
		}
	}
	k.Stage, k.ActivatedAt, k.DrainedAt, k.SwitchBy, k.HeldUntil = Active, at, 0, 0, 0
	delete(next.Handed, k.Selector)
	return next
}

// rollBack makes the key active again that the active one replaced.
func (r Ring) rollBack(i int, at int64, p Policy) (Ring, error) {
	k := &r.Keys[i]
	if r.RolledFrom[k.Algorithm] != k.ID {
		return Ring{}, errors.New("it is draining and not the key that the active one replaced")
	}
	if until := k.DrainedAt + seconds(p.Rollback); at > until {
		return Ring{}, fmt.Errorf("it is draining and its rollback window of %s is over", p.Rollback)
	}
	next := r.replace(i, at)
	next.Keys[i].BroughtBy = 0
	delete(next.RolledFrom, k.Algorithm) // the newer key drains: no rollback of the rollback
	return next, nil
}

// revoked is the ring with a key revoked, and its private half gone.
func (r Ring) revoked(i int, at int64) Ring {
	next := r.clone()
	k := &next.Keys[i]
	if next.Mode == Slots {
		next.Freed[k.Selector] = max(next.Freed[k.Selector], at+k.ttl()+TTLStretch, k.HeldBefore)
	}
	if k.Stage == Active {
		k.DrainedAt = at
	}
	if next.Mode == Slots && k.ActivatedAt != 0 {
		next.Handed[k.Selector] = r.handedUntil(k)
	}
	if next.RolledFrom[k.Algorithm] == k.ID {
		delete(next.RolledFrom, k.Algorithm)
	}
	if next.Urgent[k.Algorithm].Key == k.ID {
		delete(next.Urgent, k.Algorithm)
	}
	k.Stage, k.RevokedAt, k.SwitchBy, k.HeldUntil, k.Sealed, k.Payload = Revoked, at, 0, 0, nil, ""
	return next
}

func (r Ring) remove(i int, at int64, p Policy) (Ring, error) {
	k := &r.Keys[i]
	if k.Stage != Revoked {
		return Ring{}, fmt.Errorf("it is %s, not revoked", k.Stage)
	}
	if due := r.removeAt(k, p); at < due {
		return Ring{}, &NotReady{What: fmt.Sprintf("removing revoked %q", k.Selector), At: due}
	}
	next := r.clone()
	if next.Mode == Minted {
		maps.DeleteFunc(next.Freed, func(name string, _ int64) bool { return forgotten(name, at) })
		next.Freed[k.Selector] = at
	}
	next.Keys = slices.Delete(next.Keys, i, i+1)
	return next, nil
}

// clone is a copy that may be changed before it is handed out.
func (r Ring) clone() Ring {
	r.Keys = slices.Clone(r.Keys)
	freed, rolled, handed := r.Freed, r.RolledFrom, r.Handed
	r.Freed = make(map[string]int64, len(freed)+1)
	maps.Copy(r.Freed, freed)
	r.RolledFrom = make(map[Algorithm]uint32, len(rolled)+1)
	maps.Copy(r.RolledFrom, rolled)
	r.Handed = make(map[string]int64, len(handed)+1)
	maps.Copy(r.Handed, handed)
	r.Urgent = maps.Clone(r.Urgent)
	return r
}
