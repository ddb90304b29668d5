package cluster

import (
	"fmt"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// applier takes a machine along the log, entry by entry. The dark start, what Raft feeds
// and a recovery go the same way, so that they come to the same.
type applier struct {
	log  entryReader
	open *openRestore // the restore that is open behind the last entry; nil: none

	machine  *state.Applier
	changes  state.Delta // since begin
	replaced bool        // since begin: by a restore, of which changes say nothing
}

// begin goes on from a machine.
func (a *applier) begin(m state.Machine) {
	a.machine, a.changes, a.replaced = m.Applier(), state.Delta{}, false
}

// end is the machine that the entries since begin made.
func (a *applier) end() state.Machine {
	m, delta := a.machine.Machine()
	a.machine = nil
	a.changes.Merge(delta)
	return m
}

// entryReader is where the pieces of a restore are read from.
type entryReader interface {
	GetLog(index uint64, l *raft.Log) error
}

// take applies one entry. An error is of this node alone; what is wrong with the entry
// is a refusal, the same on every node.
func (a *applier) take(l *raft.Log, e content) (response any, err error) {
	if a.open != nil && a.open.term != l.Term {
		a.open = nil
	}
	results := a.machine.Apply(l.Index, e.commands)
	if e.step == nil {
		return applied{index: l.Index, results: results}, nil
	}
	why, err := a.takeStep(l, e.step)
	return stepAnswer{l.Index, why}, err
}

// content is what an entry of the log holds.
type content struct {
	commands []state.Entry
	step     *restoreStep // of a restore; nil: none
}

// decode reads an entry. One that is no command holds nothing, and moves the index alone.
func decode(l *raft.Log) (c content, err error) {
	switch {
	case l.Type != raft.LogCommand || len(l.Data) == 0:
		return c, nil
	case l.Data[0] == restoreEntry:
		c.step = new(restoreStep)
		*c.step, err = decodeStep(l.Data[1:])
	default:
		c.commands, err = state.DecodeBatch(l.Data)
	}
	if err != nil {
		return c, fmt.Errorf("reading entry %d: %w; this node is older than the cluster, upgrade it", l.Index, err)
	}
	return c, nil
}
