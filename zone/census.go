package zone

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Census counts the queries for the names of a few domains, for a while, because
// somebody asked for it. Nothing is counted otherwise: a worker then sees that
// there is no list, once a batch. Counting takes no lock, allocates nothing and
// reads no clock of its own.
type Census struct {
	open atomic.Pointer[censusList] // nil: nothing is counted

	mu    sync.Mutex // guards kinds: Start, Stop and Read take it, queries do not
	kinds []*census  // oldest first; ended ones are kept until their place is needed
}

// MaxCensus is how many domains are counted at a time.
const MaxCensus = 16

// ErrCensusFull says that MaxCensus domains are being counted.
var ErrCensusFull = errors.New("as many domains as are counted at a time are being counted")

// censusList is what is counted, by name in wire form. Immutable.
type censusList struct {
	names map[string]*census
	until uint32 // seconds since 1970: nothing is counted from then on
}

// census is of one domain.
type census struct {
	id           string
	names        []Name
	since, until time.Time
	ends         uint32
	counts       [typeGroups][outcomeSlots]atomic.Uint64
}

// Counted is what was counted of one domain.
type Counted struct {
	Since, Until time.Time
	Counts       []Count // those that are not zero
}

// Count is how many queries of a type group had an outcome. Those cut by a rate
// limit are among them.
type Count struct {
	Type, Outcome string
	Queries       uint64
}

// Start counts the queries for names, and names below them, until a moment. What
// was counted under the same id before is forgotten.
func (c *Census) Start(id string, names []Name, now, until time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(c.kinds), func(k *census) bool { return k.id == id })
	if len(list) == MaxCensus {
		ended := slices.IndexFunc(list, func(k *census) bool { return !now.Before(k.until) })
		if ended < 0 {
			return ErrCensusFull
		}
		list = slices.Delete(list, ended, ended+1)
	}
	c.kinds = append(list, &census{id: id, names: names, since: now, until: until, ends: uint32(until.Unix())})
	c.publish()
	return nil
}

// Stop ends and forgets what is counted under an id, and says whether there was
// anything.
func (c *Census) Stop(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(c.kinds), func(k *census) bool { return k.id == id })
	found := len(list) < len(c.kinds)
	c.kinds = list
	c.publish()
	return found
}

// publish makes the list that queries look at.
func (c *Census) publish() {
	if len(c.kinds) == 0 {
		c.open.Store(nil)
		return
	}
	l := &censusList{names: make(map[string]*census)}
	for _, k := range c.kinds {
		l.until = max(l.until, k.ends)
		for _, n := range k.names {
			l.names[string(n)] = k
		}
	}
	c.open.Store(l)
}

// Read gives what was counted under an id, during and after.
func (c *Census) Read(id string) (Counted, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.kinds, func(k *census) bool { return k.id == id })
	if at < 0 {
		return Counted{}, false
	}
	k := c.kinds[at]
	out := Counted{Since: k.since, Until: k.until}
	types, outcomes := typeGroupNames(), outcomeNames()
	for t := range k.counts {
		for o := range k.counts[t] {
			if n := k.counts[t][o].Load(); n > 0 {
				out.Counts = append(out.Counts, Count{types[t], outcomes[o], n})
			}
		}
	}
	return out, true
}

// at is the list for a batch; nil: nothing is counted.
func (c *Census) at(unix uint32) *censusList {
	if c == nil {
		return nil
	}
	if l := c.open.Load(); l != nil && unix < l.until {
		return l
	}
	return nil
}

// note counts a query for the longest of the names that its name is or is below.
func (l *censusList) note(q *query, outcome Outcome, unix uint32) {
	var folded [256]byte
	fold(&folded, q.asked)
	name := folded[:len(q.asked)]
	for len(name) > 1 {
		if k := l.names[string(name)]; k != nil {
			if unix < k.ends {
				k.counts[typeGroup(q.qtype)][int(outcome)%outcomeSlots].Add(1)
			}
			return
		}
		name = name[1+int(name[0]):]
	}
}
