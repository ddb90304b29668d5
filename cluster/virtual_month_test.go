package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The long form: AUTHD_VIRTUAL_DAYS=3650 AUTHD_VIRTUAL_SEED=7 go test ./cluster
// -run FaultsForAMonth -v -timeout 2h. A seed makes the same schedule of faults each time,
// whatever the cluster does.
const (
	virtualDays = 30
	virtualSeed = 1
)

// fault is something that happens to the cluster for a while.
type fault struct {
	at, until time.Duration
	kind      string
	node      int // of the members; its number of members: whoever leads then
	wrong     time.Duration
}

// leaps are how wrong clocks go: as in a wrong zone, and as after a flat battery,
// within the life of the cluster's CA and outside.
var leaps = []time.Duration{time.Hour, -time.Hour, 200 * day, -200 * day, 10 * 365 * day, -10 * 365 * day}

func (f fault) String() string {
	return fmt.Sprintf("%s to %s: %s of %d %s", f.at, f.until, f.kind, f.node+1, f.wrong)
}

// faultsOver draws a schedule: on average one fault in half a day, most for
// less than an hour, a few for days, which overlap as they come. One clock is
// wrong at a time, since a majority of wrong clocks is what nodes call the time. A
// node whose clock is wrong was restarted with it as often as not.
func faultsOver(whole time.Duration, seed uint64, size int) (list []fault) {
	kinds := []string{"stop", "kill", "isolate", "mute", "deaf", "flap", "clock", "reboot", "quorum", "compact"}
	r := rand.New(rand.NewPCG(seed, 0))
	below := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	var clockUntil time.Duration
	for at := time.Hour; at < whole; at += below(day) {
		f := fault{at: at, kind: kinds[r.IntN(len(kinds))], node: r.IntN(size + 1)}
		lasts := below(time.Hour)
		if r.IntN(6) == 0 {
			lasts = below(2 * day)
		}
		f.until = at + lasts
		if f.kind == "flap" {
			f.until = at + lasts%(10*time.Minute)
		}
		if f.kind == "clock" || f.kind == "reboot" {
			f.wrong = leaps[r.IntN(len(leaps))]
			if at < clockUntil {
				continue
			}
			clockUntil = f.until + time.Hour
		}
		list = append(list, f)
	}
	return list
}

func TestScheduleOfFaultsIsTheSeeds(t *testing.T) {
	a, b := faultsOver(60*day, 1, 3), faultsOver(60*day, 1, 3)
	if !slices.Equal(a, b) || slices.Equal(a, faultsOver(60*day, 2, 3)) {
		t.Error("a seed is not a schedule")
	}
	kinds := make(map[string]bool)
	for _, f := range a {
		kinds[f.kind] = true
	}
	if len(kinds) != 10 {
		t.Errorf("%d kinds of fault in two months", len(kinds))
	}
}

func fromEnvironment(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	v, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return v
}

func TestRotationsThroughFaultsForAMonth(t *testing.T) {
	whole := time.Duration(fromEnvironment(t, "AUTHD_VIRTUAL_DAYS", virtualDays)) * day
	seed := fromEnvironment(t, "AUTHD_VIRTUAL_SEED", virtualSeed)
	schedule := faultsOver(whole, seed, 3)
	t.Logf("seed %d, %d faults", seed, len(schedule))
	forMonths(t, func(t *testing.T, v *virtual) {
		v.rotates()
		v.live(whole, schedule)
		v.settle()
		// Two minted rings turn every five days at most one way or the other of a
		// tenth, and time lost to faults is little.
		c := v.total()
		if least := int(whole / (8 * day)); c.activated < least || c.retired < least-3 {
			t.Errorf("only %d keys were activated and %d retired in %s", c.activated, c.retired, whole)
		}
	})
}

// live lets a schedule of faults happen, beside a write an hour.
func (v *virtual) live(whole time.Duration, schedule []fault) {
	began := time.Now()
	var under []*happening
	writes, next := 0, 0
	for hour := began; time.Since(began) < whole; {
		now := time.Since(began)
		v.wantNoneFenced()
		under = slices.DeleteFunc(under, func(h *happening) bool {
			if h.until <= now {
				v.over(h)
				return true
			}
			return false
		})
		for ; next < len(schedule) && schedule[next].at <= now; next++ {
			under = append(under, v.begin(schedule[next]))
		}
		if !time.Now().Before(hour) {
			hour = hour.Add(time.Hour)
			ids := v.ids()
			if n := v.nodes[ids[writes%len(ids)]]; n != nil {
				tenant := fmt.Sprintf("t-%s-%d", hour.Format("0102-15"), writes)
				v.writes.Go(func() { v.writeServed(n, tenant, time.Hour) })
			}
			if writes++; writes%24 == 0 {
				v.look()
			}
		}
		time.Sleep(min(time.Until(hour), v.nextChange(now, schedule[next:], under)))
	}
}

// writeServed writes, and where all are said to answer with it looks whether they do.
func (v *virtual) writeServed(n *Node, tenant string, patience time.Duration) {
	ids := v.ids()
	if v.write(n, tenant, patience) != nil {
		return
	}
	v.mu.Lock()
	index := v.acked[tenant]
	v.mu.Unlock()
	// A node that is away is asked again and again, which an hour of would be most of the run.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if n.WaitServed(ctx, index) != nil {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.count.served++
	for _, id := range ids {
		other := v.running[id]
		if other == nil || !slices.Contains(v.in, id) {
			continue // it went since
		}
		if at := other.Machine().Index(); at < index {
			v.t.Errorf("%s: %s was said to answer with %d, and is at %d", v.now(), id, index, at)
		}
	}
}

// look holds the nodes that run against their own machines.
func (v *virtual) look() {
	for _, id := range v.ids() {
		if n := v.nodes[id]; n != nil {
			wantNoDiff(v.t, n)
			v.mu.Lock()
			v.wantAnswers(id, n)
			v.mu.Unlock()
		}
	}
}

func (v *virtual) nextChange(now time.Duration, ahead []fault, under []*happening) time.Duration {
	next := time.Hour
	if len(ahead) > 0 {
		next = min(next, ahead[0].at-now)
	}
	for _, h := range under {
		next = min(next, h.until-now)
	}
	return max(next, time.Second)
}

// happening is a fault that has begun, and whom it befell.
type happening struct {
	fault
	id   string
	ends chan struct{} // of what goes on and off
}

// begin lets a fault begin.
func (v *virtual) begin(f fault) *happening {
	ids := v.ids()
	h := &happening{fault: f, id: ids[f.node%len(ids)], ends: make(chan struct{})}
	if f.node == v.size {
		if leader := v.leaderAmong(ids...); leader != nil {
			h.id = leader.c.ID
		}
	}
	if f.kind != "save" && f.kind != "restore" {
		v.count.faults++
	}
	v.log.Write([]byte(fmt.Sprintf("%s: fault: %s: %s", v.now(), f, h.id)))
	switch f.kind {
	case "stop":
		v.pull(h.id, v.stop)
	case "kill":
		v.pull(h.id, v.kill)
	case "quorum":
		for _, id := range v.others(h.id) {
			v.pull(id, v.stop)
		}
	case "isolate":
		v.isolate(h.id)
	case "mute":
		v.cutAll(h.id, true, false)
	case "deaf":
		v.cutAll(h.id, false, true)
	case "flap":
		v.writes.Go(func() { v.flap(h) })
	case "clock":
		v.clocks[h.id].set(f.wrong)
	case "reboot":
		v.clocks[h.id].set(f.wrong)
		v.pull(h.id, v.kill)
		v.bringBack(h.id)
	case "save":
		v.save(h)
	case "restore":
		v.restore(h)
	case "compact":
		for _, n := range v.nodes {
			v.writes.Go(func() { compact(n) })
		}
	}
	return h
}

// over lets it end. Two faults of the network end together.
func (v *virtual) over(h *happening) {
	switch h.kind {
	case "stop", "kill":
		v.bringBack(h.id)
	case "quorum":
		for _, id := range v.others(h.id) {
			v.bringBack(id)
		}
	case "isolate", "mute", "deaf":
		v.heal()
	case "flap":
		close(h.ends)
	case "clock", "reboot":
		v.clocks[h.id].set(0)
	}
}

func (v *virtual) pull(id string, down func(string)) {
	if v.nodes[id] != nil {
		down(id)
	}
}

func (v *virtual) bringBack(id string) {
	if v.nodes[id] == nil {
		v.mu.Lock()
		v.count.restarts++
		v.mu.Unlock()
		v.start(id)
	}
}

// flap cuts a node off and lets it go, again and again.
func (v *virtual) flap(h *happening) {
	for pause := time.Second; ; pause = pause%time.Minute + 7*time.Second {
		v.isolate(h.id)
		time.Sleep(pause)
		v.heal()
		select {
		case <-h.ends:
			return
		case <-time.After(pause):
		}
	}
}

func TestClocksThatLeapRetireNothingEarly(t *testing.T) {
	forMonths(t, func(t *testing.T, v *virtual) {
		v.rotates()
		time.Sleep(3 * day)
		for i, wrong := range leaps {
			leader := v.waitLeader()
			v.leap(leader, leader.c.ID, wrong, i)
			v.leap(v.waitLeader(), v.others(v.waitLeader().c.ID)[0], wrong, i)
		}
		leader := v.waitLeader()
		for i, id := range v.ids() { // no two agree
			v.clocks[id].set(time.Duration(i-1) * time.Hour)
		}
		v.stands(leader, true, "apart")
		v.settle()
		time.Sleep(20 * day)
		if c := v.total(); c.activated < 6 || c.retired < 4 {
			t.Errorf("%d keys activated and %d retired when the clocks were right again", c.activated, c.retired)
		}
	})
}

// leap sets one node's clock wrong for hours.
func (v *virtual) leap(leader *Node, id string, wrong time.Duration, i int) {
	v.t.Helper()
	v.count.faults++
	v.clocks[id].set(wrong)
	v.stands(leader, id == leader.c.ID, fmt.Sprintf("%s-%d", id, i))
	v.clocks[id].set(0)
	v.reconnect(id)
	v.wait("machine time to be the time again", 3*time.Hour, func() bool {
		leader = v.waitLeader()
		v.write(leader, fmt.Sprintf("right-%s-%d-%d", id, i, time.Now().Unix()), time.Minute)
		return time.Now().Unix()-leader.Machine().Time() < 60
	})
	v.wait(id+" to take part over new connections", 3*time.Hour, func() bool { return v.nodes[id].Machine().Index() == leader.Machine().Index() })
}

// reconnect ends all connections of a node.
func (v *virtual) reconnect(id string) {
	v.isolate(id)
	time.Sleep(2 * deadAfter)
	v.heal()
}

// stands says whether machine time stands, though the leader writes.
func (v *virtual) stands(leader *Node, want bool, name string) {
	v.t.Helper()
	time.Sleep(5 * time.Minute)
	must(v.t, v.write(leader, "first-"+name, time.Minute))
	from, before := leader.Machine().Time(), v.total()
	const hours = 2 // a leader in doubt asks the others every second
	for i := range hours {
		time.Sleep(time.Hour)
		must(v.t, v.write(leader, fmt.Sprintf("hour-%s-%d", name, i), time.Minute))
	}
	went := time.Duration(leader.Machine().Time()-from) * time.Second
	after := v.total()
	switch {
	case !want && (went-hours*time.Hour).Abs() > time.Second: // of which stamps have whole ones
		v.t.Errorf("%s: one follower's clock is wrong, and two hours later machine time has moved by %s", v.now(), went)
	case want && went != 0:
		v.t.Errorf("%s: nobody agrees with the leader's clock, and machine time has moved by %s", v.now(), went)
	case want && (after.activated != before.activated || after.retired != before.retired):
		v.t.Errorf("%s: time stands, and keys were activated or retired", v.now())
	case want && !strings.Contains(strings.Join(leader.Health(), "; "), "clock is"):
		v.t.Errorf("%s: nothing is said of the clock: %q", v.now(), leader.Health())
	}
}
