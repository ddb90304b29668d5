package state

import (
	"iter"
	"slices"
	"strings"

	"authd/keys"
)

// Rotation is the rotation of many domains' keys. It holds a cursor over the
// claims in order of their tokens and some counts, never a list of what became of
// each: that can be read from the claims' own rings (RotationOutcome).
type Rotation struct {
	ID     Token  `cbor:"1,keyasint"`
	Number uint32 `cbor:"2,keyasint"` // as rings have it; never reused
	RotationSpec
	Actor     string `cbor:"10,keyasint"`
	Reason    string `cbor:"11,keyasint"`
	StartedAt int64  `cbor:"12,keyasint"`
	EndedAt   int64  `cbor:"13,keyasint"`

	State RotationState `cbor:"20,keyasint"`
	// Back: it is being rolled back; the cursor began anew.
	Back bool `cbor:"21,keyasint"`
	// Stage is the index in Canary of the share that is being rotated, or was last.
	Stage uint8 `cbor:"22,keyasint"`
	// HeldAt is when a stage was done and the hold before the next began; 0: no hold.
	HeldAt int64 `cbor:"23,keyasint"`
	// Next is the token to go on from, as a key; Walked: there are no more.
	Next   string `cbor:"24,keyasint"`
	Walked bool   `cbor:"25,keyasint"`
	// Until is the cursor where a rollback ends: what was not begun stays.
	Until string `cbor:"26,keyasint"`

	// Counts of domains. Begun is all that the cursor passed; each of them was
	// Switched, is Waiting for its next key, was Skipped (it leaves, is of a
	// suspended tenant, waits for an emergency, or has nothing to rotate), or Dropped
	// what it waited for (it left meanwhile, or another rotation or an emergency of its
	// own took it over).
	Begun    uint32 `cbor:"30,keyasint"`
	Waiting  uint32 `cbor:"31,keyasint"`
	Switched uint32 `cbor:"32,keyasint"`
	Skipped  uint32 `cbor:"33,keyasint"`
	Dropped  uint32 `cbor:"34,keyasint"`
	// Refilling are those that switched and lack a standby; Refilled have one again.
	Refilling uint32 `cbor:"35,keyasint"`
	Refilled  uint32 `cbor:"36,keyasint"`
	// Returned and Kept are what a rollback came to.
	Returned uint32 `cbor:"37,keyasint"`
	Kept     uint32 `cbor:"38,keyasint"`

	// Keyed are those of Waiting whose next keys were made, and KeyedAt is when the
	// last of these was.
	Keyed   uint32 `cbor:"43,keyasint"`
	KeyedAt int64  `cbor:"44,keyasint"`
	// Lap and LapBefore are how many were keyed or had switched at two moments, from
	// which its recent pace follows: a mill may end, or come.
	Lap       RotationLap `cbor:"45,keyasint"`
	LapBefore RotationLap `cbor:"46,keyasint"`
	// Makers are how many keys each node made for it, next keys and standbys, in order
	// of the nodes; never changed in place.
	Makers []KeyMaker `cbor:"47,keyasint"`
	// Exposed is when the last cache lets go of the last key that it replaced, as
	// planned when that was replaced, or put off since. A key that is revoked sooner
	// does not bring it forward.
	Exposed int64 `cbor:"40,keyasint"`
	// ForSlot is how many older draining keys it revoked to free their slots.
	ForSlot uint32 `cbor:"41,keyasint"`
	// Oldest is when the oldest of the claims that it began with was added.
	Oldest int64 `cbor:"42,keyasint"`
	// Tenant is whose it is: all its domains are of that tenant. Empty: the platform's.
	Tenant string `cbor:"48,keyasint"`
}

// RotationSpec is what a rotation is to do.
type RotationSpec struct {
	Scope     RotationScope `cbor:"3,keyasint"`
	Emergency bool          `cbor:"4,keyasint"`
	Drill     bool          `cbor:"5,keyasint"` // as an emergency, but nothing is revoked
	Store     bool          `cbor:"6,keyasint"` // the sealed store leaked: standbys are burned
	Old       keys.Fate     `cbor:"7,keyasint"`
	// Canary are the stages, in percent, rising to 100. Hold is how long, in seconds,
	// the rotation rests between them; 0: until it is resumed.
	Canary []uint8 `cbor:"8,keyasint"`
	Hold   int64   `cbor:"9,keyasint"`
	// Total is how many domains the proposer counted, and Expected when it expected
	// the last of them to have switched.
	Total    uint32 `cbor:"14,keyasint"`
	Expected int64  `cbor:"15,keyasint"`
	// Tail is how long, in seconds, the slowest of them waits between the making of
	// its next key and the switch.
	Tail int64 `cbor:"16,keyasint"`
	// Ready is how many keys the mill had ready.
	Ready uint32 `cbor:"17,keyasint"`
}

// RotationLap is how far a rotation was at a moment.
type RotationLap struct {
	At   int64  `cbor:"1,keyasint"`
	Made uint32 `cbor:"2,keyasint"` // domains that had their next key
}

// KeyMaker is how many keys a node made for a rotation.
type KeyMaker struct {
	Node string `cbor:"1,keyasint"` // empty: of nodes that found no room in the list
	Keys uint32 `cbor:"2,keyasint"`
}

// RotationScope is one of its fields.
type RotationScope struct {
	Tenant string  `cbor:"1,keyasint,omitempty"`
	Pool   string  `cbor:"2,keyasint,omitempty"`
	Tokens []Token `cbor:"3,keyasint,omitempty"` // in order, each once
	All    bool    `cbor:"4,keyasint,omitempty"`
}

// has says whether a claim is in a rotation: that is settled when it begins. So a domain
// that changes its pool takes its part with it, as what leaked there leaked, and one that
// comes has none.
func (r *Rotation) has(d *Domain) bool {
	if d.CreatedAt > r.StartedAt {
		return false
	}
	switch s := &r.Scope; {
	case s.Tenant != "":
		return d.Tenant == s.Tenant
	case s.Pool != "":
		return d.Pool == s.Pool && d.MovedAt <= r.StartedAt || slices.Contains(d.Parts, r.Number)
	case s.All:
		return true
	}
	_, ok := slices.BinarySearchFunc(r.Scope.Tokens, d.Token.key(), compareTokenKey)
	return ok
}

// moves notes that a claim changes its pool, and in which rotations it stays. Of those
// that are kept no more nothing is remembered, so there are at most MaxRotations.
func (w *writer) moves(d *Domain) {
	var parts []uint32
	w.rotations.Scan(func(number uint32, r *Rotation) bool {
		if r.Scope.Pool != "" && r.has(d) {
			parts = append(parts, number)
		}
		return true
	})
	d.Parts, d.MovedAt = parts, w.time
}

func compareTokenKey(t Token, key string) int { return strings.Compare(t.key(), key) }

// RotationState is kept in the log: never renumber.
type RotationState uint8

const (
	RotationRunning RotationState = 1
	RotationPaused  RotationState = 2 // by hand, or between two stages (HeldAt)
	RotationDone    RotationState = 3
	RotationAborted RotationState = 4
)

// String is the state's name in the API.
func (s RotationState) String() string {
	switch s {
	case RotationRunning:
		return "running"
	case RotationPaused:
		return "paused"
	case RotationDone:
		return "done"
	case RotationAborted:
		return "aborted"
	}
	return "state " + itoa(int(s))
}

// Ended says whether nothing more is begun.
func (r *Rotation) Ended() bool { return r.State == RotationDone || r.State == RotationAborted }

// limit is how many domains the present stage ends at.
func (r *Rotation) limit() uint32 {
	if r.Back || int(r.Stage) >= len(r.Canary) || r.Canary[r.Stage] >= 100 {
		return 1<<32 - 1
	}
	return uint32((uint64(r.Total)*uint64(r.Canary[r.Stage]) + 99) / 100)
}

// done is how many domains the cursor of this direction has dealt with.
func (r *Rotation) passed() uint32 {
	if r.Back {
		return r.Returned + r.Kept
	}
	return r.Begun
}

// Due says whether AdvanceRotation would do anything at a time.
func (r *Rotation) Due(at int64) bool {
	switch r.State {
	case RotationRunning:
		return !r.Walked && r.passed() < r.limit()
	case RotationPaused:
		return r.HeldAt != 0 && r.Hold != 0 && r.HeldAt+r.Hold <= at
	}
	return false
}

// Rotations walks the rotations that are kept, the oldest first.
func (m Machine) Rotations() iter.Seq[*Rotation] {
	return func(yield func(*Rotation) bool) {
		m.tables().rotations.Scan(func(_ uint32, r *Rotation) bool { return yield(r) })
	}
}

// RotationsDue are the rotations that AdvanceRotation would move at a time.
func (m Machine) RotationsDue(at int64) (list []Token) {
	for r := range m.Rotations() {
		if r.Due(at) {
			list = append(list, r.ID)
		}
	}
	return list
}

// Rotation finds a rotation by its id.
func (m Machine) Rotation(id Token) (*Rotation, bool) { return m.tables().rotation(id) }

func (t *tables) rotation(id Token) (found *Rotation, ok bool) {
	t.rotations.Scan(func(_ uint32, r *Rotation) bool { // there are few
		if r.ID == id {
			found = r
		}
		return found == nil
	})
	return found, found != nil
}

// InRotation walks the claims of a rotation in order of token, from a token on:
// those of its scope that were there when it began. Where a rotation looks at few
// of many claims the caller bounds the walk by looked, which counts all of them.
func (m Machine) InRotation(r *Rotation, from Token, looked *int) iter.Seq[*Domain] {
	t := m.tables()
	return func(yield func(*Domain) bool) {
		t.inRotation(r, from.key(), func(d *Domain, in bool) bool {
			*looked++
			return !in || yield(d)
		})
	}
}

// inRotation walks the claims that may be in a rotation, and says which are.
func (t *tables) inRotation(r *Rotation, from string, each func(d *Domain, in bool) bool) {
	if len(r.Scope.Tokens) > 0 {
		at, _ := slices.BinarySearchFunc(r.Scope.Tokens, from, compareTokenKey)
		for _, token := range r.Scope.Tokens[at:] {
			if d, ok := t.find(token); ok && !each(d, true) {
				return
			}
		}
		return
	}
	t.domains.Ascend(from, func(_ string, rec record) bool {
		d := t.domain(rec)
		return each(d, r.has(d))
	})
}

// Outcomes of a domain in a rotation.
const (
	OutcomeOutstanding = "outstanding" // not begun yet
	OutcomeWaiting     = "waiting"     // for its next key
	OutcomeSwitched    = "switched"
	OutcomeSkipped     = "skipped"
	OutcomeReturned    = "rolled_back"
	// OutcomeReplaced: the rotation is rolled back, but another key had replaced the
	// one that it brought.
	OutcomeReplaced = "replaced_since"
)

// RotationOutcome is what became of a claim in a rotation, as its ring tells.
func (m Machine) RotationOutcome(r *Rotation, d *Domain) string {
	ring := d.Ring()
	begun := r.Walked || r.Back || d.Token.key() < r.Next
	switch {
	case r.Back && d.Token.key() >= r.Until && r.Until != "":
		return OutcomeOutstanding
	case ring.Rotation == r.Number && len(ring.Urgent) > 0:
		return OutcomeWaiting
	case r.Back && wentBack(ring, r.Number):
		return OutcomeReturned
	case r.Back && broughtBefore(ring, r.Number):
		return OutcomeReplaced
	case begun && signsSince(ring, r.StartedAt):
		return OutcomeSwitched
	case !begun:
		return OutcomeOutstanding
	case r.Back && d.State != Leaving:
		return OutcomeReturned // its wish was withdrawn
	}
	return OutcomeSkipped
}

// Replaced are the keys of a claim, whose ring is given, that a rotation replaced
// or is to replace.
func (m Machine) Replaced(r *Rotation, d *Domain, ring keys.Ring) (list []keys.Key) {
	if !r.has(d) {
		return nil
	}
	outstanding := !r.Ended() && m.RotationOutcome(r, d) == OutcomeOutstanding
	for _, k := range ring.Keys {
		waits := ring.Rotation == r.Number && ring.Urgent[k.Algorithm].Key == k.ID
		gone := k.Stage == keys.Draining || k.Stage == keys.Revoked && k.ActivatedAt != 0
		switch {
		case k.Stage == keys.Active && (waits || outstanding):
			list = append(list, k)
		case gone && k.DrainedAt >= r.StartedAt && (r.EndedAt == 0 || k.DrainedAt <= r.EndedAt):
			list = append(list, k)
		}
	}
	return list
}

// signsSince says whether every signing key of a ring was activated since a time.
func signsSince(ring keys.Ring, since int64) bool {
	found := false
	for i := range ring.Keys {
		if k := &ring.Keys[i]; k.Stage == keys.Active {
			if k.ActivatedAt < since || k.ActivatedAt == since && !replacedAt(ring, k.Algorithm, since) {
				return false
			}
			found = true
		}
	}
	return found
}

// replacedAt tells a switch in the second in which a domain was added from its
// first key.
func replacedAt(ring keys.Ring, a keys.Algorithm, at int64) bool {
	return slices.ContainsFunc(ring.Keys, func(k keys.Key) bool { return k.Algorithm == a && k.DrainedAt == at })
}

// broughtBefore says whether a rotation brought a key which another has replaced since.
func broughtBefore(ring keys.Ring, number uint32) bool {
	return slices.ContainsFunc(ring.Keys, func(k keys.Key) bool {
		return k.BroughtBy == int64(number) && k.Stage != keys.Active && ring.RetiredAt == 0
	})
}

// wentBack says whether an older key signs again than the one that a rotation brought.
func wentBack(ring keys.Ring, number uint32) bool {
	return slices.ContainsFunc(ring.Keys, func(k keys.Key) bool {
		active, ok := ring.Active(k.Algorithm)
		return ok && k.BroughtBy == int64(number) && active.ID < k.ID
	})
}
