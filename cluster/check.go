package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"authd/cluster/state"
)

const (
	// keptSums is how many places of the log a node remembers its sum of.
	keptSums = 8
	// sumPoll is how often a node looks whether it has come to a place.
	sumPoll = 20 * time.Millisecond
)

// checker compares the machines of all nodes at marked places of the log, where
// equal nodes have equal sums. Each node judges for itself: one that a majority
// of the voters contradicts is fenced off, and where no majority agrees nobody is,
// but no more is written until a later comparison finds one.
type checker struct {
	node  *Node
	taken chan state.Machine

	// mu guards what follows.
	mu       sync.Mutex
	own      []ownSum // the last, oldest first
	reports  []CheckReport
	changed  chan struct{} // closed by the next report
	last     time.Time     // of the last place
	alarm    string        // why no more is written; empty: nothing
	diverged string        // others that are wrong; empty: none
	memory   string        // why this node's own memory is not trusted; empty: it is
	count    CheckCounts
}

// ownSum is this node's sum at a place.
type ownSum struct {
	index uint64
	sum   state.Sum
}

// CheckReport is what one comparison found.
type CheckReport struct {
	Index   uint64
	Verdict Verdict
	Nodes   []NodeSum
}

// NodeSum is one node in a comparison.
type NodeSum struct {
	ID string
	// Sum is empty where the node did not answer, or has another release's form.
	Sum string
	// Right: it agrees with the majority of the voters.
	Right bool
}

// Verdict is what a comparison came to.
type Verdict string

const (
	// Agreed: all that answered are equal, and a majority of the voters did.
	Agreed Verdict = "agreed"
	// Diverged: a majority of the voters is equal, and some node differs.
	Diverged Verdict = "diverged"
	// Split: nodes differ, and no majority says who is right.
	Split Verdict = "split"
	// Unclear: too few answered to tell.
	Unclear Verdict = "unclear"
)

// CheckCounts counts comparisons by what they came to.
type CheckCounts struct {
	Agreed, Diverged, Split, Unclear uint64
	// Index is the place of the last one.
	Index uint64
	// Alarm: writes are stopped until nodes agree.
	Alarm bool
	// Recounts are how often the node counted its own memory anew, Corrupt how often
	// that was not what had been written.
	Recounts, Corrupt uint64
}

func newChecker(n *Node) *checker {
	return &checker{node: n, taken: make(chan state.Machine, keptSums), changed: make(chan struct{}), last: time.Now()}
}

// take is called with the machine of a marked place, from the goroutine that
// applies. Where too many wait already the place is left out.
func (c *checker) take(m state.Machine) {
	select {
	case c.taken <- m:
	default:
	}
}

// run sums the machines of marked places and compares.
func (c *checker) run() {
	for {
		select {
		case m := <-c.taken:
			own := ownSum{m.Index(), m.Sum()}
			c.mu.Lock()
			c.own = append(c.own, own)
			c.own = c.own[max(0, len(c.own)-keptSums):]
			c.last = time.Now()
			c.mu.Unlock()
			c.settle(c.compare(own))
		case <-c.node.ctx.Done():
			return
		}
	}
}

// propose marks places, on the leader.
func (c *checker) propose() {
	tick := time.NewTicker(c.node.tuning.recheck / 4)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.node.fence.tripped:
			return
		case <-c.node.ctx.Done():
			return
		}
		c.mu.Lock()
		since, every := time.Since(c.last), c.node.tuning.check
		if c.alarm != "" {
			every = c.node.tuning.recheck
		}
		c.mu.Unlock()
		if since < every || !c.node.leads() {
			continue
		}
		ctx, cancel := context.WithTimeout(c.node.ctx, callTime)
		_, _, err := c.node.Propose(ctx, Actor{ID: "checker"}, state.CheckState{})
		cancel()
		if err != nil && c.node.ctx.Err() == nil {
			c.node.logger.Warn("state check not committed, trying again", "error", err)
		}
	}
}

// CheckState has all nodes compare their states now, and returns what this node
// found.
func (n *Node) CheckState(ctx context.Context) (CheckReport, error) {
	_, index, err := n.Propose(ctx, Actor{ID: "checker"}, state.CheckState{})
	if err != nil {
		return CheckReport{}, err
	}
	c := n.checker
	for {
		c.mu.Lock()
		changed := c.changed
		at := slices.IndexFunc(c.reports, func(r CheckReport) bool { return r.Index == index })
		var found CheckReport
		if at >= 0 {
			found = c.reports[at]
		}
		c.mu.Unlock()
		if at >= 0 {
			return found, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return CheckReport{}, kindError{ErrUnknown, fmt.Errorf("comparing states at index %d: %w", index, ctx.Err())}
		case <-n.ctx.Done():
			return CheckReport{}, kindError{ErrUnknown, errors.New("node closed")}
		}
	}
}

// CheckCounts are for the metrics.
func (n *Node) CheckCounts() CheckCounts {
	c := n.checker
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.count
	counts.Alarm = c.alarm != ""
	return counts
}

type sumAsk struct {
	Index uint64 `cbor:"1,keyasint"`
}

type sumReply struct {
	Form uint32    `cbor:"1,keyasint"`
	Sum  state.Sum `cbor:"2,keyasint"`
}

// comparable is the sum where it has this release's form; nil otherwise.
func (r *sumReply) comparable() *state.Sum {
	if r.Form != state.SumForm {
		return nil
	}
	return &r.Sum
}

// answer waits until this node has the sum of a place.
func (c *checker) answer(ctx context.Context, a sumAsk) (sumReply, error) {
	tick := time.NewTicker(sumPoll)
	defer tick.Stop()
	for {
		c.mu.Lock()
		at := slices.IndexFunc(c.own, func(s ownSum) bool { return s.index == a.Index })
		var sum state.Sum
		if at >= 0 {
			sum = c.own[at].sum
		}
		c.mu.Unlock()
		if at >= 0 {
			return sumReply{state.SumForm, sum}, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return sumReply{}, fmt.Errorf("node %s has no sum of index %d", c.node.c.ID, a.Index)
		}
	}
}

// vote is one node's sum; nil where it did not answer or cannot be compared.
type vote struct {
	id    string
	voter bool
	sum   *state.Sum
}

// compare asks all others for their sums of a place.
func (c *checker) compare(own ownSum) CheckReport {
	ctx, cancel := context.WithTimeout(c.node.ctx, c.node.tuning.checkWait)
	defer cancel()
	members := c.node.members()
	votes := make([]vote, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		votes[i] = vote{id: m.ID, voter: m.Voter}
		if m.ID == c.node.c.ID {
			votes[i].sum = &own.sum
			continue
		}
		wg.Go(func() {
			var r sumReply
			if c.node.peers.callMember(ctx, m, callSum, sumAsk{own.index}, &r) == nil {
				votes[i].sum = r.comparable()
			}
		})
	}
	wg.Wait()
	return judge(own.index, votes)
}

// judge says who is right.
func judge(index uint64, votes []vote) CheckReport {
	r := CheckReport{Index: index, Verdict: Unclear}
	voters := 0
	by := make(map[state.Sum]int)
	for _, v := range votes {
		if v.voter {
			voters++
		}
		if v.sum != nil {
			by[*v.sum] += 0
			if v.voter {
				by[*v.sum]++
			}
		}
	}
	var right *state.Sum
	for sum, n := range by {
		if n > voters/2 {
			right = &sum
		}
	}
	switch {
	case right != nil && len(by) == 1:
		r.Verdict = Agreed
	case right != nil:
		r.Verdict = Diverged
	case len(by) > 1:
		r.Verdict = Split
	}
	for _, v := range votes {
		n := NodeSum{ID: v.id}
		if v.sum != nil {
			n.Sum = fmt.Sprintf("%016x", uint64(*v.sum))
			n.Right = right != nil && *v.sum == *right
		}
		r.Nodes = append(r.Nodes, n)
	}
	return r
}

// of finds a node in a report.
func (r CheckReport) of(id string) NodeSum {
	for _, n := range r.Nodes {
		if n.ID == id {
			return n
		}
	}
	return NodeSum{ID: id}
}

// String names who answered what.
func (r CheckReport) String() string {
	var b strings.Builder
	for i, n := range r.Nodes {
		if i > 0 {
			b.WriteString(", ")
		}
		sum := n.Sum
		if sum == "" {
			sum = "no answer"
		}
		fmt.Fprintf(&b, "%s %s", n.ID, sum)
	}
	return b.String()
}

// wrong lists the nodes that a majority contradicts.
func (r CheckReport) wrong() (ids []string) {
	for _, n := range r.Nodes {
		if r.Verdict == Diverged && n.Sum != "" && !n.Right {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// settle acts on a comparison.
func (c *checker) settle(r CheckReport) {
	wrong := r.wrong()
	if slices.Contains(wrong, c.node.c.ID) {
		c.standDown(r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Verdict {
	case Agreed:
		c.count.Agreed++
		c.alarm, c.diverged = "", ""
	case Diverged:
		c.count.Diverged++
		c.alarm, c.diverged = "", fmt.Sprintf("state check at index %d: %s differs from the majority (%s): it fences itself off; see that its successor starts", r.Index, strings.Join(wrong, ", "), r)
		c.node.logger.Error("a node's state has diverged", "index", r.Index, "nodes", wrong, "sums", r.String())
	case Split:
		c.count.Split++
		c.alarm = fmt.Sprintf("state check at index %d: nodes differ and no majority agrees (%s): bring the missing nodes back; DNS goes on", r.Index, r)
		c.node.logger.Error("nodes differ and no majority agrees: writes are stopped", "index", r.Index, "sums", r.String())
	case Unclear:
		c.count.Unclear++
	}
	c.count.Index = r.Index
	c.reports = append(c.reports, r)
	c.reports = c.reports[max(0, len(c.reports)-keptSums):]
	close(c.changed)
	c.changed = make(chan struct{})
}

// problems are those that Health shows.
func (c *checker) problems() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, p := range []string{c.alarm, c.diverged, c.memory} {
		if p != "" {
			list = append(list, p)
		}
	}
	return list
}

// stopped says why this leader takes no writes; empty: it does.
func (n *Node) stopped() string {
	n.checker.mu.Lock()
	alarm := n.checker.alarm
	n.checker.mu.Unlock()
	if alarm != "" {
		return alarm
	}
	return n.disk.stops()
}

// checks says whether a batch marks places and does nothing else. That goes on where
// writes are stopped, because it is what ends the stop.
func (b batch) checks() bool {
	return !slices.ContainsFunc(b.entries, func(e state.Entry) bool { return e.Command.Code() != state.CodeCheckState })
}
