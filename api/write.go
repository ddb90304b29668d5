package api

import (
	"context"
	"net/http"

	"authd/cluster"
	"authd/cluster/state"
	"authd/zone"
)

// Wait is the query parameter of every write.
type Wait struct {
	Wait string `query:"wait" enum:"served" doc:"served: reply only once every serving node answers with the change."`
}

// Reason is the query parameter of calls without a body that want one.
type Reason struct {
	Reason string `query:"reason" maxLength:"500" doc:"Why, for the audit."`
}

// propose replicates commands as one batch and gives their results, refusals
// among them. The reply then carries the index.
func (h *Handler) propose(ctx context.Context, reason string, commands ...state.Command) ([]state.Result, uint64, error) {
	req := from(ctx)
	bounded, cancel := context.WithTimeout(ctx, proposeTime)
	defer cancel()
	who := cluster.Actor{ID: req.who.id, Source: req.who.source, Reason: reason, Once: req.once}
	results, index, err := h.replica.Propose(bounded, who, commands...)
	if err != nil {
		p := unwritten(err)
		if p.Code == codeBusy {
			h.Refused(refusedQueue)
		}
		h.logger.Warn("a write was not confirmed", "code", p.Code, "error", err)
		return nil, 0, p
	}
	req.index(index)
	if len(results) > 0 {
		req.repeated(results[0])
	}
	return results, index, nil
}

// write replicates one command, and waits where the caller asked for it. A
// refusal is the error.
func (h *Handler) write(ctx context.Context, w Wait, reason string, command state.Command) (state.Result, error) {
	results, err := h.writeAll(ctx, w, reason, command)
	if err != nil {
		return state.Result{}, err
	}
	return results[0], nil
}

// writeAll replicates several commands as one batch. The first refusal is the
// error; the commands beside it may have been done.
func (h *Handler) writeAll(ctx context.Context, w Wait, reason string, commands ...state.Command) ([]state.Result, error) {
	results, index, err := h.propose(ctx, reason, commands...)
	if err != nil {
		return nil, err
	}
	for _, r := range results {
		if r.Refusal != nil {
			return nil, refused(r.Refusal)
		}
	}
	return results, h.served(ctx, w, index, h.shown(ctx, w, commands, results)...)
}

// maxShown bounds what is asked for one request: of those with more commands the
// first stand for the others, which are in the same log entry.
const maxShown = 32

// shown lists what DNS is asked, where the caller waits, to see what commands did.
func (h *Handler) shown(ctx context.Context, w Wait, commands []state.Command, results []state.Result) (list []zone.Question) {
	if w.Wait == "" {
		return nil
	}
	now := h.replica.Machine()
	for i, c := range commands {
		if list = append(list, state.Shown(from(ctx).machine, now, c, results[i])...); len(list) >= maxShown {
			return list[:maxShown]
		}
	}
	return list
}

// served waits until every serving node answers with an index, and its listener
// what was changed as this node does.
func (h *Handler) served(ctx context.Context, w Wait, index uint64, questions ...zone.Question) error {
	if w.Wait == "" {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	if err := h.replica.WaitServed(bounded, index, questions...); err != nil {
		return problem(http.StatusGatewayTimeout, codeNotServed, "wait",
			"the change is committed at index %d, but not every serving node has confirmed it: %s", index, err)
	}
	return nil
}
