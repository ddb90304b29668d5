package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fleet are the processes of a cluster on loopback.
type fleet struct {
	binary string
	dir    string
	exits  chan exit   // one for every process that ended, as it ended
	asks   chan string // nodes that want a successor

	mu       sync.Mutex // guards children
	children []*child   // the latest of a node last

	// start runs its requests on one thread that lives as long as the program:
	// the kernel ties a parent-death signal to the thread that forked.
	requests chan func()
}

// exit is the end of a node's process.
type exit struct {
	name, why string
	other     bool // another process runs this node
}

type child struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended
	why  string        // valid once done
}

func newFleet(d *devCluster) (*fleet, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &fleet{
		binary: binary, dir: d.dir,
		exits: make(chan exit, devMaxNodes), asks: make(chan string, devMaxNodes), requests: make(chan func()),
	}
	for i := 1; i <= d.nodes; i++ {
		if pid, ok := f.stray(nodeName(i)); ok {
			return nil, fmt.Errorf("%s still runs as process %d: stop it first: kill %d", nodeName(i), pid, pid)
		}
	}
	go func() {
		runtime.LockOSThread()
		for r := range f.requests {
			r()
		}
	}()
	return f, nil
}

// start starts a node in a process group of its own, so that control-C reaches
// this process alone, which then stops the nodes in order. Should this process
// be killed, the kernel tells the nodes to stop.
//
// A node asks for a successor on a pipe: it is started here, as a child of ours,
// and takes over from the one that runs.
func (f *fleet) start(name string, more ...string) error {
	log, err := os.OpenFile(filepath.Join(f.dir, name, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close()
	asked, ask, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer ask.Close()
	const firstExtra = "3" // the descriptor of ExtraFiles[0]
	args := append([]string{"serve", "--ask-fd", firstExtra, "--config", filepath.Join(f.dir, name+".toml")}, more...)
	c := &child{name: name, cmd: exec.Command(f.binary, args...), done: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr, c.cmd.ExtraFiles = log, log, []*os.File{ask}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	f.requests <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		asked.Close()
		return fmt.Errorf("starting %s: %w", name, err)
	}
	f.mu.Lock()
	f.children = append(f.children, c)
	f.mu.Unlock()
	go f.listen(name, asked)
	go f.wait(c)
	return nil
}

// listen passes on that a node wants a successor, until its process ends.
func (f *fleet) listen(name string, asked *os.File) {
	defer asked.Close()
	one := make([]byte, 1)
	for {
		if _, err := asked.Read(one); err != nil {
			return
		}
		select {
		case f.asks <- name:
		default: // it asks again
		}
	}
}

// wait notes the end of a process.
func (f *fleet) wait(c *child) {
	// How it ended is in the state; a node that was killed is no error of ours.
	_ = c.cmd.Wait()
	c.why = c.cmd.ProcessState.String()
	close(c.done)
	f.mu.Lock()
	f.children = slices.DeleteFunc(f.children, func(other *child) bool {
		return other != c && other.name == c.name && other.gone()
	})
	f.mu.Unlock()
	f.exits <- exit{c.name, c.why, f.running(c.name) > 0}
}

func (c *child) gone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// running is how many processes of ours run a node.
func (f *fleet) running(name string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.children {
		if c.name == name && !c.gone() {
			n++
		}
	}
	return n
}

// succeed starts a node's successor unless one is on its way.
func (f *fleet) succeed(name string) error {
	if f.running(name) != 1 {
		return nil
	}
	return f.start(name, "--take-over")
}

// ended says whether a node's process is gone, and how it ended.
func (f *fleet) ended(name string) (bool, string) {
	if f.running(name) > 0 {
		return false, ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range slices.Backward(f.children) {
		if c.name == name {
			return true, c.why
		}
	}
	return true, "never started"
}

// tail is the end of a node's log.
func (f *fleet) tail(name string) string {
	const lines = 10
	text, err := os.ReadFile(filepath.Join(f.dir, name, "log"))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// stop ends all nodes, also those that somebody brought back by hand: first
// politely, after the limit by force. It returns when all are gone.
func (f *fleet) stop(limit time.Duration) error {
	f.mu.Lock()
	waiting := slices.Clone(f.children)
	f.mu.Unlock()
	for _, c := range waiting {
		// An error means that it ended already.
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
	}
	strays := f.strays()
	for _, pid := range strays {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	var errs []error
	for _, c := range waiting {
		select {
		case <-c.done:
		case <-deadline.C:
			errs = append(errs, fmt.Errorf("a node did not stop within %s and was killed", limit))
			for _, other := range waiting {
				_ = other.cmd.Process.Kill()
			}
			<-c.done
		}
	}
	for _, pid := range strays {
		for until := time.Now().Add(limit); alive(pid) && time.Now().Before(until); {
			time.Sleep(devPoll)
		}
	}
	close(f.requests)
	return errors.Join(errs...)
}

// strays are nodes of this directory that run and that we did not start.
func (f *fleet) strays() []int {
	files, err := filepath.Glob(filepath.Join(f.dir, "node-*", "pid"))
	if err != nil {
		return nil // the pattern is ours
	}
	var pids []int
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		if ended, _ := f.ended(name); !ended {
			continue
		}
		if pid, ok := f.stray(name); ok {
			pids = append(pids, pid)
		}
	}
	return pids
}

// stray is the process that a node's pid file names, where it really is that
// node: a number may belong to another process by now.
func (f *fleet) stray(name string) (int, bool) {
	pid, err := readPID(filepath.Join(f.dir, name, "pid"))
	if err != nil || !alive(pid) {
		return 0, false
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return 0, false
	}
	return pid, bytes.Contains(line, []byte("serve")) && bytes.Contains(line, []byte(name+".toml"))
}

func alive(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) == nil }
