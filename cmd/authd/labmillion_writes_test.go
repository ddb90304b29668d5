//go:build lab

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// commit is one acknowledged write.
type commit struct {
	at   time.Time // of the reply
	took time.Duration
}

// window is when a node wrote a snapshot.
type window struct{ from, to time.Time }

// snapshotBesideWrites writes until the leader has made a snapshot by itself, and
// compares the commits while any node wrote one with those before and between.
func (m *million) snapshotBesideWrites() {
	m.Helper()
	leader := m.leader(1, 2, 3)
	before := len(m.windows(leader))
	commits, peak := m.writeUntil(leader, func() bool { return len(m.windows(leader)) > before })
	var all []window
	for i := range m.run {
		all = append(all, m.windows(i)...)
	}
	own := m.windows(leader)
	last := own[len(own)-1]
	var idle, busy, beside []time.Duration
	var gap, calm time.Duration
	for i, c := range commits {
		since := c.at.Sub(commits[max(i-1, 0)].at)
		switch in := func(w window) bool { return c.at.After(w.from) && c.at.Before(w.to) }; {
		case in(last):
			busy = append(busy, c.took)
			gap = max(gap, since)
			if since > 30*time.Millisecond {
				m.Logf("no commit for %s, %s into the snapshot", since, c.at.Sub(last.from))
			}
		case slices.ContainsFunc(all, in):
			beside = append(beside, c.took)
		default:
			idle = append(idle, c.took)
			calm = max(calm, since)
		}
	}
	if len(idle) == 0 || len(busy) == 0 {
		m.Fatalf("%d commits beside no snapshot and %d during the leader's: too few to compare", len(idle), len(busy))
	}
	m.row("the leader's snapshot, 8 clients writing, takes", "", last.to.Sub(last.from).Round(10*time.Millisecond).String())
	m.row("VmRSS, most during it", "3.5 GiB", gib(peak))
	m.row("longest gap between commits during it", "50 ms", gap.Round(100*time.Microsecond).String())
	m.row("the same while no node makes one", "", calm.Round(100*time.Microsecond).String())
	m.row("commit p99 during it", "2 × "+p99(idle).String(), p99(busy).String())
	if len(beside) > 0 {
		m.row("commit p99 during a follower's", "2 × "+p99(idle).String(), p99(beside).String())
	}
}

// writeUntil makes small writes with eight clients, and gives them in order and
// the most memory that the node had.
func (m *million) writeUntil(node int, done func() bool) (commits []commit, peak int) {
	m.Helper()
	var stop atomic.Bool
	var mu sync.Mutex // guards commits
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for n := w; !stop.Load(); n += 8 {
				began := time.Now()
				body := json.RawMessage(fmt.Sprintf(`{"labels":{"n":"%d"}}`, n))
				r, err := m.try(node, "PATCH", "/v1/domains/"+m.tokens[n%len(m.tokens)], body)
				if err != nil || r.status != 200 {
					m.Errorf("write %d: %v %v", n, err, r)
					return
				}
				mu.Lock()
				commits = append(commits, commit{time.Now(), time.Since(began)})
				mu.Unlock()
			}
		})
	}
	began := time.Now()
	for !done() && time.Since(began) < 10*time.Minute && !m.Failed() {
		peak = max(peak, m.memory(node, "VmRSS"))
		time.Sleep(20 * time.Millisecond)
	}
	stop.Store(true)
	all.Wait()
	if !done() {
		m.Fatal("ten minutes of writes were not enough")
	}
	slices.SortFunc(commits, func(a, b commit) int { return a.at.Compare(b.at) })
	return commits, peak
}

// windows are when a node wrote snapshots, by its log.
func (m *million) windows(i int) (list []window) {
	text, err := os.ReadFile(m.run[i].log)
	if err != nil {
		m.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, `msg="snapshot made"`) {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, logField(line, "time="))
		took, err2 := time.ParseDuration(logField(line, "took="))
		if err != nil || err2 != nil {
			m.Fatalf("reading %q: %v %v", line, err, err2)
		}
		list = append(list, window{at.Add(-took), at})
	}
	return list
}

func logField(line, name string) string {
	_, rest, _ := strings.Cut(line, name)
	rest, _, _ = strings.Cut(strings.TrimSpace(rest), " ")
	return rest
}

const (
	importers  = 4
	importSize = 500
	importLong = 20_000 // domains of a bulk import
)

// startsBehindTails kills node 1 when a bulk import has just ended, and when it has
// nearly written a snapshot in the midst of one, which is when the log is longest.
// Node 2 makes the keys, so it runs a binary that makes them at no cost.
func (m *million) startsBehindTails() {
	m.Helper()
	m.run[2].end(syscall.SIGTERM)
	m.startOf(m.maker, 2)
	m.leader(2)

	var like struct{ Pool string }
	m.call(2, "GET", "/v1/domains/"+m.tokens[0], nil, &like)
	m.pool = like.Pool

	var imported atomic.Int64
	began := time.Now()
	m.importUntil(func() bool { return imported.Load() >= importLong }, &imported)
	m.row(fmt.Sprintf("bulk import of %d domains, beside nothing else", imported.Load()), "", time.Since(began).Round(100*time.Millisecond).String())
	m.run[1].end(syscall.SIGKILL)
	m.row("first right answer, right after a bulk import", "10 s", m.starts(1))
	m.row("the tail it replayed", "", m.tail(1))

	m.importUntil(func() bool { return m.written(1) > 9*m.size(1)/10 || time.Since(began) > 5*time.Minute }, &imported)
	if m.written(1) == 0 {
		m.Fatal("node 1 began no snapshot")
	}
	m.run[1].end(syscall.SIGKILL)
	m.row("first right answer, behind the longest tail", "10 s", m.starts(1))
	m.row("the tail it replayed", "", m.tail(1))
}

// importUntil imports domains through node 2; their names are what is asked from
// then on.
func (m *million) importUntil(done func() bool, imported *atomic.Int64) {
	m.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex // guards names
	var names []string
	for range importers {
		all.Go(func() {
			for !done() && !m.Failed() {
				items := make([]map[string]any, importSize)
				from := imported.Add(importSize) - importSize
				for k := range items {
					items[k] = map[string]any{"tenant": "importer", "pool": m.pool, "mode": "cname", "domain": fmt.Sprintf("imported-%d.test", from+int64(k))}
				}
				r, err := m.try(2, "POST", "/v1/import", map[string]any{"items": items})
				var got struct {
					Added   int
					Results []struct{ Token string }
				}
				if err == nil && r.status == 200 {
					err = json.Unmarshal(r.body, &got)
				}
				if err != nil || got.Added != importSize {
					m.Errorf("import from %d on: %v %.500s", from, err, text(r))
					return
				}
				mu.Lock()
				names = append(names, fmt.Sprintf("k1.%s.dkim.platform.test.", got.Results[importSize-1].Token))
				mu.Unlock()
			}
		})
	}
	all.Wait()
	m.names = names
}

func text(r *reply) string {
	if r == nil {
		return "no reply"
	}
	return fmt.Sprint(r.status, " ", string(r.body))
}

// written is how much of a snapshot a node has written; 0: it writes none.
func (m *million) written(i int) (octets int64) {
	files, _ := filepath.Glob(filepath.Join(m.dir, fmt.Sprintf("node-%d", i), "snapshots", "*.tmp", "state.bin"))
	for _, path := range files {
		if info, err := os.Stat(path); err == nil {
			octets = max(octets, info.Size())
		}
	}
	return octets
}

// size is that of the largest snapshot that a node has.
func (m *million) size(i int) (octets int64) {
	files, _ := filepath.Glob(filepath.Join(m.dir, fmt.Sprintf("node-%d", i), "snapshots", "*[0-9]", "state.bin"))
	for _, path := range files {
		if info, err := os.Stat(path); err == nil {
			octets = max(octets, info.Size())
		}
	}
	return octets
}

// tail is how much of the log a node replayed at its start, or would at the next.
func (m *million) tail(i int) string {
	m.Helper()
	r := m.call(i, "GET", "/metrics", nil, nil)
	value := func(name string) float64 {
		for line := range strings.Lines(string(r.body)) {
			if rest, ok := strings.CutPrefix(line, name+" "); ok {
				v, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
				if err != nil {
					m.Fatal(err)
				}
				return v
			}
		}
		m.Fatalf("node %d has no metric %s", i, name)
		return 0
	}
	return fmt.Sprintf("%.0f entries, %.0f MiB; %s", value("authd_log_tail_entries"), value("authd_log_tail_bytes")/(1<<20), m.built(i))
}

// built is what a node's start took, by its log.
func (m *million) built(i int) string {
	m.Helper()
	text, err := os.ReadFile(m.run[i].log)
	if err != nil {
		m.Fatal(err)
	}
	_, line, _ := strings.Cut(string(text), `msg="state built"`)
	line, _, _ = strings.Cut(line, "\n")
	var parts []string
	for _, part := range []string{"read", "replay", "published"} {
		took, err := time.ParseDuration(logField(line, " "+part+"="))
		if err != nil {
			m.Fatalf("reading when node %d had built its state: %v", i, err)
		}
		parts = append(parts, part+" "+took.Round(10*time.Millisecond).String())
	}
	return strings.Join(parts, ", ")
}
