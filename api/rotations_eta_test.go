package api

import (
	"testing"
	"time"

	"authd/cluster/state"
)

// fakeMill makes keys for a rotation of a leaked store, one after the other.
type fakeMill struct {
	r    state.Rotation
	made int
	// pace is the time for the next key, by how many were made.
	pace func(made int) time.Duration
}

// run goes on until all have switched, and calls each for every key made.
func (f *fakeMill) run(each func(now int64)) (ended int64) {
	started := f.r.StartedAt
	var spent time.Duration
	var keyed []int64 // when each domain got its key
	for domains := int(f.r.Total); f.made < domains; f.made++ {
		if f.made >= int(f.r.Ready) {
			spent += f.pace(f.made)
		}
		now := started + int64(spent/time.Second)
		keyed = append(keyed, now)
		f.r.Switched = 0
		for f.r.Switched < uint32(len(keyed)) && keyed[f.r.Switched]+f.r.Tail <= now {
			f.r.Switched++
		}
		f.r.Keyed, f.r.KeyedAt = uint32(f.made+1)-f.r.Switched, now
		f.r.Waiting = f.r.Total - f.r.Switched
		each(now)
	}
	return keyed[len(keyed)-1] + f.r.Tail
}

// TestETAOfALeakedStoreFollowsWhatTheMillDoes: by the estimate from the start until
// some keys are made, by the progress from then on, within 20 % of what was left.
func TestETAOfALeakedStoreFollowsWhatTheMillDoes(t *testing.T) {
	const domains = 10_000
	steady := func(pace time.Duration) func(int) time.Duration {
		return func(int) time.Duration { return pace }
	}
	for name, c := range map[string]struct {
		tail  int64
		stock uint32
		pace  func(made int) time.Duration
		from  int // keys made from which on the ETA has to be right
	}{
		"as expected, minted":   {360, 64, steady(45 * time.Millisecond), 0},
		"as expected, in slots": {3900, 500, steady(45 * time.Millisecond), 0},
		"twice as slow":         {360, 64, steady(90 * time.Millisecond), 64 + fewMade},
		"half the time":         {360, 0, steady(22 * time.Millisecond), fewMade},
		"slow in the first third": {360, 0, func(made int) time.Duration {
			if made < domains/3 {
				return 60 * time.Millisecond
			}
			return 45 * time.Millisecond
		}, 2 * domains / 3},
	} {
		f := &fakeMill{pace: c.pace, r: state.Rotation{
			RotationSpec: state.RotationSpec{Store: true, Total: domains, Tail: c.tail, Ready: c.stock}, State: state.RotationRunning,
			StartedAt: 1_800_000_000, Begun: domains, Walked: true, Waiting: domains,
		}}
		f.r.Expected = f.r.StartedAt + int64(milled(domains-int(c.stock), 45*time.Millisecond)/time.Second) + c.tail + stepTime
		type said struct {
			made    int
			at, eta int64
		}
		var all []said
		ended := f.run(func(now int64) { all = append(all, said{f.made, now, eta(now, &f.r)}) })
		for _, s := range all {
			off, left := s.eta-ended, ended-s.at
			if s.made >= c.from && (off > left/5+stepTime || off < -left/5-stepTime) {
				t.Errorf("%s: after %d keys and %d s it says %d s more, and it took %d", name, s.made, s.at-f.r.StartedAt, s.eta-s.at, left)
				break
			}
		}
	}
}

func TestErrorOfTheFirstEstimateIsTold(t *testing.T) {
	r := state.Rotation{RotationSpec: state.RotationSpec{Expected: 2000}, StartedAt: 1000, EndedAt: 2150, State: state.RotationDone}
	if got := expectedError(&r); got == nil || *got != 15 {
		t.Errorf("%v", got)
	}
	r.EndedAt = 1900
	if got := expectedError(&r); got == nil || *got != -10 {
		t.Errorf("%v", got)
	}
	for _, change := range []func(*state.Rotation){
		func(r *state.Rotation) { r.State = state.RotationRunning },
		func(r *state.Rotation) { r.State = state.RotationAborted },
		func(r *state.Rotation) { r.Back = true },
		func(r *state.Rotation) { r.Canary = []uint8{50, 100} },
	} {
		other := r
		if change(&other); expectedError(&other) != nil {
			t.Errorf("%+v has an error of %d %%", other, *expectedError(&other))
		}
	}
}
