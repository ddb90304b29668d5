package cluster

import (
	"os"
	"path/filepath"
	"testing"
)

func newMark(t *testing.T) (*mark, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mark")
	return reopen(t, path), path
}

func reopen(t *testing.T, path string) *mark {
	t.Helper()
	m, err := openMark(path, func(err error) { t.Errorf("late sync: %v", err) })
	must(t, err)
	t.Cleanup(func() { m.Close() })
	return m
}

// tear overwrites the second half of a slot.
func tear(t *testing.T, path string, slot int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, markSlotSize/2), int64(slot)*markSpacing+markSlotSize/2)
	must(t, err)
	must(t, f.Close())
}

func TestMarkSurvivesTheProcessWithoutASync(t *testing.T) {
	m, path := newMark(t)
	for i := range uint64(10) {
		must(t, m.apply(i+1))
	}
	if got := reopen(t, path).get().Index; got != 10 {
		t.Errorf("index %d, want 10", got)
	}
}

func TestTornWriteNeverReachesTheLastSyncedMark(t *testing.T) {
	m, path := newMark(t)
	for round := range uint64(7) {
		must(t, m.apply(round*10+1))
		must(t, m.sync(round*10+1))
		must(t, m.apply(round*10+2))
		must(t, m.apply(round*10+3))
		m.mu.Lock()
		slot := m.writing
		m.mu.Unlock()
		tear(t, path, slot)
		if got := reopen(t, path).get().Index; got != round*10+1 {
			t.Fatalf("round %d: index %d after a torn write, want the synced %d", round, got, round*10+1)
		}
	}
}

func TestMarkWrittenDuringASyncSparesBothOtherSlots(t *testing.T) {
	m, _ := newMark(t)
	must(t, m.apply(1))
	must(t, m.sync(1))
	must(t, m.apply(2))
	// What sync does before it waits for the disk.
	m.mu.Lock()
	syncing, durable := m.writing, m.durable
	m.mu.Unlock()
	must(t, m.sync(2))
	if m.writing == syncing || m.writing == durable {
		t.Errorf("writes go to slot %d, while %d is synced and %d is the last known on disk", m.writing, syncing, durable)
	}
}

func TestDestroyedMarkSaysThatNothingIsKnown(t *testing.T) {
	m, path := newMark(t)
	must(t, m.apply(7))
	must(t, m.Close())
	for slot := range markSlots {
		tear(t, path, slot)
	}
	if got := reopen(t, path).get(); got != (markValue{}) {
		t.Errorf("read %+v from a destroyed mark", got)
	}
}

func TestMarkKeepsBaseAndDebt(t *testing.T) {
	m, path := newMark(t)
	want := markValue{Index: 9, Base: 8, Owed: 12}
	must(t, m.set(func(v *markValue) { *v = want }))
	must(t, m.apply(10))
	want.Index = 10
	if got := reopen(t, path).get(); got != want {
		t.Errorf("read %+v, want %+v", got, want)
	}
}

func TestMarkThatFailedToSyncNeverSaysThatItDid(t *testing.T) {
	m, err := openMark(filepath.Join(t.TempDir(), "mark"), func(error) {})
	must(t, err)
	must(t, m.apply(1))
	must(t, m.file.Close()) // as a disk that is gone
	for try := range 2 {
		if err := m.sync(1); err == nil {
			t.Fatalf("sync %d: index 1 is on disk, it says", try+1)
		}
	}
}

func TestNodeWithADestroyedMarkWaitsForTheOthers(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	names, index := writeMany(t, c.leader(), "a", 5)
	c.waitAll(index)
	id := c.follower().c.ID
	c.kill(id)
	for slot := range markSlots {
		tear(t, filepath.Join(c.data(id), "mark"), slot)
	}
	n := c.open(id)
	if n.start.need < index {
		t.Fatalf("may serve from index %d on, but had applied %d", n.start.need, index)
	}
	must(t, n.Start())
	last := write(t, c.leader(), "b")
	must(t, n.WaitApplied(within(t, 20e9), max(last, n.start.need)))
	wantTenants(t, n, append(names, "b")...)
}

func FuzzDecodeSlot(f *testing.F) {
	f.Add(encodeSlot(markValue{Index: 1, Base: 2, Owed: 3}, 4))
	f.Add(make([]byte, markSlotSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < markSlotSize {
			return
		}
		v, sequence, ok := decodeSlot(b[:markSlotSize])
		if ok && string(encodeSlot(v, sequence)[:44]) != string(b[:44]) {
			t.Errorf("slot %x reads as %+v, %d", b[:markSlotSize], v, sequence)
		}
	})
}
