package state

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"authd/keys"
	"authd/zone"
)

// The model: nodes apply one log, each as far as it got; a leader that reaches
// most of them proposes what is due by its clock; signers read the active key at
// any node; and at each node hangs a cache that asks all the time, keeps every
// answer for its full TTL, and may say any of those still valid.
const (
	lifeDomains = 4
	lifeRun     = 200 // steps of one history
)

// TestEverySignatureVerifiesThroughEveryCache takes the model through crashes,
// partitions, clocks that leap, nodes that come and go, rotations and
// emergencies. AUTHD_LIFE_STEPS=1000000 makes it longer than it is for every day.
func TestEverySignatureVerifiesThroughEveryCache(t *testing.T) {
	want := 20_000
	if testing.Short() {
		want /= 5
	}
	if v := os.Getenv("AUTHD_LIFE_STEPS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("AUTHD_LIFE_STEPS=%q: %v", v, err)
		}
		want = n
	}
	founded := lifeFounded(t)
	var total lifeCounts
	for total.steps < want {
		rapid.Check(t, func(t *rapid.T) {
			l := newLife(t, founded)
			for range lifeRun {
				l.step()
			}
			total.add(l.counts)
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%+v", total)
	if total.switches*100 < total.steps || total.emergencies*100 < total.steps || total.revoked*200 < total.steps || total.slots*500 < total.steps {
		t.Errorf("too little happened: %+v", total)
	}
}

type lifeCounts struct {
	steps, checks, switches, emergencies, revoked, slots, crashes, partitions, leaps, joins, stands int
}

func (c *lifeCounts) add(o lifeCounts) {
	c.steps += o.steps
	c.checks += o.checks
	c.switches += o.switches
	c.emergencies += o.emergencies
	c.revoked += o.revoked
	c.slots += o.slots
	c.crashes += o.crashes
	c.partitions += o.partitions
	c.leaps += o.leaps
	c.joins += o.joins
	c.stands += o.stands
}

// life is one history.
type life struct {
	t      *rapid.T
	log    []Machine // log[i] is the machine at index base+i
	base   uint64
	now    int64 // true time, which nobody knows
	nodes  []*lifeNode
	leader *lifeNode
	born   int
	// requested are keys whose revocation somebody asked for: mail signed with
	// them may fail.
	requested map[lifeKey]bool
	names     map[Token][]zone.Name // every key name the claim ever had
	counts    lifeCounts
}

type lifeKey struct {
	claim Token
	id    uint32
}

// lifeNode is one node with the cache behind it.
type lifeNode struct {
	id      int
	applied uint64
	synced  uint64 // what a crash leaves
	up, cut bool
	clock   int64 // how far its clock is off
	cache   map[zone.Name]*remembered
	drawn   map[Token]*Domain // what cache was filled from last
	said    map[lifeKey]int64 // when it last said that a key signs
}

// remembered is what a cache may say of a name: what the node says, and what it
// said and is still valid.
type remembered struct {
	value string
	ttl   int64
	old   []aged
}

type aged struct {
	value string
	until int64
}

// lifeFounded is the machine that every history begins with.
func lifeFounded(t *testing.T) Machine {
	w := newWorld(t)
	for i := range lifeDomains {
		mode := zone.Delegated
		if i%2 == 1 {
			mode = zone.CNAME
		}
		w.all([]Entry{{At: start, Actor: "admin-1", Command: claimOf(tok(uint64(i+1)), fmt.Sprintf("send.c%d.test", i), mode, "acme")}})
		if mode == zone.Delegated {
			w.all([]Entry{{At: start, Actor: "admin-1", Command: ProveDomain{Token: tok(uint64(i + 1)), Seen: []Token{tok(uint64(i + 1))}}}})
		}
	}
	return w.m
}

func newLife(t *rapid.T, founded Machine) *life {
	l := &life{t: t, now: start, requested: map[lifeKey]bool{}, names: map[Token][]zone.Name{}}
	l.log, l.base = []Machine{founded}, founded.Index()
	for range rapid.SampledFrom([]int{3, 3, 5}).Draw(t, "nodes") {
		l.join()
	}
	return l
}

func (l *life) last() Machine { return l.log[len(l.log)-1] }

func (l *life) at(index uint64) Machine { return l.log[index-l.base] }

// join adds a node, which serves once it is as far as the others.
func (l *life) join() {
	l.born++
	n := &lifeNode{id: l.born, up: true, cache: map[zone.Name]*remembered{}, drawn: map[Token]*Domain{}, said: map[lifeKey]int64{}}
	n.clock = int64(rapid.IntRange(-12, 12).Draw(l.t, "clock"))
	n.applied, n.synced = l.last().Index(), l.last().Index()
	l.nodes = append(l.nodes, n)
	// It answers for the first time: there is nothing that it said before.
	for d := range l.last().Domains(Token{}) {
		n.drawn[d.Token] = d
		l.draw(n, l.last(), d)
	}
	for _, r := range n.cache {
		r.old = nil
	}
}

func (l *life) step() {
	l.counts.steps++
	l.pass()
	l.observe() // what was answered until now
	switch what := rapid.IntRange(0, 99).Draw(l.t, "what"); {
	case what < 2: // small numbers are drawn more often
		l.emergency()
	case what < 4:
		l.byHand()
	case what < 5:
		l.leap()
	case what < 7:
		l.crash()
	case what < 12:
		l.restart()
	case what < 16:
		l.partition()
	case what < 30:
		l.heal()
	case what < 40:
		l.replaceNode()
	}
	l.elect()
	l.replicate()
	l.observe()
	l.rotate()
	l.replicate()
	l.observe()
	l.check()
	l.forget()
}

// pass lets time go on: some seconds, or to what is due next.
func (l *life) pass() {
	before := l.now
	switch how := rapid.IntRange(0, 9).Draw(l.t, "time"); {
	case how < 6:
		l.now += int64(rapid.IntRange(0, 400).Draw(l.t, "seconds"))
	case how < 8:
		l.now += int64(rapid.IntRange(0, 48).Draw(l.t, "hours")) * 3600
	default:
		soonest := int64(0)
		for d := range l.last().Domains(Token{}) {
			if _, due, ok := d.Ring().Next(l.last().policyOf(d)); ok && due > l.now && (soonest == 0 || due < soonest) {
				soonest = due
			}
		}
		l.now = max(l.now, soonest)
	}
	for _, n := range l.nodes {
		for _, r := range n.cache {
			r.old = slices.DeleteFunc(r.old, func(a aged) bool { return a.until < before })
		}
	}
}

func (m Machine) policyOf(d *Domain) keys.Policy { return m.tables().policy(d) }

func (l *life) some(what string) *lifeNode {
	return l.nodes[rapid.IntRange(0, len(l.nodes)-1).Draw(l.t, what)]
}

// crash ends a node; what it had not synced is gone.
func (l *life) crash() {
	n := l.some("crash")
	if !n.up {
		return
	}
	for _, r := range n.cache {
		r.old = append(r.old, aged{r.value, l.now + r.ttl})
	}
	n.up, n.applied = false, n.synced
	n.drawn = map[Token]*Domain{}
	l.counts.crashes++
}

// restart brings a node back, dark or not: it answers from its own disk.
func (l *life) restart() {
	for _, n := range l.nodes {
		n.up = n.up || rapid.Bool().Draw(l.t, "restart")
	}
}

func (l *life) partition() {
	l.some("partition").cut = true
	l.counts.partitions++
}

func (l *life) heal() {
	for _, n := range l.nodes {
		n.cut = n.cut && rapid.Bool().Draw(l.t, "stays cut")
	}
}

// leap puts the clocks of a minority wrong, and the others' right.
func (l *life) leap() {
	wrong := rapid.IntRange(0, (len(l.nodes)-1)/2).Draw(l.t, "wrong clocks")
	by := rapid.SampledFrom([]int64{3600, -3600, 40, -40, 10 * 365 * 86400, -10 * 365 * 86400}).Draw(l.t, "leap")
	first := rapid.IntRange(0, len(l.nodes)-1).Draw(l.t, "from")
	for i := range l.nodes {
		n := l.nodes[(first+i)%len(l.nodes)]
		n.clock = int64(rapid.IntRange(-12, 12).Draw(l.t, "clock"))
		if i < wrong {
			n.clock += by
		}
	}
	l.counts.leaps++
}

// replaceNode takes a node out, which its operator says is out of every address
// list, and adds another, while a leader is there to do so.
func (l *life) replaceNode() {
	if l.leader == nil || len(l.nodes) <= 3 && rapid.Bool().Draw(l.t, "add first") {
		if l.leader != nil && len(l.nodes) < 5 {
			l.join()
		}
		return
	}
	if gone := l.some("gone"); len(l.nodes) > 3 && gone != l.leader {
		l.nodes = slices.DeleteFunc(l.nodes, func(n *lifeNode) bool { return n == gone })
		l.counts.joins++
	}
}

// reaches says whether two nodes hear each other.
func (l *life) reaches(n, o *lifeNode) bool { return n == o || n.up && o.up && !n.cut && !o.cut }

// elect finds a leader that reaches most of the nodes and has the whole log.
func (l *life) elect() {
	if l.leader != nil && l.majority(l.leader) && rapid.IntRange(0, 9).Draw(l.t, "stays") > 0 {
		return
	}
	l.leader = nil
	first := rapid.IntRange(0, len(l.nodes)-1).Draw(l.t, "leader")
	for i := range l.nodes {
		if n := l.nodes[(first+i)%len(l.nodes)]; n.up && l.majority(n) {
			l.leader = n
			n.applied = l.last().Index()
			return
		}
	}
}

func (l *life) majority(n *lifeNode) bool {
	with := 0
	for _, o := range l.nodes {
		if n.up && l.reaches(n, o) {
			with++
		}
	}
	return with > len(l.nodes)/2 && slices.Contains(l.nodes, n)
}

// replicate takes the nodes that hear the leader some way on.
func (l *life) replicate() {
	if l.leader == nil {
		return
	}
	for _, n := range l.nodes {
		if !l.reaches(l.leader, n) {
			continue
		}
		behind := int(l.last().Index() - n.applied)
		if n == l.leader {
			n.applied += uint64(behind)
		} else if behind > 0 {
			n.applied += uint64(rapid.IntRange(0, behind).Draw(l.t, "applied"))
		}
		if rapid.Bool().Draw(l.t, "synced") {
			n.synced = n.applied
		}
	}
}

// stamp is what the leader's clock gives a proposal: as cluster/clock has it.
func (l *life) stamp() (at int64, trusted bool) {
	machine, own := l.last().Time(), l.now+l.leader.clock
	agree := 0
	for _, n := range l.nodes {
		if apart := n.clock - l.leader.clock; l.reaches(l.leader, n) && apart <= keys.ClockMargin/2 && apart >= -keys.ClockMargin/2 {
			agree++
		}
	}
	if agree <= len(l.nodes)/2 {
		return machine, false
	}
	return max(own, machine), own >= machine-5
}

// commit applies a command as the leader.
func (l *life) commit(at int64, actor string, c Command) Result {
	next, results, _ := l.last().Apply(l.last().Index()+1, []Entry{{At: at, Actor: actor, Command: c}})
	l.log = append(l.log, next)
	l.leader.applied = next.Index()
	return results[0]
}

// served says whether every node answers with all that is committed, and has it on
// its disk: the barrier.
func (l *life) served() bool {
	for _, n := range l.nodes {
		if !l.reaches(l.leader, n) || n.applied != l.last().Index() {
			return false
		}
	}
	for _, n := range l.nodes {
		n.synced = n.applied
	}
	return true
}

// rotate does what the leader's rotator would.
func (l *life) rotate() {
	if l.leader == nil {
		return
	}
	at, trusted := l.stamp()
	if !trusted {
		l.counts.stands++
		return
	}
	barrier := l.served()
	for _, task := range l.last().Due(64, at) {
		if task.Expire {
			l.t.Fatalf("claim %s expires", task.Token)
		}
		c := StepKey{Token: task.Token, Step: task.Step}
		switch task.Step.Kind {
		case keys.StepConfirm:
			if !barrier {
				continue
			}
		case keys.StepRevoke:
			if !barrier {
				continue
			}
			c.Step.Evidence = l.evidence(task)
		case keys.StepPublish:
			m := l.material(task.Token)
			c.Material = &m
		}
		if r := l.commit(at, "rotator", c); r.Refusal != nil {
			continue // the tasks before it changed the ring
		}
		switch c.Step.Kind {
		case keys.StepActivate:
			l.counts.switches++
		case keys.StepRevoke:
			l.counts.revoked++
		}
		// What was published in this round is served by nobody yet.
		barrier = barrier && c.Step.Kind != keys.StepPublish && c.Step.Kind != keys.StepActivate
	}
}

func (l *life) evidence(task Task) *keys.Evidence {
	e := &keys.Evidence{Complete: true, Switched: rapid.Bool().Draw(l.t, "switched")}
	e.AskedAt = l.now - int64(rapid.IntRange(0, 6*86400).Draw(l.t, "asked"))
	for _, n := range l.nodes {
		e.HandedOutAt = max(e.HandedOutAt, n.said[lifeKey{task.Token, task.Step.Key}])
	}
	return e
}

func (l *life) material(t Token) keys.Material {
	d, _ := l.last().Domain(t)
	ring := d.Ring()
	selector := ""
	if ring.Mode == keys.Minted {
		selector = mintSelector(l.last().Time(), ring.NextID)
	}
	return material(ring.NextID, selector, fmt.Sprintf("P%dx%s", ring.NextID, t))
}

func (l *life) claim() *Domain {
	d, _ := l.last().Domain(tok(uint64(rapid.IntRange(1, lifeDomains).Draw(l.t, "claim"))))
	return d
}

// emergency replaces a key, which is never refused.
func (l *life) emergency() {
	if l.leader == nil {
		return
	}
	at, _ := l.stamp()
	d := l.claim()
	active, ok := d.Ring().Active(keys.RSA2048)
	if !ok {
		l.t.Fatalf("%s has no active key", d.Name)
	}
	c := ReplaceKey{Token: d.Token, Algorithm: keys.RSA2048, From: d.Selector(active)}
	c.Old = rapid.SampledFrom([]keys.Fate{keys.FateDrain, keys.FateRevoke, keys.FateSwitch}).Draw(l.t, "fate")
	c.Store = rapid.IntRange(0, 3).Draw(l.t, "store") == 0
	before := d.Ring()
	if r := l.commit(at, "admin-1", c); r.Refusal != nil {
		l.t.Fatalf("an emergency of %s was refused: %s", d.Name, r.Refusal.Message)
	}
	l.counts.emergencies++
	if c.Old != keys.FateDrain {
		l.requested[lifeKey{d.Token, active.ID}] = true
	}
	after, _ := l.last().Domain(d.Token)
	for _, k := range before.Keys { // burned with the store, or to make room
		now, ok := after.Ring().ByID(k.ID)
		// In slots a draining key makes room for the next, now or when that is made;
		// one that leaked with the store waits for its signers at most.
		if !ok || now.Stage == keys.Revoked || now.SwitchBy != 0 || after.Ring().Mode == keys.Slots && now.Stage == keys.Draining {
			l.requested[lifeKey{d.Token, k.ID}] = true
		}
	}
}

// byHand rotates, or revokes a key that does not sign; either may be refused.
func (l *life) byHand() {
	if l.leader == nil {
		return
	}
	at, _ := l.stamp()
	d := l.claim()
	switch rapid.IntRange(0, 3).Draw(l.t, "by hand") {
	case 0: // as many domains are: where its standby is not ready the ring keeps the wish
		id := tok(1<<40 + l.last().Index())
		spec := RotationSpec{Scope: RotationScope{Tokens: []Token{d.Token}}, Old: keys.FateDrain, Drill: rapid.Bool().Draw(l.t, "drill")}
		if r := l.commit(at, "admin-1", StartRotation{id, spec}); r.Refusal != nil {
			l.t.Fatalf("a planned rotation of %s was refused: %s", d.Name, r.Refusal.Message)
		}
		l.commit(at, "rotator", AdvanceRotation{ID: id})
		return
	case 1:
		if s, ok := d.Ring().Standby(keys.RSA2048); ok {
			l.commit(at, "admin-1", StepKey{Token: d.Token, Manual: true, Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: s.ID}})
		}
		return
	}
	list := d.Ring().Keys
	k := list[rapid.IntRange(0, len(list)-1).Draw(l.t, "key")]
	if r := l.commit(at, "admin-1", RevokeKey{Token: d.Token, Selector: d.Selector(k)}); r.Refusal == nil {
		l.requested[lifeKey{d.Token, k.ID}] = true
	}
}
