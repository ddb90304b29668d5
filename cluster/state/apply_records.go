package state

import (
	"slices"

	"authd/zone"
)

// setDomainRecords sets many extra RRsets of a delegated domain, or none of them.
func (w *writer) setDomainRecords(c SetDomainRecords) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	result := Result{Token: c.Token}
	d := *old
	if d.Mode != zone.Delegated {
		result.Refusal = invalid("domain", "%s is in mode cname: its other records stay in the customer's own zone", quoteName(d.Name))
		return result
	}
	if d.Records, result.Refusal = mergeRecords(old.Records, c, d.Name); result.Refusal != nil {
		return result
	}
	if !c.Admin {
		if result.Refusal = checkSameCuts(old.Records, d.Records); result.Refusal != nil {
			return result
		}
	}
	if slices.EqualFunc(old.Records, d.Records, equalRRsets) {
		return result
	}
	result.Refusal = w.storeRecords(old, &d, "sets")
	result.Changed = result.Refusal == nil
	return result
}

// storeRecords renders a claim whose records changed, and stores it; field is where
// records that do not render came from.
func (w *writer) storeRecords(old, d *Domain, field string) *Refusal {
	touched(d)
	var err error
	if d.Branch, err = w.renderHeld(d); err != nil {
		return invalid(field, "%v", err)
	}
	if r := w.roomIn(d); r != nil {
		return r
	}
	w.store(old, d)
	return nil
}

// mergeRecords are the extra records after a command, in the order in which they
// are kept.
func mergeRecords(old []zone.RRset, c SetDomainRecords, apex zone.Name) ([]zone.RRset, *Refusal) {
	if len(c.Sets) > MaxDomainRecords {
		return nil, invalid("sets", "%d record sets: at most %d", len(c.Sets), MaxDomainRecords)
	}
	for i, s := range c.Sets {
		if r := checkRRset(s, apex); r != nil {
			r.Message = quoteName(s.Owner) + " " + s.Type.String() + ": " + r.Message
			r.Field = element("sets", i) + "." + r.Field
			return nil, r
		}
		if len(s.Data) == 0 {
			return nil, invalid(element("sets", i), "%s %s: no values", quoteName(s.Owner), s.Type)
		}
		if i > 0 && !recordBefore(&c.Sets[i-1], &s) {
			return nil, invalid(element("sets", i), "%s %s: not in canonical order, or there twice", quoteName(s.Owner), s.Type)
		}
	}
	next := slices.Clone(c.Sets)
	if !c.Replace {
		for _, s := range old {
			at, there := slices.BinarySearchFunc(c.Sets, s, compareRecords)
			if !there {
				next = append(next, s)
			} else if equalRRsets(c.Sets[at], s) {
				next[at] = s // shared with the older machine
			}
		}
		slices.SortFunc(next, compareRecords)
	}
	if len(next) > MaxDomainRecords {
		return nil, invalid("sets", "%d record sets in all: at most %d", len(next), MaxDomainRecords)
	}
	if size := rrsetsSize(next); size > maxDomainOctets {
		return nil, invalid("sets", "%d octets of records in all: at most %d", size, maxDomainOctets)
	}
	return next, nil
}

func compareRecords(a, b zone.RRset) int {
	switch {
	case recordBefore(&a, &b):
		return -1
	case recordBefore(&b, &a):
		return 1
	}
	return 0
}

// checkSameCuts refuses a change of what is handed to others.
func checkSameCuts(old, next []zone.RRset) *Refusal {
	cuts := func(list []zone.RRset) (out []zone.RRset) {
		for _, s := range list {
			if isCut(s.Type) {
				out = append(out, s)
			}
		}
		return out
	}
	was, now := cuts(old), cuts(next)
	for _, pair := range [...]struct{ some, others []zone.RRset }{{now, was}, {was, now}} {
		for _, s := range pair.some {
			if !slices.ContainsFunc(pair.others, func(o zone.RRset) bool { return equalRRsets(s, o) }) {
				return invalid("sets", "%s %s needs admin scope to be added, changed or removed: it hands a part of the domain to others", quoteName(s.Owner), s.Type)
			}
		}
	}
	return nil
}

// putDomainRecord sets or removes an extra RRset of a delegated domain.
func (w *writer) putDomainRecord(c PutDomainRecord) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	d := *old
	result := Result{Token: c.Token}
	if d.Mode != zone.Delegated {
		result.Refusal = invalid("name", "%s is in mode cname: its other records stay in the customer's own zone", quoteName(d.Name))
		return result
	}
	if result.Refusal = checkRRset(c.Set, d.Name); result.Refusal != nil {
		return result
	}
	if isCut(c.Set.Type) && !c.Admin {
		result.Refusal = invalid("type", "%s needs admin scope: it hands a part of the domain to others", c.Set.Type)
		return result
	}
	if s := c.Set; s.Owner == d.Name && s.Type == zone.TypeTXT && len(s.Data) > 0 && s.TTL != zone.TTLMail {
		result.Refusal = invalid("ttl", "%d: TXT at %s joins the SPF record there, whose TTL is %d (RFC 2181 section 5.2)", s.TTL, quoteName(d.Name), zone.TTLMail)
		return result
	}
	octets := rrsetsSize(d.Records)
	changed, r := editRecords(&d.Records, &octets, c.Set, MaxDomainRecords, maxDomainOctets)
	if r != nil || !changed {
		result.Refusal = r
		return result
	}
	result.Refusal = w.storeRecords(old, &d, "values")
	result.Changed = result.Refusal == nil
	return result
}
