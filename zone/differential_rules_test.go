package zone

import (
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// difference is one question that another server answers in another way. A rule
// takes out of both replies what it explains.
type difference struct {
	realm        *realm
	q            question
	peer         string
	ours, theirs *said
	// overTCP asks one of the two again, where there is room for all.
	overTCP func(ours bool) *said
}

// rule explains a kind of difference: both ways are right, or theirs is wrong.
type rule struct {
	name   string
	clause string
	// apply removes the difference from both replies, where it is of this kind.
	apply func(d *difference)
}

// differences are all that are known. Each is applied in turn.
var differences = []rule{
	{"a reply that is cut holds what fits, or nothing", "RFC 2181 section 9: what is there is to be ignored, and asked for over TCP", func(d *difference) {
		if d.ours.tc && d.theirs.tc && len(d.ours.answer) == 0 {
			d.theirs.answer, d.theirs.authority, d.theirs.additional = nil, nil, nil
		}
	}},
	{"one reply has no room and the other has", "RFC 1035 section 4.1.4: compression is optional, and chains end in different places (below)", func(d *difference) {
		if d.ours.tc && !d.theirs.tc {
			d.ours = d.overTCP(true)
		}
		if !d.ours.tc && d.theirs.tc {
			d.theirs = d.overTCP(false)
		}
	}},
	{"others repeat records of loops, and Knot those of a host that is named twice", "RFC 2181 section 5: an RRset has no record twice", func(d *difference) {
		d.theirs.answer = slices.Compact(slices.Clone(d.theirs.answer))
		d.theirs.additional = slices.Compact(slices.Clone(d.theirs.additional))
	}},
	{"NSD copies CD into BADVERS", "RFC 4035 section 3.1.6: a matter of servers that know DNSSEC", func(d *difference) {
		if d.peer == "nsd" && strings.HasPrefix(d.theirs.head, "BADSIG ") {
			d.theirs.head = strings.Replace(d.theirs.head, "cd true", "cd false", 1)
		}
	}},
	{"a chain without end is cut after so many aliases", "RFC 1034 section 3.6.2: chains are followed; how far, everyone has to bound", func(d *difference) {
		if len(d.names()) > maxHops && len(d.ours.authority) == 0 && (contains(d.ours.answer, d.theirs.answer) || contains(d.theirs.answer, d.ours.answer)) {
			d.ours = d.theirs
		}
	}},
	{"Knot ends an alias at the edge of its zone", "RFC 1034 section 4.3.2 step 3a: to go on is right", func(d *difference) {
		inside, next, crossed := d.chain()
		if d.peer == "knotd" && crossed && d.realm.zoneOf(next) != nil && slices.Equal(d.theirs.answer, inside) && len(d.theirs.authority) == 0 && d.theirs.is("NOERROR") {
			d.ours = d.theirs
		}
	}},
	{"Knot follows an alias on in the zone above the nearest", "RFC 1034 section 4.3.2 step 3a: back to step 1, and so to the nearest zone", func(d *difference) {
		inside, next, crossed := d.chain()
		if z := d.realm.zoneOf(next); d.peer == "knotd" && crossed && z != nil && z.apex.In(d.realm.zoneOf(d.q.name).apex) && contains(d.theirs.answer, inside) {
			d.ours = d.theirs
		}
	}},
	{"NSD goes on into the zones of other tenants", "RFC 1034 section 4.3.2 step 3a: ours does not, lest one tenant speaks for another", func(d *difference) {
		if d.peer == "nsd" && d.foreign() && len(d.ours.authority) == 0 && d.ours.is("NOERROR") && contains(d.theirs.answer, d.ours.answer) {
			d.theirs = d.ours
		}
	}},
	{"ANY is answered with something", "RFC 8482 section 4: any subset, or a HINFO that is made up", func(d *difference) {
		made := slices.ContainsFunc(d.ours.answer, func(line string) bool { return strings.HasSuffix(line, `hinfo "rfc8482" ""`) })
		if d.q.qtype == TypeANY && made && (len(d.theirs.answer) > 0 || d.theirs.tc) && d.ours.head == d.theirs.head {
			d.ours = d.theirs
		}
	}},
	{"ANY ends at the alias that a DNAME makes", "RFC 8482 section 4: any subset of the records there", func(d *difference) {
		if d.q.qtype == TypeANY && len(d.ours.answer) == 2 && len(d.ours.authority) == 0 && contains(d.theirs.answer, d.ours.answer) {
			d.ours = d.theirs
		}
	}},
	{"Knot does not follow an alias for types that stand beside it", "RFC 4034 sections 3 and 4: in signed zones alone, and ours are not", func(d *difference) {
		signed := d.q.qtype == Type(dns.TypeRRSIG) || d.q.qtype == Type(dns.TypeNSEC)
		if d.peer == "knotd" && signed && d.target(d.q.name) != "" && d.theirs.is("NOERROR") && contains(d.ours.answer, d.theirs.answer) {
			d.ours = d.theirs
		}
	}},
	{"Knot asks the zone below for DS at the end of an alias", "RFC 4035 section 3.1.4.1: DS is in the zone above", func(d *difference) {
		apex := slices.ContainsFunc(d.names()[1:], func(n Name) bool { z := d.realm.zoneOf(n); return z != nil && z.apex == n })
		if d.peer == "knotd" && d.q.qtype == TypeDS && apex && contains(d.ours.answer, d.theirs.answer) {
			d.ours = d.theirs
		}
	}},
	{"addresses in another zone are added", "RFC 1034 section 4.3.2 step 6: useful data that are there may be added", func(d *difference) {
		_, last, _ := d.chain()
		d.ours.additional = d.without(d.ours.additional, func(line string, owner Name) bool {
			return !slices.Contains(d.theirs.additional, line) && d.realm.zoneOf(owner) != d.realm.zoneOf(last)
		})
	}},
	{"Knot adds addresses that a wildcard makes", "RFC 1034 section 4.3.2 step 6: ours adds what is there by its own name", func(d *difference) {
		if d.peer == "knotd" {
			d.theirs.additional = d.without(d.theirs.additional, func(line string, owner Name) bool {
				return !slices.Contains(d.ours.additional, line) && !slices.Contains(d.realm.owners, owner)
			})
		}
	}},
	{"Knot adds addresses that a cut or a zone of ours hides", "RFC 2181 section 6.1: a zone speaks for nothing there; they are for referrals alone", func(d *difference) {
		if d.peer == "knotd" && len(d.ours.authority) == 0 {
			d.theirs.additional = d.without(d.theirs.additional, func(line string, owner Name) bool {
				hidden := slices.ContainsFunc(d.realm.cuts, func(cut Name) bool { return owner.In(cut) }) ||
					d.realm.shadowed(owner) || d.realm.zoneOf(owner) != d.realm.zoneOf(d.q.name)
				return !slices.Contains(d.ours.additional, line) && hidden
			})
		}
	}},
	{"NSD takes names of the zone above for its own", "RFC 1034 section 4.2: zones share no data; RFC 4592 section 3.3.1", func(d *difference) {
		if d.peer == "nsd" && slices.ContainsFunc(d.names(), d.realm.shadowed) && len(d.theirs.authority) == 1 && strings.Contains(d.theirs.authority[0], " soa ") {
			d.theirs = d.ours
		}
	}},
	{"NSD with minimal responses adds addresses to referrals alone", "RFC 1034 section 4.3.2 step 6: useful data that are there may be added", func(d *difference) {
		if d.peer == "nsd" && len(d.ours.authority) == 0 && len(d.theirs.additional) == 0 {
			d.ours.additional = nil
		}
	}},
}

// names are those of the chain in our answer.
func (d *difference) names() []Name {
	chain := []Name{d.q.name}
	for {
		to := d.target(chain[len(chain)-1])
		if to == "" || slices.Contains(chain, to) {
			return chain
		}
		chain = append(chain, to)
	}
}

// target is where the CNAME of a name in our answer points; empty: it has none.
func (d *difference) target(n Name) Name {
	for _, line := range d.ours.answer {
		words := strings.SplitN(line, " ", 5)
		if owner, err := ParseName(words[0]); err == nil && owner == n && words[3] == "cname" {
			to, _ := ParseName(words[4])
			return to
		}
	}
	return ""
}

// without leaves out the lines that drop names.
func (d *difference) without(lines []string, drop func(line string, owner Name) bool) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(line string) bool {
		owner, err := ParseName(line[:strings.IndexByte(line, ' ')])
		return err == nil && drop(line, owner)
	})
}

// shadowed says whether a name in a zone within another of ours is, or lies
// below, a name that the outer zone has within the inner one.
func (w *realm) shadowed(n Name) bool {
	inner := w.zoneOf(n)
	if inner == nil {
		return false
	}
	for _, z := range w.zones {
		if z.apex == inner.apex || !inner.apex.In(z.apex) {
			continue
		}
		for _, s := range z.sets {
			for at := s.Owner; at != inner.apex && at.In(inner.apex); at = at.Parent() {
				if n.In(at) {
					return true
				}
			}
		}
	}
	return false
}

// is says whether a reply has an RCODE.
func (s *said) is(rcode string) bool { return strings.HasPrefix(s.head, rcode+" ") }

// contains says whether all lines of part are in list.
func contains(list, part []string) bool {
	for _, line := range part {
		if !slices.Contains(list, line) {
			return false
		}
	}
	return true
}

// chain follows the aliases of our answer: the records of names in the first
// zone, and the first name outside it.
func (d *difference) chain() (inside []string, next Name, crossed bool) {
	at := d.q.name
	first := d.realm.zoneOf(at)
	for range 2 * maxHops {
		if d.realm.zoneOf(at) != first {
			return inside, at, true
		}
		to := Name("")
		for _, line := range d.ours.answer {
			words := strings.SplitN(line, " ", 5)
			owner, err := ParseName(words[0])
			if err != nil || slices.Contains(inside, line) {
				continue
			}
			if owner == at || words[3] == "dname" && at.In(owner) {
				inside = append(inside, line)
			}
			if owner == at && words[3] == "cname" {
				to, _ = ParseName(words[4])
			}
		}
		slices.Sort(inside)
		if to == "" {
			return inside, at, false
		}
		at = to
	}
	return inside, at, false
}

// foreign says whether our answer ends in an alias to a name in the zone of
// another tenant than the first that it was in.
func (d *difference) foreign() bool {
	at, bound := d.q.name, uint32(0)
	for range 2 * maxHops {
		z := d.realm.zoneOf(at)
		switch {
		case z == nil:
			return false
		case z.tenant != 0 && bound == 0:
			bound = z.tenant
		case z.tenant != 0 && z.tenant != bound:
			return true
		}
		to := d.target(at)
		if to == "" {
			return false
		}
		at = to
	}
	return false
}

// zoneOf is the zone that a name is in; nil: none of ours.
func (w *realm) zoneOf(n Name) *realmZone {
	var best *realmZone
	for i := range w.zones {
		if z := &w.zones[i]; n.In(z.apex) && (best == nil || len(z.apex) > len(best.apex)) {
			best = z
		}
	}
	return best
}

// explain applies the rules until the replies are equal, and says in what they
// still differ; it counts the rules that made them more alike.
func explain(d *difference, used []int) string {
	left := differ(d.ours, d.theirs)
	for i, rule := range differences {
		if left == "" {
			break
		}
		before := [2]string{d.ours.String(), d.theirs.String()}
		rule.apply(d)
		if before != [2]string{d.ours.String(), d.theirs.String()} {
			used[i]++
		}
		left = differ(d.ours, d.theirs)
	}
	return left
}
