package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// saved is a node's image.
func saved(t testing.TB, n *Node) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := n.SaveSnapshot(within(t, 10*time.Second), &b)
	must(t, err)
	return b.Bytes()
}

// What is restored has to be past all that was shown, the writes of its last moment too.
func TestSerialsGoOnWhereWritesDoDuringARestore(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	seed(t, n)
	image := saved(t, n)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_, _, err := n.Propose(n.ctx, Actor{ID: "test"}, state.PutNameServer{Label: "ns1", Addresses: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, i})}})
			must(t, err)
		}
	}()
	go func() {
		for last := uint32(0); ; {
			changed := n.fsm.next()
			p, _ := n.Machine().Platform(parseName(t, "p-dns.test."))
			if last != 0 && int32(p.Serial-last) < 0 {
				t.Errorf("the serial went from %d to %d at index %d", last, p.Serial, n.Machine().Index())
			}
			last = p.Serial
			select {
			case <-changed:
			case <-ended:
				return
			}
		}
	}()
	for range 10 {
		must(t, n.RestoreSnapshot(within(t, 20*time.Second), bytes.NewReader(image), false))
	}
	close(stop)
	<-ended
}

// slowly has a node's disk take its time to clear the log, and does something meanwhile.
func slowly(n *Node, takes time.Duration, meanwhile func()) (began *atomic.Bool) {
	began = new(atomic.Bool)
	fault := func() error {
		if calledBy("DeleteRange") && began.CompareAndSwap(false, true) {
			meanwhile()
			time.Sleep(takes)
		}
		return nil
	}
	n.store.fault.Store(&fault)
	return began
}

// The leader replaces its own state first. Where it loses its office before others
// have it, it must not stay with what none of them knows.
func TestRestoreThatNeverCameToBeIsUndone(t *testing.T) {
	inVirtualTime(t, hourly(), func(t *testing.T, v *virtual) {
		claim(t, v.waitLeader(), "send.customer.test.")
		v.settle()
		old := v.waitLeader()
		id := old.c.ID
		image := v.image(old)
		must(t, v.write(old, "stays", time.Minute))
		slowly(old, 30*time.Second, func() { v.isolate(id) })
		err := old.RestoreSnapshot(within(t, time.Hour), bytes.NewReader(image.data), false)
		if !errors.Is(err, ErrUnknown) || has(old, "stays") {
			t.Fatalf("restored by a leader that was cut off: %v, want that nobody knows, and the state replaced", err)
		}
		fresh := v.waitLeader(v.others(id)...)
		must(t, v.write(fresh, "after", time.Minute))
		v.heal()
		v.wait("the old leader to give its state up", time.Minute, func() bool { return errors.Is(old.fence.err(), errContradicted) })
		v.settle()
		if got := v.total().contradicted; got != 1 {
			t.Errorf("%d nodes began anew, want one", got)
		}
		// And what it was given instead is its own from then on.
		v.stop(id)
		v.start(id)
		if at := v.nodes[id].Machine(); !has(v.nodes[id], "stays") || at.Index() == 0 {
			t.Errorf("started again it is at %d", at.Index())
		}
	})
}

// However long the disk takes, and the library says that it failed by then.
func TestLongRestoreIsNotSaidToHaveFailed(t *testing.T) {
	inVirtualTime(t, hourly(), func(t *testing.T, v *virtual) {
		for i := range 6 {
			leader := v.waitLeader()
			image := v.image(leader)
			must(t, v.write(leader, fmt.Sprintf("gone-%d", i), time.Minute))
			began := slowly(leader, 3*enqueueTime, func() {})
			must(t, leader.RestoreSnapshot(within(t, time.Hour), bytes.NewReader(image.data), false))
			leader.store.fault.Store(nil)
			v.operator.last = tried{index: leader.mark.get().Base, tenants: image.tenants}
			if !began.Load() {
				t.Error("the log was not cleared: the test shows nothing")
			}
			v.settle()
		}
	})
	if err := writeError(raft.ErrAbortedByRestore); !errors.Is(err, ErrUnknown) {
		t.Errorf("a write that a restore went over: %v; where the restore does not come to be the write may", err)
	}
}

// The snapshot that a node was writing when its state was replaced is of what was before.
func TestSnapshotThatARestoreOvertookIsNotTaken(t *testing.T) {
	image, tenants := imageAfter(t, 2)
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	_, before := writeMany(t, leader, "gone", 10)
	c.waitAll(before)
	away := c.follower().c.ID
	c.kill(away)

	reached, release, made := make(chan struct{}), make(chan struct{}), make(chan error)
	var held atomic.Bool
	room := leader.snaps.room
	leader.snaps.room = func(size int64) string {
		if held.CompareAndSwap(false, true) {
			close(reached)
			<-release
		}
		return room(size)
	}
	go func() { made <- leader.snapshot() }()
	<-reached
	must(t, leader.RestoreSnapshot(within(t, 20*time.Second), bytes.NewReader(image), false))
	restored := leader.mark.get().Base
	close(release)
	if err := <-made; err == nil {
		t.Error("a snapshot of what was before the restore was taken after it")
	}
	if base := leader.store.base.Load(); base.index != restored {
		t.Errorf("the log is taken to continue %d, and begins behind %d", base.index, restored)
	}
	c.start(away)
	after, index := writeMany(t, leader, "after", 3)
	c.wantEverywhere(index, sorted(tenants, after)...)
}
