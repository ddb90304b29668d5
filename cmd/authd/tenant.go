package main

import (
	"io"
	"strconv"

	"authd/api"
)

// tenantCmd is `authd tenant`.
type tenantCmd struct {
	clientFlags

	Add     tenantAddCmd     `cmd:"" help:"Add a tenant."`
	List    tenantListCmd    `cmd:"" help:"List tenants."`
	Show    tenantShowCmd    `cmd:"" help:"Show a tenant."`
	Set     tenantSetCmd     `cmd:"" help:"Change how much a tenant may add by itself."`
	Suspend tenantSuspendCmd `cmd:"" help:"Stop a tenant's signing; DNS is unchanged."`
	Resume  tenantResumeCmd  `cmd:"" help:"Let a suspended tenant sign again."`
}

type tenantAddCmd struct {
	ID   string `arg:"" help:"Short id, for ever: a to z, 0 to 9 and hyphens."`
	Name string `arg:"" optional:"" help:"Name for people (default: the id)."`

	MaxDomains uint32 `name:"max-domains" placeholder:"N" help:"At N domains the tenant's own tokens add no more (default: 10000). Tokens of scope admin, and an import, may."`
	MaxOctets  uint32 `name:"max-octets" placeholder:"N" help:"At N octets in memory, past 8192 for each domain, they fill domains no further (default: 16777216)."`
}

func (tenantAddCmd) Help() string {
	return `Examples:

    authd tenant add acme "Acme Incorporated"
    authd tenant add reseller --max-domains 50000
    authd domain add send.acme.example --tenant acme
`
}

func (c *tenantAddCmd) Run(s *session) error {
	name := c.Name
	if name == "" {
		name = c.ID
	}
	raw, err := s.post(s.ctx, v1("tenants"), nil, api.NewTenant{ID: c.ID, Name: name, MaxDomains: c.MaxDomains, MaxOctets: c.MaxOctets}, nil)
	if err != nil {
		return err
	}
	return s.say(raw, "tenant %s added", c.ID)
}

type tenantListCmd struct{}

func (tenantListCmd) Help() string { return "    authd tenant list\n" }

func (c *tenantListCmd) Run(s *session) error {
	items, raw, err := pages[api.Tenant](s.ctx, s.client, v1("tenants"), nil)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printTenants(w, items...) })
}

func printTenants(w io.Writer, tenants ...api.Tenant) {
	row(w, "ID", "NAME", "DOMAINS", "MAX-DOMAINS", "OCTETS", "MAX-OCTETS", "SUSPENDED", "CREATED")
	for _, t := range tenants {
		row(w, t.ID, t.Name, strconv.Itoa(t.Domains), strconv.Itoa(t.MaxDomains), strconv.Itoa(t.Octets), strconv.Itoa(t.MaxOctets), yesNo(t.Suspended), when(&t.CreatedAt))
	}
}

type tenantShowCmd struct {
	ID string `arg:"" help:"Tenant."`
}

func (tenantShowCmd) Help() string { return "    authd tenant show acme\n" }

func (c *tenantShowCmd) Run(s *session) error {
	var t api.Tenant
	raw, err := s.get(s.ctx, v1("tenants", c.ID), nil, &t)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printTenants(w, t) })
}

type tenantSetCmd struct {
	ID         string  `arg:"" help:"Tenant."`
	MaxDomains *uint32 `name:"max-domains" placeholder:"N" help:"At N domains the tenant's own tokens add no more; 0: the default, 10000."`
	MaxOctets  *uint32 `name:"max-octets" placeholder:"N" help:"At N octets in memory, past 8192 for each domain, they fill domains no further; 0: the default, 16777216."`
	Reason     string  `help:"Why, for the audit."`
}

func (tenantSetCmd) Help() string {
	return `A number below what the tenant has takes nothing away. Domains that leave count until they are
gone. Octets are of records, labels, names to sign for and keys, as each node holds them; most
domains have less than the 8192 that do not count. Tokens of scope admin, and an import, are not
bound.

    authd tenant set acme --max-domains 50000
    authd tenant set acme --max-octets 67108864
`
}

func (c *tenantSetCmd) Run(s *session) error {
	body := api.TenantPatch{MaxDomains: c.MaxDomains, MaxOctets: c.MaxOctets}
	if body == (api.TenantPatch{}) {
		return usagef("nothing to change: give --max-domains or --max-octets")
	}
	var t api.Tenant
	raw, err := s.patch(s.ctx, v1("tenants", c.ID), because(c.Reason), body, &t)
	if err != nil {
		return err
	}
	return s.say(raw, "tenant %s: %d domains, at most %d by its own tokens; %d octets past 8192 each, at most %d", t.ID, t.Domains, t.MaxDomains, t.Octets, t.MaxOctets)
}

type tenantSuspendCmd struct {
	ID     string `arg:"" help:"Tenant."`
	Reason string `help:"Why, for the audit."`
}

func (tenantSuspendCmd) Help() string {
	return `DNS goes on answering, so that mail under way still verifies; signers get no keys any more.

    authd tenant suspend acme --reason "abuse report 4711"
`
}

func (c *tenantSuspendCmd) Run(s *session) error {
	return s.tenantVerb(c.ID, "suspend", "suspended", c.Reason)
}

type tenantResumeCmd struct {
	ID     string `arg:"" help:"Tenant."`
	Reason string `help:"Why, for the audit."`
}

func (tenantResumeCmd) Help() string { return "    authd tenant resume acme\n" }

func (c *tenantResumeCmd) Run(s *session) error {
	return s.tenantVerb(c.ID, "resume", "resumed", c.Reason)
}

func (s *session) tenantVerb(id, verb, done, reason string) error {
	raw, err := s.post(s.ctx, v1("tenants", id, verb), because(reason), nil, nil)
	if err != nil {
		return err
	}
	return s.say(raw, "tenant %s %s", id, done)
}
