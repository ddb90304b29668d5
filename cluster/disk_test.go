package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// disks are the free octets that nodes are told of, by data directory; 10 GiB
// where nothing is set, of 100.
type disks struct {
	mu   sync.Mutex
	free map[string]uint64
}

func (d *disks) set(dir string, free uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free[dir] = free
}

func (d *disks) statfs(dir string) (free, total uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	free, ok := d.free[dir]
	if !ok {
		free = 10 << 30
	}
	return free, 100 << 30, nil
}

func withDisks(t *testing.T, nodes int) (*testCluster, *disks) {
	c := newTestCluster(t, nodes)
	d := &disks{free: make(map[string]uint64)}
	c.tuning.statfs = d.statfs
	return c, d
}

func TestLeaderShortOfSpaceHandsOverAndWritesGoOn(t *testing.T) {
	c, d := withDisks(t, 3)
	c.startAll()
	short := c.leader()
	seed(t, short)
	d.set(short.c.DataDir, 100<<20)
	eventually(t, "another leader", func() bool { l := short.Leader(); return l != "" && l != short.c.ID })
	c.waitAll(write(t, short, "after")) // through the one that is short
	h := strings.Join(short.Health(), "; ")
	if !strings.Contains(h, short.c.DataDir) || !strings.Contains(h, "100.0 MiB free") || !strings.Contains(h, "1.0 GiB are kept in reserve") {
		t.Errorf("health %q does not name path and sizes", h)
	}
	if err := short.snapshot(); err == nil || !strings.Contains(err.Error(), short.c.DataDir) {
		t.Errorf("a snapshot on a short disk: %v", err)
	}
	if short.fence.err() != nil {
		t.Errorf("fenced: %v", short.fence.err())
	}
	d.set(short.c.DataDir, 1<<30+50<<20) // more than the reserve, but not by enough
	eventually(t, "a look at the disk", func() bool { return short.Disk().Free > 1<<30 })
	if !short.Disk().Short {
		t.Error("it counts as good at once: it would flap")
	}
	d.set(short.c.DataDir, 2<<30)
	eventually(t, "room", func() bool { return !short.Disk().Short })
	must(t, short.snapshot())
}

func TestWhereNoVoterHasRoomWritesAreRefusedWithTheReason(t *testing.T) {
	c, d := withDisks(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	claim(t, leader, "send.customer.test.")
	for _, n := range c.nodes {
		d.set(n.c.DataDir, 1<<20)
	}
	eventually(t, "all to notice", func() bool {
		for _, n := range c.nodes {
			if !n.Disk().Short {
				return false
			}
		}
		return true
	})
	c.leader() // one that noticed first may have handed over
	for _, n := range c.nodes {
		_, _, err := n.Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "x", Name: "x"})
		if !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), "has 1.0 MiB free") || !strings.Contains(err.Error(), c.dir) {
			t.Errorf("a write through %s: %v", n.c.ID, err)
		}
		wantNoDiff(t, n)
		if n.Machine().DomainCount() != 1 || n.fence.err() != nil {
			t.Errorf("%s: %v", n.c.ID, n.fence.err())
		}
	}
	for _, n := range c.nodes {
		d.set(n.c.DataDir, 10<<30)
	}
	eventually(t, "room for writes", func() bool {
		_, _, err := leader.Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.AddTenant{ID: "after", Name: "x"})
		return err == nil
	})
}

// A majority that fills up would fence itself off together, and the quorum would
// be gone: the leader stops before, although it has room itself.
func TestLeaderStopsWritesBeforeAMajorityIsFull(t *testing.T) {
	c, d := withDisks(t, 3)
	c.startAll()
	leader := c.leader()
	for _, n := range c.nodes {
		if n != leader {
			d.set(n.c.DataDir, 1<<20)
		}
	}
	eventually(t, "the leader to notice", func() bool { return leader.stopped() != "" })
	if why := leader.stopped(); !strings.Contains(why, "of 3 voters only 1 have room") {
		t.Errorf("%q", why)
	}
	if !leader.leads() {
		t.Error("the only one with room does not lead")
	}
}

const fullDiskEnv = "AUTHD_TEST_FULL_DISK"

// TestFullDiskLosesNothing fills a real file system, a small tmpfs in a mount
// namespace of its own, with the guard set so low that the store meets the end of
// it: the node fences itself off, does not panic, and everything acknowledged is
// there after a start with more room.
func TestFullDiskLosesNothing(t *testing.T) {
	if dir := os.Getenv(fullDiskEnv); dir != "" {
		fillDisk(t, dir)
		return
	}
	dir := t.TempDir()
	run := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.timeout=2m", "-test.v")
	run.Env = append(os.Environ(), fullDiskEnv+"="+dir)
	run.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		run.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		run.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		run.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	run.Stdout, run.Stderr = &out, &out
	runtime.LockOSThread() // Pdeathsig fires when this thread ends
	defer runtime.UnlockOSThread()
	if err := run.Run(); err != nil {
		t.Fatalf("in a mount namespace of its own: %v\n%s", err, out.String())
	}
}

func fillDisk(t *testing.T, dir string) {
	must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=40m"))
	c := anotherCluster(t, 1)
	c.dir = dir
	// The disk fills between two looks at it.
	c.tuning.statfs = func(string) (free, total uint64, err error) { return 1 << 40, 1 << 40, nil }
	c.startAll()
	n := c.leader()
	var kept []string
	long := strings.Repeat("x", 250)
	for i := 0; n.fence.err() == nil; i++ {
		if i > 5000 {
			t.Fatal("the disk does not fill")
		}
		var commands []state.Command
		var ids []string
		for k := range 200 {
			ids = append(ids, fmt.Sprintf("t-%d-%d", i, k))
			commands = append(commands, state.AddTenant{ID: ids[k], Name: long})
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		_, _, err := n.Propose(ctx, Actor{ID: "test"}, commands...)
		cancel()
		if err == nil {
			kept = append(kept, ids...)
		}
	}
	if cause := n.fence.err(); !errors.Is(cause, syscall.ENOSPC) {
		t.Fatalf("fenced for another reason: %v", cause)
	}
	if len(kept) < 1000 {
		t.Fatalf("only %d writes before the disk was full: the test shows nothing", len(kept))
	}
	for _, id := range kept {
		if !has(n, id) {
			t.Fatalf("the fenced node does not know %s", id)
		}
	}
	c.stop("node-1")
	must(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=400m"))
	c.start("node-1")
	n = c.leader()
	for _, id := range kept {
		if !has(n, id) {
			t.Fatalf("%s was acknowledged and is lost", id)
		}
	}
	write(t, n, "after")
	if _, err := os.Stat(filepath.Join(dir, "node-1", raftFile)); err != nil {
		t.Error(err)
	}
	c.stopAll()
	must(t, syscall.Unmount(dir, 0))
}

// A restore writes the state to the disk before anything is touched: where there is
// no room, nothing is.
func TestARestoreWithoutRoomChangesNothing(t *testing.T) {
	c, d := withDisks(t, 1)
	c.startAll()
	n := c.leader()
	var image bytes.Buffer
	_, err := n.SaveSnapshot(within(t, 10*time.Second), &image)
	must(t, err)
	write(t, n, "since")
	d.set(n.c.DataDir, 1)
	eventually(t, "the disk", func() bool { return n.Disk().Short })
	_, err = n.RestoreSnapshot(within(t, 10*time.Second), Actor{}, bytes.NewReader(image.Bytes()), false)
	if !errors.Is(err, ErrNotCommitted) || !strings.Contains(err.Error(), "free") {
		t.Errorf("%v", err)
	}
	if !has(n, "since") || n.fence.err() != nil {
		t.Errorf("it changed something: %v", n.fence.err())
	}
	d.set(n.c.DataDir, 10<<30)
	eventually(t, "room", func() bool { return !n.Disk().Short })
	restore(t, n, image.Bytes())
	if has(n, "since") {
		t.Error("not restored")
	}
}

func TestNodeShortOfSpaceNeitherTakesASnapshotNorMakesOne(t *testing.T) {
	c, d := withDisks(t, 1)
	c.startAll()
	n := c.leader()
	install := raft.RPC{Command: &raft.InstallSnapshotRequest{Size: 1, LastLogIndex: write(t, n, "a") + 1}}
	must(t, n.transport.refuses(install))
	d.set(n.c.DataDir, 1)
	eventually(t, "the disk", func() bool { return n.Disk().Short })
	if err := n.transport.refuses(install); err == nil || !strings.Contains(err.Error(), "free") {
		t.Errorf("it takes one: %v", err)
	}
	if err := n.snapshot(); err == nil || !strings.Contains(err.Error(), "free") {
		t.Errorf("it makes one: %v", err)
	}
}

// The image goes into the log of every node, and then into a snapshot.
func TestARestoreLooksForRoomOnEveryNode(t *testing.T) {
	c, d := withDisks(t, 3)
	c.startAll()
	leader, follower := c.leader(), c.follower()
	must(t, leader.roomToRestore(t.Context(), 4<<30))
	if err := leader.roomToRestore(t.Context(), 5<<30); err == nil || !strings.Contains(err.Error(), leader.c.DataDir) {
		t.Errorf("more than the leader has room for: %v", err)
	}
	d.set(follower.c.DataDir, 3<<30)
	eventually(t, "the follower's disk", func() bool { return follower.Disk().Free == 3<<30 })
	must(t, leader.roomToRestore(t.Context(), 1<<30))
	if err := leader.roomToRestore(t.Context(), 2<<30); err == nil || !strings.Contains(err.Error(), follower.c.ID) {
		t.Errorf("more than a follower has room for: %v", err)
	}
	image := saved(t, leader)
	d.set(follower.c.DataDir, 1)
	eventually(t, "the follower to be short", func() bool { return follower.Disk().Short })
	_, err := leader.RestoreSnapshot(within(t, 10*time.Second), Actor{}, bytes.NewReader(image), false)
	if !errors.Is(err, ErrNotCommitted) || !strings.Contains(err.Error(), follower.c.ID) {
		t.Errorf("with a follower that is short: %v", err)
	}
	for _, n := range c.nodes {
		d.set(n.c.DataDir, 90<<30)
		eventually(t, "room", func() bool { return n.Disk().Free == 90<<30 })
	}
	if err := leader.roomToRestore(t.Context(), 15<<30); err == nil || !strings.Contains(err.Error(), "the log holds") {
		t.Errorf("more than the log holds: %v", err)
	}
}
