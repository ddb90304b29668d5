package keys

import (
	"errors"
	"fmt"
	"slices"
)

// maxPublicOnly bounds the minted selectors of an algorithm whose private halves are
// elsewhere; the rest of MaxKeys is for keys that rotate. Slots have room for one: an
// emergency needs a slot beside the active key's.
const maxPublicOnly = 8

// Bring puts a key that the operator brought into the ring.
//
// With its private half it becomes the standby of its algorithm and goes through
// the same barrier and the same stages as a key of ours. The standby that was
// there signed nothing and makes room: in minted mode it is revoked; a slot gets
// the new key in its place, which therefore waits until every cache has let go of
// the other. A public-only key is published and watched, never signs here, and is
// no standby; see activateAt.
func (r Ring) Bring(m *Material, at int64) (Ring, error) {
	switch {
	case at <= 0:
		return Ring{}, fmt.Errorf("bringing key: time %d is not after 1970", at)
	case r.RetiredAt != 0:
		return Ring{}, errors.New("bringing key: the domain is leaving")
	}
	for i := range r.Keys {
		if r.Keys[i].Payload == m.Payload {
			return Ring{}, &InUse{Selector: r.Keys[i].Selector}
		}
	}
	next := r
	if i := r.replaceable(m.Algorithm, m.PublicOnly); i >= 0 {
		if wish, urgent := r.Urgent[m.Algorithm]; urgent {
			return Ring{}, fmt.Errorf("bringing key: an emergency for key %d waits for standby %q: bring the key when that signs", wish.Key, r.Keys[i].Selector)
		}
		if r.Mode == Minted {
			next = r.revoked(i, at)
		} else {
			next = r.clone()
			next.Keys = slices.Delete(next.Keys, i, i+1)
		}
	} else if m.PublicOnly {
		if err := r.roomForPublic(m.Algorithm); err != nil {
			return Ring{}, err
		}
	}
	key, err := next.laterKey(m, at)
	if err != nil {
		return Ring{}, fmt.Errorf("bringing key: %w", err)
	}
	return next.with(key).settled(), nil
}

// InUse is why a key is refused: the ring has it already.
type InUse struct {
	Selector string // of the ring
}

// Error names the selector.
func (e *InUse) Error() string {
	return fmt.Sprintf("the domain has this key already, at selector %q", e.Selector)
}

// PlaceBrought says where Bring would put a key.
func (r Ring) PlaceBrought(a Algorithm, publicOnly bool, at int64) (Place, error) {
	if i := r.replaceable(a, publicOnly); i >= 0 && r.Mode == Slots {
		return Place{ID: r.NextID, Selector: r.Keys[i].Selector}, nil
	}
	return r.Place(a, at)
}

// replaceable is the index of the standby whose place a key with its private half
// takes; -1 where there is none.
func (r Ring) replaceable(a Algorithm, publicOnly bool) int {
	if publicOnly {
		return -1
	}
	return slices.IndexFunc(r.Keys, func(k Key) bool { return k.Algorithm == a && k.isStandby() })
}

// isStandby says whether a key is the one that signs next.
func (k *Key) isStandby() bool { return k.Stage == Standby && !k.PublicOnly }

// elsewhere counts the keys of an algorithm that are published here and sign
// elsewhere.
func (r Ring) elsewhere(a Algorithm) (n int) {
	for i := range r.Keys {
		if k := &r.Keys[i]; k.Algorithm == a && k.PublicOnly && k.Stage == Standby {
			n++
		}
	}
	return n
}

func (r Ring) roomForPublic(a Algorithm) error {
	most := maxPublicOnly
	if r.Mode == Slots {
		most = 1
	}
	if n := r.elsewhere(a); n >= most {
		return fmt.Errorf("bringing key: %d public-only keys of %s, the most a domain has: revoke one first", n, a)
	}
	return nil
}
