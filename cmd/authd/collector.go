package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// How far the heap may grow past what lives before it is collected. Nearly all
// that a node holds is state without pointers, which costs a collection little
// and memory much: room of a fixed size serves ten domains and a million.
const (
	heapRoom      = 128 << 20 // octets
	leastGrowth   = 10        // percent: collections never follow each other too closely
	mostGrowth    = 400       // percent: a small node's changes are mostly garbage at once
	firstGrowth   = 100       // percent: the runtime's own, until the first look
	collectorTick = 10 * time.Second
	// growthStep is the least change worth stopping the world for.
	growthStep = 5 // percent
)

// growth is the percentage that leaves heapRoom beyond what lives.
func growth(liveBytes uint64) int {
	return int(min(mostGrowth, max(leastGrowth, heapRoom*100/max(liveBytes, 1))))
}

// tendCollector fits the collector to what lives, until ctx is done.
func tendCollector(ctx context.Context) {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	tick := time.NewTicker(collectorTick)
	defer tick.Stop()
	for set := firstGrowth; ; {
		metrics.Read(sample)
		if sample[0].Value.Kind() == metrics.KindUint64 {
			if now := growth(sample[0].Value.Uint64()); now <= set-growthStep || now >= set+growthStep {
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
