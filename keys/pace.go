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
	// loadFresh is how long a measured load counts. After that it is unknown, and the
	// mill is assumed to have a processor to itself.
	loadFresh = 2 * time.Minute
)

// took is what the mill's child spent on one pair.
type took struct {
	wall time.Duration // by the clock
	work time.Duration // of a processor
}

// pace is how long a pair takes: the work (processor time, a property of the machine)
// times the load (how long the child waited for a processor, which changes). They are
// averaged apart, because the load must be recent and the work be of many keys.
type pace struct {
	made     int
	work     time.Duration // for one pair, on average
	busy     took          // for one pair, on recent average
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
