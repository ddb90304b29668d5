package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/keys"
)

// Rotation is the body of POST /v1/domains/{domain}/rotate.
type Rotation struct {
	From        string `json:"from,omitempty" maxLength:"63" doc:"The active selector that the caller saw: where another is active already, nothing happens. Left out: whatever is active, of every algorithm."`
	Emergency   bool   `json:"emergency,omitempty" doc:"A key leaked: never refused, and no soak. The standby signs at once where it is ready; otherwise by itself as soon as it is. Needs a reason."`
	Old         string `json:"old,omitempty" enum:"drain,revoke,revoke_when_switched" doc:"What becomes of the old key in an emergency: drain; revoke, in the change that activates the next and never before; or revoke_when_switched, the default: once every signer has fetched the next, at most ten minutes after the switch."`
	Compromised string `json:"compromised,omitempty" enum:"key,store" doc:"What leaked: key, the default, the active key alone, so the standby replaces it; store, the sealed store, so the standby is revoked at once too, keys that drain have the fate of old, and the next key is made anew, which takes its time: see expected_at."`
	Reason      string `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit. An emergency needs it."`
}

// Revocation is the body of POST /v1/domains/{domain}/keys/{selector}/revoke.
type Revocation struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500"`
	Force  bool   `json:"force,omitempty" doc:"Revoke the only key that can sign. Needs scope admin."`
}

func (h *Handler) registerKeys() {
	h.registerRollback()
	tags := []string{"Keys"}
	add(h, huma.Operation{
		OperationID: "rotate-domain", Method: http.MethodPost, Path: "/v1/domains/{domain}/rotate", Tags: tags,
		Summary: "Make the standby key active now; the old one drains",
		Description: "Needs a standby whose ready time has come; too early is 409 with ready_at. " +
			"An emergency is not refused: its reply says what was done, what it waits for, and which mail is at risk.",
	}, tenant, h.rotate)
	h.registerKeyPage()
	add(h, huma.Operation{
		OperationID: "revoke-key", Method: http.MethodPost, Path: "/v1/domains/{domain}/keys/{selector}/revoke", Tags: tags,
		Summary:     "Answer a key with an empty p= at once",
		Description: "Not rotate: the active key is revoked only where another of its algorithm can sign, unless forced.",
	}, tenant, h.revoke)
	h.registerBring()
}

func (h *Handler) rotate(ctx context.Context, in *struct {
	DomainPath
	Wait
	Body *Rotation
}) (*rotatedReply, error) {
	var body Rotation // left out: everything as usual
	if in.Body != nil {
		body = *in.Body
	}
	if err := body.check(); err != nil {
		return nil, err
	}
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if body.Emergency {
		return h.replace(ctx, in.Wait, d, body)
	}
	if err := rotatable(from(ctx).machine, d); err != nil {
		return nil, err
	}
	if done, err := h.againEach(ctx, in.Wait, steps(d, body.From)); done {
		return h.rotatedAfter(d.Token, err)
	}
	d = h.confirmed(ctx, d)
	commands, err := rotations(d, d.Ring(), body.From)
	if err != nil {
		return nil, err
	}
	_, err = h.writeAll(ctx, in.Wait, body.Reason, commands...)
	return h.rotatedAfter(d.Token, err)
}

// steps is how many commands a manual rotation takes.
func steps(d *state.Domain, seen string) int {
	if seen != "" {
		return 1
	}
	return len(d.Algorithms)
}

// confirmed waits a little for the nodes to confirm the standbys of a domain: a
// customer who was added a moment ago can be rotated now. It returns the domain
// as it is then; whether it is ready the machine decides.
func (h *Handler) confirmed(ctx context.Context, d *state.Domain) *state.Domain {
	ctx, cancel := context.WithTimeout(ctx, h.config.ConfirmWait)
	defer cancel()
	for {
		m := h.replica.Machine()
		if now, ok := m.Domain(d.Token); ok {
			d = now
		}
		if !awaitsConfirmation(d) || h.replica.WaitApplied(ctx, m.Index()+1) != nil {
			return d
		}
	}
}

// awaitsConfirmation says whether a standby is published but not yet confirmed.
func awaitsConfirmation(d *state.Domain) bool {
	for _, k := range d.Ring().Keys {
		if k.Stage == keys.Standby && k.ConfirmedAt == 0 {
			return true
		}
	}
	return false
}

// rotations are the steps that a manual rotation takes: one an algorithm, or
// the one of the selector that the caller saw.
func rotations(d *state.Domain, r keys.Ring, seen string) ([]state.Command, error) {
	only, err := algorithmOf(d, r, seen)
	if err != nil {
		return nil, err
	}
	var commands []state.Command
	for _, a := range d.Algorithms {
		if only != 0 && a != only {
			continue
		}
		saw := seen
		if active, ok := r.Active(a); ok && saw == "" {
			saw = d.Selector(active)
		}
		// Where the caller saw an older key the machine finds the step done; the
		// key named does not matter then.
		step := keys.Step{Kind: keys.StepActivate, Algorithm: a}
		if standby, ok := r.Standby(a); ok {
			step.Key = standby.ID
		} else if active, ok := r.Active(a); ok && d.Selector(active) == saw {
			return nil, problem(http.StatusConflict, codeTooEarly, "",
				"the next %s key of %s is not published yet; try again when it is among its keys as standby", a, d.Name.Host())
		}
		commands = append(commands, state.StepKey{Token: d.Token, Step: step, From: saw, Manual: true})
	}
	if len(commands) == 0 {
		return nil, problem(http.StatusConflict, codeConflict, "domain", "%s has no keys to rotate", d.Name.Host())
	}
	return commands, nil
}

func (h *Handler) revoke(ctx context.Context, in *struct {
	DomainPath
	Selector string `path:"selector" maxLength:"63" example:"2601-3kfkxn"`
	Wait
	Body Revocation
}) (*domainReply, error) {
	req := from(ctx)
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if in.Body.Force && !req.who.admin() {
		return nil, forbidden("force", "only an admin leaves a domain without a key; leave force out")
	}
	if _, done, err := h.again(ctx, in.Wait); done {
		return h.domainAfter(d.Token, err)
	}
	if _, ok := bySelector(d, d.Ring(), in.Selector); !ok {
		return nil, notFound("selector", "%s has no key with the selector %q", d.Name.Host(), bounded(in.Selector))
	}
	command := state.RevokeKey{Token: d.Token, Selector: in.Selector, Force: in.Body.Force}
	_, err = h.write(ctx, in.Wait, in.Body.Reason, command)
	return h.domainAfter(d.Token, err)
}

// algorithmOf is that of the key whose selector the caller saw; 0: it saw none.
func algorithmOf(d *state.Domain, r keys.Ring, seen string) (keys.Algorithm, error) {
	if seen == "" {
		return 0, nil
	}
	k, ok := bySelector(d, r, seen)
	if !ok {
		return 0, invalid("from", "%s has no key with the selector %q", d.Name.Host(), bounded(seen))
	}
	return k.Algorithm, nil
}

// bySelector finds a key by the selector that signers use.
func bySelector(d *state.Domain, r keys.Ring, selector string) (keys.Key, bool) {
	for _, k := range r.Keys {
		if d.Selector(k) == selector {
			return k, true
		}
	}
	return keys.Key{}, false
}
