package cluster

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// bbolt does not notice an octet that turned in the middle of an entry: it was
// applied as it read, on that node alone.
func TestADamagedEntryIsNeverApplied(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	write(t, c.leader(), "first")
	write(t, c.leader(), "damaged-0")
	index := write(t, c.leader(), "last")
	c.waitAll(index)
	hurt := c.follower().c.ID
	c.stop(hurt)
	path := filepath.Join(c.data(hurt), raftFile)
	text, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Contains(text, []byte("damaged-0")) {
		t.Fatal("the entry is not where it was expected")
	}
	must(t, os.WriteFile(path, bytes.ReplaceAll(text, []byte("damaged-0"), []byte("damaged-1")), 0o600))

	n := c.open(hurt)
	if has(n, "damaged-1") {
		t.Fatal("it applied what nobody wrote")
	}
	if n.Needs() < index {
		t.Errorf("it would serve from %d on, it had served %d", n.Needs(), index)
	}
	must(t, n.Start())
	c.waitAll(write(t, c.leader(), "more"))
	wantTenants(t, n, "damaged-0", "first", "last", "more")
}

func TestADamagedVoteIsNoVote(t *testing.T) {
	s, err := openStore(t.TempDir(), false, newFence(slog.New(slog.DiscardHandler)))
	must(t, err)
	defer s.Close()
	must(t, s.SetUint64([]byte("term"), 7))
	if term, err := s.GetUint64([]byte("term")); term != 7 || err != nil {
		t.Fatalf("%d, %v", term, err)
	}
	stored, err := s.bolt.Get([]byte("term"))
	must(t, err)
	stored = bytes.Clone(stored)
	stored[7] ^= 1
	must(t, s.bolt.Set([]byte("term"), stored))
	if term, err := s.GetUint64([]byte("term")); !errors.Is(err, errDamaged) {
		t.Errorf("%d, %v", term, err)
	}
}

// A damaged entry that a snapshot covers is of use to a follower only: it used to
// fence the leader off when one asked for it.
func TestADamagedEntryThatTheSnapshotCoversIsNotAskedFor(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.waitAll(write(t, c.leader(), "first"))
	away := c.follower().c.ID
	c.stop(away)
	hurt := write(t, c.leader(), "damaged")
	c.waitAll(write(t, c.leader(), "last"))
	var others []string
	for id, n := range c.nodes {
		must(t, n.snapshot())
		others = append(others, id)
	}
	for _, id := range others {
		c.stop(id)
		store, err := openStore(c.data(id), false, newFence(slog.New(slog.DiscardHandler)))
		must(t, err)
		var l raft.Log
		must(t, store.GetLog(hurt, &l))
		l.Data = append(bytes.Clone(l.Data[:len(l.Data)-1]), l.Data[len(l.Data)-1]^1)
		l.Extensions = []byte("0000")
		must(t, store.bolt.StoreLogs([]*raft.Log{&l}))
		must(t, store.Close())
	}
	c.start(others...)
	leader := c.leader()
	c.start(away)
	c.waitAll(write(t, leader, "more"))
	for id, n := range c.nodes {
		wantTenants(t, n, "damaged", "first", "last", "more")
		if n.fence.err() != nil {
			t.Errorf("%s was fenced: %v", id, n.fence.err())
		}
	}
	if leader.Figures().LogDamaged == 0 {
		t.Fatal("nobody asked for the damaged entry")
	}
	if k := checkOf(leader, "log"); k.OK || k.Blocks || !strings.Contains(k.Detail, "damaged") {
		t.Errorf("/ready says %+v", k)
	}
	c.onlySnapshots() // deletes what is damaged
	if _, at := leader.store.damages(); at > 0 && func() bool { first, _ := leader.store.FirstIndex(); return first > at }() {
		t.Errorf("entry %d is gone and still told of", at)
	}
}

// Raft asks for the last entry when it starts, also where a snapshot covers it.
func TestALogThatEndsInADamagedEntryThatTheSnapshotCovers(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	write(t, c.leader(), "kept")
	must(t, c.leader().snapshot())
	c.stop("node-1")
	store, err := openStore(c.data("node-1"), false, newFence(slog.New(slog.DiscardHandler)))
	must(t, err)
	snaps, err := raft.NewFileSnapshotStore(c.data("node-1"), 2, io.Discard)
	must(t, err)
	list, err := snaps.List()
	must(t, err)
	last, err := store.LastIndex()
	must(t, err)
	if len(list) == 0 || list[0].Index > last {
		t.Fatalf("log to %d, snapshots %v", last, list)
	}
	if last > list[0].Index {
		must(t, store.bolt.DeleteRange(list[0].Index+1, last))
	}
	var l raft.Log
	must(t, store.GetLog(list[0].Index, &l))
	l.Extensions = []byte("0000")
	must(t, store.bolt.StoreLogs([]*raft.Log{&l}))
	must(t, store.Close())
	c.start("node-1")
	write(t, c.leader(), "more")
	wantTenants(t, c.leader(), "kept", "more")
}
