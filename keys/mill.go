package keys

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"
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

// Paced is a Source that knows how long a pair takes.
type Paced interface {
	// Pace is the time that one more RSA pair takes, as measured under the present load,
	// and work the processor time in it; 0 where that is not known yet.
	Pace() (pace, work time.Duration)
}

// Shared is a Source of RSA pairs that exchanges them with the sources of other nodes.
type Shared interface {
	Source
	// Makes says whether it makes pairs itself, and Made how many it has made.
	Makes() bool
	Made() uint64
	// Starved has an item after a pair was wanted and none was ready.
	Starved() <-chan struct{}
	// Lack is how many pairs of others it would take: what it has room for, and 0 where
	// it had a pair whenever one was wanted lately.
	Lack() int
	// Put adds a pair that another node made, waiting for room until ctx is done.
	Put(ctx context.Context, p *Pair) error
	// Spare says how many pairs it would give away: those beyond half of its stock.
	Spare() int
	// TakeSpare gives one of them, if there is any.
	TakeSpare() (*Pair, bool)
}

// Faulty is a Source, or a Keeper, that can fail as a whole.
type Faulty interface {
	// Fault is why no pairs are made at the moment, or why what is held could not be
	// read again; nil: all is well, or enough are ready.
	Fault() error
}

// MillConfig is what StartMill needs.
type MillConfig struct {
	// Command starts the child: this binary with the arguments that make it call
	// RunMill. Required where Stock is not 0.
	Command []string
	// Stock is how many ready RSA pairs are kept, at most MaxStock. 0: the mill makes
	// none, and has what other nodes give.
	Stock int
	// Logger takes what the child complains of, and its end. Required.
	Logger *slog.Logger
}

// MaxStock bounds the pool of ready pairs.
const MaxStock = 500

// DefaultStock is the Stock where nobody chose one.
const DefaultStock = 64

const (
	// starvedTime is how long a mill takes pairs of others after it had none ready. A
	// rotation of many domains wants some each second.
	starvedTime = 10 * time.Second

	// A child that dies is started again after firstPause, and twice as long each
	// time that it dies without having made a pair.
	firstPause = 100 * time.Millisecond
	maxPause   = 30 * time.Second

	// stopGrace is how long Close waits for a child that was asked to go.
	stopGrace = 2 * time.Second

	// millSilence is longer than any pair takes, on a machine that is busy with
	// everything else.
	millSilence = 30 * time.Second

	// maxComplaint bounds what is logged of a child's standard error.
	maxComplaint = 4 << 10
)

// Mill is a Source whose pairs a child process makes at nice 19, because
// goroutines have no priority. The child is started again when it dies. Safe for
// concurrent use.
type Mill struct {
	config  MillConfig
	stock   chan *Pair
	starved chan struct{} // has an item once a pair was wanted that was not there
	cancel  context.CancelFunc
	done    chan struct{} // closed when the child is gone for good

	mu      sync.Mutex    // guards what follows; taken by the keeper of the child and by Take
	lastErr error         // why the last child ended; nil since the next has made a pair
	last    time.Time     // of the last pair stocked, or of the start
	made    uint64        // pairs by all children
	full    bool          // a pair waits for room: none needs to be made
	wanted  time.Time     // when a pair was last wanted that was not there
	silence time.Duration // millSilence; tests set it shorter
	pace    pace
}

// errMillClosed is why a closed mill gives nothing.
var errMillClosed = errors.New("the mill is closed")

// StartMill starts the child. The first pair takes about 50 ms of one core.
func StartMill(c MillConfig) (*Mill, error) {
	if len(c.Command) == 0 && c.Stock > 0 {
		return nil, errors.New("starting mill: Command is empty")
	}
	if c.Logger == nil {
		return nil, errors.New("starting mill: Logger is nil")
	}
	if c.Stock < 0 || c.Stock > MaxStock {
		return nil, fmt.Errorf("starting mill: Stock is %d, want 1 to %d, or 0 to make none", c.Stock, MaxStock)
	}
	room := c.Stock
	if c.Stock == 0 {
		room = DefaultStock
	} else if _, err := exec.LookPath(c.Command[0]); err != nil {
		return nil, fmt.Errorf("starting mill: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Mill{
		config: c, cancel: cancel,
		done: make(chan struct{}), silence: millSilence,
		stock: make(chan *Pair, room), starved: make(chan struct{}, 1),
		last: time.Now(),
	}
	go m.keep(ctx)
	return m, nil
}

// Take implements Source. Ed25519 pairs are made on the spot.
func (m *Mill) Take(ctx context.Context, a Algorithm) (*Pair, error) {
	if a != RSA2048 {
		return fresh(a)
	}
	if p, ok := m.TryTake(a); ok {
		return p, nil
	}
	select {
	case p := <-m.stock:
		return p, nil
	case <-m.done:
		return nil, fmt.Errorf("taking key pair: %w", errMillClosed)
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.lastErr != nil {
			return nil, fmt.Errorf("taking key pair: %w (the mill's child: %w)", ctx.Err(), m.lastErr)
		}
		return nil, fmt.Errorf("taking key pair: the mill has none ready: %w", ctx.Err())
	}
}

// fresh makes a checked pair in this process.
func fresh(a Algorithm) (*Pair, error) {
	p, err := Generate(rand.Reader, a)
	if err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// TryTake implements Source.
func (m *Mill) TryTake(a Algorithm) (*Pair, bool) {
	if a != RSA2048 {
		p, err := fresh(a)
		return p, err == nil
	}
	select {
	case p := <-m.stock:
		return p, true
	default:
	}
	m.mu.Lock()
	m.wanted = time.Now()
	m.mu.Unlock()
	select {
	case m.starved <- struct{}{}:
	default:
	}
	return nil, false
}

// Ready implements Source.
func (m *Mill) Ready() int { return len(m.stock) }

// Fault implements Faulty.
func (m *Mill) Fault() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.lastErr != nil:
		return fmt.Errorf("the mill's child ended: %w", m.lastErr)
	case m.Makes() && !m.full && time.Since(m.last) > m.silence:
		return fmt.Errorf("the mill's child has made nothing for %s", time.Since(m.last).Round(time.Second))
	}
	return nil
}

// Close ends the child and waits for it. Pairs still in stock are forgotten.
func (m *Mill) Close() error {
	m.cancel()
	<-m.done
	return nil
}

// keep runs one child after the other until the mill is closed.
func (m *Mill) keep(ctx context.Context) {
	defer close(m.done)
	if !m.Makes() {
		<-ctx.Done()
	}
	pause := firstPause
	for ctx.Err() == nil {
		made, err := m.runChild(ctx)
		if ctx.Err() != nil {
			return
		}
		if made > 0 {
			pause = firstPause
		}
		m.mu.Lock()
		m.lastErr = err
		m.mu.Unlock()
		m.config.Logger.Warn("key mill ended and is started again", "error", err, "pairs", made, "pause", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, maxPause)
	}
}

// runChild starts a child and takes its pairs until it dies.
func (m *Mill) runChild(ctx context.Context) (made int, err error) {
	// The child ends when its standard input does, which is when this process
	// closes its end, or dies, however it dies.
	child := exec.CommandContext(ctx, m.config.Command[0], m.config.Command[1:]...)
	child.Env = []string{"GOMAXPROCS=1", "GOTRACEBACK=none"}
	detach(child)
	leash, err := child.StdinPipe()
	if err != nil {
		return 0, err
	}
	child.Cancel = leash.Close
	child.WaitDelay = stopGrace
	pairs, err := child.StdoutPipe()
	if err != nil {
		return 0, err
	}
	var complaint tail
	child.Stderr = &complaint
	if err := child.Start(); err != nil {
		return 0, fmt.Errorf("starting key mill: %w", err)
	}
	made, readErr := m.stockUp(ctx, pairs)
	// Closing both pipes ends the child: in the middle of a pair it sees its input end,
	// and while it waits to write one its output fails.
	leash.Close()
	pairs.Close()
	stop := time.AfterFunc(stopGrace, func() { _ = child.Process.Kill() })
	waitErr := child.Wait()
	stop.Stop()
	switch {
	case readErr != nil:
		err = readErr
	case waitErr != nil:
		err = waitErr
	default:
		err = errors.New("it ended by itself")
	}
	if text := complaint.String(); text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return made, err
}

// stockUp moves pairs from the child into the stock. While the stock is full it
// reads nothing, the pipe fills, and the child waits.
func (m *Mill) stockUp(ctx context.Context, from io.Reader) (made int, err error) {
	in := bufio.NewReaderSize(from, maxFrame)
	for {
		p, spent, err := readPair(in)
		if errors.Is(err, io.EOF) {
			return made, nil
		}
		if err != nil {
			return made, fmt.Errorf("reading from key mill: %w", err)
		}
		made++
		m.mu.Lock()
		m.pace.add(spent, time.Now())
		m.lastErr, m.full = nil, true
		m.made++
		m.mu.Unlock()
		select {
		case m.stock <- p:
			m.mu.Lock()
			m.last, m.full = time.Now(), false
			m.mu.Unlock()
		case <-ctx.Done():
			return made, nil
		}
	}
}

// Pace implements Paced.
func (m *Mill) Pace() (pace, work time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pace.at(time.Now()), m.pace.work
}

// Makes implements Shared.
func (m *Mill) Makes() bool { return m.config.Stock > 0 }

// Made implements Shared.
func (m *Mill) Made() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.made
}

// Starved implements Shared.
func (m *Mill) Starved() <-chan struct{} { return m.starved }

// Lack implements Shared.
func (m *Mill) Lack() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wanted.IsZero() || time.Since(m.wanted) > starvedTime {
		return 0
	}
	return cap(m.stock) - len(m.stock)
}

// Put implements Shared.
func (m *Mill) Put(ctx context.Context, p *Pair) error {
	select {
	case m.stock <- p:
		return nil
	case <-m.done:
		return errMillClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Spare implements Shared.
func (m *Mill) Spare() int { return max(0, len(m.stock)-cap(m.stock)/2) }

// TakeSpare implements Shared.
func (m *Mill) TakeSpare() (*Pair, bool) {
	if m.Spare() == 0 {
		return nil, false
	}
	select {
	case p := <-m.stock:
		return p, true
	default:
		return nil, false
	}
}

// RunMill is the child: it lowers its priority and writes pairs to standard
// output until that is closed, standard input ends, or ctx is done.
func RunMill(ctx context.Context) error {
	if err := lowerPriority(); err != nil {
		return fmt.Errorf("lowering the mill's priority: %w", err)
	}
	if err := narrowPipe(os.Stdout); err != nil {
		return fmt.Errorf("narrowing the mill's pipe: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // however it ends, the parent is gone
		cancel()
	}()
	err := mill(ctx, os.Stdout)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// mill writes checked RSA pairs until ctx is done or the writer fails.
func mill(ctx context.Context, to io.Writer) error {
	for ctx.Err() == nil {
		began, work := time.Now(), worked()
		p, err := fresh(RSA2048)
		if err != nil {
			return err
		}
		if err := writePair(to, p, took{time.Since(began), worked() - work}); err != nil {
			return fmt.Errorf("handing over key pair: %w", err)
		}
	}
	return nil
}

// tail keeps the last part of what is written to it.
type tail struct {
	mu   sync.Mutex // guards text: the child's copier writes, runChild reads
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if extra := len(t.text) - maxComplaint; extra > 0 {
		t.text = append(t.text[:0], t.text[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
