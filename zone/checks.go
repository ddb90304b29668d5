package zone

import (
	"fmt"
	"slices"
	"strings"
)

// records adds the extra records of a delegated domain.
func (b *builder) records(p *Plan, m managedNames) error {
	for _, s := range p.Records {
		if !s.Owner.In(p.Zone) {
			return fmt.Errorf("%s %s lies outside %s", s.Owner, s.Type, p.Zone)
		}
		if err := m.check(p.Zone, s); err != nil {
			return err
		}
		if err := b.extra(0, s); err != nil {
			return err
		}
	}
	return b.checkCuts(p.Records)
}

// check refuses a record where the zone's own are.
func (m managedNames) check(apex Name, s RRset) error {
	taken := false
	switch {
	case s.Owner == apex:
		taken = s.Type == TypeNS || s.Type == TypeMX
		if s.Type == TypeCNAME || s.Type == TypeDNAME || s.Type == TypeDS {
			return fmt.Errorf("%s %s: not at the apex of a zone", s.Owner, s.Type)
		}
		if s.Type == TypeTXT {
			return checkBesideSPF(s)
		}
	case s.Owner == m.bounce:
		taken = slices.Contains([]Type{TypeMX, TypeTXT, TypeCNAME, TypeDNAME, TypeNS}, s.Type)
	case s.Owner == m.click, s.Owner == m.dmarc, s.Owner.In(m.keys):
		taken = true
	}
	if taken {
		return fmt.Errorf("%s %s is managed: its records follow from the pool and the keys; change the pool, or choose another name", s.Owner, s.Type)
	}
	return nil
}

// checkBesideSPF checks TXT records that join a pool's SPF in one RRset.
func checkBesideSPF(s RRset) error {
	if s.TTL != TTLMail {
		return fmt.Errorf("%s TXT: TTL %d, but it joins the SPF record there, whose TTL is %d (RFC 2181 section 5.2)", s.Owner, s.TTL, TTLMail)
	}
	for _, d := range s.Data {
		// Two SPF records are a permanent error for receivers (RFC 7208 section 4.5).
		if version, _, _ := strings.Cut(joinText(string(d)), " "); strings.EqualFold(version, "v=spf1") {
			return fmt.Errorf("%s TXT: an SPF record is there already, and two are an error (RFC 7208 section 4.5)", s.Owner)
		}
	}
	return nil
}

// extra adds one RRset that somebody wrote, with the checks that need no other.
func (b *builder) extra(anchor int, s RRset) error {
	if err := checkType(s.Type); err != nil {
		return err
	}
	if err := checkRRset(s); err != nil {
		return err
	}
	if err := b.room(); err != nil {
		return fmt.Errorf("%s %s: %w", s.Owner, s.Type, err)
	}
	at := b.node(anchor, s.Owner)
	if s.Owner.Label() == "*" && (s.Type == TypeNS || s.Type == TypeDNAME || s.Type == TypeDS) {
		return fmt.Errorf("%s %s: a wildcard cannot be a cut (RFC 4592 sections 4.2 and 4.4)", s.Owner, s.Type)
	}
	if string(s.Owner) != b.anchors[anchor].name {
		switch s.Type {
		case TypeNS:
			at.flags |= nodeCut
			b.inherited = true
		case TypeDNAME:
			at.flags |= nodeDNAME
			b.inherited = true
		}
	}
	if err := at.add(s); err != nil {
		return err
	}
	if at.has(TypeCNAME) && len(at.sets) > 1 {
		return fmt.Errorf("%s: other records beside a CNAME (RFC 1034 section 3.6.2)", s.Owner)
	}
	return nil
}

// checkCuts refuses records that could never be answered because a cut or a
// DNAME is above them, and DS without a cut. All nodes must be there.
func (b *builder) checkCuts(sets []RRset) error {
	for _, s := range sets {
		if err := b.checkCut(s); err != nil {
			return err
		}
	}
	if !b.inherited {
		return nil
	}
	for _, at := range b.nodes.list {
		if err := b.checkHidden(at); err != nil {
			return err
		}
	}
	return nil
}

// checkCut checks one RRset beside the others of its name.
func (b *builder) checkCut(s RRset) error {
	at := b.nodes.at(s.Owner)
	address := s.Type == TypeA || s.Type == TypeAAAA
	switch {
	case s.Type == TypeDS && at.flags&nodeCut == 0:
		return fmt.Errorf("%s DS: only beside an NS record that makes a cut (RFC 4035 section 2.4)", s.Owner)
	case at.flags&nodeCut != 0 && s.Type != TypeNS && s.Type != TypeDS && !address:
		return fmt.Errorf("%s %s: hidden by the delegation there", s.Owner, s.Type)
	}
	return nil
}

// checkHidden refuses a node below a cut that has more than glue, and any below
// a DNAME.
func (b *builder) checkHidden(at *buildNode) error {
	apex := b.anchors[at.anchor].name
	if string(at.name) == apex {
		return nil
	}
	for up := at.name.Parent(); string(up) != apex; up = up.Parent() {
		above := b.nodes.at(up)
		if above.flags&nodeDNAME != 0 {
			return fmt.Errorf("%s: hidden by the DNAME at %s (RFC 6672 section 2.4)", at.name, up)
		}
		if above.flags&nodeCut == 0 {
			continue
		}
		for _, s := range at.sets {
			if s.Type != TypeA && s.Type != TypeAAAA {
				return fmt.Errorf("%s %s: hidden by the delegation at %s", s.Owner, s.Type, up)
			}
		}
	}
	return nil
}
