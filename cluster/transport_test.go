package cluster

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func heldTransport(quiet time.Duration) *transport {
	t := newTransport(nil, newFence(slog.New(slog.DiscardHandler)), quiet)
	t.sent["node-2"] = round{term: 3, previous: 10, commit: 10, at: time.Now()}
	return t
}

func request(term, previous, commit uint64) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{Term: term, PrevLogEntry: previous, LeaderCommitIndex: commit}
}

func TestRoundWithNewsIsSentAtOnce(t *testing.T) {
	for name, r := range map[string]*raft.AppendEntriesRequest{
		"a later commit":  request(3, 10, 11),
		"a later entry":   request(3, 11, 10),
		"another term":    request(4, 10, 10),
		"an unknown peer": request(3, 10, 10),
	} {
		w := heldTransport(time.Hour)
		if name == "an unknown peer" {
			delete(w.sent, "node-2")
		}
		if w.hold("node-2", r) {
			t.Errorf("%s: held back", name)
		}
	}
}

func TestRoundWithoutNewsIsHeldUntilThereAreSome(t *testing.T) {
	w := heldTransport(time.Hour)
	done := make(chan bool)
	go func() { done <- w.hold("node-2", request(3, 10, 10)) }()
	select {
	case <-done:
		t.Fatal("not held")
	case <-time.After(20 * time.Millisecond):
	}
	w.wakeCommitted(11)
	if !<-done {
		t.Error("was sent, though Raft can make a better one now")
	}
	// News that came while Raft made its round count as well.
	if !w.hold("node-2", request(3, 10, 10)) {
		t.Error("an outdated round was sent")
	}
}

func TestRoundIsSentWhenItWasHeldLongEnough(t *testing.T) {
	w := heldTransport(10 * time.Millisecond)
	if w.hold("node-2", request(3, 10, 10)) {
		t.Error("never sent: the leader would believe for ever in a follower that is gone")
	}
	w.wakeAppended(20)
	if w.hold("node-2", request(3, 10, 10)) {
		t.Error("held back by news that Raft does not have")
	}
}
