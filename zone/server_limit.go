package zone

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
)

// RateLimit bounds what one source prefix (/24 or /56) gets over UDP without a
// valid cookie. Past a limit an answer is cut to TC, so that a real client comes
// back over TCP and a forged one gets no more octets than were sent in its name;
// an error loses its EDNS options. Nothing is ever left unanswered. The zero
// value is the defaults.
type RateLimit struct {
	// Off turns limiting off.
	Off bool
	// Answers is how many answers a second, for one name that exists, a prefix
	// gets; names made by one wildcard or one DNAME, or below one delegation,
	// count as one. 0: 200, as NSD has it: a resolver keeps an answer for 300 s
	// and more, so that a whole /24 of resolvers asks for one name less than once a
	// second.
	Answers int
	// NoNames is how many NXDOMAINs a second of one zone a prefix gets. 0: 50. Mail
	// asks for names that it was told of; whoever makes names up never runs out.
	NoNames int
	// Errors is how many FORMERR, NOTIMP, REFUSED and such a second a prefix gets
	// with EDNS options. 0: 50.
	Errors int
	// Total is how many replies a second a prefix gets in full, whatever they are.
	// 0: 50,000, which is ten times what the largest resolvers ask of one operator.
	Total int
	// Exempt are prefixes that are never limited, nor in TCP connections; nil:
	// loopback, from where only this machine can send.
	Exempt []netip.Prefix
}

// Defaults and bounds of RateLimit.
const (
	defaultAnswers = 200
	defaultNoNames = 50
	defaultErrors  = 50
	defaultTotal   = 50_000
	maxRate        = 100_000_000
	maxExempt      = 256
)

// Check refuses rates and prefixes out of their bounds. The error begins with the
// field as a configuration file spells it: `no_names: -1 is not between …`.
func (c *RateLimit) Check() error {
	for _, n := range []struct {
		key  string
		rate int
	}{{"answers", c.Answers}, {"no_names", c.NoNames}, {"errors", c.Errors}, {"total", c.Total}} {
		if n.rate < 0 || n.rate > maxRate {
			return fmt.Errorf("%s: %d is not between 0 and %d", n.key, n.rate, maxRate)
		}
	}
	if len(c.Exempt) > maxExempt {
		return fmt.Errorf("exempt: %d prefixes, at most %d", len(c.Exempt), maxExempt)
	}
	for i, p := range c.Exempt {
		if !p.IsValid() || p.Addr().Is4In6() || p != p.Masked() {
			return fmt.Errorf("exempt[%d]: %s is not a prefix without bits behind its length: %s is", i, p, p.Masked())
		}
	}
	return nil
}

// exempt says whether a source is never limited.
func (c *RateLimit) exempt(a netip.Addr) bool {
	if c.Exempt == nil {
		return a.IsLoopback()
	}
	for _, p := range c.Exempt {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// limitClass is what a limit counts.
type limitClass uint8

const (
	classAnswer limitClass = iota
	classNoName
	classError
	limitClasses
)

// Sizes of the limiter's tables: 3 MiB together, whatever comes. Two keys in one
// word share its limit; with a flood of a million queries a second against 5,000
// pairs of name and prefix, one in fifty other names that a busy prefix asks for
// is limited too, and goes over TCP.
const (
	prefixWords = 1 << 16
	ownerWords  = 1 << 18
)

// limiter counts without locks and forgets by itself. A counter is one word: the
// time at which all that was taken so far would be paid off at the allowed rate
// (the generic cell rate algorithm, ITU-T I.371). What lies in the past is zero,
// so nothing needs clearing and any key can take any word.
//
// A prefix that asks more slowly than the lowest of the limits is over none, and
// costs one word of a small table. Only for a busier one its questions are told apart.
type limiter struct {
	config  RateLimit
	seed    uint64 // so that nobody can compute which keys share a word
	busy    rate
	total   rate
	classes [limitClasses]rate

	prefixes [prefixWords]prefixWord
	owners   [ownerWords]atomic.Int64
}

type prefixWord struct{ busy, total atomic.Int64 }

// rate is a limit in nanoseconds.
type rate struct {
	interval int64 // that one reply costs
	depth    int64 // how far ahead of the time a counter may be
	// lasting: a source that goes on past the limit gets nothing in full until it asks
	// more slowly than the limit. Otherwise replies at the rate itself go on in full.
	lasting bool
}

// second is how long a source may save up for: a burst of one second's replies.
const second = int64(time.Second)

func perSecond(n, standard int, depth int64, lasting bool) rate {
	if n == 0 {
		n = standard
	}
	interval := second / int64(n)
	return rate{interval: interval, depth: max(depth, interval), lasting: lasting}
}

func newLimiter(c RateLimit) *limiter {
	if c.Off {
		return nil
	}
	var seed [8]byte
	rand.Read(seed[:]) // never fails
	l := &limiter{config: c, seed: binary.LittleEndian.Uint64(seed[:])}
	l.classes[classAnswer] = perSecond(c.Answers, defaultAnswers, second, true)
	l.classes[classNoName] = perSecond(c.NoNames, defaultNoNames, second, true)
	l.classes[classError] = perSecond(c.Errors, defaultErrors, second, true)
	// Not lasting: a large resolver that goes past it would come over TCP with all
	// its queries, not with the few that are too many.
	l.total = perSecond(c.Total, defaultTotal, second, false)
	slowest := max(l.classes[classAnswer].interval, l.classes[classNoName].interval, l.classes[classError].interval)
	l.busy = rate{interval: slowest, depth: second / 4, lasting: true}
	return l
}

// limits that a reply may be over.
type overLimit uint8

const (
	within overLimit = iota
	overOwner
	overTotal
)

// take counts a reply of a class to a source and says whether it is over a
// limit. owner is a hash of what it was answered from.
func (l *limiter) take(from *source, now int64, class limitClass, owner uint64) overLimit {
	prefix := mix(from.prefix()^l.seed, hashMul)
	p := &l.prefixes[prefix>>(64-16)]
	if l.busy.take(&p.busy, now) || l.config.exempt(from.addr()) {
		return within
	}
	if !l.total.take(&p.total, now) {
		return overTotal
	}
	key := mix(prefix^owner^uint64(class), hashEnd)
	if !l.classes[class].take(&l.owners[key>>(64-18)], now) {
		return overOwner
	}
	return within
}

// take counts one reply; false where it is over. The tries bound the work where
// many workers count in one word: what is lost then is one count.
func (r *rate) take(word *atomic.Int64, now int64) (ok bool) {
	const tries = 4
	for range tries {
		had := word.Load()
		next := max(had, now) + r.interval
		ok = next-now <= r.depth
		if !ok {
			if !r.lasting {
				return false
			}
			next = min(next, now+r.depth+r.interval)
		}
		// Past the limit the word stays as it is within a batch, and workers that
		// share it do not fight over it.
		if next == had || word.CompareAndSwap(had, next) {
			break
		}
	}
	return ok
}
