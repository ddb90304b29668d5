package keys

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestPaceOfTheMillFollowsTheLoadAndNotTheLuck: the work for a pair varies
// threefold and is the same machine's; the load is that of the last minute.
func TestPaceOfTheMillFollowsTheLoadAndNotTheLuck(t *testing.T) {
	draw := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(someTime, 0)
	var p pace
	make := func(n int, load float64) {
		for range n {
			work := 20*time.Millisecond + time.Duration(draw.ExpFloat64()*float64(25*time.Millisecond))
			spent := took{time.Duration(load * float64(work)), work}
			now = now.Add(spent.wall)
			p.add(spent, now)
		}
	}
	within := func(when string, want time.Duration) {
		t.Helper()
		if got := p.at(now); got < want*85/100 || got > want*115/100 {
			t.Errorf("%s: %s for a pair, want about %s", when, got, want)
		}
	}
	if make(paceFew-1, 1); p.at(now) != 0 {
		t.Errorf("after %d pairs it says %s", paceFew-1, p.at(now))
	}
	make(400, 1)
	within("quiet", 45*time.Millisecond)
	make(200, 2)
	within("beside another process", 90*time.Millisecond)
	now = now.Add(time.Hour)
	within("after an hour of rest", 45*time.Millisecond)
	make(20, 3)
	within("busy again", 135*time.Millisecond)
	make(300, 1)
	within("quiet again", 45*time.Millisecond)
}
