package cluster

import (
	"testing"
	"time"
)

func TestSnapshotsFollowOctetsAndReplayTime(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for what, c := range map[string]struct {
		tail tailSize
		due  bool
	}{
		"nothing":                  {tailSize{}, false},
		"a million quick entries":  {tailSize{1_000_000, maxTail, maxReplay}, false},
		"more octets":              {tailSize{1, maxTail + 1, 0}, true},
		"a few that are slow":      {tailSize{3, 300, maxReplay + 1}, true},
		"time without any entries": {tailSize{0, 0, mostReplay + 1}, false},
	} {
		tail := tail{tailSize: c.tail}
		if due := tail.due(now, 0); due != c.due {
			t.Errorf("%s: due %t", what, due)
		}
	}
}

func TestSnapshotsRestBetweenEachOther(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	const took = 8 * time.Second
	long := tailSize{10, maxTail + 1, maxReplay + 1}
	var n tail
	n.tailSize = long
	began := n.size()
	n.add(5, 100) // while it is written
	n.applied(time.Second)
	n.made(began, took, now)
	if left := n.size(); left != (tailSize{5, 100, time.Second}) {
		t.Fatalf("after the snapshot the tail is %+v", left)
	}
	n.add(10, maxTail)
	n.applied(maxReplay)
	for _, c := range []struct {
		after time.Duration
		due   bool
	}{{0, false}, {took, false}, {snapshotRest*took - 1, false}, {snapshotRest * took, true}} {
		if due := n.due(now.Add(c.after), 0); due != c.due {
			t.Errorf("%s after a snapshot of %s: due %t", c.after, took, due)
		}
	}
	// A start would be late: it need not rest so long.
	n.applied(mostReplay)
	for _, c := range []struct {
		after time.Duration
		due   bool
	}{{took - 1, false}, {took, true}} {
		if due := n.due(now.Add(c.after), 0); due != c.due {
			t.Errorf("with a tail of %s, %s after a snapshot of %s: due %t", n.size().replay, c.after, took, due)
		}
	}
}

func TestMembersBeginTheirSnapshotsApart(t *testing.T) {
	for _, c := range []struct {
		percent time.Duration // of the longest tail
		first   int           // of the members that are due
	}{{39, 9}, {41, 2}, {71, 1}, {101, 0}} {
		n := tail{tailSize: tailSize{entries: 1, replay: maxReplay * c.percent / 100}}
		for before := range 9 {
			if due := n.due(time.Now(), before); due != (before >= c.first) {
				t.Errorf("with %d %% of the longest tail and %d members before it: due %t", c.percent, before, due)
			}
		}
	}
}

func TestWritingASnapshotRestsLessAsTheTailGrows(t *testing.T) {
	for _, c := range []struct {
		size tailSize
		want int
	}{
		{tailSize{1, maxTail, maxReplay}, paceRest},
		{tailSize{1, maxTail, mostReplay - time.Second + 1}, 1},
		{tailSize{1, maxTail, mostReplay + 1}, 0},
		{tailSize{1, maxTail*3/2 + 1, 0}, 1},
		{tailSize{1, 2*maxTail + 1, 0}, 0},
	} {
		n := tail{tailSize: c.size}
		if got := n.rests(); got != c.want {
			t.Errorf("%+v: rests %d steps, want %d", c.size, got, c.want)
		}
	}
}

func TestLogKeptBehindASnapshotIsBounded(t *testing.T) {
	for _, c := range []struct {
		size tailSize
		want uint64
	}{
		{tailSize{}, minTrailing},
		{tailSize{entries: 1000, octets: 1000 * (64 << 10)}, trailingOctets / (64<<10 + 1)},
		{tailSize{entries: 1000, octets: 1000 * 100}, maxTrailing},
		{tailSize{entries: 10, octets: 10 * (16 << 20)}, minTrailing},
	} {
		n := tail{tailSize: c.size}
		if got := n.trailing(minTrailing); got != c.want {
			t.Errorf("%+v: %d entries stay, want %d", c.size, got, c.want)
		}
	}
}
