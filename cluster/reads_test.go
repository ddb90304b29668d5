package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authd/cluster/state"
)

// diary is a journal in a directory of its own, with what the cluster knows of it.
type diary struct {
	*journal
	t         testing.TB
	committed state.ReadsHead
}

func newDiary(t testing.TB) *diary {
	t.Helper()
	d := &diary{t: t}
	d.journal = d.open(t.TempDir())
	return d
}

func (d *diary) open(dir string) *journal {
	return newJournal(dir, "node-1", func() time.Time { return time.Unix(1_800_000_000, 0) },
		func() (state.ReadsHead, bool) { return d.committed, d.committed.Seq > 0 })
}

// again is the same directory after a restart.
func (d *diary) again() {
	d.t.Helper()
	if err := d.close(); err != nil {
		d.t.Fatal(err)
	}
	d.journal = d.open(filepath.Dir(d.dir))
}

func (d *diary) read(token string, key uint32) {
	d.t.Helper()
	if err := d.release(readOf(token, key)); err != nil {
		d.t.Fatal(err)
	}
}

func readOf(token string, key uint32) KeyRead {
	return KeyRead{Token: token, Source: "192.0.2.1", Claim: "b6tk3kfkxn4hnxvvwmrgjm4jwa", Domain: "send.customer.test.", Selector: "2601-aaaaaa", Key: key}
}

// told is that the cluster was told where the journal ends.
func (d *diary) told() {
	d.committed.Node = "node-1"
	d.committed.Seq, d.committed.Head, d.committed.Repeats = d.head()
}

// verify follows the files as an auditor would, and gives the number of entries.
func (d *diary) verify() (entries int, gaps []ReadsGap, err error) {
	var c ReadsChain
	files, _ := filepath.Glob(filepath.Join(d.dir, "*.jsonl"))
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, nil, err
		}
		for line := range bytes.Lines(text) {
			if _, err := c.Line(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
				return c.Count, c.Gaps, fmt.Errorf("%s: %w", filepath.Base(f), err)
			}
		}
	}
	return c.Count, c.Gaps, c.Empty()
}

func (d *diary) wants(entries, gaps int) {
	d.t.Helper()
	n, found, err := d.verify()
	if err != nil || n != entries || len(found) != gaps {
		d.t.Errorf("%d entries and gaps %+v, %v; want %d and %d", n, found, err, entries, gaps)
	}
	if p := d.problems(); (len(p) > 0) != (gaps > 0) {
		d.t.Errorf("problems %q with %d gaps", p, gaps)
	}
}

func TestFirstReleaseIsWrittenBeforeItLeavesAndRepeatsAreCounted(t *testing.T) {
	d := newDiary(t)
	var syncs atomic.Int64
	d.sync = func(f *os.File) error { syncs.Add(1); return f.Sync() }
	for range 3 {
		d.read("one", 1)
		d.read("two", 1)
		d.read("one", 2)
	}
	if seq, _, repeats := d.head(); seq != 3 || repeats != 6 || syncs.Load() != 1+3 {
		t.Errorf("%d entries, %d repeats, %d syncs, one of them of the opening", seq, repeats, syncs.Load())
	}
	d.wants(3, 0)
	d.told()
	d.again()
	d.read("two", 1)
	d.read("two", 2)
	if seq, _, repeats := d.head(); seq != 4 || repeats != 7 {
		t.Errorf("after a restart: %d entries, %d repeats", seq, repeats)
	}
	d.wants(4, 0)
	info, err := os.Stat(d.path(1))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

// TestWhatAFailedSyncLeftIsNoEntryOfAFileThatIsFull, for the next one begins with it anew.
func TestWhatAFailedSyncLeftIsNoEntryOfAFileThatIsFull(t *testing.T) {
	d := newDiary(t)
	d.read("one", 1)
	d.sync = func(*os.File) error { return errors.New("input/output error") }
	if err := d.release(readOf("two", 1)); !errors.Is(err, ErrJournal) {
		t.Fatalf("%v", err)
	}
	d.sync = (*os.File).Sync
	d.limit = d.size + 1
	d.read("three", 1)
	d.read("two", 1)
	d.wants(3, 0)
	d.told()
	d.again()
	d.read("two", 1)
	if seq, _, repeats := d.head(); seq != 3 || repeats != 1 {
		t.Errorf("after a restart: %d entries, %d repeats", seq, repeats)
	}
	d.wants(3, 0)
}

// A repeat is not synced, so what counts as released has to be on disk.
func TestWhatAKilledNodeLeftUnsyncedIsSyncedBeforeItCounts(t *testing.T) {
	d := newDiary(t)
	d.read("one", 1)
	d.again()
	d.sync = func(*os.File) error { return errors.New("input/output error") }
	if err := d.release(readOf("one", 1)); !errors.Is(err, ErrJournal) {
		t.Errorf("released as a repeat, of which nobody knows whether it is on disk: %v", err)
	}
	d.sync = (*os.File).Sync
	d.read("one", 1)
	d.wants(1, 0)
}

// Nor does a process that begins where this one ends find what was never released.
func TestWhatASyncFailedForIsNotLeftInTheFile(t *testing.T) {
	for name, fails := range map[string]func(d *diary) error{
		"an entry": func(d *diary) error { return d.release(readOf("two", 1)) },
		"a gap": func(d *diary) error {
			d.committed = state.ReadsHead{Node: "node-1", Seq: 1 << 60}
			return d.check()
		},
	} {
		d := newDiary(t)
		d.read("one", 1)
		d.sync = func(*os.File) error { return errors.New("input/output error") }
		if fails(d) == nil {
			t.Fatalf("%s: written", name)
		}
		if info, err := os.Stat(d.path(1)); err != nil || info.Size() != d.size {
			t.Errorf("%s: the file has %d octets, of which %d count (%v)", name, info.Size(), d.size, err)
		}
		d.sync, d.committed = (*os.File).Sync, state.ReadsHead{}
		d.read("three", 1)
		d.again()
		d.read("three", 1)
		d.wants(2, 0)
	}
}

func TestReleasesAtOnceShareASyncAndEachIsWrittenOnce(t *testing.T) {
	d := newDiary(t)
	var all sync.WaitGroup
	for n := range 400 {
		all.Go(func() {
			if err := d.release(readOf(fmt.Sprint(n%20), uint32(n%5))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if seq, _, repeats := d.head(); seq != 20 || repeats != 380 {
		t.Errorf("%d entries, %d repeats", seq, repeats)
	}
	d.wants(20, 0)
}

// TestFullDiskStopsFirstReleasesAndNoOthers: and what could be written only in
// part is not taken for an entry afterwards.
func TestFullDiskStopsFirstReleasesAndNoOthers(t *testing.T) {
	d := newDiary(t)
	d.read("one", 1)
	full := errors.New("no space left on device")
	d.sync = func(*os.File) error { return full }
	long := readOf("two", 1)
	long.Domain = strings.Repeat("a.", 100) + "test."
	if err := d.release(long); !errors.Is(err, ErrJournal) || !errors.Is(err, full) {
		t.Fatalf("%v", err)
	}
	d.read("one", 1)
	if p := d.problems(); len(p) != 1 || !strings.Contains(p[0], "no space") {
		t.Errorf("%q", p)
	}
	d.sync = (*os.File).Sync
	d.read("three", 1)
	d.again()
	d.read("two", 1)
	d.wants(3, 0)
}

func TestJournalGoesOnBehindALineCutShort(t *testing.T) {
	d := newDiary(t)
	d.read("one", 1)
	d.read("one", 2)
	d.told()
	whole, err := os.ReadFile(d.path(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, tail := range []string{"{", `{"read":{"seq":3`, string(whole[:100])} {
		if err := os.WriteFile(d.path(1), append(bytes.Clone(whole), tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		d.again()
		d.read("one", 1)
		d.wants(2, 0)
	}
}

func TestJournalRotates(t *testing.T) {
	d := newDiary(t)
	d.limit = 1000
	for n := range uint32(20) {
		d.read("one", n)
	}
	d.told()
	d.again()
	d.read("one", 19)
	d.wants(20, 0)
	if d.number < 3 {
		t.Errorf("%d files", d.number)
	}
	if err := os.Remove(d.path(1)); err != nil { // archived
		t.Fatal(err)
	}
	d.again()
	d.read("one", 100)
	if p := d.problems(); len(p) > 0 {
		t.Errorf("%q", p)
	}
}

// TestWhatIsMissingShows: every way to take something out of the journal leaves a
// trace, and none stops keys from being given.
func TestWhatIsMissingShows(t *testing.T) {
	lines := func(text []byte) [][]byte {
		return bytes.SplitAfter(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	}
	for what, damage := range map[string]func(path string, text []byte) error{
		"the file is gone":      func(path string, _ []byte) error { return os.Remove(path) },
		"it is empty":           func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"the last line is gone": func(path string, text []byte) error { return os.WriteFile(path, lines(text)[0], 0o600) },
		"a line is altered": func(path string, text []byte) error {
			return os.WriteFile(path, bytes.Replace(text, []byte("192.0.2.1"), []byte("192.0.2.2"), 1), 0o600)
		},
		"a line is taken out": func(path string, text []byte) error {
			return os.WriteFile(path, append(bytes.Clone(lines(text)[0]), lines(text)[2]...), 0o600)
		},
		"it is another's": func(path string, text []byte) error {
			return os.WriteFile(path, bytes.Repeat([]byte("{}\n"), 3), 0o600)
		},
		"it is a long line": func(path string, text []byte) error {
			return os.WriteFile(path, bytes.Repeat([]byte("x"), readsLine), 0o600)
		},
	} {
		t.Run(what, func(t *testing.T) {
			d := newDiary(t)
			for n := range uint32(3) {
				d.read("one", n)
			}
			d.told()
			text, err := os.ReadFile(d.path(1))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.close(); err != nil {
				t.Fatal(err)
			}
			if err := damage(d.path(1), text); err != nil {
				t.Fatal(err)
			}
			d.journal = d.open(filepath.Dir(d.dir))
			d.read("two", 7)
			if p := d.problems(); len(p) != 1 {
				t.Errorf("problems: %q", p)
			}
			if seq, _, _ := d.head(); seq != 4 {
				t.Errorf("it goes on with entry %d: the cluster would not take that", seq)
			}
			// Damage is there once: the next start goes on from what is whole.
			before, gaps, _ := d.verify()
			d.told()
			d.again()
			d.read("two", 7)
			if after, again, _ := d.verify(); after != before || len(again) != len(gaps) {
				t.Errorf("the next start found more: %d entries, %+v", after, again)
			}
		})
	}
}

func TestJournalNoticesLaterWhatTheClusterKnows(t *testing.T) {
	d := newDiary(t)
	d.read("one", 1)
	d.committed = state.ReadsHead{Node: "node-1", Seq: 9, Head: state.AuditHash{9}, Repeats: 4}
	if err := d.check(); err != nil {
		t.Fatal(err)
	}
	d.read("one", 2)
	d.wants(2, 1)
	if seq, _, _ := d.head(); seq != 10 {
		t.Errorf("entry %d", seq)
	}
}

// FuzzJournal: whatever is in the file, the journal opens, goes on, and what it
// wrote itself is found again.
func FuzzJournal(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		d := newDiary(t)
		if err := os.MkdirAll(d.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.path(1), text, 0o600); err != nil {
			t.Fatal(err)
		}
		d.read("fuzz", 7)
		seq, hash, _ := d.head()
		d.told()
		d.again()
		d.read("fuzz", 7)
		if again, same, _ := d.head(); again != seq || same != hash {
			t.Fatalf("after a restart: entry %d, before it %d: %q", again, seq, d.problems())
		}
	})
}

// TestFirstReadAfterARestIsToldAtOnce: with a minute's grace a thief could cut the
// file before anybody knew of his read.
func TestFirstReadAfterARestIsToldAtOnce(t *testing.T) {
	c := newTestCluster(t, 1)
	if c.tuning.reads < 30*time.Second {
		t.Fatalf("told every %s: the test shows nothing", c.tuning.reads)
	}
	c.startAll()
	n := c.leader()
	must(t, n.Release(readOf("one", 1)))
	eventually(t, "the cluster knows", func() bool {
		h, ok := n.Machine().ReadsHead("node-1")
		return ok && h.Seq == 1
	})
}

// TestClusterLearnsWhereTheJournalsEnd, also of a node that was read from while
// there was no quorum.
func TestClusterLearnsWhereTheJournalsEnd(t *testing.T) {
	c := newTestCluster(t, 3)
	c.tuning.reads = 200 * time.Millisecond
	c.start("node-1")
	n := c.nodes["node-1"]
	for range 2 {
		must(t, n.Release(readOf("one", 1)))
	}
	seq, hash, repeats := n.journal.head()
	if seq != 1 || repeats != 1 {
		t.Fatalf("%d entries, %d repeats", seq, repeats)
	}
	c.start("node-2", "node-3")
	eventually(t, "all nodes know", func() bool {
		for _, other := range c.nodes {
			if h, ok := other.Machine().ReadsHead("node-1"); !ok || h.Seq != seq || h.Head != hash || h.Repeats != repeats {
				return false
			}
		}
		return true
	})
	c.stop("node-1")
	must(t, os.RemoveAll(filepath.Join(c.data("node-1"), readsDir)))
	c.start("node-1")
	n = c.nodes["node-1"]
	eventually(t, "the loss is noticed", func() bool {
		return strings.Contains(strings.Join(n.Health(), "\n"), "the cluster knows of 1 entries")
	})
	must(t, n.Release(readOf("one", 1)))
	eventually(t, "the journal goes on", func() bool {
		h, _ := c.nodes["node-2"].Machine().ReadsHead("node-1")
		return h.Seq == 2
	})
}
