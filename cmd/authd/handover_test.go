package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// liveCluster is a cluster that "authd dev" runs for a test.
type liveCluster struct {
	*testing.T
	binary, dir      string
	dnsPort, apiPort int
}

func startLive(t *testing.T) *liveCluster {
	t.Helper()
	return startLiveIn(t, filepath.Join(t.TempDir(), "live"))
}

func startLiveIn(t *testing.T, dir string) *liveCluster {
	t.Helper()
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("starts a cluster: run without -short")
	}
	binary := filepath.Join(t.TempDir(), "authd")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("building authd: %v\n%s", err, out)
	}
	c := &liveCluster{T: t, binary: binary, dir: dir}
	c.dnsPort, c.apiPort = startDev(t, binary, dir, newPortPool())
	t.Cleanup(func() {
		for i := 1; t.Failed() && i <= scriptNodes; i++ {
			text, _ := os.ReadFile(c.path(i, "log"))
			t.Logf("node-%d:\n%s", i, text)
		}
	})
	return c
}

func (c *liveCluster) path(i int, name string) string { return filepath.Join(c.dir, nodeName(i), name) }
func (c *liveCluster) dns(i int) string               { return loopback(c.dnsPort + i - 1) }

func (c *liveCluster) pid(i int) int {
	c.Helper()
	pid, err := readPID(c.path(i, "pid"))
	if err != nil {
		c.Fatal(err)
	}
	return pid
}

// until waits for something to become true.
func (c *liveCluster) until(what string, check func() error) {
	c.Helper()
	var err error
	for end := time.Now().Add(scriptWait); time.Now().Before(end); time.Sleep(scriptPoll) {
		if err = check(); err == nil {
			return
		}
	}
	c.Fatalf("%s: not after %s: %v", what, scriptWait, err)
}

func (c *liveCluster) ready(i int) error {
	_, err := c.api(i, http.MethodGet, "/ready", "")
	return err
}

// api makes a request to node i as admin; a status that is no success is an error.
func (c *liveCluster) api(i int, method, path, body string) (string, error) {
	token, err := os.ReadFile(filepath.Join(c.dir, "admin.token"))
	if err != nil {
		return "", err
	}
	q, err := http.NewRequest(method, fmt.Sprintf("http://%s%s", loopback(c.apiPort+i-1), path), strings.NewReader(body))
	if err != nil {
		return "", err
	}
	q.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	if body != "" {
		q.Header.Set("Content-Type", "application/json")
	}
	reply, err := http.DefaultClient.Do(q)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(reply.Body)
	if err == nil && reply.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", reply.Status, text)
	}
	return string(text), err
}

// succeeded waits until another process than that one runs node i, and answers.
func (c *liveCluster) succeeded(i, pid int) {
	c.Helper()
	c.until("successor of "+nodeName(i), func() error {
		if c.pid(i) == pid {
			return errors.New("the old process is the node still")
		}
		if alive(pid) {
			return errors.New("the old process has not ended")
		}
		return c.ready(i)
	})
}

// load asks every node over UDP and TCP until it is stopped. Every question is
// sent once; one that is not answered fails the test.
type load struct {
	t     *testing.T
	stop  atomic.Bool
	asked atomic.Int64
	wg    sync.WaitGroup
}

func (c *liveCluster) load() *load {
	l := &load{t: c.T}
	for i := 1; i <= scriptNodes; i++ {
		for _, network := range []string{"udp", "tcp"} {
			l.wg.Go(func() { l.ask(network, c.dns(i)) })
		}
	}
	c.Cleanup(func() { l.end() })
	return l
}

func (l *load) ask(network, to string) {
	for id := uint16(1); !l.stop.Load(); id++ {
		if err := askSOA(network, to, id); err != nil {
			l.t.Errorf("%s %s, query %d of all: %v", network, to, l.asked.Load(), err)
			return
		}
		l.asked.Add(1)
	}
}

func (l *load) end() int64 {
	l.stop.Store(true)
	l.wg.Wait()
	return l.asked.Load()
}

// askSOA asks for the SOA of p-dns.test once, over a socket of its own.
func askSOA(network, to string, id uint16) error {
	query, skip := soaQuery(id), 0
	if network == "tcp" {
		query, skip = append([]byte{0, byte(len(query))}, query...), 2
	}
	conn, err := net.DialTimeout(network, to, scriptWait)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(scriptWait))
	if _, err := conn.Write(query); err != nil {
		return err
	}
	reply := make([]byte, 1500)
	n, err := conn.Read(reply)
	if err != nil {
		return err
	}
	return soaReply(reply[min(skip, n):n])
}

func soaQuery(id uint16) []byte {
	query := binary.BigEndian.AppendUint16(nil, id)
	query = append(query, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	return append(query, "\x05p-dns\x04test\x00\x00\x06\x00\x01"...)
}

// soaReply says what is wrong with a reply to soaQuery.
func soaReply(reply []byte) error {
	const noError, oneAnswer = 0, 1
	if len(reply) < 12 || reply[3]&0xf != noError || binary.BigEndian.Uint16(reply[6:]) != oneAnswer {
		return fmt.Errorf("reply %x", reply)
	}
	return nil
}

// At the node itself, that is: nobody asks another one instead.
func TestRollingRestartLosesNoQuery(t *testing.T) {
	c := startLive(t)
	l := c.load()
	for i := 1; i <= scriptNodes; i++ {
		pid := c.pid(i)
		if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		c.succeeded(i, pid)
	}
	t.Logf("%d queries", l.end())
}

// Who asks it gets an answer, or hears from the kernel that nobody listens.
func TestStoppedLeaderHandsOverAndAnswersAllThatCame(t *testing.T) {
	c := startLive(t)
	leads := func(at int) (leader string) {
		c.until("a leader", func() error {
			text, err := c.api(at, http.MethodGet, "/v1/cluster", "")
			if err != nil {
				return err
			}
			var view struct {
				Leader string `json:"leader"`
			}
			if err := json.Unmarshal([]byte(text), &view); err != nil {
				return err
			}
			if leader = view.Leader; leader == "" {
				return errors.New("none")
			}
			return nil
		})
		return leader
	}
	leader := leads(1)
	i := slices.IndexFunc([]int{1, 2, 3}, func(i int) bool { return nodeName(i) == leader }) + 1
	pid, answered := c.pid(i), atomic.Int64{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for id := uint16(1); ; id++ {
				err := askSOA("udp", c.dns(i), id)
				if errors.Is(err, syscall.ECONNREFUSED) {
					return
				}
				if err != nil {
					t.Errorf("after %d answers: %v", answered.Load(), err)
					return
				}
				answered.Add(1)
			}
		})
	}
	c.until("queries", func() error {
		if answered.Load() < 200 {
			return errors.New("too few")
		}
		return nil
	})
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	c.until("the process gone", func() error {
		if alive(pid) {
			return errors.New("it is there")
		}
		return nil
	})
	if now := leads(i%scriptNodes + 1); now == leader {
		t.Errorf("%s leads still", now)
	}
	text, err := os.ReadFile(c.path(i, "log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "leadership not handed over") {
		t.Error("it ended as the leader")
	}
	t.Logf("%d answers", answered.Load())
}

// fullDiskEnv is the directory of a cluster whose second node has a disk of its own.
const fullDiskEnv = "AUTHD_TEST_FULL_DISK"

// A node that a full disk fenced off answers on, also where it is killed and comes
// back while the disk is full still, and it takes part again once there is room.
func TestNodeWithAFullDiskAnswersAndGetsASuccessor(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("starts a cluster: run without -short")
	}
	if dir := os.Getenv(fullDiskEnv); dir != "" {
		overcomeFullDisk(t, dir)
		return
	}
	run := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.timeout=3m", "-test.v")
	run.Env = append(os.Environ(), fullDiskEnv+"="+t.TempDir())
	run.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		run.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		run.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		run.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig fires when this thread ends
	defer runtime.UnlockOSThread()
	out, err := run.CombinedOutput()
	t.Logf("in a mount namespace of its own:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

func overcomeFullDisk(t *testing.T, dir string) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	disk := filepath.Join(dir, nodeName(2))
	must(os.MkdirAll(disk, 0o700))
	must(syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=64m"))
	c := startLiveIn(t, dir)
	l := c.load()
	filler := filepath.Join(disk, "filler")
	fill := func() {
		f, err := os.Create(filler)
		must(err)
		defer f.Close()
		for block := make([]byte, 4096); err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	pid := c.pid(2)
	fill()
	tenant := func(id string) error {
		_, err := c.api(1, http.MethodPost, "/v1/tenants", fmt.Sprintf(`{"id":%q,"name":%q}`, id, strings.Repeat("x", 200)))
		return err
	}
	written := 0
	c.until("node-2 fenced off", func() error {
		if tenant(fmt.Sprintf("t%d", written)) == nil {
			written++
		}
		text, err := c.api(2, http.MethodGet, "/metrics", "")
		if err == nil && !strings.Contains(text, "\nauthd_fenced 1\n") {
			err = errors.New("authd_fenced is not 1")
		}
		return err
	})
	must(os.Remove(filler))
	c.succeeded(2, pid)
	c.until("a write", func() error { return tenant("after") })
	c.until("node-2 taking part again", func() error {
		_, err := c.api(2, http.MethodGet, "/v1/tenants/after", "")
		return err
	})
	t.Logf("%d tenants on a full disk, %d queries", written, l.end())

	// A start on a full disk, in the dark of one node.
	fill()
	pid = c.pid(2)
	must(syscall.Kill(pid, syscall.SIGKILL))
	again := exec.Command(c.binary, "serve", "--config", filepath.Join(dir, "node-2.toml"))
	again.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	again.Stdout, again.Stderr = t.Output(), t.Output()
	c.until("the killed process gone", func() error {
		if alive(pid) {
			return errors.New("it is there")
		}
		return nil
	})
	must(again.Start())
	defer again.Wait()
	defer again.Process.Signal(syscall.SIGTERM)
	c.until("node-2 answering from a full disk", func() error { return askSOA("udp", c.dns(2), 1) })
}

func TestSuccessorThatDiesIsFollowedByAnother(t *testing.T) {
	c := startLive(t)
	l := c.load()
	pid := c.pid(2)
	// A successor of ours, which gets as far as one can without serving.
	var p *predecessor
	c.until("taking over", func() (err error) {
		if p, err = takeOver(context.Background(), c.path(2, "")); err == nil && p == nil {
			err = errors.New("nobody listens")
		}
		return err
	})
	if p.pid != pid || len(p.sockets) < 2 {
		t.Fatalf("process %d, want %d, gave %d sockets", p.pid, pid, len(p.sockets))
	}
	if c.ready(2) == nil {
		t.Error("the API of a node that was let go answers")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	c.succeeded(2, pid)
	t.Logf("%d queries", l.end())
}

func TestSecondProcessOfANodeIsRefused(t *testing.T) {
	c := startLive(t)
	pid := c.pid(3)
	out, err := exec.Command(c.binary, "serve", "--config", filepath.Join(c.dir, "node-3.toml")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "process "+strconv.Itoa(pid)) {
		t.Errorf("%v, and it does not name process %d:\n%s", err, pid, out)
	}
	if c.pid(3) != pid {
		t.Error("it took the pid file away")
	}
	// A program that is to take over and cannot leaves everything as it is.
	broken := filepath.Join(c.dir, "broken.toml")
	text, err := os.ReadFile(filepath.Join(c.dir, "node-3.toml"))
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.Replace(string(text), `kek_file = "kek"`, `kek_file = "node-3.toml"`, 1))
	if err := os.WriteFile(broken, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(c.binary, "serve", "--take-over", "--config", broken).CombinedOutput(); err == nil {
		t.Errorf("a wrong configuration took over:\n%s", out)
	}
	if err := c.ready(3); err != nil || c.pid(3) != pid {
		t.Errorf("process %d, %v; want process %d, ready", c.pid(3), err, pid)
	}
}

func TestLongDirectoryNamesHaveASocketToo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := listenSuccessor(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.AcceptUnix(); err == nil {
			receiveHand(conn)
			sendHand(conn, handMessage{Kind: handRefused, PID: 7, Reason: "not today"}, nil)
			conn.Close()
		}
	}()
	if _, err := takeOver(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "process 7 refuses: not today") {
		t.Errorf("error %v", err)
	}
}
