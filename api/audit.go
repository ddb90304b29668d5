package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
)

// AuditPage is a part of the changes that the cluster remembers. First and Last
// are those of all, whoever asks.
type AuditPage struct {
	Items []state.AuditEntry `json:"items" nullable:"false"`
	Next  *uint64            `json:"next,omitempty" doc:"after of the next page; absent on the last."`
	First uint64             `json:"first" doc:"The oldest change that is remembered; older ones are in the nodes' audit files."`
	Last  uint64             `json:"last" doc:"The newest change; 0: none yet."`
	Base  string             `json:"base" doc:"Hash that the oldest change follows: zeroes for the first of all."`
	Head  string             `json:"head" doc:"Hash of the newest change."`
}

func (h *Handler) registerAudit() {
	add(h, huma.Operation{
		OperationID: "list-audit", Method: http.MethodGet, Path: "/v1/audit", Tags: []string{"Audit"},
		Summary: "List who changed what, oldest first",
		Description: "Each change carries the SHA-256 of the one before it and itself (authd audit verify). The cluster remembers the " +
			"last 100,000; every node writes all to files. A tenant sees the changes of its own things. " +
			"after older than what is remembered is 410.",
	}, tenant, h.listAudit)
}

func (h *Handler) listAudit(ctx context.Context, in *struct {
	After int64 `query:"after" default:"-1" minimum:"-1" doc:"Only changes after this one; left out: from the oldest that is remembered."`
	Limit int   `query:"limit" default:"100" minimum:"1" maximum:"1000" doc:"At most so many items."`
}) (*struct{ Body AuditPage }, error) {
	req := from(ctx)
	m := req.machine
	dropped, base := m.AuditBase()
	last, head := m.AuditHead()
	after := dropped
	if in.After >= 0 {
		after = uint64(in.After)
	}
	if after < dropped {
		return nil, forgotten("after", after, dropped)
	}
	out := AuditPage{Items: []state.AuditEntry{}, First: dropped + 1, Last: last, Base: base.String(), Head: head.String()}
	for e := range m.Audit(after) {
		if len(out.Items) == in.Limit {
			out.Next = &after
			break
		}
		if after = e.Seq; req.who.sees(e.Tenant) {
			out.Items = append(out.Items, viewChange(m, req.who, e))
		}
	}
	return &struct{ Body AuditPage }{out}, nil
}

// forgotten is the problem with changes that are asked for too late.
func forgotten(field string, after, dropped uint64) *Problem {
	return problem(http.StatusGone, codeGone, field,
		"the changes from %d to %d are not remembered any more; read the state anew and go on after %d, or read the nodes' audit files",
		after+1, dropped, dropped)
}

// viewChange is a change as a caller may see it: from which address others
// worked is not a tenant's business.
func viewChange(m state.Machine, who identity, e *state.AuditEntry) state.AuditEntry {
	out := *e
	if who.tenant == "" {
		return out
	}
	if actor, ok := m.AccessToken(e.Actor); !ok || string(actor.Scope) != tenantScope+who.tenant {
		out.Source = ""
	}
	return out
}
