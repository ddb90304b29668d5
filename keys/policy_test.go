package keys

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// A bound's last value is allowed, the next is not.
func TestPolicyBoundsAreAllowedThemselves(t *testing.T) {
	wide := DefaultPolicy()
	wide.Period, wide.DrainFloor, wide.Drain, wide.DrainCeiling = 100*day, 20*day, 30*day, 60*day
	for name, c := range map[string]struct {
		set         func(*Policy, time.Duration)
		least, most time.Duration
		slots       bool
	}{
		"drain_ceiling": {set: func(p *Policy, d time.Duration) { p.DrainCeiling = d }, least: 30 * day, most: 60 * day},
		"drain_floor":   {set: func(p *Policy, d time.Duration) { p.DrainFloor = d }, least: 7 * day, most: 30 * day},
		"drain":         {set: func(p *Policy, d time.Duration) { p.Drain = d }, least: 20 * day, most: 60 * day},
		"signer_hold":   {set: func(p *Policy, d time.Duration) { p.SignerHold = d }, least: time.Minute, most: 7 * day},
		"period":        {set: func(p *Policy, d time.Duration) { p.Period = d }, least: 5 * day, most: 730 * day},
		"period in slots": {set: func(p *Policy, d time.Duration) { p.Period = d }, slots: true,
			least: 61 * day, most: 730 * day},
		"soak":            {set: func(p *Policy, d time.Duration) { p.Soak = d }, least: 0, most: 30 * day},
		"soak and period": {set: func(p *Policy, d time.Duration) { p.Period, p.Soak = 6*day, d }, least: 0, most: 6 * day},
		"rollback":        {set: func(p *Policy, d time.Duration) { p.Rollback = d }, least: 0, most: 20 * day},
		"revoked_for":     {set: func(p *Policy, d time.Duration) { p.RevokedFor = d }, least: day, most: 90 * day},
		"quiet":           {set: func(p *Policy, d time.Duration) { p.Quiet = d }, least: time.Hour, most: 20 * day},
	} {
		for value, ok := range map[time.Duration]bool{c.least: true, c.most: true, c.least - time.Second: false, c.most + time.Second: false} {
			p := wide
			c.set(&p, value)
			if err := p.Check(c.slots); (err == nil) != ok {
				t.Errorf("%s of %s: %v", name, value, err)
			}
		}
	}
}

// The longest hold that a signer may still go by counts, however often the policy changes,
// and for no longer than any floor needs it.
func TestHoldsOfPoliciesBeforeCountWhileSignersGoByThem(t *testing.T) {
	const at, later = someTime, someTime + 86400
	p := holding(time.Hour).After(holding(5*day), at)
	p = holding(30*time.Minute).After(p, later)
	if left := p.holdFrom(later); left < 4*86400 {
		t.Errorf("a key that was fetched for five days, four of them to come, is held for %d s", left)
	}
	over := p.Before.Until + p.Before.For + seconds(maxDrainCeiling)
	for when, kept := range map[int64]bool{over: true, over + 1: false} {
		if p := p.After(p, when); (p.Before != Hold{}) != kept {
			t.Errorf("%d s past what any floor needs: %+v", when-over, p.Before)
		}
	}
}

func TestJitterSpreadsTokensEvenly(t *testing.T) {
	var buckets [10]int
	for i := range 10000 {
		j := JitterOf(fmt.Appendf(nil, "token %d", i))
		if j < -1000 || j > 1000 {
			t.Fatalf("jitter %d", j)
		}
		if j != JitterOf(fmt.Appendf(nil, "token %d", i)) {
			t.Fatal("jitter is not a function of the token")
		}
		buckets[min(9, (int(j)+1000)/200)]++
	}
	for i, count := range buckets {
		if count < 800 || count > 1200 {
			t.Errorf("tenth %d has %d of 10000 tokens", i, count)
		}
	}
}

func TestDefaultPolicyCanBeKeptInBothModes(t *testing.T) {
	for _, slots := range []bool{false, true} {
		if err := DefaultPolicy().Check(slots); err != nil {
			t.Error(err)
		}
	}
}

func TestPolicyErrorsNameTheField(t *testing.T) {
	for field, change := range map[string]func(*Policy){
		"period":        func(p *Policy) { p.Period = 731 * day },
		"soak":          func(p *Policy) { p.Soak = -1 },
		"rollback":      func(p *Policy) { p.Rollback = 8 * day },
		"signer_hold":   func(p *Policy) { p.SignerHold = 8 * day },
		"drain_floor":   func(p *Policy) { p.DrainFloor = 22 * day },
		"drain":         func(p *Policy) { p.Drain = 22 * day },
		"drain_ceiling": func(p *Policy) { p.DrainCeiling = 61 * day },
		"revoked_for":   func(p *Policy) { p.RevokedFor = day + time.Millisecond },
		"algorithms":    func(p *Policy) { p.Algorithms = nil },
	} {
		p := DefaultPolicy()
		change(&p)
		var refused *PolicyError
		if err := p.Check(false); !errors.As(err, &refused) || refused.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, algorithms := range [][]Algorithm{{RSA2048, RSA2048}, {3}} {
		p := DefaultPolicy()
		p.Algorithms = algorithms
		var refused *PolicyError
		if err := p.Check(false); !errors.As(err, &refused) || refused.Field != "algorithms" {
			t.Errorf("algorithms %v: %v", algorithms, err)
		}
	}
	if err := (Policy{}).Check(false); err == nil {
		t.Error("the zero policy passes")
	}
}
