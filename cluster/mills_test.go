package cluster

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/keys/keystest"
)

// sharedSource is a node's mill that has made all its pairs, and gives away as many
// as a test lets it.
type sharedSource struct {
	makes   bool
	stock   chan *keys.Pair
	starved chan struct{}

	mu     sync.Mutex // guards what follows
	spare  int
	wanted bool
}

func newSharedSource(makes bool, pairs ...*keys.Pair) *sharedSource {
	s := &sharedSource{makes: makes, stock: make(chan *keys.Pair, 64), starved: make(chan struct{}, 1)}
	for _, p := range pairs {
		s.stock <- p
	}
	return s
}

// pairs are some of the committed ones.
func pairs(from, count int) (list []*keys.Pair) {
	for i := range count {
		list = append(list, keystest.Pair(from+i))
	}
	return list
}

func (s *sharedSource) Take(ctx context.Context, a keys.Algorithm) (*keys.Pair, error) {
	if p, ok := s.TryTake(a); ok {
		return p, nil
	}
	select {
	case p := <-s.stock:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *sharedSource) TryTake(keys.Algorithm) (*keys.Pair, bool) {
	select {
	case p := <-s.stock:
		return p, true
	default:
	}
	s.mu.Lock()
	s.wanted = true
	s.mu.Unlock()
	select {
	case s.starved <- struct{}{}:
	default:
	}
	return nil, false
}

func (s *sharedSource) Ready() int               { return len(s.stock) }
func (s *sharedSource) Makes() bool              { return s.makes }
func (s *sharedSource) Made() uint64             { return 0 }
func (s *sharedSource) Starved() <-chan struct{} { return s.starved }

func (s *sharedSource) Lack() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.wanted {
		return 0
	}
	return cap(s.stock) - len(s.stock)
}

func (s *sharedSource) Put(_ context.Context, p *keys.Pair) error {
	s.stock <- p
	return nil
}

func (s *sharedSource) Spare() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(s.spare, len(s.stock))
}

func (s *sharedSource) TakeSpare() (*keys.Pair, bool) {
	if s.Spare() == 0 {
		return nil, false
	}
	s.lets(-1)
	return <-s.stock, true
}

// lets changes how many pairs it gives away.
func (s *sharedSource) lets(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spare += by
}

// withMills gives each node of a cluster a source of its own.
func withMills(c *testCluster, sources map[string]*sharedSource) {
	before := c.config
	c.config = func(config *Config) {
		before(config)
		config.Source = sources[config.ID]
	}
}

// TestKeysOfALeakedStoreComeFromTheMillsOfAllNodes, also when one of them is killed
// midway; each key is one domain's.
func TestKeysOfALeakedStoreComeFromTheMillsOfAllNodes(t *testing.T) {
	const domains = 8
	c := newTestCluster(t, 3)
	sources := map[string]*sharedSource{}
	for i, m := range c.members {
		sources[m.ID] = newSharedSource(true, pairs(24+10*i, 10)...)
	}
	withMills(c, sources)
	c.startAll()
	leader := c.leader()
	own := sources[leader.c.ID]
	for len(own.stock) > 2 {
		<-own.stock
	}
	for _, p := range pairs(0, 2*domains) { // behind its own two, which the first claim gets
		own.stock <- p
	}
	tokens := c.fleet(leader, domains)
	if own.Ready() != 2 {
		t.Fatalf("%d pairs left", own.Ready())
	}
	var others []string
	for _, m := range c.members {
		if m.ID != leader.c.ID {
			others = append(others, m.ID)
			sources[m.ID].lets(2)
		}
	}
	id := startRotation(t, leader, state.RotationSpec{Scope: state.RotationScope{All: true}, Emergency: true, Store: true, Old: keys.FateRevoke, Total: domains})
	dead, alive := others[0], others[1]
	eventually(t, "keys of all three", func() bool {
		return own.Ready() == 0 && leader.Figures().Keys.Taken == 4 && sources[dead].Spare()+sources[alive].Spare() == 0
	})
	c.kill(dead)
	sources[alive].lets(10)
	eventually(t, "the keys that the dead node did not make", func() bool { return rotationOf(leader, id).Keyed == domains })

	made := map[string]uint32{}
	for _, k := range rotationOf(leader, id).Makers {
		made[k.Node] = k.Keys
	}
	if made[leader.c.ID] != 2 || made[dead] != 2 || made[alive] != 4 {
		t.Errorf("keys made: %v", made)
	}
	if f := leader.Figures().Keys; f.Taken < 6 || f.Refused != 0 {
		t.Errorf("figures of the leader: %+v", f)
	}
	seen := map[string]bool{}
	for _, token := range tokens {
		d, _ := leader.Machine().Domain(token)
		k, ok := d.Ring().Standby(keys.RSA2048)
		if !ok || seen[k.Payload] {
			t.Errorf("claim %s has no key of its own", token)
		}
		seen[k.Payload] = true
		if _, err := leader.OpenKey(d, k); err != nil {
			t.Error(err)
		}
	}
}

// lyingKeeper seals another private half than it is given, on the way to other nodes.
type lyingKeeper struct{ keys.Keeper }

func (k lyingKeeper) SealUnder(random io.Reader, version uint16, b keys.Binding, compact []byte) ([]byte, error) {
	if strings.HasPrefix(b.Token, "pair from") {
		compact = keystest.Pair(63).Compact()
	}
	return k.Keeper.SealUnder(random, version, b, compact)
}

// TestNodeThatGivesWrongKeysIsAskedNoMore, and keys come from the others.
func TestNodeThatGivesWrongKeysIsAskedNoMore(t *testing.T) {
	c := newTestCluster(t, 3)
	sources := map[string]*sharedSource{}
	for i, m := range c.members {
		sources[m.ID] = newSharedSource(true, pairs(10*i, 10)...)
	}
	withMills(c, sources)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	claim(t, leader, "send.customer.test.")
	own := sources[leader.c.ID]
	for len(own.stock) > 0 {
		<-own.stock
	}
	var liar, honest string
	for _, m := range c.members {
		switch {
		case m.ID == leader.c.ID:
		case liar == "":
			liar = m.ID
			c.nodes[liar].c.Keeper = lyingKeeper{c.keeper}
		default:
			honest = m.ID
		}
	}
	sources[liar].lets(10)
	ctx := within(t, 20*time.Second)
	go func() {
		if p, err := own.Take(ctx, keys.RSA2048); err != nil || p.Maker() != honest {
			t.Errorf("%v, %v", p, err)
		}
	}()
	eventually(t, "a refusal", func() bool { return leader.Figures().Keys.Refused == 1 })
	sources[honest].lets(10)
	eventually(t, "the keys of the other", func() bool { return leader.Figures().Keys.Taken == 10 })
	if f := leader.Figures().Keys; f.Refused != 1 || leader.mills.begin(liar) {
		t.Errorf("it is asked again: %+v", f)
	}
}

func TestPairsOfOtherNodesAreTakenForNothing(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	seed(t, n)
	token := claim(t, n, "send.customer.test.")
	d, _ := n.Machine().Domain(token)
	inUse, err := n.OpenKey(d, d.Ring().Keys[0])
	must(t, err)
	good, other := keystest.Pair(40), keystest.Pair(41)
	ed, err := keys.Generate(n.c.Random, keys.Ed25519)
	must(t, err)
	stranger := keys.NewMemoryKeeper([32]byte{9})
	sealed := func(k keys.Keeper, from, to string, public, private *keys.Pair) sealedPair {
		b, err := k.Seal(n.c.Random, passage(from, to, public.Payload()), private.Compact())
		must(t, err)
		return sealedPair{public.Payload(), b}
	}
	sound := sealed(c.keeper, "node-2", n.c.ID, good, good)
	altered := sealedPair{sound.Payload, bytes.Clone(sound.Sealed)}
	altered.Sealed[len(altered.Sealed)-1] ^= 1
	for name, s := range map[string]sealedPair{
		"halves that do not match":   sealed(c.keeper, "node-2", n.c.ID, good, other),
		"for another node":           sealed(c.keeper, "node-2", "node-3", good, good),
		"of another node":            sealed(c.keeper, "node-3", n.c.ID, good, good),
		"another cluster's key":      sealed(stranger, "node-2", n.c.ID, good, good),
		"another public half":        {other.Payload(), sound.Sealed},
		"altered":                    altered,
		"nothing sealed":             {good.Payload(), nil},
		"not RSA":                    sealed(c.keeper, "node-2", n.c.ID, ed, ed),
		"a key that is in use":       sealed(c.keeper, "node-2", n.c.ID, inUse, inUse),
		"a payload in another form":  {strings.Replace(good.Payload(), "; ", ";", 1), sound.Sealed},
		"no public half":             {"v=DKIM1; p=", sound.Sealed},
		"a sealed half of this node": {d.Ring().Keys[0].Payload, d.Ring().Keys[0].Sealed},
	} {
		if p, err := n.mills.admit("node-2", s); err == nil {
			t.Errorf("%s: taken: %v", name, p)
		}
	}
	p, err := n.mills.admit("node-2", sound)
	must(t, err)
	if p.Maker() != "node-2" || !bytes.Equal(p.Compact(), good.Compact()) {
		t.Errorf("%v of %q", p, p.Maker())
	}
	if _, err := n.mills.admit("node-2", sound); err == nil {
		t.Error("taken twice")
	}
	if err := n.mills.takeAll("node-2", []sealedPair{sound, sound, sound}, 2); err == nil {
		t.Error("more were taken than were asked for")
	}
}

// emptyKeeper holds no version that is in use.
type emptyKeeper struct{ keys.Keeper }

func (emptyKeeper) Versions() []uint16 { return []uint16{999} }

func TestPairsAreGivenSealedAndOnlyWhatIsSpare(t *testing.T) {
	c := newTestCluster(t, 1)
	source := newSharedSource(true, pairs(0, 20)...)
	withMills(c, map[string]*sharedSource{"node-1": source})
	c.startAll()
	n := c.leader()
	seed(t, n)
	claim(t, n, "send.customer.test.")
	source.lets(3)
	spare := len(source.stock)
	r, err := n.mills.give(t.Context(), "node-2", pairsAsk{Most: 1000})
	if err != nil || len(r.Pairs) != 3 || len(source.stock) != spare-3 {
		t.Fatalf("%d pairs, %v", len(r.Pairs), err)
	}
	for _, s := range r.Pairs {
		compact, err := c.keeper.Open(passage("node-1", "node-2", s.Payload), s.Sealed)
		must(t, err)
		if _, err := keys.Admit(s.Payload, compact); err != nil || bytes.Contains(s.Sealed, compact) {
			t.Errorf("a pair is not as it should be: %v", err)
		}
	}
	// It waits for what it can do without, and no longer than it is waited for.
	ctx, cancel := context.WithTimeout(t.Context(), 3*lendPause)
	defer cancel()
	if r, err := n.mills.give(ctx, "node-2", pairsAsk{Most: 5}); err != nil || len(r.Pairs) != 0 {
		t.Errorf("%d pairs, %v", len(r.Pairs), err)
	}
	if _, _, s := n.mills.status(); !s.Makes || s.Spare != 0 || s.Processors < 1 {
		t.Errorf("%+v", s)
	}
	source.lets(5)
	keeper := n.c.Keeper
	for name, change := range map[string]func(){
		"without the key-encryption key": func() { n.c.Keeper = emptyKeeper{keeper} },
		"without a mill":                 func() { n.c.Keeper, source.makes = keeper, false },
	} {
		change()
		if r, err := n.mills.give(t.Context(), "node-2", pairsAsk{Most: 5}); err != nil || len(r.Pairs) != 0 {
			t.Errorf("%s: %d pairs, %v", name, len(r.Pairs), err)
		}
		if _, _, s := n.mills.status(); s.Makes || s.Spare != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		n.c.Keeper, source.makes = keeper, true
	}
}

// TestPacesOfMillsAddUp, but not past what the processors of one machine do.
func TestPacesOfMillsAddUp(t *testing.T) {
	mill := func(pace, work time.Duration, host string, processors int) statusReply {
		return statusReply{Pace: pace, Mill: millStatus{Makes: true, Work: work, Host: host, Processors: processors}}
	}
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		makers []statusReply
		want   time.Duration
	}{
		"one":                  {[]statusReply{mill(45*ms, 45*ms, "a", 2)}, 45 * ms},
		"three machines":       {[]statusReply{mill(45*ms, 45*ms, "a", 2), mill(45*ms, 45*ms, "b", 2), mill(45*ms, 45*ms, "c", 2)}, 15 * ms},
		"unlike ones":          {[]statusReply{mill(30*ms, 30*ms, "a", 2), mill(60*ms, 30*ms, "b", 2)}, 20 * ms},
		"one not measured":     {[]statusReply{mill(40*ms, 40*ms, "a", 2), mill(0, 0, "b", 2)}, 20 * ms},
		"none measured":        {[]statusReply{mill(0, 0, "a", 2)}, 0},
		"three on one machine": {[]statusReply{mill(40*ms, 40*ms, "a", 2), mill(40*ms, 40*ms, "a", 2), mill(40*ms, 40*ms, "a", 2)}, 20 * ms},
		"and under load":       {[]statusReply{mill(60*ms, 40*ms, "a", 2), mill(60*ms, 40*ms, "a", 2), mill(60*ms, 40*ms, "a", 2)}, 20 * ms},
		"machines not known":   {[]statusReply{mill(40*ms, 40*ms, "", 1), mill(40*ms, 40*ms, "", 1)}, 20 * ms},
	} {
		if got := paceOf(c.makers); (got - c.want).Abs() > 10*time.Microsecond {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if slices.Contains([]time.Duration{paceOf(nil)}, 1) {
		t.Error("no mill has a pace")
	}
}
