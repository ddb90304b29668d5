package state

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestFanIsAListThatItsForksShare holds it and each fork of it to a map.
func TestFanIsAListThatItsForksShare(t *testing.T) {
	type version struct {
		fan  fan[int]
		want map[uint32]int
	}
	rapid.Check(t, func(t *rapid.T) {
		versions := []version{{want: map[uint32]int{}}}
		for range rapid.IntRange(1, 20).Draw(t, "forks") {
			old := versions[rapid.IntRange(0, len(versions)-1).Draw(t, "of")]
			next := version{old.fan.fork(new(owner)), maps.Clone(old.want)}
			for range rapid.IntRange(1, 10).Draw(t, "changes") {
				at := rapid.OneOf(rapid.Uint32Range(0, 20), rapid.Uint32Range(0, fanSize-1), rapid.Just(uint32(fanSize-1))).Draw(t, "at")
				v := rapid.IntRange(0, 3).Draw(t, "value")
				next.fan.Set(at, v)
				next.want[at] = v
			}
			versions = append(versions, next)
		}
		for _, v := range versions {
			var places []uint32
			v.fan.Scan(func(at uint32, value int) bool {
				if places = append(places, at); value != v.want[at] || value != v.fan.Get(at) {
					t.Fatalf("at %d there is %d in order and %d by itself, want %d", at, value, v.fan.Get(at), v.want[at])
				}
				return true
			})
			if !slices.IsSorted(places) {
				t.Fatalf("places out of order: %d", places)
			}
			for at, want := range v.want {
				if got := v.fan.Get(at); got != want {
					t.Fatalf("at %d there is %d, want %d", at, got, want)
				}
				if _, found := slices.BinarySearch(places, at); !found {
					t.Fatalf("place %d was not walked", at)
				}
			}
		}
	})
}
