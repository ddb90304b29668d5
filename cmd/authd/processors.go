package main

import (
	"runtime"

	"authd/zone"
)

// spareProcessors are how many goroutines run at once beyond the machine's processors.
// Each counts for a quarter of a processor that a collection takes while it lasts.
const spareProcessors = 3

// spread makes more goroutines run at once than the machine has processors, so that it
// is the kernel who chooses between their threads: it lets a DNS worker that wakes up
// go before one that computes (zone), for which the runtime alone would let it wait up
// to 10 ms. The workers stay one a processor.
func (c *nodeConfig) spread() {
	processors := runtime.GOMAXPROCS(0)
	if c.DNS.Workers == 0 {
		c.DNS.Workers = min(processors, zone.MaxWorkers)
	}
	runtime.GOMAXPROCS(processors + spareProcessors)
}
