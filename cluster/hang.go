package cluster

import (
	"sync"
	"sync/atomic"
	"time"
)

// hang notes how long an operation has been waiting for the disk: one at a time is
// under way.
type hang struct {
	mu    sync.Mutex
	since time.Time // zero: none
}

func (h *hang) begin() { h.set(time.Now()) }
func (h *hang) end()   { h.set(time.Time{}) }

func (h *hang) set(since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = since
}

// longer says whether one has been under way longer than limit.
func (h *hang) longer(limit time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.since.IsZero() && time.Since(h.since) > limit
}

// diskFault, in tests, comes before an operation on the disk, and fails it or holds it up.
type diskFault struct{ atomic.Pointer[func() error] }

func (f *diskFault) meet() error {
	if do := f.Load(); do != nil {
		return (*do)()
	}
	return nil
}
