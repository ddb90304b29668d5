package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fleet are the processes of a cluster on loopback.
type fleet struct {
	binary string
	dir    string
	exits  chan exit // one for every process that ended, as it ended

	mu       sync.Mutex // guards children
	children map[string]*child

	// start runs its requests on one thread that lives as long as the program:
	// the kernel ties a parent-death signal to the thread that forked.
	requests chan func()
}

// exit is the end of a node's process.
type exit struct{ name, why string }

type child struct {
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
		exits: make(chan exit, devMaxNodes), children: map[string]*child{}, requests: make(chan func()),
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
func (f *fleet) start(name string) error {
	log, err := os.OpenFile(filepath.Join(f.dir, name, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	defer log.Close()
	c := &child{
		cmd:  exec.Command(f.binary, "serve", "--config", filepath.Join(f.dir, name+".toml")),
		done: make(chan struct{}),
	}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	f.requests <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	f.mu.Lock()
	f.children[name] = c
	f.mu.Unlock()
	go func() {
		// How it ended is in the state; a node that was killed is no error of ours.
		_ = c.cmd.Wait()
		c.why = c.cmd.ProcessState.String()
		close(c.done)
		f.exits <- exit{name, c.why}
	}()
	return nil
}

// ended says whether a node's process is gone, and how it ended.
func (f *fleet) ended(name string) (bool, string) {
	f.mu.Lock()
	c := f.children[name]
	f.mu.Unlock()
	if c == nil {
		return true, "never started"
	}
	select {
	case <-c.done:
		return true, c.why
	default:
		return false, ""
	}
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
	var waiting []*child
	for _, c := range f.children {
		waiting = append(waiting, c)
	}
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
