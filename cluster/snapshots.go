package cluster

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

const (
	// As the library's file store names them.
	snapshotDir = "snapshots"
	stateFile   = "state.bin"
	unfinished  = ".tmp" // behind the name of a snapshot in the making

	brokenDir = "broken" // where an unusable snapshot is kept for a look, one at a time
	// keptSnapshots is how many are kept: the newest and the one before.
	keptSnapshots = 2
)

// snapshots is Raft's snapshot store. It lists only images that this node's
// machine was built from, was replaced by, or wrote itself (index contract, a):
// the library takes the newest listed one for applied without opening it, and an
// image that cannot be read must never stand for the range it claims.
type snapshots struct {
	files  *raft.FileSnapshotStore
	dir    string
	logger *slog.Logger

	// room says why a file of a size should not be written now; empty: there is room.
	room func(size int64) string

	// rests is how long to rest between the steps of writing one, in durations of a step.
	rests func() int

	// written is told of snapshots that this node wrote itself.
	written func(index, term uint64)

	// arrived counts the octets of snapshots that came from elsewhere.
	arrived atomic.Int64

	// mu guards usable.
	mu     sync.Mutex
	usable map[string]bool
}

func openSnapshots(dir string, logger *slog.Logger, raftLogger hclog.Logger) (*snapshots, error) {
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots+1, raftLogger) // see reap
	if err != nil {
		return nil, fmt.Errorf("opening snapshots in %s: %w", dir, err)
	}
	s := &snapshots{files: files, dir: dir, logger: logger, usable: make(map[string]bool), written: func(uint64, uint64) {}, rests: func() int { return paceRest }, room: func(int64) string { return "" }}
	return s, s.sweep()
}

// sweep removes what writes left that never ended.
func (s *snapshots) sweep() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, snapshotDir))
	if err != nil {
		return fmt.Errorf("listing snapshots: %w", err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), unfinished) {
			if err := os.RemoveAll(filepath.Join(s.dir, snapshotDir, e.Name())); err != nil {
				return fmt.Errorf("removing unfinished snapshot: %w", err)
			}
		}
	}
	return nil
}

// newest finds the newest snapshot that can be read and that this node adopted:
// its index is at most adopted (0: any). It sets others aside, and lists the one
// it returns from then on. ok is false where there is none.
func (s *snapshots) newest(adopted uint64) (m state.Machine, meta *raft.SnapshotMeta, ok bool, err error) {
	// A snapshot set aside makes room for an older one in the store's list.
	for {
		metas, err := s.files.List()
		if err != nil {
			return m, nil, false, fmt.Errorf("listing snapshots: %w", err)
		}
		aside := false
		for _, meta := range metas {
			m, err := s.load(meta, adopted)
			if err == nil {
				s.adopt(meta.ID)
				return m, meta, true, nil
			}
			s.logger.Error("snapshot cannot be used", "id", meta.ID, "index", meta.Index, "error", err)
			if err := s.setAside(meta.ID); err != nil {
				return m, nil, false, err
			}
			aside = true
		}
		if !aside {
			return m, nil, false, nil
		}
	}
}

var errNotAdopted = errors.New("it was received or restored, but the node stopped before it took it over")

func (s *snapshots) load(meta *raft.SnapshotMeta, adopted uint64) (state.Machine, error) {
	if adopted != 0 && meta.Index > adopted {
		return state.Machine{}, errNotAdopted
	}
	r, err := s.image(meta)
	if err != nil {
		return state.Machine{}, err
	}
	defer r.Close()
	return loadImage(r, meta.Index, state.Machine{})
}

// loadImage reads an image and gives it the index that Raft gave the snapshot.
// The image's own is that of the cluster and the moment it was written in.
func loadImage(r io.Reader, index uint64, near state.Machine) (state.Machine, error) {
	m, err := state.LoadImage(r, near)
	if err != nil {
		return m, err
	}
	return m.WithIndex(index), nil
}

// adopt lists a snapshot from now on.
func (s *snapshots) adopt(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.usable[id] = true
}

// setAside moves a snapshot out of the store. Only the last one is kept.
func (s *snapshots) setAside(id string) error {
	aside := filepath.Join(s.dir, brokenDir)
	if err := os.RemoveAll(aside); err != nil {
		return fmt.Errorf("setting snapshot %s aside: %w", id, err)
	}
	if err := os.Rename(filepath.Join(s.dir, snapshotDir, id), aside); err != nil {
		return fmt.Errorf("setting snapshot %s aside: %w", id, err)
	}
	return nil
}

// hasBroken says whether a snapshot was set aside, now or at an earlier start.
func (s *snapshots) hasBroken() bool {
	_, err := os.Stat(filepath.Join(s.dir, brokenDir))
	return !errors.Is(err, fs.ErrNotExist)
}

// setAllAside moves every snapshot out of the store.
func (s *snapshots) setAllAside() error {
	for {
		metas, err := s.files.List()
		if err != nil {
			return fmt.Errorf("listing snapshots: %w", err)
		}
		if len(metas) == 0 {
			return nil
		}
		for _, meta := range metas {
			if err := s.setAside(meta.ID); err != nil {
				return err
			}
		}
	}
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.files.List()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := metas[:0]
	for _, meta := range metas {
		if s.usable[meta.ID] {
			kept = append(kept, meta)
		}
	}
	return kept, nil
}

// lastSize is the size of the newest snapshot; 0: there is none.
func (s *snapshots) lastSize() int64 {
	metas, err := s.List()
	if err != nil || len(metas) == 0 {
		return 0
	}
	return metas[0].Size
}

// openSnapshot carries the metadata to fsm.Restore, which the library calls with
// a reader alone (index contract, b).
type openSnapshot struct {
	io.ReadCloser
	meta *raft.SnapshotMeta
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	metas, err := s.files.List()
	if err != nil {
		return nil, nil, err
	}
	for _, meta := range metas {
		if meta.ID == id {
			r, err := s.image(meta)
			if err != nil {
				return nil, nil, err
			}
			return meta, openSnapshot{ReadCloser: r, meta: meta}, nil
		}
	}
	return nil, nil, fmt.Errorf("opening snapshot %s: it is gone", id)
}

// image opens the image of a snapshot. The library would read the file twice, the
// first time for a checksum of its own: every frame of an image has one.
func (s *snapshots) image(meta *raft.SnapshotMeta) (*os.File, error) {
	f, err := os.Open(filepath.Join(s.dir, snapshotDir, meta.ID, stateFile))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != meta.Size {
		err = fmt.Errorf("%d octets, %d were written: cut short", info.Size(), meta.Size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// metaOf finds what Open put around a reader.
func metaOf(r io.ReadCloser) (*raft.SnapshotMeta, bool) {
	for {
		switch w := r.(type) {
		case openSnapshot:
			return w.meta, true
		case raft.ReadCloserWrapper:
			r = w.WrappedReadCloser()
		default:
			return nil, false
		}
	}
}

// snapshotSink knows the index that Raft gave it, and whether this node wrote it
// from its own machine.
type snapshotSink struct {
	raft.SnapshotSink
	store *snapshots
	index uint64
	term  uint64
	own   bool
	pace  *pace
}

// Write implements raft.SnapshotSink.
func (s *snapshotSink) Write(b []byte) (int, error) {
	n, err := s.SnapshotSink.Write(b)
	if !s.own {
		s.store.arrived.Add(int64(n))
	}
	rests := s.store.rests
	if !s.own {
		rests = noRest // the leader waits
	}
	if err == nil {
		err = s.pace.wrote(n, rests)
	}
	return n, err
}

// Cancel implements raft.SnapshotSink.
func (s *snapshotSink) Cancel() error {
	s.pace.close()
	return s.SnapshotSink.Cancel()
}

// Create implements raft.SnapshotStore.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, c raft.Configuration, configIndex uint64, t raft.Transport) (raft.SnapshotSink, error) {
	// One that comes from the leader is refused too: it would fill the disk, and the
	// log with it.
	if why := s.room(0); why != "" {
		return nil, fmt.Errorf("making room for snapshot: %s", why)
	}
	sink, err := s.files.Create(version, index, term, c, configIndex, t)
	if err != nil {
		return nil, err
	}
	p, err := newPace(filepath.Join(s.dir, snapshotDir, sink.ID()+unfinished, stateFile))
	if err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return &snapshotSink{SnapshotSink: sink, store: s, index: index, term: term, pace: p}, nil
}

// Close lists the snapshot if it is the node's own; one that came from elsewhere
// is listed once the machine was replaced by it.
func (s *snapshotSink) Close() error {
	s.pace.close()
	if !s.own {
		return s.SnapshotSink.Close()
	}
	s.store.adopt(s.ID()) // before Close, which may be interrupted after
	if err := s.SnapshotSink.Close(); err != nil {
		return err
	}
	s.store.written(s.index, s.term)
	return s.store.reap()
}

// reap removes the snapshots that are one too many, each a step at a time: the
// library would remove them at once, so it is told to keep one more. A
// follower that is being sent one of them is sent the newest then.
func (s *snapshots) reap() error {
	metas, err := s.files.List()
	if err != nil {
		return fmt.Errorf("listing snapshots: %w", err)
	}
	for _, meta := range metas[min(keptSnapshots, len(metas)):] {
		// So named it is nobody's, should this be interrupted; see sweep.
		path := filepath.Join(s.dir, snapshotDir, meta.ID+unfinished)
		if err := os.Rename(filepath.Join(s.dir, snapshotDir, meta.ID), path); err != nil {
			return fmt.Errorf("removing old snapshot: %w", err)
		}
		if err := errors.Join(dropFile(filepath.Join(path, stateFile)), os.RemoveAll(path)); err != nil {
			return fmt.Errorf("removing old snapshot: %w", err)
		}
	}
	return nil
}

func noRest() int { return 0 }
