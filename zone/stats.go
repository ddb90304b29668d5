package zone

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats are counters since the start, merged over the workers when read.
type Stats struct {
	Queries   map[string]uint64    // by "proto/family/type-group"
	Responses map[string]uint64    // by "proto/rcode mnemonic"
	Outcomes  map[string]uint64    // by "proto/Outcome"
	Limited   map[string]uint64    // past a rate limit, by what was limited
	Cookies   map[string]uint64    // queries by what their cookie was
	Durations map[string]Durations // from batch in to batch out, by proto
	Dropped   uint64               // datagrams that got no reply
	// Overflowed are datagrams that the kernel dropped, since they came faster than they
	// were answered and the socket was full.
	Overflowed uint64
	Truncated  uint64 // replies with TC, those past a limit among them

	Connections ConnectionStats
}

// ConnectionStats are of TCP.
type ConnectionStats struct {
	Open     int
	Accepted uint64
	Evicted  uint64 // closed to make room for a new one
	Refused  uint64 // new ones turned away
}

// Durations is a histogram.
type Durations struct {
	Bounds []time.Duration // upper ones; the last bucket has none
	Counts []uint64        // of each bucket alone: one a bound, and one more
	Sum    time.Duration
}

// What a slot of a tally counts. Each worker counts into its own tally without
// synchronisation and adds it to its counters once a batch.
const (
	slotTypes     = 0
	slotRcodes    = slotTypes + typeGroups
	slotOutcomes  = slotRcodes + rcodeSlots
	slotLimited   = slotOutcomes + outcomeSlots
	slotCookies   = slotLimited + limitSlots
	slotDropped   = slotCookies + int(cookieStates)
	slotTruncated = slotDropped + 1
	slots         = slotTruncated + 1

	typeGroups   = 12
	rcodeSlots   = 24 // 0 to BADCOOKIE
	outcomeSlots = 8
	limitSlots   = int(limitClasses) + 1 // and the total of a prefix
)

type tally [slots]uint32

// Buckets of the histogram: up to 2 µs, 4 µs, … 1.05 s, and above.
const (
	firstBucket = 2 * time.Microsecond
	buckets     = 20
)

// bucket is which bucket a duration falls in.
func bucket(d time.Duration) int {
	return min(bits.Len64(uint64(max(d-1, 0)/firstBucket)), buckets)
}

// counters are what a tally is added to and Stats reads. The padding keeps two
// workers' counters out of one cache line.
type counters struct {
	proto, family string // "udp", "ipv4"
	slots         [slots]atomic.Uint64
	durations     [buckets + 1]atomic.Uint64
	sum           atomic.Int64 // nanoseconds
	_             [64]byte
}

// take adds the tally and empties it.
func (c *counters) take(t *tally) {
	for i, n := range t {
		if n != 0 {
			c.slots[i].Add(uint64(n))
			t[i] = 0
		}
	}
}

// took counts n messages with the time from when their batch was read until its
// replies were written.
func (c *counters) took(n int, d time.Duration) {
	c.durations[bucket(d)].Add(uint64(n))
	c.sum.Add(int64(n) * int64(d))
}

// typeGroup is the group a type is counted in: those that make up the traffic
// by themselves, all others together, so that no question can grow a table.
func typeGroup(t Type) int {
	switch t {
	case TypeA:
		return 1
	case TypeNS:
		return 2
	case TypeCNAME:
		return 3
	case TypeSOA:
		return 4
	case TypeMX:
		return 5
	case TypeTXT:
		return 6
	case TypeAAAA:
		return 7
	case typeHTTPS:
		return 8
	case typeDS:
		return 9
	case TypeANY:
		return 10
	case typeAXFR, typeIXFR:
		return 11
	}
	return 0
}

const (
	typeDS    Type = 43
	typeHTTPS Type = 65
)

func typeGroupNames() [typeGroups]string {
	return [typeGroups]string{"other", "A", "NS", "CNAME", "SOA", "MX", "TXT", "AAAA", "HTTPS", "DS", "ANY", "XFR"}
}

func rcodeNames() [rcodeSlots]string {
	return [rcodeSlots]string{
		rcodeSuccess: "NOERROR", rcodeFormErr: "FORMERR", rcodeServFail: "SERVFAIL", rcodeNXDomain: "NXDOMAIN",
		rcodeNotImp: "NOTIMP", rcodeRefused: "REFUSED", rcodeYXDomain: "YXDOMAIN", rcodeNotAuth: "NOTAUTH", rcodeBadVers: "BADVERS",
		rcodeBadCookie: "BADCOOKIE",
	}
}

func outcomeNames() [outcomeSlots]string {
	return [outcomeSlots]string{
		Found: "Found", Alias: "Alias", Referral: "Referral", NoData: "NoData", NoName: "NoName", Refused: "Refused",
	}
}

func limitNames() [limitSlots]string {
	return [limitSlots]string{classAnswer: "answer", classNoName: "nxdomain", classError: "error", limitClasses: "total"}
}

func cookieNames() [cookieStates]string {
	return [cookieStates]string{cookieNone: "none", cookieNew: "client", cookieGood: "good", cookieBad: "bad"}
}

// Stats reads the counters. Every group, response code and outcome is there, at
// zero where it was never seen.
func (s *Server) Stats() Stats {
	merged := Stats{
		Queries: map[string]uint64{}, Responses: map[string]uint64{}, Outcomes: map[string]uint64{},
		Limited: map[string]uint64{}, Cookies: map[string]uint64{}, Durations: map[string]Durations{},
		Connections: s.connectionStats(),
	}
	groups, rcodes, outcomes, limits, cookies := typeGroupNames(), rcodeNames(), outcomeNames(), limitNames(), cookieNames()
	for _, w := range s.workers {
		merged.Overflowed += overflowed(w.socket)
	}
	for _, c := range s.counters {
		merge := func(into map[string]uint64, prefix string, names []string, first int) {
			for i, name := range names {
				if name != "" {
					into[prefix+name] += c.slots[first+i].Load()
				}
			}
		}
		merge(merged.Queries, c.proto+"/"+c.family+"/", groups[:], slotTypes)
		merge(merged.Responses, c.proto+"/", rcodes[:], slotRcodes)
		merge(merged.Outcomes, c.proto+"/", outcomes[:], slotOutcomes)
		merge(merged.Limited, "", limits[:], slotLimited)
		merge(merged.Cookies, "", cookies[:], slotCookies)
		merged.Dropped += c.slots[slotDropped].Load()
		merged.Truncated += c.slots[slotTruncated].Load()
		merged.Durations[c.proto] = c.addDurations(merged.Durations[c.proto])
	}
	return merged
}

func (c *counters) addDurations(to Durations) Durations {
	if to.Counts == nil {
		to.Counts = make([]uint64, buckets+1)
		for i := range buckets {
			to.Bounds = append(to.Bounds, firstBucket<<i)
		}
	}
	for i := range c.durations {
		to.Counts[i] += c.durations[i].Load()
	}
	to.Sum += time.Duration(c.sum.Load())
	return to
}
