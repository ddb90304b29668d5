package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How far the heap may grow past what lives before it is collected. Nearly all that a
// node holds is state without pointers, which costs memory more than a collection: room
// of a fixed size serves most fleets. Of a million domains a collection takes 1.4 s of
// processors all the same (bench/RESULTS.md, "The write path"), and has to come seldom.
const (
	heapRoom    = 128 << 20 // octets
	startRoom   = 1 << 30   // octets, until DNS is answered: a start is to be quick
	leastGrowth = 12        // percent: what a million domains can do with in 3.5 GiB while they change
	mostGrowth  = 400       // percent: a small node's changes are mostly garbage at once
	firstGrowth = 100       // percent: the runtime's own, until the first look
	// A start reads a gigabyte in two seconds: what is garbage by then would keep the
	// pages it shares with what lives.
	collectorTick = time.Second
)

// growth is the percentage that leaves room beyond what lives.
func growth(room, liveBytes uint64) int {
	return int(min(mostGrowth, max(leastGrowth, room*100/max(liveBytes, 1))))
}

// worth says whether another percentage is worth stopping the world for.
func worth(set, now int) bool { return 5*max(set-now, now-set) > set }

// tendCollector fits the collector to what lives, until ctx is done.
func tendCollector(ctx context.Context, starting func() bool) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(collectorTick)
	defer tick.Stop()
	for set := firstGrowth; ; {
		room := uint64(heapRoom)
		if starting() {
			room = startRoom
		}
		metrics.Read(sample)
		if sample[0].Value.Kind() == metrics.KindUint64 {
			if now := growth(room, sample[0].Value.Uint64()); worth(set, now) {
				debug.SetGCPercent(now)
				set = now
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
