package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"authd/cluster/state"
	"authd/zone"
)

const (
	// evidenceSave is how often the sum is written down.
	evidenceSave = time.Minute
	// evidenceKept is how long a name that nobody asks for any more is remembered,
	// and who fetched a key: past every ceiling and signer hold.
	evidenceKept = 70 * 24 * 3600
	// maxAsked and maxHanded bound what is remembered, some 100 octets each.
	maxAsked, maxHanded = 1 << 20, 1 << 20
	// maxGaps bounds the list of times in which hand-outs may have been lost.
	maxGaps = 32
	// handedShares is into how many parts hand-outs are kept, by the first octet of
	// the token: whoever reads all of them holds the lock for one part at a time.
	handedShares = 256

	secondsOfDay = 24 * 3600
)

// AskedDays is for how many days queries are counted.
const AskedDays = 7

// evidence is what this node saw of keys in use: queries for those that sign no
// more, by name, and private halves handed out, by signer. No client addresses.
// It is bounded whatever is asked; what found no room makes the count unknown
// from then on, never silent.
type evidence struct {
	node  *Node
	path  string
	watch *zone.Watch

	// mu guards what follows.
	mu      sync.Mutex
	since   int64 // the count of queries is whole since then
	gaps    []gap
	asked   map[uint64]asked
	handed  handedBy
	entries int   // of handed, all claims together
	latest  int64 // the latest time that is noted here
	failed  string
	ahead   bool // the clock was ahead when a leader last said what time it is
}

// asked are the queries for one name.
type asked struct {
	Last int64
	Day  int64             // since 1970, of Days[0]
	Days [AskedDays]uint32 // the latest first
}

// handed is when a signer last got a key.
type handed struct {
	Signer string
	Key    uint32
	At     int64
}

// handedBy is who got keys, by claim; of returns the part that a claim is in.
type handedBy [handedShares]map[state.Token][]handed

func (h *handedBy) of(t state.Token) map[state.Token][]handed { return h[t[0]] }

func newHanded() (h handedBy) {
	for i := range h {
		h[i] = make(map[state.Token][]handed)
	}
	return h
}

// gap is a time in which hand-outs may have been lost: of keys that this node, at
// machine time From, did not know to be draining. It had the rest from its disk.
type gap struct{ From, Until int64 }

func newEvidence(n *Node) (*evidence, error) {
	e := &evidence{
		node: n, path: filepath.Join(n.c.DataDir, "evidence"), watch: zone.NewWatch(),
		asked: make(map[uint64]asked), handed: newHanded(),
	}
	now := e.now()
	if err := e.load(now); err != nil {
		// What it held is unknown now; that holds keys back, and nothing is lost.
		n.logger.Warn("evidence of keys in use is lost: the count begins anew", "file", e.path, "error", err)
		e.asked, e.handed, e.entries = make(map[uint64]asked), newHanded(), 0
		e.since, e.gaps = now, []gap{{0, now}}
	}
	return e, e.save(false)
}

// now is this node's clock, or machine time where that is later: a use that is noted too
// early would let a key be revoked too early.
func (e *evidence) now() int64 { return max(e.node.c.Now().Unix(), e.node.Machine().Time()) }

// isNow moves later times back to now, which a leader tells that most nodes agree with
// within clockApart: they were noted while this node's clock ran ahead. They would hold
// back every draining key until then.
func (e *evidence) isNow(now int64) {
	limit := now + int64(clockApart/time.Second)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.latest <= limit {
		e.ahead = false
		return
	}
	if !e.ahead { // else it still is, and this is said once a minute
		e.node.logger.Warn("evidence of keys in use was noted by a clock that ran ahead; it counts as of now", "ahead", time.Duration(e.latest-limit)*time.Second)
	}
	e.ahead = true
	e.latest, e.since = limit, min(e.since, limit)
	for i := range e.gaps {
		e.gaps[i].Until = min(e.gaps[i].Until, limit)
	}
	for hash, a := range e.asked {
		a.Last, a.Day = min(a.Last, limit), min(a.Day, limit/secondsOfDay)
		e.asked[hash] = a
	}
	for _, share := range e.handed { // all at once: this is rare
		for _, list := range share {
			for i := range list {
				list[i].At = min(list[i].At, limit)
			}
		}
	}
}

// lost notes that nothing is known of the time up to now.
func (e *evidence) lost(from, now int64) {
	e.since, e.latest = now, max(e.latest, now)
	if len(e.gaps) == maxGaps {
		e.gaps = append([]gap{{e.gaps[0].From, e.gaps[1].Until}}, e.gaps[2:]...)
	}
	e.gaps = append(e.gaps, gap{from, now})
}

// run adds up and writes down until the node closes.
func (e *evidence) run() {
	tick := time.NewTicker(e.node.tuning.count)
	defer tick.Stop()
	saved := time.Now()
	for {
		select {
		case <-tick.C:
		case <-e.node.ctx.Done():
			return
		}
		e.add()
		if time.Since(saved) < evidenceSave {
			continue
		}
		saved = time.Now()
		e.forget()
		e.note(e.save(false))
	}
}

// note keeps what is wrong with the file for Health.
func (e *evidence) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.failed = ""
		return
	}
	if e.failed == "" {
		e.node.logger.Error("evidence of keys in use is not written down", "error", err)
	}
	e.failed = fmt.Sprintf("evidence of keys in use is not written down: %v; after a restart keys drain longer", err)
}

// problems are what Health shows.
func (e *evidence) problems() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed == "" {
		return nil
	}
	return []string{e.failed}
}

// add takes what the DNS workers counted.
func (e *evidence) add() {
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.latest = max(e.latest, now)
	lost := e.watch.Take(func(hash, count uint64) {
		a, ok := e.asked[hash]
		if !ok && len(e.asked) >= maxAsked {
			e.since = now
			return
		}
		e.asked[hash] = a.plus(now, count)
	})
	if lost > 0 || !e.node.alone() {
		e.since = now
	}
}

// plus counts queries of a moment.
func (a asked) plus(now int64, count uint64) asked {
	a = a.on(now / secondsOfDay)
	a.Last = max(a.Last, now)
	a.Days[0] = uint32(min(uint64(a.Days[0])+count, 1<<32-1))
	return a
}

// on is the count with that day as the latest; a day before the latest counts with it.
func (a asked) on(day int64) asked {
	if day <= a.Day {
		return a
	}
	var days [AskedDays]uint32
	if shift := day - a.Day; shift < AskedDays {
		copy(days[shift:], a.Days[:])
	}
	a.Day, a.Days = day, days
	return a
}

// forget drops what is too old to matter.
func (e *evidence) forget() {
	old := e.now() - evidenceKept
	e.mu.Lock()
	defer e.mu.Unlock()
	for hash, a := range e.asked {
		if a.Last < old {
			delete(e.asked, hash)
		}
	}
	for _, share := range e.handed {
		for token, list := range share {
			kept := slices.DeleteFunc(slices.Clone(list), func(h handed) bool { return h.At < old })
			if e.entries -= len(list) - len(kept); len(kept) == 0 {
				delete(share, token)
			} else if len(kept) < len(list) {
				share[token] = kept
			}
		}
	}
	for len(e.gaps) > 0 && e.gaps[0].Until < old {
		e.gaps = e.gaps[1:]
	}
}

// HandedOut notes that a signer got the private half of a key from this node.
func (n *Node) HandedOut(t state.Token, key uint32, signer string) {
	e := n.evidence
	now := e.now()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.latest = max(e.latest, now)
	list := e.handed.of(t)[t]
	for i := range list {
		if list[i].Key == key && list[i].Signer == signer {
			list[i].At = max(list[i].At, now)
			return
		}
	}
	if e.entries >= maxHanded {
		e.lost(0, now)
		return
	}
	e.handed.of(t)[t] = append(list, handed{signer, key, now})
	e.entries++
}

// Watch counts queries for this node; the DNS server is told to use it.
func (n *Node) Watch() *zone.Watch { return n.evidence.watch }

// KeepEvidence writes the last counts down. It is called when both the node and
// its DNS listeners have closed and no successor has taken over, and says that
// nothing is missing. Where it is not called the next start takes the time before
// it for unknown.
func (n *Node) KeepEvidence() error {
	n.evidence.add() // once for the tables that were left before, once for those in use
	n.evidence.add()
	return n.evidence.save(true)
}
