package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"authd/cluster/state"
	"authd/zone"
	"authd/zone/probe"
)

// CheckedRecord is a record that the customer must add, and what their DNS has.
type CheckedRecord struct {
	Name   string   `json:"name" example:"k1._domainkey.customer.example"`
	Type   string   `json:"type" example:"CNAME"`
	Value  string   `json:"value" doc:"What it should be."`
	Status string   `json:"status" enum:"found,missing,wrong,unknown" doc:"wrong: something else is there. unknown: nobody could be asked."`
	Found  []string `json:"found" nullable:"false" doc:"What is there, as TYPE VALUE."`
	Hint   string   `json:"hint,omitempty" doc:"The mistake, where it is one that many make, and what to do."`
}

// checkup compares what a customer's DNS should have with what it has.
type checkup struct {
	domain *state.Domain
	zone   zone.Name // above the domain, or where its records are
	seen   map[probe.Question]probe.Answer

	records []CheckedRecord
	notes   []string
}

const (
	typeNS    = "NS"
	typeCNAME = "CNAME"
)

// checkDomain looks at the customer's zone. Where nobody can be asked it fails, and
// nothing is known.
func (h *Handler) checkDomain(ctx context.Context, d *state.Domain) (*checkup, probe.Sight, error) {
	c := &checkup{domain: d, seen: map[probe.Question]probe.Answer{}}
	sight, err := c.look(ctx, h.prober, c.questions())
	if err != nil {
		return nil, sight, err
	}
	c.zone = sight.Zone
	if more := c.doubts(); len(more) > 0 {
		if _, err := c.look(ctx, h.prober, more); err != nil {
			h.logger.Debug("looking for mistakes in a customer's zone", "domain", d.Name.Host(), "error", err)
		}
	}
	for _, r := range d.CustomerRecords() {
		c.records = append(c.records, c.check(r))
	}
	if d.Mode == zone.Delegated {
		c.strangers()
		c.secure()
	}
	c.mail()
	return c, sight, nil
}

func (c *checkup) look(ctx context.Context, p Prober, questions []probe.Question) (probe.Sight, error) {
	sight, err := p.Look(ctx, c.within(), questions)
	if err != nil {
		return sight, err
	}
	for i, q := range questions {
		c.seen[q] = sight.Answers[i]
	}
	return sight, nil
}

// within is a name whose parent lies in the zone where the customer adds records.
func (c *checkup) within() zone.Name {
	if c.domain.Mode == zone.Delegated {
		return c.domain.Name
	}
	if n, err := c.domain.Name.Child("_domainkey"); err == nil {
		return n
	}
	return c.domain.Name
}

// questions are those whose answers are as they should be where all is well.
func (c *checkup) questions() []probe.Question {
	var list []probe.Question
	ask := func(n zone.Name, types ...string) {
		for _, t := range types {
			if q := (probe.Question{Name: n, Type: t}); n != "" && !slices.Contains(list, q) {
				list = append(list, q)
			}
		}
	}
	for _, r := range c.domain.CustomerRecords() {
		ask(nameOf(r.Name), r.Type)
	}
	if c.domain.Mode == zone.Delegated {
		ask(c.domain.Name, "DS")
	}
	ask(c.organisation(), "CAA")
	ask(childOf(c.organisation(), "_dmarc"), "TXT")
	return list
}

// doubts are the questions about records that were not found: usual mistakes.
func (c *checkup) doubts() []probe.Question {
	var list []probe.Question
	for _, r := range c.domain.CustomerRecords() {
		owner := nameOf(r.Name)
		if c.has(owner, r.Type, r.Value) {
			continue
		}
		for _, q := range []probe.Question{
			{Name: owner, Type: "A"}, {Name: owner, Type: "TXT"}, {Name: owner, Type: typeCNAME},
			{Name: c.doubled(owner), Type: r.Type}, {Name: c.plain(owner), Type: r.Type},
		} {
			if _, asked := c.seen[q]; !asked && q.Name != "" && !slices.Contains(list, q) && len(list) < maxDoubts {
				list = append(list, q)
			}
		}
	}
	return list
}

// maxDoubts bounds the doubts of one look.
const maxDoubts = 32

// organisation is the registrable domain, or what is nearest to it.
func (c *checkup) organisation() zone.Name {
	switch {
	case c.domain.Registrable != "":
		return c.domain.Registrable
	case c.domain.Mode == zone.Delegated:
		return c.domain.Name.Parent()
	}
	return c.domain.Name
}

// doubled is a name as it comes out where the DNS host appends its zone to a name
// that was entered whole.
func (c *checkup) doubled(n zone.Name) zone.Name {
	return nameOf(n.Host() + "." + c.zone.Host())
}

// plain is a name without its label _domainkey, which some panels refuse.
func (c *checkup) plain(n zone.Name) zone.Name {
	if host := n.Host(); strings.Contains(host, "._domainkey.") {
		return nameOf(strings.Replace(host, "._domainkey.", ".domainkey.", 1))
	}
	return ""
}

func (c *checkup) has(owner zone.Name, kind, value string) bool {
	for _, t := range []string{kind, typeCNAME} {
		if slices.Contains(c.seen[probe.Question{Name: owner, Type: t}].Records, probe.Record{Type: kind, Value: value}) {
			return true
		}
	}
	return false
}

// at is everything that was seen at a name.
func (c *checkup) at(owner zone.Name) []probe.Record {
	var all []probe.Record
	for _, t := range []string{typeNS, typeCNAME, "A", "TXT"} {
		for _, r := range c.seen[probe.Question{Name: owner, Type: t}].Records {
			if !slices.Contains(all, r) {
				all = append(all, r)
			}
		}
	}
	return all
}

func (c *checkup) check(want state.Record) CheckedRecord {
	owner := nameOf(want.Name)
	out := CheckedRecord{Name: want.Name, Type: want.Type, Value: want.Value, Found: []string{}}
	there := c.at(owner)
	for _, r := range there {
		out.Found = append(out.Found, r.Type+" "+r.Value)
	}
	first := c.seen[probe.Question{Name: owner, Type: want.Type}]
	switch {
	case c.has(owner, want.Type, want.Value):
		out.Status = "found"
		if first.Differ {
			out.Hint = "not all servers of " + c.zone.Host() + " have it yet: a change is on its way; if it stays so, ask the DNS host"
		} else if want.Type == typeCNAME && len(there) > 1 {
			out.Status, out.Hint = "wrong", "a name that has a CNAME can have nothing else: remove the others"
		}
	case !first.Asked:
		out.Status = "unknown"
	case c.has(c.doubled(owner), want.Type, want.Value):
		out.Status = "missing"
		out.Hint = fmt.Sprintf("it was entered as %s: this DNS host appends %s by itself; enter only %q as the name", c.doubled(owner).Host(), c.zone.Host(), c.short(owner))
	case c.plain(owner) != "" && c.has(c.plain(owner), want.Type, want.Value):
		out.Status = "missing"
		out.Hint = fmt.Sprintf("it is at %s: the underscore of _domainkey is missing", c.plain(owner).Host())
	default:
		out.Status, out.Hint = c.mistake(want, there)
	}
	return out
}

// mistake tells what is wrong with what is there.
func (c *checkup) mistake(want state.Record, there []probe.Record) (status, hint string) {
	var alias, ns, text, address string
	for _, r := range there {
		switch r.Type {
		case typeCNAME:
			alias = r.Value
		case typeNS:
			ns = r.Value
		case "A", "AAAA":
			address = r.Value
		default:
			text = r.Type + " " + r.Value
		}
		if r.Type == want.Type && strings.TrimSuffix(r.Value, ".") == want.Value+c.zone.Host() {
			return "wrong", fmt.Sprintf("the DNS host appended %s to the value: enter it with a dot at its end, %s", c.zone.Host(), want.Value)
		}
	}
	short := c.short(nameOf(want.Name))
	switch {
	case want.Type == typeNS && alias != "":
		return "wrong", "there is a CNAME to " + alias + ": a name has a CNAME or a delegation; remove the CNAME"
	case want.Type == typeNS && ns != "":
		return "missing", "other NS records are there, and this one is not: add it beside those that are right"
	case want.Type == typeNS && text+address != "":
		return "missing", fmt.Sprintf("other records are at the name (%s); the delegation hides them: add NS records named %q, and what is still needed with authd domain records set", strings.TrimSpace(text+" "+address), short)
	case want.Type == typeNS:
		return "missing", fmt.Sprintf("add an NS record named %q in the zone %s", short, c.zone.Host())
	case ns != "":
		return "wrong", "the name is delegated to " + ns + ", whose servers are asked instead: add the CNAME there, or remove the delegation"
	case alias != "":
		for _, other := range c.domain.CustomerRecords() {
			if other.Value == alias && other.Name != want.Name {
				return "wrong", "that is the value for " + other.Name + ": the two are mixed up"
			}
		}
		return "wrong", "it points to " + alias + ": change it to " + want.Value
	case address != "":
		return "wrong", "the name answers the address " + address + " and no CNAME: the DNS host proxies or flattens it; switch that off for this record (\"DNS only\"). Where a wildcard answers, add the CNAME"
	case text != "":
		return "wrong", "there is " + text + ": remove it, then add the CNAME"
	}
	return "missing", fmt.Sprintf("add a CNAME named %q in the zone %s", short, c.zone.Host())
}

// strangers tells of name servers beside ours: questions that they get are lost.
func (c *checkup) strangers() {
	var ours []string
	for _, r := range c.domain.CustomerRecords() {
		ours = append(ours, r.Value)
	}
	for _, r := range c.seen[probe.Question{Name: c.domain.Name, Type: typeNS}].Records {
		if r.Type == typeNS && !slices.Contains(ours, r.Value) {
			c.note("%s is delegated to %s too, which is not of this claim: remove that NS record, since resolvers ask any of them", c.domain.Name.Host(), r.Value)
		}
	}
}

// secure tells of DS records: the zone is not signed here, so that validating
// resolvers would believe nothing of it (RFC 4035 section 5).
func (c *checkup) secure() {
	for _, r := range c.seen[probe.Question{Name: c.domain.Name, Type: "DS"}].Records {
		if r.Type == "DS" {
			c.note("%s has DS records in %s, and is not signed here: resolvers that validate answer SERVFAIL for it; remove the DS records", c.domain.Name.Host(), c.zone.Host())
			return
		}
	}
}

// mail tells what else of the customer's keeps mail or links from working.
func (c *checkup) mail() {
	org := c.organisation()
	if !org.In(c.zone) {
		return // the servers that were asked know nothing of it
	}
	if a := c.seen[probe.Question{Name: childOf(org, "_dmarc"), Type: "TXT"}]; a.Asked {
		policy := ""
		for _, r := range a.Records {
			if text := unquoted(r.Value); r.Type == "TXT" && strings.HasPrefix(text, "v=DMARC1") {
				policy = strings.ToLower(strings.ReplaceAll(text, " ", ""))
			}
		}
		strict := strings.Contains(policy+";", ";adkim=s;")
		switch {
		case policy == "" && len(a.Records) == 0:
			c.note("%s has no DMARC record, which large receivers want of who sends much: add a TXT record at _dmarc.%s, such as \"v=DMARC1; p=none\"", org.Host(), org.Host())
		case strict && c.domain.Mode == zone.Delegated && c.domain.Name != org:
			c.note("DMARC of %s wants strict alignment (adkim=s): mail From: …@%s that is signed for %s fails it; have adkim=s removed", org.Host(), org.Host(), c.domain.Name.Host())
		}
	}
	var issuers []string
	for _, r := range c.seen[probe.Question{Name: org, Type: "CAA"}].Records {
		if r.Type == "CAA" && !slices.Contains(issuers, r.Value) {
			issuers = append(issuers, r.Value)
		}
	}
	if len(issuers) == 0 {
		return
	}
	remedy := "have the platform's CA added there"
	if c.domain.Mode == zone.Delegated {
		remedy = "where that CA is another, allow it with authd domain records set " + c.domain.Name.Host() + " @ CAA …"
	}
	c.note("CAA of %s (%s) says who may issue the tracking host's certificate: %s", org.Host(), strings.Join(issuers, ", "), remedy)
}

func (c *checkup) note(format string, args ...any) {
	c.notes = append(c.notes, fmt.Sprintf(format, args...))
}

// complete says whether all that the customer must add is there.
func (c *checkup) complete() bool {
	return !slices.ContainsFunc(c.records, func(r CheckedRecord) bool { return r.Status != "found" })
}

// short is a name relative to the zone, as panels want it.
func (c *checkup) short(n zone.Name) string {
	return strings.TrimSuffix(strings.TrimSuffix(n.Host(), c.zone.Host()), ".")
}

// nameOf is a name, empty where there is no room for it.
func nameOf(text string) zone.Name {
	n, err := zone.ParseName(text)
	if err != nil {
		return ""
	}
	return n
}

func childOf(n zone.Name, label string) zone.Name {
	child, err := n.Child(label)
	if err != nil {
		return ""
	}
	return child
}

// unquoted joins the strings of a TXT record.
func unquoted(value string) string {
	return strings.ReplaceAll(strings.ReplaceAll(value, `" "`, ""), `"`, "")
}
