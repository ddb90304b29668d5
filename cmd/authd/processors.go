package main

import "runtime"

// spareProcessors are how many goroutines run at once beyond the machine's processors.
// Each counts for a quarter of a processor that a collection takes while it lasts.
const spareProcessors = 3

// spread makes more goroutines run at once than the machine has processors, so that it
// is the kernel who chooses between their threads: it lets a DNS worker that wakes up
// go before one that computes (zone), for which the runtime alone would let it wait up
// to 10 ms. It gives how many processors there are.
func spread() (processors int) {
	processors = runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(processors + spareProcessors)
	return processors
}
