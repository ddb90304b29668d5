package state

import (
	"cmp"
	"slices"
	"strings"

	"authd/zone"
)

// Whose keys sign for a name that several tenants claim or list is decided by what
// shows who holds the name's DNS: a delegation to a claim, or CNAMEs that lead to one's
// targets. Nobody proves anything by asking first.

// SignerFor is the live claim that signs for a From: domain, of one tenant's where one
// is given: the claim to the name itself, or one whose SignsFor lists it. Of several
// tenants' it is that of the one that vouches best for the name. Of several alike it is
// the one that was proven first, or is the oldest, so that a later claim to a name takes
// nothing away.
func (m Machine) SignerFor(n zone.Name, tenant string) (*Domain, bool) {
	t := m.tables()
	lister := firstSigner(t.all(t.signs.at(n)), n, tenant)
	own := firstSigner(t.claimsTo(n), n, tenant)
	if own != nil && lister != nil && own.vouches(n) < lister.vouches(n) {
		own = firstSigner(t.claimsTo(n), n, lister.Tenant)
	}
	if own == nil {
		own = lister
	}
	return own, own != nil
}

func firstSigner(claims []*Domain, n zone.Name, tenant string) (best *Domain) {
	for _, d := range claims {
		if d.State == Live && (tenant == "" || d.Tenant == tenant) && (best == nil || d.signsBefore(best, n)) {
			best = d
		}
	}
	return best
}

// How well a claim vouches for a name. Whoever has a zone at the name, above it or
// below it delegated to him holds its DNS; so does whoever has CNAMEs there, but those
// are asked for less often, and stay when somebody forgets to remove them.
const (
	vouchNone  = 0
	vouchCNAME = 1
	vouchZone  = 2
)

// vouches says how well it is shown that a claim's tenant holds the DNS of a name.
func (d *Domain) vouches(n zone.Name) int {
	switch {
	case d.ProvenAt == 0 || !d.relates(n):
		return vouchNone
	case d.Mode == zone.CNAME:
		return vouchCNAME
	}
	return vouchZone
}

// relates says whether a name is the claim's, or above it or below it.
func (d *Domain) relates(n zone.Name) bool { return d.Name.In(n) || n.In(d.Name) }

func (d *Domain) signsBefore(o *Domain, n zone.Name) bool {
	vouch, other := d.vouches(n), o.vouches(n)
	switch {
	case vouch != other:
		return vouch > other
	case d.Mode != o.Mode:
		return d.Mode == zone.Delegated
	case vouch == vouchCNAME && d.ProvenAt != o.ProvenAt:
		return d.ProvenAt < o.ProvenAt
	case d.CreatedAt != o.CreatedAt:
		return d.CreatedAt < o.CreatedAt
	}
	return d.Token.key() < o.Token.key()
}

// candidates are the claims to a name and those that list it, in whatever state.
func (t *tables) candidates(n zone.Name) []*Domain {
	return append(t.claimsTo(n), t.all(t.signs.at(n))...)
}

// Contest are the claims in mode cname of which CNAMEs would show that they should sign
// for a name, where claims of several tenants might and no delegation says which: the
// leader looks at them. They wait since the youngest of all these claims was added.
func (m Machine) Contest(n zone.Name) (list []Waiting) {
	tenant, several, since := "", false, int64(0)
	for _, d := range m.tables().candidates(n) {
		if d.State != Live {
			continue
		}
		if d.vouches(n) == vouchZone {
			return nil
		}
		several = several || tenant != "" && d.Tenant != tenant
		tenant, since = d.Tenant, max(since, d.CreatedAt)
		if d.Mode == zone.CNAME && d.relates(n) {
			list = append(list, Waiting{Token: d.Token, Contested: n})
		}
	}
	if !several {
		return nil
	}
	for i := range list {
		list[i].Since = since
	}
	return list
}

// Contested says whether a claim is in such a contest.
func (m Machine) Contested(d *Domain) bool {
	if d.Mode != zone.CNAME || d.State != Live {
		return false
	}
	return slices.ContainsFunc(d.signable(), func(n zone.Name) bool {
		return slices.ContainsFunc(m.Contest(n), func(w Waiting) bool { return w.Token == d.Token })
	})
}

// signable are the names that a claim signs for and would vouch for.
func (d *Domain) signable() []zone.Name {
	names := []zone.Name{d.Name}
	for _, n := range d.SignsFor {
		if d.relates(n) {
			names = append(names, n)
		}
	}
	return names
}

// Shared walks the names that more than one claim has or lists, at most so many entries
// of each index at a time; most is above maxClaims. It begins at "" or where the last
// call ended, and ends with next "".
func (m Machine) Shared(from string, most int) (names []zone.Name, next string) {
	t := m.tables()
	var pairs []string
	for _, x := range []*nameIndex{&t.claims, &t.signs} {
		count := 0
		x.pairs.Ascend(from, func(pair string, _ struct{}) bool {
			if count++; next != "" && pair >= next {
				return false
			}
			if count > most {
				next = nameIn(pair) // whole names only: the next call has all of this one
				return false
			}
			pairs = append(pairs, pair)
			return true
		})
	}
	slices.Sort(pairs)
	shared := ""
	for i := 1; i < len(pairs); i++ {
		this := nameIn(pairs[i])
		if next != "" && this >= next {
			break
		}
		if this != nameIn(pairs[i-1]) || this == shared {
			continue
		}
		shared = this
		if d, ok := t.find(tokenIn(pairs[i])); ok {
			at := slices.IndexFunc(d.SignsFor, func(n zone.Name) bool { return n.Reverse() == this })
			if at >= 0 {
				names = append(names, d.SignsFor[at])
			} else {
				names = append(names, d.Name)
			}
		}
	}
	return names, next
}

// maxRivals bounds the claims that one look at another's CNAMEs looks at too.
const maxRivals = 4

// Rivals are the claims of other tenants whose CNAMEs let them sign for a name that this
// claim could sign for, those that were proven first.
func (m Machine) Rivals(d *Domain) (list []*Domain) {
	for _, n := range d.signable() {
		for _, o := range m.tables().candidates(n) {
			known := slices.ContainsFunc(list, func(r *Domain) bool { return r.Token == o.Token })
			if !known && o.Tenant != d.Tenant && o.vouches(n) == vouchCNAME {
				list = append(list, o)
			}
		}
	}
	slices.SortFunc(list, func(a, b *Domain) int {
		return cmp.Or(cmp.Compare(a.ProvenAt, b.ProvenAt), strings.Compare(a.Token.key(), b.Token.key()))
	})
	return list[:min(len(list), maxRivals)]
}

// proveAliases notes that a customer's CNAMEs lead to a claim, and for which claims they
// no longer do. Neither changes what DNS answers: it is whose keys sign that changes.
func (w *writer) proveAliases(old *Domain, c ProveDomain) (changed bool) {
	set := func(old *Domain, at int64, by string) {
		d := *old
		d.ProvenAt, d.AttestedBy = at, by
		w.store(old, &d)
		changed = true
	}
	for _, token := range c.Gone {
		if o, ok := w.find(token); ok && o.Mode == zone.CNAME && o.ProvenAt != 0 && token != old.Token {
			set(o, 0, "")
		}
	}
	if old.ProvenAt == 0 {
		set(old, w.time, w.attestor(c))
	}
	return changed
}

// attestor is who proves a claim where that is an admin, and why.
func (w *writer) attestor(c ProveDomain) string {
	if !c.Attested {
		return ""
	}
	return w.entry.Actor + ": " + w.entry.Reason
}
