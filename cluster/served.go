package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"authd/zone"
)

const (
	// confirmTry is how long a node may take to confirm before who is waited for is
	// looked at again.
	confirmTry = time.Second
	// confirmPause is the pause before a node that did not confirm is asked again,
	// and the longest before its listener is; that one is asked again at once first,
	// since it may merely be a moment behind or ahead.
	confirmPause = 200 * time.Millisecond
	firstPause   = time.Millisecond
)

// WaitServed waits until every serving node has confirmed that it answers with
// an index applied and has made its mark durable, and its own DNS listener was seen
// to answer questions as this node's index does. A node that cannot be asked holds
// it until ctx is done, or an operator takes it out of the serving set; the error
// names the nodes waited for, and why.
func (n *Node) WaitServed(ctx context.Context, index uint64, questions ...zone.Question) error {
	// What is expected of the others is what this node answers: from that index on.
	if err := n.WaitApplied(ctx, index); err != nil {
		return fmt.Errorf("waiting for %s itself to serve index %d: %w", n.c.ID, index, err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var waiting []string
	for _, m := range n.servingSet() {
		wg.Go(func() {
			if why := n.awaitServed(ctx, m.ID, index, questions); why != "" {
				mu.Lock()
				defer mu.Unlock()
				waiting = append(waiting, m.ID+" ("+why+")")
			}
		})
	}
	wg.Wait()
	if len(waiting) > 0 {
		cause := ctx.Err()
		if cause == nil {
			cause = errors.New("node closed or fenced")
		}
		slices.Sort(waiting)
		return fmt.Errorf("waiting for %s to serve index %d: %w", strings.Join(waiting, ", "), index, cause)
	}
	return nil
}

// awaitServed waits for one node; why that ended without it, or empty.
func (n *Node) awaitServed(ctx context.Context, id string, index uint64, questions []zone.Question) (why string) {
	var sight *zone.Sight
	pause := confirmPause
	for {
		serving := n.servingSet()
		at := slices.IndexFunc(serving, func(m Member) bool { return m.ID == id })
		if at < 0 {
			return ""
		}
		if sight == nil {
			sight, why = n.confirmed(ctx, serving[at], index, questions)
			if sight != nil {
				pause = firstPause
			}
		}
		if sight != nil {
			switch said, err := look(ctx, sight); {
			case err == nil && said == "":
				return ""
			case err == nil:
				why = said
			case why == "" || ctx.Err() == nil: // what it answered says more than that time is up
				why = err.Error()
			}
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, confirmPause)
		case <-ctx.Done():
			return why
		case <-n.fence.tripped:
			return why
		case <-n.ctx.Done():
			return why
		}
	}
}

// confirmed asks a node for its index; with that confirmed there is a listener to
// look at, or nothing to ask it.
func (n *Node) confirmed(ctx context.Context, m Member, index uint64, questions []zone.Question) (*zone.Sight, string) {
	ctx, cancel := context.WithTimeout(ctx, confirmTry)
	defer cancel()
	r, err := n.askConfirm(ctx, m, index)
	switch {
	case err != nil:
		return nil, "it cannot be asked: " + err.Error()
	case r.Applied < index:
		return nil, fmt.Sprintf("it is at index %d", r.Applied)
	case r.Answers == "":
		questions = nil // its listeners are closed, and open only once it is as far as its peers
	}
	address, err := netip.ParseAddrPort(r.Answers)
	if err != nil && r.Answers != "" {
		return nil, "it says that it answers at no address"
	}
	return n.asker.Sight(reached(address, m.Address), questions), ""
}

func look(ctx context.Context, s *zone.Sight) (why string, err error) {
	ctx, cancel := context.WithTimeout(ctx, confirmTry)
	defer cancel()
	return s.Look(ctx)
}

// askConfirm asks a member, or this node, once.
func (n *Node) askConfirm(ctx context.Context, m Member, index uint64) (r confirmReply, err error) {
	if m.ID == n.c.ID {
		return n.confirm(ctx, confirmAsk{index})
	}
	err = n.peers.callMember(ctx, m, callConfirm, confirmAsk{index}, &r)
	return r, err
}
