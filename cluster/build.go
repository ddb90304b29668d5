package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// start is what the dark start made of this node's own disk.
type start struct {
	machine state.Machine
	// members is the configuration that the disk knows, empty on a new node.
	members raft.Configuration
	// fresh: there is no state at all.
	fresh bool
	// need is the index that the machine must reach before it may serve; 0 where
	// it is all that this node ever applied.
	need uint64
	// read is how long reading the snapshot took.
	read time.Duration
	// tailEntries and tailOctets are what lies in the log after the snapshot;
	// took is how long applying it took.
	tailEntries int
	tailOctets  int64
	took        time.Duration
	// open is the restore that is open in the log there; restored: one came to be in the
	// tail.
	open     *openRestore
	restored bool
}

// replaceNode is the remedy for a disk that cannot be read.
const replaceNode = "remove this node from the cluster, delete its data directory and add it again"

// builder makes the machine from the newest valid snapshot and the node's own
// log up to the mark, and leaves log and snapshots in a shape that Raft can
// start over: one snapshot listed, no hole after it.
type builder struct {
	store  *store
	snaps  *snapshots
	mark   *mark
	dir    string
	logger *slog.Logger

	snapshot uint64 // index of the snapshot that was used, 0: none
	first    uint64
	last     uint64
}

func (b *builder) build() (start, error) {
	var s start
	if err := b.void(); err != nil {
		return s, err
	}
	if err := b.bounds(); err != nil {
		return s, err
	}
	if err := b.discard(); err != nil {
		return s, err
	}
	at, began := b.mark.get(), time.Now()
	m, meta, found, err := b.snaps.newest(at.Index)
	if err != nil {
		return s, err
	}
	s.machine, s.read = state.Empty(), time.Since(began)
	if found {
		s.machine, s.members, b.snapshot = m, meta.Configuration, meta.Index
	}
	hasState, err := raft.HasExistingState(b.store, b.store, b.snaps)
	if err != nil {
		return s, fmt.Errorf("reading log store: %w; %s", err, replaceNode)
	}
	s.fresh = !hasState && at.Index == 0
	if b.last == 0 && !hasState && at.Index > 0 {
		return s, fmt.Errorf("the log is gone, but this node had applied %d: a voter that lost its log must not vote; %s", at.Index, replaceNode)
	}
	if err := b.checkCovered(); err != nil {
		return s, err
	}
	whole, err := b.replay(&s, at.Index)
	if err != nil {
		return s, err
	}
	if !whole || max(b.snapshot, b.last) < at.Index {
		if err := b.forfeit(whole); err != nil {
			return s, err
		}
	}
	s.need = b.missing(s, found, at.Index)
	if found {
		b.store.continues(meta.Index, meta.Term)
	}
	return s, nil
}

// checkCovered gives up a log that the snapshot covers whole and that ends in a
// damaged entry: Raft asks for the last one when it starts, and could not.
func (b *builder) checkCovered() error {
	if b.last == 0 || b.last > b.snapshot {
		return nil
	}
	if err := b.store.GetLog(b.last, new(raft.Log)); !errors.Is(err, errDamaged) {
		return nil // any other error comes again, and is told there
	}
	b.logger.Error("the log ends in a damaged entry that the snapshot covers: giving it up", "from", b.first, "to", b.last)
	if err := b.store.DeleteRange(b.first, b.last); err != nil {
		return err
	}
	return b.bounds()
}

// bounds reads which entries the log holds.
func (b *builder) bounds() error {
	var err error
	if b.first, err = b.store.FirstIndex(); err == nil {
		b.last, err = b.store.LastIndex()
	}
	if err != nil {
		return fmt.Errorf("%w; %s", err, replaceNode)
	}
	return nil
}

// void clears a log that a snapshot superseded at run time where the process died before
// Raft did so: a log that Raft wrote afterwards begins after the snapshot's index.
func (b *builder) void() error {
	base := b.mark.get().Base
	if err := b.bounds(); err != nil {
		return err
	}
	if b.first == 0 || b.first > base {
		return nil
	}
	b.logger.Info("clearing the log that a snapshot superseded", "from", b.first, "to", b.last, "snapshot", base)
	return b.store.DeleteRange(b.first, b.last)
}

// replayed is an entry on its way to the machine.
type replayed struct {
	raft.Log
	content
	err error // of reading it; the last one
}

// replayBatch is how many entries change hands at a time, and replayOctets how long
// they are about at most.
const (
	replayBatch  = 64
	replayOctets = 1 << 20
)

// replay applies the log up to the mark and reads the rest for the members it
// names. It stops at the first hole and says whether there was none. One core
// reads and decodes what the other applies; all entries make one machine, and
// nothing is published on the way.
func (b *builder) replay(s *start, until uint64) (whole bool, err error) {
	began := time.Now()
	batches, done := make(chan []replayed, 4), make(chan struct{})
	var a applier
	a.begin(s.machine)
	defer func() {
		if err != nil {
			a.giveUp()
		}
		s.machine, s.open, s.restored = a.end(), a.open, a.replaced
		close(done)
		for range batches { // until the reader has left the store
		}
		s.took = time.Since(began)
	}()
	go func() {
		defer close(batches)
		b.readLog(batches, done, until)
	}()
	for batch := range batches {
		for i := range batch {
			e := &batch[i]
			if errors.Is(e.err, raft.ErrLogNotFound) {
				b.logger.Error("the log has a hole; entries after it are not used", "missing", e.Index, "last", b.last)
				return false, nil
			}
			if errors.Is(e.err, errDamaged) {
				b.logger.Error("the log is damaged; entries from there on are not used", "error", e.err, "last", b.last)
				return false, nil
			}
			if e.err != nil {
				return false, e.err
			}
			s.tailEntries++
			s.tailOctets += int64(len(e.Data))
			if e.Type == raft.LogConfiguration {
				s.members = raft.DecodeConfiguration(e.Data)
			}
			if e.Index <= until && (e.Type == raft.LogCommand || e.Type == raft.LogConfiguration) {
				if _, err := a.take(&e.Log, e.content); err != nil {
					return false, fmt.Errorf("%w; %s", err, replaceNode)
				}
			}
		}
	}
	return true, nil
}

// readLog reads the entries after the snapshot and decodes those up to the mark,
// until the first that it cannot read.
func (b *builder) readLog(batches chan<- []replayed, done <-chan struct{}, until uint64) {
	batch, octets := make([]replayed, 0, replayBatch), 0
	for index := b.snapshot + 1; index <= b.last; index++ {
		var e replayed
		e.Index = index
		if err := b.store.GetLog(index, &e.Log); errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, errDamaged) {
			e.err = err
		} else if err != nil {
			e.err = fmt.Errorf("entry %d: %w; %s", index, err, replaceNode)
		} else if index <= until {
			e.content, e.err = decode(&e.Log)
		}
		batch, octets = append(batch, e), octets+len(e.Data)
		if len(batch) < replayBatch && octets < replayOctets && index < b.last && e.err == nil {
			continue
		}
		select {
		case batches <- batch:
		case <-done:
			return
		}
		if e.err != nil {
			return
		}
		batch, octets = make([]replayed, 0, replayBatch), 0
	}
}

// forfeit is for a node that lost entries it may have acknowledged: it neither
// votes nor stands before its machine is past all it may have known. A log with a
// hole is given up, because Raft cannot start over one.
func (b *builder) forfeit(whole bool) error {
	owed := max(b.mark.get().Owed, b.mark.get().Index, b.last)
	b.logger.Error("log entries are lost; the node takes no part in elections until it has caught up", "until", owed)
	if err := b.mark.set(func(v *markValue) { v.Owed = owed }); err != nil {
		return err
	}
	if whole || b.last == 0 {
		return nil
	}
	b.logger.Error("giving up the log", "from", b.first, "to", b.last)
	return b.store.DeleteRange(b.first, b.last)
}

// missing is the index the machine must reach before it serves.
func (b *builder) missing(s start, found bool, marked uint64) uint64 {
	if marked == 0 && (found || b.last > 0) {
		// The mark is lost: anything in the log may have been served.
		marked = max(b.last, b.snapshot)
	}
	if marked > s.machine.Index() {
		return marked
	}
	return 0
}
