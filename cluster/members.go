package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// changeTime bounds a change of membership or leadership.
const changeTime = 30 * time.Second

func server(m Member) raft.Server {
	s := raft.Server{ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address), Suffrage: raft.Nonvoter}
	if m.Voter {
		s.Suffrage = raft.Voter
	}
	return s
}

// members are who is in the cluster as this node knows it: Raft's latest
// configuration, before Raft what the disk says, on a founder what it was told.
func (n *Node) members() []Member {
	servers := n.start.members.Servers
	if n.raft() != nil {
		if f := n.raft().GetConfiguration(); f.Error() == nil {
			servers = f.Configuration().Servers
		}
	}
	if len(servers) == 0 {
		return n.c.Bootstrap
	}
	members := make([]Member, len(servers))
	for i, s := range servers {
		members[i] = Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter}
	}
	return members
}

func contains(members []Member, id string) bool {
	return slices.ContainsFunc(members, func(m Member) bool { return m.ID == id })
}

func (n *Node) memberAt(address string) string {
	for _, m := range n.members() {
		if m.Address == address {
			return m.ID
		}
	}
	return ""
}

// isStranger says whether a node is no member, as far as this node has the log.
func (n *Node) isStranger(id string) bool {
	members := n.members()
	return len(members) > 0 && !contains(members, id)
}

// isMember says whether a node that has shown a certificate of the cluster may connect.
// A new node knows nobody and accepts every node that the CA vouches for. One that was
// away may not know a member that was added meanwhile: it asks those that it knows.
func (n *Node) isMember(id string) bool {
	members := n.members()
	if len(members) == 0 || contains(members, id) {
		return true
	}
	p := &n.peers
	p.mu.Lock()
	if time.Since(p.asked) < askTime {
		defer p.mu.Unlock()
		return p.vouched[id]
	}
	p.asked = time.Now()
	p.mu.Unlock()
	vouched := make(map[string]bool)
	own := n.fsm.current().Index()
	for _, r := range n.askAll(n.ctx, n.others()) {
		if r.Applied < own {
			continue // knows less than this node
		}
		for _, m := range r.Members {
			vouched[m.ID] = true
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.vouched = vouched
	return vouched[id]
}

// met remembers on disk which nodes have ever taken part with a log, so that one
// that comes back with an empty disk is not taken for a founder: it would vote
// without what it had acknowledged.
type met struct {
	path string
	// mu guards ids.
	mu  sync.Mutex
	ids map[string]bool
}

func openMet(path string) (*met, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("reading known nodes: %w", err)
	}
	m := &met{path: path, ids: make(map[string]bool)}
	for _, id := range strings.Fields(string(text)) {
		m.ids[id] = true
	}
	return m, nil
}

func (m *met) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[id]
}

// set adds or removes a node; it touches the disk only when that is news.
func (m *met) set(id string, known bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids[id] == known {
		return nil
	}
	m.ids[id] = known
	var b strings.Builder
	for id, known := range m.ids {
		if known {
			b.WriteString(id + "\n")
		}
	}
	return replaceFile(m.path, func(w io.Writer) error {
		_, err := io.WriteString(w, b.String())
		return err
	})
}

// replaceFile writes a file so that after a crash the old or the new one is there.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// checkUnknown refuses to found a cluster that this node was in before.
func (n *Node) checkUnknown() error {
	for id, r := range n.askAll(n.ctx, n.others()) {
		if r.Knows {
			return fmt.Errorf("node %s has taken part in this cluster before, says %s, but its data directory is empty: a voter that lost its log must not vote; remove it from the cluster and add it again", n.c.ID, id)
		}
	}
	return nil
}

// changeOp is a change of membership or leadership. Values are spoken between
// releases: never renumber.
type changeOp uint8

const (
	changeAdd      changeOp = 1
	changeRemove   changeOp = 2
	changeTransfer changeOp = 3
)

type changeAsk struct {
	Op     changeOp `cbor:"1,keyasint"`
	Member Member   `cbor:"2,keyasint"`
}

// AddPeer adds a node as a voter or non-voter, or changes a member's address or vote.
func (n *Node) AddPeer(ctx context.Context, m Member) error {
	if m.ID == "" || m.Address == "" {
		return fmt.Errorf("adding node %q at %q: both are needed", m.ID, m.Address)
	}
	return n.changeAnywhere(ctx, changeAsk{Op: changeAdd, Member: m})
}

// RemovePeer removes a node. Nothing waits for it any more, so it must be off, or out of
// every address list, first.
func (n *Node) RemovePeer(ctx context.Context, id string) error {
	if !contains(n.members(), id) {
		return fmt.Errorf("removing node %q: not a member", id)
	}
	return n.changeAnywhere(ctx, changeAsk{Op: changeRemove, Member: Member{ID: id}})
}

// TransferLeader hands leadership to another voter; empty: the best one.
func (n *Node) TransferLeader(ctx context.Context, id string) error {
	return n.changeAnywhere(ctx, changeAsk{Op: changeTransfer, Member: Member{ID: id}})
}

// changeAnywhere makes the change here or at the leader.
func (n *Node) changeAnywhere(ctx context.Context, a changeAsk) error {
	ctx, cancel := context.WithTimeout(ctx, changeTime)
	defer cancel()
	if n.leads() {
		return n.change(ctx, a)
	}
	leader := n.Leader()
	if leader == "" || leader == n.c.ID {
		return kindError{ErrNoLeader, nil}
	}
	err := n.peers.call(ctx, leader, callChange, a, nil)
	if errors.Is(err, errNotSent) {
		return kindError{ErrNoLeader, err}
	}
	return err
}

// change makes a change on the leader.
func (n *Node) change(ctx context.Context, a changeAsk) error {
	if !n.leads() {
		return kindError{ErrNoLeader, fmt.Errorf("node %s does not lead", n.c.ID)}
	}
	s := server(a.Member)
	var f raft.Future
	switch {
	case a.Op == changeAdd && a.Member.Voter:
		f = n.raft().AddVoter(s.ID, s.Address, 0, enqueueTime)
	case a.Op == changeAdd && n.votes(a.Member.ID):
		f = n.raft().DemoteVoter(s.ID, 0, enqueueTime)
	case a.Op == changeAdd:
		f = n.raft().AddNonvoter(s.ID, s.Address, 0, enqueueTime)
	case a.Op == changeRemove:
		f = n.raft().RemoveServer(s.ID, 0, enqueueTime)
	case a.Op == changeTransfer:
		return n.transfer(ctx, a.Member.ID)
	default:
		return fmt.Errorf("change %d is not known here; upgrade node %s", a.Op, n.c.ID)
	}
	if err := n.await(ctx, f); err != nil {
		return writeError(err)
	}
	if a.Op == changeRemove {
		n.link.disconnect(a.Member.ID)
		go n.forget(a.Member.ID)
		return n.met.set(a.Member.ID, false)
	}
	return nil
}

// forget drops what the machine holds of a node that was removed: its invitation,
// and that it is off, which another of its name need not be.
func (n *Node) forget(id string) {
	m := n.Machine()
	var commands []state.Command
	if _, ok := m.Invited(id); ok {
		commands = append(commands, state.SettleNode{ID: id})
	}
	if _, ok := m.Off(id); ok {
		commands = append(commands, state.SetServing{Node: id, Serving: true})
	}
	if len(commands) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, changeTime)
	defer cancel()
	if _, _, err := n.Propose(ctx, Actor{ID: "members"}, commands...); err != nil {
		n.logger.Warn("forgetting a node that was removed", "node", id, "error", err)
	}
}

func (n *Node) votes(id string) bool {
	return slices.ContainsFunc(n.members(), func(m Member) bool { return m.ID == id && m.Voter })
}

// transfer hands leadership to a voter; where none is named, to the furthest of those
// that answer. The library would also pick one that is down.
func (n *Node) transfer(ctx context.Context, to string) error {
	if to == n.c.ID {
		return nil
	}
	var heir Member
	var furthest uint64
	replies := n.askAll(ctx, n.others())
	for _, m := range n.others() {
		r, healthy := replies[m.ID]
		switch {
		case m.ID == to && !m.Voter:
			return fmt.Errorf("transferring leadership to %s: not a voter", to)
		case m.ID == to:
			heir = m
		case to == "" && m.Voter && healthy && !r.Fenced && !r.DiskShort && (heir.ID == "" || r.Applied > furthest):
			heir, furthest = m, r.Applied
		}
	}
	if heir.ID == "" && to == "" {
		return errors.New("transferring leadership: no other voter answers")
	}
	if heir.ID == "" {
		return fmt.Errorf("transferring leadership to %q: not a member", to)
	}
	if err := n.await(ctx, n.raft().LeadershipTransferToServer(raft.ServerID(heir.ID), raft.ServerAddress(heir.Address))); err != nil {
		return fmt.Errorf("transferring leadership to %s: %w", heir.ID, err)
	}
	return nil
}
