package state

import (
	"slices"

	"authd/zone"
)

const (
	// maxShown bounds the questions for one command; further changes were published
	// together with these.
	maxShown = 16
	// shownWalk is how many claims are looked at for one that uses a pool.
	shownWalk = 1000
)

// Shown lists the questions whose answers a command changed, so that asking them shows
// whether it took effect: where a claim's answers differ, what was put into a zone or
// taken out of it. Of what many share one stands for all: a pool's change is one
// pointer, so one of its claims shows it, and so does one platform zone the addresses
// of a name server. before is the machine when the request came, after one that has
// applied it. Empty where DNS answers as it did.
func Shown(before, after Machine, c Command, r Result) []zone.Question {
	var list []zone.Question
	switch c := c.(type) {
	case PutRecord:
		list = append(list, zone.Question{Name: c.Set.Owner, Type: c.Set.Type})
	case PutDomainRecord:
		list = append(list, zone.Question{Name: c.Set.Owner, Type: c.Set.Type})
	case PutPlatform:
		list = zoneShown(c.Apex)
	case DropPlatform:
		list = zoneShown(c.Apex)
	case PutNameServer:
		list = serverShown(after, c.Label)
	case DropNameServer:
		list = serverShown(after, c.Label)
	case PutPool:
		list = poolShown(before, after, c.ID)
	default:
		if r.Token != (Token{}) { // the claim concerned
			list = ClaimShown(before, after, r.Token)
		}
	}
	return list[:min(len(list), maxShown)]
}

func zoneShown(apex zone.Name) []zone.Question {
	return []zone.Question{{Name: apex, Type: zone.TypeSOA}, {Name: apex, Type: zone.TypeNS}}
}

func serverShown(m Machine, label string) []zone.Question {
	p, ok := m.tables().firstPlatform()
	if !ok {
		return nil
	}
	name, err := p.Apex.Child(label)
	if err != nil {
		return nil
	}
	return []zone.Question{{Name: name, Type: zone.TypeA}, {Name: name, Type: zone.TypeAAAA}}
}

// poolShown asks about a claim that uses the pool. Where so few do that shownWalk claims
// have none, it asks nothing.
func poolShown(before, after Machine, id string) []zone.Question {
	walked := 0
	for d := range after.Domains(Token{}) {
		if d.Pool == id && (d.Mode == zone.CNAME || d.ProvenAt != 0) {
			return difference(before.Served(d), after.Served(d))
		}
		if walked++; walked == shownWalk {
			break
		}
	}
	return nil
}

// ClaimShown lists what a claim's answers differ in; with an empty machine before,
// all of them.
func ClaimShown(before, after Machine, t Token) []zone.Question {
	var was, is []zone.RRset
	if d, ok := before.Domain(t); ok {
		was = before.Served(d)
	}
	if d, ok := after.Domain(t); ok {
		is = after.Served(d)
	}
	return difference(was, is)
}

// difference of two lists in canonical order. SOA is not among it: every change
// raises the serial.
func difference(was, is []zone.RRset) (list []zone.Question) {
	for _, one := range [][2][]zone.RRset{{is, was}, {was, is}} {
		for _, s := range one[0] {
			q := zone.Question{Name: s.Owner, Type: s.Type}
			if s.Type != zone.TypeSOA && !slices.ContainsFunc(one[1], func(o zone.RRset) bool { return equalRRsets(s, o) }) && !slices.Contains(list, q) {
				list = append(list, q)
			}
		}
	}
	return list
}
