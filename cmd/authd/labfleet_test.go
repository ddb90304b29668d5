package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"authd/cluster/state"
	"authd/keys"
)

// Bounds of the emergency of a fleet. Without AUTHD_FLEET, as in make test, only
// that everything switches is asserted: how fast says nothing on a busy machine.
const (
	fleetShort    = 1000
	fleetSampled  = 100
	fleetEvery    = 10 * time.Millisecond
	fleetSources  = 64 // of /24 each, so that no rate limit is reached
	fleetSettle   = 3 * time.Minute
	fleetBound    = time.Second
	fleetFactor   = 3
	fleetP99      = 2
	fleetIdleTime = 3 * time.Second
)

// fleetEnv is the number of domains of the long form:
//
//	AUTHD_FLEET=10000 go test ./cmd/authd -run TestEmergencyOfAFleet -v
const fleetEnv = "AUTHD_FLEET"

// TestEmergencyOfAFleetIsSeenOnEveryNode switches every domain of a pool while
// three nodes are asked for a sample of names every 10 ms, and then for all.
func TestEmergencyOfAFleetIsSeenOnEveryNode(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	domains, long := fleetShort, false
	if text := os.Getenv(fleetEnv); text != "" {
		var err error
		if domains, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
		long = true
	}
	c := l.startDev(l.build("lab"))
	tokens := c.fleet(domains)
	before := c.image()

	var samplers []*sampler
	for node := 1; node <= labNodes; node++ {
		samplers = append(samplers, newSampler(l, c.dns(node), tokens))
	}
	pause := fleetIdleTime
	if !long {
		pause /= 10
	}
	time.Sleep(pause) // the idle latency, with the same samplers asking
	began := time.Now()
	for _, s := range samplers {
		s.mark(began)
	}
	var r struct {
		ID       string `json:"id"`
		State    string `json:"state"`
		Switched int    `json:"switched"`
	}
	c.call(1, "POST", "/v1/rotations", map[string]any{
		"scope": map[string]any{"pool": "default"}, "emergency": true, "old": "revoke", "reason": "leaked",
	}, &r)
	c.eventually(fleetSettle, "all sampled names switched on every node", func() error {
		for i, s := range samplers {
			if left := s.left(); left > 0 {
				return fmt.Errorf("node %d answers %d of the sampled names with the old key", i+1, left)
			}
		}
		return nil
	})
	seen, worst := time.Duration(0), time.Duration(0)
	var idle, busy []time.Duration
	for _, s := range samplers {
		s.stop()
		seen = max(seen, s.last.Sub(began))
		idle, busy = append(idle, s.idle...), append(busy, s.busy...)
	}
	c.eventually(fleetSettle, "the rotation done", func() error {
		c.call(1, "GET", "/v1/rotations/"+r.ID, nil, &r)
		if r.State != "done" || r.Switched != domains {
			return fmt.Errorf("it is %s with %d domains", r.State, r.Switched)
		}
		return nil
	})
	c.caughtUp(1, 2, 3)
	for node := 1; node <= labNodes; node++ {
		if wrong := c.sweepFleet(node, tokens); len(wrong) > 0 {
			t.Errorf("node %d: %d of %d names are wrong, among them %s", node, len(wrong), 2*domains, strings.Join(wrong[:min(5, len(wrong))], ", "))
		}
	}
	pure := c.pureApply(before, domains)
	worst = p99(busy)
	t.Logf("%d domains, %d names at %d nodes every %s: all switched after %s; pure Apply %s (%.2f times); latency p99 idle %s, during %s (%.2f times); %d names swept, none wrong",
		domains, fleetSampled, labNodes, fleetEvery, seen.Round(time.Millisecond), pure.Round(time.Millisecond), float64(seen)/float64(pure),
		p99(idle), worst, float64(worst)/float64(p99(idle)), 2*domains*labNodes)
	if !long {
		return
	}
	if seen > fleetBound || seen > fleetFactor*pure {
		t.Errorf("switched after %s: want at most %s, and %d times the pure Apply of %s", seen, fleetBound, fleetFactor, pure)
	}
	if worst > fleetP99*p99(idle) {
		t.Errorf("latency p99 %s during the emergency, %s idle", worst, p99(idle))
	}
}

// fleet imports domains in CNAME mode and waits until all can switch.
func (c *cluster) fleet(n int) (tokens []string) { return c.fleetOf(n, "cname") }

func (c *cluster) fleetOf(n int, mode string) (tokens []string) {
	c.Helper()
	c.platform("default")
	var b strings.Builder
	b.WriteString("tenant,domain,mode,pool,labels\n")
	for i := range n {
		fmt.Fprintf(&b, "acme,c%d.fleet.test,%s,default,\n", i, mode)
	}
	file := filepath.Join(c.dir, "fleet.csv")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		c.Fatal(err)
	}
	if out, err := c.cli(1, "domain", "import", file); err != nil {
		c.Fatalf("importing: %v\n%s", err, out)
	}
	c.eventually(fleetSettle, "every standby confirmed", func() error {
		m := c.machine(c.image())
		for d := range m.Domains(state.Token{}) {
			if k, ok := d.Ring().Standby(keys.RSA2048); !ok || k.ConfirmedAt == 0 {
				return fmt.Errorf("%s has none yet", d.Name.Host())
			}
		}
		return nil
	})
	c.caughtUp(1, 2, 3)
	for d := range c.machine(c.image()).Domains(state.Token{}) {
		tokens = append(tokens, d.Token.String())
	}
	return tokens
}

// image is the state of the cluster, and machine reads it.
func (c *cluster) image() []byte {
	c.Helper()
	return c.call(1, "GET", "/v1/cluster/snapshot", nil, nil).body
}

func (c *cluster) machine(image []byte) state.Machine {
	c.Helper()
	m, err := state.ReadImage(bytes.NewReader(image))
	if err != nil {
		c.Fatal(err)
	}
	return m
}

// pureApply is how long the same commands take in a machine alone.
func (c *cluster) pureApply(image []byte, domains int) time.Duration {
	c.Helper()
	m := c.machine(image)
	id := state.Token{1}
	at := time.Now().Unix()
	apply := func(command state.Command) {
		m, _, _ = m.Apply(m.Index()+1, []state.Entry{{At: at, Actor: "admin-1", Command: command}})
	}
	began := time.Now()
	apply(state.StartRotation{ID: id, RotationSpec: state.RotationSpec{
		Scope: state.RotationScope{Pool: "default"}, Emergency: true, Old: keys.FateRevoke, Total: uint32(domains),
	}})
	for len(m.RotationsDue(at)) > 0 {
		apply(state.AdvanceRotation{ID: id})
	}
	spent := time.Since(began)
	if r, ok := m.Rotation(id); !ok || int(r.Switched) != domains {
		c.Fatalf("the machine alone switched %+v", r)
	}
	return spent
}

// sweepFleet asks a node for the old and the new key of every domain.
func (c *cluster) sweepFleet(node int, tokens []string) (wrong []string) {
	c.Helper()
	const perConnection = 100 // domains, far below what a server takes on one
	for batch := range slices.Chunk(tokens, perConnection) {
		wrong = append(wrong, c.sweepSome(node, batch)...)
	}
	return wrong
}

func (c *cluster) sweepSome(node int, tokens []string) (wrong []string) {
	c.Helper()
	conn, err := dns.DialTimeout("tcp", c.dns(node), 5*time.Second)
	if err != nil {
		c.Fatal(err)
	}
	defer conn.Close()
	for _, token := range tokens {
		for _, slot := range []string{"k1", "k2"} {
			q := new(dns.Msg).SetQuestion(slot+"."+token+".dkim.p-dns.test.", dns.TypeTXT)
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if err := conn.WriteMsg(q); err != nil {
				c.Fatal(err)
			}
			got, err := conn.ReadMsg()
			if err != nil {
				c.Fatal(err)
			}
			if len(got.Answer) != 1 || (slot == "k1") != emptyKey(got.Answer[0]) || slot == "k2" && got.Answer[0].Header().Ttl != uint32(keys.TTLLong) {
				wrong = append(wrong, fmt.Sprint(got.Answer))
			}
		}
	}
	return wrong
}

func emptyKey(rr dns.RR) bool {
	txt, ok := rr.(*dns.TXT)
	return ok && strings.HasSuffix(strings.Join(txt.Txt, ""), "p=")
}

// sampler asks one node for the old key of a sample of names, again and again,
// until each is answered with an empty p=.
type sampler struct {
	questions [][]byte
	sockets   []net.Conn
	done      chan struct{}
	ended     chan struct{}

	mu         sync.Mutex // guards what follows
	began      time.Time  // of the emergency; zero before
	open       map[uint16]bool
	last       time.Time // when the last name switched
	idle, busy []time.Duration
}

func newSampler(l *lab, server string, tokens []string) *sampler {
	l.Helper()
	s := &sampler{done: make(chan struct{}), ended: make(chan struct{}), open: map[uint16]bool{}}
	for i := range fleetSampled {
		q := new(dns.Msg).SetQuestion("k1."+tokens[i*len(tokens)/fleetSampled]+".dkim.p-dns.test.", dns.TypeTXT)
		q.Id = uint16(i)
		wire, err := q.Pack()
		if err != nil {
			l.Fatal(err)
		}
		s.questions, s.open[q.Id] = append(s.questions, wire), true
	}
	for i := range fleetSources {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(127, 9, byte(i), 1)}}
		conn, err := d.Dial("udp", server)
		if err != nil {
			l.Fatal(err)
		}
		s.sockets = append(s.sockets, conn)
	}
	go s.run()
	l.Cleanup(s.stop)
	return s
}

func (s *sampler) mark(began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = began
}

func (s *sampler) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *sampler) stop() {
	select {
	case <-s.done:
	default:
		close(s.done)
	}
	<-s.ended
}

func (s *sampler) run() {
	defer close(s.ended)
	tick := time.NewTicker(fleetEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
			s.sample(s.sockets[i%len(s.sockets)])
		case <-s.done:
			for _, conn := range s.sockets {
				conn.Close()
			}
			return
		}
	}
}

// sample asks for every name once. Each reply's latency is counted from the write
// of its own question.
func (s *sampler) sample(conn net.Conn) {
	var sent [fleetSampled]time.Time
	for i, q := range s.questions {
		sent[i] = time.Now()
		_, _ = conn.Write(q) // what is lost is asked for again
	}
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	var b [1500]byte
	for range s.questions {
		n, err := conn.Read(b[:])
		if err != nil {
			return
		}
		now := time.Now()
		id := uint16(b[0])<<8 | uint16(b[1])
		if n < 12 || int(id) >= len(sent) {
			continue
		}
		s.mu.Lock()
		if s.began.IsZero() {
			s.idle = append(s.idle, now.Sub(sent[id]))
		} else if s.busy = append(s.busy, now.Sub(sent[id])); s.open[id] && bytes.HasSuffix(b[:n], []byte("p=")) {
			delete(s.open, id)
			s.last = now
		}
		s.mu.Unlock()
	}
}

func p99(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return list[(len(list)-1)*99/100].Round(100 * time.Microsecond)
}
