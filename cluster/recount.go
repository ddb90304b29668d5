package cluster

import (
	"fmt"
	"time"
)

// The sums that nodes compare are kept up to date with each change, so they say
// what was written, not what memory holds by now. A node therefore counts its own
// machine anew, slowly, and compares. It only raises the alarm: were the fault in
// how sums are kept, fencing would take all nodes at once.
const (
	// recountEvery is the rest between two counts.
	recountEvery = 10 * time.Minute
	// recountShare is how many times as long as it counts it rests, claim by claim:
	// a hundredth of a core, also while it counts.
	recountShare = 100
)

// recount counts this node's machine again and again.
func (c *checker) recount() {
	n := c.node
	for {
		select {
		case <-time.After(n.tuning.recount):
		case <-n.ctx.Done():
			return
		}
		m := n.Machine()
		began := time.Now()
		counted := m.Recount(func() bool {
			select {
			case <-time.After(recountShare * time.Since(began)):
			case <-n.ctx.Done():
				return false
			}
			began = time.Now()
			return true
		})
		if n.ctx.Err() != nil {
			return
		}
		kept := m.Sum()
		c.mu.Lock()
		c.count.Recounts++
		before := c.memory
		c.memory = ""
		if counted != kept {
			c.count.Corrupt++
			c.memory = fmt.Sprintf("the state in this node's memory is not what was written there (sum %016x, counted %016x at index %d): restart this node, which reads it anew, and test the machine's memory", uint64(kept), uint64(counted), m.Index())
		}
		now := c.memory
		c.mu.Unlock()
		if now != "" && before == "" {
			n.logger.Error("memory went bad", "problem", now)
		}
	}
}
