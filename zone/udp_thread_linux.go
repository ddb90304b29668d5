//go:build !portable

package zone

import "golang.org/x/sys/unix"

// workerSlice is what a DNS worker takes at a time, in nanoseconds: the least the
// kernel grants. From Linux 6.12 on a thread that wakes up with a shorter slice than
// the one that runs goes before it; older kernels pass over it.
const workerSlice = 100_000

// hurry has the kernel's scheduler let the calling thread go soon when it wakes up. It
// takes no more of the processor for that than its share, and no right is needed. A
// thread for which somebody chose a policy is left alone.
func hurry() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return
	}
	attr.Runtime = workerSlice
	unix.SchedSetAttr(0, attr, 0)
}
