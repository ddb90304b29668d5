package keys

import "slices"

// Resealed is the ring with a private half that was sealed anew, in the place of
// the one that the key had.
func (r Ring) Resealed(id uint32, sealed []byte) Ring {
	i := r.index(id)
	if i < 0 || len(r.Keys[i].Sealed) == 0 {
		return r
	}
	r.Keys = slices.Clone(r.Keys)
	r.Keys[i].Sealed = sealed
	return r
}
