package zone

import (
	"fmt"
	"maps"
	"slices"
)

// Platform is what RenderPlatform makes of a PlatformPlan. Immutable.
type Platform struct {
	number  uint32
	apex    Name
	labels  int    // of the apex
	hash    uint64 // of the apex
	contact Name
	mname   Name
	// Octets in front of the apex in mname and contact; 0 where it is not in them.
	mnameCut, contactCut int
	serial               uint32
	block                block
	servers              []serverAnswers
	reports              [][]uint32 // pools, by the number that nodes with nodeReport have
}

// serverAnswers are the addresses of one name server, for every name it has.
type serverAnswers struct {
	label   string
	a, aaaa records
}

// server finds a name server by its label. There are a handful.
func (p *Platform) server(label string) *serverAnswers {
	for i := range p.servers {
		if p.servers[i].label == label {
			return &p.servers[i]
		}
	}
	return nil
}

// platformLabels always exist below a platform zone's apex.
var platformLabels = [...]string{"dkim", "bounce", "click", "dmarc", "spf"}

// RenderPlatform checks a platform zone's plan and makes its answers. It refuses
// operator's records at reserved names (the apex SOA and NS, ns1…, dkim, bounce,
// click, dmarc, spf and what lies below them).
func RenderPlatform(p PlatformPlan) (*Platform, error) {
	if p.Form != Form {
		return nil, fmt.Errorf("rendering %s: form %d, this release knows %d", p.Apex, p.Form, Form)
	}
	if p.Apex == "" || p.Apex.Labels() < 2 {
		return nil, fmt.Errorf("rendering %q: a platform zone needs at least two labels", p.Apex)
	}
	if n, ok := nameIn([]byte(p.Contact)); !ok || n != p.Contact {
		return nil, fmt.Errorf("rendering %s: contact %q is no name", p.Apex, p.Contact)
	}
	out := &Platform{number: p.Number, apex: p.Apex, labels: p.Apex.Labels(),
		contact: p.Contact, mname: p.Apex, serial: p.Serial}
	if len(p.NS) > 0 {
		out.mname = p.NS[0]
	}
	if out.mname.In(p.Apex) {
		out.mnameCut = len(out.mname) - len(p.Apex)
		if p.Contact.In(p.Apex) {
			out.contactCut = len(p.Contact) - len(p.Apex)
		}
	}
	var apex path
	apex.setName(string(p.Apex))
	out.hash = apex.hash[apex.count]

	b := builder{form: p.Form, serial: p.Serial}
	b.anchorAt(anchorPlatform, p.Number, p.Apex).flags |= nodeApex
	for _, step := range []func(*builder, *PlatformPlan) error{out.renderServers, out.renderReports, renderIncludes, renderOperators} {
		if err := step(&b, &p); err != nil {
			return nil, fmt.Errorf("rendering %s: %w", p.Apex, err)
		}
	}
	var err error
	if out.block, err = b.build(); err != nil {
		return nil, fmt.Errorf("rendering %s: %w", p.Apex, err)
	}
	return out, nil
}

// renderServers adds NS, the name servers' names and the names that targets
// will lie below.
func (p *Platform) renderServers(b *builder, plan *PlatformPlan) error {
	if len(plan.NS) > 0 {
		if err := b.nodes.at(plan.Apex).add(namesRRset(plan.Apex, TypeNS, TTLNS, plan.NS)); err != nil {
			return err
		}
	}
	for _, label := range platformLabels {
		n, err := plan.Apex.Child(label)
		if err != nil {
			return err
		}
		b.node(0, n).flags |= nodeBelow
	}
	for _, s := range plan.Servers {
		if !serverLabel(s.Label) || p.server(s.Label) != nil {
			return fmt.Errorf("name server %s: a label ns1, ns2, …, each once", quote(s.Label))
		}
		n, err := plan.Apex.Child(s.Label)
		if err != nil {
			return err
		}
		four, six, err := addressData(s.Addresses)
		if err != nil {
			return fmt.Errorf("name server %s: %w", s.Label, err)
		}
		p.servers = append(p.servers, serverAnswers{label: s.Label,
			a: wireRecords(TypeA, TTLServer, four), aaaa: wireRecords(TypeAAAA, TTLServer, six)})
		at := b.node(0, n)
		at.flags |= nodeBelow
		if err := at.add(RRset{Owner: n, Type: TypeA, TTL: TTLServer, Data: four}); err != nil {
			return err
		}
		if err := at.add(RRset{Owner: n, Type: TypeAAAA, TTL: TTLServer, Data: six}); err != nil {
			return err
		}
	}
	return nil
}

// renderReports marks the names below which report authorisations of pools are.
func (p *Platform) renderReports(b *builder, plan *PlatformPlan) error {
	for _, host := range slices.Sorted(maps.Keys(plan.Reports)) {
		if !host.In(plan.Apex) {
			return fmt.Errorf("reports to %s: outside the zone", host)
		}
		n, err := host.Child(labelReport, labelDMARC)
		if err != nil {
			return err
		}
		at := b.node(0, n)
		at.flags |= nodeReport | nodeBelow
		b.inherited = true
		at.report = len(p.reports)
		p.reports = append(p.reports, slices.Sorted(slices.Values(plan.Reports[host])))
	}
	return nil
}

func renderIncludes(b *builder, plan *PlatformPlan) error {
	base, err := plan.Apex.Child("spf")
	if err != nil {
		return err
	}
	for _, s := range plan.Includes {
		if !s.Owner.In(base) {
			return fmt.Errorf("include %s: not below %s", s.Owner, base)
		}
		if err := b.extra(0, s); err != nil {
			return err
		}
	}
	return nil
}

func renderOperators(b *builder, plan *PlatformPlan) error {
	for _, s := range plan.Records {
		if err := checkOperators(plan.Apex, s); err != nil {
			return err
		}
		if err := b.extra(0, s); err != nil {
			return err
		}
	}
	return b.checkCuts(plan.Records)
}

// checkOperators refuses an operator's record at a reserved name.
func checkOperators(apex Name, s RRset) error {
	if !s.Owner.In(apex) {
		return fmt.Errorf("%s %s lies outside %s", s.Owner, s.Type, apex)
	}
	if s.Owner == apex {
		if s.Type == TypeNS || s.Type == TypeCNAME || s.Type == TypeDNAME || s.Type == TypeDS {
			return fmt.Errorf("%s %s: not at the apex of a platform zone", s.Owner, s.Type)
		}
		return nil
	}
	first := s.Owner // the name directly below the apex
	for first.Parent() != apex {
		first = first.Parent()
	}
	if reservedLabel(first.Label()) {
		return fmt.Errorf("%s %s: %s and what lies below it is reserved", s.Owner, s.Type, first)
	}
	return nil
}
