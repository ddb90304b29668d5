package zone

import (
	"cmp"
	"maps"
	"slices"
)

// Editor collects changes to a tree. It is not safe for concurrent use, and
// only one may be open at a time.
type Editor struct {
	tree   *Tree
	common *common        // a copy; published by Commit
	owned  bool           // the copy's pools and platforms are copies, too
	shards map[int]*shard // copies of those touched
	ents   map[Name]int32 // changes of the counts
	path   path
}

// Edit opens an editor.
func (t *Tree) Edit() *Editor {
	c := *t.common.Load()
	return &Editor{tree: t, common: &c, shards: make(map[int]*shard), ents: make(map[Name]int32)}
}

// own makes the tables of the editor's copy its own before they are changed.
func (e *Editor) own() {
	if e.owned {
		return
	}
	e.owned = true
	e.common.platforms = slices.Clone(e.common.platforms)
	e.common.pools = maps.Clone(e.common.pools)
	if e.common.pools == nil {
		e.common.pools = make(map[uint32]*Pool)
	}
}

// Put makes the branch answer under all its anchors, in place of old, whose
// anchors that the new branch lacks are removed. Either may be zero. Old must be
// what was put before and not replaced since: the tree counts the names above.
func (e *Editor) Put(old, new Branch) {
	before, after := old.anchors(), new.anchors()
	if slices.Equal(before, after) {
		for _, key := range e.keys(after) {
			e.shard(key).replace(key, old, new)
		}
		return
	}
	for _, key := range e.keys(before) {
		e.shard(key).remove(key, old)
	}
	for _, key := range e.keys(after) {
		e.shard(key).insert(key, new)
	}
	e.count(before, -1)
	e.count(after, 1)
}

// keys are the hashes under which a branch with these anchors is found, each once.
func (e *Editor) keys(list []anchor) []uint64 {
	keys := make([]uint64, 0, 8)
	for _, a := range list {
		e.path.setName(a.name)
		d := e.path.count
		key := e.path.key(d, a.kind)
		e.common.anchors.add(d)
		if key == e.path.hash[d] {
			e.common.depths.add(d)
		}
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// minENT is the fewest labels of a name that exists only because of anchors
// below it: zones, the platform's and customers', have at least two.
const minENT = 3

// count counts the anchors below each name above them. A token's parent needs no
// counting: dkim.P and its like always exist.
func (e *Editor) count(list []anchor, by int32) {
	for _, a := range list {
		e.path.setName(a.name)
		if a.kind == anchorTarget {
			if _, ok := e.path.tokenKey(e.path.count); ok {
				continue
			}
		}
		for n := Name(a.name).Parent(); n.Labels() >= minENT; n = n.Parent() {
			e.ents[n] += by
		}
	}
}

// SetPool replaces the answers of the pool with that number; nil removes it.
func (e *Editor) SetPool(number uint32, p *Pool) {
	e.own()
	if p == nil {
		delete(e.common.pools, number)
		return
	}
	e.common.pools[number] = p
}

// SetPlatform adds or replaces a platform zone, with the counter of its plan; nil
// removes it.
func (e *Editor) SetPlatform(number uint32, p *Platform) {
	e.own()
	e.common.platforms = slices.DeleteFunc(e.common.platforms, func(have *platformEntry) bool { return have.number == number })
	if p == nil {
		return
	}
	e.common.anchors.add(p.labels)
	e.common.platforms = append(e.common.platforms, &platformEntry{Platform: p, serial: p.serial})
	slices.SortFunc(e.common.platforms, func(a, b *platformEntry) int { return cmp.Compare(a.number, b.number) })
}

// SetSerial sets a platform zone's counter without rendering it again.
func (e *Editor) SetSerial(number uint32, serial uint32) {
	e.own()
	for i, p := range e.common.platforms {
		if p.number == number {
			e.common.platforms[i] = &platformEntry{Platform: p.Platform, serial: serial}
		}
	}
}

// Commit publishes everything collected, each touched shard by one pointer.
// Nothing may be done with the editor afterwards.
func (e *Editor) Commit() {
	for n, by := range e.ents {
		e.settle(n, by)
	}
	e.tree.common.Store(e.common)
	for i, s := range e.shards {
		if s.used == 0 {
			s = nil
		}
		e.tree.shards[i].Store(s)
	}
	e.tree, e.common, e.shards = nil, nil, nil
}

// settle carries a change of a count into the index.
func (e *Editor) settle(n Name, by int32) {
	before := e.tree.ents[n]
	after := before + by
	if after == 0 {
		delete(e.tree.ents, n)
	} else {
		e.tree.ents[n] = after
	}
	if (before == 0) == (after == 0) {
		return
	}
	e.path.setName(string(n))
	d := e.path.count
	e.common.depths.add(d)
	key := e.path.hash[d]
	if after == 0 {
		e.shard(key).remove(key, entBranch(n))
	} else {
		e.shard(key).insert(key, entBranch(n))
	}
}

// shard is the editor's copy of the shard of a key.
func (e *Editor) shard(key uint64) *shard {
	i := shardOf(key)
	if s, ok := e.shards[i]; ok {
		return s
	}
	s := new(shard)
	if have := e.tree.shards[i].Load(); have != nil {
		s.used, s.slots = have.used, slices.Clone(have.slots)
	}
	e.shards[i] = s
	return s
}

// minSlots is the size of a shard's first table.
const minSlots = 4

// insert adds a branch under a key. It is there once, however often inserted.
func (s *shard) insert(key uint64, b Branch) {
	if (s.used+1)*5 > len(s.slots)*4 {
		s.resize(max(minSlots, len(s.slots)*3/2))
	}
	i := s.home(key)
	for ; s.slots[i].branch != ""; i = s.next(i) {
		if s.slots[i].hash == key && s.slots[i].branch == b {
			return
		}
	}
	s.slots[i] = slot{key, b}
	s.used++
}

// replace puts a branch in the place of another.
func (s *shard) replace(key uint64, old, new Branch) {
	if i, ok := s.index(key, old); ok {
		s.slots[i].branch = new
		return
	}
	s.insert(key, new)
}

// remove takes a branch away and closes the gap, so that probing never has to
// step over what is gone.
func (s *shard) remove(key uint64, b Branch) {
	gap, ok := s.index(key, b)
	if !ok {
		return
	}
	for i := s.next(gap); s.slots[i].branch != ""; i = s.next(i) {
		// A slot may move into the gap if its probing began at or before it.
		if home := s.home(s.slots[i].hash); (i-home+len(s.slots))%len(s.slots) >= (i-gap+len(s.slots))%len(s.slots) {
			s.slots[gap] = s.slots[i]
			gap = i
		}
	}
	s.slots[gap] = slot{}
	s.used--
	if len(s.slots) > 4*minSlots && s.used*4 < len(s.slots) {
		s.resize(len(s.slots) / 2)
	}
}

func (s *shard) index(key uint64, b Branch) (int, bool) {
	if len(s.slots) == 0 {
		return 0, false
	}
	for i := s.home(key); s.slots[i].branch != ""; i = s.next(i) {
		if s.slots[i].hash == key && s.slots[i].branch == b {
			return i, true
		}
	}
	return 0, false
}

func (s *shard) next(i int) int {
	if i++; i == len(s.slots) {
		return 0
	}
	return i
}

func (s *shard) resize(size int) {
	old := s.slots
	s.slots = make([]slot, size)
	for _, at := range old {
		if at.branch == "" {
			continue
		}
		i := s.home(at.hash)
		for s.slots[i].branch != "" {
			i = s.next(i)
		}
		s.slots[i] = at
	}
}
