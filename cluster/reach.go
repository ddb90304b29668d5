package cluster

import (
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// reach holds what a leader has for a peer that it cannot reach until it can.
//
// The library tries such a peer again after twice the time each time, up to ten
// seconds, and nothing cuts that short: a node that was back had to wait for it
// before it knew all that its peers had answered and could open its listeners.
// Heartbeats never rest longer than half their timeout, so the first that arrives
// lets go what is held, and so does the question of a node that starts.
//
// Only entries are held: a snapshot would be kept open, and on the disk, with it.
type reach struct {
	// mu guards back: of each peer that was not reached, what is closed when it is.
	mu   sync.Mutex
	back map[raft.ServerID]chan struct{}
}

var errUnreached = errors.New("the peer was not reached again before this node's part ended")

// tried notes how an exchange with a peer went.
func (r *reach) tried(id raft.ServerID, err error) {
	if err == nil {
		r.heard(id)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back[id] == nil {
		r.back[id] = make(chan struct{})
	}
}

// heard notes that a peer may be reached.
func (r *reach) heard(id raft.ServerID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if back := r.back[id]; back != nil {
		close(back)
		delete(r.back, id)
	}
}

// hold waits while a peer is not reached, and this node has entries for it there.
func (t *transport) hold(id raft.ServerID, target raft.ServerAddress) error {
	t.reach.mu.Lock()
	back := t.reach.back[id]
	t.reach.mu.Unlock()
	if back == nil {
		return nil
	}
	look := time.NewTicker(t.look)
	defer look.Stop()
	for {
		select {
		case <-back:
			return nil
		case <-look.C:
			if !t.feeds(id, target) {
				return errUnreached
			}
		case <-t.fence.tripped:
			return errUnreached
		case <-t.ended:
			return errUnreached
		}
	}
}

// feeds says whether this node leads and has a member at an address.
func (n *Node) feeds(id raft.ServerID, target raft.ServerAddress) bool {
	if !n.leads() {
		return false
	}
	for _, m := range n.members() {
		if m.ID == string(id) {
			return m.Address == string(target)
		}
	}
	return false
}
