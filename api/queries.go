package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/zone"
)

// Queries is what this node counted of a domain.
type Queries struct {
	Domain string    `json:"domain" example:"send.customer.example"`
	Token  string    `json:"token"`
	Node   string    `json:"node" doc:"The node that counted: each counts what it is asked."`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until" doc:"When counting ends or ended by itself."`
	// Counts has what is not zero.
	Counts []QueryCount `json:"counts" nullable:"false"`
}

// QueryCount is how many queries of one type had one outcome.
type QueryCount struct {
	Type    string `json:"type" example:"TXT" doc:"The record type, or other."`
	Outcome string `json:"outcome" example:"Found" doc:"Found, Alias, Referral, NoData, NoName or Refused."`
	Queries uint64 `json:"queries"`
}

// CountQueries is the body of POST /v1/domains/{domain}/queries.
type CountQueries struct {
	Minutes int `json:"minutes,omitempty" minimum:"1" maximum:"1440" default:"10" doc:"How long to count."`
}

type queriesReply struct{ Body Queries }

func (h *Handler) registerQueries() {
	const path = "/v1/domains/{domain}/queries"
	tags := []string{"Domains"}
	add(h, huma.Operation{
		OperationID: "count-queries", Method: http.MethodPost, Path: path, Tags: tags,
		Summary: "Count this node's DNS queries for a domain's names for a while, at most 16 domains at a time; begins anew where it is being done",
	}, adminOnly, h.countQueries)
	add(h, huma.Operation{
		OperationID: "show-queries", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "Show what this node counted of a domain since it was asked to",
	}, reader|tenant, h.showQueries)
	add(h, huma.Operation{
		OperationID: "forget-queries", Method: http.MethodDelete, Path: path, Tags: tags,
		Summary: "Stop counting a domain's queries on this node, and forget them",
	}, adminOnly, h.forgetQueries)
}

func (h *Handler) countQueries(ctx context.Context, in *struct {
	DomainPath
	Body CountQueries
}) (*queriesReply, error) {
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if h.config.Census == nil {
		return nil, notYet("domain", "this node does not answer DNS queries; ask one that does")
	}
	now := h.config.Now()
	until := now.Add(time.Duration(in.Body.Minutes) * time.Minute)
	if err := h.config.Census.Start(d.Token.String(), countedNames(d), now, until); errors.Is(err, zone.ErrCensusFull) {
		return nil, problem(http.StatusConflict, codeConflict, "domain",
			"this node counts the queries of %d domains already; stop one, or wait until one ends", zone.MaxCensus)
	} else if err != nil {
		return nil, err
	}
	return h.queriesOf(d)
}

// countedNames are all names that a domain is asked for by: its zone, answered or
// not, the server names that its delegation has, and its targets.
func countedNames(d *state.Domain) []zone.Name {
	names := d.Branch.Anchors()
	if d.Mode == zone.Delegated {
		names = append(names, d.Name)
	}
	return names
}

func (h *Handler) showQueries(ctx context.Context, in *DomainPath) (*queriesReply, error) {
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	return h.queriesOf(d)
}

func (h *Handler) queriesOf(d *state.Domain) (*queriesReply, error) {
	var counted zone.Counted
	found := false
	if h.config.Census != nil {
		counted, found = h.config.Census.Read(d.Token.String())
	}
	if !found {
		return nil, notFound("domain",
			"this node does not count the queries of %s; an admin starts that with POST /v1/domains/%s/queries", d.Name.Host(), d.Token)
	}
	out := Queries{
		Domain: d.Name.Host(), Token: d.Token.String(), Node: h.config.NodeID,
		Since: counted.Since.UTC(), Until: counted.Until.UTC(), Counts: []QueryCount{},
	}
	for _, c := range counted.Counts {
		out.Counts = append(out.Counts, QueryCount(c))
	}
	return &queriesReply{out}, nil
}

func (h *Handler) forgetQueries(ctx context.Context, in *DomainPath) (*struct{}, error) {
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if h.config.Census != nil {
		h.config.Census.Stop(d.Token.String())
	}
	return nil, nil
}
