package main

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"authd/api"
)

// domainImportZoneCmd is `authd domain import-zone`.
type domainImportZoneCmd struct {
	Domain  string `arg:"" help:"Domain or token."`
	File    string `arg:"" help:"Zone file (RFC 1035); '-' reads standard input."`
	DryRun  bool   `help:"Say what would happen, and change nothing."`
	Replace bool   `help:"Remove the extra records that the file does not have."`
	Reason  string `help:"Why, for the audit."`
}

func (domainImportZoneCmd) Help() string {
	return `All records of the file are set in one step, or none where one line is refused; every bad line is
named. Names without a final dot are below the domain. The file's own SOA and NS at the domain are
left out, because a delegated domain has authd's; $INCLUDE and $GENERATE are refused, and so are
names that authd manages. NS and DNAME need scope admin. At most 1 MiB.

Examples:

    authd domain import-zone send.customer.example send.zone --dry-run
    authd domain import-zone send.customer.example send.zone --replace --reason "moved from the old platform"
`
}

func (c *domainImportZoneCmd) Run(s *session) error {
	text, err := readZoneFile(c.File, s.stdin)
	if err != nil {
		return err
	}
	q := because(c.Reason)
	for name, set := range map[string]bool{"dry_run": c.DryRun, "replace": c.Replace} {
		if set {
			q.Set(name, "true")
		}
	}
	var out api.ImportedZone
	raw, err := s.exchange(s.ctx, http.MethodPost, v1("domains", c.Domain, "zone"), q, "text/dns", text, &out)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		for _, n := range out.Notes {
			fmt.Fprintf(w, "line %d: %s\n", n.Line, n.Detail)
		}
		verb := ""
		if out.DryRun {
			verb = "would be "
		}
		fmt.Fprintf(w, "%s: record sets: %d %sadded, %d %schanged, %d %sremoved, %d the same\n", out.Domain,
			out.Added, verb, out.Changed, verb, out.Removed, verb, out.Same)
	})
}

// readZoneFile reads a file that is no larger than the API takes.
func readZoneFile(name string, stdin io.Reader) ([]byte, error) {
	from := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading zone file: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, api.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading zone file: %w", err)
	}
	switch {
	case len(text) > api.MaxBody:
		return nil, fmt.Errorf("reading zone file: %s has more than %d octets: import it in parts", name, api.MaxBody)
	case len(text) == 0:
		return nil, fmt.Errorf("reading zone file: %s is empty", name)
	}
	return text, nil
}
