package state

import (
	"encoding/binary"
	"slices"
	"sort"

	"authd/zone"
)

// setSettings replaces the settings.
func (w *writer) setSettings(c SetSettings) Result {
	s := c.Settings
	if r := checkTitle("cluster_id", s.ClusterID); r != nil {
		return refused(r)
	}
	if w.settings.ClusterID != "" && s.ClusterID != w.settings.ClusterID {
		return refused(conflict("cluster_id", nil, "this cluster is %s for ever: it cannot become %s", quote(w.settings.ClusterID), quote(s.ClusterID)))
	}
	if s == w.settings {
		return same
	}
	w.settings = s
	return done
}

// putPlatform adds a platform zone or changes its contact.
func (w *writer) putPlatform(c PutPlatform) Result {
	if r := checkHost("zone", c.Apex); r != nil {
		return refused(r)
	}
	if !wellFormed(c.Contact) || c.Contact.Labels() < 2 {
		return refused(invalid("contact", "%s: want a mailbox as a name: hostmaster.%s", quoteName(c.Contact), c.Apex.Host()))
	}
	if p, ok := w.platformAt(c.Apex); ok {
		if p.Contact == c.Contact {
			return same
		}
		next := *p
		next.Contact = c.Contact
		return w.replacePlatform(&next, "contact")
	}
	if r := w.checkNewPlatform(c.Apex); r != nil {
		return refused(r)
	}
	next := &platformEntry{Platform: Platform{Number: w.platformNumber + 1, Apex: c.Apex, Contact: c.Contact, Serial: w.firstSerial()}}
	answers, err := zone.RenderPlatform(w.platformPlan(&next.Platform))
	if err != nil {
		return refused(invalid("zone", "%v", err))
	}
	next.answers = answers
	w.platformNumber++
	w.platforms.Set(next.Number, next)
	w.delta.platform(next.Number)
	return done
}

// checkNewPlatform keeps platform zones apart from each other and from claims.
func (w *writer) checkNewPlatform(apex zone.Name) *Refusal {
	if w.platforms.Len() >= maxPlatforms {
		return invalid("zone", "%d platform zones already: at most %d", w.platforms.Len(), maxPlatforms)
	}
	// Room for the names below it: ke1.T.dkim.P and the like.
	if len(apex) > maxPlatformName {
		return invalid("zone", "%s: a platform zone's name has at most %d octets, so that the names below it fit", quoteName(apex), maxPlatformName)
	}
	if p := w.platformOverlap(apex); p != nil {
		return conflict("zone", nil, "%s and the platform zone %s lie within each other", quoteName(apex), p.Apex.Host())
	}
	inside := w.claims.in(apex)
	for above := apex.Parent(); inside == nil && above != zone.Root; above = above.Parent() {
		inside = w.claims.at(above)
	}
	if inside != nil {
		return conflict("zone", inside, "%s: a customer's claim is within it or above it: %s", quoteName(apex), tokenList(inside))
	}
	return nil
}

// maxPlatformName leaves room in 255 octets for a pool's include names, the
// longest that are generated: 9.<63 octets>.spf.P; and for targets.
const maxPlatformName = 160

// platformOverlap is a platform zone that n is, lies in or lies above.
func (t *tables) platformOverlap(n zone.Name) (found *platformEntry) {
	t.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		if n.In(p.Apex) || p.Apex.In(n) {
			found = p
		}
		return found == nil
	})
	return found
}

// replacePlatform renders and stores a platform zone that changed visibly. field
// is what a refusal names.
func (w *writer) replacePlatform(next *platformEntry, field string) Result {
	next.Serial++
	answers, err := zone.RenderPlatform(w.platformPlan(&next.Platform))
	if err != nil {
		return refused(invalid(field, "%v", err))
	}
	next.answers = answers
	w.platforms.Set(next.Number, next)
	w.delta.platform(next.Number)
	return done
}

// renderPlatforms renders every platform zone again after a change of what they
// share. It stores nothing: keepPlatforms does.
func (w *writer) renderPlatforms() ([]*platformEntry, error) {
	var next []*platformEntry
	var failed error
	w.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		n := *p
		n.Serial++
		n.answers, failed = zone.RenderPlatform(w.platformPlan(&n.Platform))
		next = append(next, &n)
		return failed == nil
	})
	return next, failed
}

func (w *writer) keepPlatforms(next []*platformEntry) {
	for _, p := range next {
		w.platforms.Set(p.Number, p)
		w.delta.platform(p.Number)
	}
}

// dropPlatform removes a platform zone that nothing uses.
func (w *writer) dropPlatform(c DropPlatform) Result {
	if !wellFormed(c.Apex) {
		return refused(invalid("zone", "%s is not a domain name", quote(string(c.Apex))))
	}
	p, ok := w.platformAt(c.Apex)
	if !ok {
		return refused(notFound("zone", "no platform zone %s", quoteName(c.Apex)))
	}
	if p.domains > 0 {
		return refused(conflict("zone", nil, "%s holds names of %d claims: customers' records point at them", c.Apex.Host(), p.domains))
	}
	reported := w.reports.in(p.Apex)
	if reported != nil {
		return refused(conflict("zone", reported, "%s takes DMARC reports of domains, claim %s for one: change their policies first", c.Apex.Host(), tokenList(reported)))
	}
	if first, _ := w.firstPlatform(); first.Number == p.Number && w.pools.Len() > 0 {
		return refused(conflict("zone", nil, "%s holds the SPF parts of %d pools: remove the pools first", c.Apex.Host(), w.pools.Len()))
	}
	w.platforms.Delete(p.Number)
	w.delta.platform(p.Number)
	return done
}

// putRecord sets or removes an operator's RRset.
func (w *writer) putRecord(c PutRecord) Result {
	if !wellFormed(c.Apex) {
		return refused(invalid("zone", "%s is not a domain name", quote(string(c.Apex))))
	}
	p, ok := w.platformAt(c.Apex)
	if !ok {
		return refused(notFound("zone", "no platform zone %s: add it first", quoteName(c.Apex)))
	}
	set := c.Set
	if r := checkRRset(set, c.Apex); r != nil {
		return refused(r)
	}
	if reserved(set.Owner, c.Apex) {
		return refused(invalid("name", "%s is managed: authd answers ns1…, dkim, bounce, click, dmarc, spf and what lies below them", quoteName(set.Owner)))
	}
	next := *p
	changed, r := editRecords(&next.Records, &next.octets, set, maxPlatformRecords, maxPlatformOctets)
	if r != nil {
		return refused(r)
	}
	if !changed {
		return same
	}
	if len(set.Data) > 0 {
		if r := w.checkUnbound(set); r != nil {
			return refused(r)
		}
	}
	return w.replacePlatform(&next, "values")
}

// checkUnbound keeps operator's records off the names that are, or were, bound
// to claims: a customer's CNAME may still point there.
func (w *writer) checkUnbound(set zone.RRset) *Refusal {
	if holder := w.bound.at(set.Owner); holder != nil {
		return conflict("name", holder, "%s is bound to claim %s", quoteName(set.Owner), tokenList(holder))
	}
	if w.goneBound.has(hash16(string(set.Owner))) {
		return conflict("name", nil, "%s was bound to a claim that ended: a customer's CNAME may still point there, so it stays empty for ever", quoteName(set.Owner))
	}
	if !isCut(set.Type) {
		return nil
	}
	below := w.bound.in(set.Owner)
	if below != nil {
		return conflict("name", below, "%s %s would hide a name below it that is bound to claim %s", quoteName(set.Owner), set.Type, tokenList(below))
	}
	return nil
}

// isCut says whether a type takes away what lies below its owner.
func isCut(t zone.Type) bool { return t == zone.TypeNS || t == zone.TypeDNAME }

// checkRRset checks the form of records that came in a command; what is allowed
// beside what, zone.Render decides.
func checkRRset(s zone.RRset, apex zone.Name) *Refusal {
	if !wellFormed(s.Owner) {
		return invalid("name", "%s is not a domain name", quote(string(s.Owner)))
	}
	if !s.Owner.In(apex) {
		return invalid("name", "%s is not in %s", quoteName(s.Owner), apex.Host())
	}
	if s.Type == 0 || s.Type == zone.TypeSOA || s.Type == 41 || s.Type >= 128 && s.Type <= 255 {
		return invalid("type", "%s cannot be added", s.Type)
	}
	if len(s.Data) == 0 {
		return nil // a removal has no TTL either
	}
	if s.TTL < zone.MinTTL || s.TTL > zone.MaxTTL {
		return invalid("ttl", "%d: want %d to %d seconds", s.TTL, zone.MinTTL, zone.MaxTTL)
	}
	if len(s.Data) > MaxRRset {
		return invalid("values", "%d values: at most %d", len(s.Data), MaxRRset)
	}
	for i, data := range s.Data {
		if len(data) > 65535 {
			return invalid(element("values", i), "longer than a record can be")
		}
		if i > 0 && string(s.Data[i-1]) >= string(data) {
			return invalid(element("values", i), "values are not in order or one is there twice")
		}
	}
	return nil
}

// recordBefore is the order in which records are kept: canonical order of
// owners, then types.
func recordBefore(a, b *zone.RRset) bool {
	if a.Owner != b.Owner {
		return a.Owner.Reverse() < b.Owner.Reverse()
	}
	return a.Type < b.Type
}

// editRecords puts a set into, or (without data) removes it from, a list that is
// shared with older machines, and says whether anything changed.
func editRecords(list *[]zone.RRset, octets *int, set zone.RRset, most, mostOctets int) (bool, *Refusal) {
	old := *list
	at := sort.Search(len(old), func(i int) bool { return !recordBefore(&old[i], &set) })
	there := at < len(old) && old[at].Owner == set.Owner && old[at].Type == set.Type
	size := *octets
	if there {
		if equalRRsets(old[at], set) {
			return false, nil
		}
		size -= rrsetSize(old[at])
	}
	if len(set.Data) == 0 {
		if !there {
			return false, nil
		}
		*list, *octets = slices.Delete(slices.Clone(old), at, at+1), size
		return true, nil
	}
	size += rrsetSize(set)
	if size > mostOctets {
		return false, invalid("values", "%d octets of records in all: at most %d", size, mostOctets)
	}
	next := slices.Clone(old)
	if there {
		next[at] = set
	} else {
		if len(old) >= most {
			return false, invalid("name", "%d record sets already: at most %d", len(old), most)
		}
		next = slices.Insert(next, at, set)
	}
	*list, *octets = next, size
	return true, nil
}

func rrsetSize(s zone.RRset) int {
	size := len(s.Owner) + 8
	for _, data := range s.Data {
		size += len(data)
	}
	return size
}

func rrsetsSize(sets []zone.RRset) (size int) {
	for _, s := range sets {
		size += rrsetSize(s)
	}
	return size
}

func equalRRsets(a, b zone.RRset) bool {
	return a.Owner == b.Owner && a.Type == b.Type && a.TTL == b.TTL && slices.EqualFunc(a.Data, b.Data, slices.Equal)
}

// putNameServer sets a name server's addresses.
func (w *writer) putNameServer(c PutNameServer) Result {
	if !isServerLabel(c.Label) {
		return refused(invalid("nameserver", "%s: want ns1, ns2, … ns99", quote(c.Label)))
	}
	addresses, r := checkAddresses("addresses", c.Addresses)
	if r != nil {
		return refused(r)
	}
	if len(addresses) == 0 {
		return refused(invalid("addresses", "%s needs at least one address", c.Label))
	}
	old, ok := w.servers.Get(c.Label)
	next := &serverEntry{NameServer: NameServer{Label: c.Label, Addresses: addresses}}
	if ok {
		if slices.Equal(old.Addresses, addresses) {
			return same
		}
		next.domains = old.domains
	} else if w.servers.Len() >= maxNameServers {
		return refused(invalid("nameserver", "%d name servers already: at most %d", w.servers.Len(), maxNameServers))
	}
	w.servers.Set(c.Label, next)
	platforms, err := w.renderPlatforms()
	if err != nil {
		if ok {
			w.servers.Set(c.Label, old)
		} else {
			w.servers.Delete(c.Label)
		}
		return refused(invalid("addresses", "%v", err))
	}
	w.keepPlatforms(platforms)
	return done
}

// dropNameServer removes a name server that no delegated domain was given.
func (w *writer) dropNameServer(c DropNameServer) Result {
	s, ok := w.servers.Get(c.Label)
	if !ok {
		return refused(notFound("nameserver", "no name server %s", quote(c.Label)))
	}
	if s.domains > 0 {
		return refused(conflict("nameserver", nil, "%s is in the NS records of %d domains: change its addresses instead", s.Label, s.domains))
	}
	if w.servers.Len() == 1 && w.platforms.Len() > 0 {
		return refused(conflict("nameserver", nil, "%s is the last name server of the platform zones: add another first", s.Label))
	}
	w.servers.Delete(c.Label)
	platforms, err := w.renderPlatforms()
	if err != nil {
		w.servers.Set(c.Label, s)
		return refused(invalid("nameserver", "%v", err))
	}
	w.keepPlatforms(platforms)
	return done
}

// PlatformServed lists what DNS answers in a platform zone besides the claims' names.
func (m Machine) PlatformServed(p *Platform) []zone.RRset {
	e, ok := m.tables().platforms.Get(p.Number)
	if !ok {
		return nil
	}
	sets := e.answers.Served()
	for i := range sets {
		// The zone is rendered without its counter; SERIAL is followed by four more
		// numbers (RFC 1035 section 3.3.13).
		if soa := sets[i]; soa.Type == zone.TypeSOA && len(soa.Data) == 1 && len(soa.Data[0]) > 20 {
			binary.BigEndian.PutUint32(soa.Data[0][len(soa.Data[0])-20:], e.Serial)
		}
	}
	return sets
}
