package state

// fan is a list of fanSize values that shares structure with its forks, as table
// does: a tree whose depth is the same however much is in it, so that a change
// costs the same in any fleet. The zero value holds zero values.
type fan[V any] struct {
	owner *owner
	root  *fanNode[V]
}

const (
	fanBits  = 3 // of a level: what is copied is least where nodes are small
	fanDepth = 6
	fanWidth = 1 << fanBits
	fanSize  = 1 << (fanBits * fanDepth)
)

// fanNode has children, or values at the lowest level. It and its room are one block.
type fanNode[V any] struct {
	owner  *owner
	kids   *[fanWidth]*fanNode[V]
	values *[fanWidth]V
}

type fanInner[V any] struct {
	fanNode[V]
	room [fanWidth]*fanNode[V]
}

type fanLeaf[V any] struct {
	fanNode[V]
	room [fanWidth]V
}

// fork gives a list that may be written while f goes on being read.
func (f *fan[V]) fork(o *owner) fan[V] { return fan[V]{o, f.root} }

// Get is the value at a place below fanSize.
func (f *fan[V]) Get(at uint32) (value V) {
	shift := fanBits * (fanDepth - 1)
	for n := f.root; n != nil; shift -= fanBits {
		i := at >> shift % fanWidth
		if n.values != nil {
			return n.values[i]
		}
		n = n.kids[i]
	}
	return value
}

// Set puts a value at a place below fanSize.
func (f *fan[V]) Set(at uint32, value V) {
	f.root = f.set(f.root, at, fanBits*(fanDepth-1), value)
}

// set gives the node that replaces n.
func (f *fan[V]) set(n *fanNode[V], at uint32, shift int, value V) *fanNode[V] {
	n = f.own(n, shift == 0)
	i := at >> shift % fanWidth
	if shift == 0 {
		n.values[i] = value
	} else {
		n.kids[i] = f.set(n.kids[i], at, shift-fanBits, value)
	}
	return n
}

// own gives a node that may be written: n itself, a copy of it, or a new one.
func (f *fan[V]) own(n *fanNode[V], leaf bool) *fanNode[V] {
	if n != nil && n.owner == f.owner {
		return n
	}
	if leaf {
		b := new(fanLeaf[V])
		b.owner, b.values = f.owner, &b.room
		if n != nil {
			b.room = *n.values
		}
		return &b.fanNode
	}
	b := new(fanInner[V])
	b.owner, b.kids = f.owner, &b.room
	if n != nil {
		b.room = *n.kids
	}
	return &b.fanNode
}

// Scan walks the places of nodes that exist, in order, until yield says no: at least
// all that were ever set.
func (f *fan[V]) Scan(yield func(at uint32, value V) bool) {
	f.root.scan(0, yield)
}

func (n *fanNode[V]) scan(at uint32, yield func(uint32, V) bool) bool {
	switch {
	case n == nil:
	case n.values != nil:
		for i, v := range n.values {
			if !yield(at<<fanBits+uint32(i), v) {
				return false
			}
		}
	default:
		for i, kid := range n.kids {
			if !kid.scan(at<<fanBits+uint32(i), yield) {
				return false
			}
		}
	}
	return true
}
