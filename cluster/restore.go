package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// SaveSnapshot writes a consistent image of the cluster's state, as this node
// has applied it.
func (n *Node) SaveSnapshot(ctx context.Context, w io.Writer) (index uint64, err error) {
	m := n.Machine()
	if err := m.WriteImage(contextWriter{ctx, w}); err != nil {
		return 0, fmt.Errorf("saving snapshot: %w", err)
	}
	return m.Index(), nil
}

// contextWriter ends a long write when nobody wants it any more.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

// RestoreSnapshot replaces the cluster's state by an image. Serials never go
// back. An image whose private halves this node cannot open is refused, but where
// withoutKeys says that DNS is to be had without them. It must be asked of the leader; the error of another node names it.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader, withoutKeys bool) error {
	if !n.leads() {
		return kindError{ErrNoLeader, fmt.Errorf("restoring snapshot: ask the leader, which is %q", n.Leader())}
	}
	// Read whole before anything is touched: the library cannot go back.
	m, err := state.ReadImage(r)
	if err != nil {
		return kindError{ErrNotCommitted, fmt.Errorf("restoring snapshot: %w", err)}
	}
	if why := opens(m, n.c.Keeper); why != "" && !withoutKeys {
		return kindError{ErrNotCommitted, fmt.Errorf("restoring snapshot: %s", why)}
	}
	if err := n.batcher.hold(ctx); err != nil {
		return kindError{ErrNotCommitted, fmt.Errorf("restoring snapshot: other writes are under way: %w", err)}
	}
	source, err := n.successor(ctx, m)
	if err != nil {
		n.batcher.release()
		return kindError{ErrNotCommitted, fmt.Errorf("restoring snapshot: %w", err)}
	}
	done := make(chan error, 1)
	n.fsm.forced.Store(true)
	go func() {
		defer n.batcher.release()
		defer source.drop()
		defer n.fsm.forced.Store(false)
		// Raft takes an index above both its own and the image's. No timeout: by the
		// library's a restore that took longer is as often as not said to have failed.
		meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: m.Index(), Size: source.size}
		done <- n.raft().Restore(meta, source, 0)
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return kindError{ErrUnknown, fmt.Errorf("restoring snapshot: %w", ctx.Err())}
	case <-n.fence.tripped:
		return kindError{ErrUnknown, errFenced}
	}
	if err != nil {
		return fmt.Errorf("restoring snapshot: %w", kindError{source.became(err), err})
	}
	// As after an election: the no-op that follows a restore is not fed to machines.
	if err := n.await(ctx, n.raft().Apply(nil, enqueueTime)); err != nil {
		return kindError{ErrUnknown, fmt.Errorf("restoring snapshot: %w", err)}
	}
	n.logger.Info("state restored from an image", "image", m.Index(), "index", n.fsm.current().Index())
	return nil
}

// imageFile is an image on its way to the library.
type imageFile struct {
	file *os.File
	size int64
	// begun: the library has read of it, and may have replaced the state.
	begun atomic.Bool
}

func (f *imageFile) Read(b []byte) (int, error) {
	f.begun.Store(true)
	return f.file.Read(b)
}

func (f *imageFile) drop() {
	f.file.Close()
	os.Remove(f.file.Name())
}

// became says what an error of the restore means. The leader replaces its own state
// first: whether others follow is known only where it never began.
func (f *imageFile) became(err error) error {
	switch {
	case f.begun.Load():
		return ErrUnknown
	case errors.Is(err, raft.ErrNotLeader):
		return ErrNoLeader
	}
	return ErrNotCommitted
}

// successor writes to a file what takes the place of this node's state. Writes are
// held, and an empty one shows that all before it are applied: what any of them added
// to a serial meanwhile would be missing. It also shows that a majority follows still.
func (n *Node) successor(ctx context.Context, m state.Machine) (*imageFile, error) {
	if err := n.await(ctx, n.raft().Apply(nil, enqueueTime)); err != nil {
		return nil, err
	}
	if why := n.disk.roomFor(0); why != "" {
		return nil, errors.New(why)
	}
	file, err := os.CreateTemp(n.c.DataDir, "restore-*")
	if err != nil {
		return nil, err
	}
	f := &imageFile{file: file}
	err = m.Succeed(n.Machine()).WriteImage(file)
	var err2 error
	f.size, err2 = file.Seek(0, io.SeekCurrent)
	_, err3 := file.Seek(0, io.SeekStart)
	if err = errors.Join(err, err2, err3); err != nil {
		f.drop()
		return nil, err
	}
	return f, nil
}

// contradicted gives up what this node has where a leader, which sends what follows an
// entry, shows that the snapshot that this node took over never was the cluster's. The
// successor begins with nothing and is sent what the leader has.
func (n *Node) contradicted(term, index, of uint64) error {
	base, r := n.store.base.Load(), n.raft()
	if !base.contradicts(term, index, of) || r == nil || term < r.CurrentTerm() || n.fsm.current().Index() > base.index {
		return nil
	}
	if err := n.fsm.void(errContradicted.Error()); err != nil {
		n.logger.Error("noting that this node's state is void", "error", err)
	}
	n.fence.trip(errContradicted)
	return errContradicted
}
