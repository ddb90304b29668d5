package cluster

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger carries the library's log into ours, one level lower: what an
// operator must know is said by us.
func raftLogger(to *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Output: io.Discard, Level: hclog.Off})
	l.RegisterSink(logSink{to})
	return l
}

type logSink struct{ to *slog.Logger }

// Accept implements hclog.SinkAdapter.
func (s logSink) Accept(name string, level hclog.Level, msg string, args ...any) {
	at := slog.LevelDebug
	if level >= hclog.Error {
		at = slog.LevelWarn
	} else if level >= hclog.Warn {
		at = slog.LevelInfo
	}
	s.to.Log(context.Background(), at, name+": "+msg, args...)
}
