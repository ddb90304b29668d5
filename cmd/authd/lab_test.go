package main_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The lab drives the built binary and real programs (Knot, unbound, dig,
// python3-dkim). Each lab test runs again as the first process of its own
// network and process namespaces: port 53 is free there, the documentation
// addresses are local, and the kernel ends everything it started when it ends,
// however it ends.

// labPrograms are the programs the lab drives, with the Debian package of each.
var labPrograms = []struct{ program, debian string }{
	{"ip", "iproute2"},
	{"dig", "bind9-dnsutils"},
	{"knotd", "knot"},
	{"unbound", "unbound"},
}

// labEnv marks the process that is in the namespaces: it names the test.
const labEnv = "AUTHD_LAB_TEST"

// labNet is local in the namespace, every address of it (RFC 5737).
const labNet = "192.0.2.1/24"

// lab is a namespace with the programs started in it.
type lab struct {
	*testing.T
	dir string
}

// enterLab runs the test in a namespace of its own. It returns nil in the
// process that the test began in, once the other has ended: the caller returns.
func enterLab(t *testing.T) *lab {
	t.Helper()
	if os.Getenv(labEnv) == t.Name() {
		l := &lab{T: t, dir: t.TempDir()}
		l.run("ip", "link", "set", "lo", "up")
		l.run("ip", "addr", "add", labNet, "dev", "lo")
		return l
	}
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("the lab takes minutes: run without -short")
	}
	for _, p := range labPrograms {
		if _, err := findProgram(p.program); err != nil {
			missing(t, "%v: apt-get install %s", err, p.debian)
			return nil
		}
	}
	runInNamespace(t)
	return nil
}

// missing ends a lab test that cannot run here. Under CI that is a failure, so
// that the lab is never left out by accident.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// runInNamespace runs this test binary again, for this test alone.
func runInNamespace(t *testing.T) {
	t.Helper()
	limit := 8 * time.Minute
	if end, ok := t.Deadline(); ok {
		limit = max(limit, time.Until(end)-10*time.Second)
	}
	c := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1", "-test.timeout="+limit.String())
	c.Env = append(os.Environ(), labEnv+"="+t.Name())
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	// Pdeathsig fires when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.Start(); err != nil {
		missing(t, "starting a process in new network and process namespaces: %v: run as root", err)
		return
	}
	err := c.Wait()
	var kept strings.Builder
	for line := range strings.Lines(out.String()) {
		if line != "PASS\n" && !strings.HasPrefix(line, "=== ") {
			kept.WriteString(line)
		}
	}
	t.Logf("in the namespace:\n%s", kept.String())
	if err != nil {
		t.Fatalf("in the namespace: %v", err)
	}
	if !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatal("in the namespace: the test did not run")
	}
}

// findProgram finds a program, also where only root's PATH would.
func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("no program %s here", name)
}

// program is findProgram for a program that the lab checked for.
func (l *lab) program(name string) string {
	l.Helper()
	path, err := findProgram(name)
	if err != nil {
		l.Fatal(err)
	}
	return path
}

// run runs a program to its end and gives its output.
func (l *lab) run(name string, args ...string) string {
	l.Helper()
	out, err := exec.Command(l.program(name), args...).CombinedOutput()
	if err != nil {
		l.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// process is a program that goes on running.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed once it has ended and was waited for
	err  error         // why it ended; read after done
}

// start starts a program in a session of its own; what it prints goes to a file
// that is shown when the test fails.
func (l *lab) start(name string, c *exec.Cmd) *process {
	l.Helper()
	log, err := os.CreateTemp(l.dir, name+"-*.log")
	if err != nil {
		l.Fatal(err)
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		l.Fatalf("starting %s: %v", name, err)
	}
	p := &process{name: name, cmd: c, log: log.Name(), done: make(chan struct{})}
	go func() {
		p.err = c.Wait()
		close(p.done)
	}()
	l.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if l.Failed() {
			l.Logf("the end of what %s printed:\n%s", name, tail(p.log, 40))
		}
	})
	return p
}

// end sends the process a signal and waits until it is gone.
func (p *process) end(s syscall.Signal) {
	select {
	case <-p.done:
		return
	default:
	}
	// An error means that it ended meanwhile.
	_ = p.cmd.Process.Signal(s)
	<-p.done
}

// running says whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// tail is the last lines of a file.
func tail(path string, lines int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	var last []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		last = append(last, s.Text())
		if len(last) > lines {
			last = last[1:]
		}
	}
	return strings.Join(last, "\n")
}

// errStop tells eventually that waiting longer is of no use.
var errStop = errors.New("no use waiting")

// eventually tries until there is no error, and fails the test with the last one
// when the time is over.
func (l *lab) eventually(within time.Duration, what string, try func() error) {
	l.Helper()
	deadline := time.Now().Add(within)
	pause := 5 * time.Millisecond
	for {
		err := try()
		if err == nil {
			return
		}
		if errors.Is(err, errStop) || time.Now().After(deadline) {
			l.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
}

// write writes a file below the lab's directory and gives its path.
func (l *lab) write(name, text string) string {
	l.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		l.Fatal(err)
	}
	return path
}
