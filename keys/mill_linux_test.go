package keys

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is its own mill child: by its arguments, because a mill gives
// its child no environment.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "mill-") {
		os.Exit(millChild(os.Args[1], os.Args[2:]))
	}
	os.Exit(m.Run())
}

func millChild(what string, args []string) int {
	switch what {
	case "mill-real":
		if err := RunMill(context.Background()); err != nil {
			return 1
		}
	case "mill-dies": // after saying why
		os.Stderr.WriteString("no entropy today\n")
		return 3
	case "mill-lies": // a pair whose halves do not match
		p, _ := fresh(RSA2048)
		other, _ := fresh(RSA2048)
		p.payload = other.payload
		_ = writePair(os.Stdout, p, took{})
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "mill-silent": // lives and makes nothing
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "mill-once": // gives one pair and dies
		p, _ := fresh(RSA2048)
		_ = writePair(os.Stdout, p, took{})
	case "mill-environment": // tells what it was given, on standard error
		os.Stderr.WriteString(strings.Join(os.Environ(), ","))
		return 1
	case "mill-stubborn": // neither gives pairs nor goes
		os.Stdout.Close()
		select {}
	case "mill-parent": // starts a mill, tells its child's ID, and waits to be killed
		m, err := StartMill(MillConfig{Command: []string{args[0], "mill-real"}, Stock: 1, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			return 1
		}
		if _, err := m.Take(context.Background(), RSA2048); err != nil {
			return 1
		}
		os.Stdout.WriteString("started " + children() + "\n")
		select {}
	}
	return 0
}

// children are the process IDs of this process's children, whichever of its
// threads started them.
func children() string {
	var all strings.Builder
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		ids, _ := os.ReadFile(list)
		all.Write(ids)
	}
	return all.String()
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// journal is a logger's output that may be read while it is written.
type journal struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
	grew chan struct{} // has an item once something was written
}

func newJournal() *journal { return &journal{grew: make(chan struct{}, 1)} }

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	select {
	case j.grew <- struct{}{}:
	default:
	}
	return j.text.Write(b)
}

// wait waits until the journal says something.
func (j *journal) wait(t *testing.T, want string) {
	t.Helper()
	for {
		j.mu.Lock()
		text := j.text.String()
		j.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-j.grew:
		case <-t.Context().Done():
			t.Fatal("the test is over")
		case <-time.After(20 * time.Second):
			t.Fatalf("the journal does not say %q:\n%s", want, text)
		}
	}
}

func startMill(t *testing.T, what string, stock int) (*Mill, *journal) {
	t.Helper()
	log := newJournal()
	m, err := StartMill(MillConfig{Command: []string{self(t), what}, Stock: stock, Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, log
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestMillGivesDistinctPairsThatSign(t *testing.T) {
	m, _ := startMill(t, "mill-real", 2)
	seen := map[string]bool{}
	for range 4 {
		p, err := m.Take(soon(t), RSA2048)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(); err != nil {
			t.Error(err)
		}
		if seen[p.Payload()] {
			t.Error("a pair was given twice")
		}
		seen[p.Payload()] = true
	}
	p, err := m.Take(soon(t), Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if p.Algorithm() != Ed25519 {
		t.Errorf("asked for ed25519, got %s", p.Algorithm())
	}
	if p, ok := m.TryTake(Ed25519); !ok || p.Check() != nil {
		t.Error("no ed25519 pair at once")
	}
}

func TestMillIsStartedAgainWhenItsChildDies(t *testing.T) {
	m, log := startMill(t, "mill-once", 8)
	for range 3 { // three children
		if _, err := m.Take(soon(t), RSA2048); err != nil {
			t.Fatal(err)
		}
	}
	log.wait(t, "it ended by itself")
}

func TestMillSaysWhyItsChildDies(t *testing.T) {
	m, log := startMill(t, "mill-dies", 1)
	log.wait(t, "exit status 3: no entropy today")
	if _, ok := m.TryTake(RSA2048); ok || m.Ready() != 0 {
		t.Error("a pair is ready")
	}
	ctx, cancel := context.WithCancel(soon(t))
	cancel()
	_, err := m.Take(ctx, RSA2048)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no entropy today") {
		t.Errorf("%v", err)
	}
}

// faulty waits until a mill says what is wrong, or that nothing is.
func faulty(t *testing.T, m *Mill, want string) {
	t.Helper()
	var err error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = m.Fault(); want == "" && err == nil || want != "" && err != nil && strings.Contains(err.Error(), want) {
			return
		}
	}
	t.Errorf("the fault is %v, want %q", err, want)
}

func TestMillSaysThatItMakesNothing(t *testing.T) {
	dead, _ := startMill(t, "mill-dies", 1)
	faulty(t, dead, "no entropy today")
	silent, _ := startMill(t, "mill-silent", 1)
	if err := silent.Fault(); err != nil {
		t.Errorf("before a pair can be there: %v", err)
	}
	silent.mu.Lock()
	silent.silence = time.Millisecond
	silent.mu.Unlock()
	faulty(t, silent, "has made nothing")
	// One whose stock is full makes nothing and is well.
	full, _ := startMill(t, "mill-real", 1)
	faulty(t, full, "")
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		full.mu.Lock()
		is := full.full
		full.silence = time.Nanosecond
		full.mu.Unlock()
		if is {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the stock does not fill")
		}
	}
	if err := full.Fault(); err != nil {
		t.Errorf("with a full stock: %v", err)
	}
}

func TestMillTrustsNoPairWhoseHalvesDiffer(t *testing.T) {
	m, log := startMill(t, "mill-lies", 1)
	log.wait(t, "halves do not match")
	if _, ok := m.TryTake(RSA2048); ok {
		t.Error("the pair was given")
	}
}

func TestMillEndsAChildThatDoesNotGo(t *testing.T) {
	_, log := startMill(t, "mill-stubborn", 1)
	log.wait(t, "signal: killed")
}

func TestMillGivesItsChildNoEnvironment(t *testing.T) {
	t.Setenv("AUTHD_TOKEN", "secret")
	_, log := startMill(t, "mill-environment", 1)
	log.wait(t, "exit status 1: GOMAXPROCS=1,GOTRACEBACK=none\"")
}

func TestClosedMillGivesNothing(t *testing.T) {
	m, _ := startMill(t, "mill-dies", 1)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Take(soon(t), RSA2048); !errors.Is(err, errMillClosed) {
		t.Errorf("%v", err)
	}
}

// millProcess is a real child with pipes in the test's hands.
func millProcess(t *testing.T) (child *exec.Cmd, in io.WriteCloser, out io.ReadCloser) {
	t.Helper()
	child = exec.Command(self(t), "mill-real")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err = child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = child.Process.Kill() // long gone, if all is well
		_ = child.Wait()
	})
	if _, _, err := readPair(out); err != nil {
		t.Fatal(err)
	}
	return child, in, out
}

func TestMillChildHasTheLowestPriority(t *testing.T) {
	child, _, _ := millProcess(t)
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(child.Process.Pid) + "/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		// The system call answers 20 - nice.
		if priority, err := unix.Getpriority(unix.PRIO_PROCESS, id); err != nil || priority != 20-lowestPriority {
			t.Errorf("thread %d has nice %d, %v", id, 20-priority, err)
		}
	}
}

func TestMillChildWaitsForItsReader(t *testing.T) {
	_, in, out := millProcess(t)
	size, err := unix.FcntlInt(out.(*os.File).Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	if size > os.Getpagesize() {
		t.Errorf("the pipe holds %d octets, at most %d wanted", size, os.Getpagesize())
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	// What it had made by then still comes whole, and no more.
	for {
		_, _, err := readPair(out)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestMillChildEndsWithItsParentHoweverThatEnds(t *testing.T) {
	parent := exec.Command(self(t), "mill-parent", self(t))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 64)
	n, err := out.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(string(text[:n]), "started ")))
	if err != nil {
		t.Fatalf("it said %q: %v", text[:n], err)
	}
	handle, err := unix.PidfdOpen(child, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(handle)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Fatal("the parent ended by itself")
	}
	polled := []unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(polled, 20000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n != 1 {
			t.Fatalf("child %d goes on: %v", child, err)
		}
		return
	}
}

func TestStartMillRefusesWhatCannotWork(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	for name, test := range map[string]struct {
		config MillConfig
		want   string
	}{
		"no command":   {MillConfig{Logger: logger, Stock: 1}, "Command is empty"},
		"no logger":    {MillConfig{Command: []string{self(t)}}, "Logger is nil"},
		"stock":        {MillConfig{Command: []string{self(t)}, Logger: logger, Stock: MaxStock + 1}, "Stock is 501"},
		"no such file": {MillConfig{Command: []string{"/nonexistent/authd"}, Logger: logger, Stock: 1}, "/nonexistent/authd"},
	} {
		if m, err := StartMill(test.config); err == nil {
			_ = m.Close()
			t.Errorf("%s: it started", name)
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestMillRefusesMalformedFrames(t *testing.T) {
	var whole bytes.Buffer
	p := generate(t, Ed25519)
	spent := took{wall: 70 * time.Millisecond, work: 45 * time.Millisecond}
	if err := writePair(&whole, p, spent); err != nil {
		t.Fatal(err)
	}
	good := whole.Bytes()
	again, told, err := readPair(bytes.NewReader(good))
	if err != nil || again.Payload() != p.Payload() || told != spent {
		t.Fatalf("%v, %+v, %v", again, told, err)
	}
	if _, _, err := readPair(bytes.NewReader(nil)); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	for length := 1; length < len(good); length++ {
		if _, _, err := readPair(bytes.NewReader(good[:length])); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("cut to %d octets: %v", length, err)
		}
	}
	change := func(at int, value uint16) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint16(b[at:], value)
		return b
	}
	algorithm := bytes.Clone(good)
	algorithm[frameHead] = byte(RSA2048)
	for name, b := range map[string][]byte{
		"length 0":     change(0, 0),
		"length large": change(0, 65535),
		"payload long": change(frameHead+pairHead-2, 65535),
		"payload none": change(frameHead+pairHead-2, 0),
		"algorithm":    algorithm,
	} {
		if _, _, err := readPair(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
}

// TestMillGivesAwayWhatIsBeyondHalfOfItsStock, and one that makes none has what
// others give.
func TestMillGivesAwayWhatIsBeyondHalfOfItsStock(t *testing.T) {
	m, _ := startMill(t, "mill-real", 4)
	if m.Lack() != 0 || !m.Makes() {
		t.Errorf("lacks %d, makes %t", m.Lack(), m.Makes())
	}
	for m.Ready() < 4 {
		select {
		case <-soon(t).Done():
			t.Fatalf("%d ready", m.Ready())
		case <-time.After(time.Millisecond):
		}
	}
	empty, _ := startMill(t, "mill-real", 0)
	if empty.Makes() || empty.Fault() != nil || empty.Spare() != 0 {
		t.Errorf("a mill of nothing: %t, %v, %d", empty.Makes(), empty.Fault(), empty.Spare())
	}
	if _, ok := empty.TryTake(RSA2048); ok || empty.Lack() != DefaultStock || len(empty.Starved()) != 1 {
		t.Errorf("it lacks %d", empty.Lack())
	}
	p, ok := m.TakeSpare()
	if !ok {
		t.Fatal("none of a full stock is spare")
	}
	if err := empty.Put(soon(t), p.From("node-2")); err != nil {
		t.Fatal(err)
	}
	if got, err := empty.Take(soon(t), RSA2048); err != nil || got.Payload() != p.Payload() || got.Maker() != "node-2" || p.Maker() != "" {
		t.Errorf("%v, %v", got, err)
	}
	if m.Made() < 4 || empty.Made() != 0 {
		t.Errorf("made %d and %d", m.Made(), empty.Made())
	}
	// Half of it stays, whoever asks.
	for range 100 {
		before := m.Ready()
		if _, ok := m.TakeSpare(); ok && before <= 2 {
			t.Fatalf("of %d one was given", before)
		}
	}
	full, _ := startMill(t, "mill-silent", 1)
	if err := full.Put(soon(t), p); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := full.Put(ctx, p); !errors.Is(err, context.Canceled) {
		t.Errorf("a full stock took another: %v", err)
	}
}
