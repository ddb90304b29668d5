package zone

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// realmDefault is a seed whose realms have every kind of difference.
const realmDefault = 2026

var realmSeed = flag.Uint64("realm", realmDefault, "seed of the zones and questions that other servers are compared on")

// How many realms are compared, and how many questions are asked about each.
const (
	realms         = 6
	realmQuestions = 4000
)

// TestDifferentialAgainstKnotAndNSD loads the same zones into Knot and NSD and
// asks all three the same questions. Each difference has to be explained by one
// of the rules in differential_rules_test.go, and each rule has to explain some.
func TestDifferentialAgainstKnotAndNSD(t *testing.T) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("starts other servers: run without -short")
	}
	for program, debian := range map[string]string{"knotd": "knot", "nsd": "nsd"} {
		if _, err := findProgram(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%v: apt-get install %s", err, debian)
			}
			t.Skipf("%v: apt-get install %s", err, debian)
		}
	}
	c := &comparison{used: make([]int, len(differences))}
	for i := range uint64(realms) {
		seed := *realmSeed + i
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { c.run(newRealm(t, seed)) })
	}
	if c.compared < 2*20000 {
		t.Errorf("%d answers compared", c.compared)
	}
	for i, rule := range differences {
		if c.used[i] == 0 && *realmSeed == realmDefault { // a draw need not have all of it
			t.Errorf("rule %q explains nothing: take it out", rule.name)
		}
		t.Logf("%6d %s (%s)", c.used[i], rule.name, rule.clause)
	}
}

// comparison counts over all realms.
type comparison struct {
	compared int
	used     []int // by rule
}

// run compares the answers in one realm.
func (c *comparison) run(w *realm) {
	dir := w.TempDir()
	peers := []*peer{w.startKnot(dir), w.startNSD(dir)}
	for _, p := range peers {
		p.await(w)
	}
	responder := NewResponder(w.tree, "")
	unexplained := 0
	for range realmQuestions {
		q := w.question()
		ours := read(w.T, responder.Reply(nil, q.packet, q.tcp))
		for _, p := range peers {
			theirs := read(w.T, p.ask(q))
			c.compared++
			d := &difference{realm: w, q: q, peer: p.name, ours: ours.clone(), theirs: theirs, overTCP: func(ours bool) *said {
				q := q
				q.tcp = true
				if ours {
					return read(w.T, responder.Reply(nil, q.packet, true))
				}
				return read(w.T, p.ask(q))
			}}
			if left := explain(d, c.used); left != "" {
				if unexplained++; unexplained <= 10 {
					w.Errorf("%s: %s\nours\n%s%s\n%sleft\n%s%s", p.name, q, ours, left, theirs, d.ours, d.theirs)
				}
			}
		}
	}
	if unexplained > 0 {
		w.Errorf("%d answers differ for no known reason", unexplained)
	}
}

// peer is another server under test.
type peer struct {
	*testing.T
	name   string
	at     string
	udp    net.Conn
	tcp    net.Conn
	log    *journal
	exited chan struct{}
}

// journal is what a server says, read while it goes on.
type journal struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text = append(j.text, b...)
	return len(b), nil
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return string(j.text)
}

// Bounds of what is waited for.
const (
	peerStart = 20 * time.Second
	peerReply = 3 * time.Second
)

func (w *realm) startKnot(dir string) *peer {
	home := filepath.Join(dir, "knot")
	at, address, port := loopback(w.T)
	var conf strings.Builder
	fmt.Fprintf(&conf, "server:\n  rundir: %q\n  listen: \"%s@%s\"\n  udp-max-payload: 1232\n  background-workers: 1\n  udp-workers: 1\n  tcp-workers: 1\n", home, address, port)
	fmt.Fprintf(&conf, "log:\n  - target: stderr\n    any: warning\ndatabase:\n  storage: %q\n", home)
	fmt.Fprintf(&conf, "template:\n  - id: default\n    storage: %q\n    semantic-checks: off\n    journal-content: none\n    zonefile-sync: -1\nzone:\n", home)
	for i, z := range w.zones {
		fmt.Fprintf(&conf, "  - domain: %q\n    file: \"%d.zone\"\n", z.apex, i)
	}
	w.writeZones(home, conf.String())
	return w.start("knotd", at, "-c", filepath.Join(home, "conf"))
}

func (w *realm) startNSD(dir string) *peer {
	home := filepath.Join(dir, "nsd")
	at, address, port := loopback(w.T)
	var conf strings.Builder
	fmt.Fprintf(&conf, "server:\n  ip-address: %s@%s\n  zonesdir: %q\n  username: \"\"\n  pidfile: %q\n  xfrdfile: %q\n  zonelistfile: %q\n  xfrdir: %q\n",
		address, port, home, filepath.Join(home, "pid"), filepath.Join(home, "xfrd"), filepath.Join(home, "list"), home)
	conf.WriteString("  server-count: 1\n  minimal-responses: yes\n  refuse-any: no\n  ipv4-edns-size: 1232\n  rrl-ratelimit: 0\n  hide-version: yes\nremote-control:\n  control-enable: no\n")
	for i, z := range w.zones {
		fmt.Fprintf(&conf, "zone:\n  name: %q\n  zonefile: \"%d.zone\"\n", z.apex, i)
	}
	w.writeZones(home, conf.String())
	return w.start("nsd", at, "-d", "-c", filepath.Join(home, "conf"))
}

func (w *realm) writeZones(home, conf string) {
	if err := os.Mkdir(home, 0o755); err != nil {
		w.Fatal(err)
	}
	files := map[string]string{"conf": conf}
	for i, z := range w.zones {
		files[fmt.Sprintf("%d.zone", i)] = z.text()
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o644); err != nil {
			w.Fatal(err)
		}
	}
}

// loopback is an address of loopback whose port is free in both protocols.
func loopback(t *testing.T) (at, address, port string) {
	t.Helper()
	for range 50 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := net.ListenPacket("udp", l.Addr().String())
		l.Close()
		if err != nil {
			continue
		}
		p.Close()
		at = l.Addr().String()
		address, port, _ = net.SplitHostPort(at)
		return at, address, port
	}
	t.Fatal("no free port on loopback")
	return "", "", ""
}

// findProgram looks where users' paths do not lead, too.
func findProgram(program string) (string, error) {
	file, err := exec.LookPath(program)
	if err != nil {
		file, err = exec.LookPath("/usr/sbin/" + program)
	}
	return file, err
}

// start runs a server until the test ends.
func (w *realm) start(program, at string, arguments ...string) *peer {
	p := &peer{T: w.T, name: program, at: at, log: &journal{}, exited: make(chan struct{})}
	file, err := findProgram(program)
	if err != nil {
		w.Fatal(err)
	}
	c := exec.Command(file, arguments...)
	c.Stdout, c.Stderr = p.log, p.log
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		w.Fatal(err)
	}
	go func() {
		_ = c.Wait() // how it ends is not asked
		close(p.exited)
	}()
	w.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM) // its children, too
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			<-p.exited
		}
	})
	return p
}

// await waits until the server answers in every zone.
func (p *peer) await(w *realm) {
	p.Helper()
	var err error
	if p.udp, err = net.Dial("udp", p.at); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() { p.udp.Close() })
	end := time.Now().Add(peerStart)
	for _, z := range w.zones {
		for !p.serves(z.apex) {
			select {
			case <-p.exited:
				p.Fatalf("%s ended: %s", p.name, p.log)
			case <-time.After(20 * time.Millisecond):
			}
			if time.Now().After(end) {
				p.Fatalf("%s does not serve %s: %s", p.name, z.apex, p.log)
			}
		}
	}
	if p.tcp, err = net.Dial("tcp", p.at); err != nil {
		p.Fatal(err)
	}
	if log := p.log.String(); strings.Contains(log, "error") {
		p.Fatalf("%s has not loaded the zones as they are: %s", p.name, log)
	}
}

func (p *peer) serves(apex Name) bool {
	ask := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, apex...)
	ask = append(ask, 0, byte(TypeSOA), 0, classIN)
	buf := make([]byte, 65535)
	if _, err := p.udp.Write(ask); err != nil {
		return false // nothing listens yet
	}
	_ = p.udp.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	n, err := p.udp.Read(buf)
	return err == nil && n > 12 && bytes.Equal(buf[12:12+len(apex)], []byte(apex)) && buf[3]&15 == 0 && buf[2]&flagAA != 0
}

// ask gives the reply to a question.
func (p *peer) ask(q question) []byte {
	p.Helper()
	buf := make([]byte, 65535)
	if q.tcp {
		return p.askTCP(q, buf)
	}
	for try := range 3 {
		if _, err := p.udp.Write(q.packet); err != nil {
			p.Fatalf("%s: %v: %s", p.name, err, p.log)
		}
		_ = p.udp.SetReadDeadline(time.Now().Add(peerReply))
		for {
			n, err := p.udp.Read(buf)
			if err != nil {
				if try == 2 {
					p.Fatalf("%s does not answer %s: %v: %s", p.name, q, err, p.log)
				}
				break
			}
			if n >= 12 && bytes.Equal(buf[:2], q.packet[:2]) && (n < 12+len(q.name) || bytes.Equal(buf[12:12+len(q.name)], q.packet[12:12+len(q.name)])) {
				return buf[:n]
			}
		}
	}
	return nil
}

// askTCP asks over the connection there is, or another where the server has had
// enough of it.
func (p *peer) askTCP(q question, buf []byte) []byte {
	p.Helper()
	message := binary.BigEndian.AppendUint16(nil, uint16(len(q.packet)))
	message = append(message, q.packet...)
	var err error
	for range 2 {
		_ = p.tcp.SetDeadline(time.Now().Add(peerReply))
		if _, err = p.tcp.Write(message); err == nil {
			if _, err = io.ReadFull(p.tcp, buf[:2]); err == nil {
				n := int(binary.BigEndian.Uint16(buf))
				if _, err = io.ReadFull(p.tcp, buf[:n]); err == nil {
					return buf[:n]
				}
			}
		}
		p.tcp.Close()
		if p.tcp, err = net.Dial("tcp", p.at); err != nil {
			break
		}
	}
	p.Fatalf("%s does not answer %s: %v: %s", p.name, q, err, p.log)
	return nil
}

// said is a reply, in what has to agree.
type said struct {
	head       string // RCODE, flags, the question as it came back
	opt        string
	tc         bool
	answer     []string // each sorted, names in lower case
	authority  []string
	additional []string
}

func read(t *testing.T, reply []byte) *said {
	t.Helper()
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("unpacking %x: %v", reply, err)
	}
	s := &said{tc: m.Truncated}
	asked := []byte{}
	if len(m.Question) == 1 {
		length := nameLength(reply[12:])
		asked = reply[12 : 12+length+4]
	}
	rcode := m.Rcode
	for _, rr := range m.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			rcode = rcode&15 | opt.ExtendedRcode()&^15
			s.opt = fmt.Sprintf("version %d do %t flags %x options %v", opt.Version(), opt.Do(), opt.Hdr.Ttl&0x7fff, opt.Option)
		}
	}
	s.head = fmt.Sprintf("%s aa %t rd %t ra %t ad %t cd %t z %t qr %t id %x question %x", dns.RcodeToString[rcode],
		m.Authoritative, m.RecursionDesired, m.RecursionAvailable, m.AuthenticatedData, m.CheckingDisabled, m.Zero, m.Response, m.Id, asked)
	s.answer, s.authority, s.additional = lines(m.Answer), lines(m.Ns), lines(m.Extra)
	return s
}

func lines(records []dns.RR) []string {
	var out []string
	for _, rr := range records {
		if rr.Header().Rrtype != dns.TypeOPT {
			out = append(out, strings.ToLower(strings.Join(strings.Fields(rr.String()), " ")))
		}
	}
	slices.Sort(out)
	return out
}

func (s *said) clone() *said {
	c := *s
	return &c // the slices are replaced, never written to
}

func (s *said) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  %s tc %t\n  opt %s\n", s.head, s.tc, s.opt)
	for i, list := range [][]string{s.answer, s.authority, s.additional} {
		for _, line := range list {
			fmt.Fprintf(&b, "  %s %s\n", [...]string{"answer", "authority", "additional"}[i], line)
		}
	}
	return b.String()
}

// differ says in what two replies differ.
func differ(a, b *said) string {
	switch {
	case a.head != b.head:
		return "head"
	case a.tc != b.tc:
		return "TC"
	case a.opt != b.opt:
		return "OPT"
	case !slices.Equal(a.answer, b.answer):
		return "answer"
	case !slices.Equal(a.authority, b.authority):
		return "authority"
	case !slices.Equal(a.additional, b.additional):
		return "additional"
	}
	return ""
}
