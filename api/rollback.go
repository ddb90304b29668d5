package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/keys"
)

// Rollback is the body of POST /v1/domains/{domain}/rollback.
type Rollback struct {
	From   string `json:"from,omitempty" maxLength:"63" doc:"The active selector that the caller saw: where another is active already, nothing happens. Left out: whatever is active, of every algorithm that can go back."`
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit."`
}

func (h *Handler) registerRollback() {
	add(h, huma.Operation{
		OperationID: "rollback-domain", Method: http.MethodPost, Path: "/v1/domains/{domain}/rollback", Tags: []string{"Keys"},
		Summary: "Make the key before the active one active again",
		Description: "Within the pool's rollback window, and only while that key is draining: a revoked key never signs again. " +
			"The newer key drains then.",
	}, tenant, h.rollback)
}

func (h *Handler) rollback(ctx context.Context, in *struct {
	DomainPath
	Wait
	Body *Rollback
}) (*rotatedReply, error) {
	var body Rollback
	if in.Body != nil {
		body = *in.Body
	}
	req := from(ctx)
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if err := rotatable(req.machine, d); err != nil {
		return nil, err
	}
	if done, err := h.againEach(ctx, in.Wait, 1); done {
		return h.rotatedAfter(d.Token, err)
	}
	commands, err := rollbacks(req.machine, d, body.From)
	if err != nil {
		return nil, err
	}
	_, err = h.writeAll(ctx, in.Wait, body.Reason, commands...)
	return h.rotatedAfter(d.Token, err)
}

// rotatable refuses a domain whose keys are not rotated by hand. An emergency
// does not ask: a key leaked whether its tenant pays or not.
func rotatable(m state.Machine, d *state.Domain) error {
	if d.State == state.Leaving {
		return problem(http.StatusConflict, codeConflict, "domain", "%s is leaving: nothing signs for it any more; restore it first", d.Name.Host())
	}
	if t, ok := m.Tenant(d.Tenant); ok && t.Suspended {
		return problem(http.StatusConflict, codeConflict, "domain",
			"tenant %s of %s is suspended: resume it first; for a leaked key set emergency, which is carried out all the same", d.Tenant, d.Name.Host())
	}
	return nil
}

// rollbacks are the steps of a rollback: one an algorithm that can go back. Where
// the caller saw another key active, the machine finds the step done.
func rollbacks(m state.Machine, d *state.Domain, seen string) ([]state.Command, error) {
	r := d.Ring()
	only, err := algorithmOf(d, r, seen)
	if err != nil {
		return nil, err
	}
	var commands []state.Command
	var why error
	for _, a := range d.Algorithms {
		if only != 0 && a != only {
			continue
		}
		active, ok := r.Active(a)
		if !ok {
			continue
		}
		saw := seen
		if saw == "" {
			saw = d.Selector(active)
		}
		previous, err := previousKey(m, d, r, a)
		if err != nil && saw == d.Selector(active) {
			why = err
			continue
		}
		step := keys.Step{Kind: keys.StepActivate, Algorithm: a, Key: previous.ID}
		commands = append(commands, state.StepKey{Token: d.Token, Step: step, From: saw, Manual: true})
	}
	switch {
	case len(commands) > 0:
		return commands, nil
	case why != nil:
		return nil, why
	}
	return nil, problem(http.StatusConflict, codeConflict, "domain", "no key of %s signs: there is nothing to go back from", d.Name.Host())
}

// previousKey is the key that the active one replaced and that may come back, or
// why it may not.
func previousKey(m state.Machine, d *state.Domain, r keys.Ring, a keys.Algorithm) (keys.Key, error) {
	window := keys.DefaultPolicy().Rollback
	if pool, ok := m.Pool(d.Pool); ok {
		window = pool.Policy.Rollback
	}
	if k, ok := r.ByID(r.RolledFrom[a]); ok {
		if until := time.Unix(k.DrainedAt, 0).UTC().Add(window); m.Time() > until.Unix() {
			return k, problem(http.StatusConflict, codeConflict, "domain",
				"%s stopped signing for %s too long ago: its rollback window of %s ended at %s; rotate to the standby instead",
				d.Selector(k), d.Name.Host(), window, until.Format(time.RFC3339))
		}
		return k, nil
	}
	last := lastReplaced(d, r, a)
	if k, ok := bySelector(d, r, last); ok && k.Stage == keys.Revoked {
		return keys.Key{}, problem(http.StatusConflict, codeConflict, "domain",
			"%s of %s is revoked, and a revoked key never signs again; rotate to the standby instead", last, d.Name.Host())
	}
	return keys.Key{}, problem(http.StatusConflict, codeConflict, "domain",
		"the active %s key of %s replaced none, or was gone back to already: there is nothing to go back to; rotate to the standby instead", a, d.Name.Host())
}
