package cluster

import (
	"fmt"
	"math"
	"sync"
	"time"

	"authd/keys"
)

const (
	// clockSlack is how far this node's clock may be behind machine time, and how
	// far it may leap against the time that passed.
	clockSlack = 5 * time.Second
	// clockApart is how far from this node's clock another one agrees with it. Two
	// leaders in a row may thus be keys.ClockMargin apart.
	clockApart = keys.ClockMargin / 2 * time.Second
	// clockEvery is how often a leader compares its clock with the others', and
	// clockAgain how soon where it cannot move time: twice as long each time, up to
	// clockMost.
	clockEvery = time.Minute
	clockAgain = time.Second
	clockMost  = 10 * time.Second
)

// timekeeper is the clock by which a leader moves machine time, as long as most nodes
// agree with it. Machine time never goes back, and caches do not follow it: a clock that
// runs ahead would let a key sign before caches have forgotten that it was not there.
// So without agreement time stands still, and with it what is due; nothing else does.
type timekeeper struct {
	node  *Node
	doubt chan struct{} // wakes the comparison
	// leapt is how much further a clock went than the time between two readings.
	leapt func(from, to time.Time) time.Duration

	// mu guards what follows.
	mu       sync.Mutex
	trusted  bool // most of the nodes agree with this one's clock
	compared bool // since this node leads, or its clock leapt
	leaps    int  // what was compared before the last says nothing
	seen     time.Time
	problem  string // empty: none
}

func newTimekeeper(n *Node) *timekeeper {
	return &timekeeper{node: n, doubt: make(chan struct{}, 1), leapt: wallLeap}
}

// wallLeap compares the wall clock with the monotonic one, where readings have both.
func wallLeap(from, to time.Time) time.Duration {
	return to.Round(0).Sub(from.Round(0)) - to.Sub(from)
}

// read reads the clock, and stops trusting it where it leapt. mu is held.
func (k *timekeeper) read() time.Time {
	now := k.node.c.Now()
	if !k.seen.IsZero() && k.leapt(k.seen, now).Abs() > clockSlack {
		k.trusted, k.compared = false, false
		k.leaps++
		k.ask()
	}
	k.seen = now
	return now
}

// ask has the clocks compared soon.
func (k *timekeeper) ask() {
	select {
	case k.doubt <- struct{}{}:
	default:
	}
}

// stamp is the time that proposals carry, in seconds since 1970: this node's, or where
// the others do not agree the machine's, so that time stands still.
func (k *timekeeper) stamp() int64 {
	machine := k.node.Machine().Time()
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.read().Unix()
	if machine > 0 && now > machine && !k.trusted {
		if !k.compared {
			k.ask()
		}
		return machine
	}
	return max(now, 0)
}

// serves says whether this node's clock may decide what is due at machine time.
func (k *timekeeper) serves(machine int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.read().Unix()
	apart := time.Duration(min(max(now-machine, math.MinInt32), math.MaxInt32)) * time.Second
	problem := ""
	switch {
	case machine == 0:
	case apart < -clockSlack:
		problem = fmt.Sprintf("clock is %s behind the cluster's time: set it right; nothing is rotated meanwhile", -apart)
	case !k.trusted && !k.compared:
		k.ask()
		return false
	case !k.trusted:
		problem = fmt.Sprintf("clock is %s ahead of the cluster's time and no majority of nodes agrees with it within %s: set it right; nothing is rotated meanwhile", apart, clockApart)
	}
	if problem != "" && k.problem == "" {
		k.node.logger.Error("rotator stands still", "reason", problem)
	}
	k.problem = problem
	return problem == ""
}

// run compares the leader's clock with the others'. moved is called when time may
// move again, or no more.
func (k *timekeeper) run(moved func()) {
	again := clockAgain
	for {
		pause := clockEvery
		if k.node.leads() {
			agrees, changed := k.compare()
			if !agrees {
				pause, again = again, min(2*again, clockMost)
			} else {
				again = clockAgain
			}
			if changed {
				moved()
			}
		} else {
			again = clockAgain
			k.mu.Lock()
			k.trusted, k.compared = false, false
			k.mu.Unlock()
		}
		select {
		case <-time.After(pause):
		case <-k.doubt:
			if !k.node.leads() {
				select { // a doubt can wait where this node does not lead
				case <-time.After(minPause):
				case <-k.node.ctx.Done():
				}
			}
		case <-k.node.ctx.Done():
		}
		if k.node.ctx.Err() != nil {
			return
		}
	}
}

// compare compares the clocks, and says whether they agree and whether that is news. A
// clock that leaps meanwhile is compared again.
func (k *timekeeper) compare() (agrees, changed bool) {
	k.mu.Lock()
	k.read()
	leaps := k.leaps
	k.mu.Unlock()
	agrees = k.agrees()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.read(); k.leaps != leaps {
		return false, true
	}
	changed = k.trusted != agrees || !k.compared
	k.trusted, k.compared = agrees, true
	return agrees, changed
}

// agrees says whether most of the nodes, this one included, answer with about
// the same time: a minority can be wrong, whoever is down. If they did so far, all are
// told it: what a node noted by a clock that was ahead counts as of now, and would count
// as of the day on which it is asked about keys.
func (k *timekeeper) agrees() bool {
	var ask statusAsk
	k.mu.Lock()
	if now := k.read(); k.trusted {
		ask.Now = now.Unix()
	}
	k.mu.Unlock()
	if ask.Now != 0 {
		k.node.evidence.isNow(ask.Now)
	}
	agree := 1
	for _, reply := range k.node.tellAll(k.node.ctx, k.node.others(), ask) {
		if reply.apart() <= clockApart {
			agree++
		}
	}
	return agree > len(k.node.members())/2
}

// health is what is wrong with the clock; empty: nothing.
func (k *timekeeper) health() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}
