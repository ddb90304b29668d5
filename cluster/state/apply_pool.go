package state

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"authd/keys"
	"authd/zone"
)

// putPool adds a pool or replaces what it says. For a million domains this is
// one object: their branches name the pool by number.
func (w *writer) putPool(c PutPool) Result {
	if r := checkID("pool", c.ID); r != nil {
		return refused(r)
	}
	old, there := w.pools.Get(c.ID)
	spec, r := checkSpec(c.Spec, there && old.slots > 0)
	if r != nil {
		return refused(r)
	}
	base, ok := w.firstPlatform()
	if !ok {
		return refused(conflict("pool", nil, "there is no platform zone yet: add one first"))
	}
	spec.Policy.Before = keys.Hold{} // it follows from the changes, whoever asks for it
	next := &poolEntry{Pool: Pool{Number: w.poolNumber + 1, ID: c.ID, Serial: 1, PoolSpec: spec}}
	if there {
		if equalSpecs(old.PoolSpec, spec) {
			return same
		}
		next.Policy = spec.Policy.After(old.Policy, w.time)
		next.Number, next.Serial, next.domains, next.slots = old.Number, old.Serial+1, old.domains, old.slots
	} else if w.pools.Len() >= maxPools {
		return refused(invalid("pool", "%d pools already: at most %d", w.pools.Len(), maxPools))
	}
	if next.answers, r = renderPool(&next.Pool, base.Apex); r != nil {
		return refused(r)
	}
	if r := w.keepPool(old, next); r != nil {
		return refused(r)
	}
	if !there {
		w.poolNumber = next.Number
	} else if next.domains > 0 && !samePace(old.Policy, spec.Policy) {
		w.sweep(next.Number)
	}
	return done
}

func renderPool(p *Pool, base zone.Name) (*zone.Pool, *Refusal) {
	plan, err := poolPlan(p, base)
	if err != nil {
		return nil, invalid("pool", "%v", err)
	}
	answers, err := zone.RenderPool(plan)
	if err != nil {
		return nil, invalid("spf", "%v", err)
	}
	return answers, nil
}

// keepPool stores a pool, and the platform zones where its share of them (parts
// of a long SPF record, report hosts) changed. old is nil for a new pool.
func (w *writer) keepPool(old, next *poolEntry) *Refusal {
	w.pools.Set(next.ID, next)
	w.poolIDs.Set(next.Number, next.ID)
	if !sameInPlatforms(old, next) {
		platforms, err := w.renderPlatforms()
		if err != nil {
			w.pools.Delete(next.ID)
			w.poolIDs.Delete(next.Number)
			if old != nil {
				w.pools.Set(old.ID, old)
				w.poolIDs.Set(old.Number, old.ID)
			}
			return invalid("spf", "%v", err)
		}
		w.keepPlatforms(platforms)
	}
	if old == nil || old.answers != next.answers {
		w.delta.pool(next.Number, next.ID)
	}
	return nil
}

// sameInPlatforms says whether platform zones hold the same for two versions of
// a pool, nil being no pool.
func sameInPlatforms(old, next *poolEntry) bool {
	var was, is []zone.RRset
	var wasHosts, isHosts []zone.Name
	if old != nil {
		was, wasHosts = old.answers.Includes(), reportHosts(old.DMARC)
	}
	if next != nil {
		is, isHosts = next.answers.Includes(), reportHosts(next.DMARC)
	}
	return slices.EqualFunc(was, is, equalRRsets) && slices.Equal(wasHosts, isHosts)
}

// dropPool removes a pool that no domain uses.
func (w *writer) dropPool(c DropPool) Result {
	p, ok := w.pools.Get(c.ID)
	if !ok {
		return refused(notFound("pool", "no pool %s", quote(c.ID)))
	}
	if p.domains > 0 {
		return refused(conflict("pool", nil, "pool %s has %d domains: move them first", p.ID, p.domains))
	}
	w.pools.Delete(p.ID)
	w.poolIDs.Delete(p.Number)
	if !sameInPlatforms(p, nil) {
		platforms, err := w.renderPlatforms()
		if err != nil {
			w.pools.Set(p.ID, p)
			w.poolIDs.Set(p.Number, p.ID)
			return refused(invalid("pool", "%v", err))
		}
		w.keepPlatforms(platforms)
	}
	w.delta.pool(p.Number, p.ID)
	w.sweeps = slices.DeleteFunc(slices.Clone(w.sweeps), func(s sweep) bool { return s.Pool == p.Number })
	return done
}

// checkSpec checks what a pool says and gives its canonical form.
func checkSpec(s PoolSpec, slots bool) (PoolSpec, *Refusal) {
	var r *Refusal
	if s.SPF, r = checkSPF(s.SPF); r != nil {
		return s, r
	}
	if s.SPFAll != "~all" && s.SPFAll != "-all" {
		return s, invalid("spf_all", "%s: want ~all or -all", quote(s.SPFAll))
	}
	if s.MX, r = checkMX(s.MX); r != nil {
		return s, r
	}
	if s.ClickA, r = checkAddresses("click.a", s.ClickA); r != nil {
		return s, r
	}
	if s.ClickCNAME != "" {
		if r := checkHost("click.cname", s.ClickCNAME); r != nil {
			return s, r
		}
		if len(s.ClickA) > 0 {
			return s, invalid("click.cname", "%s beside addresses: give the one or the other (RFC 1034 section 3.6.2)", quoteName(s.ClickCNAME))
		}
	}
	if r := checkPolicy("dmarc", s.DMARC); r != nil {
		return s, r
	}
	if r := checkLabels(s.Labels); r != nil {
		return s, r
	}
	if r := checkPace(s.Policy, slots); r != nil {
		return s, r
	}
	return s, nil
}

// checkPace refuses a rotation policy that the keys cannot keep.
func checkPace(p keys.Policy, slots bool) *Refusal {
	err := p.Check(slots)
	if err == nil {
		return nil
	}
	var bad *keys.PolicyError
	if errors.As(err, &bad) {
		return invalid("dkim."+bad.Field, "%s", bad.Message)
	}
	return invalid("dkim", "%v", err)
}

// checkSPF allows literal addresses alone, so that no receiver needs a look-up
// of the ten it may do (RFC 7208 section 4.6.4).
func checkSPF(in []string) ([]string, *Refusal) {
	if len(in) > maxSPF {
		return nil, invalid("spf", "%d mechanisms: at most %d", len(in), maxSPF)
	}
	seen := make(map[string]bool, len(in))
	out := make([]string, len(in))
	for i, mechanism := range in {
		field := element("spf", i)
		kind, text, _ := strings.Cut(mechanism, ":")
		prefix, err := parsePrefix(text)
		switch {
		case kind != "ip4" && kind != "ip6":
			return nil, invalid(field, "%s: want ip4:ADDRESS[/LENGTH] or ip6:ADDRESS[/LENGTH]: mechanisms that cost receivers a look-up are not published", quote(mechanism))
		case err != nil || prefix.Addr().Is4() != (kind == "ip4"):
			return nil, invalid(field, "%s: not an address or prefix of that family", quote(mechanism))
		case prefix != prefix.Masked():
			return nil, invalid(field, "%s: bits are set behind the prefix: %s is meant?", quote(mechanism), prefix.Masked())
		case prefix.Bits() == 0:
			return nil, invalid(field, "%s would let everyone in the world send", quote(mechanism))
		}
		out[i] = kind + ":" + prefix.String()
		if prefix.IsSingleIP() {
			out[i] = kind + ":" + prefix.Addr().String()
		}
		if seen[out[i]] {
			return nil, invalid(field, "%s is there twice", quote(mechanism))
		}
		seen[out[i]] = true
	}
	return out, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text)
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if a.Zone() != "" || a.Is4In6() {
		return netip.Prefix{}, errDamaged
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

func checkMX(in []zone.MX) ([]zone.MX, *Refusal) {
	if len(in) > maxMX {
		return nil, invalid("mx", "%d hosts: at most %d", len(in), maxMX)
	}
	for i, mx := range in {
		if r := checkHost(element("mx", i)+".host", mx.Host); r != nil {
			return nil, r
		}
		for _, before := range in[:i] {
			if before.Host == mx.Host {
				return nil, invalid(element("mx", i)+".host", "%s is there twice", quoteName(mx.Host))
			}
		}
	}
	out := slices.Clone(in)
	slices.SortFunc(out, func(a, b zone.MX) int {
		if a.Preference != b.Preference {
			return int(a.Preference) - int(b.Preference)
		}
		return strings.Compare(string(a.Host), string(b.Host))
	})
	return out, nil
}

func equalSpecs(a, b PoolSpec) bool {
	return slices.Equal(a.SPF, b.SPF) && a.SPFAll == b.SPFAll && slices.Equal(a.MX, b.MX) &&
		slices.Equal(a.ClickA, b.ClickA) && a.ClickCNAME == b.ClickCNAME && a.DMARC == b.DMARC &&
		maps.Equal(a.Labels, b.Labels) && samePace(a.Policy, b.Policy) && slices.Equal(a.Policy.Algorithms, b.Policy.Algorithms)
}

// samePace says whether two policies make the same steps due at the same time.
func samePace(a, b keys.Policy) bool {
	return a.Period == b.Period && a.Soak == b.Soak && a.Rollback == b.Rollback && a.SignerHold == b.SignerHold &&
		a.DrainFloor == b.DrainFloor && a.Drain == b.Drain && a.DrainCeiling == b.DrainCeiling && a.RevokedFor == b.RevokedFor && a.Quiet == b.Quiet
}
