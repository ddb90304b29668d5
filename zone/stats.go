package zone

import "sync/atomic"

// Stats are counters since the start, merged over the workers when read.
type Stats struct {
	Queries   map[string]uint64 // by "proto/family/type-group"
	Responses map[string]uint64 // by rcode mnemonic
	Outcomes  map[string]uint64 // by Outcome
	Dropped   uint64            // datagrams that got no reply
	Truncated uint64
}

// What a slot of a tally counts. Each worker counts into its own tally without
// synchronisation and adds it to its counters once a batch.
const (
	slotTypes     = 0
	slotRcodes    = slotTypes + typeGroups
	slotOutcomes  = slotRcodes + rcodeSlots
	slotDropped   = slotOutcomes + outcomeSlots
	slotTruncated = slotDropped + 1
	slots         = slotTruncated + 1

	typeGroups   = 12
	rcodeSlots   = 17 // 0 to BADVERS
	outcomeSlots = 8
)

type tally [slots]uint32

// counters are what a tally is added to and Stats reads. The padding keeps two
// workers' counters out of one cache line.
type counters struct {
	proto, family string // "udp", "ipv4"
	slots         [slots]atomic.Uint64
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
	}
}

func outcomeNames() [outcomeSlots]string {
	return [outcomeSlots]string{
		Found: "Found", Alias: "Alias", Referral: "Referral", NoData: "NoData", NoName: "NoName", Refused: "Refused",
	}
}

// Stats reads the counters. Every group, response code and outcome is there, at
// zero where it was never seen.
func (s *Server) Stats() Stats {
	merged := Stats{Queries: map[string]uint64{}, Responses: map[string]uint64{}, Outcomes: map[string]uint64{}}
	groups, rcodes, outcomes := typeGroupNames(), rcodeNames(), outcomeNames()
	for _, c := range s.counters {
		for i, name := range groups {
			merged.Queries[c.proto+"/"+c.family+"/"+name] += c.slots[slotTypes+i].Load()
		}
		for i, name := range rcodes {
			if name != "" {
				merged.Responses[name] += c.slots[slotRcodes+i].Load()
			}
		}
		for i, name := range outcomes {
			if name != "" {
				merged.Outcomes[name] += c.slots[slotOutcomes+i].Load()
			}
		}
		merged.Dropped += c.slots[slotDropped].Load()
		merged.Truncated += c.slots[slotTruncated].Load()
	}
	return merged
}
