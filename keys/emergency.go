package keys

import (
	"errors"
	"fmt"
	"slices"
)

// Fate is what becomes of the key that an emergency replaces. Values are kept in
// the log and in rings: never renumber.
type Fate uint8

const (
	FateDrain  Fate = 1 // it is published until its drain ends, as after any rotation
	FateRevoke Fate = 2 // it is answered with an empty p= in the change that activates the next
	// FateSwitch: it drains, and is revoked once every signer has fetched the next
	// key, at most SwitchTime later.
	FateSwitch Fate = 3
)

// SwitchTime is how long FateSwitch waits for signers, in seconds.
const SwitchTime = 10 * 60

func (f Fate) known() bool { return f >= FateDrain && f <= FateSwitch }

// String is the fate's name in the API.
func (f Fate) String() string {
	switch f {
	case FateDrain:
		return "drain"
	case FateRevoke:
		return "revoke"
	case FateSwitch:
		return "revoke_when_switched"
	}
	return fmt.Sprintf("fate %d", uint8(f))
}

// Urgent is an emergency that waits for its standby: the next key signs from its
// ready time on, with no soak.
type Urgent struct {
	Key uint32 // ID of the active key that is to be replaced
	Old Fate
	// Burned: the sealed store leaked, so the standby of that time was revoked with the
	// wish. The same wish again burns nothing more.
	Burned bool
	// Planned: a rotation, no emergency, so the next key soaks before it signs.
	Planned bool
	// Drill: an emergency for practice, so no older key is revoked to make room.
	Drill bool
}

// Serious says whether a key is believed to have leaked: then a lesser request must
// not replace the wish.
func (u Urgent) Serious() bool { return u.Key != 0 && !u.Planned && !u.Drill }

// Emergency replaces an active key as soon as receivers can see the next one: at
// once where the standby is ready, otherwise by StepActivate at its ready time. It is
// refused only for a domain that leaves and for a key that never signed.
//
// from is the ID of the key that the caller saw active, 0 for whichever is active now.
// A key that has left Active meanwhile only gets its fate, where another key signs. The
// old key is never revoked before another is active.
//
// In slots the key that has drained longest is revoked where otherwise no slot would
// be left for the next standby.
func (r Ring) Emergency(a Algorithm, from uint32, old Fate, at int64) (Ring, error) {
	return r.inEmergency(a, from, Urgent{Old: old}, at)
}

// Burn is an Emergency after the sealed store leaked: the standby, whose private half
// was in it, is revoked at once (it signed nothing), and the active key is replaced by
// one that is made anew. Keys that drain were in the store too: they have the active
// one's fate, at once since nothing signs with them, and none signs again. Called again
// for the same active key it burns nothing: the standby was made since.
func (r Ring) Burn(a Algorithm, from uint32, old Fate, at int64) (Ring, error) {
	return r.inEmergency(a, from, Urgent{Old: old, Burned: true}, at)
}

// BurnLeft is Burn for a domain that leaves, whose keys were in the store too: they get
// the fate, and those that may not drain do not come back with the domain. It changes
// nothing where the domain is not leaving.
func (r Ring) BurnLeft(a Algorithm, old Fate, at int64) Ring {
	if r.RetiredAt == 0 {
		return r
	}
	return r.burned(a, old, at)
}

// Drill is an Emergency for practice: it revokes nothing, also no older key to free a
// slot, since mail signed with that is real. A serious wish that waits stays.
func (r Ring) Drill(a Algorithm, from uint32, at int64) (Ring, error) {
	if r.Urgent[a].Serious() {
		return r, nil
	}
	return r.inEmergency(a, from, Urgent{Old: FateDrain, Drill: true}, at)
}

func (r Ring) inEmergency(a Algorithm, from uint32, wish Urgent, at int64) (Ring, error) {
	next, err := r.emergency(a, from, wish, at)
	if err != nil {
		return Ring{}, fmt.Errorf("emergency rotation of %s: %w", a, err)
	}
	return next, nil
}

func (r Ring) emergency(a Algorithm, from uint32, wish Urgent, at int64) (Ring, error) {
	switch {
	case at <= 0:
		return Ring{}, fmt.Errorf("time %d is not after 1970", at)
	case !wish.Old.known():
		return Ring{}, fmt.Errorf("%s is unknown", wish.Old)
	case r.RetiredAt != 0:
		return Ring{}, errors.New("the domain is leaving: nothing signs any more")
	}
	active, signing := r.Active(a)
	if from != 0 && (!signing || from != active.ID) {
		return r.replaced(a, from, wish.Old, at)
	}
	if wish.Burned && !r.Urgent[a].Burned {
		r = r.burned(a, wish.Old, at)
	}
	wish.Key, wish.Burned = active.ID, wish.Burned || r.Urgent[a].Burned
	if signing {
		r = r.wishing(a, wish)
	}
	standby, ok := r.Standby(a)
	switch {
	case !ok && wish.Drill:
		return r, nil
	case !ok:
		return r.freeSlot(a, 0, at), nil
	case standby.notReady(at) != nil:
		return r, nil // the step is planned for its ready time
	}
	return r.activate(r.index(standby.ID), at, Policy{})
}

// burned is the ring without the keys that leaked with the store, the active one apart.
func (r Ring) burned(a Algorithm, old Fate, at int64) Ring {
	if standby, ok := r.Standby(a); ok {
		r = r.revoked(r.index(standby.ID), at)
	}
	for i := range r.Keys {
		switch k := &r.Keys[i]; {
		case k.Algorithm != a || k.Stage != Draining || k.PublicOnly:
		case old == FateRevoke:
			r = r.revoked(i, at)
		case old == FateSwitch && k.SwitchBy == 0:
			r = r.switching(i, at)
		}
	}
	return r.noWayBack(a)
}

// noWayBack closes the rollback window of an algorithm.
func (r Ring) noWayBack(a Algorithm) Ring {
	if _, ok := r.RolledFrom[a]; !ok {
		return r
	}
	next := r.clone()
	delete(next.RolledFrom, a)
	return next
}

// wishing is the ring with a wish for its next key.
func (r Ring) wishing(a Algorithm, wish Urgent) Ring {
	next := r.clone()
	if len(next.Urgent) == 0 {
		next.Urgent = make(map[Algorithm]Urgent, 1)
		next.Rotation = 0 // the ring's part in that rotation is over: it switched
	}
	next.Urgent[a] = wish
	return next
}

// Renew is a rotation before the period is over: at once where the standby is ready
// and has soaked, otherwise by StepActivate as soon as it has. The old key drains. A
// wish that waits already stays as it is. It is refused for a domain that leaves, where
// no key signs, and for a key whose private half is elsewhere: its signer would not know.
func (r Ring) Renew(a Algorithm, at int64, p Policy) (Ring, error) {
	active, signing := r.Active(a)
	standby, published := r.Standby(a)
	switch {
	case r.RetiredAt != 0:
		return Ring{}, errors.New("rotating: the domain is leaving: nothing signs any more")
	case !signing:
		return Ring{}, fmt.Errorf("rotating: no key of %s signs", a)
	case active.PublicOnly || published && standby.PublicOnly:
		return Ring{}, fmt.Errorf("rotating: the private half of a key of %s is kept elsewhere", a)
	case r.Urgent[a].Key != 0:
		return r, nil
	case !published || standby.notReady(at) != nil || at < standby.ReadyAt()+seconds(p.Soak):
		return r.wishing(a, Urgent{Key: active.ID, Old: FateDrain, Planned: true}), nil
	}
	return r.activate(r.index(standby.ID), at, p)
}

// Part is the ring as part of the rotation of many domains with a number, which has
// brought the keys that sign and did not before.
func (r Ring) Part(number uint32, before Ring) Ring {
	r.Rotation, r.Keys = number, slices.Clone(r.Keys)
	for i := range r.Keys {
		k := &r.Keys[i]
		if was, _ := before.ByID(k.ID); k.Stage == Active && was.Stage != Active {
			k.BroughtBy = int64(number)
		}
	}
	return r.settled()
}

// settled is the ring without its Rotation once that has nothing left to do here.
func (r Ring) settled() Ring {
	if r.Rotation == 0 || r.RetiredAt == 0 && (len(r.Urgent) > 0 || r.lacksStandby()) {
		return r
	}
	r.Rotation = 0
	return r
}

// lacksStandby says whether an algorithm signs without a key to follow.
func (r Ring) lacksStandby() bool {
	for i := range r.Keys {
		if k := &r.Keys[i]; k.Stage == Active && !r.has(k.Algorithm, Standby) {
			return true
		}
	}
	return false
}

// Withdraw forgets the wish for the next key of an algorithm: the active one
// signs on until its period is over.
func (r Ring) Withdraw(a Algorithm) Ring {
	if _, ok := r.Urgent[a]; !ok {
		return r
	}
	next := r.clone()
	delete(next.Urgent, a)
	return next
}

// replaced is an emergency for a key that is no longer active: it only gets its fate.
func (r Ring) replaced(a Algorithm, from uint32, old Fate, at int64) (Ring, error) {
	i := r.index(from)
	if i < 0 || r.Keys[i].Algorithm != a {
		return Ring{}, fmt.Errorf("key %d: no such key in the ring", from)
	}
	k := &r.Keys[i]
	if k.Stage == Standby {
		return Ring{}, fmt.Errorf("%q is standby and has signed nothing: revoke it instead", k.Selector)
	}
	switch {
	case k.Stage != Draining || !r.has(a, Active):
	case old == FateRevoke:
		return r.revoked(i, at), nil
	case old == FateSwitch && k.SwitchBy == 0:
		return r.switching(i, at), nil
	}
	return r, nil
}

// replace is succeed, and carries out the emergency that waited for it.
func (r Ring) replace(i int, at int64) Ring {
	a := r.Keys[i].Algorithm
	wish, urgent := r.Urgent[a]
	next := r.succeed(i, at)
	if wish.Burned {
		next = next.noWayBack(a)
	}
	switch {
	case !urgent || wish.Planned || wish.Drill:
		return next // the older keys drain to their ends: a slot can wait
	case wish.Old == FateRevoke:
		return next.revoked(next.index(wish.Key), at)
	case wish.Old == FateSwitch:
		next = next.switching(next.index(wish.Key), at)
	}
	return next.freeSlot(a, wish.Key, at)
}

// switching has a draining key revoked once its signers have switched, at most
// SwitchTime from now.
func (r Ring) switching(i int, at int64) Ring {
	next := r.clone()
	next.Keys[i].SwitchBy = at + SwitchTime
	// It is to be revoked, so there is no way back to it.
	delete(next.RolledFrom, next.Keys[i].Algorithm)
	return next
}

// freeSlot revokes the key that has drained longest where every slot of an algorithm
// holds a key that is still served; never the key with the ID spared.
func (r Ring) freeSlot(a Algorithm, spared uint32, at int64) Ring {
	if r.Mode != Slots {
		return r
	}
	live, oldest := 0, -1
	for i := range r.Keys {
		k := &r.Keys[i]
		if k.Algorithm != a || k.Stage == Revoked {
			continue
		}
		live++
		if k.Stage == Draining && k.ID != spared && (oldest < 0 || k.DrainedAt < r.Keys[oldest].DrainedAt) {
			oldest = i
		}
	}
	if live < slotCount || oldest < 0 {
		return r
	}
	return r.revoked(oldest, at)
}

// index is the place of a key; -1 where it is gone.
func (r Ring) index(id uint32) int {
	for i := range r.Keys {
		if r.Keys[i].ID == id {
			return i
		}
	}
	return -1
}

// Outlook is when the next key of an algorithm can sign at the earliest: if it is made
// and confirmed as soon as its name is free. 0: never, as things are.
func (r Ring) Outlook(a Algorithm, at int64, p Policy) int64 {
	if standby, ok := r.Standby(a); ok {
		if ready := standby.ReadyAt(); ready != 0 {
			return ready
		}
		at = max(at, standby.CreatedAt)
		return max(at+standby.Gap, r.letGo(standby.Selector, at, p))
	}
	due, ok := r.publishAt(a)
	if !ok {
		return r.afterRevoked(a, at, p)
	}
	due = max(due, at)
	if place, err := r.Place(a, due); err == nil {
		return max(due+r.gap(place.Selector), r.letGo(place.Selector, due, p))
	}
	return 0
}

// letGo is when signers let go of the key that a slot had, if the next is confirmed at a
// time.
func (r Ring) letGo(slot string, at int64, p Policy) int64 {
	last, ok := r.Handed[slot]
	if !ok {
		return 0
	}
	if last < 0 {
		last = at
	}
	return last + p.holdFrom(last)
}

// afterRevoked is Outlook where every slot holds a key: the first revoked one to
// leave its slot makes room.
func (r Ring) afterRevoked(a Algorithm, at int64, p Policy) (soonest int64) {
	for i := range r.Keys {
		k := &r.Keys[i]
		if r.Mode != Slots || k.Algorithm != a || k.Stage != Revoked {
			continue
		}
		free := max(at, r.Freed[k.Selector])
		if ready := max(free+TTLLong+TTLStretch, r.letGo(k.Selector, free, p)); soonest == 0 || ready < soonest {
			soonest = ready
		}
	}
	return soonest
}

// ExposedUntil is when the last cache forgets a key's record, and so when a thief
// of its private half can no longer sign: the time of its revocation, done or
// planned, and the record's TTL. 0 where that is not known yet.
func (r Ring) ExposedUntil(id uint32, p Policy) int64 {
	k, ok := r.ByID(id)
	if !ok {
		return 0
	}
	switch k.Stage {
	case Revoked:
		return k.RevokedAt + TTLLong
	case Draining:
		if k.SwitchBy != 0 {
			return k.SwitchBy + TTLLong
		}
		return r.retireAt(&k, p) + TTLLong
	case Active:
		standby, ok := r.Standby(k.Algorithm)
		if wish := r.Urgent[k.Algorithm]; !ok || wish.Key != id || standby.ReadyAt() == 0 {
			return 0
		}
		return r.replace(r.index(standby.ID), standby.ReadyAt()).ExposedUntil(id, p)
	}
	return 0
}
