//go:build !portable

package zone

import (
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// onOwnThread runs f on a thread that ends with it.
func onOwnThread(f func()) {
	var running sync.WaitGroup
	running.Go(func() {
		runtime.LockOSThread()
		f()
	})
	running.Wait()
}

func TestHurriedThreadHasAShortSliceAndNothingElseMore(t *testing.T) {
	onOwnThread(func() {
		before, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		hurry()
		after, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if after.Policy != before.Policy || after.Nice != before.Nice {
			t.Errorf("policy %d nice %d, want as before: %d and %d", after.Policy, after.Nice, before.Policy, before.Nice)
		}
		// A kernel before 6.12 tells no slice and takes none.
		if before.Runtime != 0 && after.Runtime != workerSlice {
			t.Errorf("a slice of %d ns, want %d", after.Runtime, workerSlice)
		}
	})
}

func TestPolicyThatSomebodyChoseStays(t *testing.T) {
	onOwnThread(func() {
		batch := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_BATCH}
		if err := unix.SchedSetAttr(0, batch, 0); err != nil {
			t.Fatal(err)
		}
		before, err := unix.SchedGetAttr(0, 0)
		if err != nil {
			t.Fatal(err)
		}
		hurry()
		if after, err := unix.SchedGetAttr(0, 0); err != nil || *after != *before {
			t.Errorf("%+v, %v; want %+v", after, err, before)
		}
	})
}
