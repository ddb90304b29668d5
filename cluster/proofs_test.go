package cluster

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// fakeParents are the servers above customers' domains.
type fakeParents struct {
	mu    sync.Mutex
	says  func(zone.Name) ([]zone.Name, error)
	asked []time.Time
	now   int // looks under way
	most  int
	hangs bool
	// leads are the customers' CNAMEs, and dark the names for which nobody answers.
	leads  map[zone.Name]zone.Name
	dark   map[zone.Name]bool
	looked []zone.Name
}

func (f *fakeParents) cnames(_ context.Context, names []zone.Name) (leads [][]zone.Name, servers []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked = append(f.looked, names...)
	dark := 0
	for _, n := range names {
		var found []zone.Name
		if f.dark[n] {
			dark++
		} else if found = []zone.Name{}; f.leads[n] != "" {
			found = append(found, f.leads[n])
		}
		leads = append(leads, found)
	}
	if dark == len(names) {
		return nil, nil, errors.New("no server of the customer's answers")
	}
	return leads, []string{"ns.customer.test./192.0.2.7"}, nil
}

// point has the customer's CNAMEs lead to the keys of these claims alone.
func (f *fakeParents) point(claims ...*state.Domain) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leads = make(map[zone.Name]zone.Name)
	for _, d := range claims {
		names, targets := d.KeyAliases()
		for i, n := range names {
			f.leads[n] = targets[i]
		}
	}
}

// darken has nobody answer for these names.
func (f *fakeParents) darken(names ...zone.Name) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dark = make(map[zone.Name]bool)
	for _, n := range names {
		f.dark[n] = true
	}
}

// looks gives the names that were asked for since it was called last.
func (f *fakeParents) looks() (names []zone.Name) {
	f.mu.Lock()
	defer f.mu.Unlock()
	names, f.looked = f.looked, nil
	return names
}

func (f *fakeParents) ask(ctx context.Context, domain zone.Name) ([]zone.Name, []string, error) {
	f.mu.Lock()
	f.asked = append(f.asked, time.Now())
	f.now++
	f.most = max(f.most, f.now)
	hangs, says := f.hangs, f.says
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	if hangs {
		<-ctx.Done()
		return nil, nil, ctx.Err()
	}
	ns, err := says(domain)
	return ns, []string{"ns.test./192.0.2.1"}, err
}

func (f *fakeParents) set(says func(zone.Name) ([]zone.Name, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.says = says
}

func (f *fakeParents) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// withParents runs a test on a cluster that wants proofs.
func withParents(t *testing.T, test func(t *testing.T, v *virtual, f *fakeParents)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		v, f := newVirtual(t, 3, hourly()), &fakeParents{}
		f.set(func(zone.Name) ([]zone.Name, error) { return nil, nil })
		config := v.config
		v.config = func(c *Config) {
			config(c)
			c.Parents, c.CNAMEs = f.ask, f.cnames
		}
		v.startAll()
		seed(t, v.waitLeader())
		_, _, err := v.waitLeader().Propose(within(t, v.elected()), Actor{ID: "test"}, state.SetSettings{Settings: state.Settings{ClusterID: "test"}})
		must(t, err)
		v.withAuthority()
		test(t, v, f)
		v.end()
	})
}

func TestPendingClaimIsProvenByItselfOnceItsParentDelegates(t *testing.T) {
	withParents(t, func(t *testing.T, v *virtual, f *fakeParents) {
		leader := v.waitLeader()
		f.set(func(zone.Name) ([]zone.Name, error) { return nil, errors.New("ns.customer.test does not answer") })
		began := time.Now()
		token := claim(t, leader, "send.customer.test.")
		check := func(id string) ProofCheck {
			c, ok := v.nodes[id].ProofCheck(within(t, time.Minute), token)
			if !ok {
				t.Errorf("%s knows nothing of the claim", id)
			}
			return c
		}
		v.wait("the first look", 2*time.Minute, func() bool { return len(f.times()) > 0 })
		if first := f.times()[0].Sub(began); first < proofFirst-time.Second || first > proofFirst+5*time.Second {
			t.Errorf("the first look comes after %s", first)
		}
		time.Sleep(10 * time.Minute)
		for _, id := range v.ids() {
			if c := check(id); c.Outcome != ProofUnasked || !strings.Contains(c.Detail, "does not answer") || c.At == 0 || c.Next <= time.Now().Unix()-2 {
				t.Errorf("%s says %+v", id, c)
			}
		}
		f.set(func(zone.Name) ([]zone.Name, error) { return []zone.Name{parseName(t, "ns.elsewhere.test.")}, nil })
		time.Sleep(3 * time.Hour)
		if c := check(leader.c.ID); c.Outcome != ProofMissing || c.Detail != "" {
			t.Errorf("%+v", c)
		}
		// Of each pause a twentieth more: 47 looks in three hours and ten minutes.
		if n := len(f.times()); n < 40 || n > 55 {
			t.Errorf("%d looks in %s", n, time.Since(began))
		}
		v.kill(leader.c.ID)
		leader = v.waitLeader(v.others(leader.c.ID)...)
		ns := parseName(t, token.String()+".ns1.p-dns.test.")
		f.set(func(zone.Name) ([]zone.Name, error) { return []zone.Name{ns}, nil })
		v.wait("the proof", 15*time.Minute, func() bool {
			d, _ := leader.Machine().Domain(token)
			return d.State == state.Live && d.ProvenAt != 0
		})
		var proven string
		for e := range leader.Machine().Audit(0) {
			if e.Command == "ProveDomain" {
				proven = e.Actor
			}
		}
		if proven != "prover" {
			t.Errorf("the audit names %q", proven)
		}
		before := len(f.times())
		time.Sleep(time.Hour)
		if after := len(f.times()); after != before {
			t.Errorf("%d looks at a proven claim", after-before)
		}
		if _, ok := leader.ProofCheck(within(t, time.Minute), token); ok {
			t.Error("a proven claim is still looked after")
		}
	})
}

func TestProofThatIsRefusedSaysWhyAndIsTriedAgain(t *testing.T) {
	withParents(t, func(t *testing.T, v *virtual, f *fakeParents) {
		leader := v.waitLeader()
		must(t, v.write(leader, "globex", time.Minute))
		one, two := claim(t, leader, "send.customer.test."), claimFor(t, leader, "globex", "send.customer.test.")
		name := func(token state.Token) zone.Name { return parseName(t, token.String()+".ns1.p-dns.test.") }
		f.set(func(zone.Name) ([]zone.Name, error) { return []zone.Name{name(one), name(two)}, nil })
		time.Sleep(5 * time.Minute)
		for _, token := range []state.Token{one, two} {
			if c, _ := leader.ProofCheck(within(t, time.Minute), token); c.Outcome != ProofRefused || !strings.Contains(c.Detail, "names two claims") && !strings.Contains(c.Detail, "name two claims") {
				t.Errorf("%+v", c)
			}
		}
		f.set(func(zone.Name) ([]zone.Name, error) { return []zone.Name{name(two)}, nil })
		v.wait("the proof of the second", 5*time.Minute, func() bool {
			d, _ := leader.Machine().Domain(two)
			return d.State == state.Live
		})
		if d, _ := leader.Machine().Domain(one); d.State != state.Pending {
			t.Errorf("the first is %v", d.State)
		}
	})
}

func TestParentsThatHangHoldUpNoMoreThanTheirShare(t *testing.T) {
	withParents(t, func(t *testing.T, v *virtual, f *fakeParents) {
		leader := v.waitLeader()
		pool, _ := leader.Machine().Pool("default")
		says := pool.PoolSpec
		says.Policy.Algorithms = []keys.Algorithm{keys.Ed25519}
		_, _, err := leader.Propose(leader.ctx, Actor{ID: "test"}, state.PutPool{ID: "default", Spec: says})
		must(t, err)
		f.mu.Lock()
		f.hangs = true
		f.mu.Unlock()
		claimMany(t, leader, 3*proofsFlight)
		time.Sleep(10 * time.Minute)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.most != proofsFlight {
			t.Errorf("%d looks at once, want %d", f.most, proofsFlight)
		}
		// A look takes proofTime, so each claim had its turn several times.
		if n := len(f.asked); n < 3*3*proofsFlight || n > 10*60*proofsRound {
			t.Errorf("%d looks at %d claims", n, 3*proofsFlight)
		}
		perSecond := map[int64]int{}
		for _, at := range f.asked {
			perSecond[at.Unix()]++
		}
		for at, n := range perSecond {
			if n > 2*proofsRound { // two rounds may touch one second
				t.Errorf("%d looks begun in the second %d", n, at)
			}
		}
	})
}

func TestPausesBetweenLooksGrowToHours(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for waited, want := range map[time.Duration]time.Duration{
		-time.Hour: proofFirst, 0: proofFirst, 20 * time.Minute: 2 * time.Minute, 20 * time.Hour: 61 * time.Minute, 13 * 24 * time.Hour: proofMost,
	} {
		if got := proofPause(now.Add(-waited).Unix(), now); got != want {
			t.Errorf("after %s: %s, want %s", waited, got, want)
		}
	}
	looks := 0
	for at := proofFirst; at < 14*24*time.Hour; at += proofPause(now.Unix(), now.Add(at)) {
		looks++
	}
	if looks < 150 || looks > 200 {
		t.Errorf("%d looks in 14 days", looks)
	}
}
