package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"authd/cluster/state"
)

// changing is a machine with some changes.
func changing(t *testing.T, m state.Machine, changes int) state.Machine {
	t.Helper()
	for i := range changes {
		var results []state.Result
		m, results, _ = m.Apply(m.Index()+1, []state.Entry{{
			At: 1_800_000_000, Actor: "a1", Command: state.AddTenant{ID: fmt.Sprintf("t%d-%d", m.Index(), i), Name: "T"},
		}})
		if results[0].Refusal != nil {
			t.Fatal(results[0].Refusal)
		}
	}
	return m
}

// readTrail reads all files and checks the chain. It gives how many changes and
// gaps there were.
func readTrail(t testing.TB, dir string) (changes int, gaps []*AuditGap) {
	t.Helper()
	var hash state.AuditHash
	var seq uint64
	files, err := filepath.Glob(filepath.Join(dir, auditDir, "audit-*.jsonl"))
	must(t, err)
	for _, name := range files {
		file, err := os.Open(name)
		must(t, err)
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			var l AuditLine
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Fatalf("%s: %v in %q", name, err, lines.Text())
			}
			if l.Gap != nil {
				gaps = append(gaps, l.Gap)
				seq = l.Gap.Until
				hash, err = state.ParseAuditHash(l.Gap.Hash)
				must(t, err)
				continue
			}
			if hash = l.Next(hash); l.Seq != seq+1 || hash.String() != l.AuditEntry.Hash {
				t.Fatalf("%s: change %d does not follow %d", name, l.Seq, seq)
			}
			seq = l.Seq
			changes++
		}
	}
	return changes, gaps
}

func followed(t *testing.T, dir string, limit int64, m state.Machine) *trail {
	t.Helper()
	tr := newTrail(dir)
	tr.limit = limit
	must(t, tr.follow(m))
	return tr
}

func TestAuditFilesResumeWithoutGapOrDuplicate(t *testing.T) {
	dir := t.TempDir()
	m := changing(t, state.Empty(), 10)
	// Killed, without closing; then cut in the middle of a line.
	tr := followed(t, dir, auditFile, m)
	must(t, os.Truncate(tr.path(1), tr.size-7))
	m = changing(t, m, 10)
	tr = followed(t, dir, auditFile, m)
	must(t, tr.follow(m))
	must(t, tr.close())
	followed(t, dir, auditFile, m)
	if changes, gaps := readTrail(t, dir); changes != 20 || len(gaps) != 0 {
		t.Errorf("%d changes, %d gaps", changes, len(gaps))
	}
}

// TestWhatAFailedSyncLostIsWrittenAgain: the kernel may take pages for written that are
// not, so they are gone after the failure, in whichever file it was.
func TestWhatAFailedSyncLostIsWrittenAgain(t *testing.T) {
	for failing := 1; failing <= 12; failing++ {
		dir := t.TempDir()
		tr := newTrail(dir)
		tr.limit = 2000
		syncs, good := 0, make(map[string]int64)
		tr.sync = func(f *os.File) error {
			info, err := f.Stat()
			must(t, err)
			if syncs++; syncs == failing {
				if failing%2 == 0 { // or they are still read, which proves nothing
					must(t, os.Truncate(f.Name(), good[f.Name()]))
				}
				return errors.New("input/output error")
			}
			good[f.Name()] = info.Size()
			return f.Sync()
		}
		m, failed := state.Empty(), 0
		for range 8 {
			m = changing(t, m, 5)
			if err := tr.follow(m); err == nil {
				continue
			}
			failed++
			if info, err := os.Stat(tr.path(tr.number)); err == nil && info.Size() > good[tr.path(tr.number)] {
				t.Errorf("sync %d failed: a successor would read %d octets, of which %d are kept", failing, info.Size(), good[tr.path(tr.number)])
			}
			must(t, tr.follow(m))
		}
		must(t, tr.close())
		if changes, gaps := readTrail(t, dir); failed != 1 || changes != 40 || len(gaps) != 0 {
			t.Errorf("sync %d failed: %d failures, %d changes, %d gaps", failing, failed, changes, len(gaps))
		}
	}
}

func TestAuditFilesRotate(t *testing.T) {
	dir := t.TempDir()
	m := state.Empty()
	for range 20 {
		m = changing(t, m, 5)
		followed(t, dir, 2000, m)
	}
	files, err := filepath.Glob(filepath.Join(dir, auditDir, "*"))
	must(t, err)
	if len(files) < 5 {
		t.Errorf("%d files", len(files))
	}
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 2000 {
			t.Errorf("%s: %v, %d octets", f, err, info.Size())
		}
	}
	if changes, gaps := readTrail(t, dir); changes != 100 || len(gaps) != 0 {
		t.Errorf("%d changes, %d gaps", changes, len(gaps))
	}
	// Archived files are not missed, and a new one without a line is gone over.
	must(t, os.Remove(files[0]))
	tr := followed(t, dir, 2000, m)
	must(t, tr.rotate())
	m = changing(t, m, 1)
	tr = followed(t, dir, 2000, m)
	if tr.seq != 101 {
		t.Errorf("it goes on at %d", tr.seq)
	}
}

func TestAuditFilesNoteWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	m := changing(t, state.Empty(), 5)
	followed(t, dir, auditFile, m)
	// Away for longer than the machine remembers.
	for n := 0; n < state.MaxAudit+10; n += state.MaxBatch {
		entries := make([]state.Entry, state.MaxBatch)
		for i := range entries {
			entries[i] = state.Entry{At: 1_800_000_000, Command: state.SuspendTenant{ID: "t0-0", Suspended: i%2 == 0}}
		}
		m, _, _ = m.Apply(m.Index()+1, entries)
	}
	tr := followed(t, dir, auditFile, m)
	base, _ := m.AuditBase()
	changes, gaps := readTrail(t, dir)
	if changes != state.MaxAudit+5 || len(gaps) != 1 || gaps[0].After != 5 || gaps[0].Until != base || gaps[0].Why == "" {
		t.Errorf("%d changes, %+v", changes, gaps)
	}
	must(t, tr.follow(m))
	if again, _ := readTrail(t, dir); again != changes {
		t.Error("written twice")
	}
}

func TestAuditFilesNoteThatABackupReplacedTheState(t *testing.T) {
	dir := t.TempDir()
	common := changing(t, state.Empty(), 3)
	tr := followed(t, dir, auditFile, changing(t, common, 5))
	// Behind, as after a power cut: it catches up.
	must(t, tr.follow(changing(t, common, 2)))
	if tr.seq != 8 {
		t.Fatalf("it went back to %d", tr.seq)
	}
	tr.restored.Store(true)
	must(t, tr.follow(common))
	other, _, _ := common.Apply(common.Index()+1, []state.Entry{{At: 1_900_000_000, Command: state.AddTenant{ID: "other", Name: "O"}}})
	must(t, tr.follow(other))
	changes, gaps := readTrail(t, dir)
	if changes != 8+3+1 || len(gaps) != 1 || gaps[0].After != 8 || gaps[0].Until != 0 {
		t.Errorf("%d changes, %+v", changes, gaps)
	}
}

// Nothing may follow the restore that would have the files looked at again.
func TestEveryNodeNotesARestoreInItsAuditFiles(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	image := saved(t, c.leader())
	writeMany(t, c.leader(), "gone", 5)
	says := func(what string) {
		t.Helper()
		for id := range c.nodes {
			eventually(t, id+" to write "+what, func() bool {
				lines, _ := os.ReadFile(filepath.Join(c.data(id), auditDir, "audit-0001.jsonl"))
				return bytes.Contains(lines, []byte(what))
			})
		}
	}
	says("gone-04")
	restore(t, c.leader(), image)
	says(`"gap":`)
}

func TestDiskThatTakesNoAuditFilesIsAProblem(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, auditDir), nil, 0o600))
	if err := newTrail(dir).follow(changing(t, state.Empty(), 1)); err == nil {
		t.Error("nothing was wrong")
	}
}

// The whole way: killed nodes lose nothing, and all nodes write the same.
func TestEveryNodeWritesAllChanges(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	add := func(id string) uint64 {
		t.Helper()
		ids := []string{"node-1", "node-2"}
		_, index, err := c.nodes[ids[len(id)%2]].Propose(within(t, 20*time.Second), Actor{ID: "a1"}, state.AddTenant{ID: id, Name: "T"})
		must(t, err)
		return index
	}
	add("t1")
	c.kill("node-3")
	last := add("t22")
	c.start("node-3")
	must(t, c.nodes["node-3"].WaitApplied(within(t, 20*time.Second), last))
	must(t, c.nodes["node-1"].WaitApplied(within(t, 20*time.Second), last))
	eventually(t, "all nodes have written", func() bool {
		for _, id := range []string{"node-1", "node-2", "node-3"} {
			head, _ := c.nodes[id].Machine().AuditHead()
			if changes, gaps := readTrail(t, c.data(id)); uint64(changes) < head || head < 2 || len(gaps) > 0 {
				return false
			}
		}
		return true
	})
}

// The reply to a write is lost; the same request again comes to what it did.
func TestRetryAfterALostReplyHappensOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	n := c.nodes["node-1"]
	_, _, err := n.Propose(within(t, 20*time.Second), Actor{ID: "a1"}, state.AddTenant{ID: "acme", Name: "Acme"})
	must(t, err)
	who := Actor{ID: "a1", Once: state.MakeOnce("a1", "key", []byte("suspend"))}
	gone, cancel := context.WithCancel(context.Background())
	lost := make(chan error, 1)
	go func() {
		_, _, err := n.Propose(gone, who, state.SuspendTenant{ID: "acme", Suspended: true})
		lost <- err
	}()
	var done state.Result
	eventually(t, "the write is committed", func() (ok bool) {
		done, ok = n.Machine().Once(who.Once)
		return ok
	})
	cancel()
	<-lost
	_, _, err = n.Propose(within(t, 20*time.Second), Actor{ID: "a1"}, state.SuspendTenant{ID: "acme", Suspended: false})
	must(t, err)
	// Whichever node is asked.
	for _, id := range []string{"node-2", "node-3", "node-1"} {
		results, _, err := c.nodes[id].Propose(within(t, 20*time.Second), who, state.SuspendTenant{ID: "acme", Suspended: true})
		must(t, err)
		if results[0].First != done.First || !results[0].Changed {
			t.Errorf("%s: %+v, want what %d did", id, results[0], done.First)
		}
	}
	if tenant, _ := n.Machine().Tenant("acme"); tenant.Suspended {
		t.Error("the retry happened again")
	}
}

func TestRacingDuplicatesHappenOnce(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	who := Actor{ID: "a1", Once: state.MakeOnce("a1", "key", []byte("x"))}
	type answer struct {
		first uint64
		index uint64
		err   error
	}
	answers := make(chan answer)
	const racers = 9
	for i := range racers {
		go func() {
			n := c.nodes[fmt.Sprintf("node-%d", i%3+1)]
			results, index, err := n.Propose(within(t, 20*time.Second), who, state.AddTenant{ID: "acme", Name: "Acme"})
			a := answer{index: index, err: err}
			if err == nil {
				a.first = results[0].First
			}
			answers <- a
		}()
	}
	firsts := 0
	for range racers {
		a := <-answers
		must(t, a.err)
		if a.first == 0 {
			firsts++
		}
	}
	if firsts != 1 {
		t.Errorf("it happened %d times", firsts)
	}
}

func TestLinesAreWhatJSONMakesOfEntries(t *testing.T) {
	fields := reflect.TypeFor[state.AuditEntry]().NumField()
	for i, text := range []string{"", "a", "send.customer.example", `with "quotes" and \`, "<b> & more", "ä", "\x7f", "\u2028", "\t"} {
		e := &state.AuditEntry{Seq: uint64(i), Index: 1 << 60, At: time.Unix(1767225600+int64(i), 0).UTC()}
		for j := range fields {
			if f := reflect.ValueOf(e).Elem().Field(j); f.Kind() == reflect.String {
				f.SetString(text)
			}
			want, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := appendEntry(nil, e); err != nil || string(got) != string(want) {
				t.Errorf("text %q to field %d: %s, %v\nwant %s", text, j, got, err, want)
			}
		}
	}
}
