package cluster

import (
	"fmt"
	"os"
	"time"
)

const (
	// paceStep is how much of a snapshot is written before the disk is waited for:
	// the log's next fsync waits behind no more than that, and a commit that wants a
	// core waits a millisecond or two.
	paceStep = 1 << 20
	// paceRest is how long the writer rests after a step, in durations of the step,
	// where nothing presses: it takes a third of the disk, and less of a core.
	paceRest = 2
	// mostRest bounds a rest, so that a slow disk does not make it slower still.
	mostRest = 100 * time.Millisecond
	// dropStep is how much of an old snapshot is given back to the file system at a
	// time. It frees gigabytes in one commit of its journal otherwise.
	dropStep = 32 << 20
)

// pace holds the writing of a snapshot back, so that commits do not feel it: what
// was written goes to the disk piece by piece, not in one fsync of gigabytes at
// the end, and between two pieces the disk and the core are others'.
type pace struct {
	file   *os.File // the same file as the sink's
	octets int64    // written
	synced int64    // of those, what the disk has
	began  time.Time
}

func newPace(path string) (*pace, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("opening snapshot to pace it: %w", err)
	}
	return &pace{file: f, began: time.Now()}, nil
}

// wrote counts octets; the writer rests so many durations of a step after each.
func (p *pace) wrote(n int, rests func() int) error {
	p.octets += int64(n)
	if p.octets-p.synced < paceStep || p.file == nil {
		return nil
	}
	if err := flushRange(p.file, p.synced, p.octets-p.synced); err != nil {
		return fmt.Errorf("writing snapshot to the disk: %w", err)
	}
	p.synced = p.octets
	time.Sleep(min(time.Duration(rests())*time.Since(p.began), mostRest))
	p.began = time.Now()
	return nil
}

func (p *pace) close() {
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
}

// dropFile removes a file a step at a time.
func dropFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	for size := info.Size() - dropStep; size > 0; size -= dropStep {
		began := time.Now()
		if err := os.Truncate(path, size); err != nil {
			return err
		}
		time.Sleep(min(max(paceRest*time.Since(began), time.Millisecond), mostRest))
	}
	return os.Remove(path)
}
