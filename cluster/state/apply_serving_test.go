package state

import (
	"strings"
	"testing"
)

func TestNodeLeavesTheServingSetOnlyByAStatement(t *testing.T) {
	w := newWorld(t)
	w.refuse(SetServing{Node: "node-3"}, Invalid, "statement", "node-3", "is off, or out of every address list for its TTL")
	w.refuse(SetServing{Node: "node-3", Statement: " \t"}, Invalid, "statement")
	w.refuse(SetServing{Node: "node-3", Statement: strings.Repeat("x", MaxStatement+1)}, Invalid, "statement", "at most 500")
	w.refuse(SetServing{Node: "Node 3", Statement: "it is off"}, Invalid, "id")
	if r := w.do(SetServing{Node: "node-3", Serving: true}); r.Changed || r.Refusal != nil {
		t.Errorf("%+v", r)
	}
	w.must(SetServing{Node: "node-3", Statement: "its host is dead"})
	w.must(SetServing{Node: "node-2", Statement: "moved"})
	off, ok := w.m.Off("node-3")
	if !ok || off != (OffNode{"node-3", w.at, "its host is dead"}) {
		t.Fatalf("%+v", off)
	}
	w.later(60)
	if r := w.do(SetServing{Node: "node-3", Statement: "another"}); r.Changed {
		t.Error("a second statement took the place of the first")
	}
	w.checkIndexes() // the image has them, in order

	// A backup made before knows nothing of it.
	next, results, _ := w.m.Apply(w.m.Index()+1, []Entry{{At: w.at, Command: SetServing{Node: "node-2", Serving: true}}})
	if results[0].Refusal != nil || len(next.OffNodes()) != 1 || len(w.m.OffNodes()) != 2 {
		t.Fatalf("%+v, before %+v", next.OffNodes(), w.m.OffNodes())
	}
	if restored := succeed(t, w.m, next, next); len(restored.OffNodes()) != 1 {
		t.Errorf("a backup brought back %+v", restored.OffNodes())
	}
	for n := range maxOff - 2 {
		w.must(SetServing{Node: "n" + strings.Repeat("x", n%60) + string(rune('a'+n/60)), Statement: "it is off"})
	}
	w.refuse(SetServing{Node: "more", Statement: "it is off"}, Invalid, "id", "at most 64")
}
