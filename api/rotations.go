package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/keys"
)

// NewFleetRotation is the body of POST /v1/rotations.
type NewFleetRotation struct {
	Scope       FleetScope `json:"scope" doc:"Which domains: one of the four."`
	Emergency   bool       `json:"emergency,omitempty" doc:"Keys leaked: no soak; domains whose standby is not ready switch by themselves as soon as it is. Needs a reason."`
	Old         string     `json:"old,omitempty" enum:"drain,revoke,revoke_when_switched" doc:"What becomes of the old keys in an emergency, as for one domain: revoke_when_switched is the default. In a drill, and without emergency, they drain."`
	Compromised string     `json:"compromised,omitempty" enum:"key,store" doc:"store: the sealed store leaked, so standbys are revoked at once too, keys that drain have the fate of old, and every domain gets a key made anew; expected_at says when."`
	Drill       bool       `json:"drill,omitempty" doc:"An emergency in everything but revocation: old keys drain, and no older one makes room in a slot."`
	Canary      []int      `json:"canary,omitempty" maxItems:"8" doc:"Stages in percent of the domains, rising to 100: [1,10,100]. After each it holds. Left out: all at once."`
	Hold        string     `json:"hold,omitempty" maxLength:"20" example:"1h" doc:"How long it holds between stages; left out: until it is resumed."`
	Reason      string     `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit of every domain. An emergency needs it."`
}

// FleetScope is which domains a rotation is of.
type FleetScope struct {
	Tenant  string   `json:"tenant,omitempty" maxLength:"63"`
	Pool    string   `json:"pool,omitempty" maxLength:"63"`
	Domains []string `json:"domains,omitempty" maxItems:"5000" doc:"Domains or tokens."`
	All     bool     `json:"all,omitempty"`
}

// FleetRotation is a rotation of many domains.
type FleetRotation struct {
	ID          string      `json:"id"`
	State       string      `json:"state" enum:"running,paused,done,aborted"`
	Direction   string      `json:"direction" enum:"forward,rollback"`
	Scope       FleetScope  `json:"scope"`
	Domains     int         `json:"domains" doc:"Length of the list of domains, where the scope is one; it is not repeated."`
	Emergency   bool        `json:"emergency"`
	Drill       bool        `json:"drill"`
	Old         string      `json:"old"`
	Compromised string      `json:"compromised" enum:"key,store"`
	Reason      string      `json:"reason"`
	Actor       string      `json:"actor" doc:"ID of the token that began it."`
	StartedAt   time.Time   `json:"started_at"`
	EndedAt     *time.Time  `json:"ended_at"`
	Total       int         `json:"total" doc:"Domains in it; an estimate until all have been looked at."`
	Done        int         `json:"done" doc:"Domains for which nothing is waited for any more."`
	Switched    int         `json:"switched" doc:"Domains that sign with another key."`
	Waiting     int         `json:"waiting" doc:"Domains that switch by themselves once their next key is ready."`
	Skipped     int         `json:"skipped" doc:"Domains that leave (their keys are revoked as old says where the store leaked), are of a suspended tenant (in a plain rotation), wait for an emergency already (where this one is none, or a drill, or lets old keys drain), or sign with a key kept elsewhere."`
	Dropped     int         `json:"dropped" doc:"Domains that left while they waited, were taken over by another rotation or an emergency of their own, or whose wish was withdrawn by a rollback."`
	RolledBack  int         `json:"rolled_back"`
	NotBack     int         `json:"not_rolled_back" doc:"Domains whose key before is revoked, too old to come back, or the same as now, and those where another key has replaced the one that the rotation brought."`
	Standbys    FleetRefill `json:"standbys" doc:"New standbys of the domains that switched."`
	Makers      []FleetMade `json:"keys_made" nullable:"false" doc:"Keys made for it, next keys and standbys, by the node whose mill made them."`
	Canary      FleetCanary `json:"canary"`
	// What an emergency comes to, as for one domain.
	ExposureEndsAt *time.Time `json:"exposure_ends_at" doc:"Of an emergency: when the last cache has let go of the last old record, as it is planned now; until then a signature by one of the old keys may verify. Null while domains still sign with theirs."`
	MailAtRisk     string     `json:"mail_at_risk" doc:"Of an emergency: which mail fails DKIM, in words."`
	SignersOnOld   []string   `json:"signers_on_old" doc:"Of an emergency: access tokens that fetched the old key of any of its domains within signer_hold, and no later one since. Null in lists and while that is not known."`
	SignersAt      *time.Time `json:"signers_at" doc:"As of when signers_on_old is known: all that the nodes handed out is looked through every few seconds at most."`
	Unheard        []string   `json:"unheard" nullable:"false" doc:"Nodes that did not say to whom they gave keys, or lost some of it: signers may be missing from signers_on_old."`
	ExpectedAt     *time.Time `json:"expected_at" doc:"When the last domain was expected to have switched, as computed at the start from the measured time for a key."`
	OffPercent     *int       `json:"expected_off_percent" doc:"How far off expected_at was, in percent of the time that it stated; negative: it ended sooner. Null before the end, and of a rotation in stages."`
	ETA            *time.Time `json:"eta" doc:"The same from the progress so far; null when it has ended or rests."`
}

// FleetRefill is how many of the domains that switched have a standby again.
type FleetRefill struct {
	Refilled int        `json:"refilled"`
	Of       int        `json:"of"`
	ETA      *time.Time `json:"eta" doc:"When the last key of a standby is expected to be made, as the mill goes now; a slot that is not free yet takes longer. Null when there is none to make, and in lists."`
}

// FleetMade is how many keys one node made.
type FleetMade struct {
	Node string `json:"node" doc:"Empty: nodes past the first sixteen."`
	Keys int    `json:"keys"`
}

// FleetCanary is where a rotation is in its stages.
type FleetCanary struct {
	Stages    []int      `json:"stages" nullable:"false" doc:"In percent."`
	Stage     int        `json:"stage" doc:"The one that runs or was last, counted from 1."`
	HeldSince *time.Time `json:"held_since" doc:"Since when it holds after that stage; null while it does not."`
	ResumesAt *time.Time `json:"resumes_at" doc:"When the next stage begins by itself; null: when it is resumed."`
}

// FleetOutcome is what became of one domain.
type FleetOutcome struct {
	Domain   string     `json:"domain"`
	Token    string     `json:"token"`
	Tenant   string     `json:"tenant"`
	Outcome  string     `json:"outcome" enum:"outstanding,waiting,switched,skipped,rolled_back,replaced_since" doc:"replaced_since: it is rolled back, but another key had replaced the one that it brought, which stays."`
	WaitsFor string     `json:"waits_for,omitempty"`
	ReadyAt  *time.Time `json:"ready_at,omitempty" doc:"When it switches, where it waits and that is known."`
}

// Replies and paths.
type (
	rotationReply struct{ Body FleetRotation }
	RotationPath  struct {
		ID string `path:"id" maxLength:"26" example:"k4vq2m5zr3w7ndax6ehtbc2yfi"`
	}
	FleetRotationList struct {
		Items []FleetRotation `json:"items" nullable:"false"`
		Next  string          `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
	}
	FleetOutcomeList struct {
		Items []FleetOutcome `json:"items" nullable:"false"`
		Next  string         `json:"next,omitempty" doc:"Cursor of the next page; absent on the last."`
	}
)

func (h *Handler) registerRotations() {
	tags := []string{"Rotations"}
	add(h, huma.Operation{
		OperationID: "add-rotation", Method: http.MethodPost, Path: "/v1/rotations", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Rotate the keys of many domains",
		Description: "Begins at once and goes on by itself, also after a change of the leader. A plain rotation switches each domain " +
			"once its standby has soaked, and leaves suspended tenants alone; an emergency does neither. Which domains are in it is settled when it begins: those that are added, or come to the pool, later are not, and those that leave the pool are.",
	}, tenant, h.startRotation)
	add(h, huma.Operation{
		OperationID: "list-rotations", Method: http.MethodGet, Path: "/v1/rotations", Tags: tags,
		Summary: "List the last rotations, the newest first",
	}, reader|tenant, h.listRotations)
	add(h, huma.Operation{
		OperationID: "show-rotation", Method: http.MethodGet, Path: "/v1/rotations/{id}", Tags: tags,
		Summary: "Show how far a rotation is",
	}, reader|tenant, h.showRotation)
	add(h, huma.Operation{
		OperationID: "list-rotation-domains", Method: http.MethodGet, Path: "/v1/rotations/{id}/domains", Tags: tags,
		Summary: "List what became of each domain, in order of token",
	}, reader|tenant, h.listOutcomes)
	for _, verb := range []struct {
		name, summary, text string
		verb                uint8
	}{
		{"pause", "Begin no further domain", "Domains that wait for their next key switch all the same.", state.RotationPause},
		{"resume", "Go on, or begin the next stage", "Also where the stage still waits for some domains.", state.RotationResume},
		{"abort", "End it", "Domains that wait for their next key switch all the same; roll it back to undo what was done.", state.RotationAbort},
		{"rollback", "Let the keys before sign again", "Within each pool's rollback window, never a revoked key, and only where the key that it brought signs still; what only waits is withdrawn.", state.RotationRollback},
	} {
		add(h, huma.Operation{
			OperationID: verb.name + "-rotation", Method: http.MethodPost, Path: "/v1/rotations/{id}/" + verb.name, Tags: tags,
			Summary: verb.summary, Description: verb.text,
		}, tenant, func(ctx context.Context, in *struct {
			RotationPath
			Wait
			Reason
		}) (*rotationReply, error) {
			r, err := from(ctx).rotation(in.ID)
			if err != nil {
				return nil, err
			}
			if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.ControlRotation{ID: r.ID, Verb: verb.verb}); err != nil {
				return nil, err
			}
			return h.rotationNow(r.ID)
		})
	}
}

func (h *Handler) startRotation(ctx context.Context, in *struct {
	Wait
	Body NewFleetRotation
}) (*rotationReply, error) {
	if first, done, err := h.again(ctx, in.Wait); err != nil {
		return nil, err
	} else if done {
		return h.rotationNow(first.Token)
	}
	spec, err := in.Body.spec(from(ctx))
	if err != nil {
		return nil, err
	}
	if err := h.outlook(ctx, &spec); err != nil {
		return nil, err
	}
	id, err := h.replica.NewToken()
	if err != nil {
		return nil, err
	}
	result, err := h.write(ctx, in.Wait, in.Body.Reason, state.StartRotation{ID: id, RotationSpec: spec})
	if err != nil {
		return nil, err
	}
	return h.rotationNow(result.Token)
}

// spec checks a body and turns it into what the machine keeps.
func (b NewFleetRotation) spec(req *request) (state.RotationSpec, error) {
	one := Rotation{Emergency: b.Emergency || b.Drill, Old: b.Old, Compromised: b.Compromised, Reason: b.Reason}
	if err := one.check(); err != nil {
		return state.RotationSpec{}, err
	}
	spec := state.RotationSpec{Emergency: b.Emergency, Drill: b.Drill, Store: one.store(), Old: one.fate()}
	for _, share := range b.Canary {
		if share < 1 || share > 100 {
			return spec, invalid("canary", "%d is no percentage from 1 to 100", share)
		}
		spec.Canary = append(spec.Canary, uint8(share))
	}
	if b.Hold != "" {
		hold, err := time.ParseDuration(b.Hold)
		if err != nil || hold < time.Second {
			return spec, invalid("hold", "%q is no duration of a second or more, such as 1h or 30m", bounded(b.Hold))
		}
		spec.Hold = int64(hold / time.Second)
	}
	scope, err := b.Scope.parse(req)
	spec.Scope = scope
	return spec, err
}

// parse resolves names and checks that they are the caller's to rotate.
func (s FleetScope) parse(req *request) (state.RotationScope, error) {
	out := state.RotationScope{Tenant: s.Tenant, Pool: s.Pool, All: s.All}
	if own := req.who.tenant; own != "" && (s.All || s.Pool != "" || s.Tenant != "" && s.Tenant != own) {
		return out, forbidden("scope", "a token of tenant %s rotates its own domains alone: use the scope {\"tenant\":%q}", own, own)
	}
	if !s.All && s.Pool == "" && s.Tenant == "" && len(s.Domains) == 0 {
		return out, invalid("scope", "it names nothing: give one of tenant, pool, domains, or all")
	}
	if _, ok := req.machine.Tenant(s.Tenant); s.Tenant != "" && !ok {
		return out, invalid("scope.tenant", "there is no tenant %q", bounded(s.Tenant))
	}
	if _, ok := req.machine.Pool(s.Pool); s.Pool != "" && !ok {
		return out, invalid("scope.pool", "there is no pool %q", bounded(s.Pool))
	}
	for i, text := range s.Domains {
		d, err := req.domain(text)
		if p := asProblem(err); p != nil {
			p.Field, p.Detail = "scope.domains", "domain "+strconv.Itoa(i+1)+" of the list: "+p.Detail
			return out, p
		} else if err != nil {
			return out, err
		}
		out.Tokens = append(out.Tokens, d.Token)
	}
	slices.SortFunc(out.Tokens, func(a, b state.Token) int { return strings.Compare(string(a[:]), string(b[:])) })
	out.Tokens = slices.Compact(out.Tokens)
	return out, nil
}

// rotation finds a rotation that the caller may know of: a tenant those of its own
// domains alone.
func (r *request) rotation(id string) (*state.Rotation, error) {
	token, err := state.ParseToken(id)
	if err == nil {
		if found, ok := r.machine.Rotation(token); ok && r.who.sees(found.Tenant) {
			return found, nil
		}
	}
	return nil, notFound("id", "there is no rotation %q among the last %d: list them", bounded(id), state.MaxRotations)
}

func (h *Handler) rotationNow(id state.Token) (*rotationReply, error) {
	m := h.replica.Machine()
	r, ok := m.Rotation(id)
	if !ok {
		return nil, notFound("id", "rotation %s is no longer kept", id)
	}
	return &rotationReply{Body: viewRotation(m, r)}, nil
}

func (h *Handler) showRotation(ctx context.Context, in *RotationPath) (*rotationReply, error) {
	req := from(ctx)
	r, err := req.rotation(in.ID)
	if err != nil {
		return nil, err
	}
	out := &rotationReply{Body: viewRotation(req.machine, r)}
	h.fleetSigners(ctx, r, &out.Body)
	out.Body.Standbys.ETA = h.refillETA(ctx, req.machine.Time(), r)
	return out, nil
}

func (h *Handler) listRotations(ctx context.Context, in *Page) (*struct{ Body FleetRotationList }, error) {
	req := from(ctx)
	var all []*state.Rotation
	for r := range req.machine.Rotations() {
		if req.who.sees(r.Tenant) {
			all = append(all, r)
		}
	}
	slices.Reverse(all)
	after, err := in.after()
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(r *state.Rotation) bool { return r.ID.String() == after }); i >= 0 {
		all = all[i+1:]
	}
	out := &struct{ Body FleetRotationList }{FleetRotationList{Items: []FleetRotation{}}}
	for i, r := range all {
		if i == in.Limit {
			out.Body.Next = cursorAfter(all[i-1].ID.String())
			break
		}
		out.Body.Items = append(out.Body.Items, viewRotation(req.machine, r))
	}
	return out, nil
}

func (h *Handler) listOutcomes(ctx context.Context, in *struct {
	RotationPath
	Page
	Outcome string `query:"outcome" enum:"outstanding,waiting,switched,skipped,rolled_back,replaced_since" doc:"Only domains with this outcome."`
}) (*struct{ Body FleetOutcomeList }, error) {
	req := from(ctx)
	r, err := req.rotation(in.ID)
	if err != nil {
		return nil, err
	}
	after, err := in.after()
	if err != nil {
		return nil, err
	}
	var begin state.Token
	if after != "" {
		if begin, err = state.ParseToken(after); err != nil {
			return nil, invalid("cursor", "cursor %q is not one of ours; pass on what next held, or leave it out", bounded(in.Cursor))
		}
	}
	out := &struct{ Body FleetOutcomeList }{FleetOutcomeList{Items: []FleetOutcome{}}}
	looked := 0
	var last state.Token
	for d := range req.machine.InRotation(r, begin, &looked) {
		if d.Token == begin {
			continue
		}
		if len(out.Body.Items) == in.Limit || looked > maxWalk && last != begin {
			out.Body.Next = cursorAfter(last.String())
			break
		}
		last = d.Token
		if one := viewOutcome(req.machine, r, d); in.Outcome == "" || one.Outcome == in.Outcome {
			out.Body.Items = append(out.Body.Items, one)
		}
	}
	return out, nil
}

func viewOutcome(m state.Machine, r *state.Rotation, d *state.Domain) FleetOutcome {
	out := FleetOutcome{Domain: d.Name.Host(), Token: d.Token.String(), Tenant: d.Tenant, Outcome: m.RotationOutcome(r, d)}
	if out.Outcome != state.OutcomeWaiting {
		return out
	}
	ring := d.Ring()
	var words []string
	var ready latest
	for _, a := range d.Algorithms {
		if wish, ok := ring.Urgent[a]; ok {
			text, at, _ := awaited(d, ring, a)
			if wish.Planned && at != 0 {
				text, at = "its standby has to soak", at+policyOf(m, d).soak()
			}
			words = append(words, text)
			ready.add(at)
		}
	}
	out.WaitsFor, out.ReadyAt = strings.Join(words, "; "), ready.moment()
	return out
}

// policy is a pool's, with its delays in seconds.
type policy struct{ keys.Policy }

func policyOf(m state.Machine, d *state.Domain) policy {
	if pool, ok := m.Pool(d.Pool); ok {
		return policy{pool.Policy}
	}
	return policy{keys.DefaultPolicy()}
}

func (p policy) soak() int64 { return int64(p.Soak / time.Second) }

func viewRotation(m state.Machine, r *state.Rotation) FleetRotation {
	out := FleetRotation{
		ID: r.ID.String(), State: r.State.String(), Direction: "forward",
		Scope:   FleetScope{Tenant: r.Scope.Tenant, Pool: r.Scope.Pool, All: r.Scope.All},
		Domains: len(r.Scope.Tokens), Emergency: r.Emergency, Drill: r.Drill, Old: r.Old.String(), Compromised: "key",
		Reason: r.Reason, Actor: r.Actor, StartedAt: moment(r.StartedAt), EndedAt: maybe(r.EndedAt),
		Total: int(max(r.Total, r.Begun)), Done: int(r.Begun - r.Waiting),
		Switched: int(r.Switched), Waiting: int(r.Waiting), Skipped: int(r.Skipped), Dropped: int(r.Dropped),
		RolledBack: int(r.Returned), NotBack: int(r.Kept), Unheard: []string{}, Makers: []FleetMade{},
		Standbys:   FleetRefill{Refilled: int(r.Refilled), Of: int(r.Refilled + r.Refilling)},
		Canary:     FleetCanary{Stages: []int{}, Stage: int(r.Stage) + 1, HeldSince: maybe(r.HeldAt)},
		ExpectedAt: maybe(r.Expected), OffPercent: expectedError(r), ETA: maybe(r.ETA(m.Time())),
	}
	if r.Store {
		out.Compromised = "store"
	}
	out.ExposureEndsAt, out.MailAtRisk = fleetExposure(r), fleetAtRisk(r)
	if r.Walked && !r.Back {
		out.Total = int(r.Begun)
	}
	if r.Back {
		out.Direction, out.Total, out.Done = "rollback", int(r.Begun), int(r.Returned+r.Kept)
	}
	for _, k := range r.Makers {
		out.Makers = append(out.Makers, FleetMade{Node: k.Node, Keys: int(k.Keys)})
	}
	for _, share := range r.Canary {
		out.Canary.Stages = append(out.Canary.Stages, int(share))
	}
	if r.HeldAt != 0 && r.Hold != 0 {
		out.Canary.ResumesAt = maybe(r.HeldAt + r.Hold)
	}
	return out
}
