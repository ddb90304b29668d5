package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
)

// useTime is how long a request waits for nodes to say what they saw of a key.
const useTime = 2 * time.Second

// KeyPage is one key with what the nodes saw of it.
type KeyPage struct {
	Key
	Domain       string `json:"domain" example:"send.customer.example"`
	Token        string `json:"token"`
	Use          KeyUse `json:"use"`
	SafeToRevoke bool   `json:"safe_to_revoke" doc:"Revoking it now fails no mail that anybody is known to hold."`
	Why          string `json:"why" doc:"Why it is, or is not, safe to revoke, in words."`
}

// KeyUse is what the serving nodes saw of a key.
type KeyUse struct {
	Unheard       []string    `json:"unheard" nullable:"false" doc:"Nodes that did not say what they saw: what follows is then not the whole, and nothing is revoked on schedule."`
	CountedSince  *time.Time  `json:"counted_since" doc:"Since when the counts are whole; null where no node said."`
	LastAsked     *time.Time  `json:"last_asked" doc:"Last query for its record. Counted while it drains and while it is revoked."`
	Asked         []DayCount  `json:"asked" nullable:"false" doc:"Queries a day (UTC), the latest first."`
	LastHandedOut *time.Time  `json:"last_handed_out" doc:"When its private half last left a node, or may have without being noted."`
	Signers       []KeySigner `json:"signers" nullable:"false" doc:"To whom it was given, by the id of the access token."`
	SignersUnsure bool        `json:"signers_unsure" doc:"Others may have fetched it within signer_hold: a node lost count."`
}

// DayCount is how many queries a day had.
type DayCount struct {
	Day     string `json:"day" format:"date" example:"2026-11-20"`
	Queries uint32 `json:"queries"`
}

// KeySigner is who fetched a key.
type KeySigner struct {
	Token   string     `json:"token" doc:"Id of the access token."`
	At      *time.Time `json:"at" doc:"When it last fetched this key; null: never."`
	LaterAt *time.Time `json:"later_at" doc:"When it last fetched a later key of the domain; null: never."`
}

func (h *Handler) registerKeyPage() {
	add(h, huma.Operation{
		OperationID: "show-key", Method: http.MethodGet, Path: "/v1/domains/{domain}/keys/{selector}", Tags: []string{"Keys"},
		Summary:     "Show one key: stage, queries for it, who fetched it, and whether it is safe to revoke",
		Description: "Asks every serving node, for at most two seconds. A node that does not answer is named: what it saw is unknown, not nothing.",
	}, reader|tenant, h.showKey)
}

func (h *Handler) showKey(ctx context.Context, in *struct {
	DomainPath
	Selector string `path:"selector" maxLength:"63" example:"2601-3kfkxn"`
}) (*struct{ Body KeyPage }, error) {
	req := from(ctx)
	d, err := req.domain(in.Domain)
	if err != nil {
		return nil, err
	}
	ring := d.Ring()
	k, ok := bySelector(d, ring, in.Selector)
	if !ok {
		return nil, notFound("selector", "%s has no key with the selector %q", d.Name.Host(), bounded(in.Selector))
	}
	out := KeyPage{Domain: d.Name.Host(), Token: d.Token.String()}
	for _, view := range viewKeys(req.machine, d, ring) {
		if view.ID == k.ID {
			out.Key = view
		}
	}
	one := []Key{out.Key}
	h.waiting(ctx, d, one)
	out.Key = one[0]
	ctx, cancel := context.WithTimeout(ctx, useTime)
	defer cancel()
	use, ok := h.replica.KeyUse(ctx, d.Token, k.ID)[k.ID]
	if !ok {
		return nil, notFound("selector", "the key %q of %s is gone", bounded(in.Selector), d.Name.Host())
	}
	out.Use = viewUse(&use)
	policy, now := keyPolicy(req.machine, d), h.now(req.machine)
	evidence := use.Evidence(policy.Hold(now), now)
	out.SafeToRevoke, out.Why = safeToRevoke(ring, k, policy, now, &evidence, &use)
	return &struct{ Body KeyPage }{out}, nil
}

// KeyWait is a node that a key's barrier waits for.
type KeyWait struct {
	Node  string    `json:"node" example:"node-3"`
	Since time.Time `json:"since"`
	Why   string    `json:"why" doc:"What came of asking it last."`
}

// waiting fills in which nodes the standbys of a domain wait for.
func (h *Handler) waiting(ctx context.Context, d *state.Domain, all []Key) {
	if !awaitsConfirmation(d) {
		return
	}
	for _, w := range h.replica.Waiting(ctx, d.Token) {
		for i := range all {
			if all[i].ID == w.Key {
				all[i].Waiting = append(all[i].Waiting, KeyWait{w.Node, moment(w.Since), w.Why})
			}
		}
	}
}

// now is the time by which the machine decides what is due.
func (h *Handler) now(m state.Machine) int64 { return max(h.config.Now().Unix(), m.Time()) }

func keyPolicy(m state.Machine, d *state.Domain) keys.Policy {
	if pool, ok := m.Pool(d.Pool); ok {
		return pool.Policy
	}
	return keys.DefaultPolicy()
}

func viewUse(u *cluster.KeyUse) KeyUse {
	out := KeyUse{
		Unheard: append([]string{}, u.Missing...), CountedSince: maybe(u.Since), LastAsked: maybe(u.LastAsked),
		LastHandedOut: maybe(u.HandedOut), SignersUnsure: u.Unsure || len(u.Missing) > 0,
		Asked: []DayCount{}, Signers: []KeySigner{},
	}
	for i, n := range u.Days {
		if u.Day > int64(i) {
			day := time.Unix((u.Day-int64(i))*86400, 0).UTC().Format(time.DateOnly)
			out.Asked = append(out.Asked, DayCount{day, n})
		}
	}
	for _, s := range u.Signers {
		if s.At != 0 {
			out.Signers = append(out.Signers, KeySigner{Token: s.ID, At: maybe(s.At), LaterAt: maybe(s.Later)})
		}
	}
	return out
}

// safeToRevoke says whether a key can be revoked without breaking mail, as far as is known.
func safeToRevoke(r keys.Ring, k keys.Key, p keys.Policy, now int64, e *keys.Evidence, u *cluster.KeyUse) (bool, string) {
	switch k.Stage {
	case keys.Revoked:
		return true, "it is revoked already"
	case keys.Standby:
		return true, "it has signed nothing; the next rotation has to wait for another"
	case keys.Active:
		return false, "it signs: rotate first"
	}
	if !e.Complete {
		return false, "not known: " + strings.Join(u.Missing, ", ") + " did not say what it saw"
	}
	// The question is about mail, not about what an emergency wants.
	r.Keys = slices.Clone(r.Keys)
	for i := range r.Keys {
		r.Keys[i].SwitchBy = 0
	}
	until, err := r.RevocableAt(k.ID, now, p, e)
	var early *keys.NotReady
	switch {
	case errors.As(err, &early) && early.At != 0:
		return false, fmt.Sprintf("mail that it signed may be under way until %s", moment(early.At).Format(time.RFC3339))
	case err != nil:
		return false, err.Error()
	case until > now:
		return false, inUse(p, now, until, e, u)
	}
	return true, "all mail that it signed had time to arrive, and it was not asked for of late, or its drain ceiling is past"
}

func inUse(p keys.Policy, now, until int64, e *keys.Evidence, u *cluster.KeyUse) string {
	at := moment(until).Format(time.RFC3339)
	switch {
	case e.AskedAt+int64(p.Quiet/time.Second) <= now:
		return fmt.Sprintf("it was, or may have been, given to a signer on %s: mail may be under way until %s", moment(e.HandedOutAt).Format(time.RFC3339), at)
	case u.Since > u.LastAsked:
		return fmt.Sprintf("a node counts queries only since %s: not known to be quiet before %s", moment(u.Since).Format(time.RFC3339), at)
	}
	return fmt.Sprintf("it was asked for on %s: not quiet before %s", moment(u.LastAsked).Format(time.RFC3339), at)
}
