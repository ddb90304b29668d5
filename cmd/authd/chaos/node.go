package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// node is one process of authd with its disk and its network.
type node struct {
	i      int
	w      *world
	disk   *disk
	config string // as operator init wrote it
	joiner string // the same without the founding members

	group int           // process group: the process, and successors that it started
	done  chan struct{} // closed once all of them are gone

	// touched: a fault is on this node, or it comes back from one. Queries that
	// fail then are the node's own, not a survivor's.
	touched atomic.Bool
}

func (n *node) id() string   { return fmt.Sprintf("node-%d", n.i) }
func (n *node) data() string { return filepath.Join(n.disk.dir, "data") }
func (n *node) log() string  { return filepath.Join(n.w.dir, n.id()+".log") }
func (n *node) url() string  { return "https://" + address(n.i) + ":8301" }

// start starts the process; it does not wait for anything.
func (n *node) start(prefix ...string) error { return n.startWith(n.config, prefix...) }

func (n *node) startWith(config string, prefix ...string) error {
	log, err := os.OpenFile(n.log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"--net=/run/netns/" + netns(n.i), "--"}, prefix...)
	args = append(args, n.w.binary, "serve", "--config", config)
	c := exec.Command("nsenter", args...)
	c.Stdout, c.Stderr = log, log
	c.Env = append(os.Environ(), n.w.env...)
	if len(n.w.env) == 0 { // else their time is another's matter
		c.Env = append(c.Env, "AUTHD_LAB_CLOCK="+n.clockFile())
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", n.id(), err)
	}
	n.group, n.done = c.Process.Pid, make(chan struct{})
	go reap(n.group, n.done)
	return c.Process.Release()
}

// reap waits for all of a process group. A fenced process starts its successor
// and ends: the successor is this process's child then, which is the first of its
// namespace. How they end does not matter here; a fault meant them to.
func reap(group int, done chan struct{}) {
	defer close(done)
	for {
		if _, err := syscall.Wait4(-group, nil, 0, nil); err != nil && !errors.Is(err, syscall.EINTR) {
			return // ECHILD: none is left
		}
	}
}

func (n *node) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// signal goes to the whole process group, and with it to what was put before the
// program.
func (n *node) signal(s syscall.Signal) error {
	if !n.running() {
		return nil
	}
	if err := syscall.Kill(-n.group, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %v for %s: %w", s, n.id(), err)
	}
	return nil
}

// kill ends the process with SIGKILL and waits until it is gone.
func (n *node) kill() error {
	if err := n.signal(syscall.SIGKILL); err != nil {
		return err
	}
	return n.gone(10 * time.Second)
}

// stop ends the process as an operator would.
func (n *node) stop() error {
	if err := n.signal(syscall.SIGTERM); err != nil {
		return err
	}
	return n.gone(30 * time.Second)
}

func (n *node) gone(limit time.Duration) error {
	if n.done == nil {
		return nil
	}
	select {
	case <-n.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s is still there after %s", n.id(), limit)
	}
}

func (n *node) pidFile() string { return filepath.Join(n.w.dir, n.id()+".pid") }

// clockFile says by how many seconds the node's clock is wrong.
func (n *node) clockFile() string { return filepath.Join(n.w.dir, n.id()+".clock") }

func (n *node) setClock(wrong time.Duration) error {
	return os.WriteFile(n.clockFile(), fmt.Appendf(nil, "%d\n", int64(wrong.Seconds())), 0o600)
}

// pid is the process that runs now, as it wrote it.
func (n *node) pid() (int, error) {
	text, err := os.ReadFile(n.pidFile())
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// view is what a node says of the cluster.
type view struct {
	Leader string `json:"leader"`
	Nodes  []struct {
		ID      string `json:"id"`
		Applied uint64 `json:"applied"`
		Serving bool   `json:"serving"`
		Healthy bool   `json:"healthy"`
	} `json:"nodes"`
}

func (n *node) view(ctx context.Context) (v view, err error) {
	r, err := n.w.request(ctx, n, http.MethodGet, "/v1/cluster", nil, nil)
	if err != nil {
		return v, err
	}
	if r.status != http.StatusOK {
		return v, fmt.Errorf("%s: %d: %s", n.id(), r.status, r.body)
	}
	return v, json.Unmarshal(r.body, &v)
}

// ready says whether the node answers queries.
func (n *node) ready(ctx context.Context) error {
	r, err := n.w.request(ctx, n, http.MethodGet, "/ready", nil, nil)
	if err != nil {
		return err
	}
	if r.status != http.StatusOK {
		return fmt.Errorf("%s is not ready: %s", n.id(), r.body)
	}
	return nil
}

// configure turns what operator init wrote into a file of this node's.
func (n *node) configure() error {
	dir := filepath.Join(n.w.dir, "cluster", n.id())
	n.config, n.joiner = filepath.Join(dir, "authd.toml"), filepath.Join(dir, "joiner.toml")
	text, err := os.ReadFile(n.config)
	if err != nil {
		return err
	}
	text = regexp.MustCompile(`(?m)^data_dir *=.*$`).ReplaceAll(text, fmt.Appendf(nil, "data_dir = %q\npid_file = %q", n.data(), n.pidFile()))
	founding := regexp.MustCompile(`(?ms)^\[bootstrap\]$.*?^\]$`)
	if !founding.Match(text) {
		return fmt.Errorf("%s has no founding members", n.config)
	}
	limits := "\n[dns.rate_limit]\nexempt = [\"192.0.2.0/24\"]\n"
	joiner := founding.ReplaceAll(text, nil)
	if err := os.WriteFile(n.joiner, append(joiner, limits...), 0o600); err != nil {
		return err
	}
	return os.WriteFile(n.config, append(text, limits...), 0o600)
}
