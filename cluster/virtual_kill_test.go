package cluster

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// How long writes are away when a leader's process ends, as far as the protocol makes
// it: virtual time has no busy processors. The long form: AUTHD_VIRTUAL_KILLS=500 go test
// ./cluster -run KilledLeaders -v -timeout 1h.
func TestKilledLeadersAreReplacedWithinSeconds(t *testing.T) {
	const kills, seed = 20, 1
	count, chance := int(fromEnvironment(t, "AUTHD_VIRTUAL_KILLS", kills)), fromEnvironment(t, "AUTHD_VIRTUAL_SEED", seed)
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprintf("of %d", size), func(t *testing.T) {
			inVirtualTimeOf(t, size, hourly(), func(t *testing.T, v *virtual) {
				r := rand.New(rand.NewPCG(chance, uint64(size)))
				var gaps []time.Duration
				for i := range count {
					gaps = append(gaps, v.killLeader(i, r))
				}
				slices.Sort(gaps)
				at := func(part float64) time.Duration { return gaps[int(part*float64(len(gaps)-1))].Round(time.Millisecond) }
				t.Logf("%d kills of the leader of %d: writes are back after %s (p50), %s (p90), %s (p99), %s at most", count, size, at(.5), at(.9), at(.99), at(1))
				// Of four that are left two and two may vote for one each, of two nobody.
				most := 2 * time.Second
				if size > 3 {
					most = 6 * time.Second
				}
				if at(1) > most {
					t.Errorf("a leader was replaced after %s", at(1))
				}
			})
		})
	}
}

// killLeader kills the leader under load, brings it back soon, and says for how long
// nobody's write was acknowledged.
func (v *virtual) killLeader(round int, r *rand.Rand) time.Duration {
	below := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
	v.wires.latency = 100*time.Microsecond + below(3*time.Millisecond)
	time.Sleep(time.Second + below(3*time.Second))
	leader := v.waitLeader()
	must(v.t, v.write(leader, fmt.Sprintf("before-%d", round), time.Minute))
	id := leader.c.ID
	back := 200*time.Millisecond + below(4*time.Second)
	v.count.faults++
	var others []*Node
	for _, other := range v.others(id) {
		others = append(others, v.nodes[other])
	}
	began := time.Now()
	v.kill(id)
	v.writes.Go(func() {
		time.Sleep(back)
		v.start(id)
	})
	for i := 0; ; i++ {
		if v.write(others[i%len(others)], fmt.Sprintf("kill-%d-%d", round, i), 8*time.Second) == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	took := time.Since(began)
	if took > 2*time.Second && testing.Verbose() {
		v.t.Logf("kill %d: of %s, back after %s: writes after %s\n%s", round, id, back, took, v.log.since(began))
	}
	v.writes.Wait()
	return took
}
