package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts of testdata/scripts run the real binary. They share one cluster
// that authd dev runs, so each uses tenants and domains of its own. Beside what
// testscript has, and the file claim.sh, they know:
//
//	exits CODE PROGRAM ARGS…     run a program that must end with that code
//	eventually PROGRAM ARGS…     run it again until it succeeds
//	capture NAME PATTERN         set $NAME to the pattern's group in the last output
//	ports N                      set $DNS_i, $API_i and $LINK_i to free ports for N nodes
//	mode WANT FILE               a file's permissions, in octal
//	rsakey FILE                  write a fresh RSA private key
//	awaitline FILE LINE          wait until a file has a line
//	signal NAME FILE             send a signal to the process that a file names

// Bounds of what scripts wait for.
const (
	scriptWait  = 20 * time.Second
	scriptPoll  = 20 * time.Millisecond
	scriptNodes = 3
)

func TestScripts(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("starts a cluster: run without -short")
	}
	if _, err := exec.LookPath("dig"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v: apt-get install bind9-dnsutils", err)
		}
		t.Skipf("%v: apt-get install bind9-dnsutils", err)
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(bin, "authd"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building authd: %v\n%s", err, out)
	}
	claim, err := os.ReadFile("../../testdata/scripts/claim.sh")
	if err != nil {
		t.Fatal(err)
	}
	ports := newPortPool()
	dir, dnsPort, apiPort := startShared(t, filepath.Join(bin, "authd"), ports)
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "../../testdata/scripts",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("ADMIN", strings.TrimSpace(string(token)))
			e.Setenv("AUTHD_TOKEN", strings.TrimSpace(string(token)))
			e.Setenv("AUTHD_ADDR", fmt.Sprintf("http://127.0.0.1:%d", apiPort))
			for i := range scriptNodes {
				e.Setenv(fmt.Sprintf("DNS%d", i+1), strconv.Itoa(dnsPort+i))
				e.Setenv(fmt.Sprintf("API%d", i+1), fmt.Sprintf("http://127.0.0.1:%d", apiPort+i))
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "claim.sh"), claim, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": cmdExits, "eventually": cmdEventually, "capture": cmdCapture, "ports": ports.cmdPorts,
			"mode": cmdMode, "rsakey": cmdRSAKey, "awaitline": cmdAwaitLine, "signal": cmdSignal,
		},
	})
}

// startShared starts the cluster that the scripts share, and ends it with the test.
func startShared(t *testing.T, binary string, ports *portPool) (dir string, dnsPort, apiPort int) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "shared")
	dnsPort, apiPort = startDev(t, binary, dir, ports)
	return dir, dnsPort, apiPort
}

// startDev starts "authd dev", and ends it with the test.
func startDev(t *testing.T, binary, dir string, ports *portPool) (dnsPort, apiPort int) {
	t.Helper()
	dnsPort, apiPort, err := ports.take(scriptNodes)
	if err != nil {
		t.Fatal(err)
	}
	dev := exec.Command(binary, "dev", "--data", dir,
		"--dns-port", strconv.Itoa(dnsPort), "--api-port", strconv.Itoa(apiPort))
	out, err := dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Should the test itself be killed, the cluster must not stay.
	dev.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	var complaints bytes.Buffer
	dev.Stderr = &complaints
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	go func() {
		var all strings.Builder
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			fmt.Fprintln(&all, lines.Text())
			if lines.Text() == "ready" {
				said <- ""
			}
		}
		said <- all.String()
	}()
	t.Cleanup(func() {
		if err := dev.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("stopping authd dev: %v", err)
		}
		if err := dev.Wait(); err != nil {
			t.Errorf("authd dev: %v\n%s", err, complaints.String())
		}
	})
	select {
	case text := <-said:
		if text != "" {
			t.Fatalf("authd dev ended:\n%s", text)
		}
	case <-time.After(scriptWait):
		t.Fatal("authd dev is not ready")
	}
	return dnsPort, apiPort
}

// portPool gives ports to the clusters of a test run. They lie below the range
// from which the kernel takes ports for outgoing connections, so that none is
// taken between its choice and its use.
type portPool struct {
	mu   sync.Mutex // guards next; scripts run at the same time
	next int
}

// Ports of the pool: DNS, with the links devLinkAbove them, and the API's.
const (
	poolDNS   = 12_000
	poolAPI   = 16_000
	poolPorts = devLinkAbove - 2*devMaxNodes
)

func newPortPool() *portPool {
	// Another run of the tests begins elsewhere.
	return &portPool{next: os.Getpid() % poolPorts}
}

// take finds the first of n ports for DNS, with room for the node links above,
// and of n for the API.
func (p *portPool) take(n int) (dns, api int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range poolPorts {
		dns, api = poolDNS+p.next, poolAPI+p.next
		p.next = (p.next + n) % poolPorts
		all := true
		for i := range n {
			all = all && freePort(dns+i) && freePort(api+i) && freePort(dns+devLinkAbove+i)
		}
		if all {
			return dns, api, nil
		}
	}
	return 0, 0, errors.New("no free ports found")
}

func freePort(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		return false
	}
	l.Close()
	p, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	if err != nil {
		return false
	}
	p.Close()
	return true
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if ended, ok := errors.AsType[*exec.ExitError](err); ok {
		code = ended.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("ended with code %d", code)
	}
}

func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: eventually PROGRAM ARGS…")
	}
	for until := time.Now().Add(scriptWait); ; time.Sleep(scriptPoll) {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) != neg {
			return
		}
		if time.Now().After(until) {
			ts.Fatalf("still after %s: %v", scriptWait, err)
		}
	}
}

func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME PATTERN")
	}
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	found := pattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) != 2 {
		ts.Fatalf("%s does not match with one group", args[1])
	}
	ts.Setenv(args[0], found[1])
}

func (p *portPool) cmdPorts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: ports N")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	dns, api, err := p.take(n)
	ts.Check(err)
	for i := range n {
		of := strconv.Itoa(i + 1)
		ts.Setenv("DNS_"+of, strconv.Itoa(dns+i))
		ts.Setenv("API_"+of, strconv.Itoa(api+i))
		ts.Setenv("LINK_"+of, strconv.Itoa(dns+devLinkAbove+i))
	}
}

func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode WANT FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

func cmdRSAKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: rsakey FILE")
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	ts.Check(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	ts.Check(secretFile(ts.MkAbs(args[0]), text))
}

func cmdAwaitLine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: awaitline FILE LINE")
	}
	var text []byte
	for until := time.Now().Add(scriptWait); time.Now().Before(until); time.Sleep(scriptPoll) {
		var err error
		if text, err = os.ReadFile(ts.MkAbs(args[0])); err != nil {
			continue
		}
		if strings.Contains("\n"+string(text), "\n"+args[1]+"\n") {
			return
		}
	}
	ts.Fatalf("%s has no line %q:\n%s", args[0], args[1], text)
}

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: signal NAME FILE")
	}
	signals := map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "KILL": syscall.SIGKILL}
	pid, err := readPID(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(syscall.Kill(pid, signals[args[0]]))
}
