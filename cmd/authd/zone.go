package main

import (
	"fmt"
	"io"
	"strings"

	"authd/api"
)

// zoneCmd is `authd zone`.
type zoneCmd struct {
	clientFlags

	Set    zoneSetCmd    `cmd:"" help:"Add a platform zone or change its contact."`
	List   zoneListCmd   `cmd:"" help:"List platform zones."`
	Show   zoneShowCmd   `cmd:"" help:"Show a platform zone and the operator's records in it."`
	Parent zoneParentCmd `cmd:"" help:"Show the NS and glue records to give the registrar."`
	Remove zoneRemoveCmd `cmd:"" help:"Remove a platform zone that nothing uses."`
	Record zoneRecordCmd `cmd:"" help:"The operator's own records in a platform zone."`
}

type zoneSetCmd struct {
	Zone    string `arg:"" help:"The zone, such as p-dns.test."`
	Contact string `help:"Mailbox in charge (default: hostmaster@<zone>)."`
}

func (zoneSetCmd) Help() string {
	return `Customers' records name hosts in platform zones: choose names you will keep for ever.

    authd zone set p-dns.test --contact hostmaster@p-dns.test
`
}

func (c *zoneSetCmd) Run(s *session) error {
	raw, err := s.put(s.ctx, v1("zones", c.Zone), api.ZoneSpec{Contact: c.Contact})
	if err != nil {
		return err
	}
	return s.say(raw, "zone %s set", c.Zone)
}

type zoneListCmd struct{}

func (zoneListCmd) Help() string { return "    authd zone list\n" }

func (c *zoneListCmd) Run(s *session) error {
	items, raw, err := pages[api.Zone](s.ctx, s.client, v1("zones"), nil)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "ZONE", "CONTACT", "SERIAL")
		for _, z := range items {
			row(w, z.Zone, z.Contact, z.Serial)
		}
	})
}

type zoneShowCmd struct {
	Zone string `arg:"" help:"The zone."`
}

func (zoneShowCmd) Help() string { return "    authd zone show p-dns.test\n" }

func (c *zoneShowCmd) Run(s *session) error {
	var z api.Zone
	raw, err := s.get(s.ctx, v1("zones", c.Zone), nil, &z)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "%s: contact %s, serial %d\n", z.Zone, z.Contact, z.Serial)
		printRecords(w, z.Records...)
	})
}

type zoneParentCmd struct {
	Zone string `arg:"" help:"The zone."`
}

func (zoneParentCmd) Help() string {
	return `The zone's parent, usually through the registrar, must hold these for anyone to find the zone.

    authd zone parent p-dns.test
`
}

func (c *zoneParentCmd) Run(s *session) error {
	var reply api.Parent
	raw, err := s.get(s.ctx, v1("zones", c.Zone, "parent"), nil, &reply)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		for _, r := range reply.Records {
			printRecords(w, api.RecordRR(r))
		}
	})
}

type zoneRemoveCmd struct {
	Zone string `arg:"" help:"The zone."`
}

func (zoneRemoveCmd) Help() string { return "    authd zone remove old-dns.test\n" }

func (c *zoneRemoveCmd) Run(s *session) error {
	raw, err := s.remove(s.ctx, v1("zones", c.Zone), nil)
	if err != nil {
		return err
	}
	return s.say(raw, "zone %s removed", c.Zone)
}

// zoneRecordCmd is `authd zone record`.
type zoneRecordCmd struct {
	Set    zoneRecordSetCmd    `cmd:"" help:"Set the records of one name and type."`
	Remove zoneRecordRemoveCmd `cmd:"" help:"Remove the records of one name and type."`
}

type zoneRecordSetCmd struct {
	Zone   string   `arg:"" help:"The zone."`
	Name   string   `arg:"" help:"Name within the zone; @ is the zone itself."`
	Type   string   `arg:"" help:"Type."`
	Values []string `arg:"" help:"Values, as in a zone file, names absolute."`
	TTL    uint32   `name:"ttl" default:"3600" help:"TTL in seconds, 60 to 86400."`
}

func (zoneRecordSetCmd) Help() string {
	return `The values replace those there were.

    authd zone record set p-dns.test mx1 A 192.0.2.25
    authd zone record set p-dns.test mx1 AAAA 2001:db8::25
`
}

func (c *zoneRecordSetCmd) Run(s *session) error {
	raw, err := s.put(s.ctx, v1("zones", c.Zone, "records", c.Name, c.Type), api.RecordSpec{TTL: c.TTL, Values: c.Values})
	if err != nil {
		return err
	}
	return s.say(raw, "%s %s of %s set", c.Name, strings.ToUpper(c.Type), c.Zone)
}

type zoneRecordRemoveCmd struct {
	Zone string `arg:"" help:"The zone."`
	Name string `arg:"" help:"Name within the zone; @ is the zone itself."`
	Type string `arg:"" help:"Type."`
}

func (zoneRecordRemoveCmd) Help() string { return "    authd zone record remove p-dns.test mx1 A\n" }

func (c *zoneRecordRemoveCmd) Run(s *session) error {
	raw, err := s.remove(s.ctx, v1("zones", c.Zone, "records", c.Name, c.Type), nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s %s of %s removed", c.Name, strings.ToUpper(c.Type), c.Zone)
}

// nameserverCmd is `authd nameserver`.
type nameserverCmd struct {
	clientFlags

	Set    nameserverSetCmd    `cmd:"" help:"Set a name server's public addresses."`
	List   nameserverListCmd   `cmd:"" help:"List name servers."`
	Remove nameserverRemoveCmd `cmd:"" help:"Remove a name server that no customer was given."`
}

type nameserverSetCmd struct {
	Label     string   `arg:"" help:"ns1 to ns9."`
	Addresses []string `arg:"" help:"Public addresses, IPv4 and IPv6."`
}

func (nameserverSetCmd) Help() string {
	return `A name server is a name, not a node: point it at other addresses and no customer notices.

    authd nameserver set ns1 192.0.2.53 2001:db8::53
`
}

func (c *nameserverSetCmd) Run(s *session) error {
	raw, err := s.put(s.ctx, v1("nameservers", c.Label), api.NameServerSpec{Addresses: c.Addresses})
	if err != nil {
		return err
	}
	return s.say(raw, "%s is at %s", c.Label, strings.Join(c.Addresses, ", "))
}

type nameserverListCmd struct{}

func (nameserverListCmd) Help() string { return "    authd nameserver list\n" }

func (c *nameserverListCmd) Run(s *session) error {
	items, raw, err := pages[api.NameServer](s.ctx, s.client, v1("nameservers"), nil)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "NAME", "ADDRESSES", "KNOWN AS")
		for _, n := range items {
			row(w, n.Label, strings.Join(n.Addresses, " "), strings.Join(n.Names, " "))
		}
	})
}

type nameserverRemoveCmd struct {
	Label string `arg:"" help:"ns1 to ns9."`
}

func (nameserverRemoveCmd) Help() string { return "    authd nameserver remove ns3\n" }

func (c *nameserverRemoveCmd) Run(s *session) error {
	raw, err := s.remove(s.ctx, v1("nameservers", c.Label), nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s removed", c.Label)
}
