package cluster

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// answers opens DNS for a node and tells the others where.
func (c *testCluster) answers(n *Node) *zone.Server {
	c.t.Helper()
	s := c.listen(n)
	n.AnswersAt(s.Addresses()[0])
	return s
}

func confirmed(r keys.Ring) bool {
	k, ok := r.Standby(keys.RSA2048)
	return ok && k.ConfirmedAt > 0
}

// waitsFor waits until a claim's standby is seen to wait for one node alone.
func (c *testCluster) waitsFor(asked *Node, token state.Token, node, why string) BarrierWait {
	c.t.Helper()
	var list []BarrierWait
	eventually(c.t, "a wait for "+node+": "+why, func() bool {
		list = asked.Waiting(within(c.t, askTime), token)
		return len(list) == 1 && list[0].Node == node && strings.Contains(list[0].Why, why)
	})
	return list[0]
}

func TestNodeThatAppliedButAnswersTheOldHoldsTheBarrier(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	stale := c.follower()
	for _, n := range c.nodes {
		if n != stale {
			c.answers(n)
		}
	}
	// Its machine applies everything; its listener has an index of nothing.
	wrong, err := zone.Listen(zone.ServerConfig{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1, Tree: zone.NewTree(), Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	t.Cleanup(func() { wrong.Close(within(t, confirmTime)) })
	stale.AnswersAt(wrong.Addresses()[0])

	token := claim(t, leader, "send.customer.test.")
	first := c.waitsFor(leader, token, stale.c.ID, "REFUSED")
	if k, _ := ring(t, leader, token).Standby(keys.RSA2048); first.Key != k.ID || first.Since == 0 {
		t.Errorf("%+v, standby %d", first, k.ID)
	}
	if confirmed(ring(t, leader, token)) {
		t.Fatal("a standby was confirmed that one listener does not answer")
	}
	if _, ok := stale.Machine().Domain(token); !ok {
		t.Error("the stale node has not applied the claim: the test shows nothing")
	}
	if got := c.waitsFor(stale, token, stale.c.ID, "REFUSED"); got.Since != first.Since {
		t.Errorf("a follower tells %+v, the leader %+v", got, first)
	}
	if text := strings.Join(leader.Health(), "\n"); !strings.Contains(text, "standby keys wait: for "+stale.c.ID+" since") {
		t.Errorf("health: %s", text)
	}
	c.answers(stale)
	c.waitRing("the barrier passing", leader, token, confirmed)
	eventually(t, "the end of the wait", func() bool { return len(leader.BarrierWaits()) == 0 })
}

// claimWithNodeDown makes a cluster of three, one of them down, and a claim whose
// standby waits for that one alone.
func claimWithNodeDown(t *testing.T) (c *testCluster, leader *Node, down string, token state.Token) {
	t.Helper()
	c = newTestCluster(t, 3)
	c.startAll()
	seed(t, c.leader())
	down = c.follower().c.ID
	for id, n := range c.nodes {
		if id != down {
			c.answers(n)
		}
	}
	c.kill(down)
	leader = c.leader()
	token = claim(t, leader, "send.customer.test.")
	c.waitsFor(leader, token, down, "cannot be asked")
	return c, leader, down, token
}

func TestNodeThatIsDownHoldsTheBarrierUntilItIsBackOrRemoved(t *testing.T) {
	for _, end := range []string{"back", "removed"} {
		t.Run(end, func(t *testing.T) {
			c, leader, down, token := claimWithNodeDown(t)
			write(t, leader, "meanwhile") // and holds nothing else
			if confirmed(ring(t, leader, token)) {
				t.Fatal("a standby was confirmed that one node was not asked about")
			}
			if end == "back" {
				c.start(down)
				c.leader()
			} else {
				must(t, leader.RemovePeer(within(t, changeTime), down))
			}
			c.waitRing("the barrier passing", leader, token, confirmed)
		})
	}
}

// TestNodeSetOffHoldsNothing: what waits for it goes on at once, it says of itself
// that it is not ready when it is back, and counts again when it is put back.
func TestNodeSetOffHoldsNothing(t *testing.T) {
	c, leader, down, token := claimWithNodeDown(t)
	waited := make(chan error, 1)
	index := write(t, leader, "acme-2")
	go func() { waited <- leader.WaitServed(within(t, changeTime), index) }()
	set := func(serving bool, statement string) uint64 {
		t.Helper()
		_, index := settle(t, leader, state.SetServing{Node: down, Serving: serving, Statement: statement})
		return index
	}
	off := set(false, "its host is dead")
	must(t, <-waited)
	c.waitRing("the barrier passing", leader, token, confirmed)
	eventually(t, "the end of the wait", func() bool { return len(c.leader().BarrierWaits()) == 0 })
	must(t, leader.WaitApplied(within(t, changeTime), off)) // it may follow by now
	if said := strings.Join(leader.Health(), "\n"); !strings.Contains(said, down+" is out of the serving set since 20") {
		t.Errorf("an operator who forgets it is told %q", said)
	}

	c.start(down)
	back := c.nodes[down]
	must(t, back.WaitApplied(within(t, changeTime), index))
	check := func() Check {
		for _, one := range back.Checks() {
			if one.Name == "serving" {
				return one
			}
		}
		return Check{}
	}
	eventually(t, "the node says that it does not count", func() bool {
		one := check()
		return !one.OK && one.Blocks && strings.Contains(one.Detail, `"its host is dead"`) && strings.Contains(one.Detail, "set-serving "+down+" --on")
	})
	leader = c.leader()
	set(true, "")
	eventually(t, "the node counts again", func() bool { return check().OK })
	c.kill(down)
	leader = c.leader() // it may have been the one that was killed
	index = write(t, leader, "acme-3")
	must(t, leader.WaitApplied(within(t, changeTime), index))
	if err := leader.WaitServed(within(t, 300*time.Millisecond), index); err == nil || !strings.Contains(err.Error(), down) {
		t.Errorf("it was put back, and nothing waits for it: %v", err)
	}
	set(false, "its host is dead again")
	eventually(t, "its removal", func() bool { // also where the leader falls that began it
		leader = c.leader()
		return leader.RemovePeer(within(t, changeTime), down) == nil || !contains(leader.members(), down)
	})
	eventually(t, "nothing is kept of a node that was removed", func() bool { return len(leader.Machine().OffNodes()) == 0 })
}

func TestBarrierAsksForEveryKeyAtOnce(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	seed(t, n)
	s := c.answers(n)
	var tokens []state.Token
	for _, name := range []string{"a.customer.test.", "b.customer.test.", "c.customer.test."} {
		tokens = append(tokens, claim(t, n, name))
	}
	for _, token := range tokens {
		c.waitRing("confirmation", n, token, confirmed)
	}
	var questions []question
	var names []zone.Name
	for _, token := range tokens {
		k, _ := ring(t, n, token).Standby(keys.RSA2048)
		questions = append(questions, question{nameOf(t, n, token, k), k.Payload})
		names = append(names, questions[len(questions)-1].name)
	}
	questions = append(questions, question{parseName(t, "nothing.a.customer.test."), "x"}, question{names[0], "another"}, question{})
	whys := n.barrier.ask(within(t, confirmTime), c.member("node-1"), n.Machine().Index(), questions)
	if got := strings.Join(whys, "|"); !strings.HasPrefix(got, "|||") || !strings.Contains(whys[3], "NXDOMAIN") || !strings.Contains(whys[4], "another record") || whys[5] != "" {
		t.Errorf("%q", whys)
	}
	many := make([]zone.Name, 3000)
	for i := range many {
		many[i] = names[i%len(names)]
	}
	told, err := n.asker.Texts(within(t, confirmTime), s.Addresses()[0].String(), many)
	if err != nil {
		t.Fatal(err)
	}
	for i, one := range told {
		if one.Text != questions[i%len(names)].text {
			t.Fatalf("%d: %+v", i, one)
		}
	}
}

func TestWildcardListenerIsReachedAtTheNodeLinksHost(t *testing.T) {
	for _, c := range [][3]string{
		{"0.0.0.0:53", "192.0.2.1:7301", "192.0.2.1:53"}, {"[::]:53", "[2001:db8::1]:7301", "[2001:db8::1]:53"},
		{"[::]:53", "node-1.test:7301", "node-1.test:53"}, {"192.0.2.9:53", "192.0.2.1:7301", "192.0.2.9:53"},
	} {
		if got := reached(netip.MustParseAddrPort(c[0]), c[1]); got != c[2] {
			t.Errorf("%s behind %s is asked at %s, want %s", c[0], c[1], got, c[2])
		}
	}
}
