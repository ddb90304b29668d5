package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/zone"
)

// textZone is the media type of zone text (RFC 4027).
const textZone = "text/dns"

// ImportedZone is what became of a zone text.
type ImportedZone struct {
	Domain  string `json:"domain" example:"send.customer.example"`
	DryRun  bool   `json:"dry_run" doc:"Nothing was changed."`
	Added   int    `json:"added" doc:"Record sets that were not there."`
	Changed int    `json:"changed" doc:"Record sets that were there with another TTL or other values."`
	Same    int    `json:"same" doc:"Record sets that were there already."`
	Removed int    `json:"removed" doc:"Record sets that are no longer there; only with replace."`
	// Notes say what was left out of the text.
	Notes   []ZoneNote `json:"notes" nullable:"false" doc:"What was left out of the text, such as its SOA."`
	Records []RecordRR `json:"records" nullable:"false" doc:"All extra records of the domain afterwards."`
}

// ZoneNote is about one line of a zone text.
type ZoneNote struct {
	Line   int    `json:"line" example:"3"`
	Detail string `json:"detail"`
}

func (h *Handler) registerZoneText() {
	add(h, huma.Operation{
		OperationID: "import-zone", Method: http.MethodPost, Path: "/v1/domains/{domain}/zone", Tags: []string{"Domains"},
		Summary: "Set the extra records of a delegated domain from a zone file",
		Description: "The body is zone text (RFC 1035 section 5.1; TYPEnnn as in RFC 3597), relative names below the domain. " +
			"All its records are set in one step, or none where one line is refused. Each owner and type is replaced; " +
			"with replace, extra records that the text does not have are removed. The text's own SOA and NS at the domain " +
			"are left out; $INCLUDE and $GENERATE are refused, and so are records at names that authd manages. " +
			"NS and DNAME need scope admin.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
			textZone: {Schema: &huma.Schema{Type: huma.TypeString}},
		}},
	}, tenant, h.importZone)
}

func (h *Handler) importZone(ctx context.Context, in *struct {
	DomainPath
	Wait
	Reason
	DryRun  bool `query:"dry_run" doc:"Say what would happen, and change nothing."`
	Replace bool `query:"replace" doc:"Remove the extra records that the text does not have."`
	RawBody []byte
}) (*struct{ Body ImportedZone }, error) {
	req := from(ctx)
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	limits := zone.TextLimits{Octets: MaxBody, Records: state.MaxDomainRecords * state.MaxRRset}
	text := bytes.TrimPrefix(in.RawBody, []byte("\ufeff")) // as some editors write it
	sets, notes, err := zone.ParseZone(d.Name, bytes.NewReader(text), limits)
	if err != nil {
		return nil, unreadable(err)
	}
	for _, s := range sets {
		if (s.Type == zone.TypeNS || s.Type == zone.TypeDNAME) && !req.who.admin() && !same(d.Records, s) {
			return nil, forbidden("", "%s %s: %s records need scope admin", s.Owner, s.Type, s.Type)
		}
	}
	command := state.SetDomainRecords{Token: d.Token, Sets: sets, Replace: in.Replace, Admin: req.who.admin()}
	after := req.machine
	if in.DryRun {
		var results []state.Result
		after, results, _ = after.Apply(after.Index()+1, []state.Entry{{At: after.Time(), Command: command}})
		if r := results[0].Refusal; r != nil {
			return nil, refused(r)
		}
	} else {
		if _, err := h.write(ctx, in.Wait, in.Reason.Reason, command); err != nil {
			return nil, err
		}
		after = h.replica.Machine()
	}
	out := ImportedZone{Domain: d.Name.Host(), DryRun: in.DryRun, Notes: []ZoneNote{}, Records: []RecordRR{}}
	for _, n := range notes {
		out.Notes = append(out.Notes, ZoneNote{Line: n.Line, Detail: n.Text})
	}
	out.compare(d.Records, sets, in.Replace)
	if now, ok := after.Domain(d.Token); ok {
		out.Records = viewRecords(now.Records, now.Name)
	}
	return &struct{ Body ImportedZone }{out}, nil
}

// compare counts what a text does to the records that were there.
func (z *ImportedZone) compare(before, sets []zone.RRset, replace bool) {
	for _, s := range sets {
		switch {
		case same(before, s):
			z.Same++
		case holds(before, s):
			z.Changed++
		default:
			z.Added++
		}
	}
	if !replace {
		return
	}
	for _, s := range before {
		if !holds(sets, s) {
			z.Removed++
		}
	}
}

// same says whether a list has exactly this RRset.
func same(sets []zone.RRset, like zone.RRset) bool {
	for _, s := range sets {
		if s.Owner == like.Owner && s.Type == like.Type {
			return fmt.Sprint(s) == fmt.Sprint(like)
		}
	}
	return false
}

// unreadable is the problem with every bad line of a zone text.
func unreadable(err error) error {
	bad, ok := errors.AsType[*zone.TextError](err)
	if !ok {
		return invalid("", "%s", err)
	}
	first := bad.Lines[0]
	p := invalid(lineField(first.Line), "line %d: %s", first.Line, first.Text)
	if len(bad.Lines) == 1 {
		return p
	}
	p.Detail = fmt.Sprintf("%d lines are refused, nothing was changed; the first is line %d: %s", len(bad.Lines)+bad.More, first.Line, first.Text)
	for _, l := range bad.Lines {
		p.Errors = append(p.Errors, FieldError{Field: lineField(l.Line), Detail: l.Text})
	}
	return p
}

func lineField(line int) string { return fmt.Sprintf("line %d", line) }
