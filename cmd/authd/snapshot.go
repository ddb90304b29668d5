package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"authd/cluster/state"
)

// readSnapshot reads a whole snapshot, which checks it.
func readSnapshot(path string) (state.Machine, error) {
	f, err := os.Open(path)
	if err != nil {
		return state.Machine{}, fmt.Errorf("reading snapshot: %w", err)
	}
	defer f.Close()
	m, err := state.ReadImage(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return state.Machine{}, fmt.Errorf("reading snapshot %s: %w", path, err)
	}
	return m, nil
}

// inspectSnapshot reads a whole snapshot and says in a line what it holds.
func inspectSnapshot(path string) (string, error) {
	m, err := readSnapshot(path)
	if err != nil {
		return "", err
	}
	return summarise(m), nil
}

func summarise(m state.Machine) string {
	at := time.Unix(m.Time(), 0).UTC().Format(time.RFC3339)
	return fmt.Sprintf("cluster %s at index %d (%s): %s, %s",
		m.Settings().ClusterID, m.Index(), at, plural(m.DomainCount(), "domain"), plural(m.TenantCount(), "tenant"))
}

// describeSnapshot is what an operator compares before he restores: how much there
// is, how far counters got, and the ends of the two chains of hashes.
func describeSnapshot(m state.Machine) string {
	var b strings.Builder
	states, stages := map[state.DomainState]int{}, map[string]int{}
	keysHeld, serial := 0, uint32(0)
	for d := range m.Domains(state.Token{}) {
		states[d.State]++
		serial = max(serial, d.Serial)
		for _, k := range d.Ring().Keys {
			keysHeld++
			stages[k.Stage.String()]++
		}
	}
	fmt.Fprintf(&b, "domains: %d live, %d pending, %d leaving; highest counter %d\n", states[state.Live], states[state.Pending], states[state.Leaving], serial)
	fmt.Fprintf(&b, "keys: %d", keysHeld)
	for _, stage := range slices.Sorted(maps.Keys(stages)) {
		fmt.Fprintf(&b, ", %d %s", stages[stage], stage)
	}
	b.WriteString("\n")
	for p := range m.Platforms() {
		fmt.Fprintf(&b, "zone %s: serial %d, %s\n", p.Apex.Host(), p.Serial, plural(len(p.Records), "RRset"))
	}
	for p := range m.Pools() {
		fmt.Fprintf(&b, "pool %s: serial %d\n", p.ID, p.Serial)
	}
	seq, head := m.AuditHead()
	fmt.Fprintf(&b, "changes: %d, the last one has hash %s\nsum: %016x\n", seq, head, uint64(m.Sum()))
	return b.String()
}
