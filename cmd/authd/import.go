package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"authd/api"
)

// domainImportCmd claims many domains from a file.
type domainImportCmd struct {
	File    string `arg:"" help:"CSV with a header line, or NDJSON; '-' reads standard input."`
	Format  string `enum:"csv,ndjson," default:"" help:"csv or ndjson (default: what the file looks like)."`
	DryRun  bool   `help:"Only check: say what would happen and every bad line."`
	SkipBad bool   `help:"Import the good lines although there are bad ones."`
}

func (domainImportCmd) Help() string {
	return `The whole file is checked first, here and at the server: format, names, repetitions, and whether each
domain could be claimed. Every bad line is told with its number and reason, and nothing is changed
while there is one. Then the lines are applied in batches. Should anything interrupt that, run the same
command again: what is there already stays as it is. Tenants that are missing are added; pools must exist.

CSV columns, in any order: tenant, domain; and optionally mode (delegated or cname; default delegated),
pool (default default), labels (tier=gold;region=eu), signs_for (further From: domains, separated by
spaces), targets (existing owner names in CNAME mode: k1=…;k2=…;k3=…;bounce=…;click=…), key_file (an
existing private key in PEM, relative to the file) and selector (of that key).

    tenant,domain,mode,pool,labels
    acme,send.acme.example,delegated,default,tier=gold
    globex,globex.example,cname,bulk,

NDJSON has an object a line with the members of an item of POST /v1/import (see /openapi.json).

Examples:

    authd domain import customers.csv --dry-run
    authd domain import customers.csv
    export-customers | authd domain import - --format ndjson
`
}

// Bounds of an import's requests. The check takes as much as the server does at
// once, because lines can be in each other's way; a batch is what progress is
// told by, and what is sent again after a change of leader.
const (
	checkItems = 50_000
	checkBytes = 32 << 20
	batchItems = 50
	batchBytes = 8 << 20
	retryFor   = time.Minute // while the cluster elects a leader
	retryEvery = 500 * time.Millisecond
	bulkTime   = 10 * time.Minute // for one request; the server has the same
)

func (c *domainImportCmd) Run(s *session) error {
	s.http.Timeout = bulkTime
	rows, bad, err := c.read(s)
	if err != nil {
		return fmt.Errorf("reading %s: %w", c.File, err)
	}
	lines := len(rows) + len(bad)
	good, refused, exist, err := c.check(s, rows)
	if err != nil {
		return fmt.Errorf("checking %s: %w", c.File, err)
	}
	bad = append(bad, refused...)
	slices.SortStableFunc(bad, func(a, b badLine) int { return a.line - b.line })
	for _, b := range bad {
		fmt.Fprintf(s.stderr, "line %d: %s\n", b.line, b.reason)
	}
	fresh := len(good) - exist
	if len(bad) > 0 && !c.SkipBad {
		return fmt.Errorf("%d of %s are bad; nothing was changed: mend them, or import the others with --skip-bad", len(bad), plural(lines, "line"))
	}
	if c.DryRun {
		return c.report(s, importTotals{Added: fresh, Exists: exist, Bad: len(bad), DryRun: true})
	}
	totals, err := c.apply(s, good)
	totals.Bad = len(bad)
	if err != nil {
		return fmt.Errorf("%w\n  %d were imported or there already; run the same command again to go on", err, totals.Added+totals.Exists)
	}
	if err := c.report(s, totals); err != nil {
		return err
	}
	if totals.Refused > 0 {
		return fmt.Errorf("%s refused when they were applied", plural(totals.Refused, "line"))
	}
	return nil
}

// importTotals is what an import came to.
type importTotals struct {
	Added   int  `json:"added"`
	Exists  int  `json:"exists"`
	Refused int  `json:"refused"` // passed the check, and were refused all the same
	Bad     int  `json:"bad"`
	DryRun  bool `json:"dry_run"`
}

func (c *domainImportCmd) report(s *session, t importTotals) error {
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	verb := "added"
	if t.DryRun {
		verb = "would be added"
	}
	text := fmt.Sprintf("%s %s, %d there already", plural(t.Added, "domain"), verb, t.Exists)
	if t.Bad > 0 {
		text += fmt.Sprintf(", %s skipped", plural(t.Bad, "bad line"))
	}
	if t.Added == 0 && t.Refused == 0 {
		text += ": nothing to change"
	}
	return s.say(raw, "%s", text)
}

// read reads the whole file.
func (c *domainImportCmd) read(s *session) ([]importRow, []badLine, error) {
	if c.File == "-" {
		return readImport(s.stdin, c.Format, ".")
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	return readImport(f, c.Format, filepath.Dir(c.File))
}

// check asks the server what would become of each row.
func (c *domainImportCmd) check(s *session, rows []importRow) (good []importRow, bad []badLine, exist int, err error) {
	p := newProgress(s.stderr, "checked", len(rows))
	defer p.end()
	done := 0
	for chunk := range chunks(rows, checkItems, checkBytes) {
		out, err := s.sendImport(chunk, true)
		if err != nil {
			return nil, nil, 0, err
		}
		for i, r := range out.Results {
			switch r.Status {
			case "refused":
				bad = append(bad, badLine{chunk[i].line, refusal(r)})
			case "exists":
				exist++
				fallthrough
			default:
				good = append(good, chunk[i])
			}
		}
		done += len(chunk)
		p.at(done)
	}
	return good, bad, exist, nil
}

// apply sends the good rows in batches.
func (c *domainImportCmd) apply(s *session, rows []importRow) (totals importTotals, err error) {
	p := newProgress(s.stderr, "imported", len(rows))
	defer p.end()
	done := 0
	for batch := range chunks(rows, batchItems, batchBytes) {
		out, err := s.sendImport(batch, false)
		if err != nil {
			return totals, err
		}
		totals.Added += out.Added
		totals.Exists += out.Exists
		totals.Refused += out.Refused
		for i, r := range out.Results {
			if r.Status == "refused" {
				fmt.Fprintf(s.stderr, "line %d: %s\n", batch[i].line, refusal(r))
			}
		}
		done += len(batch)
		p.at(done)
	}
	return totals, nil
}

// refusal is the reason of a refused item, with the field where that helps.
func refusal(r api.ImportResult) string {
	if r.Problem == nil {
		return "refused without a reason"
	}
	if r.Problem.Field != "" {
		return r.Problem.Field + ": " + r.Problem.Detail
	}
	return r.Problem.Detail
}

// sendImport sends one request, and again while the cluster has no leader or
// the node cannot be reached: an import that is repeated changes nothing.
func (s *session) sendImport(rows []importRow, dryRun bool) (*api.Imported, error) {
	body := api.Import{DryRun: dryRun, Items: make([]api.ImportItem, len(rows))}
	for i, r := range rows {
		body.Items[i] = r.item
	}
	until := time.Now().Add(retryFor)
	for {
		var out api.Imported
		_, err := s.post(s.ctx, v1("import"), nil, body, &out)
		if err == nil && len(out.Results) != len(rows) {
			return nil, fmt.Errorf("the server answered for %d of %d lines", len(out.Results), len(rows))
		}
		if err == nil {
			return &out, nil
		}
		if !transient(err) || time.Now().After(until) {
			return nil, err
		}
		select {
		case <-s.ctx.Done():
			return nil, context.Cause(s.ctx)
		case <-time.After(retryEvery):
		}
	}
}

// transient errors may pass by themselves.
func transient(err error) bool {
	return refusedWith(err, http.StatusServiceUnavailable) || refusedWith(err, http.StatusTooManyRequests) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// chunks cuts rows into requests of bounded size.
func chunks(rows []importRow, most, bytes int) func(yield func([]importRow) bool) {
	return func(yield func([]importRow) bool) {
		for len(rows) > 0 {
			n, size := 0, 0
			for n < len(rows) && n < most && (n == 0 || size+rows[n].size() <= bytes) {
				size += rows[n].size()
				n++
			}
			if !yield(rows[:n]) {
				return
			}
			rows = rows[n:]
		}
	}
}

// size is about how many octets a row has on the wire.
func (r *importRow) size() int {
	const frame = 200
	n := frame + len(r.item.Tenant) + len(r.item.Domain)
	for k, v := range r.item.Labels {
		n += len(k) + len(v)
	}
	for _, name := range r.item.SignsFor {
		n += len(name)
	}
	for _, k := range r.item.Keys {
		n += len(k.PrivateKey)
	}
	return n
}
