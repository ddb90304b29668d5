package cluster

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
)

// corrupt makes a node's machine differ from the others' without the log, as bad
// memory or a defect would. Nothing may be under way.
func corrupt(t testing.TB, n *Node) {
	t.Helper()
	m := n.Machine()
	bad, results, _ := m.Apply(m.Index(), []state.Entry{{At: m.Time(), Actor: "test", Command: state.AddTenant{ID: "ghost", Name: "Ghost"}}})
	if results[0].Refusal != nil {
		t.Fatal(results[0].Refusal)
	}
	n.fsm.machine.Store(&bad)
}

// quiet waits until nothing of the rotator's first round is under way any more,
// and all nodes are equally far.
func (c *testCluster) quiet(n *Node) {
	c.t.Helper()
	eventually(c.t, "the rotator's first word", func() bool { return n.Machine().CookieSecrets().CurrentAt != 0 })
	c.waitAll(write(c.t, n, "quiet"))
}

func TestNodesThatAgreeStayAsTheyAre(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	claim(t, leader, "send.customer.test.")
	for _, n := range c.nodes { // a follower may ask as well
		r, err := n.CheckState(within(t, 20*time.Second))
		must(t, err)
		if r.Verdict != Agreed || len(r.Nodes) != 3 || r.Nodes[0].Sum == "" || r.Nodes[0].Sum != r.Nodes[2].Sum {
			t.Errorf("%s found %+v", n.c.ID, r)
		}
		if n.fence.err() != nil || len(n.checker.problems()) > 0 {
			t.Errorf("%s: %v %v", n.c.ID, n.fence.err(), n.checker.problems())
		}
	}
	if head, _ := leader.Machine().AuditHead(); head == 0 {
		t.Error("no audit entries at all")
	}
}

// checkMinority corrupts one of three and has the others find out.
func checkMinority(t *testing.T, leads bool, choose func(leader *Node, c *testCluster) *Node) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	claim(t, leader, "send.customer.test.")
	c.quiet(leader)
	bad := choose(leader, c)
	corrupt(t, bad)
	led := bad.leads()
	if led != leads {
		t.Fatalf("the bad one leads: %v", led)
	}
	go leader.CheckState(within(t, 20*time.Second)) // where it is the bad one it gets no answer
	eventually(t, "the fence of the one that differs", func() bool { return bad.fence.err() != nil })
	if h := strings.Join(bad.Health(), "; "); !strings.Contains(h, "state check at index") || !strings.Contains(h, "majority") {
		t.Errorf("health %q does not say why", h)
	}
	if led && bad.raft().State().String() == "Leader" {
		t.Error("the diverged leader did not hand over before it was fenced")
	}
	if bad.Machine().DomainCount() != 1 {
		t.Error("the fenced node stopped answering")
	}
	id := bad.c.ID
	delete(c.nodes, id)
	next := c.leader()
	index := write(t, next, "after")
	for _, n := range c.nodes {
		if n.fence.err() != nil {
			t.Errorf("%s is right and was fenced: %v", n.c.ID, n.fence.err())
		}
	}
	must(t, bad.Close(within(t, 10*time.Second)))

	// Its successor takes nothing over of what had diverged.
	c.start(id)
	again := c.nodes[id]
	if again.Needs() == 0 || again.Machine().DomainCount() != 0 {
		t.Errorf("it began with %d domains and needs index %d", again.Machine().DomainCount(), again.Needs())
	}
	must(t, again.WaitApplied(within(t, 20*time.Second), index))
	if has(again, "ghost") {
		t.Error("the divergence survived")
	}
	r, err := next.CheckState(within(t, 20*time.Second))
	must(t, err)
	if r.Verdict != Agreed || r.of(id).Sum == "" {
		t.Errorf("afterwards: %+v", r)
	}
	wantSame(t, again, next)
}

func TestFollowerThatDivergedFencesItself(t *testing.T) {
	checkMinority(t, false, func(leader *Node, c *testCluster) *Node {
		for _, n := range c.nodes {
			if n != leader {
				return n
			}
		}
		return nil
	})
}

func TestLeaderThatDivergedHandsOverAndFencesItself(t *testing.T) {
	checkMinority(t, true, func(leader *Node, _ *testCluster) *Node { return leader })
}

// With one of three away, two that differ cannot say who is right: nobody is
// fenced, no more is written, and the third brings the decision.
func TestWithoutAMajorityNobodyIsFencedAndWritesStop(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	c.quiet(leader)
	var bad *Node
	var away string
	for id, n := range c.nodes {
		switch {
		case n == leader:
		case bad == nil:
			bad = n
		default:
			away = id
		}
	}
	c.stop(away)
	corrupt(t, bad)
	r, err := leader.CheckState(within(t, 20*time.Second))
	must(t, err)
	if r.Verdict != Split {
		t.Fatalf("found %+v", r)
	}
	for _, n := range []*Node{leader, bad} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		_, _, err := n.Propose(ctx, Actor{ID: "test"}, state.AddTenant{ID: "x", Name: "x"})
		cancel()
		if !errors.Is(err, ErrStopped) || !errors.Is(err, ErrNotCommitted) || errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "no majority agrees") {
			t.Errorf("a write through %s: %v", n.c.ID, err)
		}
		if n.fence.err() != nil {
			t.Errorf("%s was fenced: %v", n.c.ID, n.fence.err())
		}
	}
	if h := strings.Join(leader.Health(), "; "); !strings.Contains(h, "bring the missing nodes back") {
		t.Errorf("health %q does not say what to do", h)
	}
	c.start(away) // the alarm is looked at again by itself
	eventually(t, "the fence of the one that differs", func() bool { return bad.fence.err() != nil })
	c.stop(bad.c.ID)
	eventually(t, "writes again", func() bool { return leader.stopped() == "" })
	c.waitFor(write(t, c.leader(), "after"), leader.c.ID, away)
	if leader.fence.err() != nil || c.nodes[away].fence.err() != nil {
		t.Error("a node that is right was fenced")
	}
}

// A comparison that too few took part in says nothing, of the one before either.
func TestWritesStopUntilAMajorityAgrees(t *testing.T) {
	n := newTestCluster(t, 1).open("node-1")
	for _, s := range []struct {
		verdict Verdict
		stopped bool
	}{{Unclear, false}, {Split, true}, {Unclear, true}, {Diverged, false}, {Split, true}, {Agreed, false}} {
		n.checker.settle(CheckReport{Verdict: s.verdict})
		if (n.stopped() != "") != s.stopped {
			t.Errorf("after %s writes are stopped: %q", s.verdict, n.stopped())
		}
	}
}

func (c *testCluster) waitFor(index uint64, ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		must(c.t, c.nodes[id].WaitApplied(within(c.t, 20*time.Second), index))
	}
}

// TestSumOfAnotherReleaseIsNoDivergence: it says something else of an equal machine.
func TestSumOfAnotherReleaseIsNoDivergence(t *testing.T) {
	own := state.Sum(7)
	for form, want := range map[uint32]Verdict{state.SumForm: Split, state.SumForm + 1: Unclear, 0: Unclear} {
		other := sumReply{Form: form, Sum: 8}
		votes := []vote{{"node-1", true, &own}, {"node-2", true, other.comparable()}, {"node-3", true, nil}}
		if r := judge(1, votes); r.Verdict != want {
			t.Errorf("form %d: %v, want %v", form, r.Verdict, want)
		}
	}
}

func TestJudge(t *testing.T) {
	sum := func(s state.Sum) *state.Sum { return &s }
	v := func(id string, voter bool, s *state.Sum) vote { return vote{id, voter, s} }
	a, b, d := sum(1), sum(2), sum(3)
	for name, x := range map[string]struct {
		votes   []vote
		verdict Verdict
		wrong   string
	}{
		"one node":                           {[]vote{v("1", true, a)}, Agreed, ""},
		"all agree":                          {[]vote{v("1", true, a), v("2", true, a), v("3", true, a)}, Agreed, ""},
		"one away":                           {[]vote{v("1", true, a), v("2", true, a), v("3", true, nil)}, Agreed, ""},
		"two away":                           {[]vote{v("1", true, a), v("2", true, nil), v("3", true, nil)}, Unclear, ""},
		"one differs":                        {[]vote{v("1", true, a), v("2", true, b), v("3", true, a)}, Diverged, "2"},
		"one differs and one is away":        {[]vote{v("1", true, a), v("2", true, b), v("3", true, nil)}, Split, ""},
		"two of five differ":                 {[]vote{v("1", true, a), v("2", true, b), v("3", true, a), v("4", true, d), v("5", true, a)}, Diverged, "2 4"},
		"two voters differ":                  {[]vote{v("1", true, a), v("2", true, b)}, Split, ""},
		"a non-voter differs":                {[]vote{v("1", true, a), v("2", true, a), v("3", true, nil), v("4", false, b)}, Diverged, "4"},
		"non-voters make no majority":        {[]vote{v("1", true, a), v("2", true, b), v("3", false, b), v("4", false, b)}, Split, ""},
		"non-voters alone decide nothing":    {[]vote{v("1", true, nil), v("2", true, nil), v("3", false, a), v("4", false, a)}, Unclear, ""},
		"three voters, three different sums": {[]vote{v("1", true, a), v("2", true, b), v("3", true, d)}, Split, ""},
	} {
		r := judge(7, x.votes)
		if r.Verdict != x.verdict || strings.Join(r.wrong(), " ") != x.wrong {
			t.Errorf("%s: %s, wrong %v", name, r.Verdict, r.wrong())
		}
	}
}

// A node finds that its own memory went bad, says so, and nobody is fenced: nothing
// it compares with others has changed.
func TestANodeFindsThatItsMemoryWentBad(t *testing.T) {
	c := newTestCluster(t, 1)
	c.tuning.recount = 10 * time.Millisecond
	c.startAll()
	n := c.leader()
	seed(t, n)
	claim(t, n, "send.customer.test.")
	eventually(t, "a count", func() bool { return n.CheckCounts().Recounts > 1 })
	if k := checkOf(n, "memory"); !k.OK || n.CheckCounts().Corrupt > 0 {
		t.Fatalf("before anything is wrong: %+v", k)
	}
	c.quiet(n)
	var image bytes.Buffer
	must(t, n.Machine().WriteImage(&image))
	bad, err := state.ReadImage(&image)
	must(t, err)
	tenant, _ := bad.Tenant("acme")
	tenant.Name = "Acne" // where nobody may write
	n.fsm.machine.Store(&bad)
	eventually(t, "the alarm", func() bool { return !checkOf(n, "memory").OK })
	if k := checkOf(n, "memory"); k.Blocks || k.API || !strings.Contains(k.Detail, "test the machine's memory") {
		t.Errorf("%+v", k)
	}
	if n.CheckCounts().Corrupt == 0 || n.fence.err() != nil {
		t.Errorf("%+v, %v", n.CheckCounts(), n.fence.err())
	}
}
