//go:build lab

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
)

// Three in ten domains are delegated. AUTHD_LAB_DOMAINS makes the fleet another.
const millionDomains = 1_000_000

// TestMillionCluster measures the shipping binary with a million domains: start,
// memory, install to an empty follower, snapshot beside writes, start behind a long
// tail of the log, backup and restore. It prints the table of bench/RESULTS.md:
//
//	go test -tags lab -run MillionCluster -timeout 40m -v ./cmd/authd
func TestMillionCluster(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	m := &million{cluster: l.startDev(l.build("")), maker: l.build("lab")}
	m.work = filepath.Join(l.dir, "million")
	m.dev.end(syscall.SIGTERM)
	m.populate()

	m.row("first right answer, cold page cache", "10 s", m.starts(1))
	m.run[1].end(syscall.SIGKILL)
	m.row("first right answer, warm", "10 s", m.starts(1))
	m.start(2)
	time.Sleep(30 * time.Second) // a steady state is what is asked for
	steady := m.memory(1, "VmRSS")
	m.row("VmRSS, steady", "3 GiB", gib(steady))
	before := m.cpu(1)
	time.Sleep(30 * time.Second)
	m.row("CPU at rest, of a core, everything included", "2 % for the collector", fmt.Sprintf("%.1f %%", (m.cpu(1)-before).Seconds()/30*100))

	m.row("install to an empty follower: exec to its first right answer", "60 s", m.start(3).String())
	m.row("VmHWM of the follower by then", gib(steady*21/10), gib(m.memory(3, "VmHWM")))

	m.snapshotBesideWrites()
	m.startsBehindTails()
	m.restoreBesideWrites()
	t.Logf("%d domains, three keys each\n\n| What | Aim | Measured |\n|---|---|---|\n%s", m.total, m.table.String())
}

type million struct {
	*cluster
	maker  string // a binary that makes keys at no cost
	pool   string // of the domains
	work   string // for what bench/data makes
	total  int
	names  []string // with a DKIM record
	tokens []string // of their domains
	run    map[int]*process
	dirs   map[*process]string // in /proc
	table  strings.Builder
}

func (m *million) row(what, aim, got string) {
	fmt.Fprintf(&m.table, "| %s | %s | %s |\n", what, aim, got)
	m.Logf("%s: %s (aim %s)", what, got, aim)
}

func gib(kib int) string { return fmt.Sprintf("%.2f GiB", float64(kib)/(1<<20)) }

// populate gives nodes 1 and 2 the fleet as a snapshot, node 3 a state without it.
func (m *million) populate() {
	m.Helper()
	m.total, m.run, m.dirs = millionDomains, map[int]*process{}, map[*process]string{}
	if n, err := strconv.Atoi(os.Getenv("AUTHD_LAB_DOMAINS")); err == nil {
		m.total = n
	}
	if err := os.MkdirAll(m.work, 0o700); err != nil {
		m.Fatal(err)
	}
	data := filepath.Join(m.work, "bench-data")
	build := exec.Command("go", "build", "-buildvcs=false", "-tags", "lab", "-o", data, "authd/bench/data")
	if text, err := build.CombinedOutput(); err != nil {
		m.Fatalf("building bench/data: %v\n%s", err, text)
	}
	fill := exec.Command(data, "-bare", "-behind", "node-3", "-dir", m.work, "-cluster", m.dir,
		"-n", strconv.Itoa(m.total*7/10), "-m", strconv.Itoa(m.total*3/10))
	if text, err := fill.CombinedOutput(); err != nil {
		m.Fatalf("making the fleet: %v\n%s", err, text)
	}
	text, err := os.ReadFile(filepath.Join(m.work, "names"))
	if err != nil {
		m.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, token, _ := strings.Cut(strings.TrimSpace(line), " ")
		m.names, m.tokens = append(m.names, name), append(m.tokens, token)
	}
}

// start starts a node and gives the time from exec to its first right answer. No
// answer before may be wrong.
func (m *million) start(i int) time.Duration { return m.startOf(m.binary, i) }

// starts is start for the table: what it and its peers took of the processors tells a
// slow node from a busy machine.
func (m *million) starts(i int) string {
	m.Helper()
	before := m.peersCPU(i)
	took := m.start(i)
	return fmt.Sprintf("%s, %s of processors; peers %s", took, m.cpu(i), m.peersCPU(i)-before)
}

// peersCPU is the processor time of the other nodes that run.
func (m *million) peersCPU(i int) (sum time.Duration) {
	m.Helper()
	for peer, p := range m.run {
		if peer != i && p.running() {
			sum += m.cpu(peer)
		}
	}
	return sum
}

func (m *million) startOf(binary string, i int) time.Duration {
	m.Helper()
	m.forget(i)
	began := time.Now()
	m.run[i] = m.lab.start(fmt.Sprintf("node-%d", i),
		exec.Command(binary, "serve", "--config", filepath.Join(m.dir, fmt.Sprintf("node-%d.toml", i))))
	client := dns.Client{Timeout: 100 * time.Millisecond}
	for n := 0; time.Since(began) < 10*time.Minute; n++ {
		if !m.run[i].running() {
			m.Fatalf("node %d ended: %v", i, m.run[i].err)
		}
		q := new(dns.Msg).SetQuestion(m.names[n%len(m.names)], dns.TypeTXT)
		r, _, err := client.Exchange(q, m.dns(i))
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		if r.Rcode != dns.RcodeSuccess || len(r.Answer) != 1 {
			m.Fatalf("node %d answers %s with %s", i, q.Question[0].Name, r)
		}
		return time.Since(began).Round(10 * time.Millisecond)
	}
	m.Fatalf("node %d does not answer", i)
	return 0
}

// forget drops a node's snapshots from the page cache.
func (m *million) forget(i int) {
	m.Helper()
	files, err := filepath.Glob(filepath.Join(m.dir, fmt.Sprintf("node-%d", i), "snapshots", "*", "state.bin"))
	if err != nil {
		m.Fatal(err)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			m.Fatal(err)
		}
		if m.run[i] == nil { // the first start; later ones find it warm
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		if f.Close(); err != nil {
			m.Fatal(err)
		}
	}
}

// proc reads a file of a node's process. The namespace has process ids of its own,
// but /proc has those outside. To look through all of it costs milliseconds, which
// would be felt in what is measured, so it is done once a process.
func (m *million) proc(i int, file string) string {
	m.Helper()
	if m.dirs[m.run[i]] == "" {
		m.dirs[m.run[i]] = m.find(i)
	}
	text, err := os.ReadFile(filepath.Join(m.dirs[m.run[i]], file))
	if err != nil {
		m.Fatal(err)
	}
	return string(text)
}

// find is the directory in /proc of a node's process.
func (m *million) find(i int) string {
	m.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		m.Fatal(err)
	}
	config := filepath.Join(m.dir, fmt.Sprintf("node-%d.toml", i)) + "\x00"
	for _, line := range lines {
		if text, err := os.ReadFile(line); err == nil && strings.Contains(string(text), "serve\x00--config\x00"+config) {
			return filepath.Dir(line)
		}
	}
	m.Fatalf("node %d has no process", i)
	return ""
}

// memory reads a field of a node's status, in KiB.
func (m *million) memory(i int, field string) int {
	m.Helper()
	text := m.proc(i, "status")
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				m.Fatal(err)
			}
			return n
		}
	}
	m.Fatalf("no %s", field)
	return 0
}

// cpu is what a node has used.
func (m *million) cpu(i int) time.Duration {
	m.Helper()
	_, rest, _ := strings.Cut(m.proc(i, "stat"), ") ")
	fields := strings.Fields(rest)
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		m.Fatal(err1, err2)
	}
	return time.Duration(user+system) * time.Second / 100
}
