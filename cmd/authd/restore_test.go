package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
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
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"authd/api"
)

// operated is a cluster of one node that an operator prepared.
type operated struct {
	*testing.T
	binary, dir string
	dns, api    int
	token       string
}

// operate prepares and starts one; kek is the key-encryption key that it begins
// with, empty: one of its own.
func operate(t *testing.T, binary string, ports *portPool, kek string) *operated {
	t.Helper()
	o := &operated{T: t, binary: binary, dir: filepath.Join(t.TempDir(), "c")}
	var err error
	if o.dns, o.api, err = ports.take(1); err != nil {
		t.Fatal(err)
	}
	if kek != "" {
		text, err := os.ReadFile(kek)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Mkdir(o.dir, 0o700), os.WriteFile(filepath.Join(o.dir, "kek"), text, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command(binary, "operator", "init", o.dir, "--node", "node-1="+loopback(o.dns+2000),
		"--dns", loopback(o.dns), "--api-port", fmt.Sprint(o.api), "--data-dir", filepath.Join(o.dir, "data")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(o.dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	o.token = strings.TrimSpace(string(text))
	var log bytes.Buffer
	serve := exec.Command(binary, "serve", "--config", filepath.Join(o.dir, "node-1", "authd.toml"))
	serve.Stdout, serve.Stderr = &log, &log
	serve.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		serve.Process.Signal(syscall.SIGTERM)
		serve.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", o.dir, log.String())
		}
	})
	return o
}

// run is a command as the operator types it.
func (o *operated) run(args ...string) (string, error) {
	c := exec.Command(o.binary, append(args, "--ca", filepath.Join(o.dir, "ca.pem"))...)
	c.Env = append(os.Environ(), "AUTHD_ADDR=https://"+loopback(o.api), "AUTHD_TOKEN="+o.token)
	out, err := c.CombinedOutput()
	return string(out), err
}

func (o *operated) must(args ...string) string {
	o.Helper()
	out, err := o.run(args...)
	if err != nil {
		o.Fatalf("authd %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (o *operated) started() {
	o.Helper()
	var out string
	var err error
	for end := time.Now().Add(scriptWait); time.Now().Before(end); time.Sleep(scriptPoll) {
		if out, err = o.run("tenant", "list"); err == nil {
			return
		}
	}
	o.Fatalf("not ready after %s: %v %s", scriptWait, err, out)
}

func (o *operated) domain(name string) (d api.Domain) {
	o.Helper()
	if err := json.Unmarshal([]byte(o.must("domain", "show", name, "-o", "json")), &d); err != nil {
		o.Fatal(err)
	}
	return d
}

// serial asks DNS for the serial of a zone, given as it is in a message.
func (o *operated) serial(apex string) uint32 {
	o.Helper()
	query := append([]byte("\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"), apex+"\x00\x00\x06\x00\x01"...)
	conn, err := net.Dial("udp", loopback(o.dns))
	if err != nil {
		o.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(scriptWait))
	reply := make([]byte, 1500)
	n := 0
	if _, err = conn.Write(query); err == nil {
		n, err = conn.Read(reply)
	}
	// One answer and nothing behind it: the serial is 20 octets before the end
	// (RFC 1035 section 3.3.13).
	if err != nil || n < 40 || binary.BigEndian.Uint64(reply[4:]) != 1<<48|1<<32 {
		o.Fatalf("%v, reply %x", err, reply[:n])
	}
	return binary.BigEndian.Uint32(reply[n-20:])
}

// post sends a snapshot past the client's own checks. length is what it says it
// sends; where that is more, the connection ends before it.
func (o *operated) post(image []byte, length int) (status int, text string) {
	o.Helper()
	ca, err := os.ReadFile(filepath.Join(o.dir, "ca.pem"))
	if err != nil {
		o.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Timeout: scriptWait, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	r, err := http.NewRequest("POST", "https://"+loopback(o.api)+"/v1/cluster/snapshot", io.MultiReader(bytes.NewReader(image)))
	if err != nil {
		o.Fatal(err)
	}
	r.ContentLength = int64(length)
	r.Header.Set("Authorization", "Bearer "+o.token)
	reply, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil || reply.Header.Get("Content-Type") != "application/problem+json" && reply.StatusCode != http.StatusOK {
		o.Errorf("%s %s %v", reply.Status, body, err)
	}
	return reply.StatusCode, string(body)
}

const apexSend, apexPlatform = "\x04send\x04acme\x07example", "\x05p-dns\x04test"

// A backup goes into a new, a younger and an older cluster, as real processes; what
// cannot be restored changes nothing and says why.
func TestBackupIsRestoredIntoNewYoungerAndOlderClusters(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("starts clusters: run without -short")
	}
	binary := filepath.Join(t.TempDir(), "authd")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("building authd: %v\n%s", err, out)
	}
	ports, files := newPortPool(), t.TempDir()
	first := operate(t, binary, ports, "")
	stranger := operate(t, binary, ports, "") // has another key-encryption key
	heir := operate(t, binary, ports, filepath.Join(first.dir, "kek"))
	first.started()
	first.must("nameserver", "set", "ns1", "192.0.2.53")
	first.must("zone", "set", "p-dns.test")
	first.must("pool", "set", "default", "--spf", "ip4:192.0.2.0/24")
	first.must("tenant", "add", "acme")
	first.must("domain", "add", "send.acme.example", "--tenant", "acme", "--wait")
	first.must("domain", "attest", "send.acme.example", "--reason", "a test", "--wait")
	first.must("domain", "add", "cname.example", "--tenant", "acme", "--mode", "cname", "--wait")
	first.must("domain", "add", "gone.example", "--tenant", "acme", "--mode", "cname", "--wait")
	gone := first.domain("gone.example").Token
	first.must("domain", "remove", "gone.example", "--now", "--reason", "a test")
	backup := filepath.Join(files, "first.snapshot")
	if out := first.must("operator", "snapshot", "save", backup); !strings.Contains(out, "2 domains") {
		t.Error(out)
	}
	saved := first.domain("send.acme.example")
	serials := [2]uint32{first.serial(apexSend), first.serial(apexPlatform)}
	image, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("what cannot be restored", func(t *testing.T) { badBackups(t, stranger, image, files) })

	restore := func(o *operated) {
		t.Helper()
		o.must("operator", "snapshot", "restore", backup)
		o.token = first.token // tokens are those of the backup
	}
	check := func(o *operated, atLeast [2]uint32, beyond bool) {
		t.Helper()
		d := o.domain("send.acme.example")
		if d.Token != saved.Token || len(d.Keys) == 0 || d.Keys[0].Selector != saved.Keys[0].Selector || d.Keys[0].Public != saved.Keys[0].Public || fmt.Sprint(d.Records) != fmt.Sprint(saved.Records) {
			t.Errorf("the domain is another: %+v, was %+v", d, saved)
		}
		for i, now := range [2]uint32{o.serial(apexSend), o.serial(apexPlatform)} {
			ahead := int32(now - atLeast[i]) // RFC 1982
			if ahead < 0 || beyond && ahead == 0 {
				t.Errorf("serial %d of %d went from %d to %d", i, len(atLeast), atLeast[i], now)
			}
		}
		if out, err := o.run("domain", "restore", gone); err == nil {
			t.Errorf("a token that was given up lives: %s", out)
		}
		if out := o.must("key", "fetch", "send.acme.example"); !strings.Contains(out, "PRIVATE KEY") {
			t.Errorf("signers get no key: %s", out)
		}
	}
	t.Run("a new cluster", func(t *testing.T) {
		heir.started()
		restore(heir)
		check(heir, serials, false)
	})
	t.Run("an older cluster", func(t *testing.T) {
		for i := range 5 {
			first.must("pool", "set", "default", "--spf", fmt.Sprintf("ip4:192.0.2.%d", i))
			first.must("zone", "set", "p-dns.test", "--contact", fmt.Sprintf("c%d@p-dns.test", i))
		}
		first.must("tenant", "add", "since")
		before := [2]uint32{first.serial(apexSend), first.serial(apexPlatform)}
		if before == serials {
			t.Fatal("nothing changed since the backup")
		}
		restore(first)
		check(first, before, true)
		if out := first.must("tenant", "list"); strings.Contains(out, "since") {
			t.Errorf("what was written since is there: %s", out)
		}
	})
	t.Run("a younger cluster", func(t *testing.T) {
		first.must("domain", "set", "send.acme.example", "--label", "a=b")
		serials := [2]uint32{first.serial(apexSend), first.serial(apexPlatform)}
		backup = filepath.Join(files, "second.snapshot")
		first.must("operator", "snapshot", "save", backup)
		restore(heir) // it has its state of before, and a lower index
		check(heir, serials, false)
	})
}

func badBackups(t *testing.T, o *operated, image []byte, files string) {
	o.started()
	o.T = t
	o.must("tenant", "add", "kept")
	state := func() string {
		path := filepath.Join(t.TempDir(), "now.snapshot")
		o.must("operator", "snapshot", "save", path)
		m, err := readSnapshot(path)
		if err != nil {
			t.Fatal(err)
		}
		out := describeSnapshot(m)
		return regexp.MustCompile(`(?m)^(domains|changes):.*$`).FindString(out) + o.must("tenant", "list")
	}
	before := state()
	flipped := func(at int) []byte {
		b := bytes.Clone(image)
		b[at] ^= 0x10
		return b
	}
	newer := bytes.Clone(image)
	newer[len("authd image\n")+1] = 99
	for _, x := range []struct {
		what   string
		image  []byte
		length int
		says   string
	}{
		{"nothing", nil, 0, "image"},
		{"truncated", image[:len(image)-7], len(image) - 7, "nothing was changed"},
		{"truncated to half", image[:len(image)/2], len(image) / 2, "nothing was changed"},
		{"an octet flipped early", flipped(40), len(image), "nothing was changed"},
		{"an octet flipped in the middle", flipped(len(image) / 2), len(image), "nothing was changed"},
		{"an octet flipped at the end", flipped(len(image) - 1), len(image), "nothing was changed"},
		{"a newer format", newer, len(image), "upgrade"},
		{"no image", bytes.Repeat([]byte("x"), 1000), 1000, "nothing was changed"},
		{"another key-encryption key", image, len(image), "key-encryption key"},
	} {
		status, text := o.post(x.image, x.length)
		if status != http.StatusUnprocessableEntity || !strings.Contains(text, x.says) {
			t.Errorf("%s: %d %s", x.what, status, text)
		}
		if x.length == 0 {
			continue
		}
		path := filepath.Join(files, strings.ReplaceAll(x.what, " ", "-"))
		if err := os.WriteFile(path, x.image, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := o.run("operator", "snapshot", "restore", path)
		if err == nil {
			t.Errorf("%s: the command took it: %s", x.what, out)
		}
	}
	if status, text := o.post(image[:len(image)/2], len(image)); status == http.StatusOK {
		t.Errorf("an upload that was cut: %d %s", status, text)
	}
	if after := state(); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
	if left, _ := filepath.Glob(filepath.Join(o.dir, "data", "restore-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if out := o.must("operator", "snapshot", "restore", filepath.Join(files, "another-key-encryption-key"), "--without-keys"); !strings.Contains(out, "restored") {
		t.Error(out)
	}
}
