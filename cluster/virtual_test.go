package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/keys/keystest"
	"authd/zone"
)

// virtual is a whole cluster in a bubble of testing/synctest: real nodes with real
// stores, joined by wires, whose time passes as soon as all of them wait. What
// they must never do is checked at every machine that any of them publishes.
type virtual struct {
	*testCluster
	wires  *wires
	clocks map[string]*steppedClock
	hosts  map[netip.AddrPort]string
	files  map[string]IdentityConfig
	log    *lastLines
	before sync.Once // prints what came before the first complaint of a key
	began  time.Time
	many   bool // so many domains that not every machine is looked at
	size   int  // of the cluster that was founded: the first of members, which are all hosts there are

	// mu guards what follows.
	mu       sync.Mutex
	apart    bool     // there are two clusters: what nodes have is not compared any more
	in       []string // the nodes that take part, as their operator has it
	joined   map[string]bool
	running  map[string]*Node
	serials  map[serialOf]uint32
	sums     map[uint64]map[string]state.Sum // by index and node
	at       map[string]uint64               // the furthest that a node was seen at
	keys     map[keyRef]*keyLife
	acked    map[string]uint64 // tenants by the index of their write
	refused  map[string]bool   // tenants whose write did certainly not happen
	operator operator
	writes   sync.WaitGroup
	watchers sync.WaitGroup
	count    virtualCount
}

// virtualCount is what a run came to.
type virtualCount struct {
	elections, restarts, installs, faults  int
	restores, restoresUnknown              int
	acked, served, refused, unknown        int
	machines, activated, retired, answered int
}

type serialOf struct {
	node string
	zone zone.Name
}

type keyRef struct {
	token state.Token
	id    uint32 // which comes again after a restore
	made  int64
}

// keyLife is what was seen of a key, in the time that really passed.
type keyLife struct {
	answered map[string]time.Time // by node: since when it answers the record
	passed   bool                 // the barrier
	active   time.Time
	drained  map[string]time.Time // by node: since when it does not sign
	revoked  bool
	excused  bool // it was in an image that was restored
}

func newKeyLife() *keyLife {
	return &keyLife{answered: make(map[string]time.Time), drained: make(map[string]time.Time)}
}

// steppedClock is a node's wall clock, which can be set wrong.
type steppedClock struct {
	mu          sync.Mutex
	wrong, told time.Duration
}

func (c *steppedClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.wrong)
}

func (c *steppedClock) set(wrong time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = wrong
}

// leapt is what the monotonic clock, which virtual time lacks, would show.
func (c *steppedClock) leapt(_, _ time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.wrong - c.told
	c.told = c.wrong
	return d
}

// calm is the tuning for months: the timers are long, so that little happens
// while nothing happens. The rest is as in production.
func calm() tuning {
	t := defaultTuning()
	t.heartbeat, t.election, t.lease = 10*time.Minute, 10*time.Minute, 5*time.Minute
	t.commit = 10 * time.Minute
	t.patience = time.Minute
	t.rotate = 10 * time.Minute
	t.check, t.recheck = 6*time.Hour, 10*time.Minute
	t.disk, t.keep, t.count = 10*time.Minute, 10*time.Minute, 10*time.Minute
	t.reads, t.certificates, t.promoteEvery = 10*time.Minute, time.Hour, time.Hour
	t.trailing = 16
	t.piece = 1 << 10
	t.noSync = true
	return t
}

// forMonths runs a test with the calm tuning.
func forMonths(t *testing.T, test func(t *testing.T, v *virtual)) {
	forMonthsOf(t, 3, test)
}

func forMonthsOf(t *testing.T, size int, test func(t *testing.T, v *virtual)) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("months are not short, with the race detector least of all; make test runs them")
	}
	inVirtualTimeOf(t, size, calm(), test)
}

// inVirtualTime runs a test with a cluster that founds itself and has a platform.
func inVirtualTime(t *testing.T, tuning tuning, test func(t *testing.T, v *virtual)) {
	t.Helper()
	inVirtualTimeOf(t, 3, tuning, test)
}

func inVirtualTimeOf(t *testing.T, size int, tuning tuning, test func(t *testing.T, v *virtual)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v := newVirtual(t, size, tuning)
		v.startAll()
		seed(t, v.waitLeader())
		v.withAuthority()
		test(t, v)
		v.end()
	})
}

func newVirtual(t *testing.T, size int, tuning tuning) *virtual {
	t.Helper()
	v := &virtual{
		testCluster: &testCluster{
			t: t, ca: newAuthority(t), dir: memoryDir(t), tuning: tuning,
			nodes:  make(map[string]*Node),
			keeper: keys.NewMemoryKeeper([32]byte{1}), source: keystest.Source(),
		},
		wires: newWires(time.Millisecond), clocks: make(map[string]*steppedClock),
		hosts: make(map[netip.AddrPort]string), files: make(map[string]IdentityConfig), log: &lastLines{}, began: time.Now(),
		size: size, joined: make(map[string]bool), serials: make(map[serialOf]uint32),
		running: make(map[string]*Node), sums: make(map[uint64]map[string]state.Sum), at: make(map[string]uint64),
		keys: make(map[keyRef]*keyLife), acked: make(map[string]uint64), refused: make(map[string]bool),
	}
	for i := range size + spareHosts {
		id := fmt.Sprintf("node-%d", i+1)
		v.members = append(v.members, Member{ID: id, Address: id + ":7300", Voter: true})
		v.clocks[id] = &steppedClock{}
		v.hosts[answersAt(i)] = id
		if i < size {
			v.files[id] = v.certificate(t, id)
			v.in = append(v.in, id)
		}
	}
	v.config = func(c *Config) {
		c.Bootstrap = v.members[:size]
		if v.joined[c.ID] {
			c.Bootstrap = nil
		}
		c.Now = v.clocks[c.ID].now
		who, err := OpenIdentity(v.files[c.ID])
		must(t, err)
		c.Identity = who
		c.Logger = slog.New(slog.NewTextHandler(v.log.of(c.ID), nil))
	}
	t.Cleanup(func() {
		v.stopAll() // where the test went wrong
		v.watchers.Wait()
		if t.Failed() {
			t.Log(v.log.String())
		}
	})
	return v
}

// certificate issues a node's first certificate. It is two thirds through its life
// in some weeks, when the node has to have a new one.
func (v *virtual) certificate(t *testing.T, id string) IdentityConfig {
	t.Helper()
	key, err := NewCertificateKey()
	must(t, err)
	der, err := IssueCertificate(v.ca.cert, v.ca.key, key.Public(), id, nil, time.Now().Add(-40*day), time.Now().Add(CertificateLife-40*day))
	must(t, err)
	return identity(t, id, v.ca.cert.Raw, [][]byte{der}, key)
}

// memoryDir is in memory where there is room: months of virtual time are full of
// syncs that a disk takes real time for.
func memoryDir(t *testing.T) string {
	const room = 256 << 20
	free, _, err := statfs("/dev/shm")
	if err != nil || free < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "authd-virtual-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// spareHosts may join a cluster.
const spareHosts = 2

func answersAt(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(101 + i)}), 53)
}

// open opens a node without starting it.
func (v *virtual) open(id string) *Node {
	v.t.Helper()
	tuning := v.tuning
	tuning.network = v.wires.from(id)
	tuning.ask = func(ctx context.Context, server string, names []zone.Name) ([]zone.Told, error) {
		return v.ask(ctx, id, server, names)
	}
	n, err := open(v.configOf(id), tuning)
	must(v.t, err)
	clock := v.clocks[id]
	clock.told = clock.wrong
	n.rotator.clock.leapt = clock.leapt
	n.link.tls.Time = clock.now
	return n
}

// start opens nodes and starts them, as serve does.
func (v *virtual) start(ids ...string) {
	v.t.Helper()
	for _, id := range ids {
		n := v.open(id)
		v.mu.Lock()
		if at := n.Machine().Index(); at < v.at[id] {
			v.t.Errorf("%s: %s starts at %d and had been at %d", v.now(), id, at, v.at[id])
		}
		v.mu.Unlock()
		must(v.t, n.Start())
		for i, m := range v.members {
			if m.ID == id {
				n.AnswersAt(answersAt(i))
			}
		}
		v.nodes[id] = n
		v.mu.Lock()
		v.running[id] = n
		v.mu.Unlock()
		if !v.many {
			v.watchers.Go(func() { v.watch(n) })
		}
		v.watchers.Go(func() { v.openListeners(n) })
	}
}

// openListeners lets a node answer once it has what its peers have.
func (v *virtual) openListeners(n *Node) {
	if need := n.AskPeers(n.ctx); need != Never && n.WaitApplied(n.ctx, need) == nil {
		n.SetServing(true)
	}
}

func (v *virtual) startAll() { v.start(v.ids()...) }

// stop closes a node; kill has it die as far as the others see.
func (v *virtual) stop(id string) {
	n := v.nodes[id]
	v.down(id, v.testCluster.stop)
	must(v.t, n.KeepEvidence())
}
func (v *virtual) kill(id string) { v.down(id, v.testCluster.kill) }

func (v *virtual) down(id string, how func(string)) {
	v.mu.Lock()
	delete(v.running, id)
	v.mu.Unlock()
	how(id)
}

// end checks what must hold at last, and stops everything: a goroutine that is left
// behind fails the test.
func (v *virtual) end() {
	v.t.Helper()
	if !v.apart {
		v.settle()
	}
	v.stopAll()
	v.watchers.Wait()
	c := v.total()
	v.t.Logf("%s of virtual time: %d faults, %d elections, %d restarts, %d installs; %d restores, %d of unknown outcome; writes: %d acknowledged, %d of them served by all, %d refused, %d unknown; keys: %d activated, %d retired, %d answers; %d machines compared",
		time.Since(v.began).Round(time.Minute), c.faults, c.elections, c.restarts, c.installs, c.restores, c.restoresUnknown, c.acked, c.served, c.refused, c.unknown, c.activated, c.retired, c.answered, c.machines)
}

func (v *virtual) total() virtualCount {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.count
	c.elections, c.installs = v.log.seen("this node leads"), v.log.seen("state replaced by a snapshot")
	return c
}

func (v *virtual) now() string { return "after " + time.Since(v.began).String() }

// wait waits for something, a second at a time.
func (v *virtual) wait(what string, most time.Duration, ok func() bool) {
	v.t.Helper()
	for began := time.Now(); !ok(); time.Sleep(time.Second) {
		if time.Since(began) > most {
			v.t.Fatalf("%s: waited %s in vain for: %s", v.now(), most, what)
		}
	}
}

// elected is how long an election may take where most nodes reach each other.
func (v *virtual) elected() time.Duration { return 12 * v.tuning.election }

// leaderAmong is the leader that some nodes agree on; nil: they do not.
func (v *virtual) leaderAmong(ids ...string) *Node {
	var leader *Node
	for _, id := range ids {
		if n := v.nodes[id]; n != nil && n.leads() {
			leader = n
		}
	}
	for _, id := range ids {
		if n := v.nodes[id]; leader != nil && n != nil && n.Leader() != leader.c.ID {
			return nil
		}
	}
	return leader
}

// ids are the nodes that take part, others those but one.
func (v *virtual) ids() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.in)
}

func (v *virtual) others(id string) []string {
	return slices.DeleteFunc(v.ids(), func(other string) bool { return other == id })
}

// waitLeader waits for a leader of nodes, all where none are named.
func (v *virtual) waitLeader(ids ...string) (leader *Node) {
	v.t.Helper()
	if len(ids) == 0 {
		ids = v.ids()
	}
	v.wait("a leader among "+strings.Join(ids, ", "), v.elected(), func() bool {
		v.wantNoneFenced()
		leader = v.leaderAmong(ids...)
		return leader != nil
	})
	return leader
}

// isolate cuts a node off from all others.
func (v *virtual) isolate(id string) {
	v.cutAll(id, true, true)
}

func (v *virtual) heal() {
	for _, a := range v.members {
		for _, b := range v.members {
			v.wires.heal(a.ID, b.ID)
		}
	}
}

// write adds a tenant through a node and remembers what was said of it.
func (v *virtual) write(n *Node, tenant string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	results, index, err := n.Propose(ctx, Actor{ID: "test"}, state.AddTenant{ID: tenant, Name: tenant})
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err == nil && results[0].Refusal != nil:
		v.t.Errorf("%s: adding tenant %s: %v", v.now(), tenant, results[0].Refusal)
	case err == nil:
		v.count.acked++
		v.acked[tenant] = index
	case errors.Is(err, ErrUnknown):
		v.count.unknown++
	case errors.Is(err, ErrNotCommitted), errors.Is(err, ErrNoLeader):
		v.count.refused++
		v.refused[tenant] = true
	default:
		v.t.Errorf("%s: adding tenant %s: an error of no kind: %v", v.now(), tenant, err)
	}
	return err
}

// settle heals and starts everything, and holds all nodes against what was promised.
func (v *virtual) settle() {
	v.t.Helper()
	v.heal()
	for _, id := range v.ids() {
		v.clocks[id].set(0)
		if v.nodes[id] == nil {
			v.start(id)
		}
	}
	v.waitLeader()
	v.writes.Wait()
	v.wait("a write", v.elected(), func() bool {
		return v.write(v.waitLeader(), fmt.Sprintf("settled-%d", len(v.acked)), v.elected()) == nil
	})
	v.wait("all to answer with it", v.elected(), func() bool {
		leader := v.waitLeader()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		return leader.WaitServed(ctx, leader.Machine().Index()) == nil
	})
	synctest.Wait()
	v.resolve(v.waitLeader())
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, n := range v.nodes {
		wantNoDiff(v.t, n)
		v.wantNoneHeld(id, n)
		if c := n.CheckCounts(); c.Diverged+c.Split > 0 || c.Alarm {
			v.t.Errorf("%s: %s compared states: %+v", v.now(), id, c)
		}
		v.wantAnswers(id, n)
		v.wantTold(id, n)
	}
}

// ask is zone.Asker.Texts in virtual time.
func (v *virtual) ask(ctx context.Context, asker, server string, names []zone.Name) ([]zone.Told, error) {
	address, err := netip.ParseAddrPort(server)
	if err != nil {
		return nil, err
	}
	id := v.hosts[address]
	for v.wires.severed(asker, id) {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	v.mu.Lock()
	n := v.running[id]
	v.mu.Unlock()
	if n == nil || !n.serving.Load() {
		return nil, syscall.ECONNREFUSED
	}
	dns := zone.NewResponder(n.Tree(), id)
	told := make([]zone.Told, len(names))
	for i, name := range names {
		told[i] = askText(dns, name)
	}
	return told, nil
}

// askText is one question and its answer as octets (RFC 1035 section 4).
func askText(dns *zone.Responder, name zone.Name) zone.Told {
	q := []byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(strings.TrimSuffix(name.String(), "."), ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	q = append(q, 0, 0, 16, 0, 1) // TXT IN
	r := dns.Reply(nil, q, true)
	if rcode := r[3] & 15; rcode != 0 || binary.BigEndian.Uint16(r[6:]) != 1 {
		return zone.Told{Problem: fmt.Sprintf("rcode %d, %d records", rcode, binary.BigEndian.Uint16(r[6:]))}
	}
	const fixed = 2 + 2 + 2 + 4 // a pointer to the question's name, type, class, TTL
	r = r[len(q)+fixed:]
	var text strings.Builder
	for data := r[2 : 2+int(binary.BigEndian.Uint16(r))]; len(data) > 0; {
		n := 1 + int(data[0])
		text.Write(data[1:n])
		data = data[n:]
	}
	return zone.Told{Text: text.String()}
}
