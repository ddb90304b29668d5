package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// Recovery makes a cluster of one out of the only node that is left. It holds the
// node's stores open until Close; nothing changes before Commit.
type Recovery struct {
	// Member is the node, alone from then on; Lost are the others.
	Member Member
	Lost   []Member
	// Marked is what this node had applied, and answered. Last is the end of its log:
	// entries between may have been acknowledged elsewhere, so they are kept. What
	// others had acknowledged beyond Last is lost.
	Marked, Last uint64
	// Missing is set where the disk holds less than was answered from it.
	Missing uint64
	// Domains is how many claims the state has.
	Domains int

	dir     string
	node    *Node
	machine state.Machine
	term    uint64
}

// OpenRecovery reads a stopped node's directory. address is where its node link
// will be; empty: as before.
func OpenRecovery(id, dir, address string, logger *slog.Logger) (r *Recovery, err error) {
	n := &Node{c: Config{ID: id, DataDir: dir}, tuning: defaultTuning(), logger: logger, fence: newFence(logger)}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("recovering %s: %w", id, err), n.closeStores())
		}
	}()
	if err := n.openStores(); err != nil {
		return nil, err
	}
	if n.start.fresh {
		return nil, errors.New("the data directory holds no state: there is nothing to recover from")
	}
	r = &Recovery{
		Marked: n.mark.get().Index, Missing: n.start.need,
		dir: dir, node: n, machine: n.start.machine,
	}
	for _, s := range n.start.members.Servers {
		m := Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter}
		if m.ID == id {
			r.Member = m
		} else {
			r.Lost = append(r.Lost, m)
		}
	}
	if r.Member.ID == "" && address == "" {
		return nil, errors.New("this node was removed from the cluster, by its own disk: give its address to make a cluster of it all the same")
	}
	r.Member.ID, r.Member.Voter = id, true
	if address != "" {
		r.Member.Address = address
	}
	if err := r.readTail(); err != nil {
		return nil, err
	}
	r.Domains = r.machine.DomainCount()
	return r, nil
}

// readTail applies what the log holds past the mark.
func (r *Recovery) readTail() error {
	n := r.node
	r.Last = n.start.machine.Index()
	snapshots, err := n.snaps.List()
	if err != nil {
		return err
	}
	if len(snapshots) > 0 {
		r.Last, r.term = max(r.Last, snapshots[0].Index), snapshots[0].Term
	}
	first, err := n.store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := n.store.LastIndex()
	if err != nil {
		return err
	}
	a := applier{open: n.start.open}
	a.begin(r.machine)
	defer func() {
		r.machine = a.end()
		a.giveUp()
	}()
	for index := first; index != 0 && index <= last; index++ {
		var l raft.Log
		if err := n.store.GetLog(index, &l); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		r.Last, r.term = max(r.Last, l.Index), max(r.term, l.Term)
		if index <= a.machine.Index() || l.Type != raft.LogCommand && l.Type != raft.LogConfiguration {
			continue
		}
		e, err := decode(&l)
		if err != nil {
			return err
		}
		if _, err := a.take(&l, e); err != nil {
			return err
		}
	}
	if r.term == 0 {
		return errors.New("the disk says nothing of a term: the log is lost")
	}
	return nil
}

// Commit writes the state, with the operator's statement about the nodes that are given
// up, as a snapshot whose configuration is this node alone, moves the mark to it, and
// clears the log. Interrupted before the mark, nothing has changed (the snapshot is not
// adopted); after it, the next start clears what is left of the log (index contract).
func (r *Recovery) Commit(statement string) error {
	n := r.node
	m := r.recovered(statement)
	alone := raft.Configuration{Servers: []raft.Server{server(r.Member)}}
	_, nowhere := raft.NewInmemTransport(raft.ServerAddress(r.Member.Address)) // encodes addresses
	defer nowhere.Close()
	sink, err := n.snaps.files.Create(raft.SnapshotVersionMax, r.Last, r.term, alone, r.Last, nowhere)
	if err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	if err := m.WriteImage(sink); err != nil {
		return errors.Join(fmt.Errorf("writing snapshot: %w", err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("writing snapshot: %w", err)
	}
	err = n.mark.set(func(v *markValue) { v.Index, v.Base, v.Owed = r.Last, r.Last, 0 })
	if err != nil {
		return err
	}
	first, err := n.store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := n.store.LastIndex()
	if err != nil {
		return err
	}
	if first != 0 {
		if err := n.store.DeleteRange(first, last); err != nil {
			return err
		}
	}
	// Nodes that come back under an old name come with nothing.
	return replaceFile(filepath.Join(r.dir, "met"), func(io.Writer) error { return nil })
}

// Close closes the stores.
func (r *Recovery) Close() error { return r.node.closeStores() }
