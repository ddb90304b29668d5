package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Ports of the clusters that lab tests start: those of "authd dev".
const (
	labNodes   = 3
	labDNSPort = 5300 // node i: +i
	labAPIPort = 8300
)

// labStart bounds the start of a cluster; labSettle what follows the loss of a
// node or a leader.
const (
	labStart  = 60 * time.Second
	labSettle = 30 * time.Second
)

// cluster is a cluster on loopback, started by the built binary.
type cluster struct {
	*lab
	binary string
	dir    string
	token  string
	dev    *process         // authd dev, where it started the nodes
	nodes  map[int]*process // nodes that "authd serve" started
}

// build builds the binary; with tags, for example "lab".
func (l *lab) build(tags string) string {
	l.Helper()
	out := filepath.Join(l.dir, "authd-"+tags)
	// -buildvcs=false: in a user namespace the tree may seem to be another's.
	c := exec.Command("go", "build", "-buildvcs=false", "-tags", tags, "-o", out, ".")
	if text, err := c.CombinedOutput(); err != nil {
		l.Fatalf("building authd: %v\n%s", err, text)
	}
	return out
}

// startDev starts "authd dev" with an empty cluster and waits for "ready".
func (l *lab) startDev(binary string) *cluster {
	l.Helper()
	c := &cluster{lab: l, binary: binary, dir: filepath.Join(l.dir, "cluster"), nodes: map[int]*process{}}
	c.dev = l.start("dev", exec.Command(binary, "dev", "--data", c.dir, "--empty"))
	// In order, so that the ports are free when the cleanup is done.
	l.Cleanup(func() { c.dev.end(syscall.SIGTERM) })
	l.eventually(labStart, "authd dev printing ready", func() error {
		if !c.dev.running() {
			return fmt.Errorf("it ended: %w", errStop)
		}
		text, err := os.ReadFile(c.dev.log)
		if err == nil && !strings.Contains("\n"+string(text), "\nready\n") {
			err = errors.New("no such line yet")
		}
		return err
	})
	c.readToken()
	return c
}

func (c *cluster) readToken() {
	c.Helper()
	token, err := os.ReadFile(filepath.Join(c.dir, "admin.token"))
	if err != nil {
		c.Fatal(err)
	}
	c.token = strings.TrimSpace(string(token))
}

// dns is where node i answers queries; apiURL where it takes requests.
func (c *cluster) dns(i int) string    { return fmt.Sprintf("127.0.0.1:%d", labDNSPort+i) }
func (c *cluster) apiURL(i int) string { return fmt.Sprintf("http://127.0.0.1:%d", labAPIPort+i) }

// reply is what a node said to a request.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// try makes a request to node i and gives what came, whatever it was.
func (c *cluster) try(i int, method, path string, body any) (*reply, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, c.apiURL(i)+path, content)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	client := http.Client{Timeout: time.Minute}
	got, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	return &reply{got.StatusCode, got.Header, text}, err
}

// call makes a request that must succeed, and decodes the reply into "into"
// (nil: not).
func (c *cluster) call(i int, method, path string, body, into any) *reply {
	c.Helper()
	r, err := c.try(i, method, path, body)
	if err != nil {
		c.Fatalf("%s %s at node %d: %v", method, path, i, err)
	}
	if r.status/100 != 2 {
		c.Fatalf("%s %s at node %d: %d\n%s", method, path, i, r.status, r.body)
	}
	if into != nil {
		if err := json.Unmarshal(r.body, into); err != nil {
			c.Fatalf("%s %s at node %d: %v\n%s", method, path, i, err, r.body)
		}
	}
	return r
}

// cli runs the binary as a client of node i; it gives all that was printed.
func (c *cluster) cli(i int, args ...string) (string, error) {
	cmd := exec.Command(c.binary, args...)
	cmd.Env = append(os.Environ(), "AUTHD_ADDR="+c.apiURL(i), "AUTHD_TOKEN="+c.token)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// leader waits until the cluster has a leader, as one of the given nodes sees it.
func (c *cluster) leader(askable ...int) (leader int) {
	c.Helper()
	c.eventually(labSettle, "a leader", func() error {
		var err error
		for _, i := range askable {
			var r *reply
			if r, err = c.try(i, "GET", "/v1/cluster", nil); err != nil {
				continue
			}
			var view struct {
				Leader string `json:"leader"`
			}
			if err = json.Unmarshal(r.body, &view); err != nil {
				continue
			}
			if leader, err = strconv.Atoi(strings.TrimPrefix(view.Leader, "node-")); err == nil {
				return nil
			}
		}
		return err
	})
	return leader
}

// pid is the process id of node i, as the node wrote it.
func (c *cluster) pid(i int) int {
	c.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, fmt.Sprintf("node-%d", i), "pid"))
	if err != nil {
		c.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		c.Fatal(err)
	}
	return pid
}

// kill ends node i with SIGKILL and waits until it is gone.
func (c *cluster) kill(i int) {
	c.Helper()
	pid := c.pid(i)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.Fatalf("killing node %d: %v", i, err)
	}
	c.gone(pid)
}

// gone waits until a process is no more.
func (c *cluster) gone(pid int) {
	c.Helper()
	c.eventually(labSettle, fmt.Sprintf("process %d gone", pid), func() error {
		// The lab is the first process of its namespace: orphans become its children.
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
			return fmt.Errorf("it is there still (%v)", err)
		}
		return nil
	})
}

// killAll ends authd dev and every node at once with SIGKILL: a power cut.
func (c *cluster) killAll(nodes ...int) {
	c.Helper()
	var pids []int
	for _, i := range nodes {
		pids = append(pids, c.pid(i))
	}
	if c.dev != nil && c.dev.running() {
		_ = c.dev.cmd.Process.Signal(syscall.SIGSTOP) // so that it restarts none
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // an error: it ended meanwhile
	}
	if c.dev != nil {
		c.dev.end(syscall.SIGKILL)
	}
	for _, pid := range pids {
		c.gone(pid)
	}
	for i, p := range c.nodes {
		p.end(syscall.SIGKILL)
		delete(c.nodes, i)
	}
}

// serve starts node i alone with "authd serve" and waits until its API answers.
func (c *cluster) serve(i int) {
	c.Helper()
	p := c.start(fmt.Sprintf("node-%d", i), exec.Command(c.binary, "serve", "--config", filepath.Join(c.dir, fmt.Sprintf("node-%d.toml", i))))
	c.nodes[i] = p
	c.eventually(labStart, fmt.Sprintf("node %d answering", i), func() error {
		if !p.running() {
			return fmt.Errorf("it ended: %w", errStop)
		}
		_, err := ask("udp", c.dns(i), "p-dns.test.", 6)
		if err == nil {
			_, err = c.try(i, "GET", "/health", nil)
		}
		return err
	})
}

// caughtUp waits until the nodes have applied what the first has.
func (c *cluster) caughtUp(nodes ...int) {
	c.Helper()
	var want uint64
	c.eventually(labSettle, fmt.Sprintf("nodes %v equally far", nodes), func() error {
		var view struct {
			Nodes []struct {
				ID      string `json:"id"`
				Applied uint64 `json:"applied"`
				Serving bool   `json:"serving"`
			} `json:"nodes"`
		}
		r, err := c.try(nodes[0], "GET", "/v1/cluster", nil)
		if err == nil {
			err = json.Unmarshal(r.body, &view)
		}
		if err != nil {
			return err
		}
		applied := map[string]uint64{}
		for _, n := range view.Nodes {
			applied[n.ID] = n.Applied
		}
		want = max(want, applied[fmt.Sprintf("node-%d", nodes[0])])
		for _, i := range nodes {
			if a := applied[fmt.Sprintf("node-%d", i)]; a == 0 || a < want {
				return fmt.Errorf("node %d has applied %d of %d", i, a, want)
			}
		}
		return nil
	})
}
