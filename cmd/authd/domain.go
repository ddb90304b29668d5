package main

import (
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"authd/api"
)

// domainCmd is `authd domain`.
type domainCmd struct {
	clientFlags

	Add     domainAddCmd     `cmd:"" help:"Claim a domain for a tenant."`
	List    domainListCmd    `cmd:"" help:"List domains."`
	Show    domainShowCmd    `cmd:"" help:"Show a domain and the DNS records its owner must add."`
	Set     domainSetCmd     `cmd:"" help:"Change a domain's pool, labels, DMARC policy or further From: domains."`
	Import  domainImportCmd  `cmd:"" help:"Claim many domains from a CSV or NDJSON file."`
	Remove  domainRemoveCmd  `cmd:"" help:"Let a domain leave; it can come back for 14 days."`
	Restore domainRestoreCmd `cmd:"" help:"Bring back a leaving domain."`
	Attest  domainAttestCmd  `cmd:"" help:"Count a domain as proven without asking its customer's DNS."`
	Verify  domainVerifyCmd  `cmd:"" help:"Ask the customer's name servers now for the records they must add."`
	Records domainRecordsCmd `cmd:"" help:"Extra records inside a delegated domain."`

	Queries domainQueriesCmd `cmd:"" help:"Count a domain's DNS queries on one node for a while, and show them."`

	ImportZone domainImportZoneCmd `cmd:"" help:"Set a delegated domain's extra records from a zone file."`
}

type domainAddCmd struct {
	Domain   string            `arg:"" help:"Name to claim, such as send.customer.example."`
	Tenant   string            `required:"" help:"Tenant who owns it."`
	Mode     string            `enum:"delegated,cname" default:"delegated" help:"delegated: the customer adds one NS RRset and we serve the zone; cname: the customer adds a handful of CNAMEs."`
	Pool     string            `default:"default" help:"Sending pool."`
	SignsFor []string          `placeholder:"NAME" help:"Further From: domains signed with this domain's key."`
	Label    map[string]string `placeholder:"NAME=VALUE" help:"Labels."`
	DMARC    string            `name:"dmarc" placeholder:"POLICY" help:"Explicit DMARC policy (default: the parent's stays in force)."`
	Override bool              `help:"Allow the registrable domain itself in delegated mode (admin)."`
}

func (domainAddCmd) Help() string {
	return `The reply shows the records the customer must add to their own DNS. They never change
afterwards, whatever rotates or moves here.

Examples:

    authd domain add send.customer.example --tenant acme
    authd domain add customer.example --tenant acme --mode cname --pool bulk
`
}

func (c *domainAddCmd) Run(s *session) error {
	var d api.Domain
	raw, err := s.post(s.ctx, v1("tenants", c.Tenant, "domains"), nil, api.NewDomain{
		Domain: c.Domain, Mode: c.Mode, Pool: c.Pool, Labels: c.Label,
		SignsFor: c.SignsFor, DMARC: c.DMARC, Override: c.Override,
	}, &d)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printDomain(w, &d) })
}

type domainListCmd struct {
	Tenant string `help:"Only this tenant's."`
	Pool   string `help:"Only this pool's."`
	State  string `enum:"pending,live,leaving," default:"" help:"Only those pending, live or leaving."`
}

func (domainListCmd) Help() string {
	return `Examples:

    authd domain list --tenant acme
    authd domain list --state pending -o json
`
}

func (c *domainListCmd) Run(s *session) error {
	q := url.Values{}
	for key, value := range map[string]string{"tenant": c.Tenant, "pool": c.Pool, "state": c.State} {
		if value != "" {
			q.Set(key, value)
		}
	}
	items, raw, err := pages[api.Domain](s.ctx, s.client, v1("domains"), q)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "DOMAIN", "TENANT", "MODE", "POOL", "STATE", "TOKEN", "LABELS")
		for _, d := range items {
			row(w, d.Domain, d.Tenant, d.Mode, d.Pool, d.State, d.Token, labelText(d.Labels))
		}
	})
}

type domainShowCmd struct {
	Domain string `arg:"" help:"Domain, or the token of a claim."`
}

func (domainShowCmd) Help() string {
	return `Prints the records the customer must add, in the form zone files and DNS panels take, and the
keys with what happens to each next. Where several tenants claim a name, give the token instead.

Examples:

    authd domain show send.customer.example
    authd domain show send.customer.example -o json
`
}

func (c *domainShowCmd) Run(s *session) error {
	var d api.Domain
	raw, err := s.get(s.ctx, v1("domains", c.Domain), nil, &d)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printDomain(w, &d) })
}

// printDomain prints a domain, above all what its owner must add.
func printDomain(w io.Writer, d *api.Domain) {
	fmt.Fprintf(w, "%s: %s, %s, tenant %s, pool %s\n", d.Domain, d.Mode, d.State, d.Tenant, d.Pool)
	fmt.Fprintf(w, "token %s\n", d.Token)
	if len(d.Labels) > 0 {
		fmt.Fprintf(w, "labels %s\n", labelText(d.Labels))
	}
	if len(d.SignsFor) > 0 {
		fmt.Fprintf(w, "signs for %s\n", strings.Join(d.SignsFor, ", "))
	}
	if d.DMARC != "" {
		fmt.Fprintf(w, "DMARC policy %q\n", d.DMARC)
	}
	switch {
	case d.GoneAt == nil:
	case d.State == "leaving":
		fmt.Fprintf(w, "leaving: can be restored until %s\n", d.GoneAt.Format(time.RFC3339))
	case d.State == "pending":
		fmt.Fprintf(w, "pending: not answered before the delegation is seen; expires %s\n", d.GoneAt.Format(time.RFC3339))
		fmt.Fprintf(w, "%s (at once: authd domain verify %s)\n", proofText(d), d.Domain)
	}
	if d.Mode == "cname" && d.ProofCheck != nil {
		fmt.Fprintf(w, "others claim its names too; whose keys sign, the customer's CNAMEs decide%s\n", provenText(d))
		fmt.Fprintf(w, "%s (at once: authd domain verify %s)\n", proofText(d), d.Token)
	}
	fmt.Fprint(w, "\nThe customer adds, once:\n\n")
	for _, r := range d.Records {
		fmt.Fprintf(w, "%s\t%d\tIN\t%s\t%s\n", absolute(r.Name), r.TTL, r.Type, r.Value)
	}
	if hosts := hostsOf(d.Records); len(hosts) > 0 {
		are, them := "names are", "all of them"
		if len(hosts) == 1 {
			are, them = "name is", "it"
		}
		fmt.Fprintf(w, "\nMost DNS panels append %s by themselves: there the %s %s.\n"+
			"Proxying is off for %s (\"DNS only\"), and no DS records. Is it right? authd domain verify %s\n",
			d.Registrable, are, strings.Join(hosts, ", "), them, d.Domain)
	}
	if len(d.Keys) > 0 {
		fmt.Fprintln(w)
		printKeys(w, d.Keys)
	}
}

// provenText says that a contested domain is proven.
func provenText(d *api.Domain) string {
	if d.ProvenAt == nil {
		return ""
	}
	return "; proven (" + d.Proven + ") " + d.ProvenAt.Format(time.RFC3339)
}

// proofText says how the asking for a pending or contested domain's proof stands.
func proofText(d *api.Domain) string {
	whose, missing := "the parent's servers", "they do not delegate to this claim"
	if d.Mode == "cname" {
		whose, missing = "the customer's servers", "no CNAME leads to this claim's keys"
	}
	c := d.ProofCheck
	if c == nil {
		return whose + " are asked by themselves, a minute after the claim and then ever less often"
	}
	next := "next " + c.NextAt.Format(time.RFC3339)
	if c.At == nil {
		return whose + " are asked by themselves: " + next
	}
	said := missing
	switch c.Outcome {
	case "found":
		said = "CNAMEs lead to this claim's keys"
	case "unasked":
		said = "nobody could be asked: " + c.Detail
	case "refused":
		said = c.Detail
	}
	return fmt.Sprintf("%s were asked %s: %s; %s", whose, c.At.Format(time.RFC3339), said, next)
}

// hostsOf are the names to enter where a panel appends the registrable domain; none
// where nobody knows what it appends.
func hostsOf(records []api.Record) (hosts []string) {
	for _, r := range records {
		if r.Host != r.Name && !slices.Contains(hosts, r.Host) {
			hosts = append(hosts, r.Host)
		}
	}
	return hosts
}

// absolute is a name with its final dot, as zone files need it: without, it would
// be taken as relative.
func absolute(name string) string { return strings.TrimSuffix(name, ".") + "." }

type domainSetCmd struct {
	Domain   string            `arg:"" help:"Domain or token."`
	Pool     *string           `help:"Move to this pool."`
	Label    map[string]string `placeholder:"NAME=VALUE" xor:"labels" help:"Labels; they replace those there were."`
	NoLabels bool              `xor:"labels" help:"Remove all labels."`
	DMARC    *string           `name:"dmarc" placeholder:"POLICY" help:"Explicit DMARC policy; empty: none."`
	SignsFor []string          `placeholder:"NAME" xor:"signs" help:"Further From: domains; they replace those there were."`
	SignsOwn bool              `name:"signs-own" xor:"signs" help:"Sign for no further From: domains."`
}

func (domainSetCmd) Help() string {
	return `Examples:

    authd domain set send.customer.example --pool bulk
    authd domain set customer.example --dmarc "v=DMARC1; p=none; rua=mailto:dmarc@customer.example"
    authd domain set customer.example --dmarc ""
`
}

func (c *domainSetCmd) Run(s *session) error {
	body := api.DomainPatch{Pool: c.Pool, DMARC: c.DMARC}
	if c.Label != nil || c.NoLabels {
		labels := map[string]string{}
		maps.Copy(labels, c.Label)
		body.Labels = &labels
	}
	if c.SignsFor != nil || c.SignsOwn {
		names := append([]string{}, c.SignsFor...)
		body.SignsFor = &names
	}
	if body == (api.DomainPatch{}) {
		return usagef("nothing to change: give --pool, --label, --dmarc or --signs-for")
	}
	raw, err := s.patch(s.ctx, v1("domains", c.Domain), nil, body, nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s changed", c.Domain)
}

type domainRemoveCmd struct {
	Domain string `arg:"" help:"Domain or token."`
	Now    bool   `help:"End the claim at once and for ever, instead of in 14 days (admin; needs --reason)."`
	Reason string `help:"Why, for the audit."`
}

func (domainRemoveCmd) Help() string {
	return `A leaving domain stops signing at once; its keys, SPF and bounce MX stay until mail under way has
arrived, and "authd domain restore" brings it back for 14 days. Then its names are gone for ever.

Examples:

    authd domain remove send.customer.example
    authd domain remove send.customer.example --now --reason "claimed by mistake"
`
}

func (c *domainRemoveCmd) Run(s *session) error {
	q := because(c.Reason)
	if c.Now {
		if c.Reason == "" {
			return usagef("--now needs --reason")
		}
		q.Set("now", "true")
	}
	raw, err := s.remove(s.ctx, v1("domains", c.Domain), q)
	if err != nil {
		return err
	}
	if c.Now {
		return s.say(raw, "%s is gone", c.Domain)
	}
	return s.say(raw, "%s is leaving; bring it back with: authd domain restore %s", c.Domain, c.Domain)
}

type domainRestoreCmd struct {
	Domain string `arg:"" help:"Domain or token."`
}

func (domainRestoreCmd) Help() string {
	return `The claim keeps its token, so the customer's records are right again at once.

    authd domain restore send.customer.example
`
}

func (c *domainRestoreCmd) Run(s *session) error {
	raw, err := s.post(s.ctx, v1("domains", c.Domain, "restore"), nil, nil, nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s is back", c.Domain)
}

type domainAttestCmd struct {
	Domain string `arg:"" help:"Domain or token."`
	Reason string `required:"" help:"Why it is known to be the tenant's; kept in the audit."`
}

func (domainAttestCmd) Help() string {
	return `Needs scope admin. Prefer "authd domain verify": what the customer's DNS says cannot be mistaken.
In mode cname it settles whose keys sign for a name that several tenants claim.

    authd domain attest send.customer.example --reason "moved from the old platform, delegation seen"
`
}

func (c *domainAttestCmd) Run(s *session) error {
	raw, err := s.post(s.ctx, v1("domains", c.Domain, "attest"), nil, api.Attestation{Reason: c.Reason}, nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s counts as proven", c.Domain)
}

type domainVerifyCmd struct {
	Domain string `arg:"" help:"Domain or token."`
}

func (domainVerifyCmd) Help() string {
	return `Asks the name servers of the customer's zone, no cache, whether each record that the customer must
add is there, and says which of the usual mistakes was made where it is not. What they say of the NS
records, or of the CNAMEs of the keys, proves the claim, and is committed. The cluster asks by itself
too where it matters (a pending domain, a name that several tenants claim), a minute after the claim
and then ever less often: verify is for who does not want to wait.

    authd domain verify send.customer.example
`
}

func (c *domainVerifyCmd) Run(s *session) error {
	var v api.Verification
	raw, err := s.post(s.ctx, v1("domains", c.Domain, "verify"), nil, nil, &v)
	if err != nil {
		return err
	}
	if err := s.show(raw, func(w io.Writer) { printVerification(w, &v) }); err != nil {
		return err
	}
	switch {
	case v.Domain.Mode == "delegated" && !v.Proven:
		return fmt.Errorf("%s is not proven: its owner must add the records that authd domain show %s prints", c.Domain, c.Domain)
	case len(v.Records) > 0 && !v.Complete:
		return fmt.Errorf("%s: not all records are as authd domain show %s prints them", c.Domain, c.Domain)
	}
	return nil
}

func printVerification(w io.Writer, v *api.Verification) {
	fmt.Fprintf(w, "%s\nasked %s\n", v.Detail, strings.Join(v.Servers, " "))
	if len(v.Records) > 0 {
		fmt.Fprintln(w)
	}
	for _, r := range v.Records {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Status, absolute(r.Name), r.Type, r.Value)
	}
	said := ""
	for _, r := range v.Records {
		line := ""
		switch {
		case r.Hint != "":
			line = fmt.Sprintf("%s: %s\n", r.Name, r.Hint)
		case r.Status == "wrong":
			line = fmt.Sprintf("%s: found %s\n", r.Name, strings.Join(r.Found, ", "))
		}
		if line != said { // NS records of one name have one hint
			fmt.Fprint(w, line)
		}
		said = line
	}
	for _, n := range v.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
}

// domainRecordsCmd is `authd domain records`.
type domainRecordsCmd struct {
	List   recordListCmd   `cmd:"" help:"List a domain's extra records, or with --served all that DNS answers."`
	Set    recordSetCmd    `cmd:"" help:"Set the records of one name and type."`
	Remove recordRemoveCmd `cmd:"" help:"Remove the records of one name and type."`
}

type recordListCmd struct {
	Domain string `arg:"" help:"Domain or token."`
	Served bool   `help:"Everything that DNS answers for the domain, what authd manages included."`
}

func (recordListCmd) Help() string {
	return `Examples:

    authd domain records list send.customer.example
    authd domain records list send.customer.example --served
`
}

func (c *recordListCmd) Run(s *session) error {
	if c.Served {
		var served api.ServedList
		raw, err := s.get(s.ctx, v1("domains", c.Domain, "served"), nil, &served)
		if err != nil {
			return err
		}
		return s.show(raw, func(w io.Writer) {
			for _, set := range served.Records {
				printRecords(w, api.RecordRR(set))
			}
		})
	}
	var extra api.RecordList
	raw, err := s.get(s.ctx, v1("domains", c.Domain, "records"), nil, &extra)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printRecords(w, extra.Items...) })
}

// printRecords prints records as a zone file has them.
func printRecords(w io.Writer, sets ...api.RecordRR) {
	for _, set := range sets {
		for _, v := range set.Values {
			fmt.Fprintf(w, "%s\t%d\tIN\t%s\t%s\n", set.Name, set.TTL, set.Type, v)
		}
	}
}

type recordSetCmd struct {
	Domain string   `arg:"" help:"Domain or token."`
	Name   string   `arg:"" help:"Name within the domain; @ is the domain itself."`
	Type   string   `arg:"" help:"Type, such as TXT, CAA or TYPE65280."`
	Values []string `arg:"" help:"Values, as in a zone file, names absolute."`
	TTL    uint32   `name:"ttl" default:"300" help:"TTL in seconds, 60 to 86400."`
}

func (recordSetCmd) Help() string {
	return `The values replace those there were. Names that authd manages are refused.

Examples:

    authd domain records set send.customer.example @ CAA '0 issue "ca.example"'
    authd domain records set send.customer.example @ TXT "site-verification=123" --ttl 3600
    authd domain records set send.customer.example default._bimi TXT "v=BIMI1; l=https://customer.example/logo.svg"
`
}

func (c *recordSetCmd) Run(s *session) error {
	raw, err := s.put(s.ctx, v1("domains", c.Domain, "records", c.Name, c.Type), api.RecordSpec{TTL: c.TTL, Values: c.Values})
	if err != nil {
		return err
	}
	return s.say(raw, "%s %s of %s set", c.Name, strings.ToUpper(c.Type), c.Domain)
}

type recordRemoveCmd struct {
	Domain string `arg:"" help:"Domain or token."`
	Name   string `arg:"" help:"Name within the domain; @ is the domain itself."`
	Type   string `arg:"" help:"Type."`
}

func (recordRemoveCmd) Help() string {
	return "    authd domain records remove send.customer.example @ CAA\n"
}

func (c *recordRemoveCmd) Run(s *session) error {
	raw, err := s.remove(s.ctx, v1("domains", c.Domain, "records", c.Name, c.Type), nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s %s of %s removed", c.Name, strings.ToUpper(c.Type), c.Domain)
}
