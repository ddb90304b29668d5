package cluster

import (
	"context"
	"time"

	"authd/cluster/state"
)

// keepReads is the goroutine that tells the cluster where the journal ends when that
// changed, at most once a minute. After a minute's rest it tells at once, so that what a
// thief read cannot be cut off before anybody knows. Without a quorum it is told later.
func (n *Node) keepReads() {
	tick := time.NewTicker(n.tuning.reads)
	defer tick.Stop()
	grew := n.journal.grew // nil for a minute after the cluster was told
	for {
		if err := n.journal.check(); err != nil {
			n.logger.Error("opening the journal of key reads", "error", err)
		}
		select {
		case <-tick.C:
			grew = n.journal.grew
		case <-grew:
		case <-n.ctx.Done():
			return
		}
		if n.tellReads() {
			grew = nil
			tick.Reset(n.tuning.reads)
		}
	}
}

// tellReads proposes where the journal ends, and says whether that was news.
func (n *Node) tellReads() bool {
	seq, hash, repeats := n.journal.head()
	had, _ := n.Machine().ReadsHead(n.c.ID)
	if seq < had.Seq || seq == had.Seq && repeats <= had.Repeats {
		return false
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.tuning.reads)
	defer cancel()
	c := state.SetReads{Node: n.c.ID, Seq: seq, Head: hash, Repeats: max(repeats, had.Repeats)}
	results, _, err := n.Propose(ctx, Actor{ID: "journal"}, c)
	switch {
	case err != nil:
		n.logger.Debug("telling the cluster where the journal of key reads ends", "error", err)
	case results[0].Refusal != nil:
		n.logger.Error("the cluster does not take the end of this node's journal of key reads", "reason", results[0].Refusal.Message)
	}
	return true
}
