package cluster

import (
	"github.com/hashicorp/raft"
)

// A leader whose disk hangs cannot hand over as the library does it: the goroutine that
// would is the one that waits for the disk. So the node falls silent (transport), which
// the others take for its end only after the heartbeat timeout; and since it knows
// better, it tells the voter that has most of its log to stand for election now (Raft
// dissertation, section 3.10). A voter that lacks something committed is not elected, and where
// the message is lost the silence does the same.

// abdicate does that once for each time that the disk hangs. Writes that wait here for
// the disk are told that their outcome is unknown: the next leader may have them.
// suspicion.mu is held.
func (s *suspicion) abdicate() {
	n := s.node
	if !n.stalled() {
		s.abdicated = false
		return
	}
	if s.abdicated || n.raft().State() != raft.Leader {
		return
	}
	s.abdicated = true
	n.batcher.giveUp()
	heir, ok := n.transport.heir(n.raft().CurrentTerm(), n.c.ID, n.members())
	n.logger.Error("the disk hangs: this node leads no more", "for", n.tuning.stall, "heir", heir.ID)
	if !ok {
		return
	}
	n.wg.Go(func() {
		ask := raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{
			ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.c.ID),
			Addr: n.transport.EncodePeer(raft.ServerID(n.c.ID), n.transport.LocalAddr()),
		}}
		err := n.transport.TimeoutNow(raft.ServerID(heir.ID), raft.ServerAddress(heir.Address), &ask, new(raft.TimeoutNowResponse))
		if err != nil {
			n.logger.Warn("handing over with a hanging disk", "to", heir.ID, "error", err)
		}
	})
}

// heir is the voter that is known to have most of the log of this term's leader. There
// is none where too few follow: a candidate that nobody can elect would only raise the
// term.
func (t *transport) heir(term uint64, self string, members []Member) (heir Member, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	voters, following := 0, 0
	var most uint64
	for _, m := range members {
		if !m.Voter {
			continue
		}
		voters++
		f := t.followers[raft.ServerID(m.ID)]
		if m.ID == self || f == nil || f.term != term {
			continue
		}
		following++
		if f.last >= most {
			heir, most = m, f.last
		}
	}
	if following <= voters/2 {
		return Member{}, false
	}
	return heir, true
}
