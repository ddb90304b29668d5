package state

import "authd/keys"

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
