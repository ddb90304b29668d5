package cluster

import (
	"fmt"
	"os"
	"time"
)

const (
	// paceStep is how much of a snapshot is written before the disk is waited for:
	// the log's next fsync waits behind no more than that.
	paceStep = 4 << 20
	// paceRest is how long the writer rests after a step, in durations of the step:
	// it takes half of a core and half of the disk at most.
	paceRest = 1
	// mostRest bounds a rest, so that a slow disk does not make it slower still.
	mostRest = 250 * time.Millisecond
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

// wrote counts octets; rests says whether to rest as well.
func (p *pace) wrote(n int, rests bool) error {
	p.octets += int64(n)
	if p.octets-p.synced < paceStep || p.file == nil {
		return nil
	}
	if err := flushRange(p.file, p.synced, p.octets-p.synced); err != nil {
		return fmt.Errorf("writing snapshot to the disk: %w", err)
	}
	p.synced = p.octets
	if rests {
		time.Sleep(min(paceRest*time.Since(p.began), mostRest))
	}
	p.began = time.Now()
	return nil
}

func (p *pace) close() {
	if p.file != nil {
		p.file.Close()
		p.file = nil
	}
}
