//go:build lab

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// aroundEnd is how long before and after the end of a restore commits are looked at: it
// frees a state, and others follow it.
const aroundEnd = 5 * time.Second

// restoreBesideWrites saves a backup and restores it, writing all the while.
func (m *million) restoreBesideWrites() {
	m.Helper()
	leader := m.leader(1, 2, 3)
	backup := filepath.Join(m.work, "backup")
	began := time.Now()
	if text, err := m.cli(leader, "operator", "snapshot", "save", backup); err != nil {
		m.Fatalf("saving a backup: %v\n%s", err, text)
	}
	took := time.Since(began)
	info, err := os.Stat(backup)
	if err != nil {
		m.Fatal(err)
	}
	m.row("operator snapshot save", "", fmt.Sprintf("%s, %d MiB", took.Round(100*time.Millisecond), info.Size()>>20))

	before := m.cpu(leader)
	var text string
	ended := make(chan struct{})
	began = time.Now()
	go func() {
		defer close(ended)
		text, err = m.cli(leader, "operator", "snapshot", "restore", "--yes", backup)
		took = time.Since(began)
	}()
	commits, peak := m.writeUntil(leader, func() bool {
		select {
		case <-ended:
			return time.Since(began) > took+aroundEnd
		default:
			return false
		}
	})
	if err != nil {
		m.Fatalf("restoring a backup: %v\n%s", err, text)
	}
	m.row("operator snapshot restore, 8 clients writing", "", took.Round(100*time.Millisecond).String())
	m.row("processors that took, of the leader", "", (m.cpu(leader) - before).Round(100*time.Millisecond).String())
	m.row("VmRSS of the leader, most meanwhile", "", gib(peak))
	at := m.replacedAt(leader)
	var coming, end time.Duration
	for i, c := range commits[1:] {
		gap := c.at.Sub(commits[i].at)
		if c.at.After(at.Add(-aroundEnd)) {
			end = max(end, gap)
		} else {
			coming = max(coming, gap)
		}
	}
	m.row("longest gap between commits while it is read and sent", "", coming.Round(time.Millisecond).String())
	m.row("longest gap between commits at its end", "1 s", end.Round(time.Millisecond).String())
}

// replacedAt is when a node's state was replaced by a restore, by its log.
func (m *million) replacedAt(i int) time.Time {
	m.Helper()
	text, err := os.ReadFile(m.run[i].log)
	if err != nil {
		m.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, `msg="state replaced by a restore"`) {
			at, err := time.Parse(time.RFC3339Nano, logField(line, "time="))
			if err != nil {
				m.Fatalf("reading %q: %v", line, err)
			}
			return at
		}
	}
	m.Fatalf("node %d says nothing of a restore", i)
	return time.Time{}
}
