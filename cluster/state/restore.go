package state

// WithIndex is the machine at another index. A snapshot that Raft installs or
// restores is at the index Raft gave it, whatever its image says.
func (m Machine) WithIndex(index uint64) Machine {
	t := m.tables().fork()
	t.index = index
	return Machine{t: t}
}

// Epoch says how often the cluster was recovered from a single node. Nodes of
// different epochs have logs that went different ways.
func (m Machine) Epoch() uint32 { return m.tables().epoch }

// NextEpoch is the machine at the beginning of the next one.
func (m Machine) NextEpoch() Machine {
	t := m.tables().fork()
	t.epoch++
	return Machine{t: t}
}
