package cluster

import (
	"errors"
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// maxTail and maxReplay are how much log may lie after the last snapshot: what
	// a start has to read, and how long that may take.
	maxTail   = 256 << 20
	maxReplay = 3 * time.Second
	// snapshotRest is how long no snapshot is made after one, in durations of that one.
	snapshotRest = 10
	// keepEvery is how often this is looked at.
	keepEvery = time.Second

	// minTrailing and maxTrailing bound how many entries are kept behind a
	// snapshot for followers that lag, trailingOctets how much.
	minTrailing    = 1024
	maxTrailing    = 200_000
	trailingOctets = 512 << 20
)

// tail is what lies in the log after the last snapshot. Safe for concurrent use.
type tail struct {
	mu      sync.Mutex
	entries int64
	octets  int64
	// perEntry is how long applying one took when it was measured last.
	perEntry time.Duration
	rest     time.Time // no snapshot before
}

func (t *tail) init(s start) {
	t.entries, t.octets = int64(s.tailEntries), s.tailOctets
	if s.tailEntries > 0 {
		t.perEntry = s.took / time.Duration(s.tailEntries)
	}
}

func (t *tail) add(entries int, octets int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries += int64(entries)
	t.octets += octets
}

// due says whether a snapshot is to be made.
func (t *tail) due(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == 0 || now.Before(t.rest) {
		return false
	}
	return t.octets > maxTail || time.Duration(t.entries)*t.perEntry > maxReplay
}

// trailing is how many entries to keep behind the next snapshot.
func (t *tail) trailing(least uint64) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == 0 || t.octets == 0 {
		return least
	}
	return min(max(uint64(trailingOctets/(t.octets/t.entries+1)), least), maxTrailing)
}

// made counts a snapshot that began at entries and octets, and took that long.
func (t *tail) made(entries, octets int64, took time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries, t.octets = t.entries-entries, t.octets-octets
	t.rest = now.Add(snapshotRest * took)
}

// measure takes over what applying cost, where enough was applied to tell.
func (t *tail) measure(entries int64, spent time.Duration) {
	const enough = 1000
	if entries < enough {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.perEntry = spent / time.Duration(entries)
}

// keepSnapshots makes snapshots when the tail of the log has grown too long to
// be replayed quickly, whatever the number of its entries.
func (n *Node) keepSnapshots() {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.fence.tripped:
			return
		case <-n.ctx.Done():
			return
		}
		n.tail.measure(n.fsm.count.Load(), time.Duration(n.fsm.spent.Load()))
		if n.tail.due(time.Now()) && n.disk.roomFor(n.snaps.lastSize()) == "" {
			n.snapshot()
		}
	}
}

// snapshot makes one snapshot and lets Raft drop the log behind it.
func (n *Node) snapshot() error {
	n.tail.mu.Lock()
	entries, octets := n.tail.entries, n.tail.octets
	n.tail.mu.Unlock()
	began := time.Now()
	err := n.raft().ReloadConfig(raft.ReloadableConfig{
		TrailingLogs:      n.tail.trailing(n.tuning.trailing),
		SnapshotInterval:  24 * time.Hour,
		SnapshotThreshold: math.MaxUint64,
		HeartbeatTimeout:  n.tuning.heartbeat,
		ElectionTimeout:   n.tuning.election,
	})
	if err == nil {
		done := make(chan error, 1)
		go func() { done <- n.raft().Snapshot().Error() }() // blocks for ever on a fenced node
		select {
		case err = <-done:
		case <-n.fence.tripped:
			return errFenced
		}
	}
	took := time.Since(began)
	switch {
	case errors.Is(err, raft.ErrNothingNewToSnapshot):
		entries, octets, err = 0, 0, nil
	case err != nil:
		n.logger.Warn("making snapshot", "error", err)
		entries, octets, took = 0, 0, max(took, keepEvery)
	default:
		n.logger.Info("snapshot made", "index", n.fsm.current().Index(), "took", took)
	}
	n.tail.made(entries, octets, took, time.Now())
	return err
}
