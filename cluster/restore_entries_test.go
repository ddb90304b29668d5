package cluster

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// whenever is until when most restores of these tests may end.
const whenever = 1 << 40

// byHand is a restore that a test leads through its steps, in virtual time: a leader that
// falls because the machine is busy ends it.
type byHand struct {
	*virtual
	image   []byte
	tenants []string // of the image
	id      uint64
	sent    int
}

// restoreByHand runs a test with a restore of that many writes, which has not begun.
func restoreByHand(t *testing.T, writes int, test func(t *testing.T, h *byHand)) {
	t.Helper()
	h := byHand{tenants: []string{"acme"}}
	tuning := hourly()
	tuning.piece, tuning.trailing = 1<<10, 1
	inVirtualTimeOf(t, 1, tuning, func(t *testing.T, v *virtual) {
		kept, _ := writeMany(t, v.waitLeader(), "kept", writes)
		h.tenants = append(h.tenants, kept...)
		h.image = asWritten(t, saved(t, v.waitLeader()))
	})
	inVirtualTime(t, tuning, func(t *testing.T, v *virtual) {
		h.virtual = v
		test(t, &h)
	})
}

// asWritten is an image as a node would send it.
func asWritten(t testing.TB, image []byte) []byte {
	t.Helper()
	m, err := state.ReadImage(bytes.NewReader(image))
	must(t, err)
	var b bytes.Buffer
	must(t, m.WriteImage(&b))
	return b.Bytes()
}

func (h *byHand) begin() {
	h.t.Helper()
	s := h.propose(encodeBegin(int64(len(h.image)), whenever, sha256.Sum256(h.image)))
	if h.id = s.index; s.refused != "" {
		h.t.Fatalf("a restore did not begin: %s", s.refused)
	}
}

func (h *byHand) propose(data []byte) stepAnswer {
	h.t.Helper()
	f := h.leader().raft().Apply(data, time.Second)
	must(h.t, f.Error())
	return f.Response().(stepAnswer)
}

// send sends the next pieces, up to a place in the image.
func (h *byHand) send(until int) stepAnswer {
	h.t.Helper()
	var s stepAnswer
	for h.sent < until && s.refused == "" {
		piece := h.image[h.sent:min(until, h.sent+h.tuning.piece)]
		s = h.propose(append(encodePiece(h.id, int64(h.sent), len(piece)), piece...))
		h.sent += len(piece)
	}
	return s
}

func (h *byHand) end() stepAnswer {
	h.t.Helper()
	return h.propose(encodeEnd(h.id, h.note()))
}

func (h *byHand) note() []byte {
	batch, err := state.EncodeBatch([]state.Entry{{At: 1, Actor: "test", Command: state.Note{Kind: "cluster", Text: "restored"}}})
	must(h.t, err)
	return batch
}

// finish sends what is left, and the end.
func (h *byHand) finish() {
	h.t.Helper()
	h.send(len(h.image))
	if s := h.end(); s.refused != "" {
		h.t.Fatal(s.refused)
	}
}

// Half of the image is in the log alone. A node that is restarted reads it there, and none
// makes a snapshot behind which it would be cleared.
func TestNodeRestartedInTheMiddleOfARestoreGoesOnWithIt(t *testing.T) {
	restoreByHand(t, 30, func(t *testing.T, h *byHand) {
		_, before := writeMany(t, h.leader(), "gone", 5)
		h.waitAll(before)
		h.onlySnapshots()
		h.begin()
		half := h.send(len(h.image) / 2)
		h.waitAll(write(t, h.leader(), "during"))
		for id, n := range h.nodes {
			if err := n.snapshot(); err == nil || !strings.Contains(err.Error(), errOpen.Error()) || !n.fsm.open.Load() {
				t.Errorf("%s made a snapshot in the middle of a restore: %v", id, err)
			}
		}
		id := h.follower().c.ID
		h.kill(id)
		n := h.open(id)
		if o := n.start.open; o == nil || o.id != h.id || o.got != int64(h.sent) || n.Machine().Index() < half.index {
			t.Fatalf("started at %d with %+v open, want %d octets of %d", n.Machine().Index(), o, h.sent, h.id)
		}
		must(t, n.Close(t.Context()))
		h.start(id)
		h.finish()
		after, index := writeMany(t, h.leader(), "after", 2)
		want := sorted(h.tenants, after)
		h.wantEverywhere(index, want...)
		for _, n := range h.nodes {
			if n.mark.get().Base > before {
				t.Errorf("%s was sent a snapshot", n.c.ID)
			}
			must(t, n.snapshot())
		}
		h.stopAll()
		for _, id := range h.ids() {
			n := h.open(id)
			wantTenants(t, n, want...)
			must(t, n.Close(t.Context()))
		}
	})
}

// A restore that ended past the mark may have been acknowledged elsewhere.
func TestRecoveryFromOneNodeGoesOnWithARestore(t *testing.T) {
	restoreByHand(t, 3, func(t *testing.T, h *byHand) {
		h.waitAll(write(t, h.leader(), "gone"))
		h.begin()
		h.waitAll(h.send(len(h.image)).index)
		id := h.follower().c.ID
		h.kill(id)
		store, err := openStore(h.data(id), true, newFence(slog.New(slog.DiscardHandler)))
		must(t, err)
		last, err := store.LastIndex()
		must(t, err)
		var l raft.Log
		must(t, store.GetLog(last, &l))
		must(t, store.StoreLog(&raft.Log{Index: last + 1, Term: l.Term, Type: raft.LogCommand, Data: encodeEnd(h.id, h.note())}))
		must(t, store.Close())
		r, err := OpenRecovery(id, h.data(id), "", slog.New(slog.DiscardHandler))
		must(t, err)
		var tenants []string
		for tenant := range r.machine.Tenants("") {
			tenants = append(tenants, tenant.ID)
		}
		if !slices.Equal(tenants, sorted(h.tenants)) || r.machine.Index() != last+1 {
			t.Errorf("at %d of %d it has %v, want %v", r.machine.Index(), last+1, tenants, h.tenants)
		}
		must(t, r.node.store.DeleteRange(last+1, last+1)) // the others go on, without it
		must(t, r.Close())
		h.start(id)
	})
}

// What one leader began another does not go on with.
func TestRestoreEndsWithTheOfficeOfItsLeader(t *testing.T) {
	restoreByHand(t, 3, func(t *testing.T, h *byHand) {
		h.begin()
		h.send(len(h.image))
		h.waitAll(write(t, h.leader(), "kept"))
		h.newTerm()
		if s := h.end(); s.refused == "" {
			t.Error("a restore of the leader before was ended")
		}
		h.wantEverywhere(write(t, h.leader(), "later"), "acme", "kept", "later")
		for _, n := range h.nodes {
			must(t, n.snapshot())
		}
	})
}

func TestANewerRestoreEndsAnOlderOne(t *testing.T) {
	restoreByHand(t, 3, func(t *testing.T, h *byHand) {
		h.begin()
		h.send(len(h.image) / 2)
		index := restore(t, h.leader(), h.image)
		if s := h.send(len(h.image)); s.refused == "" {
			t.Error("a piece of the older one was taken")
		}
		if s := h.end(); s.refused == "" {
			t.Error("the older one was ended")
		}
		h.waitAll(index)
		said := ""
		for e := range h.leader().Machine().Audit(0) {
			if e.Index == index {
				said = e.Actor + ": " + e.Summary
			}
		}
		if said != "test: the whole state was replaced by a backup" {
			t.Errorf("the audit says %q", said)
		}
		h.wantEverywhere(write(t, h.leader(), "after"), sorted(h.tenants, []string{"after"})...)
		for _, n := range h.nodes {
			eventually(t, "a snapshot, behind which the pieces can go", func() bool {
				made, err := n.snaps.List()
				must(t, err)
				return len(made) > 0 && made[0].Index >= index
			})
		}
	})
}

func TestFollowerThatWasAwayForARestoreCatchesUpByTheLogOrASnapshot(t *testing.T) {
	for name, compact := range map[string]bool{"by the log": false, "by a snapshot": true} {
		t.Run(name, func(t *testing.T) {
			restoreByHand(t, 20, func(t *testing.T, h *byHand) {
				h.begin()
				h.send(len(h.image) / 2)
				h.waitAll(write(t, h.leader(), "gone"))
				away := h.follower().c.ID
				h.kill(away) // in the middle
				h.finish()
				after, index := writeMany(t, h.leader(), "after", 10)
				if compact {
					h.waitAll(index)
					h.onlySnapshots()
				}
				h.start(away)
				n := h.nodes[away]
				must(t, n.WaitApplied(within(t, 20*time.Second), index))
				if installed := n.mark.get().Base > 0; installed != compact {
					t.Errorf("sent a snapshot: %v", installed)
				}
				last := write(t, h.leader(), "last")
				h.wantEverywhere(last, sorted(h.tenants, after, []string{"last"})...)
				if n.fsm.open.Load() {
					t.Error("what was open before it was away still is")
				}
			})
		})
	}
}

// What is wrong with the entries is refused by all and changes nothing; what a node cannot
// read, which others can, is its own error.
func TestRestoreOfWhatIsNotWholeChangesNothing(t *testing.T) {
	image, _ := imageAfter(t, 2)
	image = asWritten(t, image)
	other := slices.Clone(image)
	other[len(other)/2] ^= 1
	half := len(image) / 2
	piece := func(id uint64, at int, data []byte) []byte {
		return append(encodePiece(id, int64(at), len(data)), data...)
	}
	batch, err := state.EncodeBatch([]state.Entry{{At: 1, Command: state.Note{}}})
	must(t, err)
	begin := encodeBegin(int64(len(image)), whenever, sha256.Sum256(image))
	whole := [][]byte{begin, piece(1, 0, image[:half]), piece(1, half, image[half:]), encodeEnd(1, batch)}
	with := func(i int, data []byte) [][]byte { return slices.Concat(whole[:i], [][]byte{data}, whole[i+1:]) }
	terms := func(list ...uint64) []uint64 { return list }
	for name, c := range map[string]struct {
		entries [][]byte
		terms   []uint64
		want    string // how the end is refused; empty: it is not
	}{
		"whole":                   {entries: whole},
		"in pieces of another id": {entries: with(2, piece(7, half, image[half:])), want: "octets"},
		"a piece twice":           {entries: with(2, piece(1, 0, image[:half])), want: "given up"},
		"a piece too long":        {entries: with(2, piece(1, half, image)), want: "given up"},
		"a piece is missing":      {entries: with(2, nil), want: "octets"},
		"another image":           {entries: with(2, piece(1, half, other[half:])), want: "not what was sent"},
		"no image": {entries: [][]byte{encodeBegin(4, whenever, sha256.Sum256([]byte("none"))), piece(1, 0, []byte("none")), encodeEnd(1, batch)},
			want: "error"},
		"an image that is damaged": {entries: [][]byte{encodeBegin(int64(len(other)), whenever, sha256.Sum256(other)), piece(1, 0, other), encodeEnd(1, batch)},
			want: "error"},
		"given up before": {entries: with(2, encodeGivenUp()), want: "given up"},
		"another began":   {entries: with(2, begin), want: "given up"},
		"another term":    {entries: whole, terms: terms(1, 1, 1, 2), want: "given up"},
		"a term between":  {entries: with(2, nil), terms: terms(1, 1, 2, 2), want: "given up"},
		"too late":        {entries: with(0, encodeBegin(int64(len(image)), 0, sha256.Sum256(image))), want: "try again"},
		"an empty piece":  {entries: [][]byte{begin, piece(1, 0, image), piece(1, len(image), nil), encodeEnd(1, batch)}},
		"nothing at all":  {entries: [][]byte{encodeBegin(0, whenever, sha256.Sum256(nil)), piece(1, 0, nil), encodeEnd(1, batch)}, want: "error"},
	} {
		t.Run(name, func(t *testing.T) {
			var a applier
			defer a.giveUp()
			before := state.Empty()
			a.begin(before)
			var last any
			for i, data := range c.entries {
				l := &raft.Log{Index: uint64(i + 1), Term: 1, Type: raft.LogCommand, Data: data}
				if c.terms != nil {
					l.Term = c.terms[i]
				}
				e, err := decode(l)
				must(t, err)
				if last, err = a.take(l, e); (err != nil) != (c.want == "error" && i == len(c.entries)-1) {
					t.Fatalf("entry %d: %v", i+1, err)
				}
			}
			m, refused := a.end(), last.(stepAnswer).refused
			switch {
			case c.want == "error":
			case c.want == "" && (refused != "" || !a.replaced || m.DomainCount() == 0):
				t.Errorf("%q, %d domains", refused, m.DomainCount())
			case c.want != "" && (!strings.Contains(refused, c.want) || a.replaced):
				t.Errorf("%q, want %q", refused, c.want)
			}
			if c.want != "" && m.WithIndex(0).Sum() != before.Sum() {
				t.Error("it changed something")
			}
			if m.Index() != uint64(len(c.entries)) || (a.open != nil) != (name == "another began") {
				t.Errorf("at %d of %d, open: %+v", m.Index(), len(c.entries), a.open)
			}
		})
	}
}

func FuzzRestoreStep(f *testing.F) {
	f.Add(encodeBegin(7, whenever, [32]byte{1}))
	f.Add(append(encodePiece(3, 4, 5), "piece"...))
	f.Add(encodeEnd(3, nil))
	f.Add(encodeGivenUp())
	f.Fuzz(func(t *testing.T, data []byte) {
		l := &raft.Log{Index: 1, Term: 1, Type: raft.LogCommand, Data: append([]byte{restoreEntry}, data...)}
		e, err := decode(l)
		if err != nil {
			return
		}
		a := applier{open: beginRestore(&raft.Log{Index: 3, Term: 1}, &restoreStep{size: 8}, state.Empty(), true)}
		defer a.giveUp()
		a.begin(state.Empty())
		if _, err := a.take(l, e); err != nil {
			t.Fatal(err)
		}
		if m := a.end(); m.Index() != 1 || a.open != nil && a.open.got > a.open.size {
			t.Errorf("at %d, open: %+v", m.Index(), a.open)
		}
	})
}
