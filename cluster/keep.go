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
	// snapshotRest is how long no snapshot is made after one, in durations of that
	// one: what snapshots may cost. Where replaying would take longer than
	// mostReplay a start would be late, and one duration has to do.
	snapshotRest = 10
	mostReplay   = 5 * time.Second
	// apart is how much shorter the tail is, in percent, with which the next member
	// begins: where all nodes wrote at once, no majority would be at leisure.
	apart = 30

	// minTrailing and maxTrailing bound how many entries are kept behind a
	// snapshot for followers that lag, trailingOctets how much.
	minTrailing    = 1024
	maxTrailing    = 200_000
	trailingOctets = 512 << 20
)

// tail is what lies in the log after the last snapshot. Safe for concurrent use.
type tail struct {
	mu sync.Mutex
	tailSize
	// No snapshot before rest, none at all before least.
	rest, least time.Time
}

// tailSize is how much of the log it is. What replaying costs is what applying
// the same entries cost: they differ by a thousand times between one change and
// a bulk import of a hundred domains.
type tailSize struct {
	entries, octets int64
	replay          time.Duration
}

func (t *tail) init(s start) {
	t.tailSize = tailSize{int64(s.tailEntries), s.tailOctets, s.took}
	if s.restored {
		t.restored()
	}
}

func (t *tail) add(entries int, octets int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries += int64(entries)
	t.octets += octets
}

// applied adds what applying cost.
func (t *tail) applied(took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.replay += took
}

// restored makes a snapshot due: to replay a restore is to read its image twice, and
// behind the snapshot its pieces can go.
func (t *tail) restored() { t.applied(maxReplay + 1) }

// size is what there is now.
func (t *tail) size() tailSize {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tailSize
}

// due says whether a snapshot is to be made by a node with so many members before it.
func (t *tail) due(now time.Time, before int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.entries == 0 || now.Before(t.least):
		return false
	case t.replay > mostReplay:
		return true
	}
	share := max(100-apart*int64(before), 100-2*apart)
	return !now.Before(t.rest) && (t.octets > maxTail*share/100 || t.replay > maxReplay*time.Duration(share)/100)
}

// rests is how long to rest between the steps of a snapshot, in durations of a step.
// Where the tail grows meanwhile, as in a bulk import, being done soon matters more.
func (t *tail) rests() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.replay > mostReplay || t.octets > 2*maxTail:
		return 0
	case t.replay > (maxReplay+mostReplay)/2 || t.octets > maxTail*3/2:
		return 1
	}
	return paceRest
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

// made counts a snapshot of the tail as it was when it began, which took so long.
func (t *tail) made(of tailSize, took time.Duration, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entries, t.octets, t.replay = t.entries-of.entries, t.octets-of.octets, t.replay-of.replay
	t.rest, t.least = now.Add(snapshotRest*took), now.Add(took)
}

// keepSnapshots makes snapshots when the tail of the log has grown too long to
// be replayed quickly, whatever the number of its entries.
func (n *Node) keepSnapshots() {
	tick := time.NewTicker(n.tuning.keep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.fence.tripped:
			return
		case <-n.ctx.Done():
			return
		}
		if n.tail.due(time.Now(), n.before()) && !n.fsm.open.Load() && n.disk.roomFor(n.snaps.lastSize()) == "" {
			n.snapshot()
		}
	}
}

// before is how many members come before this node in order of their ids.
func (n *Node) before() (count int) {
	for _, m := range n.members() {
		if m.ID < n.c.ID {
			count++
		}
	}
	return count
}

// snapshot makes one snapshot and lets Raft drop the log behind it.
func (n *Node) snapshot() error {
	size := n.tail.size()
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
		size, err = tailSize{}, nil
	case err != nil:
		n.logger.Warn("making snapshot", "error", err)
		size, took = tailSize{}, max(took, n.tuning.keep)
	default:
		n.logger.Info("snapshot made", "index", n.fsm.current().Index(), "took", took)
	}
	n.tail.made(size, took, time.Now())
	return err
}
