package cluster

import (
	"context"
	"testing"
)

// pendingAnswer is what the library owes.
type pendingAnswer chan error

func (p pendingAnswer) Error() error { return <-p }

// TestClosingWaitsForWhatTheLibraryOwes: entries in its queue when it ends are never
// answered, and who waits for one would never end.
func TestClosingWaitsForWhatTheLibraryOwes(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	owed := make(pendingAnswer)
	heard, closed := make(chan error, 1), make(chan error, 1)
	go func() { heard <- n.await(within(t, answerTime), owed) }()
	eventually(t, "the answer is awaited", func() bool { return n.awaited.Load() > 0 })
	go func() { closed <- n.Close(context.Background()) }()
	<-n.ctx.Done()
	if n.raft().State().String() == "Shutdown" {
		t.Error("the library was ended while it owed an answer")
	}
	owed <- nil
	must(t, <-heard)
	must(t, <-closed)
	if err := n.await(context.Background(), owed); err == nil || n.awaited.Load() != 0 {
		t.Errorf("on a closed node: %v, and %d await", err, n.awaited.Load())
	}
}
