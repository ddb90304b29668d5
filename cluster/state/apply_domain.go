package state

import (
	"fmt"
	"maps"
	"slices"

	"authd/keys"
	"authd/zone"
)

// addDomain claims a name for a tenant.
//
// A CNAME claim owns nothing but its targets, so it is allowed to any name that
// is not a platform zone's, also within a zone that another tenant has proven:
// without the CNAMEs, which only the holder of that zone can add, it serves nobody.
func (w *writer) addDomain(c AddDomain) Result {
	d, r := w.newDomain(c)
	if r != nil {
		return refused(r)
	}
	ring, err := keys.Start(d.ringMode(), keys.JitterOf(d.Token[:]), w.time, c.Active, c.Standby)
	if err != nil {
		return refused(invalid("keys", "%v", err))
	}
	if r := w.checkMaterial(d, keys.Ring{}, ring); r != nil {
		return refused(r)
	}
	if d.Branch, err = w.render(d, ring); err != nil {
		return refused(invalid("domain", "%v", err))
	}
	if r := w.roomIn(d); r != nil {
		return refused(r)
	}
	w.link(d, useOf(ring, keys.Ring{}))
	w.put(nil, d, ring)
	w.bumpPlatforms(d)
	if d.DMARC != "" {
		w.settleReports(d.Name)
	}
	return Result{Token: d.Token, Changed: true}
}

// newDomain checks a claim and makes the domain of it, still without keys.
func (w *writer) newDomain(c AddDomain) (*Domain, *Refusal) {
	if r := w.checkToken(c.Token); r != nil {
		return nil, r
	}
	if r := w.checkClaim(c); r != nil {
		return nil, r
	}
	if r := checkLabels(c.Labels); r != nil {
		return nil, r
	}
	if r := checkPolicy("dmarc", c.DMARC); r != nil {
		return nil, r
	}
	pool, _ := w.pools.Get(c.Pool)
	d := &Domain{
		Token: c.Token, Name: c.Name, Mode: c.Mode, State: Live, Tenant: c.Tenant, Pool: c.Pool,
		Labels: maps.Clone(c.Labels), DMARC: c.DMARC, Algorithms: slices.Clone(pool.Policy.Algorithms),
		Serial: w.firstSerial(), Registrable: c.Registrable, Override: c.Override, CreatedAt: w.time,
	}
	if len(d.Labels) == 0 {
		d.Labels = nil
	}
	var r *Refusal
	if d.SignsFor, r = w.checkSignsFor(d, c.SignsFor); r != nil {
		return nil, r
	}
	if r := checkFirstKeys(c, d.Algorithms); r != nil {
		return nil, r
	}
	if c.Mode == zone.CNAME {
		return d, w.giveTargets(d, c.Bound)
	}
	if len(c.Bound.Keys) > 0 || c.Bound.Bounce != "" || c.Bound.Click != "" || c.Bound.DMARC != "" {
		return nil, invalid("targets", "a delegated domain has no targets: they belong to mode cname")
	}
	if r := w.giveServers(d); r != nil {
		return nil, r
	}
	if w.settings.VerificationOff {
		if r := w.checkOwnership(d, nil); r != nil {
			return nil, r
		}
		d.ProvenAt = w.time
	} else {
		d.State, d.GoneAt = Pending, w.time+pendingFor
	}
	return d, nil
}

// checkToken refuses a token that was ever used.
func (w *writer) checkToken(t Token) *Refusal {
	if t == (Token{}) {
		return invalid("token", "a claim needs a token")
	}
	switch w.startingWith(t.start()) {
	case Token{}:
	case t:
		return conflict("token", []Token{t}, "token %s is in use", t)
	default:
		return conflict("token", nil, "token %s begins like another claim's: draw another", t)
	}
	if w.gone.has(t) {
		return conflict("token", nil, "token %s belonged to a claim that ended: it is never used again", t)
	}
	return nil
}

// checkClaim checks who claims what, and that it may be claimed.
func (w *writer) checkClaim(c AddDomain) *Refusal {
	if r := checkHost("domain", c.Name); r != nil {
		return r
	}
	if c.Mode != zone.Delegated && c.Mode != zone.CNAME {
		return invalid("mode", "want delegated or cname")
	}
	if _, ok := w.tenants.Get(c.Tenant); !ok {
		return notFound("tenant", "no tenant %s: add it first", quote(c.Tenant))
	}
	if w.tenantOf(w.entry.Actor) != "" {
		if r := w.roomFor(c.Tenant); r != nil {
			return r
		}
	}
	pool, ok := w.pools.Get(c.Pool)
	if !ok {
		return invalid("pool", "no pool %s: add it first", quote(c.Pool))
	}
	if c.Mode == zone.CNAME {
		if r := checkPace(pool.Policy, true); r != nil {
			return invalid("pool", "pool %s rotates too fast for mode cname: %s", quote(c.Pool), r.Message)
		}
	}
	if p := w.platformOverlap(c.Name); p != nil {
		return conflict("domain", nil, "%s: the platform zone %s is there", quoteName(c.Name), p.Apex.Host())
	}
	if r := checkSuffix(c); r != nil {
		return r
	}
	if r := roomForClaim(w.domains.Len(), w.gone.len()); r != nil {
		return r
	}
	claims := w.claimsTo(c.Name)
	for _, o := range claims {
		if o.Tenant != c.Tenant || o.Mode != c.Mode {
			continue
		}
		if o.State == Leaving {
			return conflict("domain", []Token{o.Token}, "%s is leaving as claim %s: restore that", quoteName(c.Name), o.Token)
		}
		return conflict("domain", []Token{o.Token}, "%s is claimed by tenant %s already: claim %s", quoteName(c.Name), quote(c.Tenant), o.Token)
	}
	if len(claims) >= maxClaims {
		return conflict("domain", nil, "%s has %d claims already: at most %d", quoteName(c.Name), len(claims), maxClaims)
	}
	return nil
}

// roomForClaim bounds the claims that there are, and those that there ever were: of
// each the token stays.
func roomForClaim(claims, ended int) *Refusal {
	if claims >= maxDomains {
		return invalid("domain", "%d claims already: at most %d", claims, maxDomains)
	}
	if claims+ended >= maxTombstones {
		return invalid("domain", "%d claims already and %d that have ended, whose tokens are never forgotten: at most %d in all: restore those that come back, or found another cluster", claims, ended, maxTombstones)
	}
	return nil
}

// checkSuffix keeps public suffixes and registrable domains from being claimed
// by accident. What they are, the proposer's list said.
func checkSuffix(c AddDomain) *Refusal {
	if c.Registrable != "" && (!wellFormed(c.Registrable) || !c.Name.In(c.Registrable)) {
		return invalid("domain", "the registrable domain %s is not %s or above it", quoteName(c.Registrable), quoteName(c.Name))
	}
	if c.Override {
		return nil
	}
	if c.Suffix {
		return invalid("domain", "%s is a public suffix: claim a name below a registered domain", quoteName(c.Name))
	}
	if c.Mode == zone.Delegated && c.Name == c.Registrable {
		return invalid("domain", "%s is the registered domain itself: delegating it would hand over all of its DNS: claim a name below it, as send.%s, or use mode cname", quoteName(c.Name), c.Name.Host())
	}
	return nil
}

// checkSignsFor checks further From: domains. Another tenant's proven zone
// cannot be signed for.
func (w *writer) checkSignsFor(d *Domain, names []zone.Name) ([]zone.Name, *Refusal) {
	if len(names) > maxSignsFor {
		return nil, invalid("signs_for", "%d names: at most %d", len(names), maxSignsFor)
	}
	for i, n := range names {
		field := element("signs_for", i)
		if r := checkHost(field, n); r != nil {
			return nil, r
		}
		if slices.Contains(names[:i], n) {
			return nil, invalid(field, "%s is there twice", quoteName(n))
		}
		if n == d.Name {
			return nil, invalid(field, "%s is the domain itself", quoteName(n))
		}
		if owner := w.ownerAbove(n); owner != nil && owner.Tenant != d.Tenant {
			return nil, conflict(field, []Token{owner.Token}, "%s lies in a zone that another tenant has proven: claim %s", quoteName(n), owner.Token)
		}
		if r := w.checkListers(d, field, n); r != nil {
			return nil, r
		}
	}
	return slices.Clone(names), nil
}

// checkListers bounds how many claims list a name, and how many of one tenant: or one
// alone could keep all others from it.
func (w *writer) checkListers(d *Domain, field string, n zone.Name) *Refusal {
	listers := w.signs.at(n)
	if slices.Contains(listers, d.Token) {
		return nil
	}
	own := 0
	for _, t := range listers {
		if r, ok := w.domains.Get(t.key()); ok && r.head().Tenant == d.Tenant {
			own++
		}
	}
	if own >= maxListers {
		return conflict(field, nil, "%s is signed for by %d other domains of tenant %s: at most %d", quoteName(n), own, quote(d.Tenant), maxListers)
	}
	if len(listers) >= maxClaims {
		return conflict(field, nil, "%s is signed for by %d domains already: at most %d", quoteName(n), len(listers), maxClaims)
	}
	return nil
}

// giveServers chooses the NS set of a delegated claim: one name a name server,
// over the platform zones in turn, ideally under several TLDs. It never changes.
func (w *writer) giveServers(d *Domain) *Refusal {
	var zones []*platformEntry
	w.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		zones = append(zones, p)
		return true
	})
	servers := w.serversInOrder()
	if len(servers) == 0 || len(zones) == 0 {
		return conflict("domain", nil, "a delegated domain needs a name server and a platform zone: add them first")
	}
	token := d.Token.text()
	for i, s := range servers[:min(len(servers), maxServerNames)] {
		p := zones[i%len(zones)]
		n, err := token.name(p.Apex, s.Label)
		if err != nil {
			return invalid("domain", "%v", err)
		}
		d.Servers = append(d.Servers, zone.ServerName{Name: n, Platform: p.Number, Server: s.Label})
	}
	return nil
}

// giveTargets chooses the target names of a CNAME claim: bound ones where an
// admin gave them, otherwise generated in the first platform zone.
func (w *writer) giveTargets(d *Domain, b BoundTargets) *Refusal {
	first, ok := w.firstPlatform()
	if !ok {
		return conflict("domain", nil, "a cname domain needs a platform zone: add one first")
	}
	d.Prefix = w.freePrefix(d.Name)
	if _, err := d.Name.Child(d.Prefix+"ke3", "_domainkey"); err != nil {
		return invalid("domain", "%s is too long for the names below it: %v", quoteName(d.Name), err)
	}
	if n := len(b.Keys); n > 0 && n != slotsPerAlgorithm*len(d.Algorithms) {
		return invalid("targets.keys", "%d names: want %d for each of the pool's %d algorithms", n, slotsPerAlgorithm, len(d.Algorithms))
	}
	var taken []zone.Name
	token := d.Token.text()
	give := func(field string, bound zone.Name, labels ...string) (zone.Target, *Refusal) {
		if bound == "" {
			n, err := token.name(first.Apex, labels...)
			if err != nil {
				return zone.Target{}, invalid("domain", "%v", err)
			}
			return zone.Target{Name: n, Platform: first.Number}, nil
		}
		p, r := w.checkBound(field, bound)
		if r != nil {
			return zone.Target{}, r
		}
		if slices.Contains(taken, bound) {
			return zone.Target{}, invalid(field, "%s is there twice", quoteName(bound))
		}
		taken = append(taken, bound)
		return zone.Target{Name: bound, Platform: p.Number}, nil
	}
	for i := range slotsPerAlgorithm * len(d.Algorithms) {
		var bound zone.Name
		if len(b.Keys) > 0 {
			if bound = b.Keys[i]; bound == "" {
				return invalid(element("targets.keys", i), "no name: give all or none")
			}
		}
		t, r := give(element("targets.keys", i), bound, keySlotLabel(d.Algorithms, i), labelDKIM)
		if r != nil {
			return r
		}
		d.Targets.Keys = append(d.Targets.Keys, t)
	}
	var r *Refusal
	if d.Targets.Bounce, r = give("targets.bounce", b.Bounce, labelBounce); r != nil {
		return r
	}
	if d.Targets.Click, r = give("targets.click", b.Click, labelClick); r != nil {
		return r
	}
	d.Targets.DMARC, r = give("targets.dmarc", b.DMARC, labelDMARC)
	return r
}

// freePrefix is the prefix that tells the customer-side names of several CNAME claims to
// one name apart: none for the first, then t2-, t3-, … It is free again once its claim is
// gone, because the targets behind it never come back.
func (w *writer) freePrefix(n zone.Name) string {
	used := make(map[string]bool)
	for _, o := range w.claimsTo(n) {
		if o.Mode == zone.CNAME {
			used[o.Prefix] = true
		}
	}
	prefix := ""
	for i := 2; used[prefix]; i++ {
		prefix = fmt.Sprintf("t%d-", i)
	}
	return prefix
}

// checkBound checks one owner name that an admin binds to a claim.
func (w *writer) checkBound(field string, n zone.Name) (*platformEntry, *Refusal) {
	if !wellFormed(n) {
		return nil, invalid(field, "%s is not a domain name", quote(string(n)))
	}
	p := w.platformOf(n)
	if p == nil || p.Apex == n {
		return nil, invalid(field, "%s is not below a platform zone", quoteName(n))
	}
	if reserved(n, p.Apex) {
		return nil, invalid(field, "%s is managed: ns1…, dkim, bounce, click, dmarc, spf and what lies below them is generated", quoteName(n))
	}
	for rest := n; rest != p.Apex; rest = rest.Parent() {
		// A label like a token would be taken for a generated name.
		if _, err := ParseToken(rest.Label()); err == nil || rest.Label() == "*" {
			return nil, invalid(field, "%s: bind a name that exists, without wildcards or labels of %d base32 characters", quoteName(n), TokenLength)
		}
	}
	if holder := w.bound.at(n); holder != nil {
		return nil, conflict(field, holder, "%s is bound to claim %s", quoteName(n), tokenList(holder))
	}
	if w.goneBound.has(hash16(string(n))) {
		return nil, conflict(field, nil, "%s was bound to a claim that ended: it is never given again", quoteName(n))
	}
	for i := range p.Records {
		s := &p.Records[i]
		if s.Owner == n {
			return nil, conflict(field, nil, "%s has %s records in the platform zone: remove them first", quoteName(n), s.Type)
		}
		if isCut(s.Type) && n.In(s.Owner) {
			return nil, conflict(field, nil, "%s lies below the %s records of %s", quoteName(n), s.Type, quoteName(s.Owner))
		}
	}
	return p, nil
}

// patchDomain changes what is not nil.
func (w *writer) patchDomain(c PatchDomain) Result {
	old, r := w.claim(c.Token)
	if r != nil {
		return refused(r)
	}
	if c.Serial != 0 && c.Serial != old.Serial {
		return Result{Token: c.Token, Refusal: stale("serial", "the domain changed since you looked: its serial is %d, not %d: read it again", old.Serial, c.Serial)}
	}
	d := *old
	if r := w.patch(&d, old, c); r != nil {
		return Result{Token: c.Token, Refusal: r}
	}
	visible := d.Pool != old.Pool || d.DMARC != old.DMARC
	if !visible && maps.Equal(d.Labels, old.Labels) && slices.Equal(d.SignsFor, old.SignsFor) {
		return Result{Token: c.Token}
	}
	d.Serial = w.serialFor(old, d.Pool) // also where DNS shows nothing: it is the ETag
	ring := old.Ring()
	if d.Pool != old.Pool {
		ring = ring.Moved(w.policy(old), w.policy(&d), w.time)
	}
	branch, err := w.render(&d, ring)
	if err != nil {
		return Result{Token: c.Token, Refusal: invalid("dmarc", "%v", err)}
	}
	d.Branch = branch
	if r := w.roomIn(&d); r != nil {
		return Result{Token: c.Token, Refusal: r}
	}
	if visible && d.Mode == zone.CNAME {
		w.bumpPlatforms(&d)
	}
	w.move(old, &d)
	w.put(old, &d, ring)
	if d.DMARC != old.DMARC {
		w.settleReports(d.Name)
	}
	return Result{Token: c.Token, Changed: true}
}

// patch writes what changes into d, a copy of old.
func (w *writer) patch(d, old *Domain, c PatchDomain) (r *Refusal) {
	if c.Pool != nil && *c.Pool != old.Pool {
		pool, ok := w.pools.Get(*c.Pool)
		if !ok {
			return invalid("pool", "no pool %s: add it first", quote(*c.Pool))
		}
		if old.Mode == zone.CNAME {
			if r := checkPace(pool.Policy, true); r != nil {
				return invalid("pool", "pool %s rotates too fast for mode cname: %s", quote(*c.Pool), r.Message)
			}
		}
		w.moves(d)
		d.Pool = *c.Pool
	}
	if c.Labels != nil {
		if r := checkLabels(*c.Labels); r != nil {
			return r
		}
		d.Labels = maps.Clone(*c.Labels)
	}
	if c.DMARC != nil {
		if r := checkPolicy("dmarc", *c.DMARC); r != nil {
			return r
		}
		d.DMARC = *c.DMARC
	}
	if c.SignsFor != nil {
		if d.SignsFor, r = w.checkSignsFor(old, *c.SignsFor); r != nil {
			return r
		}
	}
	return nil
}

// serialFor is the domain's counter in another pool: high enough that the sum of
// both counters, which is the zone's serial, rises (RFC 1982).
func (w *writer) serialFor(d *Domain, pool string) uint32 {
	from, _ := w.pools.Get(d.Pool)
	to, _ := w.pools.Get(pool)
	if from.Serial > to.Serial {
		return d.Serial + (from.Serial - to.Serial) + 1
	}
	return d.Serial + 1
}

// move updates the counts of pools and the index of SignsFor when a claim changes.
func (w *writer) move(old, d *Domain) {
	if old.Pool != d.Pool {
		w.countPool(old, -1)
		w.countPool(d, 1)
	}
	if !slices.Equal(old.SignsFor, d.SignsFor) {
		for _, n := range old.SignsFor {
			w.signs.drop(n, d.Token)
		}
		for _, n := range d.SignsFor {
			w.signs.add(n, d.Token)
		}
	}
}

// claim finds the claim that a command is about.
func (w *writer) claim(t Token) (*Domain, *Refusal) {
	if d, ok := w.find(t); ok {
		return d, nil
	}
	if w.gone.has(t) {
		return nil, notFound("domain", "claim %s has ended: its names are never given again", t)
	}
	return nil, notFound("domain", "no claim %s", t)
}
