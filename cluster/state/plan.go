package state

import (
	"fmt"
	"strings"

	"authd/keys"
	"authd/zone"
)

// usualRing and usualMeta are the octets that the encoded keys of a claim, and the
// rest of what is kept of it, hardly ever exceed.
const usualRing, usualMeta = 768, 256

// plan is what a claim should have in DNS. It depends on the claim, its ring and
// two numbers that never change while the claim lives, so that a branch made
// again from an image is the branch that was.
func (d *Domain) plan(tenant, pool uint32, ring keys.Ring) (zone.Plan, error) {
	p := d.planWithoutKeys(tenant, pool)
	p.Attachment = ring.Append(make([]byte, 0, usualRing))
	records := ring.Records(d.Algorithms)
	p.Keys = make([]zone.KeyRecord, 0, len(records))
	for _, r := range records {
		owner, err := d.keyOwner(r.Selector)
		if err != nil {
			return zone.Plan{}, err
		}
		ttl := uint32(zone.TTLKey)
		if r.Short {
			ttl = zone.TTLKeyShort
		}
		p.Keys = append(p.Keys, zone.KeyRecord{Owner: owner, TTL: ttl, Payload: r.Payload, Watched: r.Watched})
	}
	return p, nil
}

func (d *Domain) planWithoutKeys(tenant, pool uint32) zone.Plan {
	p := zone.Plan{
		Form:    zone.Form,
		Mode:    d.Mode,
		Tenant:  tenant,
		Pool:    pool,
		Serial:  d.Serial,
		DMARC:   d.DMARC,
		Reports: d.Reports,
	}
	if d.Mode == zone.Delegated {
		p.Zone, p.Servers, p.Proven, p.Records = d.Name, d.Servers, d.ProvenAt != 0, d.Records
	} else {
		p.Targets = d.Targets
	}
	return p
}

// keyOwner is the name at which DNS answers for a selector of the ring.
func (d *Domain) keyOwner(selector string) (zone.Name, error) {
	if d.Mode == zone.Delegated {
		if !strings.Contains(selector, ".") {
			return d.Name.Child(selector, "_domainkey")
		}
		// An imported selector may have several labels (RFC 6376 section 3.1).
		return d.Name.Child(append(strings.Split(selector, "."), "_domainkey")...)
	}
	for i, t := range d.Targets.Keys {
		if label := keySlotLabel(d.Algorithms, i); label != "" && label == selector {
			return t.Name, nil
		}
	}
	return "", fmt.Errorf("no target for selector %s", quote(selector))
}

// KeyName is the name at which DNS answers a key of the domain.
func (d *Domain) KeyName(k keys.Key) (zone.Name, error) { return d.keyOwner(k.Selector) }

// ringMode is how selectors are named in a claim's mode.
func (d *Domain) ringMode() keys.RingMode {
	if d.Mode == zone.CNAME {
		return keys.Slots
	}
	return keys.Minted
}

// Ring decodes the domain's keys. It costs a few microseconds.
func (d *Domain) Ring() keys.Ring {
	r, err := keys.DecodeRing(d.Branch.Attachment(), d.payload)
	if err != nil {
		panic(fmt.Sprintf("the keys of claim %s do not decode: %v: stop this node and restore it from a snapshot", d.Token, err))
	}
	return r
}

// payload is the TXT payload served for a selector of the ring.
func (d *Domain) payload(selector string) string {
	owner, err := d.keyOwner(selector)
	if err != nil {
		return ""
	}
	text, _ := d.Branch.Text(owner)
	return text
}

// Selector is the selector that signers put into signatures and receivers ask
// for: the key's own in a delegated zone, the customer-side label in CNAME mode.
func (d *Domain) Selector(k keys.Key) string { return d.Prefix + k.Selector }

// render makes a claim's branch.
func (t *tables) render(d *Domain, ring keys.Ring) (zone.Branch, error) {
	return t.renderWith(d, func(tenant, pool uint32) (zone.Plan, error) { return d.plan(tenant, pool, ring) })
}

// renderHeld is render with the keys as they are in the claim's branch, which spares
// decoding them.
func (t *tables) renderHeld(d *Domain) (zone.Branch, error) {
	return t.renderWith(d, func(tenant, pool uint32) (zone.Plan, error) {
		p := d.planWithoutKeys(tenant, pool)
		p.Held = d.Branch
		return p, nil
	})
}

func (t *tables) renderWith(d *Domain, plan func(tenant, pool uint32) (zone.Plan, error)) (zone.Branch, error) {
	tenant, ok := t.tenants.Get(d.Tenant)
	if !ok {
		return "", fmt.Errorf("claim %s: no tenant %s", d.Token, quote(d.Tenant))
	}
	pool, ok := t.pools.Get(d.Pool)
	if !ok {
		return "", fmt.Errorf("claim %s: no pool %s", d.Token, quote(d.Pool))
	}
	p, err := plan(tenant.Number, pool.Number)
	if err != nil {
		return "", err
	}
	return zone.Render(p)
}

// policy is the rotation policy of a claim. Its algorithms were fixed with the
// claim, because slots were.
func (t *tables) policy(d *Domain) keys.Policy {
	pool, _ := t.pools.Get(d.Pool)
	p := pool.Policy
	p.Algorithms = d.Algorithms
	return p
}

// poolPlan is what the domains of a pool share. base is the platform zone that
// holds the parts of a long SPF record.
func poolPlan(p *Pool, base zone.Name) (zone.PoolPlan, error) {
	include, err := base.Child(p.ID, labelSPF)
	if err != nil {
		return zone.PoolPlan{}, err
	}
	return zone.PoolPlan{
		Form:        zone.Form,
		Number:      p.Number,
		ID:          p.ID,
		Serial:      p.Serial,
		SPF:         p.SPF,
		SPFAll:      p.SPFAll,
		MX:          p.MX,
		ClickA:      p.ClickA,
		ClickCNAME:  p.ClickCNAME,
		DMARC:       p.DMARC,
		IncludeBase: include,
	}, nil
}

// platformPlan is what a platform zone holds besides the names of claims. Its
// counter is not in it: that moves with every claim, and Publish sets it alone.
func (t *tables) platformPlan(p *Platform) zone.PlatformPlan {
	plan := zone.PlatformPlan{
		Form:    zone.Form,
		Number:  p.Number,
		Apex:    p.Apex,
		Contact: p.Contact,
		Records: p.Records,
	}
	for _, s := range t.serversInOrder() {
		if n, err := p.Apex.Child(s.Label); err == nil { // PutPlatform left room for the label
			plan.NS = append(plan.NS, n)
		}
		plan.Servers = append(plan.Servers, zone.NameServer{Label: s.Label, Addresses: s.Addresses})
	}
	first, _ := t.firstPlatform()
	t.pools.Scan(func(_ string, pool *poolEntry) bool {
		if first.Number == p.Number {
			plan.Includes = append(plan.Includes, pool.answers.Includes()...)
		}
		for _, host := range reportHosts(pool.DMARC) {
			if host.In(p.Apex) {
				if plan.Reports == nil {
					plan.Reports = make(map[zone.Name][]uint32)
				}
				plan.Reports[host] = append(plan.Reports[host], pool.Number)
			}
		}
		return true
	})
	return plan
}

// serversInOrder lists the name servers, ns2 before ns10.
func (t *tables) serversInOrder() []*serverEntry {
	list := make([]*serverEntry, 0, t.servers.Len())
	t.servers.Scan(func(_ string, s *serverEntry) bool {
		at := len(list)
		for at > 0 && serverBefore(s.Label, list[at-1].Label) {
			at--
		}
		list = append(list, nil)
		copy(list[at+1:], list[at:])
		list[at] = s
		return true
	})
	return list
}

// reportTargets are the names that authorise reports about a domain to hosts in
// platform zones.
func (t *tables) reportTargets(name zone.Name, policy string) (targets []zone.Target) {
	for _, host := range reportHosts(policy) {
		p := t.platformOf(host)
		if p == nil {
			continue
		}
		if n, err := reportName(name, host); err == nil { // else too long for anyone to ask
			targets = append(targets, zone.Target{Name: n, Platform: p.Number})
		}
	}
	return targets
}

// reportName is <domain>._report._dmarc.<host>.
func reportName(domain, host zone.Name) (zone.Name, error) {
	labels := make([]string, 0, domain.Labels()+2)
	for rest := domain; rest != zone.Root; rest = rest.Parent() {
		labels = append(labels, rest.Label())
	}
	return host.Child(append(labels, "_report", "_dmarc")...)
}
