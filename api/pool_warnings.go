package api

import (
	"fmt"

	"authd/cluster/state"
	"authd/zone"
)

// What a pool points at in a platform zone may be added after the pool, so that it is
// missing is no reason to refuse one; but nobody would hear of it before mail bounces.

// hostState is what platform zones hold for a name.
type hostState uint8

const (
	hostElsewhere hostState = iota // it lies in none, or below a cut: nobody knows here
	hostAddressed
	hostAlias
	hostBare // it does not exist, or has no address
)

// poolWarnings are what of a pool cannot work as the platform zones are now.
func poolWarnings(m state.Machine, p *state.Pool) (list []string) {
	for i, mx := range p.MX {
		switch at, apex := standing(m, mx.Host); at {
		case hostBare:
			list = append(list, fmt.Sprintf("%s.host: %s has no address in the platform zone %s, so mail to it bounces: add an A or AAAA record",
				indexed("mx", i), mx.Host.Host(), apex.Host()))
		case hostAlias:
			list = append(list, fmt.Sprintf("%s.host: %s is an alias (CNAME), which an MX must not name (RFC 2181 section 10.3): give it addresses, or name its target",
				indexed("mx", i), mx.Host.Host()))
		}
	}
	if n := p.ClickCNAME; n != "" {
		if at, apex := standing(m, n); at == hostBare {
			list = append(list, fmt.Sprintf("click.cname: %s has no address in the platform zone %s, so tracking links lead nowhere: add an A or AAAA record", n.Host(), apex.Host()))
		}
	}
	return list
}

// standing says what platform zones hold for a host, and which it lies in.
func standing(m state.Machine, host zone.Name) (at hostState, apex zone.Name) {
	for p := range m.Platforms() {
		if !host.In(p.Apex) {
			continue
		}
		if host != p.Apex && host.Parent() == p.Apex {
			if _, ok := m.NameServer(host.Label()); ok {
				return hostAddressed, p.Apex
			}
		}
		return standingIn(p, host), p.Apex
	}
	return hostElsewhere, ""
}

// standingIn is standing in one zone: by records of the name's own, or of a wildcard
// above it. A wildcard that another name hides (RFC 4592 section 2.2.1) counts too:
// better no warning than a wrong one.
func standingIn(p *state.Platform, host zone.Name) hostState {
	at := hostBare
	for i := range p.Records {
		r := &p.Records[i]
		above := r.Owner.Parent()
		switch own := r.Owner == host; {
		case r.Type == zone.TypeNS && r.Owner != p.Apex && host.In(r.Owner):
			return hostElsewhere
		case !own && (r.Owner.Label() != "*" || host == above || !host.In(above)):
		case r.Type == zone.TypeA || r.Type == zone.TypeAAAA:
			at = hostAddressed
		case r.Type == zone.TypeCNAME && at == hostBare:
			at = hostAlias
		}
	}
	return at
}
