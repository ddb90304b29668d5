package state

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// version is a table as one fork left it, with what it must hold for ever.
type version struct {
	table table[string, int]
	want  map[string]int
}

func (v *version) check(t *rapid.T) {
	keys := slices.Sorted(maps.Keys(v.want))
	if v.table.Len() != len(keys) {
		t.Fatalf("%d keys, want %d", v.table.Len(), len(keys))
	}
	from := 0
	if len(keys) > 0 {
		from = rapid.IntRange(0, len(keys)-1).Draw(t, "from")
	}
	var all, some []string
	v.table.Scan(func(k string, x int) bool {
		if all = append(all, k); x != v.want[k] {
			t.Fatalf("%q is %d, want %d", k, x, v.want[k])
		}
		return true
	})
	if !slices.Equal(all, keys) {
		t.Fatalf("keys %q, want %q", all, keys)
	}
	if len(keys) == 0 {
		return
	}
	v.table.Ascend(keys[from], func(k string, _ int) bool {
		some = append(some, k)
		return len(some) < 5
	})
	if want := keys[from:min(from+5, len(keys))]; !slices.Equal(some, want) {
		t.Fatalf("from %q on %q, want %q", keys[from], some, want)
	}
	if k, _, ok := v.table.Min(); !ok || k != keys[0] {
		t.Fatalf("least is %q, want %q", k, keys[0])
	}
	for _, k := range keys {
		if x, ok := v.table.Get(k); !ok || x != v.want[k] {
			t.Fatalf("%q is %d, %t", k, x, ok)
		}
	}
	checkNode(t, v.table.root, "", "")
}

// checkSince holds what differs from another version to what both hold.
func (v *version) checkSince(t *rapid.T, old *version) {
	seen := make(map[string]int)
	v.table.since(&old.table, func(k string, x int) { seen[k] = x })
	for k, x := range seen {
		if had, ok := v.want[k]; !ok || had != x {
			t.Fatalf("%q is %d, and %d since", k, had, x)
		}
	}
	for k, x := range v.want {
		if _, ok := seen[k]; !ok && old.want[k] != x {
			t.Fatalf("%q is %d since, and was not seen", k, x)
		}
	}
	if len(seen) > 0 && v == old {
		t.Fatalf("%d keys changed since itself", len(seen))
	}
}

// checkNode holds the keys of a node to its bounds; end is empty at the last.
func checkNode(t *rapid.T, n *node[string, int], low, end string) {
	if n.low < low || n.count == 0 {
		t.Fatalf("a node of %d from %q on, below one from %q on", n.count, n.low, low)
	}
	if n.kids == nil {
		for _, p := range n.items[:n.count] {
			if p.key < n.low || end != "" && p.key >= end {
				t.Fatalf("%q in a leaf from %q to %q", p.key, n.low, end)
			}
		}
		return
	}
	for i, kid := range n.kids[:n.count] {
		to := end
		if i+1 < n.count {
			to = n.kids[i+1].low
		}
		checkNode(t, kid, n.low, to)
	}
}

// Whatever is done to a fork, every earlier version stays as it was, also where
// two forks of one version go different ways.
func TestTableIsAMapInOrderAndItsVersionsStay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		versions := []*version{{want: map[string]int{}}}
		keys := rapid.SampledFrom([]int{7, 90, 3_000}).Draw(t, "keys")
		for range rapid.IntRange(1, 6).Draw(t, "forks") {
			base := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "base")]
			v := &version{base.table.fork(new(owner)), maps.Clone(base.want)}
			versions = append(versions, v)
			at, step := rapid.IntRange(0, keys).Draw(t, "at"), rapid.IntRange(0, 7).Draw(t, "step")
			remove := rapid.IntRange(0, 3).Draw(t, "remove")
			for i := range rapid.SampledFrom([]int{3, 40, 2_000}).Draw(t, "changes") {
				at = (at*31 + 7 + i) % keys // anywhere, or in order
				if step > 0 {
					at = step * i % keys
				}
				k := fmt.Sprintf("%04d", at)
				_, had := v.want[k]
				if i%4 < remove {
					if _, ok := v.table.Delete(k); ok != had {
						t.Fatalf("deleting %q: was there: %t", k, had)
					}
					delete(v.want, k)
					continue
				}
				if _, ok := v.table.Set(k, i); ok != had {
					t.Fatalf("setting %q: was there: %t", k, had)
				}
				v.want[k] = i
			}
		}
		last := versions[len(versions)-1]
		sorted := slices.Sorted(maps.Keys(last.want))
		filled := &version{table[string, int]{owner: new(owner)}, last.want}
		filled.table.fill(func(yield func(string, int) bool) {
			for _, k := range sorted {
				yield(k, last.want[k])
			}
		})
		filled.check(t)
		for _, v := range versions {
			v.check(t)
			v.checkSince(t, versions[rapid.IntRange(0, len(versions)-1).Draw(t, "since")])
		}
	})
}

// nodes counts a table's, and adds up what they hold.
func nodes[K ~string | ~uint64, V any](n *node[K, V]) (leaves, inner, height int) {
	if n.kids == nil {
		return 1, 0, 1
	}
	for _, kid := range n.kids[:n.count] {
		l, i, h := nodes(kid)
		leaves, inner, height = leaves+l, inner+i, h+1
	}
	return leaves, inner + 1, height
}

// Keys set in order fill the leaves; keys removed give them back.
func TestTableStaysDense(t *testing.T) {
	const many = 100_000
	var x table[uint64, struct{}]
	for k := range uint64(many) {
		x.Set(k, struct{}{})
	}
	if leaves, _, height := nodes(x.root); leaves != (many+leafSize-1)/leafSize || height != 5 {
		t.Errorf("%d keys in order are in %d leaves, %d levels", many, leaves, height)
	}
	for k := range uint64(many) {
		if k%16 != 0 {
			x.Delete(k * 7919 % many)
		}
	}
	if leaves, inner, height := nodes(x.root); leaves > x.Len() || inner > leaves/2 || height > 5 {
		t.Errorf("%d keys left are in %d leaves, %d nodes above, %d levels", x.Len(), leaves, inner, height)
	}
	for k := range uint64(many) {
		x.Delete(k)
	}
	if x.Len() != 0 || x.root != nil {
		t.Errorf("%d keys left of none", x.Len())
	}
}

func TestWindowKeepsWhatItHeldInEveryFork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type kept struct {
			window window
			first  uint64
			want   []string
		}
		first := rapid.Uint64Range(1, 40).Draw(t, "first")
		versions := []kept{{first: first}}
		for i := range rapid.IntRange(1, 12).Draw(t, "forks") {
			v := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "base")]
			v.window, v.want = v.window.fork(new(owner)), slices.Clone(v.want)
			for j := range rapid.SampledFrom([]int{1, 9, 70, 400}).Draw(t, "added") {
				entry := fmt.Sprint(i, " ", j)
				v.window.Push(v.first+uint64(len(v.want)), entry)
				v.want = append(v.want, entry)
			}
			for range rapid.IntRange(0, len(v.want)).Draw(t, "dropped") {
				if got := v.window.PopMin(); got != v.want[0] {
					t.Fatalf("dropped %q, want %q", got, v.want[0])
				}
				v.first, v.want = v.first+1, v.want[1:]
			}
			versions = append(versions, v)
		}
		for _, v := range versions {
			if v.window.Len() != len(v.want) {
				t.Fatalf("%d entries, want %d", v.window.Len(), len(v.want))
			}
			from := rapid.Uint64Range(0, v.first+uint64(len(v.want))+1).Draw(t, "from")
			next := max(from, v.first)
			v.window.Ascend(from, func(number uint64, entry string) bool {
				if number != next || entry != v.want[number-v.first] {
					t.Fatalf("entry %d is %q, want the one of %d", number, entry, next)
				}
				next++
				return true
			})
			if end := v.first + uint64(len(v.want)); next < end {
				t.Fatalf("walked to %d of %d", next, end)
			}
			for number := range v.first + uint64(len(v.want)) + 20 {
				got, ok := v.window.Get(number)
				in := number >= v.first && number-v.first < uint64(len(v.want))
				if ok != in || in && got != v.want[number-v.first] {
					t.Fatalf("entry %d is %q, %t", number, got, ok)
				}
			}
		}
	})
}
