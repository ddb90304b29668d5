package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"authd/api"
)

// What a new cluster on loopback holds. All addresses are of the documentation
// ranges (RFC 5737, RFC 3849), also those of the name servers: what a node
// answers is what the public would see, and not where it listens. A loopback
// address there would look right in dig and be wrong in every copy.
const (
	devZone = "p-dns.test"
	devPool = "default"
)

var (
	devNameservers = []struct {
		label     string
		addresses []string
	}{
		{"ns1", []string{"192.0.2.53", "2001:db8::53"}},
		{"ns2", []string{"198.51.100.53", "2001:db8:1::53"}},
	}
	devRecords = []struct{ name, kind, value string }{
		{"mx1", "A", "192.0.2.25"},
		{"mx1", "AAAA", "2001:db8::25"},
	}
	devPoolSpec = api.PoolSpec{
		SPF: []string{"ip4:192.0.2.0/24", "ip6:2001:db8:25::/48"}, SPFAll: "~all",
		MX:    []api.MX{{Preference: 10, Host: "mx1." + devZone + "."}},
		Click: api.Click{A: []string{"192.0.2.80"}, AAAA: []string{"2001:db8::80"}},
	}
	devCustomers = []struct{ tenant, name, domain, mode string }{
		{"acme", "Acme", "send.acme.example", "delegated"},
		{"globex", "Globex", "globex.example", "cname"},
	}
)

// seed fills a new cluster, once: a file says that it was done, so that a later
// start changes nothing. Every step can be repeated, should one be interrupted.
func (d *devCluster) seed(ctx context.Context, c *client, demo bool) error {
	mark := d.path("seeded")
	if _, err := os.Stat(mark); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, n := range devNameservers {
		if _, err := c.put(ctx, v1("nameservers", n.label), api.NameServerSpec{Addresses: n.addresses}); err != nil {
			return err
		}
	}
	if _, err := c.put(ctx, v1("zones", devZone), api.ZoneSpec{}); err != nil {
		return err
	}
	for _, r := range devRecords {
		spec := api.RecordSpec{TTL: 3600, Values: []string{r.value}}
		if _, err := c.put(ctx, v1("zones", devZone, "records", r.name, r.kind), spec); err != nil {
			return err
		}
	}
	if _, err := c.put(ctx, v1("pools", devPool), devPoolSpec); err != nil {
		return err
	}
	if demo {
		if err := seedCustomers(ctx, c); err != nil {
			return err
		}
	}
	if err := d.visible(ctx); err != nil {
		return err
	}
	return newFile(mark, []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o644)
}

func seedCustomers(ctx context.Context, c *client) error {
	for _, x := range devCustomers {
		if _, err := c.post(ctx, v1("tenants"), nil, api.NewTenant{ID: x.tenant, Name: x.name}, nil); err != nil {
			return err
		}
		body := api.NewDomain{Domain: x.domain, Mode: x.mode, Pool: devPool}
		_, err := c.get(ctx, v1("domains", x.domain), nil, nil)
		if refusedWith(err, http.StatusNotFound) {
			_, err = c.post(ctx, v1("tenants", x.tenant, "domains"), nil, body, nil)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// visible waits until every node has what the first has: by then all answer alike.
func (d *devCluster) visible(ctx context.Context) error {
	c, err := newClient("http://"+d.api(1), d.token, "")
	if err != nil {
		return err
	}
	for {
		var view api.Cluster
		if _, err := c.get(ctx, v1("cluster"), nil, &view); err != nil {
			return err
		}
		low, high := ^uint64(0), uint64(0)
		for _, n := range view.Nodes {
			low, high = min(low, n.Applied), max(high, n.Applied)
		}
		if low == high {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nodes are not equally far: %w", ctx.Err())
		case <-time.After(devPoll):
		}
	}
}

// invite prints where the nodes are and what to try.
func (d *devCluster) invite(ctx context.Context, c *client) {
	w := d.stdout
	for i := 1; i <= d.nodes; i++ {
		fmt.Fprintf(w, "  %s  DNS %s  API http://%s  pid file %s\n", nodeName(i), d.dns(i), d.api(i), d.shown(nodeName(i), "pid"))
	}
	dig := func(i int) string { return fmt.Sprintf("dig @127.0.0.1 -p %d", int(d.dnsPort)+min(i, d.nodes)-1) }
	fmt.Fprintf(w, "\nTry:\n  %s %s NS\n", dig(1), devZone)
	for i, x := range devCustomers {
		var doc api.Domain
		if _, err := c.get(ctx, v1("domains", x.domain), nil, &doc); err != nil {
			continue // removed since: nothing to show
		}
		if name := activeKeyName(&doc); name != "" {
			fmt.Fprintf(w, "  %s %s TXT\n", dig(2+i), name)
		}
		if x.mode == "delegated" {
			fmt.Fprintf(w, "  %s %s MX\n", dig(1), x.domain)
		}
	}
	self := invocation()
	fmt.Fprintf(w, "\n  . %s\n", d.shown("env"))
	fmt.Fprintf(w, "  curl -H \"Authorization: Bearer $AUTHD_TOKEN\" $AUTHD_ADDR/v1/domains\n")
	fmt.Fprintf(w, "  %s domain list\n", self)
	fmt.Fprintf(w, "  %s tenant add initech && %s domain add send.initech.example --tenant initech\n", self, self)
	fmt.Fprintf(w, "  %s key rotate send.initech.example\n", self)
	if d.nodes > 2 {
		fmt.Fprintf(w, "  kill -9 $(cat %s); %s domain list --addr http://%s\n", d.shown(nodeName(1), "pid"), self, d.api(2))
	}
	fmt.Fprintln(w)
}

// activeKeyName is where the public key of a domain's active key is answered: in
// CNAME mode where the customer's CNAME points.
func activeKeyName(doc *api.Domain) string {
	for _, k := range doc.Keys {
		if k.Stage != "active" {
			continue
		}
		name := k.Selector + "._domainkey." + doc.Domain + "."
		for _, r := range doc.Records {
			if r.Type == "CNAME" && absolute(r.Name) == name {
				return r.Value
			}
		}
		return name
	}
	return ""
}

// invocation is how this binary was called, to be copied.
func invocation() string {
	binary, err := os.Executable()
	if err != nil || strings.Contains(binary, string(filepath.Separator)+"go-build") {
		return "go run ./cmd/authd"
	}
	if strings.Contains(os.Args[0], string(filepath.Separator)) {
		return os.Args[0]
	}
	return "authd"
}
