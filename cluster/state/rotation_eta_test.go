package state

import (
	"testing"
	"time"
)

// fakeMills make keys for a rotation of a leaked store, one after the other.
type fakeMills struct {
	r    Rotation
	made int
	// pace is the time for the next key, by how many were made and when.
	pace func(made int, since time.Duration) time.Duration
	// behind is how long a key waits to be confirmed, beside Tail.
	behind int64
}

// run goes on until all have switched, second by second, and calls each for every one.
func (f *fakeMills) run(each func(now int64)) (ended int64) {
	var spent time.Duration
	var keyed []int64 // when each domain got its key
	for now := f.r.StartedAt; f.r.Switched < f.r.Total; now++ {
		for f.r.Switched < uint32(len(keyed)) && keyed[f.r.Switched]+f.r.Tail+f.behind <= now {
			f.r.Switched++
			f.r.Keyed--
		}
		for f.made < int(f.r.Total) && spent <= time.Duration(now-f.r.StartedAt)*time.Second {
			if f.made >= int(f.r.Ready) {
				spent += f.pace(f.made, spent)
			}
			f.made++
			keyed = append(keyed, now)
			f.r.keyMade(now)
		}
		f.r.Waiting = f.r.Total - f.r.Switched
		ended = now
		each(now)
	}
	return ended
}

// TestETAOfALeakedStoreFollowsWhatTheMillsDo: by the estimate from the start until
// some keys are made, by the pace of late from then on, within 20 % of what is left
// for as long as that is a minute. Where the pace changes it takes some laps.
func TestETAOfALeakedStoreFollowsWhatTheMillsDo(t *testing.T) {
	const domains, first = 10_000, 15 * time.Millisecond
	steady := func(pace time.Duration) func(int, time.Duration) time.Duration {
		return func(int, time.Duration) time.Duration { return pace }
	}
	for name, c := range map[string]struct {
		tail, behind int64
		stock        uint32
		pace         func(made int, since time.Duration) time.Duration
		from         time.Duration // from when on the ETA has to be right
	}{
		"as expected, minted":   {360, 1, 128, steady(first), 0},
		"as expected, in slots": {3900, 1, 500, steady(first), 0},
		"confirmed late":        {360, 12, 128, steady(first), 0},
		"one node of three":     {360, 1, 64, steady(3 * first), (etaTime + 1) * time.Second},
		"half the time":         {360, 1, 0, steady(first / 2), (etaTime + 1) * time.Second},
		"slow mills":            {360, 1, 0, steady(time.Second), 2 * lapKeys * time.Second},
		"one of three ends": {360, 1, 128, func(made int, _ time.Duration) time.Duration {
			if made < domains/2 {
				return first
			}
			return first * 3 / 2
		}, domains/2*first + 2*lapTime*time.Second},
		"one of three comes back": {360, 1, 128, func(_ int, since time.Duration) time.Duration {
			if since < 90*time.Second {
				return first * 3 / 2
			}
			return first
		}, (90 + 2*lapTime) * time.Second},
	} {
		f := &fakeMills{pace: c.pace, behind: c.behind, r: Rotation{
			RotationSpec: RotationSpec{Store: true, Total: domains, Tail: c.tail, Ready: c.stock}, State: RotationRunning,
			StartedAt: 1_800_000_000, Begun: domains, Walked: true, Waiting: domains,
		}}
		f.r.Expected = f.r.StartedAt + int64((domains-time.Duration(c.stock))*first/time.Second) + c.tail + SwitchTime
		type said struct{ at, eta int64 }
		var all []said
		ended := f.run(func(now int64) { all = append(all, said{now, f.r.ETA(now)}) })
		checked := 0
		for _, s := range all {
			left, since := ended-s.at, time.Duration(s.at-f.r.StartedAt)*time.Second
			if since < c.from || left < 60 {
				continue
			}
			checked++
			if off := max(s.eta-ended, ended-s.eta); 5*off > left {
				t.Errorf("%s: after %s it says %d s more, and it took %d", name, since, s.eta-s.at, left)
				break
			}
		}
		if checked < 60 {
			t.Errorf("%s: held to what happened %d times", name, checked)
		}
	}
}

// TestKeysMadeForARotationAreCountedByNode, whatever number of nodes there is.
func TestKeysMadeForARotationAreCountedByNode(t *testing.T) {
	var list []KeyMaker
	for n := range 3 * maxMakers {
		before := len(list)
		more := withMaker(list, "node-"+string(rune('A'+n)))
		if len(list) != before || len(more) > maxMakers+1 {
			t.Fatalf("%d makers of %d", len(more), n+1)
		}
		list = withMaker(more, "node-A")
	}
	sum := uint32(0)
	for _, m := range list {
		sum += m.Keys
	}
	if sum != 6*maxMakers || list[0] != (KeyMaker{"", 2 * maxMakers}) || list[1] != (KeyMaker{"node-A", 3*maxMakers + 1}) {
		t.Errorf("%v", list)
	}
}
