package api

import (
	"context"
	"net/http"
	"time"

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
	add(h, huma.Operation{
		OperationID: "list-reads", Method: http.MethodGet, Path: "/v1/audit/reads", Tags: []string{"Audit"},
		Summary: "Where each node's journal of key reads ended, a minute ago at most",
		Description: "The first release of a key to a token on a node is in that node's own journal, in the directory reads of its data directory, " +
			"before the key leaves; authd audit verify checks the files, and with --node against this.",
	}, reader, h.listReads)
}

// ReadsJournal is where a node's journal of key reads ended when it last said so.
type ReadsJournal struct {
	Node    string    `json:"node" example:"node-1"`
	Entries uint64    `json:"entries" doc:"First releases of a key to a token."`
	Head    string    `json:"head" doc:"Hash of the last entry."`
	Repeats uint64    `json:"repeats" doc:"Further releases of the same, counted alone."`
	At      time.Time `json:"at"`
}

// ReadsJournals are those of all nodes, also of some that left.
type ReadsJournals struct {
	Items []ReadsJournal `json:"items" nullable:"false"`
}

func (h *Handler) listReads(ctx context.Context, _ *struct{}) (*struct{ Body ReadsJournals }, error) {
	out := ReadsJournals{Items: []ReadsJournal{}}
	for _, r := range from(ctx).machine.ReadsHeads() {
		out.Items = append(out.Items, ReadsJournal{r.Node, r.Seq, r.Head.String(), r.Repeats, moment(r.At)})
	}
	return &struct{ Body ReadsJournals }{out}, nil
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
