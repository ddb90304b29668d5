package state

import (
	"slices"

	"authd/keys"
)

// sealedCount is how many private halves are sealed under one version of the
// key-encryption key.
type sealedCount struct {
	version uint16
	count   int
}

// countSealed adds to the counts; those that reach nothing go.
func (t *tables) countSealed(versions []uint16, by int) {
	if len(versions) == 0 {
		return
	}
	t.sealed = slices.Clone(t.sealed)
	for _, v := range versions {
		i, found := slices.BinarySearchFunc(t.sealed, v, func(c sealedCount, v uint16) int { return int(c.version) - int(v) })
		if !found {
			t.sealed = slices.Insert(t.sealed, i, sealedCount{version: v})
		}
		if t.sealed[i].count += by; t.sealed[i].count == 0 {
			t.sealed = slices.Delete(t.sealed, i, i+1)
		}
	}
}

// SealedUnder counts the private halves, that of the cluster's CA among them, by
// the version of the key-encryption key that they are sealed under.
func (m Machine) SealedUnder() map[uint16]int {
	t := m.tables()
	out := make(map[uint16]int)
	for _, c := range t.sealed {
		out[c.version] = c.count
	}
	if len(t.authority.Sealed) > 0 {
		out[keys.SealedVersion(t.authority.Sealed)]++
	}
	return out
}
