package state

// addTenant adds a tenant.
func (w *writer) addTenant(c AddTenant) Result {
	if r := checkID("id", c.ID); r != nil {
		return refused(r)
	}
	if r := checkTitle("name", c.Name); r != nil {
		return refused(r)
	}
	if r := checkBounds(c.MaxDomains, c.MaxOctets); r != nil {
		return refused(r)
	}
	switch old, ok := w.tenants.Get(c.ID); {
	case !ok:
	case old.Name != c.Name:
		return refused(conflict("id", nil, "tenant %s is there already with the name %s", c.ID, quote(old.Name)))
	case c.MaxDomains != 0 && c.MaxDomains != old.MaxDomains:
		return refused(conflict("max_domains", nil, "tenant %s is there already with at most %d domains: change that of the tenant that is there", c.ID, old.DomainLimit()))
	case c.MaxOctets != 0 && c.MaxOctets != old.MaxOctets:
		return refused(conflict("max_octets", nil, "tenant %s is there already with at most %d octets: change that of the tenant that is there", c.ID, old.OctetLimit()))
	default:
		return same
	}
	if w.tenants.Len() >= maxTenants {
		return refused(invalid("id", "%d tenants already: at most %d", w.tenants.Len(), maxTenants))
	}
	w.tenantNumber++
	w.setTenant(&Tenant{Number: w.tenantNumber, ID: c.ID, Name: c.Name, CreatedAt: w.time, MaxDomains: c.MaxDomains, MaxOctets: c.MaxOctets})
	return done
}

// suspendTenant suspends or resumes. DNS goes on unchanged, rotations too, so
// that a tenant who comes back finds keys as fresh as everyone's.
func (w *writer) suspendTenant(c SuspendTenant) Result {
	return w.changeTenant(c.ID, func(t *Tenant) { t.Suspended = c.Suspended })
}

func (w *writer) changeTenant(id string, change func(*Tenant)) Result {
	old, ok := w.tenants.Get(id)
	if !ok {
		return refused(notFound("tenant", "no tenant %s", quote(id)))
	}
	next := *old
	if change(&next); next == *old {
		return same
	}
	w.setTenant(&next)
	return done
}

// limitTenant sets what a tenant's own tokens may add. A bound below what the tenant has
// takes nothing away.
func (w *writer) limitTenant(c LimitTenant) Result {
	var domains, octets uint32 // 0 is in bounds
	if c.MaxDomains != nil {
		domains = *c.MaxDomains
	}
	if c.MaxOctets != nil {
		octets = *c.MaxOctets
	}
	if r := checkBounds(domains, octets); r != nil {
		return refused(r)
	}
	return w.changeTenant(c.ID, func(t *Tenant) {
		if c.MaxDomains != nil {
			t.MaxDomains = domains
		}
		if c.MaxOctets != nil {
			t.MaxOctets = octets
		}
	})
}

func checkBounds(domains, octets uint32) *Refusal {
	if domains > maxDomains {
		return invalid("max_domains", "%d: at most %d, or 0 for the default of %d", domains, maxDomains, defaultTenantDomains)
	}
	if octets > maxTenantOctets {
		return invalid("max_octets", "%d: at most %d, or 0 for the default of %d", octets, maxTenantOctets, defaultTenantOctets)
	}
	return nil
}

// countTenant keeps how many claims a tenant has, and what they take.
func (w *writer) countTenant(id string, domains, octets int) {
	if domains != 0 || octets != 0 {
		w.changeTenant(id, func(t *Tenant) { t.Domains, t.Octets = t.Domains+domains, t.Octets+octets })
	}
}

// RoomFor says whether a tenant's own token may add one more domain. Else one tenant
// could fill the memory of all nodes; the platform's own tokens are not bound.
func (m Machine) RoomFor(tenant string) *Refusal { return m.tables().roomFor(tenant) }

func (t *tables) roomFor(tenant string) *Refusal {
	of, ok := t.tenants.Get(tenant)
	if !ok || of.Domains < of.DomainLimit() {
		return nil
	}
	return conflict("tenant", nil, "tenant %s has %d domains, at most %d that its own tokens add: let one end, or ask the operator to raise the bound", quote(of.ID), of.Domains, of.DomainLimit())
}

// roomIn says whether a tenant's own token may make of a claim what it is in d. What is
// counted is what nodes hold, not what was written: one record of a name with a hundred
// labels makes a hundred names.
func (w *writer) roomIn(d *Domain) *Refusal {
	of, ok := w.tenants.Get(d.Tenant)
	if !ok || w.tenantOf(w.entry.Actor) == "" {
		return nil
	}
	was, _ := w.domains.Get(d.Token.key())
	more := recordOf(d).unusual() - was.unusual()
	if more <= 0 || of.Octets+more <= of.OctetLimit() {
		return nil
	}
	return conflict("tenant", nil, "the domains of tenant %s would take %d octets past %d each, at most %d that its own tokens fill: remove records, labels or names to sign for, or ask the operator to raise the bound",
		quote(of.ID), of.Octets+more, usualDomain, of.OctetLimit())
}
