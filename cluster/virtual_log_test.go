package cluster

import (
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// lastLines are the last lines of all nodes' logs, and how often some were seen.
type lastLines struct {
	mu    sync.Mutex
	lines []string
	count map[string]int
}

// countedLines are what a run is summed up by.
var countedLines = []string{"this node leads", "state replaced by a snapshot", "certificate renewed", "node let in"}

func (l *lastLines) of(id string) io.Writer { return lineWriter{l, id} }

type lineWriter struct {
	log *lastLines
	id  string
}

func (w lineWriter) Write(b []byte) (int, error) {
	return w.log.Write([]byte(w.id + ": " + string(b)))
}

func (l *lastLines) Write(b []byte) (int, error) {
	const kept = 600
	line := strings.TrimSpace(string(b))
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count == nil {
		l.count = make(map[string]int)
	}
	for _, counted := range countedLines {
		if strings.Contains(line, counted) {
			l.count[counted]++
		}
	}
	l.lines = append(l.lines, line)
	l.lines = l.lines[max(0, len(l.lines)-kept):]
	return len(b), nil
}

func (l *lastLines) seen(counted string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count[counted]
}

func (l *lastLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// since are the lines that were written in the time since then.
func (l *lastLines) since(then time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.IndexFunc(l.lines, func(line string) bool {
		_, rest, _ := strings.Cut(line, "time=")
		stamp, _, _ := strings.Cut(rest, " ")
		told, err := time.Parse(time.RFC3339, stamp)
		return err == nil && !told.Before(then.Truncate(time.Millisecond))
	})
	return strings.Join(l.lines[max(0, at):], "\n")
}
