package state

import (
	"slices"
	"strings"

	"authd/keys"
)

const (
	// lapTime is how many seconds a lap of a rotation takes at least, and lapKeys how
	// many keys are made in it: the estimate goes back one to two of them.
	lapTime = 30
	lapKeys = 100
	// maxMakers bounds the nodes whose keys a rotation counts apart.
	maxMakers = 16
	maxMaker  = 64 // octets of a node's name
)

// inPart is how far a ring is in a rotation.
type inPart uint8

const (
	notInPart inPart = iota
	partWaits
	partRefills
)

func partOf(ring keys.Ring) inPart {
	switch {
	case ring.Rotation == 0:
		return notInPart
	case len(ring.Urgent) > 0:
		return partWaits
	}
	return partRefills
}

// tally keeps the counts of the rotations that a ring is and was part of.
func (w *writer) tally(was, is keys.Ring) {
	if was.Rotation == 0 && is.Rotation == 0 {
		return
	}
	w.tallyKeyed(was, is)
	before, after := partOf(was), partOf(is)
	if was.Rotation == is.Rotation && before == after {
		return
	}
	stays := was.Rotation == is.Rotation
	w.editRotation(was.Rotation, func(r *Rotation) {
		switch before {
		case partWaits:
			r.Waiting--
			switch {
			case stays && after == partRefills: // counted below
			case is.Rotation == 0 && switched(was, is):
				r.Switched++
			default:
				r.Dropped++
			}
		case partRefills:
			r.Refilling--
			if is.Rotation == 0 && refilled(is) {
				r.Refilled++
			}
		}
	})
	w.editRotation(is.Rotation, func(r *Rotation) {
		switch after {
		case partWaits:
			r.Waiting++
		case partRefills:
			r.Refilling++
			if before != partRefills || !stays {
				r.Switched++
			}
		}
	})
	w.settleRotation(was.Rotation)
}

// tallyKeyed counts the rings that wait with their next keys made.
func (w *writer) tallyKeyed(was, is keys.Ring) {
	before, after := keyed(was), keyed(is)
	if before == after && was.Rotation == is.Rotation {
		return
	}
	if before {
		w.editRotation(was.Rotation, func(r *Rotation) { r.Keyed-- })
	}
	if after {
		w.editRotation(is.Rotation, func(r *Rotation) { r.keyMade(w.time) })
	}
}

// keyMade counts a domain whose next key was made.
func (r *Rotation) keyMade(at int64) {
	r.Keyed, r.KeyedAt = r.Keyed+1, at
	if r.Lap.At == 0 {
		r.Lap = RotationLap{r.StartedAt, r.Ready}
		r.LapBefore = r.Lap
	}
	if made := r.Keyed + r.Switched; at >= r.Lap.At+lapTime && made >= r.Lap.Made+lapKeys {
		r.LapBefore, r.Lap = r.Lap, RotationLap{at, made}
	}
}

// madeBy counts a key of a rotation that a node made.
func (w *writer) madeBy(node string, was, is keys.Ring) {
	w.editRotation(max(was.Rotation, is.Rotation), func(r *Rotation) { r.Makers = withMaker(r.Makers, node) })
}

// withMaker counts one key more of a node, in a list of its own.
func withMaker(list []KeyMaker, node string) []KeyMaker {
	at, found := slices.BinarySearchFunc(list, node, func(m KeyMaker, node string) int { return strings.Compare(m.Node, node) })
	if !found && len(list) >= maxMakers && node != "" {
		return withMaker(list, "")
	}
	list = slices.Clone(list)
	if !found {
		list = slices.Insert(list, at, KeyMaker{Node: node})
	}
	list[at].Keys++
	return list
}

// keyed says whether a ring waits in a rotation, and not for a key to be made.
func keyed(ring keys.Ring) bool {
	for a := range ring.Urgent {
		if _, ok := ring.Standby(a); !ok {
			return false
		}
	}
	return partOf(ring) == partWaits
}

// refilled says whether every key that signs has one to follow it.
func refilled(is keys.Ring) bool {
	signing := 0
	for i := range is.Keys {
		if k := &is.Keys[i]; k.Stage == keys.Active {
			if _, ok := is.Standby(k.Algorithm); !ok {
				return false
			}
			signing++
		}
	}
	return signing > 0
}

// switched says whether another key signs for a wish that was.
func switched(was, is keys.Ring) bool {
	for a, wish := range was.Urgent {
		if k, ok := is.Active(a); ok && k.ID != wish.Key {
			return true
		}
	}
	return false
}

// exposure keeps until when caches hold what rotations replaced.
func (w *writer) exposure(d *Domain, was, is keys.Ring) {
	if number := max(is.Rotation, was.Rotation); number != 0 {
		w.exposedBy(number, d, was, is)
	}
	for i := range is.Keys {
		k := &is.Keys[i]
		if before, _ := was.ByID(k.ID); k.HeldUntil != before.HeldUntil && k.Stage == keys.Draining {
			w.putOff(d, k, is.ExposedUntil(k.ID, w.policy(d)))
		}
	}
}

// exposedBy counts what a change of a ring in a rotation replaced.
func (w *writer) exposedBy(number uint32, d *Domain, was, is keys.Ring) {
	var until int64
	var forSlot uint32
	begins := is.Rotation != was.Rotation && is.Rotation != 0
	for _, a := range d.Algorithms {
		old, signed := was.Active(a)
		now, signs := is.Active(a)
		switches := signed && signs && old.ID != now.ID
		if switches {
			until = max(until, is.ExposedUntil(old.ID, w.policy(d)))
		}
		if !switches && !begins {
			continue
		}
		burns := begins && is.Urgent[a].Burned && !was.Urgent[a].Burned
		for _, k := range was.Keys {
			after, _ := is.ByID(k.ID)
			if k.Algorithm != a || k.Stage != keys.Draining {
				continue
			}
			if burns && !k.PublicOnly { // it leaked with the store
				until = max(until, is.ExposedUntil(k.ID, w.policy(d)))
			}
			if after.Stage == keys.Revoked && !(burns && is.Urgent[a].Old == keys.FateRevoke) {
				forSlot++
			}
		}
	}
	if until == 0 && forSlot == 0 {
		return
	}
	w.editRotation(number, func(r *Rotation) {
		if !r.Back {
			r.Exposed = max(r.Exposed, until)
			r.ForSlot += forSlot
		}
	})
}

// putOff notes that a draining key is answered for longer than was planned. The
// ring no longer knows which rotation replaced it; there are few that may have.
func (w *writer) putOff(d *Domain, k *keys.Key, until int64) {
	var of []uint32
	w.rotations.Scan(func(number uint32, r *Rotation) bool {
		if r.Exposed < until && r.has(d) && k.DrainedAt >= r.StartedAt && (r.EndedAt == 0 || k.DrainedAt <= r.EndedAt) {
			of = append(of, number)
		}
		return true
	})
	for _, number := range of {
		w.editRotation(number, func(r *Rotation) { r.Exposed = until })
	}
}
