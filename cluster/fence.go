package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
)

// errFenced is what callers get that wait for Raft on a fenced node.
var errFenced = errors.New("this node is fenced off")

// fence is what a node does instead of dying when its disk or its state fails:
// Raft panics on a store's error, and DNS must go on. The first cause closes the
// node link's Raft part, so that the others elect another leader; goroutines
// that meet the fence inside the library are parked; every call into the library
// gives up. A fenced process never revives: its supervisor starts a successor.
type fence struct {
	logger *slog.Logger
	// tripped is closed by the first cause, released when the node is closed.
	tripped, released chan struct{}

	// mu guards cause and onTrip.
	mu     sync.Mutex
	cause  error
	onTrip func()

	release sync.Once
}

func newFence(logger *slog.Logger) *fence {
	return &fence{logger: logger, tripped: make(chan struct{}), released: make(chan struct{})}
}

// trip fences the node; only the first cause counts.
func (f *fence) trip(cause error) {
	f.mu.Lock()
	if f.cause != nil {
		f.mu.Unlock()
		return
	}
	f.cause = cause
	close(f.tripped)
	onTrip := f.onTrip
	f.mu.Unlock()
	f.logger.Error("node is fenced off: DNS goes on, writes and replication stop; start a successor",
		"cause", cause)
	if onTrip != nil {
		// Elsewhere, because the goroutine that trips may hold the library's locks.
		go onTrip()
	}
}

// whenTripped sets what closes the transport.
func (f *fence) whenTripped(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onTrip = do
	if f.cause != nil {
		go do()
	}
}

// err is the cause, nil where the node is not fenced.
func (f *fence) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// park never returns: neither an error nor a success would be true. It ends the
// goroutine when the node is closed.
func (f *fence) park() {
	<-f.released
	runtime.Goexit()
}

// free lets parked goroutines end.
func (f *fence) free() { f.release.Do(func() { close(f.released) }) }

// stop is trip and park.
func (f *fence) stop(format string, args ...any) {
	f.trip(fmt.Errorf(format, args...))
	f.park()
}
