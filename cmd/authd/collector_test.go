package main

import "testing"

func TestGrowthLeavesRoomOfAFixedSize(t *testing.T) {
	for live, want := range map[uint64]int{
		0: mostGrowth, 20 << 20: mostGrowth, 64 << 20: 200, heapRoom: 100, 2 * heapRoom: 50, 4 * heapRoom: 25, 3 << 30: leastGrowth, 64 << 30: leastGrowth,
	} {
		if got := growth(heapRoom, live); got != want {
			t.Errorf("%d MiB live: %d %%, want %d", live>>20, got, want)
		}
	}
}
