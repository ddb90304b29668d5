package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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
	m = m.Succeed(n.Machine())
	file, size, err := n.spool(m)
	if err != nil {
		return kindError{ErrNotCommitted, fmt.Errorf("restoring snapshot: %w", err)}
	}
	defer os.Remove(file.Name())
	defer file.Close()

	done := make(chan error, 1)
	n.fsm.forced.Store(true)
	go func() {
		defer n.fsm.forced.Store(false)
		// Raft takes an index above both its own and the image's.
		meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: m.Index(), Size: size}
		done <- n.raft().Restore(meta, file, enqueueTime)
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return kindError{ErrUnknown, fmt.Errorf("restoring snapshot: %w", ctx.Err())}
	case <-n.fence.tripped:
		return kindError{ErrUnknown, errFenced}
	}
	if err != nil {
		return fmt.Errorf("restoring snapshot: %w", writeError(err))
	}
	// As after an election: the no-op that follows a restore is not fed to machines.
	if err := n.await(ctx, n.raft().Apply(nil, enqueueTime)); err != nil {
		return kindError{ErrUnknown, fmt.Errorf("restoring snapshot: %w", err)}
	}
	n.logger.Info("state restored from an image", "image", m.Index(), "index", n.fsm.current().Index())
	return nil
}

// spool writes an image to a file that is read from its start.
func (n *Node) spool(m state.Machine) (*os.File, int64, error) {
	if why := n.disk.roomFor(0); why != "" {
		return nil, 0, errors.New(why)
	}
	file, err := os.CreateTemp(n.c.DataDir, "restore-*")
	if err != nil {
		return nil, 0, err
	}
	err = m.WriteImage(file)
	size, err2 := file.Seek(0, io.SeekCurrent)
	_, err3 := file.Seek(0, io.SeekStart)
	if err = errors.Join(err, err2, err3); err != nil {
		file.Close()
		os.Remove(file.Name())
		return nil, 0, err
	}
	return file, size, nil
}
