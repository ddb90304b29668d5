package cluster

import (
	"fmt"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
	"authd/zone"
)

// applier takes a machine along the log, entry by entry. The dark start, what Raft feeds
// and a recovery go the same way, so that they come to the same.
type applier struct {
	indexes bool         // what a restore brings is to be shown
	open    *openRestore // the restore that is open behind the last entry; nil: none

	machine *state.Applier
	changes state.Delta // since begin, or since a restore
	// A restore replaced the machine by this since begin. Its index; nil: none was made.
	replaced bool
	restored state.Machine
	index    *zone.Tree
}

// begin goes on from a machine.
func (a *applier) begin(m state.Machine) {
	a.machine, a.changes = m.Applier(), state.Delta{}
	a.replaced, a.restored, a.index = false, state.Machine{}, nil
}

// end is the machine that the entries since begin made.
func (a *applier) end() state.Machine {
	m, delta := a.machine.Machine()
	a.machine = nil
	a.changes.Merge(delta)
	return m
}

// here is the machine behind the last entry, in the midst of them.
func (a *applier) here() state.Machine {
	m := a.end()
	a.machine = m.Applier()
	return m
}

// restoredIndex is the index of the machine that a restore and the entries behind it came
// to.
func (a *applier) restoredIndex(m state.Machine) *zone.Tree {
	if a.index == nil {
		return m.Tree()
	}
	e := a.index.Edit()
	m.Publish(e, a.restored, a.changes)
	e.Commit()
	return a.index
}

// giveUp ends a restore that is open without its end.
func (a *applier) giveUp() {
	a.open.drop()
	a.open = nil
}

// take applies one entry. An error is of this node alone; what is wrong with the entry
// is a refusal, the same on every node.
func (a *applier) take(l *raft.Log, e content) (response any, err error) {
	if a.open != nil && a.open.term != l.Term {
		a.giveUp()
	}
	results := a.machine.Apply(l.Index, e.commands)
	if e.step == nil {
		return applied{index: l.Index, results: results}, nil
	}
	why, err := a.takeStep(l, e.step)
	return stepAnswer{l.Index, why, a.open}, err
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
