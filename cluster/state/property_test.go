package state

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"authd/zone"
)

// The property: three machines that apply one log are equal, whatever was
// batched, snapshot and restored on the way; the index of queries that was
// published change by change equals one filled anew; and the namespace keeps its
// rules. batchesPerRun × up to maxPerBatch commands × rapid's 100 runs make well
// over 10,000 commands.
const (
	batchesPerRun = 25
	maxPerBatch   = 10
)

func TestSameLogSameMachine(t *testing.T) {
	commands, refusals := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		run := newRun(t)
		for range batchesPerRun {
			run.batch()
		}
		run.finish()
		commands += run.commands
		refusals += run.refusals
	})
	want := 10_000
	if testing.Short() {
		want /= 5 // as rapid does with its runs
	}
	if commands < want {
		t.Errorf("%d commands, want at least %d", commands, want)
	}
	if refusals == 0 || refusals > commands*3/4 {
		t.Errorf("%d of %d commands were refused: the generators miss the mark", refusals, commands)
	}
	t.Logf("%d commands, %d refused", commands, refusals)
}

// run is one log, with the three machines that apply it.
type run struct {
	t          *rapid.T
	g          generator
	machines   [3]Machine
	tree       *zone.Tree // of the first machine, change by change
	published  Machine    // what the tree shows
	delta      Delta      // and what came since
	index      uint64
	commands   int
	refusals   int
	together   *Applier           // all entries since the last publication, in one
	everTokens map[Token]bool     // tokens of claims that ended
	everBound  map[zone.Name]bool // and the names that were bound to them
}

func newRun(t *rapid.T) *run {
	r := &run{t: t, tree: zone.NewTree(), everTokens: make(map[Token]bool), everBound: make(map[zone.Name]bool)}
	r.g = generator{t: t, at: start}
	for i := range r.machines {
		r.machines[i] = Empty()
	}
	entries := make([]Entry, 0, 16)
	for _, c := range founding() {
		entries = append(entries, Entry{At: start, Actor: "admin-1", Command: c})
	}
	r.apply(entries)
	return r
}

func (r *run) batch() {
	n := rapid.IntRange(1, maxPerBatch).Draw(r.t, "commands")
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = r.g.entry(r.machines[0])
	}
	r.apply(entries)
	for i := 1; i < len(r.machines); i++ {
		if rapid.IntRange(0, 9).Draw(r.t, "restore") == 0 {
			m, err := ReadImage(bytes.NewReader(image(r.t, r.machines[i])))
			if err != nil {
				r.t.Fatalf("machine %d does not come back from its snapshot: %v", i, err)
			}
			r.machines[i] = m
		}
	}
	if rapid.IntRange(0, 2).Draw(r.t, "publish") == 0 {
		r.publish()
	}
}

func (r *run) apply(entries []Entry) {
	data, err := EncodeBatch(entries)
	if err != nil {
		r.t.Fatal(err)
	}
	r.index++
	before := r.machines[0]
	if r.together == nil {
		r.together = before.Applier()
	}
	var first []Result
	for i := range r.machines {
		entries, err := DecodeBatch(data)
		if err != nil {
			r.t.Fatal(err)
		}
		next, results, delta := r.machines[i].Apply(r.index, entries)
		r.machines[i] = next
		if i == 0 {
			first = results
			r.delta.Merge(delta)
		} else if fmt.Sprint(results) != fmt.Sprint(first) {
			for k := range results {
				if fmt.Sprint(results[k]) != fmt.Sprint(first[k]) {
					r.t.Fatalf("machine %d says %s to %T, the first %s", i, results[k].text(), entries[k].Command, first[k].text())
				}
			}
		}
	}
	if entries, err = DecodeBatch(data); err != nil {
		r.t.Fatal(err)
	}
	if results := r.together.Apply(r.index, entries); fmt.Sprint(results) != fmt.Sprint(first) {
		r.t.Fatalf("applied together with entries before it, entry %d gives %v, not %v", r.index, results, first)
	}
	r.checkSums()
	r.commands += len(entries)
	for _, result := range first {
		if result.Refusal != nil {
			r.refusals++
		}
	}
	r.checkRefused(before, entries, first)
	r.checkForEver(before)
	checkOwners(r.t, r.machines[0])
}

// checkSums compares the sums that were kept up to date with those counted anew,
// and those of machines that came from an image with those that never did.
func (r *run) checkSums() {
	want := r.machines[0].Sum()
	for i, m := range r.machines {
		if m.Sum() != want {
			r.t.Fatalf("the sum of machine %d is %x, of the first %x", i, m.Sum(), want)
		}
		if again := m.Recount(nil); again != want {
			r.t.Fatalf("the sum of machine %d is kept as %x, counted %x", i, want, again)
		}
	}
}

// checkRefused applies the batch without what was refused: nothing may differ. A
// step that was too early is left in, because it may move the claim in the queue.
func (r *run) checkRefused(before Machine, entries []Entry, results []Result) {
	var rest []Entry
	at := before.Time()
	for i, e := range entries {
		at = max(at, e.At)
		e.At = at // what a refused command said of the time counts
		_, step := e.Command.(StepKey)
		if refusal := results[i].Refusal; refusal == nil || step && refusal.Kind == TooEarly {
			rest = append(rest, e)
		}
	}
	next, _, _ := before.Apply(r.index, rest)
	if want := r.machines[0]; !bytes.Equal(image(r.t, withIndex(next, want)), image(r.t, want)) {
		r.t.Fatal("a refused command left a trace")
	}
}

// checkForEver sees to it that nothing of a claim that ended comes back.
func (r *run) checkForEver(before Machine) {
	now := r.machines[0]
	for d := range before.Domains(Token{}) {
		if _, ok := now.Domain(d.Token); !ok {
			r.everTokens[d.Token] = true
			for _, n := range d.boundNames() {
				r.everBound[n] = true
			}
		}
	}
	for t := range r.everTokens {
		if _, ok := now.Domain(t); ok || !now.Tombstoned(t) {
			r.t.Fatalf("token %s came back", t)
		}
	}
	for d := range now.Domains(Token{}) {
		for _, n := range d.boundNames() {
			if r.everBound[n] {
				r.t.Fatalf("bound name %s came back with claim %s", n, d.Token)
			}
		}
	}
}

func (r *run) publish() {
	together, delta := r.together.Machine()
	r.together = nil
	if !bytes.Equal(image(r.t, together), image(r.t, r.machines[0])) || together.Sum() != r.machines[0].Sum() {
		r.t.Fatal("entries applied together make another machine than one by one")
	}
	if delta.check = false; fmt.Sprint(delta) != fmt.Sprint(r.delta) {
		r.t.Fatalf("entries applied together changed %v, one by one %v", delta, r.delta)
	}
	e := r.tree.Edit()
	r.machines[0].Publish(e, r.published, r.delta)
	e.Commit()
	r.published, r.delta = r.machines[0], Delta{}
	if diff := r.tree.Diff(filled(r.machines[0])); diff != nil {
		r.t.Fatalf("the index published change by change differs:\n%s", strings.Join(diff[:min(len(diff), 5)], "\n"))
	}
}

func (r *run) finish() {
	if r.together != nil {
		r.publish()
	}
	want := image(r.t, r.machines[0])
	for i, m := range r.machines {
		if !bytes.Equal(image(r.t, m), want) {
			r.t.Fatalf("machine %d differs from the first", i)
		}
	}
	checkMachine(r.t, r.machines[0])
}
