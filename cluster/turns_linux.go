package cluster

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// applyTurn is how long the kernel lets the thread that applies run at a time.
const applyTurn = 20 * time.Millisecond

// takeLongTurns keeps the calling goroutine on its thread, and asks the kernel for
// longer and rarer turns for that than other threads have (sched(7), sched_runtime;
// Linux 6.12). Its share of the processors stays the same, but a thread with shorter
// turns that wakes up, such as one that answers a query, need not wait for the end
// of this one's. An older kernel ignores it; a refusal changes nothing.
func takeLongTurns() error {
	runtime.LockOSThread()
	return unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_NORMAL, Runtime: uint64(applyTurn)}, 0)
}
