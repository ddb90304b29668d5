package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"authd/api"
)

// poolCmd is `authd pool`.
type poolCmd struct {
	clientFlags

	Set    poolSetCmd    `cmd:"" help:"Add a pool or change what it says, for all its domains at once."`
	List   poolListCmd   `cmd:"" help:"List pools."`
	Show   poolShowCmd   `cmd:"" help:"Show a pool."`
	Remove poolRemoveCmd `cmd:"" help:"Remove a pool that no domain uses."`
}

type poolSetCmd struct {
	Pool       string            `arg:"" help:"Short id: a to z, 0 to 9 and hyphens."`
	SPF        []string          `name:"spf" placeholder:"MECHANISM" help:"SPF mechanisms with literal addresses, such as ip4:192.0.2.0/24."`
	SPFAll     *string           `name:"spf-all" placeholder:"ALL" help:"~all or -all."`
	MX         []string          `name:"mx" sep:"none" placeholder:"'PREFERENCE HOST'" help:"Bounce mail exchangers, such as '10 mx1.p-dns.test.'."`
	ClickA     []string          `name:"click-a" placeholder:"ADDRESS" help:"IPv4 addresses of the tracking host."`
	ClickAAAA  []string          `name:"click-aaaa" placeholder:"ADDRESS" help:"IPv6 addresses of the tracking host."`
	ClickCNAME *string           `name:"click-cname" placeholder:"NAME" help:"Name of the tracking edge, instead of addresses."`
	DMARC      *string           `name:"dmarc" placeholder:"POLICY" help:"DMARC policy for the pool's delegated domains; empty: none, so that the parent's stays in force."`
	Algorithm  []string          `placeholder:"NAME" help:"rsa2048, ed25519 or both."`
	Period     *string           `placeholder:"DURATION" help:"From one key's activation to the next, such as 2160h."`
	Label      map[string]string `placeholder:"NAME=VALUE" help:"Labels; they replace those there were."`
	File       string            `placeholder:"FILE" help:"The whole pool as the API's JSON document, '-' for standard input, instead of flags."`
}

func (poolSetCmd) Help() string {
	return `Only what is given changes; a new pool has nothing but the default key policy. A change reaches
every domain of the pool in one step.

Examples:

    authd pool set default --spf ip4:192.0.2.0/24 --spf ip6:2001:db8:25::/48 --mx "10 mx1.p-dns.test."
    authd pool set default --click-cname edge.p-dns.test.
    authd pool set bulk --period 720h --algorithm rsa2048,ed25519
    authd pool show bulk -o json | authd pool set bulk2 --file -
`
}

func (c *poolSetCmd) Run(s *session) error {
	var body api.PoolSpec
	if c.File != "" {
		if err := s.readPool(c.File, &body); err != nil {
			return err
		}
	} else {
		var pool api.Pool
		_, err := s.get(s.ctx, v1("pools", c.Pool), nil, &pool)
		body = pool.PoolSpec
		if err != nil && !refusedWith(err, http.StatusNotFound) {
			return err
		}
		if err := c.change(&body); err != nil {
			return err
		}
	}
	raw, err := s.put(s.ctx, v1("pools", c.Pool), body)
	if err != nil {
		return err
	}
	var set api.Pool
	if err := json.Unmarshal(raw, &set); err != nil {
		return fmt.Errorf("reading the reply: %w", err)
	}
	return s.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "pool %s set\n", c.Pool)
		printWarnings(w, &set)
	})
}

// printWarnings prints what of a pool cannot work.
func printWarnings(w io.Writer, p *api.Pool) {
	for _, text := range p.Warnings {
		fmt.Fprintf(w, "warning: %s\n", text)
	}
}

func (s *session) readPool(file string, body *api.PoolSpec) error {
	in := s.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("reading pool: %w", err)
		}
		defer f.Close()
		in = f
	}
	// As "pool show -o json" prints it: with an id and a serial that are not copied.
	var pool api.Pool
	d := json.NewDecoder(in)
	d.DisallowUnknownFields()
	if err := d.Decode(&pool); err != nil {
		return fmt.Errorf("reading pool from %s: %w", file, err)
	}
	*body = pool.PoolSpec
	return nil
}

// change applies the flags that were given.
func (c *poolSetCmd) change(p *api.PoolSpec) error {
	if c.SPF != nil {
		p.SPF = c.SPF
	}
	if c.SPFAll != nil {
		p.SPFAll = *c.SPFAll
	}
	if c.MX != nil {
		p.MX = nil
		for _, text := range c.MX {
			preference, host, _ := strings.Cut(strings.TrimSpace(text), " ")
			n, err := strconv.ParseUint(preference, 10, 16)
			if err != nil || strings.TrimSpace(host) == "" {
				return usagef("--mx: %q is not a preference and a host, such as '10 mx1.p-dns.test.'", text)
			}
			p.MX = append(p.MX, api.MX{Preference: uint16(n), Host: strings.TrimSpace(host)})
		}
	}
	if c.ClickA != nil {
		p.Click.A, p.Click.CNAME = c.ClickA, ""
	}
	if c.ClickAAAA != nil {
		p.Click.AAAA, p.Click.CNAME = c.ClickAAAA, ""
	}
	if c.ClickCNAME != nil {
		p.Click.A, p.Click.AAAA, p.Click.CNAME = nil, nil, *c.ClickCNAME
	}
	if c.DMARC != nil {
		p.DMARC = *c.DMARC
	}
	if c.Algorithm != nil {
		p.DKIM.Algorithms = c.Algorithm
	}
	if c.Period != nil {
		p.DKIM.Period = *c.Period
	}
	if c.Label != nil {
		p.Labels = c.Label
	}
	return nil
}

type poolListCmd struct{}

func (poolListCmd) Help() string { return "    authd pool list\n" }

func (c *poolListCmd) Run(s *session) error {
	items, raw, err := pages[api.Pool](s.ctx, s.client, v1("pools"), nil)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "POOL", "SPF", "MX", "CLICK", "ALGORITHMS", "PERIOD")
		for _, p := range items {
			row(w, p.ID, strings.Join(p.SPF, " ")+" "+p.SPFAll, mxText(p.MX), clickText(&p.PoolSpec), strings.Join(p.DKIM.Algorithms, " "), p.DKIM.Period)
		}
	})
}

func mxText(mx []api.MX) string {
	parts := make([]string, len(mx))
	for i, m := range mx {
		parts[i] = fmt.Sprintf("%d %s", m.Preference, m.Host)
	}
	return strings.Join(parts, ", ")
}

func clickText(p *api.PoolSpec) string {
	if p.Click.CNAME != "" {
		return p.Click.CNAME
	}
	return strings.Join(append(append([]string(nil), p.Click.A...), p.Click.AAAA...), " ")
}

type poolShowCmd struct {
	Pool string `arg:"" help:"Pool."`
}

func (poolShowCmd) Help() string { return "    authd pool show default\n" }

func (c *poolShowCmd) Run(s *session) error {
	var p api.Pool
	raw, err := s.get(s.ctx, v1("pools", c.Pool), nil, &p)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "pool", p.ID)
		row(w, "SPF", strings.TrimSpace(strings.Join(p.SPF, " ")+" "+p.SPFAll))
		row(w, "bounce MX", mxText(p.MX))
		row(w, "click", clickText(&p.PoolSpec))
		row(w, "DMARC", p.DMARC)
		row(w, "DKIM", strings.TrimSpace(strings.Join(p.DKIM.Algorithms, " ")+" every "+p.DKIM.Period))
		row(w, "labels", labelText(p.Labels))
		printWarnings(w, &p)
	})
}

type poolRemoveCmd struct {
	Pool string `arg:"" help:"Pool."`
}

func (poolRemoveCmd) Help() string { return "    authd pool remove old\n" }

func (c *poolRemoveCmd) Run(s *session) error {
	raw, err := s.remove(s.ctx, v1("pools", c.Pool), nil)
	if err != nil {
		return err
	}
	return s.say(raw, "pool %s removed", c.Pool)
}
