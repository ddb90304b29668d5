package cluster

import (
	"sync/atomic"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/zone"
)

func TestLeaderGivesTheNodesCookieSecrets(t *testing.T) {
	c := newTestCluster(t, 3)
	var clock atomic.Int64
	clock.Store(1_800_000_000)
	c.config = func(config *Config) { config.Now = func() time.Time { return time.Unix(clock.Load(), 0) } }
	c.startAll()
	agreed := func(ok func(state.CookieSecrets) bool) (s state.CookieSecrets) {
		eventually(t, "all nodes have the same cookie secrets", func() bool {
			s = c.leader().Machine().CookieSecrets()
			for _, n := range c.nodes {
				if n.Machine().CookieSecrets() != s {
					return false
				}
			}
			return ok(s)
		})
		return s
	}
	first := agreed(func(s state.CookieSecrets) bool { return s.CurrentAt != 0 })
	if first.CurrentAt != clock.Load() || first.Previous != (zone.CookieSecret{}) {
		t.Errorf("first secret %+v at %d", first, clock.Load())
	}
	clock.Add(24 * 3600)
	second := agreed(func(s state.CookieSecrets) bool { return s.CurrentAt != first.CurrentAt })
	if second.Previous != first.Current || second.CurrentAt != clock.Load() {
		t.Errorf("after a day %+v, before %+v", second, first)
	}
}
