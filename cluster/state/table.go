package state

import (
	"cmp"
	"iter"
	"slices"
)

// table is an ordered map that shares structure with its forks: a B+ tree whose
// nodes are copied when written, unless the fork that writes made them. A write
// copies one leaf and a small node for each level above it, so what it costs
// hardly grows with the table. The zero value is empty.
//
// Any number of readers may walk a table while forks of it are written. A table that
// was forked must not be written any more.
type table[K cmp.Ordered, V any] struct {
	owner *owner
	root  *node[K, V]
	count int
}

// owner tells the nodes that one fork made, which it may write in place, from
// those that it shares.
type owner struct{ _ byte } // not empty: each has an address of its own

const (
	leafSize  = 12 // entries of a leaf: with two texts each it is copied in 200 octets
	innerSize = 16 // children of a node
)

// node is a leaf or has children. It and its room are one block.
type node[K cmp.Ordered, V any] struct {
	owner *owner
	// low is at most the least key here, and above all keys of the node before.
	low   K
	count int
	items *[leafSize]pair[K, V]   // of a leaf
	kids  *[innerSize]*node[K, V] // of any other
}

// pair has the key behind the value, where no padding follows an empty value.
type pair[K cmp.Ordered, V any] struct {
	value V
	key   K
}

type leafBlock[K cmp.Ordered, V any] struct {
	node[K, V]
	room [leafSize]pair[K, V]
}

type innerBlock[K cmp.Ordered, V any] struct {
	node[K, V]
	room [innerSize]*node[K, V]
}

func newLeaf[K cmp.Ordered, V any](o *owner) *node[K, V] {
	b := new(leafBlock[K, V])
	b.owner, b.items = o, &b.room
	return &b.node
}

func newInner[K cmp.Ordered, V any](o *owner) *node[K, V] {
	b := new(innerBlock[K, V])
	b.owner, b.kids = o, &b.room
	return &b.node
}

// fork gives a table that may be written while t goes on being read.
func (t *table[K, V]) fork(o *owner) table[K, V] { return table[K, V]{o, t.root, t.count} }

// Len is how many keys there are.
func (t *table[K, V]) Len() int { return t.count }

// Get finds a key's value.
func (t *table[K, V]) Get(key K) (value V, ok bool) {
	n := t.root
	if n == nil {
		return value, false
	}
	for n.kids != nil {
		n = n.kids[n.child(key)]
	}
	i, ok := n.find(key)
	if ok {
		value = n.items[i].value
	}
	return value, ok
}

// Set gives a key a value, and gives the one that it had.
func (t *table[K, V]) Set(key K, value V) (old V, had bool) {
	old, had = t.Get(key)
	if t.root == nil {
		t.root = newLeaf[K, V](t.owner)
		t.root.low = key
	}
	root, right := t.set(t.root, pair[K, V]{value, key})
	if right != nil {
		above := newInner[K, V](t.owner)
		above.low, above.count = root.low, 2
		above.kids[0], above.kids[1] = root, right
		root = above
	}
	t.root = root
	return old, had
}

// fill puts keys that come in order, none twice, into a table that is empty.
func (t *table[K, V]) fill(all iter.Seq2[K, V]) {
	var level []*node[K, V]
	for key, value := range all {
		if t.count++; t.count%leafSize == 1 {
			leaf := newLeaf[K, V](t.owner)
			leaf.low = key
			level = append(level, leaf)
		}
		leaf := level[len(level)-1]
		leaf.items[leaf.count] = pair[K, V]{value, key}
		leaf.count++
	}
	for len(level) > 1 {
		var above []*node[K, V]
		for kids := range slices.Chunk(level, innerSize) {
			n := newInner[K, V](t.owner)
			n.low, n.count = kids[0].low, copy(n.kids[:], kids)
			above = append(above, n)
		}
		level = above
	}
	if t.count > 0 {
		t.root = level[0]
	}
}

// Delete removes a key, and gives the value that it had.
func (t *table[K, V]) Delete(key K) (old V, had bool) {
	if old, had = t.Get(key); !had {
		return old, false
	}
	t.count--
	root := t.remove(t.root, key)
	for root.kids != nil && root.count == 1 {
		root = root.kids[0]
	}
	if root.count == 0 {
		root = nil
	}
	t.root = root
	return old, true
}

// Min is the least key and its value.
func (t *table[K, V]) Min() (key K, value V, ok bool) {
	n := t.root
	if n == nil {
		return key, value, false
	}
	for n.kids != nil {
		n = n.kids[0]
	}
	return n.items[0].key, n.items[0].value, true
}

// PopMin removes the least key.
func (t *table[K, V]) PopMin() (key K, value V, ok bool) {
	if key, value, ok = t.Min(); ok {
		t.Delete(key)
	}
	return key, value, ok
}

// Scan walks all keys in order until yield says no.
func (t *table[K, V]) Scan(yield func(K, V) bool) {
	if t.root != nil {
		t.root.scan(yield)
	}
}

// values are all values in order of their keys.
func (t *table[K, V]) values() []V {
	list := make([]V, 0, t.count)
	t.Scan(func(_ K, v V) bool {
		list = append(list, v)
		return true
	})
	return list
}

// Ascend walks the keys from one on, in order, until yield says no.
func (t *table[K, V]) Ascend(from K, yield func(K, V) bool) {
	if t.root != nil {
		t.root.ascend(from, yield)
	}
}

// since walks, in order, at least the keys whose values differ from what another table
// has there, or that it has not. Of forks of one table, that is what was written and
// its neighbours.
func (t *table[K, V]) since(old *table[K, V], yield func(K, V)) {
	if t.root != nil {
		t.root.since(t.root.height(), old.root, yield)
	}
}

func (n *node[K, V]) since(height int, old *node[K, V], yield func(K, V)) {
	if old.holds(n, height) {
		return
	}
	if n.kids == nil {
		for _, p := range n.items[:n.count] {
			yield(p.key, p.value)
		}
		return
	}
	for _, kid := range n.kids[:n.count] {
		kid.since(height-1, old, yield)
	}
}

// height is how many levels lie below a node.
func (n *node[K, V]) height() (levels int) {
	for ; n.kids != nil; n = n.kids[0] {
		levels++
	}
	return levels
}

// holds says whether a node of a height is in the tree below n, which may be nil.
func (n *node[K, V]) holds(other *node[K, V], height int) bool {
	if n == nil {
		return false
	}
	for above := n.height() - height; above > 0; above-- {
		n = n.kids[n.child(other.low)]
	}
	return n == other
}

func (n *node[K, V]) scan(yield func(K, V) bool) bool {
	if n.kids == nil {
		return n.yield(0, yield)
	}
	for _, kid := range n.kids[:n.count] {
		if !kid.scan(yield) {
			return false
		}
	}
	return true
}

func (n *node[K, V]) ascend(from K, yield func(K, V) bool) bool {
	if n.kids == nil {
		i, _ := n.find(from)
		return n.yield(i, yield)
	}
	at := n.child(from)
	if !n.kids[at].ascend(from, yield) {
		return false
	}
	for _, kid := range n.kids[at+1 : n.count] {
		if !kid.scan(yield) {
			return false
		}
	}
	return true
}

func (n *node[K, V]) yield(from int, yield func(K, V) bool) bool {
	for i := from; i < n.count; i++ {
		if !yield(n.items[i].key, n.items[i].value) {
			return false
		}
	}
	return true
}

// child is the index of the child that has the key, if any has.
func (n *node[K, V]) child(key K) int {
	low, high := 1, n.count
	for low < high {
		middle := (low + high) / 2
		if n.kids[middle].low <= key {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low - 1
}

// find is the index of a key in a leaf, or where it would be.
func (n *node[K, V]) find(key K) (int, bool) {
	low, high := 0, n.count
	for low < high {
		middle := (low + high) / 2
		if n.items[middle].key < key {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low, low < n.count && n.items[low].key == key
}

// own is the node itself where this fork made it, otherwise a copy that may be written.
func (t *table[K, V]) own(n *node[K, V]) *node[K, V] {
	if n.owner == t.owner {
		return n
	}
	var c *node[K, V]
	if n.kids == nil {
		c = newLeaf[K, V](t.owner)
		copy(c.items[:], n.items[:n.count])
	} else {
		c = newInner[K, V](t.owner)
		copy(c.kids[:], n.kids[:n.count])
	}
	c.low, c.count = n.low, n.count
	return c
}

// set gives the node that replaces n, and a second one behind it where it was split.
func (t *table[K, V]) set(n *node[K, V], p pair[K, V]) (*node[K, V], *node[K, V]) {
	n = t.own(n)
	n.low = min(n.low, p.key)
	if n.kids == nil {
		return n, t.setLeaf(n, p)
	}
	at := n.child(p.key)
	kid, right := t.set(n.kids[at], p)
	n.kids[at] = kid
	if right == nil {
		return n, nil
	}
	at++
	if n.count < innerSize {
		insert(n.kids[:n.count+1], at, right)
		n.count++
		return n, nil
	}
	behind := newInner[K, V](t.owner)
	n.count, behind.count = split(n.kids[:], behind.kids[:], at, right)
	behind.low = behind.kids[0].low
	return n, behind
}

// setLeaf puts a pair into a leaf that may be written, and gives a second leaf behind
// it where it was full.
func (t *table[K, V]) setLeaf(n *node[K, V], p pair[K, V]) *node[K, V] {
	at, had := n.find(p.key)
	if had {
		n.items[at] = p // the key, too: it may share its block with the value
		return nil
	}
	t.count++
	if n.count < leafSize {
		insert(n.items[:n.count+1], at, p)
		n.count++
		return nil
	}
	behind := newLeaf[K, V](t.owner)
	n.count, behind.count = split(n.items[:], behind.items[:], at, p)
	behind.low = behind.items[0].key
	return behind
}

// split moves the end of a full list to an empty one behind it, inserts v into the one
// where it belongs, and gives the lengths of both.
func split[T any](list, behind []T, at int, v T) (stayed, moved int) {
	stayed = kept(at, len(list))
	moved = copy(behind, list[stayed:])
	clear(list[stayed:])
	if at > stayed || moved == 0 {
		insert(behind[:moved+1], at-stayed, v)
		return stayed, moved + 1
	}
	insert(list[:stayed+1], at, v)
	return stayed + 1, moved
}

// kept is how much of a full node stays in it: half, or all where the new key comes
// last, so that keys set in order fill their nodes.
func kept(at, size int) int {
	if at == size {
		return size
	}
	return size / 2
}

// insert puts v at a place of a list whose last element is free.
func insert[T any](list []T, at int, v T) {
	copy(list[at+1:], list[at:])
	list[at] = v
}

// cut takes a place out of a list and clears the last element.
func cut[T any](list []T, at int) {
	copy(list[at:], list[at+1:])
	clear(list[len(list)-1:])
}

// remove gives the node that replaces n, without a key that it has.
func (t *table[K, V]) remove(n *node[K, V], key K) *node[K, V] {
	n = t.own(n)
	if n.kids == nil {
		at, _ := n.find(key)
		cut(n.items[:n.count], at)
		n.count--
		return n
	}
	at := n.child(key)
	kid := t.remove(n.kids[at], key)
	n.kids[at] = kid
	if kid.count == 0 {
		cut(n.kids[:n.count], at)
		n.count--
		return n
	}
	if at > 0 && t.join(n, at-1) {
		return n
	}
	if at+1 < n.count {
		t.join(n, at)
	}
	return n
}

// join merges two neighbours where one is nearly empty and both fit with room to
// spare, so that the next key does not split them again.
func (t *table[K, V]) join(n *node[K, V], at int) bool {
	left, right := n.kids[at], n.kids[at+1]
	size := leafSize
	if left.kids != nil {
		size = innerSize
	}
	if min(left.count, right.count) > size/4 || left.count+right.count > size*3/4 {
		return false
	}
	left = t.own(left)
	if left.kids == nil {
		copy(left.items[left.count:], right.items[:right.count])
	} else {
		copy(left.kids[left.count:], right.kids[:right.count])
	}
	left.count += right.count
	n.kids[at] = left
	cut(n.kids[:n.count], at+1)
	n.count--
	return true
}
