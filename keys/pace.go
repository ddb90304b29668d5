package keys

import "time"

const (
	// paceKeys is how many keys the average of their work goes back: the time for one
	// RSA pair varies threefold, the mean of so many by some 4 %.
	paceKeys = 256
	// paceFew is how many are needed before there is anything to say.
	paceFew = 8
	// loadKeys is how many keys the load goes back, some seconds.
	loadKeys = 64
	// loadFresh is how long the load is taken to last. After that it is unknown, and
	// a mill is taken to have a processor to itself.
	loadFresh = 2 * time.Minute
)

// took is what the mill's child spent on one pair.
type took struct {
	wall time.Duration // by the clock
	work time.Duration // of a processor
}

// pace is how long a pair takes: the work, which is the machine's and stays, times
// the load, which is how long the child had to wait for a processor beside other
// processes, and changes. The two are averaged apart, because the load must be of
// this minute and the work be of many keys.
type pace struct {
	made     int
	work     time.Duration // for one pair, on average
	busy     took          // for one pair, on average of late
	measured time.Time
}

func (p *pace) add(t took, now time.Time) {
	if t.work <= 0 {
		t.work = t.wall
	}
	if now.Sub(p.measured) > loadFresh {
		p.busy = took{}
	}
	p.made = min(p.made+1, paceKeys)
	p.work += (t.work - p.work) / time.Duration(p.made)
	if p.busy.work == 0 {
		p.busy = t
	}
	p.busy.wall += (t.wall - p.busy.wall) / loadKeys
	p.busy.work += (t.work - p.busy.work) / loadKeys
	p.measured = now
}

// at is the time for one pair from now on; 0 where too few were made.
func (p *pace) at(now time.Time) time.Duration {
	if p.made < paceFew {
		return 0
	}
	if now.Sub(p.measured) > loadFresh || p.busy.work <= 0 || p.busy.wall < p.busy.work {
		return p.work
	}
	return time.Duration(float64(p.work) * float64(p.busy.wall) / float64(p.busy.work))
}
