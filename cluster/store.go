package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	raftFile = "raft.db"
	// lockPatience is how long a start waits for another process that holds raft.db.
	lockPatience = 2 * time.Second
	// mapSize is address space, not memory: growing the map would stall commits.
	mapSize = 1 << 30
	// maxStoreSize makes bbolt fail, and the node fence itself, before the disk is full
	// of log that compaction did not keep up with.
	// It has room for the image of an operator's restore beside that.
	maxStoreSize = 16 << 30
	// cachedEntries is how many recent entries are kept decoded for followers.
	cachedEntries = 512
)

// store is Raft's log and stable store: bbolt behind the fence. Once Raft runs,
// none of its methods returns an error of the disk, because the library would
// panic: the node is fenced and the goroutine parked.
type store struct {
	bolt   *raftboltdb.BoltStore
	path   string
	fence  *fence
	logger *slog.Logger
	// appended is called after entries were stored.
	appended func(entries int, octets int64)

	under hang // the append under way

	// mu guards what follows.
	mu        sync.Mutex
	damaged   uint64 // how often a damaged entry was met that the snapshot covers
	damagedAt uint64 // the highest of them that is still in the log; 0: none

	base atomic.Pointer[logBase]

	// running: Raft uses the store. Before, errors are returned as they are.
	running atomic.Bool

	fault diskFault // before every operation
}

// openStore opens raft.db. Another process that holds it is named as the reason.
func openStore(dir string, noSync bool, f *fence) (*store, error) {
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:   filepath.Join(dir, raftFile),
		NoSync: noSync,
		BoltOptions: &bbolt.Options{
			Timeout:         lockPatience,
			NoFreelistSync:  true, // otherwise every commit writes the whole list
			FreelistType:    bbolt.FreelistMapType,
			InitialMmapSize: mapSize,
			MaxSize:         maxStoreSize,
		},
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("opening %s: another process uses it; stop that one first, or give this node a data directory of its own", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w; remove this node from the cluster, delete its data directory and add it again", filepath.Join(dir, raftFile), err)
	}
	return &store{bolt: bolt, path: filepath.Join(dir, raftFile), fence: f, logger: f.logger, appended: func(int, int64) {}}, nil
}

// stalled says whether an append has been waiting for the disk longer than limit.
func (s *store) stalled(limit time.Duration) bool { return s.under.longer(limit) }

// guard runs one operation of bbolt; an error fences the node.
func (s *store) guard(what string, do func() error) error {
	err := s.try(do)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	if !s.running.Load() {
		return fmt.Errorf("%s in %s: %w", what, raftFile, err)
	}
	s.fence.stop("%s in %s: %w", what, raftFile, err)
	return err
}

// try runs one operation of bbolt. Faults of its memory map and its panics come
// back as errors.
func (s *store) try(do func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	if err := s.fault.meet(); err != nil {
		return err
	}
	return do()
}

// IsMonotonic makes Raft clear the log when a leader's snapshot replaces the state, so
// that no entry of before can be replayed over it (index contract, d).
func (s *store) IsMonotonic() bool { return true }

func (s *store) FirstIndex() (index uint64, err error) {
	err = s.guard("reading first index", func() error { index, err = s.bolt.FirstIndex(); return err })
	return index, err
}

func (s *store) LastIndex() (index uint64, err error) {
	err = s.guard("reading last index", func() error { index, err = s.bolt.LastIndex(); return err })
	return index, err
}

func (s *store) GetLog(index uint64, l *raft.Log) error {
	spare := false
	err := s.guard("reading log", func() error {
		if err := s.bolt.GetLog(index, l); err != nil {
			return err
		}
		err := checkEntry(index, l)
		if spare = err != nil && s.spare(index); spare {
			s.damage(index, err)
			return raft.ErrLogNotFound
		}
		return err
	})
	if spare {
		return err // nothing stands for it: it would be sent on in its place
	}
	if base := s.base.Load(); base != nil && errors.Is(err, raft.ErrLogNotFound) && base.stand(index, l) {
		return nil
	}
	return err
}

// spare says whether an entry is of use to others only, who can be sent the snapshot
// in its place: the library does that where an entry is not found. Whether the state
// is whole does not depend on it, so a damaged one is no reason to be fenced off.
func (s *store) spare(index uint64) bool {
	base := s.base.Load()
	return s.running.Load() && base != nil && index <= base.index
}

// damage remembers a damaged entry that others were not sent.
func (s *store) damage(index uint64, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged++
	if index > s.damagedAt {
		s.damagedAt = index
		s.logger.Error("an entry of the log that the snapshot covers is damaged: who needs it is sent the snapshot", "error", cause)
	}
}

// damages are how often damaged entries were met, and the last such place until the
// log begins behind it.
func (s *store) damages() (count, at uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged, s.damagedAt
}

// logBase is the snapshot that the log continues. The library compares the entry
// before those that a leader sends with the log alone: a follower that has that
// entry in its snapshot only refuses, and is sent the snapshot again, for ever.
// The same befalls one whose log, cleared by an install, had ended beyond the
// snapshot, because the library goes on believing in that end (hashicorp/raft
// issue 697). So the store answers for both.
//
// Such an answer is for this node alone, and is never sent as an entry: a leader sends an
// entry only where it finds the one before it, and there is none before these.
type logBase struct {
	index, term uint64
	stale       uint64 // where a superseded tail ended, until entries are appended; 0: none
}

// stand answers for an entry that is not in the log: the snapshot's own, or one
// of the superseded tail, whose term is nobody's and which the library deletes.
func (b *logBase) stand(index uint64, l *raft.Log) bool {
	switch {
	case index == b.index && index > 1:
		*l = raft.Log{Index: index, Term: b.term, Type: raft.LogNoop}
		return true
	case index > b.index && index <= b.stale:
		*l = raft.Log{Index: index, Type: raft.LogNoop}
		return true
	}
	return false
}

// used is how much of raft.db is in use. It never gets smaller; what is free in it is
// used again.
func (s *store) used() (octets int64, err error) {
	info, err := os.Stat(s.path)
	if err != nil {
		return 0, fmt.Errorf("reading the size of %s: %w", raftFile, err)
	}
	stats := s.bolt.Stats()
	return info.Size() - int64(stats.FreePageN+stats.PendingPageN)*int64(os.Getpagesize()), nil
}

func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *store) StoreLogs(logs []*raft.Log) error {
	s.under.begin()
	err := s.guard("appending to log", func() error { return s.bolt.StoreLogs(summed(logs)) })
	s.under.end()
	if base := s.base.Load(); base != nil && base.stale > 0 {
		s.base.Store(&logBase{index: base.index, term: base.term})
	}
	var octets int64
	for _, l := range logs {
		octets += int64(len(l.Data))
	}
	s.appended(len(logs), octets)
	return err
}

// deleteStep bounds how many entries one transaction deletes, so that clearing a
// long log does not hold up a commit.
const deleteStep = 256

// DeleteRange implements raft.LogStore, in steps. The end of the log is deleted
// from its end and the beginning from its beginning, so that a crash between two
// steps leaves no hole.
func (s *store) DeleteRange(low, high uint64) error {
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	low = max(low, 1) // where there is no log at all the library begins with 0
	fromEnd := high >= last
	if fromEnd {
		high = last
	}
	for low <= high {
		began := time.Now()
		from, to := low, min(high, low+deleteStep-1)
		if fromEnd {
			from, to = max(low, high-min(high, deleteStep)+1), high
		}
		if err := s.guard("truncating log", func() error { return s.bolt.DeleteRange(from, to) }); err != nil {
			return err
		}
		s.repaired(from, to)
		if fromEnd {
			high = from - 1
		} else {
			low = to + 1
			// Nobody waits for the log's beginning to be gone, and commits for its end.
			time.Sleep(min(paceRest*time.Since(began), mostRest))
		}
	}
	return nil
}

// repaired forgets a damaged entry that was deleted.
func (s *store) repaired(from, to uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from <= s.damagedAt && s.damagedAt <= to {
		s.damagedAt = 0
	}
}

// continues notes which snapshot the log continues.
func (s *store) continues(index, term uint64) {
	base := &logBase{index: index, term: term}
	if before := s.base.Load(); before != nil {
		if before.index > index {
			return // another was taken over while this one was written
		}
		base.stale = before.stale
	}
	s.base.Store(base)
}

// superseded notes that a snapshot took the place of the log up to its index, in a term.
func (s *store) superseded(index, term uint64) error {
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	base := &logBase{index: index, term: term}
	if last > index {
		base.stale = last
	}
	s.base.Store(base)
	return nil
}

// stale says whether the library takes this node's log to end in a tail that a
// snapshot has superseded.
func (s *store) stale() bool {
	_, stale := s.ends()
	return stale
}

// ends is where the log of a node with such a tail really ends; of another node it says
// nothing.
func (s *store) ends() (index uint64, stale bool) {
	base := s.base.Load()
	if base == nil || base.stale == 0 {
		return 0, false
	}
	return base.index, true
}

func (s *store) Close() error {
	if err := s.bolt.Close(); err != nil {
		return fmt.Errorf("closing %s: %w", raftFile, err)
	}
	return nil
}

// ownerKey holds the ID of the node that the data directory belongs to.
const ownerKey = "authd-node"

// checkOwner refuses the data directory of another node: two nodes that answer
// to one identity would vote twice.
func (s *store) checkOwner(dir, id string) error {
	owner, err := s.bolt.Get([]byte(ownerKey))
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound):
		return s.bolt.Set([]byte(ownerKey), []byte(id))
	case err != nil:
		return fmt.Errorf("reading owner of %s: %w", dir, err)
	case !bytes.Equal(owner, []byte(id)):
		return fmt.Errorf("data directory %s belongs to node %q, this is node %q: check id and data_dir", dir, owner, id)
	}
	return nil
}
