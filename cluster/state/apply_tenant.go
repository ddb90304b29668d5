package state

// addTenant adds a tenant.
func (w *writer) addTenant(c AddTenant) Result {
	if r := checkID("id", c.ID); r != nil {
		return refused(r)
	}
	if r := checkTitle("name", c.Name); r != nil {
		return refused(r)
	}
	if r := checkMaxDomains(c.MaxDomains); r != nil {
		return refused(r)
	}
	if old, ok := w.tenants.Get(c.ID); ok {
		if old.Name == c.Name && (c.MaxDomains == 0 || c.MaxDomains == old.MaxDomains) {
			return same
		}
		if old.Name == c.Name {
			return refused(conflict("max_domains", nil, "tenant %s is there already with at most %d domains: change that of the tenant that is there", c.ID, old.DomainLimit()))
		}
		return refused(conflict("id", nil, "tenant %s is there already with the name %s", c.ID, quote(old.Name)))
	}
	if w.tenants.Len() >= MaxTenants {
		return refused(invalid("id", "%d tenants already: at most %d", w.tenants.Len(), MaxTenants))
	}
	w.tenantNumber++
	w.setTenant(&Tenant{Number: w.tenantNumber, ID: c.ID, Name: c.Name, CreatedAt: w.time, MaxDomains: c.MaxDomains})
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

// limitTenant sets how many domains a tenant's own tokens may add. A bound below what
// the tenant has takes nothing away.
func (w *writer) limitTenant(c LimitTenant) Result {
	if r := checkMaxDomains(c.MaxDomains); r != nil {
		return refused(r)
	}
	return w.changeTenant(c.ID, func(t *Tenant) { t.MaxDomains = c.MaxDomains })
}

func checkMaxDomains(n uint32) *Refusal {
	if n > MaxDomains {
		return invalid("max_domains", "%d: at most %d, or 0 for the default of %d", n, MaxDomains, DefaultTenantDomains)
	}
	return nil
}

// countTenant keeps how many claims a tenant has.
func (w *writer) countTenant(id string, by int) {
	w.changeTenant(id, func(t *Tenant) { t.Domains += by })
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
