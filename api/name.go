package api

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
	"golang.org/x/net/publicsuffix"

	"authd/zone"
)

// host reads a name that somebody claims or points at.
func host(field, text string) (zone.Name, error) {
	if text == "" {
		return "", invalid(field, "a name is missing")
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r > 127 }) {
		remedy := "write it in A-label form (xn--…)"
		if a, err := idna.Lookup.ToASCII(text); err == nil {
			remedy = "write it in A-label form: " + a
		}
		return "", invalid(field, "%q is an internationalised name; %s", bounded(text), remedy)
	}
	n, err := zone.ParseHost(text)
	if err != nil {
		return "", invalid(field, "%s", err)
	}
	return n, nil
}

// hosts reads several.
func hosts(field string, texts []string) ([]zone.Name, error) {
	var names []zone.Name
	for i, text := range texts {
		n, err := host(indexed(field, i), text)
		if err != nil {
			return nil, err
		}
		names = append(names, n)
	}
	return names, nil
}

// owner reads the name of a record within a zone: "@" for the zone itself, a
// name relative to it, or an absolute one with its final dot. A name that
// already ends in the zone's but has no dot is a mistake that zone files make
// famous, and refused.
func owner(field, text string, apex zone.Name) (zone.Name, error) {
	if text == "@" {
		return apex, nil
	}
	n, err := zone.ParseName(text)
	if err != nil {
		return "", invalid(field, "%s", err)
	}
	if strings.HasSuffix(text, ".") {
		if !n.In(apex) {
			return "", invalid(field, "%q is outside %s", bounded(text), apex)
		}
		return n, nil
	}
	if n.In(apex) {
		return "", invalid(field, "%q is relative to %s; write it without the zone's name, or with a final dot", bounded(text), apex)
	}
	full, err := zone.ParseName(text + "." + apex.String())
	if err != nil {
		return "", invalid(field, "%s", err)
	}
	return full, nil
}

// relative is owner's opposite, for replies.
func relative(n, apex zone.Name) string {
	if n == apex {
		return "@"
	}
	return strings.TrimSuffix(n.String(), "."+apex.String())
}

func addresses(field string, texts []string) ([]netip.Addr, error) {
	var all []netip.Addr
	for i, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.Is4In6() {
			return nil, invalid(indexed(field, i), "%q is not an IP address", bounded(text))
		}
		all = append(all, a)
	}
	return all, nil
}

// registrable is what this binary's public suffix list knows of a name. It
// travels in the command, because nodes of two releases have two lists.
func registrable(n zone.Name) (of zone.Name, suffix bool) {
	text := n.Host()
	if list, _ := publicsuffix.PublicSuffix(text); list == text {
		return n, true
	}
	plain, err := publicsuffix.EffectiveTLDPlusOne(text)
	if err != nil {
		return n, true
	}
	of, err = zone.ParseName(plain)
	if err != nil {
		return n, true
	}
	return of, false
}

// contact reads the mail address in charge of a zone, or the RNAME form of it
// (RFC 1035 section 8).
func contact(text string, apex zone.Name) (zone.Name, error) {
	if text == "" {
		text = "hostmaster." + apex.String()
	}
	if local, domain, ok := strings.Cut(text, "@"); ok {
		if local == "" || domain == "" || strings.Contains(domain, "@") {
			return "", invalid("contact", "%q is not a mail address", bounded(text))
		}
		local = strings.NewReplacer(`\`, `\\`, ".", `\.`, `"`, `\"`, ";", `\;`).Replace(local)
		text = local + "." + domain
	}
	n, err := zone.ParseName(text)
	if err != nil || n.Labels() < 2 {
		return "", invalid("contact", "%q is not a mail address like hostmaster@%s", bounded(text), apex.Host())
	}
	return n, nil
}

// mailbox is the contact as a mail address.
func mailbox(n zone.Name) string { return n.Label() + "@" + n.Parent().Host() }
