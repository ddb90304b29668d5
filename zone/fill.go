package zone

import (
	"runtime"
	"slices"
	"sync"
)

// Fill is Put("", b) for every branch of a list, on all cores where nothing is in
// the tree yet: a million branches at the start of a node.
func (e *Editor) Fill(list []Branch) {
	parts := runtime.GOMAXPROCS(0)
	if len(list) < 1000*parts || !e.blank() {
		for _, b := range list {
			e.Put("", b)
		}
		return
	}
	e.fillOn(parts, list)
}

// fillOn fills an editor without shards on some cores.
func (e *Editor) fillOn(parts int, list []Branch) {
	fills := make([]*fill, parts)
	var all sync.WaitGroup
	for i := range fills {
		f := &fill{Editor: Editor{common: new(common), ents: make(map[Name]int32)}, begin: make([]int32, shardCount+1)}
		fills[i] = f
		mine := list[len(list)*i/parts : len(list)*(i+1)/parts]
		all.Go(func() { f.collect(mine) })
	}
	all.Wait()
	for _, f := range fills {
		for k := range f.common.depths {
			e.common.anchors[k] |= f.common.anchors[k]
			e.common.depths[k] |= f.common.depths[k]
		}
		for n, by := range f.ents {
			e.ents[n] += by
		}
	}
	shards := make([]*shard, shardCount)
	for i := range parts {
		from, to := shardCount*i/parts, shardCount*(i+1)/parts
		all.Go(func() { build(fills, shards, from, to) })
	}
	all.Wait()
	for i, s := range shards {
		if s != nil {
			e.shards[i] = s
		}
	}
}

// blank says whether neither the tree nor the editor has a shard.
func (e *Editor) blank() bool {
	if len(e.shards) > 0 {
		return false
	}
	for i := range e.tree.shards {
		if e.tree.shards[i].Load() != nil {
			return false
		}
	}
	return true
}

// fill is what one core makes of its part of the branches: an editor that is
// never committed, and the slots in order of their shards.
type fill struct {
	Editor
	slots []slot
	begin []int32 // where a shard's slots begin; one more at the end
}

func (f *fill) collect(list []Branch) {
	found := make([]slot, 0, len(list)+len(list)/2)
	for _, b := range list {
		anchors := b.anchors()
		for _, key := range f.keys(anchors) {
			found = append(found, slot{key, b})
			f.begin[shardOf(key)+1]++
		}
		f.count(anchors, 1)
	}
	for i := range shardCount {
		f.begin[i+1] += f.begin[i]
	}
	next := slices.Clone(f.begin)
	f.slots = make([]slot, len(found))
	for _, s := range found {
		i := shardOf(s.hash)
		f.slots[next[i]] = s
		next[i]++
	}
}

// build makes the shards of a range of what all cores collected, as full as
// single inserts leave them on average.
func build(fills []*fill, shards []*shard, from, to int) {
	for i := from; i < to; i++ {
		used := 0
		for _, f := range fills {
			used += int(f.begin[i+1] - f.begin[i])
		}
		if used == 0 {
			continue
		}
		s := &shard{slots: make([]slot, max(minSlots, used*3/2+1))}
		for _, f := range fills {
			for _, at := range f.slots[f.begin[i]:f.begin[i+1]] {
				s.insert(at.hash, at.branch)
			}
		}
		shards[i] = s
	}
}
