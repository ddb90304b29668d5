package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func patience() tuning {
	t := quick()
	t.heartbeat, t.election, t.lease = 40*time.Second, 40*time.Second, time.Second
	return t
}

// patient is a cluster whose heartbeat and election timeouts are longer than any
// test waits, with a leader all the same.
func patient(t *testing.T) *testCluster {
	t.Helper()
	c := newTestCluster(t, 3)
	c.tuning = patience()
	c.startAll()
	first, second := c.nodes["node-1"], c.nodes["node-2"]
	must(t, callToAnElection(second, first))
	c.leader()
	return c
}

// callToAnElection has a node tell another to stand.
func callToAnElection(from, to *Node) error {
	call := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(from.c.ID)}}
	return from.transport.TimeoutNow(raft.ServerID(to.c.ID), to.transport.LocalAddr(), call, new(raft.TimeoutNowResponse))
}

func TestNobodyButTheLeaderDeposesIt(t *testing.T) {
	c := patient(t)
	leader := c.leader()
	c.waitAll(write(t, leader, "before"))
	term := leader.raft().CurrentTerm()
	for _, from := range c.nodes {
		for _, to := range c.nodes {
			if from == leader || from == to {
				continue
			}
			eventually(t, to.c.ID+" to know who leads", func() bool { return to.Leader() == leader.c.ID })
			if err := callToAnElection(from, to); err == nil || !strings.Contains(err.Error(), leader.c.ID+" leads") {
				t.Errorf("%s tells %s to stand: %v", from.c.ID, to.c.ID, err)
			}
		}
	}
	if !leader.leads() || leader.raft().CurrentTerm() != term {
		t.Errorf("%s leads no more", leader.c.ID)
	}
}

// The library alone would not look for another leader before a test gives up.
func TestLeaderWhoseProcessEndedIsReplacedSoon(t *testing.T) {
	c := patient(t)
	for i := range 3 {
		leader := c.leader()
		write(t, leader, fmt.Sprintf("tenant-%d", i))
		id := leader.c.ID
		c.kill(id)
		c.leader()
		c.start(id)
		c.leader()
	}
}

// Each would grant the other's wish, and then vote for itself.
func TestOfTwoWishesThatCrossOneGoesFirst(t *testing.T) {
	wish := func(id string, term, index uint64) (*suspicion, *raft.RequestPreVoteRequest) {
		q := &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(id)}, LastLogTerm: term, LastLogIndex: index}
		s := &suspicion{node: &Node{tuning: patience()}}
		if !s.asks(q) {
			t.Fatal("nobody goes first, and it does not ask")
		}
		return s, q
	}
	for name, c := range map[string]struct{ term, index uint64 }{
		"as long as the other's": {3, 100},
		"longer":                 {3, 101},
		"of a later term":        {4, 90},
	} {
		a, qa := wish("node-2", c.term, c.index)
		b, qb := wish("node-1", 3, 100)
		if !a.beats(qb) || b.beats(qa) {
			t.Errorf("log %s: %t and %t", name, a.beats(qb), b.beats(qa))
		}
	}
	a, _ := wish("node-2", 3, 100)
	a.wished = time.Time{}
	if _, q := wish("node-1", 3, 100); a.beats(q) {
		t.Error("a wish of long ago is in the way")
	}
	a.deferred = time.Now().Add(time.Minute)
	if a.asks(&raft.RequestPreVoteRequest{}) {
		t.Error("it asks where another goes first")
	}
}
