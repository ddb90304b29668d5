package api

import (
	"cmp"
	"context"
	"strings"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// Domain is one claim of one tenant to one name.
type Domain struct {
	Domain string `json:"domain" example:"send.customer.example"`
	Tenant string `json:"tenant" example:"acme"`
	Mode   string `json:"mode" enum:"delegated,cname"`
	Pool   string `json:"pool" example:"default"`
	Token  string `json:"token" example:"b6tk3kfkxn4hnxvvwmrgjm4jwa" doc:"Addresses the claim for ever, here and in DNS."`
	State  string `json:"state" enum:"pending,live,leaving"`
	Proven string `json:"proven,omitempty" doc:"Why a delegated domain is answered: parent, attested, or unchecked where verification is off. Absent while it is not. In CNAME mode, what shows that the name is this tenant's, so that its keys sign before those of unproven claims: cnames or attested."`
	// ProofCheck is filled where one domain is shown.
	ProofCheck *ProofCheck `json:"proof_check,omitempty" doc:"Of a pending domain, and of one in CNAME mode for whose names claims of other tenants might sign: how the cluster's own asking stands. The leader asks the customer's own servers a minute after the claim, then ever less often, every four hours at last, until the domain is proven or ends, or nobody else might sign. Absent where no leader says."`
	Records    []Record    `json:"records" nullable:"false" doc:"What the customer must add to their own DNS, once."`
	Keys       []Key       `json:"keys" nullable:"false"`
	// UsableForSigning: GET /v1/dkim answers with a key.
	UsableForSigning bool              `json:"usable_for_signing"`
	Suspended        string            `json:"rotation_suspended,omitempty" doc:"Why keys do not rotate on schedule, in words; absent where they do."`
	Labels           map[string]string `json:"labels"`
	SignsFor         []string          `json:"signs_for" nullable:"false"`
	DMARC            string            `json:"dmarc"`
	Serial           uint32            `json:"serial" doc:"Changes with every change of what DNS answers, and is the ETag."`
	Registrable      string            `json:"registrable,omitempty"`
	AttestedBy       string            `json:"attested_by,omitempty"`
	CreatedAt        time.Time         `json:"created_at"`
	ProvenAt         *time.Time        `json:"proven_at"`
	LeavingAt        *time.Time        `json:"leaving_at"`
	GoneAt           *time.Time        `json:"gone_at" doc:"When a pending or leaving domain ends."`
}

// ProofCheck is how the asking for a pending or contested domain's proof stands.
type ProofCheck struct {
	Outcome string     `json:"outcome" enum:"none,found,missing,unasked,refused" doc:"none: this leader has not asked yet; found: the CNAMEs lead to this claim; missing: the parent does not delegate to this claim, or no CNAME leads to its keys; unasked: nobody could be asked, which says nothing; refused: something else is in the way."`
	Detail  string     `json:"detail,omitempty" doc:"Why, where it is unasked or refused."`
	At      *time.Time `json:"at" doc:"When it was asked last."`
	NextAt  time.Time  `json:"next_at" doc:"When it is asked next; verify asks at once."`
}

// proofCheck is nil where there is nothing to tell.
func (h *Handler) proofCheck(ctx context.Context, d *state.Domain) *ProofCheck {
	if d.State != state.Pending && !h.replica.Machine().Contested(d) {
		return nil
	}
	c, ok := h.replica.ProofCheck(ctx, d.Token)
	if !ok {
		return nil
	}
	return &ProofCheck{Outcome: cmp.Or(c.Outcome, "none"), Detail: c.Detail, At: maybe(c.At), NextAt: moment(c.Next)}
}

// Record is one record that the customer must add.
type Record struct {
	Name   string `json:"name" example:"send.customer.example."`
	Type   string `json:"type" example:"NS"`
	Value  string `json:"value"`
	TTL    uint32 `json:"ttl"`
	Host   string `json:"host" example:"send" doc:"The name without the registrable domain, as DNS panels that append that want it entered."`
	Status string `json:"status" enum:"found,waiting,unchecked" doc:"found: the parent delegates here; waiting: that is not proven yet; unchecked: only verify asks."`
}

// Key is one DKIM key of a domain.
type Key struct {
	ID        uint32     `json:"id"`
	Selector  string     `json:"selector" example:"2601-3kfkxn"`
	Slot      string     `json:"slot" example:"" doc:"Label of its target in CNAME mode; empty in delegated mode."`
	Algorithm string     `json:"algorithm" example:"rsa2048"`
	Stage     string     `json:"stage" example:"active"`
	CreatedAt time.Time  `json:"created_at"`
	ReadyAt   *time.Time `json:"ready_at" doc:"When it may become active."`
	DueAt     *time.Time `json:"due_at" doc:"When its next step is due."`
	Next      string     `json:"next" doc:"Its next step; empty where it waits for another key's."`
	Public    string     `json:"public" doc:"The TXT payload that publishes it."`

	// Waiting is filled where one domain or one key is shown.
	Waiting []KeyWait `json:"waiting,omitempty" doc:"Serving nodes that have not been seen to answer this standby: it cannot sign before all were. As the leader knows; absent where none is waited for."`

	ActivatedAt *time.Time `json:"activated_at"`
	DrainedAt   *time.Time `json:"drained_at"`
	RevokedAt   *time.Time `json:"revoked_at"`
	Imported    bool       `json:"imported,omitempty"`
	PublicOnly  bool       `json:"public_only,omitempty" doc:"Published and watched; the private half is elsewhere, so it is never handed out."`
}

// DomainList is one page of domains.
type DomainList struct {
	Items []Domain `json:"items" nullable:"false"`
	Next  string   `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
}

// DomainPatch is the body of PATCH /v1/domains/{domain}: what is left out stays.
type DomainPatch struct {
	Pool     *string            `json:"pool,omitempty" maxLength:"63"`
	Labels   *map[string]string `json:"labels,omitempty" maxProperties:"32" doc:"Replaces all labels."`
	DMARC    *string            `json:"dmarc,omitempty" maxLength:"1000" doc:"Empty: no policy of its own."`
	SignsFor *[]string          `json:"signs_for,omitempty" maxItems:"100" nullable:"false" doc:"Replaces the list."`
}

// Attestation is the body of POST /v1/domains/{domain}/attest.
type Attestation struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why the domain counts as proven; kept with it."`
}

// Verification is what the customer's own servers said.
type Verification struct {
	Proven  bool     `json:"proven" doc:"The parent delegates to this claim, or the CNAMEs lead to its keys, and that is committed."`
	Detail  string   `json:"detail"`
	Parent  string   `json:"parent" example:"customer.example." doc:"The zone above."`
	Servers []string `json:"servers" nullable:"false" doc:"Who was asked."`
	NS      []string `json:"ns" nullable:"false" doc:"What they delegate to."`
	Seen    []string `json:"seen" nullable:"false" doc:"Tokens of claims among it."`
	Domain  Domain   `json:"domain"`

	Complete bool            `json:"complete" doc:"Each record that the customer must add is there."`
	Records  []CheckedRecord `json:"records" nullable:"false" doc:"Each of them, with what is there and the mistake that was made."`
	Notes    []string        `json:"notes" nullable:"false" doc:"What else in the customer's DNS will be in the way: DS records, foreign NS records, CAA, DMARC."`
}

func viewDomain(m state.Machine, d *state.Domain) Domain {
	ring := d.Ring()
	out := Domain{
		Domain: d.Name.Host(), Tenant: d.Tenant, Mode: modeName(d.Mode), Pool: d.Pool, Token: d.Token.String(),
		State: stateName(d.State), Records: []Record{}, Keys: viewKeys(m, d, ring),
		UsableForSigning: signs(m, d) && len(signing(ring)) > 0, Suspended: suspended(d, ring),
		Labels: labelsOf(d.Labels), SignsFor: []string{}, DMARC: d.DMARC, Serial: d.Serial,
		AttestedBy: d.AttestedBy, CreatedAt: moment(d.CreatedAt), ProvenAt: maybe(d.ProvenAt),
		LeavingAt: maybe(d.LeavingAt), GoneAt: maybe(d.GoneAt),
	}
	if d.Registrable != "" {
		out.Registrable = d.Registrable.Host()
	}
	for _, n := range d.SignsFor {
		out.SignsFor = append(out.SignsFor, n.Host())
	}
	status := "unchecked"
	switch {
	case d.Mode == zone.Delegated:
		out.Proven, status = proof(m, d)
	case d.AttestedBy != "":
		out.Proven = "attested"
	case d.ProvenAt != 0:
		out.Proven = "cnames"
	}
	for _, r := range d.CustomerRecords() {
		out.Records = append(out.Records, Record{r.Name, r.Type, r.Value, r.TTL, hostOf(d, r.Name), status})
	}
	return out
}

// hostOf is what to enter as the name in a panel that appends the registrable domain.
func hostOf(d *state.Domain, name string) string {
	if host, ok := strings.CutSuffix(name, "."+d.Registrable.Host()); ok && d.Registrable != "" {
		return host
	}
	return name
}

// proof says why a delegated domain is answered, and what is known of the
// customer's NS records.
func proof(m state.Machine, d *state.Domain) (why, status string) {
	switch {
	case d.State == state.Pending:
		return "", "waiting"
	case d.AttestedBy != "":
		return "attested", "unchecked"
	case d.ProvenAt == 0 || m.Settings().VerificationOff:
		return "unchecked", "unchecked"
	}
	return "parent", "found"
}

// signs says whether signers get this domain's keys.
func signs(m state.Machine, d *state.Domain) bool {
	t, ok := m.Tenant(d.Tenant)
	return ok && !t.Suspended && d.State == state.Live
}

// signing are the keys that sign now, one an algorithm, in order of algorithm.
func signing(r keys.Ring) []keys.Key {
	var out []keys.Key
	for _, a := range []keys.Algorithm{keys.RSA2048, keys.Ed25519} {
		if k, ok := r.Active(a); ok && !k.PublicOnly {
			out = append(out, k)
		}
	}
	return out
}

func viewKeys(m state.Machine, d *state.Domain, r keys.Ring) []Key {
	out := []Key{}
	var planned []keys.Planned
	if pool, ok := m.Pool(d.Pool); ok {
		planned = r.Plan(pool.Policy)
	}
	for _, k := range r.Keys {
		view := Key{
			ID: k.ID, Selector: d.Selector(k), Algorithm: k.Algorithm.String(), Stage: k.Stage.String(),
			CreatedAt: moment(k.CreatedAt), ReadyAt: maybe(k.ReadyAt()), Public: k.Payload,
			ActivatedAt: maybe(k.ActivatedAt), DrainedAt: maybe(k.DrainedAt), RevokedAt: maybe(k.RevokedAt),
			Imported: k.Imported, PublicOnly: k.PublicOnly,
		}
		if d.Mode == zone.CNAME {
			view.Slot = k.Selector
		}
		for _, p := range planned {
			if p.Key == k.ID {
				view.Next, view.DueAt = p.Kind.String(), maybe(p.Due)
			}
		}
		out = append(out, view)
	}
	return out
}

func modeName(m zone.Mode) string {
	if m == zone.CNAME {
		return "cname"
	}
	return "delegated"
}

func stateName(s state.DomainState) string {
	switch s {
	case state.Pending:
		return "pending"
	case state.Live:
		return "live"
	}
	return "leaving"
}
