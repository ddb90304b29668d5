package zone

import (
	"fmt"
	"strings"
)

// Render checks a plan and makes its branch. It refuses records outside the
// zone, at managed names, beside a CNAME (RFC 1034 section 3.6.2), and RRsets
// whose TTL differs from a managed record's they join. It depends on the plan
// alone.
func Render(p Plan) (Branch, error) {
	if p.Form != Form {
		return "", fmt.Errorf("rendering a plan: form %d, this release knows %d", p.Form, Form)
	}
	b := builder{form: p.Form, tenant: p.Tenant, pool: p.Pool, serial: p.Serial, attachment: p.Attachment}
	if p.Held != "" {
		b.attachment = []byte(p.Held.Attachment())
	}
	var err error
	switch p.Mode {
	case Delegated:
		err = b.delegated(&p)
	case CNAME:
		err = b.cname(&p)
	default:
		err = fmt.Errorf("mode %d is neither delegated nor CNAME", p.Mode)
	}
	if err == nil {
		err = b.reports(&p)
	}
	if err != nil {
		return "", fmt.Errorf("rendering %s: %w", p.subject(), err)
	}
	out, err := b.build()
	if err != nil {
		return "", fmt.Errorf("rendering %s: %w", p.subject(), err)
	}
	return Branch(out), nil
}

// subject is how errors name a plan.
func (p *Plan) subject() string {
	switch {
	case p.Zone != "":
		return p.Zone.String()
	case len(p.Targets.Keys) > 0:
		return p.Targets.Keys[0].Name.String()
	}
	return "a plan"
}

// maxServers is how many name-server names a delegated domain is given at most.
const maxServers = 4

func (b *builder) delegated(p *Plan) error {
	switch {
	case p.Zone == "" || p.Zone.Labels() < 2:
		return fmt.Errorf("the zone %q needs at least two labels", p.Zone)
	case len(p.Servers) == 0 || len(p.Servers) > maxServers:
		return fmt.Errorf("%d name servers, a delegated domain has 1 to %d", len(p.Servers), maxServers)
	case p.Held != "" && (len(p.Keys) > 0 || len(p.Attachment) > 0):
		return fmt.Errorf("keys, and a branch to take them of")
	case len(p.Targets.Keys) > 0 || p.Targets.Bounce.Name != "" || p.Targets.Click.Name != "" || p.Targets.DMARC.Name != "":
		return fmt.Errorf("a delegated domain has no targets")
	}
	kind := anchorHidden
	if p.Proven {
		kind = anchorZone
	}
	apex := b.anchorAt(kind, p.Servers[0].Platform, p.Zone)
	apex.flags |= nodeApex | nodeMail
	names := make([]Name, 0, maxServers)
	for _, s := range p.Servers {
		if s.Name == "" || s.Name.In(p.Zone) || !serverLabel(s.Server) {
			return fmt.Errorf("server name %q for %q: it must lie in a platform zone and name a server ns1, ns2, …", s.Name, s.Server)
		}
		at := b.anchorAt(anchorTarget, s.Platform, s.Name)
		if at.flags&nodeServer != 0 {
			return fmt.Errorf("server name %s is there twice", s.Name)
		}
		at.flags |= nodeServer
		at.server = s.Server
		names = append(names, s.Name)
	}
	if err := apex.add(namesRRset(p.Zone, TypeNS, TTLNS, names)); err != nil {
		return err
	}
	managed, err := b.managed(p)
	if err != nil {
		return err
	}
	return b.records(p, managed)
}

// Labels of managed names in a delegated zone.
const (
	labelBounce = "bounce"
	labelClick  = "click"
	labelDMARC  = "_dmarc"
	labelKeys   = "_domainkey"
	labelReport = "_report"
)

// managedNames are names of a delegated zone whose records are ours.
type managedNames struct{ bounce, click, dmarc, keys Name }

// managedNamesOf are those of a zone. Where the apex is too long for one there
// is none, and Render refuses the zone.
func managedNamesOf(apex Name) (m managedNames) {
	m.bounce, _ = apex.Child(labelBounce)
	m.click, _ = apex.Child(labelClick)
	m.dmarc, _ = apex.Child(labelDMARC)
	m.keys, _ = apex.Child(labelKeys)
	return m
}

// managed adds what every delegated zone has: the pool's mail and tracking
// names, the policy and the keys.
func (b *builder) managed(p *Plan) (m managedNames, err error) {
	for _, c := range []struct {
		label string
		name  *Name
		flags int
	}{{labelBounce, &m.bounce, nodeMail}, {labelClick, &m.click, nodeClick}, {labelDMARC, &m.dmarc, nodePolicy}, {labelKeys, &m.keys, nodeBelow}} {
		if *c.name, err = p.Zone.Child(c.label); err != nil {
			return m, err
		}
		b.node(0, *c.name).flags |= c.flags
	}
	if p.DMARC != "" {
		if err := b.policy(b.node(0, m.dmarc), p.DMARC); err != nil {
			return m, err
		}
	}
	for _, k := range p.Keys {
		if k.Owner.Parent() != m.keys {
			return m, fmt.Errorf("key %s: not directly below %s", k.Owner, m.keys)
		}
		if err := b.key(b.node(0, k.Owner), k); err != nil {
			return m, err
		}
	}
	if p.Held == "" {
		return m, nil
	}
	return m, b.heldKeys(block(p.Held), m.keys)
}

// heldKeys takes the keys as a branch has them.
func (b *builder) heldKeys(from block, keys Name) error {
	for i := range int(u32(from, atNodes)) {
		n := node{b: from, at: int(u32(from, blockHeader+i*indexEntry+4))}
		if n.anchor() != 0 {
			continue
		}
		owner := Name(n.labels() + b.anchors[0].name)
		r := n.set(TypeTXT)
		if r.count == 0 || owner.Parent() != keys {
			continue
		}
		at := b.node(0, owner)
		at.flags |= n.flags() & nodeWatched
		if err := at.add(r.rrset(owner)); err != nil {
			return err
		}
	}
	return nil
}

// policy gives a node the domain's own DMARC policy in place of the pool's.
func (b *builder) policy(at *buildNode, text string) error {
	if err := checkPolicy(text); err != nil {
		return err
	}
	b.flags |= flagPolicy
	at.flags &^= nodePolicy
	return at.add(TextRRset(at.name, TTLPolicy, text))
}

// key gives a node a key's record.
func (b *builder) key(at *buildNode, k KeyRecord) error {
	s := TextRRset(k.Owner, k.TTL, k.Payload)
	if k.Payload == "" {
		return fmt.Errorf("key %s: no payload", k.Owner)
	}
	if err := checkRRset(s); err != nil {
		return err
	}
	if k.Watched {
		at.flags |= nodeWatched
	}
	return at.add(s)
}

func (b *builder) cname(p *Plan) error {
	if p.Zone != "" || len(p.Servers) > 0 || len(p.Records) > 0 || p.Held != "" {
		return fmt.Errorf("a domain in CNAME mode has neither zone nor servers nor extra records")
	}
	for _, t := range p.Targets.Keys {
		if t.Name == "" {
			return fmt.Errorf("a key slot without a target")
		}
		if _, err := b.target(t); err != nil {
			return err
		}
	}
	for _, k := range p.Keys {
		at := b.nodes.at(k.Owner)
		if at == nil || !hasTarget(p.Targets.Keys, k.Owner) {
			return fmt.Errorf("key %s: not one of the targets", k.Owner)
		}
		if err := b.key(at, k); err != nil {
			return err
		}
	}
	for _, c := range []struct {
		target Target
		flags  int
	}{{p.Targets.Bounce, nodeMail}, {p.Targets.Click, nodeClick}} {
		if c.target.Name == "" {
			continue
		}
		at, err := b.target(c.target)
		if err != nil {
			return err
		}
		at.flags |= c.flags
	}
	if p.DMARC == "" {
		return nil
	}
	if p.Targets.DMARC.Name == "" {
		return fmt.Errorf("a DMARC policy without a target to publish it at")
	}
	at, err := b.target(p.Targets.DMARC)
	if err != nil {
		return err
	}
	return b.policy(at, p.DMARC)
}

func hasTarget(list []Target, n Name) bool {
	for _, t := range list {
		if t.Name == n {
			return true
		}
	}
	return false
}

// target adds the node of a target. Slots of one claim share an anchor: their
// parent, T.dkim.P, where T is a token; any other target is its own anchor.
func (b *builder) target(t Target) (*buildNode, error) {
	if at := b.nodes.at(t.Name); at != nil && at.flags&nodeBelow != 0 || t.Name.Labels() < 3 {
		return nil, fmt.Errorf("target %s: used twice, or not below a platform zone", t.Name)
	}
	parent := t.Name.Parent()
	if !tokenShaped([]byte(parent.Label())) || parent.Parent().Label() != "dkim" {
		return b.anchorAt(anchorTarget, t.Platform, t.Name), nil
	}
	b.anchorAt(anchorTarget, t.Platform, parent)
	at := b.node(b.nodes.at(parent).anchor, t.Name)
	at.flags |= nodeBelow
	return at, nil
}

// reports adds the domain's report authorisations (RFC 9990 section 4).
func (b *builder) reports(p *Plan) error {
	for _, t := range p.Reports {
		if !strings.Contains(string(t.Name), "\x07"+labelReport+"\x06"+labelDMARC) {
			return fmt.Errorf("report authorisation %s: not below %s.%s", t.Name, labelReport, labelDMARC)
		}
		at := b.anchorAt(anchorTarget, t.Platform, t.Name)
		if err := at.add(TextRRset(t.Name, TTLPolicy, reportText)); err != nil {
			return err
		}
	}
	return nil
}

// reportText is what a report authorisation says.
const reportText = "v=DMARC1"

// checkPolicy refuses a DMARC policy that nobody should publish for a customer
// (RFC 9989; formerly RFC 7489 section 6.3).
func checkPolicy(text string) error {
	if len(text) > SPFLimit {
		return fmt.Errorf("DMARC policy of %d octets, at most %d", len(text), SPFLimit)
	}
	for i, tag := range strings.Split(text, ";") {
		name, value, _ := strings.Cut(tag, "=")
		name = strings.TrimSpace(name)
		switch {
		case i == 0 && (name != "v" || strings.TrimSpace(value) != "DMARC1"):
			return fmt.Errorf("DMARC policy %s: it must begin with v=DMARC1", quote(text))
		case strings.EqualFold(name, "psd"):
			return fmt.Errorf("DMARC policy %s: psd= says that a name is a public suffix; leave it out", quote(text))
		}
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("DMARC policy %s: only printable ASCII", quote(text))
		}
	}
	return nil
}
