package cluster

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// flushRange waits until the disk has a part of a file. Unlike fsync it commits
// nothing to the file system's journal, behind which the log's own would wait.
func flushRange(f *os.File, from, octets int64) error {
	err := unix.SyncFileRange(int(f.Fd()), from, octets,
		unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return f.Sync() // a file system that cannot
	}
	return err
}
