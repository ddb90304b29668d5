package keys

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lowestPriority is nice 19: whatever else wants the processor has it first.
const lowestPriority = 19

// lowerPriority makes every thread of this process yield. Linux keeps the nice
// value by thread, and a new thread has that of the one that made it; so the
// threads are gone through until none is new.
func lowerPriority() error {
	done := map[string]bool{}
	for {
		threads, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return err
		}
		again := false
		for _, thread := range threads {
			if done[thread] {
				continue
			}
			done[thread], again = true, true
			id, err := strconv.Atoi(filepath.Base(thread))
			if err != nil {
				return err
			}
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, lowestPriority); err != nil && !errors.Is(err, unix.ESRCH) {
				return err
			}
		}
		if !again {
			return nil
		}
	}
}

// worked is the processor time of this process so far.
func worked() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// narrowPipe makes a pipe hold a page, so that hardly any pairs wait in it beyond
// the stock. What is no pipe is left alone.
func narrowPipe(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// detach keeps a terminal's Ctrl-C from the child, which its parent ends.
func detach(child *exec.Cmd) { child.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
