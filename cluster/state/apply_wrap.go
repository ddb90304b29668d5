package state

import (
	"bytes"

	"authd/keys"
)

// MaxRewrap is how many private halves one Rewrap seals anew.
const MaxRewrap = 200

// WrapVersion is the version of the key-encryption key that private halves are to
// be sealed under; 0 while none was ever chosen.
func (m Machine) WrapVersion() uint16 { return m.tables().wrap }

// ToRewrap is how many private halves are not sealed under the chosen version.
func (m Machine) ToRewrap() (left int) {
	t := m.tables()
	if t.wrap == 0 {
		return 0
	}
	for v, count := range m.SealedUnder() {
		if v != t.wrap {
			left += count
		}
	}
	return left
}

// setWrap chooses the version that private halves are sealed under from now on.
// That every node holds it the proposer has asked; nothing is lost where one does
// not, but that node gives no keys.
func (w *writer) setWrap(c SetWrap) Result {
	if c.Version == 0 {
		return refused(invalid("version", "want the version of a key-encryption key, from 1"))
	}
	if w.wrap == c.Version {
		return same
	}
	w.wrap = c.Version
	return done
}

// rewrap replaces private halves by the same sealed under another version: those
// that are still as the proposer saw them. Others were replaced, or are gone, and
// are looked at again.
func (w *writer) rewrap(c Rewrap) Result {
	if len(c.Halves) > MaxRewrap {
		return refused(invalid("halves", "%d halves, at most %d", len(c.Halves), MaxRewrap))
	}
	changed := false
	for i := range c.Halves {
		changed = w.rewrapOne(&c.Halves[i]) || changed
	}
	w.about.told = true // the audit has who began it; a line for each batch would push others out
	return Result{Changed: changed}
}

func (w *writer) rewrapOne(h *SealedHalf) bool {
	if keys.SealedVersion(h.Sealed) != w.wrap || len(h.Old) == 0 {
		return false
	}
	if h.Token == (Token{}) {
		return w.rewrapAuthority(h)
	}
	old, ok := w.find(h.Token)
	if !ok {
		return false
	}
	was := old.Ring()
	key, ok := was.ByID(h.Key)
	if !ok || len(h.Sealed) > maxSealed || len(key.Sealed) != len(h.Sealed) || !bytes.HasPrefix(key.Sealed, h.Old) {
		return false
	}
	ring := was.Resealed(h.Key, h.Sealed)
	d := *old
	return w.keep(old, &d, was, ring) == nil
}

// rewrapAuthority replaces the sealed key of the cluster's CA, unless another CA
// was set meanwhile.
func (w *writer) rewrapAuthority(h *SealedHalf) bool {
	if len(w.authority.Sealed) != len(h.Sealed) || !bytes.HasPrefix(w.authority.Sealed, h.Old) {
		return false
	}
	w.authority.Sealed = h.Sealed
	return true
}
