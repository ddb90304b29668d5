package keys

import (
	"context"
	"log/slog"
)

// Source gives checked pairs.
type Source interface {
	// Take gives a pair that nobody else gets, waiting for one until ctx is done.
	Take(ctx context.Context, a Algorithm) (*Pair, error)
	// TryTake gives a pair if one is ready, without waiting.
	TryTake(a Algorithm) (*Pair, bool)
	// Ready says how many RSA pairs could be taken without waiting.
	Ready() int
}

// MillConfig is what StartMill needs.
type MillConfig struct {
	// Command starts the child: this binary and the arguments that make it call
	// RunMill. Required.
	Command []string
	// Stock is how many ready RSA pairs are kept, at most MaxStock. 0 means 64.
	Stock int
	// Logger is required.
	Logger *slog.Logger
}

// MaxStock bounds the pool of ready pairs.
const MaxStock = 500

// Mill is a Source whose pairs a child process makes at nice 19, because
// goroutines have no priority. The child is started again when it dies.
type Mill struct{ millState }

type millState struct{}

// StartMill starts the child.
func StartMill(c MillConfig) (*Mill, error) { panic("todo") }

// Take implements Source.
func (m *Mill) Take(ctx context.Context, a Algorithm) (*Pair, error) { panic("todo") }

// TryTake implements Source.
func (m *Mill) TryTake(a Algorithm) (*Pair, bool) { panic("todo") }

// Ready implements Source.
func (m *Mill) Ready() int { panic("todo") }

// Close ends the child and waits for it.
func (m *Mill) Close() error { panic("todo") }

// RunMill is the child: it lowers its priority and writes pairs to standard
// output until that is closed.
func RunMill(ctx context.Context) error { panic("todo") }
