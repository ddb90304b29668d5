package state

import (
	"fmt"
	"testing"
)

func TestHeadsOfJournalsOnlyGrow(t *testing.T) {
	w := newWorld(t)
	before, _ := w.m.AuditHead()
	w.must(SetReads{Node: "node-1", Seq: 5, Head: AuditHash{5}, Repeats: 9})
	w.must(SetReads{Node: "node-1", Seq: 5, Head: AuditHash{5}, Repeats: 10})
	w.refuse(SetReads{Node: "node-1", Seq: 4, Head: AuditHash{4}, Repeats: 10}, Stale, "seq", "5 entries")
	w.refuse(SetReads{Node: "node-1", Seq: 6, Head: AuditHash{6}, Repeats: 9}, Stale, "seq")
	w.refuse(SetReads{Node: "node-1", Seq: 5, Head: AuditHash{6}, Repeats: 10}, Conflict, "head")
	w.refuse(SetReads{Seq: 5}, Invalid, "node")
	w.later(60)
	w.must(SetReads{Node: "node-1", Seq: 6, Head: AuditHash{6}, Repeats: 10})
	if h, ok := w.m.ReadsHead("node-1"); !ok || h.Seq != 6 || h.At != w.at {
		t.Errorf("%+v", h)
	}
	if after, _ := w.m.AuditHead(); after != before {
		t.Errorf("they left %d entries in the audit", after-before)
	}
	w.checkIndexes()
}

func TestHeadsOfJournalsAreBounded(t *testing.T) {
	w := newWorld(t)
	for n := range maxReadsHeads + 3 {
		w.later(60)
		w.must(SetReads{Node: fmt.Sprintf("node-%d", n), Seq: 1})
	}
	if n := len(w.m.ReadsHeads()); n != maxReadsHeads {
		t.Errorf("%d heads", n)
	}
	for n, there := range map[int]bool{0: false, 2: false, 3: true, maxReadsHeads + 2: true} {
		if _, ok := w.m.ReadsHead(fmt.Sprintf("node-%d", n)); ok != there {
			t.Errorf("node-%d: %t", n, ok)
		}
	}
	w.checkIndexes()
}
