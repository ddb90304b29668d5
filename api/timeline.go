package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
)

// Timeline is everything that is remembered of a domain's keys.
type Timeline struct {
	Domain  string             `json:"domain" example:"send.customer.example"`
	Token   string             `json:"token"`
	At      time.Time          `json:"at" doc:"The cluster's time."`
	Keys    []Key              `json:"keys" nullable:"false" doc:"Keys that the domain has, with the times of their stages and what is next."`
	Changes []state.AuditEntry `json:"changes" nullable:"false" doc:"What happened to the domain, oldest first."`
	// Complete is false where the claim is older than what is remembered.
	Complete bool `json:"complete" doc:"false: older changes are in the nodes' audit files alone."`
}

func (h *Handler) registerTimeline() {
	add(h, huma.Operation{
		OperationID: "domain-timeline", Method: http.MethodGet, Path: "/v1/domains/{domain}/timeline", Tags: []string{"Audit"},
		Summary: "Show what happened to a domain and its keys, and what is next",
	}, reader|tenant, func(ctx context.Context, in *DomainPath) (*struct{ Body Timeline }, error) {
		req := from(ctx)
		m := req.machine
		d, err := req.domain(in.Domain)
		if err != nil {
			return nil, err
		}
		out := Timeline{
			Domain: d.Name.Host(), Token: d.Token.String(), At: moment(m.Time()),
			Keys: viewKeys(m, d, d.Ring()), Changes: []state.AuditEntry{},
		}
		for e := range m.AuditOf("domain", d.Token.String()) {
			out.Complete = out.Complete || e.Command == "AddDomain"
			change := viewChange(m, req.who, e)
			if req.who.scope == state.ScopeRead {
				change.Source = ""
			}
			out.Changes = append(out.Changes, change)
		}
		return &struct{ Body Timeline }{out}, nil
	})
}
