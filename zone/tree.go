package zone

import (
	"fmt"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
)

// Tree is the index the query path reads: from a name's hash to the branch that
// holds it, in shards that are replaced, never edited in sight of a reader.
// One writer at a time changes it through an Editor; any number of readers look
// names up meanwhile. A reader may see one change before its neighbour's, never
// half a branch.
type Tree struct {
	// common is what all branches share. It is published before the shards, so
	// that a reader who finds a branch finds its pool.
	common atomic.Pointer[common]
	shards [shardCount]atomic.Pointer[shard]

	// ents counts the anchors below every name that exists only because of them.
	// The writer's alone.
	ents map[Name]int32
}

// shardCount is how many parts the index has: with a million domains a part
// holds some twenty branches, which is what a change copies. The table of parts is
// 512 KiB in any fleet; four times fewer were no faster to look up in.
const (
	shardBits  = 16
	shardCount = 1 << shardBits
)

// common is the small part of the index: pools, platform zones, and which
// numbers of labels anchors have. Immutable.
type common struct {
	pools     map[uint32]*Pool
	platforms []*platformEntry // by number
	// anchors are the numbers of labels that anchors and platform zones have, and
	// depths those under whose hash one, or an empty non-terminal, is in the index.
	// Numbers are never taken out: a stale one costs a probe and nothing else.
	anchors, depths labelCounts
}

// labelCounts is a set of numbers of labels.
type labelCounts [2]uint64

func (s *labelCounts) add(d int)      { s[d>>6] |= 1 << (d & 63) }
func (s *labelCounts) has(d int) bool { return s[d>>6&1]&(1<<(d&63)) != 0 }

// atMost is the largest number up to d in the set; 0 where there is none.
func (s *labelCounts) atMost(d int) int {
	if d > 63 {
		if high := s[1] << (127 - d); high != 0 {
			return d - bits.LeadingZeros64(high)
		}
		d = 63
	}
	if low := s[0] << (63 - d); low != 0 {
		return d - bits.LeadingZeros64(low)
	}
	return 0
}

// platformEntry is a platform zone with its counter as it is now.
type platformEntry struct {
	*Platform
	serial uint32
}

func (c *common) platform(number uint32) *platformEntry {
	for _, p := range c.platforms {
		if p.number == number {
			return p
		}
	}
	return nil
}

// shard is a part of the index: open addressing with linear probing, as many
// slots as it needs. Immutable once published.
type shard struct {
	slots []slot
	used  int
}

// slot is one key of one branch; free where the branch is empty.
type slot struct {
	hash   uint64
	branch Branch
}

func shardOf(hash uint64) int { return int(hash >> (64 - shardBits)) }

// home is where the probing for a hash begins.
func (s *shard) home(hash uint64) int {
	return int(uint64(uint32(hash)) * uint64(len(s.slots)) >> 32)
}

// NewTree returns an empty tree, which refuses every question.
func NewTree() *Tree {
	t := &Tree{ents: make(map[Name]int32)}
	t.common.Store(&common{})
	return t
}

// Take shows what another tree holds in place of what was there. No editor of either may be
// open, and nothing may be done with the other afterwards.
func (t *Tree) Take(other *Tree) {
	t.common.Store(other.common.Load())
	for i := range t.shards {
		t.shards[i].Store(other.shards[i].Load())
	}
	t.ents = other.ents
}

// find finds the branch with an anchor of exactly the suffix of d labels, under
// a key.
func (t *Tree) find(p *path, d int, key uint64) (Branch, anchor, bool) {
	s := t.shards[shardOf(key)].Load()
	if s == nil {
		return "", anchor{}, false
	}
	for i := s.home(key); ; {
		at := &s.slots[i]
		if at.branch == "" {
			return "", anchor{}, false
		}
		if at.hash == key && !isENT(at.branch) {
			if a, ok := findAnchor(block(at.branch), p.suffix(d)); ok {
				return at.branch, a, true
			}
		}
		if i++; i == len(s.slots) {
			i = 0
		}
	}
}

// ent says whether the suffix of d labels is an empty non-terminal because of
// anchors below it.
func (t *Tree) ent(p *path, d int) bool {
	key := p.hash[d]
	s := t.shards[shardOf(key)].Load()
	if s == nil {
		return false
	}
	for i := s.home(key); ; {
		at := &s.slots[i]
		if at.branch == "" {
			return false
		}
		if at.hash == key && isENT(at.branch) && string(at.branch[1:]) == string(p.suffix(d)) {
			return true
		}
		if i++; i == len(s.slots) {
			i = 0
		}
	}
}

// Diff says where two trees differ, for tests: nil when every name has the same
// answers in both.
func (t *Tree) Diff(other *Tree) []string {
	var out []string
	mine, theirs := t.contents(), other.contents()
	for key, branch := range mine {
		if have, ok := theirs[key]; !ok {
			out = append(out, key+": only in the first")
		} else if have != branch {
			out = append(out, key+": differs")
		}
	}
	for key := range theirs {
		if _, ok := mine[key]; !ok {
			out = append(out, key+": only in the second")
		}
	}
	slices.Sort(out)
	return append(out, t.common.Load().diff(other.common.Load())...)
}

// contents are all slots, by anchor and number of branches that have it.
func (t *Tree) contents() map[string]string {
	found := make(map[string][]string)
	for i := range t.shards {
		s := t.shards[i].Load()
		if s == nil {
			continue
		}
		for _, at := range s.slots {
			if at.branch == "" {
				continue
			}
			names := []Name{Name(at.branch[1:])}
			kind := "empty non-terminal"
			if !isENT(at.branch) {
				names, kind = at.branch.Anchors(), "anchor"
			}
			for _, n := range names {
				key := fmt.Sprintf("%s %s under %x", kind, n, at.hash)
				found[key] = append(found[key], string(at.branch))
			}
		}
	}
	out := make(map[string]string, len(found))
	for key, branches := range found {
		slices.Sort(branches)
		out[key] = strings.Join(branches, "\x00\x00")
	}
	return out
}

func (c *common) diff(other *common) []string {
	var out []string
	if !reflect.DeepEqual(c.pools, other.pools) && len(c.pools)+len(other.pools) > 0 {
		out = append(out, "pools differ")
	}
	if !reflect.DeepEqual(c.platforms, other.platforms) && len(c.platforms)+len(other.platforms) > 0 {
		out = append(out, "platform zones differ")
	}
	return out
}
