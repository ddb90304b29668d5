package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// divergedFile, in the data directory, says that what is in it has diverged: a
// successor begins with nothing and is given the state of the others.
const divergedFile = "diverged"

// standDown takes this node, which is wrong, out: leadership goes to one that is
// right, its state is noted to be void, and the fence comes down.
func (c *checker) standDown(r CheckReport) {
	n := c.node
	cause := fmt.Errorf("state check at index %d: this node's state differs from the majority's (%s)", r.Index, r)
	if err := markDiverged(n.c.DataDir, cause.Error()); err != nil {
		n.logger.Error("noting that this node's state is void", "error", err)
	}
	if n.leads() {
		for _, m := range n.members() {
			if !m.Voter || !r.of(m.ID).Right {
				continue
			}
			ctx, cancel := context.WithTimeout(n.ctx, handOver)
			err := n.transfer(ctx, m.ID)
			cancel()
			if err == nil {
				break
			}
			n.logger.Warn("handing leadership to a node that is right", "node", m.ID, "error", err)
		}
	}
	n.fence.trip(cause)
}

// markDiverged notes that a data directory is void.
func markDiverged(dir, why string) error {
	f, err := os.OpenFile(filepath.Join(dir, divergedFile), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(why + "\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// discard gives up snapshots and log of a node whose state had diverged. It keeps
// out of elections, and does not serve, until it has caught up with the others.
// A crash in between finds the file again.
func (b *builder) discard() error {
	path := filepath.Join(b.dir, divergedFile)
	why, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	b.logger.Error("what this node has on disk is void: it is given up, and taken anew from the others", "why", strings.TrimSpace(string(why)))
	if err := b.mark.set(func(v *markValue) { v.Owed, v.Base = max(v.Owed, v.Index, b.last), 0 }); err != nil {
		return err
	}
	if err := b.snaps.setAllAside(); err != nil {
		return err
	}
	if b.last > 0 {
		if err := b.store.DeleteRange(b.first, b.last); err != nil {
			return err
		}
	}
	if err := b.bounds(); err != nil {
		return err
	}
	return os.Remove(path)
}
