package state

import (
	"cmp"
	"slices"
)

// maxReadsHeads is how many nodes' journals of key reads are remembered: members
// of now and of before. Past it the one that was heard of longest ago goes.
const maxReadsHeads = 64

// ReadsHead is where a node's journal of key reads ended when it last said so.
type ReadsHead struct {
	Node    string    `cbor:"1,keyasint"`
	Seq     uint64    `cbor:"2,keyasint"` // entries so far
	Head    AuditHash `cbor:"3,keyasint"` // hash of the last
	Repeats uint64    `cbor:"4,keyasint"` // further reads of keys that it has an entry for
	At      int64     `cbor:"5,keyasint"`
}

// ReadsHeads lists where the nodes' journals of key reads ended, by node.
func (m Machine) ReadsHeads() []ReadsHead { return slices.Clone(m.tables().reads) }

// ReadsHead is where one node's journal ended.
func (m Machine) ReadsHead(node string) (ReadsHead, bool) {
	t := m.tables()
	i, found := findReads(t.reads, node)
	if !found {
		return ReadsHead{}, false
	}
	return t.reads[i], true
}

func findReads(list []ReadsHead, node string) (int, bool) {
	return slices.BinarySearchFunc(list, node, func(h ReadsHead, node string) int { return cmp.Compare(h.Node, node) })
}

// setReads keeps a node's head. A journal only grows: one that ends earlier was cut.
func (w *writer) setReads(c SetReads) Result {
	if c.Node == "" || len(c.Node) > maxActor {
		return refused(invalid("node", "%s: want the name of a node, of at most %d octets", quote(c.Node), maxActor))
	}
	next := ReadsHead{c.Node, c.Seq, c.Head, c.Repeats, w.time}
	i, found := findReads(w.reads, c.Node)
	if found {
		had := w.reads[i]
		switch {
		case c.Seq < had.Seq || c.Repeats < had.Repeats:
			return refused(stale("seq", "the journal of %s had %d entries and %d repeats already", quote(c.Node), had.Seq, had.Repeats))
		case c.Seq == had.Seq && c.Head != had.Head:
			return refused(conflict("head", nil, "the journal of %s had another entry %d", quote(c.Node), had.Seq))
		case c.Seq == had.Seq && c.Repeats == had.Repeats:
			return same
		}
	}
	w.reads, w.about.told = slices.Clone(w.reads), true // people's changes are worth more than a line a minute
	switch {
	case found:
		w.reads[i] = next
		return done
	case len(w.reads) == maxReadsHeads:
		oldest := slices.MinFunc(w.reads, func(a, b ReadsHead) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Node, b.Node)) })
		w.reads = slices.DeleteFunc(w.reads, func(h ReadsHead) bool { return h.Node == oldest.Node })
		i, _ = findReads(w.reads, c.Node)
	}
	w.reads = slices.Insert(w.reads, i, next)
	return done
}

// soundReads says whether heads are as setReads keeps them.
func soundReads(list []ReadsHead) bool {
	return len(list) <= maxReadsHeads && slices.IsSortedFunc(list, func(a, b ReadsHead) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), 1) // equal names are out of order
	})
}
