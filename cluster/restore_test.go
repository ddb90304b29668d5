package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
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

// restore restores an image and returns the index at which it did.
func restore(t testing.TB, n *Node, image []byte) (index uint64) {
	t.Helper()
	index, err := n.RestoreSnapshot(within(t, 20*time.Second), Actor{ID: "test"}, bytes.NewReader(image), false)
	must(t, err)
	return index
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
		restore(t, n, image)
	}
	close(stop)
	<-ended
}

// restoring restores the image, and has something happen when the leader stores the second
// of some appends.
func (h *byHand) restoring(ctx context.Context, amid func(leader *Node)) error {
	leader := h.leader()
	var appends atomic.Int64
	fault := func() error {
		if calledBy("StoreLogs") && appends.Add(1) == 2 {
			amid(leader)
		}
		return nil
	}
	leader.store.fault.Store(&fault)
	defer leader.store.fault.Store(nil)
	_, err := leader.RestoreSnapshot(ctx, Actor{}, bytes.NewReader(h.image), false)
	return err
}

func TestOfTwoRestoresAtOnceOneIsRefused(t *testing.T) {
	restoreByHand(t, 10, func(t *testing.T, h *byHand) {
		var second error
		must(t, h.restoring(within(t, 20*time.Second), func(leader *Node) {
			_, second = leader.RestoreSnapshot(within(t, time.Second), Actor{}, bytes.NewReader(h.image), false)
		}))
		if !errors.Is(second, ErrNotCommitted) || !strings.Contains(second.Error(), "under way") {
			t.Errorf("amid another: %v", second)
		}
		h.wantEverywhere(write(t, h.leader(), "after"), sorted(h.tenants, []string{"after"})...)
	})
}

// As when its leader lost its office meanwhile and leads again.
func TestRestoreThatWasEndedInTheMiddleIsSaidNotToHaveBeen(t *testing.T) {
	restoreByHand(t, 10, func(t *testing.T, h *byHand) {
		err := h.restoring(within(t, 20*time.Second), func(leader *Node) { leader.raft().Apply(encodeBegin(1, whenever, [32]byte{}), 0) })
		if !errors.Is(err, ErrNotCommitted) || !strings.Contains(err.Error(), "given up before") {
			t.Errorf("ended by another: %v", err)
		}
		h.wantEverywhere(write(t, h.leader(), "after"), "acme", "after")
	})
}

// A snapshot that is being written while the state is restored is of what was before, and
// the log goes on behind it.
func TestSnapshotWrittenDuringARestoreIsGood(t *testing.T) {
	restoreByHand(t, 2, func(t *testing.T, h *byHand) {
		leader := h.leader()
		_, before := writeMany(t, leader, "gone", 10)
		h.waitAll(before)
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
		restored := restore(t, leader, h.image)
		close(release)
		must(t, <-made)
		if base := leader.store.base.Load(); base == nil || base.index >= restored {
			t.Errorf("the snapshot is of %+v, restored at %d", base, restored)
		}
		after, index := writeMany(t, leader, "after", 3)
		want := sorted(h.tenants, after)
		h.wantEverywhere(index, want...)
		id := leader.c.ID
		h.kill(id)
		n := h.open(id)
		wantTenants(t, n, want...)
		must(t, n.Close(t.Context()))
		h.start(id)
		h.wantEverywhere(write(t, h.leader(), "later"), sorted(want, []string{"later"})...)
	})
}

// A snapshot that another took the place of while it was written is none: the library
// would take it for the newer.
func TestSnapshotThatAnInstallOvertookIsNotTaken(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	write(t, c.leader(), "a")
	must(t, c.leader().snapshot())
	id := c.leader().c.ID
	c.stop(id)
	n := c.open(id)
	n.fsm.fed = n.fsm.startedAt
	under, err := n.fsm.Snapshot()
	must(t, err)
	sink, err := n.snaps.Create(1, n.Machine().Index(), 1, raft.Configuration{}, 1, n.transport)
	must(t, err)
	defer sink.Cancel()
	meta, r := newestImage(t, n)
	must(t, n.fsm.Restore(r))
	if err := under.Persist(sink); err == nil {
		t.Error("a snapshot of what was before an install was taken after it")
	}
	n.snaps.written(meta.Index-1, 1) // where the install came a moment later
	if base := n.store.base.Load(); base.index != meta.Index {
		t.Errorf("the log continues %d, installed was %d", base.index, meta.Index)
	}
}

// Whether a restore came to be is the same everywhere, wherever its leader is cut off: once
// it has stored something, or once a follower has.
func TestLeaderCutOffInARestore(t *testing.T) {
	const most = 12
	came := 0
	for _, where := range []string{"leader", "followers"} {
		unknown, cut := 0, 0
		// How many appends there are differs: some hold several pieces. So the last may be
		// missed.
		for append, tries := int64(1), 0; append <= most && tries < 5; append++ {
			t.Run(fmt.Sprintf("append %d of the %s", append, where), func(t *testing.T) {
				tuning := hourly()
				tuning.piece = 1 << 10
				inVirtualTime(t, tuning, func(t *testing.T, v *virtual) {
					err := v.cutOffAt(append, where == "leader", append%2 == 1)
					if err == nil {
						if append, tries = 0, tries+1; unknown > 0 {
							append = most
						}
						return
					}
					cut++
					if errors.Is(err, ErrUnknown) {
						unknown++
					}
					if v.operator.last.index > 0 {
						came++
					}
				})
			})
		}
		if cut < 3 || unknown == 0 {
			t.Errorf("%s: %d were cut off, %d of them at the end", where, cut, unknown)
		}
	}
	if came == 0 {
		t.Error("no restore of unknown outcome came to be")
	}
}

// cutOffAt cuts a leader off that restores, in an append of its own or of the followers, and
// says what it said of it.
func (v *virtual) cutOffAt(append int64, own, kill bool) error {
	t := v.t
	claim(t, v.waitLeader(), "send.customer.test.")
	v.settle()
	old := v.waitLeader()
	id, image := old.c.ID, v.image(old)
	must(t, v.write(old, "since", time.Minute))
	var appends atomic.Int64
	fault := func() error {
		if calledBy("StoreLogs") && appends.Add(1) == append {
			v.isolate(id)
		}
		return nil
	}
	hooked := v.others(id)
	if own {
		hooked = []string{id}
	}
	for _, id := range hooked {
		v.nodes[id].store.fault.Store(&fault)
	}
	index, err := old.RestoreSnapshot(within(t, time.Hour), Actor{ID: "test"}, bytes.NewReader(image.data), false)
	for _, id := range hooked {
		v.nodes[id].store.fault.Store(nil)
	}
	goOn := v.others(id)
	switch {
	case err == nil:
		v.operator.last, goOn = tried{index: index, tenants: image.tenants}, v.ids()
	case !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNotCommitted):
		t.Errorf("restored by a leader that was cut off: %v", err)
	case !has(old, "since"):
		t.Error("it shows what it does not know of others")
	default:
		v.operator.open = &tried{tenants: image.tenants, witness: "since", err: err}
		if kill {
			v.kill(id)
		}
	}
	must(t, v.write(v.waitLeader(goOn...), "after", time.Minute))
	v.settle() // holds all nodes against what was said
	for id, n := range v.nodes {
		if n.fsm.open.Load() {
			t.Errorf("a restore is open at %s", id)
		}
		must(t, n.snapshot())
	}
	return err
}

// Who asked may go away. Before the end that gives the restore up, and snapshots are made
// again.
func TestRestoreThatNobodyWaitsForIsGivenUp(t *testing.T) {
	restoreByHand(t, 10, func(t *testing.T, h *byHand) {
		h.waitAll(write(t, h.leader(), "kept"))
		ctx, cancel := context.WithCancel(t.Context())
		err := h.restoring(ctx, func(*Node) {
			cancel()
			time.Sleep(time.Second)
		})
		if !errors.Is(err, ErrNotCommitted) {
			t.Errorf("given up in the middle: %v", err)
		}
		leader := h.leader()
		h.wait("the restore to be given up", time.Minute, func() bool { return !leader.fsm.open.Load() && !leader.restoring.Load() })
		must(t, leader.snapshot())
		if !has(leader, "kept") {
			t.Error("it was restored all the same")
		}
	})
}
