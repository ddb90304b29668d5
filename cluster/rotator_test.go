package cluster

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// testClock is a clock that stands until it is set.
type testClock struct {
	mu sync.Mutex
	at time.Time
}

func (c *testClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

const day = 24 * time.Hour

func newClock() *testClock {
	return &testClock{at: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
}

// withClock gives all nodes one clock, withClocks each its own.
func (c *testCluster) withClock() *testClock {
	clock := newClock()
	c.config = func(config *Config) { config.Now = clock.now }
	return clock
}

func (c *testCluster) withClocks() map[string]*testClock {
	clocks := make(map[string]*testClock)
	for _, m := range c.members {
		clocks[m.ID] = newClock()
	}
	c.config = func(config *Config) { config.Now = clocks[config.ID].now }
	return clocks
}

func ring(t testing.TB, n *Node, token state.Token) keys.Ring {
	t.Helper()
	d, ok := n.Machine().Domain(token)
	if !ok {
		t.Fatalf("%s has no claim %s", n.c.ID, token)
	}
	return d.Ring()
}

func (c *testCluster) waitRing(what string, n *Node, token state.Token, ok func(keys.Ring) bool) keys.Ring {
	c.t.Helper()
	var r keys.Ring
	eventually(c.t, what, func() bool { r = ring(c.t, n, token); return ok(r) })
	return r
}

func TestRotatorActivatesPublishesAndConfirmsOnItsOwn(t *testing.T) {
	c := newTestCluster(t, 3)
	clock := c.withClock()
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	token := claim(t, leader, "send.customer.test.")
	first := c.waitRing("a confirmed standby", leader, token, func(r keys.Ring) bool {
		k, ok := r.Standby(keys.RSA2048)
		return ok && k.ConfirmedAt > 0
	})
	standby, _ := first.Standby(keys.RSA2048)
	eventually(t, "trust in the clock", func() bool {
		leader.rotator.clock.mu.Lock()
		defer leader.rotator.clock.mu.Unlock()
		return leader.rotator.clock.trusted
	})

	clock.add(100 * day)
	after := c.waitRing("the activation and the next standby", leader, token, func(r keys.Ring) bool {
		a, ok := r.Active(keys.RSA2048)
		s, ok2 := r.Standby(keys.RSA2048)
		return ok && ok2 && a.ID == standby.ID && s.ConfirmedAt > 0
	})
	next, _ := after.Standby(keys.RSA2048)
	if next.ID == standby.ID || next.ReadyAt() < next.ConfirmedAt+keys.GapMinted {
		t.Errorf("next standby %+v: its name was absent, which caches may still say", next)
	}
	c.waitAll(leader.Machine().Index())
	for _, n := range c.nodes {
		d, _ := n.Machine().Domain(token)
		for _, k := range d.Ring().Keys {
			p, err := n.OpenKey(d, k)
			if err != nil {
				t.Errorf("%s: key %s: %v", n.c.ID, k.Selector, err)
			} else if p.Payload() != k.Payload {
				t.Errorf("%s: key %s opens as another", n.c.ID, k.Selector)
			}
		}
		wantNoDiff(t, n)
	}
}

func TestRotatorWorksInSlots(t *testing.T) {
	c := newTestCluster(t, 1)
	clock := c.withClock()
	c.startAll()
	n := c.leader()
	seed(t, n)
	ctx := within(t, 20*time.Second)
	token, err := n.NewToken()
	must(t, err)
	algorithms := []keys.Algorithm{keys.RSA2048, keys.Ed25519}
	policy := keys.DefaultPolicy()
	policy.Algorithms = algorithms
	both := state.PutPool{ID: "both", Spec: state.PoolSpec{SPFAll: "~all", SPF: []string{"ip4:192.0.2.0/24"}, Policy: policy}}
	active, standby, err := n.ClaimKeys(ctx, token, keys.Slots, algorithms)
	must(t, err)
	results, _, err := n.Propose(ctx, Actor{ID: "test"}, both, state.AddDomain{
		Token: token, Name: parseName(t, "customer.test."), Mode: zone.CNAME, Tenant: "acme", Pool: "both",
		Registrable: parseName(t, "customer.test."), Active: active, Standby: standby,
	})
	must(t, err)
	for _, r := range results {
		if r.Refusal != nil {
			t.Fatal(r.Refusal)
		}
	}
	c.waitRing("confirmed standbys", n, token, func(r keys.Ring) bool {
		for _, a := range algorithms {
			if k, ok := r.Standby(a); !ok || k.ConfirmedAt == 0 {
				return false
			}
		}
		return true
	})
	clock.add(100 * day)
	c.waitRing("both algorithms rotated", n, token, func(r keys.Ring) bool {
		for _, a := range algorithms {
			k, ok := r.Active(a)
			s, ok2 := r.Standby(a)
			if !ok || !ok2 || k.ActivatedAt < clock.now().Unix()-int64(day/time.Second) || s.ConfirmedAt == 0 {
				return false
			}
		}
		return true
	})
	d, _ := n.Machine().Domain(token)
	for _, k := range d.Ring().Keys {
		if _, err := n.OpenKey(d, k); err != nil {
			t.Errorf("key %s: %v", k.Selector, err)
		}
	}
}

func TestMemberThatCannotBeAskedHoldsTheStandbyAndNothingElse(t *testing.T) {
	c := newTestCluster(t, 3)
	clock := c.withClock()
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	token := claim(t, leader, "send.customer.test.")
	c.waitRing("a confirmed standby", leader, token, func(r keys.Ring) bool {
		k, ok := r.Standby(keys.RSA2048)
		return ok && k.ConfirmedAt > 0
	})
	eventually(t, "trust in the clock", func() bool {
		leader.rotator.clock.mu.Lock()
		defer leader.rotator.clock.mu.Unlock()
		return leader.rotator.clock.trusted
	})
	down := c.follower().c.ID
	c.kill(down)

	clock.add(100 * day)
	held := c.waitRing("the activation and an unconfirmed standby", leader, token, func(r keys.Ring) bool {
		k, ok := r.Standby(keys.RSA2048)
		return ok && k.ConfirmedAt == 0
	})
	next, _ := held.Standby(keys.RSA2048)
	eventually(t, "health that names the node", func() bool { return strings.Contains(strings.Join(leader.Health(), "; "), down) })
	if k, _ := ring(t, leader, token).Standby(keys.RSA2048); k.ConfirmedAt != 0 {
		t.Fatalf("standby %s confirmed without %s", k.Selector, down)
	}
	c.start(down)
	c.waitRing("its confirmation", leader, token, func(r keys.Ring) bool {
		k, ok := r.Standby(keys.RSA2048)
		return ok && k.ID == next.ID && k.ConfirmedAt > 0
	})
}

func TestClockBehindTheClusterRotatesNothing(t *testing.T) {
	c := newTestCluster(t, 1)
	clock := c.withClock()
	c.startAll()
	n := c.leader()
	write(t, n, "before")
	at := n.Machine().Time()
	clock.add(-time.Hour)
	n.rotator.wake()
	eventually(t, "a word about the clock", func() bool { return strings.Contains(strings.Join(n.Health(), "; "), "behind the cluster's time") })
	write(t, n, "after")
	if got := n.Machine().Time(); got != at {
		t.Errorf("machine time went from %d to %d", at, got)
	}
}

// TestNodeThatStartedWithAClockAheadLearnsTheTimeSoon, and not on the day on which it is
// asked what it knows of a key: what it does not know would count as of that day.
func TestNodeThatStartedWithAClockAheadLearnsTheTimeSoon(t *testing.T) {
	c := newTestCluster(t, 3)
	clocks := c.withClocks()
	c.startAll()
	leader := c.leader()
	write(t, leader, "before")
	id := c.follower().c.ID
	c.kill(id)
	clocks[id].add(10 * 365 * day)
	c.start(id)
	e := c.nodes[id].evidence
	latest := func() int64 {
		e.mu.Lock()
		defer e.mu.Unlock()
		return max(e.latest, e.gaps[len(e.gaps)-1].Until)
	}
	if now := clocks[leader.c.ID].now().Unix(); latest() < now+9*365*24*3600 {
		t.Fatalf("noted %d s ahead, and this shows nothing", latest()-now)
	}
	clocks[id].add(-10 * 365 * day)
	eventually(t, "what it noted to count as of now", func() bool {
		leader = c.leader()
		leader.rotator.clock.ask() // it compares clocks once a minute
		return latest() <= clocks[leader.c.ID].now().Unix()+int64(clockApart/time.Second)
	})
}

func TestClockThatLeapsAloneDoesNotMoveTheCluster(t *testing.T) {
	c := newTestCluster(t, 3)
	clocks := c.withClocks()
	c.startAll()
	leader := c.leader()
	write(t, leader, "before")
	at := leader.Machine().Time()
	k := leader.rotator.clock
	k.mu.Lock()
	clocks[leader.c.ID].add(10 * 365 * day)
	k.trusted = false // as the next comparison finds
	k.leaps++         // and not the one that may be under way
	k.mu.Unlock()
	if k.agrees() {
		t.Fatal("agrees with the others ten years apart")
	}
	write(t, leader, "after")
	if got := leader.Machine().Time(); got != at {
		t.Errorf("machine time leapt from %d to %d", at, got)
	}
	leader.rotator.wake()
	eventually(t, "a word about the clock", func() bool {
		return strings.Contains(strings.Join(leader.Health(), "; "), "no majority of nodes agrees")
	})
}

// Then the others agree with what it was before.
func TestClockThatLeapsAmidAComparisonIsNotTrusted(t *testing.T) {
	c := newTestCluster(t, 3)
	clocks := c.withClocks()
	var leaps atomic.Pointer[string] // whose clock does, as another answers what its own says
	c.config = func(config *Config) {
		id := config.ID
		config.Now = func() time.Time {
			if of := leaps.Load(); of != nil && *of != id && leaps.CompareAndSwap(of, nil) {
				clocks[*of].add(time.Hour)
			}
			return clocks[id].now()
		}
	}
	c.startAll()
	leader := c.leader()
	k := leader.rotator.clock
	eventually(t, "trust in the clock", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.trusted })
	k.mu.Lock()
	k.leapt = func(from, to time.Time) time.Duration { return to.Sub(from) } // no time passes but by leaps
	before := k.leaps
	k.mu.Unlock()
	leaps.Store(&leader.c.ID)
	k.compare()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trusted || k.leaps == before {
		t.Errorf("trusted: %v, after %d leaps", k.trusted, k.leaps-before)
	}
}

func TestClockThatLeapsIsNotTrustedUntilTheOthersAgree(t *testing.T) {
	c := newTestCluster(t, 3)
	clocks := c.withClocks()
	c.startAll()
	leader := c.leader()
	k := leader.rotator.clock
	eventually(t, "trust in the clock", func() bool { k.mu.Lock(); defer k.mu.Unlock(); return k.trusted })
	write(t, leader, "before")
	at := leader.Machine().Time()
	k.mu.Lock()
	k.leapt = func(from, to time.Time) time.Duration { return to.Sub(from) } // no time passes but by leaps
	k.mu.Unlock()
	clocks[leader.c.ID].add(time.Hour)
	write(t, leader, "after")
	if got := leader.Machine().Time(); got != at {
		t.Errorf("one node's clock leapt an hour, and machine time went from %d to %d", at, got)
	}
	for _, n := range c.nodes {
		if n != leader {
			clocks[n.c.ID].add(time.Hour)
		}
	}
	eventually(t, "the hour that has passed for all", func() bool {
		write(t, leader, "later")
		return leader.Machine().Time() == at+3600
	})
}

func TestPendingClaimsExpire(t *testing.T) {
	c := newTestCluster(t, 1)
	clock := c.withClock()
	c.startAll()
	n := c.leader()
	seed(t, n)
	_, _, err := n.Propose(within(t, 10*time.Second), Actor{ID: "test"}, state.SetSettings{Settings: state.Settings{ClusterID: "test"}})
	must(t, err)
	token := claim(t, n, "send.customer.test.")
	if d, _ := n.Machine().Domain(token); d.State != state.Pending {
		t.Fatalf("state %d, want pending", d.State)
	}
	clock.add(15 * day)
	eventually(t, "the claim's end", func() bool { return n.Machine().Tombstoned(token) })
	wantNoDiff(t, n)
}

// repeatingSource gives one pair several times before it gives others.
type repeatingSource struct {
	keys.Source
	mu    sync.Mutex // guards what follows
	first *keys.Pair
	times int
}

func (s *repeatingSource) Take(ctx context.Context, a keys.Algorithm) (*keys.Pair, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == 0 {
		return s.Source.Take(ctx, a)
	}
	s.times--
	if s.first == nil {
		var err error
		if s.first, err = s.Source.Take(ctx, a); err != nil {
			return nil, err
		}
	}
	return s.first, nil
}

// TryTake has none ready, so that standbys are the rotator's.
func (s *repeatingSource) TryTake(keys.Algorithm) (*keys.Pair, bool) { return nil, false }

func TestStandbyWhoseKeyIsInUseGetsAnotherAtOnce(t *testing.T) {
	c := newTestCluster(t, 1)
	c.source = &repeatingSource{Source: c.source, times: 1 + otherKeys}
	c.startAll()
	n := c.leader()
	seed(t, n)
	token := claim(t, n, "send.customer.test.")
	c.waitRing("a standby", n, token, func(r keys.Ring) bool {
		_, ok := r.Standby(keys.RSA2048)
		return ok
	})
	n.rotator.mu.Lock()
	defer n.rotator.mu.Unlock()
	if len(n.rotator.resting) != 0 {
		t.Errorf("steps were laid aside: %v", n.rotator.resting)
	}
}

// How long a node takes to answer says nothing of its clock.
func TestClocksAreComparedWithinTheTimeOfTheAnswer(t *testing.T) {
	const asked, heard = 1000, 1040
	for clock, want := range map[int64]time.Duration{
		960: 40 * time.Second, 1000: 0, 1020: 0, 1040: 0, 1071: 31 * time.Second,
	} {
		r := statusReply{Clock: clock, asked: time.Unix(asked, 0), heard: time.Unix(heard, 0)}
		if got := r.apart(); got != want {
			t.Errorf("a clock at %d, asked from %d to %d, is %s apart, want %s", clock, asked, heard, got, want)
		}
	}
}
