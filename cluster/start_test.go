package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// lateAnswer is what the library answers half of answerTime after the node began to close.
type lateAnswer struct {
	node  *Node
	asked chan struct{}
	state chan raft.RaftState // the library's when it answered
}

func (l lateAnswer) Error() error {
	close(l.asked)
	<-l.node.ctx.Done()
	time.Sleep(answerTime / 2)
	l.state <- l.node.raft().State()
	return nil
}

// TestClosingWaitsForWhatTheLibraryOwes: entries in its queue when it ends are never
// answered, and who waits for one would never end.
func TestClosingWaitsForWhatTheLibraryOwes(t *testing.T) {
	inVirtualTimeOf(t, 1, calm(), func(t *testing.T, v *virtual) {
		n := v.waitLeader()
		owed := lateAnswer{node: n, asked: make(chan struct{}), state: make(chan raft.RaftState, 1)}
		go n.await(context.Background(), owed)
		<-owed.asked
		v.stop(n.c.ID)
		if s := <-owed.state; s == raft.Shutdown {
			t.Error("the library was ended while it owed an answer")
		}
		if err := n.await(context.Background(), nil); err == nil || n.awaited.Load() != 0 {
			t.Errorf("on a closed node: %v, and %d awaited", err, n.awaited.Load())
		}
	})
}
