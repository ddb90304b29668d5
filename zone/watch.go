package zone

import (
	"sync"
	"sync/atomic"
)

// Watch counts TXT queries for the names of keys that a plan marks as Watched.
// Counting takes no lock, allocates nothing and reads no clock: a worker adds to
// a table of its shard, which Take replaces. A table that is full loses counts,
// and says so.
type Watch struct {
	shards [watchShards]watchShard

	// taking guards retired: one Take at a time.
	taking  sync.Mutex
	retired [watchShards]*watchTable
}

type watchShard struct {
	table atomic.Pointer[watchTable]
	_     [56]byte // two shards' pointers are in two cache lines
}

// watchTable is an open-addressing table of hashes and counts.
type watchTable struct {
	used, lost atomic.Uint64
	entries    []watchEntry // as many as a power of two
}

type watchEntry struct{ hash, count atomic.Uint64 }

const (
	watchShards = 8
	watchProbes = 16
	leastWatch  = 1 << 8  // entries of a shard
	mostWatch   = 1 << 16 // a MiB a shard
)

// NewWatch makes a watch that has seen nothing.
func NewWatch() *Watch {
	w := new(Watch)
	for i := range w.shards {
		w.shards[i].table.Store(newWatchTable(leastWatch))
	}
	return w
}

func newWatchTable(size int) *watchTable { return &watchTable{entries: make([]watchEntry, size)} }

// NameHash is the hash by which a Watch counts a name, the same in every process.
func NameHash(n Name) uint64 {
	var p path
	p.setName(string(n))
	return p.hash[p.count]
}

// note counts a query. Several workers may share the shard.
func (s *watchShard) note(hash uint64) {
	t := s.table.Load()
	mask := uint64(len(t.entries) - 1)
	for i := range uint64(watchProbes) {
		e := &t.entries[(hash+i)&mask]
		had := e.hash.Load()
		if had == 0 && e.hash.CompareAndSwap(0, hash) {
			t.used.Add(1)
			had = hash
		}
		if had == hash || e.hash.Load() == hash {
			e.count.Add(1)
			return
		}
	}
	t.lost.Add(1)
}

// Take hands over, by NameHash, what was counted up to the Take before this one: by
// now no worker is still adding to that table. lost is how many queries found no room
// in it. The caller keeps the sum and comes at intervals longer than any query.
func (w *Watch) Take(add func(hash, count uint64)) (lost uint64) {
	w.taking.Lock()
	defer w.taking.Unlock()
	for i := range w.shards {
		if t := w.retired[i]; t != nil {
			for j := range t.entries {
				if hash := t.entries[j].hash.Load(); hash != 0 {
					add(hash, t.entries[j].count.Load())
				}
			}
			lost += t.lost.Load()
			w.retired[i] = nil
		}
		t := w.shards[i].table.Load()
		used, size := int(t.used.Load()), len(t.entries)
		switch {
		case used == 0 && t.lost.Load() == 0:
			continue
		case (used > size/4 || t.lost.Load() > 0) && size < mostWatch:
			size *= 4
		case used < size/32 && size > leastWatch:
			size /= 4
		}
		w.shards[i].table.Store(newWatchTable(size))
		w.retired[i] = t
	}
	return lost
}
