package state

import (
	"slices"
	"strings"
)

// OffNode is a node that an operator took out of the serving set: no change waits
// for it, because by his statement nobody asks it for answers.
type OffNode struct {
	ID        string `cbor:"1,keyasint"`
	Since     int64  `cbor:"2,keyasint"`
	Statement string `cbor:"3,keyasint"`
}

const (
	// maxOff bounds the list: a cluster has a handful of nodes.
	maxOff = 64
	// MaxStatement is the length of a statement in octets.
	MaxStatement = 500
)

// OffNodes are the nodes out of the serving set, by id. READ-ONLY.
func (m Machine) OffNodes() []OffNode { return m.tables().off }

// Off says whether a node is out of the serving set, and by what statement.
func (m Machine) Off(id string) (OffNode, bool) {
	t := m.tables()
	at, found := findOff(t.off, id)
	if !found {
		return OffNode{}, false
	}
	return t.off[at], true
}

func findOff(list []OffNode, id string) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(o OffNode, id string) int { return strings.Compare(o.ID, id) })
}

// setServing takes a node out of the serving set, or back in. A statement that is
// there already stays: it is why nothing has waited since.
func (w *writer) setServing(c SetServing) Result {
	if r := soundNode(c.Node, "any"); r != nil {
		return refused(r)
	}
	at, found := findOff(w.off, c.Node)
	if c.Serving {
		if !found {
			return same
		}
		w.off = slices.Delete(slices.Clone(w.off), at, at+1)
		return done
	}
	switch {
	case strings.TrimSpace(c.Statement) == "":
		return refused(invalid("statement", "say why nothing need wait for %s: that the node is off, or out of every address list for its TTL", quote(c.Node)))
	case len(c.Statement) > MaxStatement:
		return refused(invalid("statement", "%d octets, at most %d", len(c.Statement), MaxStatement))
	case found:
		return same
	case len(w.off) >= maxOff:
		return refused(invalid("id", "%d nodes are out of the serving set already: at most %d; put back or remove others", len(w.off), maxOff))
	}
	w.off = slices.Insert(slices.Clone(w.off), at, OffNode{c.Node, w.time, c.Statement})
	return done
}

// soundOff says whether what an image holds could have been applied.
func soundOff(list []OffNode) bool {
	for i, o := range list {
		if soundNode(o.ID, "any") != nil || o.Statement == "" || len(o.Statement) > MaxStatement || i > 0 && list[i-1].ID >= o.ID {
			return false
		}
	}
	return len(list) <= maxOff
}
