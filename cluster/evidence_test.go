package cluster

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// listen opens DNS for a node.
func (c *testCluster) listen(n *Node) *zone.Server {
	c.t.Helper()
	s, err := zone.Listen(zone.ServerConfig{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1,
		Tree: n.Tree(), Watch: n.Watch(), Logger: slog.New(slog.DiscardHandler),
	})
	must(c.t, err)
	c.t.Cleanup(func() { s.Close(within(c.t, 5*time.Second)) })
	return s
}

// askTXT asks a server for a name's TXT over UDP and returns the reply.
func askTXT(t testing.TB, s *zone.Server, name zone.Name) []byte {
	t.Helper()
	conn, err := net.Dial("udp", s.Addresses()[0].String())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	query := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name...)
	_, err = conn.Write(append(query, 0, 16, 0, 1))
	must(t, err)
	reply := make([]byte, zone.MaxUDP)
	n, err := conn.Read(reply)
	must(t, err)
	return reply[:n]
}

// drainingCluster is three nodes with one domain whose first key drains since the
// clock's time.
func drainingCluster(t *testing.T) (c *testCluster, clock *testClock, token state.Token, old keys.Key) {
	c = newTestCluster(t, 3)
	clock = c.withClock()
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	token = claim(t, leader, "send.customer.test.")
	c.waitRing("a confirmed standby", leader, token, func(r keys.Ring) bool {
		k, ok := r.Standby(keys.RSA2048)
		return ok && k.ConfirmedAt > 0
	})
	c.trusted(leader)
	clock.add(100 * day)
	r := c.waitRing("the activation", leader, token, func(r keys.Ring) bool {
		a, ok := r.Active(keys.RSA2048)
		return ok && a.ID != 1
	})
	old, _ = r.ByID(1)
	if old.Stage != keys.Draining {
		t.Fatalf("%+v", old)
	}
	return c, clock, token, old
}

func (c *testCluster) trusted(leader *Node) {
	c.t.Helper()
	eventually(c.t, "trust in the clock", func() bool {
		leader.rotator.clock.mu.Lock()
		defer leader.rotator.clock.mu.Unlock()
		return leader.rotator.clock.trusted
	})
}

func nameOf(t testing.TB, n *Node, token state.Token, k keys.Key) zone.Name {
	t.Helper()
	d, _ := n.Machine().Domain(token)
	name, err := d.KeyName(k)
	must(t, err)
	return name
}

func stage(id uint32, want keys.Stage) func(keys.Ring) bool {
	return func(r keys.Ring) bool { k, ok := r.ByID(id); return ok && k.Stage == want }
}

func TestKeyAskedForAtOneNodeDrainsOn(t *testing.T) {
	c, clock, token, old := drainingCluster(t)
	leader := c.leader()
	follower := c.follower()
	c.waitAll(leader.Machine().Index())
	clock.add(10 * day)
	must(t, follower.WaitApplied(within(t, 10*time.Second), write(t, leader, "later")))
	askTXT(t, c.listen(follower), nameOf(t, follower, token, old))
	asked := clock.now().Unix()
	eventually(t, "the count", func() bool {
		use := leader.KeyUse(within(t, 10*time.Second), token, old.ID)[old.ID]
		return use.LastAsked == asked && use.Days[0] == 1 && len(use.Missing) == 0
	})
	clock.add(day + time.Hour) // the drain is over, but it was asked for yesterday
	r := c.waitRing("the drain put off", leader, token, func(r keys.Ring) bool { k, _ := r.ByID(old.ID); return k.HeldUntil != 0 })
	if k, _ := r.ByID(old.ID); k.Stage != keys.Draining || k.HeldUntil != asked+2*86400 {
		t.Fatalf("%+v, want it put off until %d", k, asked+2*86400)
	}
	clock.add(day)
	c.waitRing("the revocation", leader, token, stage(old.ID, keys.Revoked))
}

func TestNodeThatDoesNotSayHoldsRevocationsAndNothingElse(t *testing.T) {
	c, clock, token, old := drainingCluster(t)
	leader := c.leader()
	down := c.follower().c.ID
	clock.add(day)
	c.waitAll(write(t, leader, "later"))
	c.kill(down)
	leader = c.leader()
	c.trusted(leader)
	clock.add(29 * day) // past the ceiling
	eventually(t, "a word on who is missing", func() bool {
		return strings.Contains(strings.Join(leader.Health(), "\n"), "draining keys wait: "+down)
	})
	write(t, leader, "meanwhile")
	if k, _ := ring(t, leader, token).ByID(old.ID); k.Stage != keys.Draining {
		t.Fatalf("%s was revoked without the word of %s: %+v", k.Selector, down, k)
	}
	c.start(down)
	c.leader()
	// What it saw before it died is not known, but the ceiling is past.
	c.rest(leader)
	c.waitRing("the revocation", leader, token, stage(old.ID, keys.Revoked))
	if text := strings.Join(leader.Health(), "\n"); strings.Contains(text, "draining keys wait") {
		t.Errorf("health goes on saying %q", text)
	}
}

// rest ends the rest of tasks that were refused or held.
func (c *testCluster) rest(n *Node) {
	n.rotator.mu.Lock()
	defer n.rotator.mu.Unlock()
	clear(n.rotator.resting)
}

func TestWithoutQuorumRotationFreezesAndResumesByItself(t *testing.T) {
	c, clock, token, old := drainingCluster(t)
	leader := c.leader()
	c.waitRing("the next standby", leader, token, func(r keys.Ring) bool {
		k, ok := r.Standby(keys.RSA2048)
		return ok && k.ConfirmedAt > 0
	})
	clock.add(time.Hour)
	c.waitAll(write(t, leader, "later"))
	left := c.follower()
	for id, n := range c.nodes {
		if n != left {
			c.kill(id)
		}
	}
	before := ring(t, left, token)
	dns := c.listen(left)
	clock.add(120 * day) // an activation, a revocation and a publication are due
	eventually(t, "the loss of the leader", func() bool { return left.Leader() == "" })
	for range 3 {
		left.rotator.wake()
		if left.rotator.round() && left.leads() {
			t.Error("a node without a quorum took steps")
		}
	}
	d, _ := left.Machine().Domain(token)
	if after := d.Ring(); string(after.Append(nil)) != string(before.Append(nil)) {
		t.Errorf("the keys changed without a quorum:\n%+v\n%+v", before.Keys, after.Keys)
	}
	for _, k := range before.Keys {
		if reply := askTXT(t, dns, nameOf(t, left, token, k)); reply[3]&0x0f != 0 || reply[7] != 1 || !strings.Contains(string(reply), k.Payload[:40]) {
			t.Errorf("%s %s is not answered: %x", k.Stage, k.Selector, reply)
		}
	}
	active, _ := before.Active(keys.RSA2048)
	if _, err := left.OpenKey(d, active); err != nil {
		t.Errorf("a signer cannot read its key: %v", err)
	}
	left.HandedOut(token, active.ID, "signer")

	for _, m := range c.members {
		if c.nodes[m.ID] == nil {
			c.start(m.ID)
		}
	}
	leader = c.leader()
	c.trusted(leader)
	eventually(t, "the rotation going on", func() bool {
		c.rest(leader)
		r := ring(t, leader, token)
		now, _ := r.Active(keys.RSA2048)
		k, ok := r.ByID(old.ID)
		return now.ID != active.ID && (!ok || k.Stage == keys.Revoked)
	})
}

func TestEvidenceOutlivesARestartAndALossIsUnknown(t *testing.T) {
	c := newTestCluster(t, 1)
	clock := c.withClock()
	c.startAll()
	n := c.leader()
	seed(t, n)
	token := claim(t, n, "send.customer.test.")
	began := clock.now().Unix()
	d, _ := n.Machine().Domain(token)
	k, _ := d.Ring().Active(keys.RSA2048)
	a := askOf(n.Machine(), d, d.Ring(), k)
	n.HandedOut(token, k.ID, "signer-1")
	n.evidence.mu.Lock()
	n.evidence.asked[a.Name] = asked{}.plus(began, 7)
	n.evidence.mu.Unlock()

	clock.add(day)
	write(t, n, "later")
	c.stop("node-1")
	must(t, n.KeepEvidence()) // as the server does when it is the last to go
	clock.add(day)
	c.start("node-1")
	n = c.nodes["node-1"]
	told := n.evidence.of(a, clock.now().Unix())
	if told.Since != began || told.Last != began || told.Days[2] != 7 || told.HandedOut != began || len(told.Signers) != 1 {
		t.Errorf("after a clean stop %+v", told)
	}

	c.kill("node-1")
	clock.add(time.Hour)
	c.start("node-1")
	n = c.nodes["node-1"]
	now := clock.now().Unix()
	told = n.evidence.of(a, now)
	if told.Since != now || told.Last != began || !told.Unsure {
		t.Errorf("after a crash %+v", told)
	}
	a.Drained = now - 60 // which this node had not applied when it wrote last
	if told = n.evidence.of(a, now); told.HandedOut != now {
		t.Errorf("a key that began to drain unseen: %+v", told)
	}
	a.Drained = began // which it had
	if told = n.evidence.of(a, now); told.HandedOut != began {
		t.Errorf("a key known to drain: %+v", told)
	}

	c.kill("node-1")
	path := filepath.Join(c.data("node-1"), "evidence")
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)-1] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
	c.start("node-1")
	if told = c.nodes["node-1"].evidence.of(a, now); told.Since != now || told.Last != 0 || told.HandedOut != now || len(told.Signers) != 0 {
		t.Errorf("after the file was damaged %+v", told)
	}
}

func TestSignersOnTheOldKeyAreTold(t *testing.T) {
	u := KeyUse{}
	u.add(keyTold{Signers: []SignerSeen{{"a", 100, 0}, {"b", 100, 0}, {"c", 10, 0}, {"d", 0, 120}}})
	u.add(keyTold{Signers: []SignerSeen{{"b", 0, 120}, {"d", 90, 0}}})
	if on := strings.Join(u.OnOld(50, 130), " "); on != "a" {
		t.Errorf("on the old key: %q, want a alone: b and d have the next, c let go of it", on)
	}
	if e := u.Evidence(50, 130); !e.Complete || e.Switched {
		t.Errorf("%+v", e)
	}
	u.add(keyTold{Signers: []SignerSeen{{"a", 0, 125}}})
	if e := u.Evidence(50, 130); !e.Switched {
		t.Errorf("all have the next: %+v", e)
	}
	u.Missing = []string{"node-3"}
	if e := u.Evidence(50, 130); e.Switched || e.Complete {
		t.Errorf("one node did not say: %+v", e)
	}
}

// bareEvidence is that of a node which is nothing else.
func bareEvidence(now func() time.Time) (*Node, *evidence) {
	n := &Node{c: Config{Now: now}, logger: slog.New(slog.DiscardHandler), fsm: newFSM(start{machine: state.Empty()}, zone.NewTree(), nil, nil, nil)}
	n.evidence = &evidence{node: n, watch: zone.NewWatch(), asked: map[uint64]asked{}, handed: newHanded()}
	return n, n.evidence
}

func TestEvidenceOfAClockThatRanAheadCountsAsOfNow(t *testing.T) {
	const today, ahead = 1000 * secondsOfDay, 200 * secondsOfDay
	at := int64(today + ahead)
	n, e := bareEvidence(func() time.Time { return time.Unix(at, 0) })
	e.lost(today-60, at) // restarted with that clock
	n.HandedOut(state.Token{1}, 1, "signer")
	e.asked[7] = asked{}.plus(at, 3)
	at = today // set right

	ask := keyAsk{Token: state.Token{1}, Key: 1, Name: 7, Drained: today + secondsOfDay}
	if told := e.of(ask, today); told.HandedOut != today+ahead {
		t.Fatalf("%+v: the clock was not ahead, and this shows nothing", told)
	}
	e.isNow(today)
	told := e.of(ask, today)
	if told.HandedOut != today+30 || told.Last != today+30 || told.Since != today+30 || told.Signers[0].At != today+30 || told.Days[0] != 3 {
		t.Errorf("%+v, want all at the latest that it can have been", told)
	}
	e.isNow(today + 60)
	if again := e.of(ask, today); again.HandedOut != told.HandedOut {
		t.Errorf("it moves on: %+v", again)
	}
}

func TestEvidenceIsBounded(t *testing.T) {
	n, e := bareEvidence(func() time.Time { return time.Unix(1000, 0) })
	e.entries = maxHanded
	n.HandedOut(state.Token{1}, 1, "one too many")
	if len(e.handed.of(state.Token{1})) != 0 || e.since != 1000 || len(e.gaps) != 1 {
		t.Errorf("what found no room is not unknown: %+v", e.gaps)
	}
	for i := range int64(3 * maxGaps) {
		e.lost(i, i+1)
	}
	if len(e.gaps) > maxGaps || e.gaps[0].From != 0 || e.gaps[len(e.gaps)-1].Until != 3*maxGaps {
		t.Errorf("%d gaps: %v", len(e.gaps), e.gaps)
	}
}

// Before its count was whole a node may have missed a query: the key counts as
// asked for until then. Who signs with a key is known where all said it, and for
// as long as a signer may hold it.
func TestEvidenceIsNoBetterThanWhatItRestsOn(t *testing.T) {
	const hold, now = 50, 1000
	for name, c := range map[string]struct {
		use      KeyUse
		complete bool
		asked    int64
		switched bool
		on       []string
	}{
		"counted since after the last query": {use: KeyUse{Since: 100, LastAsked: 40}, complete: true, asked: 100, switched: true},
		"asked for since":                    {use: KeyUse{Since: 100, LastAsked: 140}, complete: true, asked: 140, switched: true},
		"a node that said nothing":           {use: KeyUse{Missing: []string{"node-3"}}},
		"signers that may be missing":        {use: KeyUse{Unsure: true}, complete: true},
		"one who may hold it still":          {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now - hold}}}, complete: true, on: []string{"s"}},
		"one who may not any more":           {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now - hold - 1}}}, complete: true, switched: true},
		"one who fetched a later one":        {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now, Later: now}}}, complete: true, switched: true},
		"one who went back to it":            {use: KeyUse{Signers: []SignerSeen{{ID: "s", At: now, Later: now - 1}}}, complete: true, on: []string{"s"}},
		"one who fetched only a later one":   {use: KeyUse{Signers: []SignerSeen{{ID: "s", Later: now}}}, complete: true, switched: true},
	} {
		e := c.use.Evidence(hold, now)
		if e.Complete != c.complete || e.AskedAt != c.asked || e.Switched != c.switched || !slices.Equal(c.use.OnOld(hold, now), c.on) {
			t.Errorf("%s: %+v, on it %v", name, e, c.use.OnOld(hold, now))
		}
	}
	var u KeyUse
	u.add(keyTold{Since: 7, Last: 5, HandedOut: 3, Unsure: true, Signers: []SignerSeen{{ID: "s", At: 2}}})
	u.add(keyTold{Since: 6, Last: 8, HandedOut: 1, Signers: []SignerSeen{{ID: "s", Later: 4}}})
	if u.Since != 7 || u.LastAsked != 8 || u.HandedOut != 3 || !u.Unsure || !slices.Equal(u.Signers, []SignerSeen{{ID: "s", At: 2, Later: 4}}) {
		t.Errorf("two nodes together: %+v", u)
	}
}
