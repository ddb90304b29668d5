package cluster

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
)

func TestNodeThatJoinsServesNothingUntilItHasCaughtUp(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	names, index := writeMany(t, c.leader(), "a", 5)

	joining := Member{ID: "node-4", Address: freeAddresses(t, 1)[0]}
	c.members = append(c.members, joining)
	c.config = func(config *Config) { config.Bootstrap = nil }
	c.start("node-4")
	n := c.nodes["node-4"]
	if need := n.AskPeers(within(t, 300*time.Millisecond)); need != Never {
		t.Fatalf("may serve from index %d on, though nobody has added it", need)
	}
	if !n.abstains() {
		t.Error("would vote with an empty log")
	}
	delete(c.nodes, "node-4") // not a member yet: it knows no leader
	must(t, c.follower().AddPeer(within(t, 10*time.Second), joining))
	c.nodes["node-4"] = n
	need := n.AskPeers(within(t, 10*time.Second))
	if n.Needs() < need {
		t.Errorf("may serve what it has at %d, though those that it joined are at %d", n.Needs(), need)
	}
	if need < index || need == Never {
		t.Fatalf("may serve from index %d on, want %d", need, index)
	}
	must(t, n.WaitApplied(within(t, 20*time.Second), need))
	wantTenants(t, n, names...)
	wantNoDiff(t, n)

	// It is a non-voter that takes writes and confirms like the others.
	last := write(t, n, "through-the-new-one")
	must(t, c.leader().WaitServed(within(t, 20*time.Second), last))
	for _, s := range n.Members(within(t, 5*time.Second)) {
		if !s.Healthy || s.Voter == (s.ID == "node-4") {
			t.Errorf("status %+v", s)
		}
	}
}

func TestRemovedNodeIsToldSoAndKeptOut(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.waitAll(write(t, c.leader(), "before"))
	gone := c.follower()
	id := gone.c.ID
	c.stop(id)
	must(t, c.leader().RemovePeer(within(t, 10*time.Second), id))
	index := write(t, c.leader(), "after")
	must(t, c.leader().WaitServed(within(t, 20*time.Second), index)) // nobody waits for it

	n := c.open(id)
	must(t, n.Start())
	delete(c.nodes, id)
	defer n.Close(within(t, 10*time.Second))
	// It still believes that it is a member; the others refuse it, and say why.
	if need := n.AskPeers(within(t, 5*time.Second)); need != Never {
		t.Errorf("it may answer from %d on, with what it had when it was removed", need)
	}
	if h := strings.Join(n.Health(), "; "); !strings.Contains(h, "says that this node is no member") {
		t.Errorf("health %q", h)
	}
	var r statusReply
	if err := n.peers.call(within(t, 5*time.Second), c.leader().c.ID, callStatus, struct{}{}, &r); err == nil {
		t.Error("a removed node was answered")
	}
}

func TestVoterThatLostItsDiskMustNotFoundAgain(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	index := write(t, c.leader(), "before")
	c.waitAll(index)
	id := c.follower().c.ID
	c.stop(id)
	must(t, os.RemoveAll(c.data(id)))
	n := c.open(id)
	err := n.Start()
	if err == nil || !strings.Contains(err.Error(), "remove it from the cluster and add it again") {
		t.Fatalf("start with an empty disk: %v, want it refused with the remedy", err)
	}
	delete(c.nodes, id)
	must(t, n.Close(within(t, 5*time.Second)))

	// The remedy works.
	m := c.member(id)
	must(t, c.leader().RemovePeer(within(t, 10*time.Second), id))
	c.config = func(config *Config) { config.Bootstrap = nil }
	c.start(id)
	n = c.nodes[id]
	delete(c.nodes, id)
	must(t, c.leader().AddPeer(within(t, 10*time.Second), m))
	c.nodes[id] = n
	need := n.AskPeers(within(t, 10*time.Second))
	must(t, n.WaitApplied(within(t, 20*time.Second), need))
	eventually(t, "voting again", func() bool { return !n.abstains() })
	wantTenants(t, n, "before")
}

func TestTwoProcessesOnOneDataDirectory(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	_, err := Open(c.configOf("node-1"))
	if err == nil || !strings.Contains(err.Error(), "another process uses it") {
		t.Errorf("%v, want the reason", err)
	}
}

func TestDataDirectoryOfAnotherNodeIsRefused(t *testing.T) {
	c := newTestCluster(t, 2)
	c.open("node-1")
	c.stop("node-1")
	config := c.configOf("node-2")
	config.DataDir = c.data("node-1")
	if _, err := Open(config); err == nil || !strings.Contains(err.Error(), `belongs to node "node-1"`) {
		t.Errorf("%v, want the owner named", err)
	}
}

func TestMissingLogIsAnError(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	write(t, c.leader(), "a")
	c.stop("node-1")
	must(t, os.Remove(c.data("node-1")+"/"+raftFile))
	if _, err := Open(c.configOf("node-1")); err == nil || !strings.Contains(err.Error(), "the log is gone") {
		t.Errorf("%v, want the loss named", err)
	}
}

func TestIncompleteConfigurationNamesTheField(t *testing.T) {
	c := newTestCluster(t, 1)
	for field, change := range map[string]func(*Config){
		"ID":        func(c *Config) { c.ID = "" },
		"DataDir":   func(c *Config) { c.DataDir = "" },
		"Bind":      func(c *Config) { c.Bind = "" },
		"TLS":       func(c *Config) { c.TLS = nil },
		"Keeper":    func(c *Config) { c.Keeper = nil },
		"Source":    func(c *Config) { c.Source = nil },
		"Logger":    func(c *Config) { c.Logger = nil },
		"Bootstrap": func(c *Config) { c.Bootstrap = []Member{{ID: "other", Address: "127.0.0.1:1"}} },
	} {
		config := c.configOf("node-1")
		change(&config)
		if _, err := Open(config); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("without %s: %v", field, err)
		}
	}
}

func TestLeadershipIsHandedOver(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	to := c.follower().c.ID
	must(t, c.follower().TransferLeader(within(t, 10*time.Second), to))
	eventually(t, "the new leader", func() bool { return c.nodes[to].leads() })
	if err := leader.TransferLeader(within(t, 10*time.Second), "nobody"); err == nil {
		t.Error("handed over to a node that does not exist")
	}
	// A closing leader hands over as well: the others need not wait for a timeout.
	began := time.Now()
	c.stop(to)
	c.leader()
	t.Logf("a leader %s after the old one was closed", time.Since(began))
}

// While a predecessor hands over it answers from the same sockets, with what it
// had when it let go. A disk that was full during a hand-over showed it: a change
// that all had confirmed was answered as it was before.
func TestNothingIsConfirmedWhileAPredecessorAnswers(t *testing.T) {
	c := newTestCluster(t, 3)
	alone := make(chan struct{})
	c.config = func(config *Config) {
		if config.ID == "node-2" {
			config.Alone = alone
		}
	}
	c.startAll()
	index := write(t, c.leader(), "acme")
	c.waitAll(index)
	for _, n := range c.nodes {
		err := n.WaitServed(within(t, 300*time.Millisecond), index)
		if err == nil || !strings.Contains(err.Error(), "node-2") {
			t.Errorf("%s: two processes answer for node-2: %v", n.c.ID, err)
		}
	}
	close(alone)
	must(t, c.leader().WaitServed(within(t, 20*time.Second), index))
}

func TestWaitServedNamesWhomItWaitsFor(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	down := c.follower().c.ID
	c.kill(down)
	index := write(t, c.leader(), "a")
	err := c.leader().WaitServed(within(t, 500*time.Millisecond), index)
	if err == nil || !strings.Contains(err.Error(), down) {
		t.Fatalf("%v, want %s named", err, down)
	}
	c.start(down)
	must(t, c.leader().WaitServed(within(t, 20*time.Second), index))
	if synced := c.nodes[down].mark.synced.Index; synced < index {
		t.Errorf("%s confirmed %d with a mark of %d on disk", down, index, synced)
	}
}

func TestRestoreDoesNotTurnSerialsBack(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	seed(t, n)
	token := claim(t, n, "send.customer.test.")
	var image bytes.Buffer
	_, err := n.SaveSnapshot(within(t, 10*time.Second), &image)
	must(t, err)
	for i := range 5 {
		labels := map[string]string{"round": string(rune('a' + i))}
		_, _, err := n.Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.PatchDomain{Token: token, Labels: &labels})
		must(t, err)
	}
	serial := func() uint32 {
		d, _ := n.Machine().Domain(token)
		p, _ := n.Machine().Pool(d.Pool)
		return d.Serial + p.Serial
	}
	platform := func() uint32 {
		p, _ := n.Machine().Platform(parseName(t, "p-dns.test."))
		return p.Serial
	}
	before, beforePlatform := serial(), platform()
	restore(t, n, image.Bytes())
	if int32(serial()-before) <= 0 {
		t.Errorf("zone serial went from %d to %d", before, serial())
	}
	if int32(platform()-beforePlatform) <= 0 {
		t.Errorf("platform zone serial went from %d to %d", beforePlatform, platform())
	}
	wantNoDiff(t, n)
}

func TestRestoreIsForTheLeader(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	_, err := c.follower().RestoreSnapshot(within(t, 5*time.Second), Actor{}, bytes.NewReader(nil), false)
	if !errors.Is(err, ErrNoLeader) || !strings.Contains(err.Error(), c.leader().c.ID) {
		t.Errorf("%v, want the leader named", err)
	}
}
