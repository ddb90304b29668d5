package main

import (
	"bufio"
	"fmt"
	"os"
	"time"

	"authd/cluster/state"
)

// inspectSnapshot reads a whole snapshot, which checks it, and says what it holds.
func inspectSnapshot(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("reading snapshot: %w", err)
	}
	defer f.Close()
	m, err := state.ReadImage(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return "", fmt.Errorf("reading snapshot %s: %w", path, err)
	}
	tenants := 0
	for range m.Tenants("") {
		tenants++
	}
	at := time.Unix(m.Time(), 0).UTC().Format(time.RFC3339)
	return fmt.Sprintf("cluster %s at index %d (%s): %s, %s",
		m.Settings().ClusterID, m.Index(), at, plural(m.DomainCount(), "domain"), plural(tenants, "tenant")), nil
}
