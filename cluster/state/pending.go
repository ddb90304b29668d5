package state

import (
	"encoding/binary"
	"iter"
	"slices"

	"authd/zone"
)

// Pending claims are kept in an index of their own, in order of when they end and so
// of when they began to wait: how many there are, and since when the oldest waits,
// costs the same in any fleet, and the leader finds them to ask their parents again.

// Waiting is a claim that waits for its proof, since a time.
type Waiting struct {
	Token Token
	Since int64
	// Contested is, of a claim in mode cname, the name that others might sign for too:
	// see Contest.
	Contested zone.Name
}

// PendingCount is how many claims wait for their proof.
func (m Machine) PendingCount() int { return m.tables().pending.Len() }

// Pending walks the claims that wait for their proof, those that wait longest first,
// from a time on since when they do.
func (m Machine) Pending(since int64) iter.Seq[Waiting] {
	from := ""
	if ends := since + pendingFor; ends > 0 {
		from = dueKey(ends, Token{})
	}
	return func(yield func(Waiting) bool) {
		m.tables().pending.Ascend(from, func(key string, _ struct{}) bool {
			ends := int64(binary.BigEndian.Uint64([]byte(key[:8])))
			return yield(Waiting{Token: tokenOf(key[8:]), Since: ends - pendingFor})
		})
	}
}

// waitsUntil is when a claim ends that waits for its proof; 0 for any other, and nil.
func (d *Domain) waitsUntil() int64 {
	if d == nil || d.State != Pending {
		return 0
	}
	return d.GoneAt
}

// waits updates the index of pending claims for one that waited until was and waits until
// is now; 0: not at all.
func (w *writer) waits(t Token, was, is int64) {
	if was != 0 {
		w.pending.Delete(dueKey(was, t))
	}
	if is != 0 {
		w.pending.Set(dueKey(is, t), struct{}{})
	}
}

// Delegated are the claims that an NS set names: T.nsN.P for a platform zone P.
func (m Machine) Delegated(ns []zone.Name) []Token {
	var seen []Token
	for _, n := range ns {
		t, err := ParseToken(n.Label())
		if err != nil || slices.Contains(seen, t) {
			continue
		}
		if _, ours := m.Platform(n.Parent().Parent()); ours {
			seen = append(seen, t)
		}
	}
	return seen
}
