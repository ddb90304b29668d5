package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// full leaves a node without room on its disk for a while. It answers DNS all the
// time, and comes back by itself when there is room again.
func (t *trial) full(ctx context.Context, n *node) error {
	t.load.strike()
	if err := n.disk.fill(); err != nil {
		return err
	}
	pause(ctx, t.between(6*time.Second, 9*time.Second))
	if err := t.writing(ctx); err != nil {
		return errors.Join(err, n.disk.drain())
	}
	if err := n.disk.drain(); err != nil {
		return err
	}
	return t.comeBack(ctx, n)
}

// ownAccord is how long a node that is fenced off has to come back by itself.
const ownAccord = 30 * time.Second

// comeBack waits for a node to come back by itself. Where it does not, an operator
// restarts it, and that is counted.
func (t *trial) comeBack(ctx context.Context, n *node) error {
	err := t.whole(ctx, ownAccord)
	if err == nil || ctx.Err() != nil {
		return err
	}
	t.byHand++
	t.found.say("%s was restarted by hand: %v", n.id(), err)
	return t.replace(ctx, n)
}

// replace restarts a node.
func (t *trial) replace(ctx context.Context, n *node) error {
	n.touched.Store(true)
	if err := n.kill(); err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	return t.revive(ctx, n)
}

// stalled lets a node's disk hang. It answers DNS all the time.
func stalled(d time.Duration) nodeStrike {
	return func(t *trial, ctx context.Context, n *node) error {
		t.load.strike()
		if err := n.disk.freeze(); err != nil {
			return err
		}
		defer n.disk.thaw()
		pause(ctx, d)
		if err := n.disk.thaw(); err != nil {
			return err
		}
		if err := t.writing(ctx); err != nil {
			return err
		}
		return t.comeBack(ctx, n)
	}
}

// diskSlow freezes every disk for a moment, again and again.
func diskSlow(ctx context.Context, t *trial) error {
	t.load.strike()
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); {
		for _, n := range t.nodes {
			if err := n.disk.freeze(); err != nil {
				return err
			}
		}
		pause(ctx, 150*time.Millisecond)
		for _, n := range t.nodes {
			if err := n.disk.thaw(); err != nil {
				return err
			}
		}
		pause(ctx, t.between(50*time.Millisecond, 200*time.Millisecond))
	}
	return t.writing(ctx)
}

// broken gives errors for everything a node writes. It answers DNS all the time,
// until it is restarted on a disk that works: with what had been synced.
func (t *trial) broken(ctx context.Context, n *node) error {
	t.load.strike()
	if err := n.disk.fail(); err != nil {
		return err
	}
	pause(ctx, t.between(5*time.Second, 8*time.Second))
	if err := t.writing(ctx); err != nil {
		return err
	}
	n.touched.Store(true)
	if err := n.kill(); err != nil {
		return err
	}
	if err := n.disk.repair(); err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	return t.revive(ctx, n)
}

// traced restarts a node with something between it and its syncs, and then for a
// while makes it lead or follow so.
func (t *trial) traced(ctx context.Context, n *node, inject string) error {
	n.touched.Store(true)
	t.load.strike()
	if err := n.stop(); err != nil {
		return err
	}
	err := n.start("strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:"+inject)
	if err != nil {
		return err
	}
	return t.revive(ctx, n)
}

func slowSync(ctx context.Context, t *trial) error {
	n, err := t.follower(ctx)
	if err != nil {
		return err
	}
	if err := t.traced(ctx, n, "delay_exit=50000"); err != nil {
		return err
	}
	leader, err := t.leader(ctx)
	if err != nil {
		return err
	}
	if leader != n { // it may lead by now
		err = t.must(ctx, leader, http.MethodPost, "/v1/cluster/leader", map[string]any{"id": n.id()}, nil)
		if err != nil {
			return err
		}
	}
	pause(ctx, 6*time.Second)
	if err := t.writing(ctx); err != nil {
		return err
	}
	return t.replace(ctx, n)
}

func syncError(ctx context.Context, t *trial) error {
	n, err := t.follower(ctx)
	if err != nil {
		return err
	}
	// Late enough for it to start, and to be in the middle of the load.
	if err := t.traced(ctx, n, fmt.Sprintf("error=EIO:when=%d+", 150+t.random.IntN(200))); err != nil {
		return err
	}
	pause(ctx, 6*time.Second)
	if err := t.writing(ctx); err != nil {
		return err
	}
	return t.replace(ctx, n)
}

// damage turns some octets of a file, or cuts its end off.
func (t *trial) damage(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size == 0 {
		return fmt.Errorf("%s is empty", path)
	}
	if t.random.IntN(3) == 0 {
		return errors.Join(f.Truncate(t.random.Int64N(size)), f.Sync())
	}
	for range 1 + t.random.IntN(16) {
		at, octet := t.random.Int64N(size), make([]byte, 1)
		if _, err := f.ReadAt(octet, at); err != nil {
			return err
		}
		octet[0] ^= byte(1 + t.random.IntN(255))
		if _, err := f.WriteAt(octet, at); err != nil {
			return err
		}
	}
	return f.Sync()
}

// corrupted damages a file of a node that is down, and starts it again. Where it
// refuses to start with it, it is replaced by an empty one: what matters is that
// it neither lies nor takes what others acknowledged with it.
func (t *trial) corrupted(ctx context.Context, pattern string) error {
	n, err := t.follower(ctx)
	if t.random.IntN(5) == 0 { // its loss costs an election
		n, err = t.leader(ctx)
	}
	if err != nil {
		return err
	}
	if err := t.hurting(n, n.kill); err != nil {
		return err
	}
	if err := t.writing(ctx); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(n.data(), pattern))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s has no file %s to damage", n.id(), pattern)
	}
	path := files[len(files)-1] // of snapshots the newest
	if err := t.damage(path); err != nil {
		return err
	}
	if err := n.start(); err != nil {
		return err
	}
	err = t.revive(ctx, n)
	if err == nil || n.running() {
		return err
	}
	// It said no. That is an answer; it is replaced, as it asks for.
	return t.rebuild(ctx, n)
}

// rebuild gives a node that is down an empty disk, and adds it to the cluster anew.
func (t *trial) rebuild(ctx context.Context, n *node) error {
	if err := os.RemoveAll(n.data()); err != nil {
		return err
	}
	leader, err := t.leader(ctx)
	if err != nil {
		return err
	}
	if err := t.must(ctx, leader, http.MethodDelete, "/v1/cluster/nodes/"+n.id()+"?reason=chaos", nil, nil); err != nil {
		return err
	}
	if err := n.startWith(n.joiner); err != nil {
		return err
	}
	body := map[string]any{"id": n.id(), "address": address(n.i) + ":7301", "voter": true}
	if err := t.must(ctx, leader, http.MethodPost, "/v1/cluster/nodes", body, nil); err != nil {
		return err
	}
	return t.revive(ctx, n)
}

func corruptLog(ctx context.Context, t *trial) error  { return t.corrupted(ctx, "raft.db") }
func corruptMark(ctx context.Context, t *trial) error { return t.corrupted(ctx, "mark") }

func corruptSnapshot(ctx context.Context, t *trial) error {
	if err := t.snapshotted(ctx); err != nil {
		return err
	}
	return t.corrupted(ctx, finishedSnapshots)
}

// finishedSnapshots are a node's: one in the making has another ending.
const finishedSnapshots = "snapshots/*[0-9]/state.bin"

// snapshotted sees that every node has a snapshot.
func (t *trial) snapshotted(ctx context.Context) error {
	have := func() error {
		for _, n := range t.nodes {
			files, err := filepath.Glob(filepath.Join(n.data(), finishedSnapshots))
			if err != nil {
				return err
			}
			if len(files) == 0 {
				return fmt.Errorf("%s has none", n.id())
			}
		}
		return nil
	}
	if have() == nil {
		return nil
	}
	if err := restore(ctx, t); err != nil { // after which every node makes one
		return err
	}
	return until(ctx, recoverLimit, "a snapshot on every node", have)
}

func wiped(ctx context.Context, t *trial) error {
	if err := t.snapshotted(ctx); err != nil {
		return err
	}
	n, err := t.follower(ctx)
	if err != nil {
		return err
	}
	if err := t.hurting(n, n.kill); err != nil {
		return err
	}
	if err := t.writing(ctx); err != nil {
		return err
	}
	return t.rebuild(ctx, n)
}

// saved is an image of the state, once clients rest and all nodes have all.
func (t *trial) saved(ctx context.Context) (leader *node, image []byte, err error) {
	if leader, err = t.leader(ctx); err != nil {
		return nil, nil, err
	}
	if err := t.load.level(ctx); err != nil {
		return nil, nil, err
	}
	t.load.strike()
	r, err := t.request(ctx, leader, http.MethodGet, "/v1/cluster/snapshot", nil, nil)
	if err != nil {
		return nil, nil, err
	}
	if r.status != http.StatusOK {
		return nil, nil, fmt.Errorf("saving: %d: %s", r.status, r.body)
	}
	return leader, r.body, nil
}

// restoreKilled kills the leader while it puts the state back. Whether that came to be
// is not to be seen: what is restored is what is there.
func restoreKilled(ctx context.Context, t *trial) error {
	leader, err := t.killedRestoring(ctx)
	if err != nil {
		return err
	}
	if err := t.writing(ctx); err != nil {
		return err
	}
	if err := leader.start(); err != nil {
		return err
	}
	return t.revive(ctx, leader)
}

func (t *trial) killedRestoring(ctx context.Context) (*node, error) {
	t.load.running.Lock()
	defer t.load.running.Unlock()
	leader, image, err := t.saved(ctx)
	if err != nil {
		return nil, err
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		t.request(ctx, leader, http.MethodPost, "/v1/cluster/snapshot", image, nil)
	}()
	pause(ctx, t.between(0, 100*time.Millisecond))
	err = t.hurting(leader, leader.kill)
	<-over
	return leader, err
}

// restore saves the state and puts it back, with clients at rest: what they
// wrote between the two would rightly be gone.
func restore(ctx context.Context, t *trial) error {
	t.load.running.Lock()
	defer t.load.running.Unlock()
	leader, image, err := t.saved(ctx)
	if err != nil {
		return err
	}
	r, err := t.request(ctx, leader, http.MethodPost, "/v1/cluster/snapshot", image, nil)
	if err != nil {
		return err
	}
	// What is restored is what is there, so one of unknown outcome is as good.
	if r.status/100 != 2 && judge(r) != unknown {
		return fmt.Errorf("restoring: %d: %s", r.status, bytes.TrimSpace(r.body))
	}
	if err := t.whole(ctx, recoverLimit); err != nil {
		return err
	}
	t.load.strike() // the clients rested: that was no gap
	return nil
}
