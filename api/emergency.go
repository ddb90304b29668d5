package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

// Rotated is a domain after a rotation.
type Rotated struct {
	Domain
	Emergency *Emergency `json:"emergency,omitempty" doc:"What an emergency came to; absent after another rotation."`
}

// Emergency is what an emergency rotation did, and what is still to come.
type Emergency struct {
	Active         []string   `json:"active" nullable:"false" doc:"Selectors that sign now."`
	Old            []string   `json:"old" nullable:"false" doc:"Selectors of the keys to be replaced; among active while they wait."`
	OldBecomes     string     `json:"old_becomes" enum:"drain,revoke,revoke_when_switched"`
	WaitsFor       string     `json:"waits_for" doc:"What the switch still waits for, in words; empty when it is done. It then happens by itself."`
	ReadyAt        *time.Time `json:"ready_at" doc:"When a switch that waits happens; null when it is done, or while that is not known."`
	ExpectedAt     *time.Time `json:"expected_at" doc:"When a switch that waits is expected, if the next key is made and every serving node confirms it at once; null when it is done."`
	Burned         []string   `json:"burned" nullable:"false" doc:"Keys beside the active one that this request revoked, because their private halves were in the leaked store: standbys and, with old: revoke, keys that drained. With revoke_when_switched those have the active key's deadline."`
	ExposureEndsAt *time.Time `json:"exposure_ends_at" doc:"When the last cache has let go of the old record: until then a signature by the old key may verify. Null while not known."`
	MailAtRisk     string     `json:"mail_at_risk" doc:"Which mail fails DKIM, in words."`
	SignersOnOld   []string   `json:"signers_on_old" nullable:"false" doc:"Access tokens that fetched an old key within signer_hold, and no later one since."`
	Unheard        []string   `json:"unheard" nullable:"false" doc:"Nodes that did not say to whom they gave keys: signers may be missing from signers_on_old."`
	RevokedForSlot []string   `json:"revoked_for_slot" nullable:"false" doc:"Older draining keys that this request revoked, because all three slots were taken."`
}

type rotatedReply struct {
	ETag string `header:"ETag" doc:"The domain's serial, for If-Match."`
	Body Rotated
}

// check refuses what does not fit together, and what a later release has.
func (r Rotation) check() error {
	switch {
	case r.Compromised == "store" && !r.Emergency:
		return invalid("compromised", "a leaked store is an emergency; set emergency too")
	case !r.Emergency && (r.Old == "revoke" || r.Old == "revoke_when_switched"):
		return invalid("old", "%s goes with emergency alone; set emergency, or rotate and then revoke the old key", r.Old)
	case r.Emergency && strings.TrimSpace(r.Reason) == "":
		return invalid("reason", "an emergency needs a reason, for the audit")
	}
	return nil
}

// fate is what becomes of the old key.
func (r Rotation) fate() keys.Fate {
	switch {
	case r.Old == "revoke":
		return keys.FateRevoke
	case r.Old == "drain" || !r.Emergency:
		return keys.FateDrain
	}
	return keys.FateSwitch
}

// store says whether the sealed store leaked.
func (r Rotation) store() bool { return r.Compromised == "store" }

// replace carries out an emergency. It waits for no confirmation: what cannot be
// done at once the machine does when it can.
func (h *Handler) replace(ctx context.Context, w Wait, d *state.Domain, body Rotation) (*rotatedReply, error) {
	before := d.Ring()
	commands, err := replacements(d, before, body)
	if err != nil {
		return nil, err
	}
	done, err := h.againEach(ctx, w, len(commands))
	switch {
	case err != nil:
		return nil, err
	case done && body.From == "":
		for i := range commands { // what is active now need not be what was replaced
			commands[i].From = lastReplaced(d, before, commands[i].Algorithm)
		}
	case !done:
		all := make([]state.Command, len(commands))
		for i, c := range commands {
			if body.store() && body.From == "" {
				c.From = "" // whatever signs by then leaked too
			}
			all[i] = c
		}
		if _, err := h.writeAll(ctx, w, body.Reason, all...); err != nil {
			return nil, err
		}
	}
	m := h.replica.Machine()
	now, ok := m.Domain(d.Token)
	if !ok {
		return nil, droppedSince(d.Token)
	}
	for i, c := range commands { // what signed when the request arrived
		if wish, waits := now.Ring().Urgent[c.Algorithm]; waits && body.store() && body.From == "" {
			k, _ := now.Ring().ByID(wish.Key)
			commands[i].From = now.Selector(k)
		}
	}
	reply := rotatedWith(m, now)
	reply.Body.Emergency = viewEmergency(m, now, before, commands)
	h.signersOnOld(ctx, m, now, commands, reply.Body.Emergency)
	return reply, nil
}

func rotatedWith(m state.Machine, d *state.Domain) *rotatedReply {
	return &rotatedReply{ETag: etag(d.Serial), Body: Rotated{Domain: viewDomain(m, d)}}
}

// rotatedAfter is a claim after a rotation that was no emergency.
func (h *Handler) rotatedAfter(t state.Token, err error) (*rotatedReply, error) {
	d, err := h.domainAfter(t, err)
	if err != nil {
		return nil, err
	}
	return &rotatedReply{ETag: d.ETag, Body: Rotated{Domain: d.Body}}, nil
}

// replacements are an emergency's commands: one an algorithm, or the one of the
// selector that the caller saw. A leaked store had the keys of every algorithm,
// whichever the caller saw; where that was replaced already, nothing happens.
func replacements(d *state.Domain, r keys.Ring, body Rotation) ([]state.ReplaceKey, error) {
	if body.From != "" {
		a, err := algorithmOf(d, r, body.From)
		if err != nil {
			return nil, err
		}
		seen := state.ReplaceKey{Token: d.Token, Algorithm: a, From: body.From, Old: body.fate(), Store: body.store()}
		if active, ok := r.Active(a); !body.store() || !ok || d.Selector(active) != body.From {
			return []state.ReplaceKey{seen}, nil
		}
	}
	var commands []state.ReplaceKey
	for _, a := range d.Algorithms {
		c := state.ReplaceKey{Token: d.Token, Algorithm: a, Old: body.fate(), Store: body.store()}
		if active, ok := r.Active(a); ok {
			c.From = d.Selector(active)
		}
		commands = append(commands, c)
	}
	if len(commands) == 0 {
		return nil, problem(http.StatusConflict, codeConflict, "domain", "%s has no keys to rotate", d.Name.Host())
	}
	return commands, nil
}

// lastReplaced is the selector of the key that an emergency replaced last, or is
// about to.
func lastReplaced(d *state.Domain, r keys.Ring, a keys.Algorithm) string {
	if wish, ok := r.Urgent[a]; ok {
		k, _ := r.ByID(wish.Key)
		return d.Selector(k)
	}
	var last keys.Key
	for _, k := range r.Keys {
		if k.Algorithm == a && k.Stage != keys.Active && k.DrainedAt >= last.DrainedAt && k.DrainedAt != 0 {
			last = k
		}
	}
	if last.ID == 0 {
		return ""
	}
	return d.Selector(last)
}

func viewEmergency(m state.Machine, d *state.Domain, before keys.Ring, commands []state.ReplaceKey) *Emergency {
	ring := d.Ring()
	policy := keys.DefaultPolicy()
	if pool, ok := m.Pool(d.Pool); ok {
		policy = pool.Policy
	}
	out := &Emergency{Active: []string{}, Old: []string{}, RevokedForSlot: []string{}, SignersOnOld: []string{}, Unheard: []string{}, Burned: []string{}, OldBecomes: commands[0].Old.String()}
	var ready, expected, exposed latest
	var waits []string
	burnedMail := false
	for _, c := range commands {
		if active, ok := ring.Active(c.Algorithm); ok {
			out.Active = append(out.Active, d.Selector(active))
		}
		if words, at, waiting := awaited(d, ring, c.Algorithm); waiting {
			waits = append(waits, words)
			ready.add(at)
			expected.add(ring.Outlook(c.Algorithm, m.Time(), keyPolicy(m, d)))
		}
		if k, ok := bySelector(d, ring, c.From); ok {
			out.Old = append(out.Old, c.From)
			exposed.add(ring.ExposedUntil(k.ID, policy))
		}
		for _, k := range ring.Keys {
			was, _ := before.ByID(k.ID)
			if k.Algorithm != c.Algorithm || d.Selector(k) == c.From {
				continue
			}
			leaked := c.Store && was.Stage == keys.Draining && !was.PublicOnly
			if leaked {
				exposed.add(ring.ExposedUntil(k.ID, policy))
			}
			switch {
			case k.Stage != keys.Revoked:
			case c.Store && was.Stage == keys.Standby, leaked && c.Old == keys.FateRevoke:
				out.Burned = append(out.Burned, d.Selector(k))
				burnedMail = burnedMail || leaked
			case was.Stage == keys.Draining:
				out.RevokedForSlot = append(out.RevokedForSlot, d.Selector(k))
			}
		}
	}
	out.WaitsFor = strings.Join(waits, "; ")
	out.ReadyAt, out.ExpectedAt, out.ExposureEndsAt = ready.moment(), expected.moment(), exposed.moment()
	out.MailAtRisk = atRisk(out, ring)
	if burnedMail {
		out.MailAtRisk += ". Mail under way that keys among " + strings.Join(out.Burned, " and ") + " signed before they drained fails DKIM from now on"
	}
	return out
}

// signersOnOld finds who signs with the keys that an emergency replaces.
func (h *Handler) signersOnOld(ctx context.Context, m state.Machine, d *state.Domain, commands []state.ReplaceKey, out *Emergency) {
	ctx, cancel := context.WithTimeout(ctx, useTime)
	defer cancel()
	ring, hold := d.Ring(), keyPolicy(m, d).Hold(m.Time())
	for _, c := range commands {
		k, ok := bySelector(d, ring, c.From)
		if !ok {
			continue
		}
		if use, ok := h.replica.KeyUse(ctx, d.Token, k.ID)[k.ID]; ok {
			out.SignersOnOld = merged(out.SignersOnOld, use.OnOld(hold, h.now(m)))
			out.Unheard = merged(out.Unheard, use.Missing)
		}
	}
}

// merged is two lists as one, in order and each item once.
func merged(a, b []string) []string {
	all := append(append([]string{}, a...), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// latest is the last of some times, not known where one of them is not.
type latest struct {
	at      int64
	unknown bool
}

func (l *latest) add(at int64) { l.at, l.unknown = max(l.at, at), l.unknown || at == 0 }

func (l *latest) moment() *time.Time {
	if l.unknown {
		return nil
	}
	return maybe(l.at)
}

// awaited is what an algorithm's switch waits for, and until when; 0 where that
// is not known yet.
func awaited(d *state.Domain, r keys.Ring, a keys.Algorithm) (words string, at int64, waiting bool) {
	_, urgent := r.Urgent[a]
	if _, signing := r.Active(a); signing && !urgent {
		return "", 0, false
	}
	standby, ok := r.Standby(a)
	switch {
	case !ok:
		return fmt.Sprintf("the next %s key is to be published first", a), 0, true
	case standby.ConfirmedAt == 0:
		return fmt.Sprintf("every serving node has to confirm that it answers %s", d.Selector(standby)), 0, true
	}
	return fmt.Sprintf("caches may not know %s before its ready time", d.Selector(standby)), standby.ReadyAt(), true
}

// atRisk says which mail fails because of an emergency.
func atRisk(e *Emergency, r keys.Ring) string {
	old := strings.Join(e.Old, " and ")
	revokes := e.OldBecomes == keys.FateRevoke.String()
	switching := e.OldBecomes == keys.FateSwitch.String()
	var words string
	switch {
	case old == "":
		words = "none: no key signed"
	case revokes && e.WaitsFor != "":
		words = "none until the switch; from then on mail signed with " + old + " that is still under way fails DKIM"
	case revokes:
		words = "mail signed with " + old + " that is still under way fails DKIM, at the latest from exposure_ends_at on"
	case switching:
		words = "mail signed with " + old + " that is still under way when it is revoked fails DKIM: once every signer has the new key, at most ten minutes after the switch"
	default:
		words = "none signed with " + old + ", which is answered until its drain ends; so is what a thief signs with it"
	}
	if len(e.RevokedForSlot) > 0 {
		words += ". Mail signed with " + strings.Join(e.RevokedForSlot, " and ") + ", revoked to free its slot, fails DKIM"
	}
	if e.WaitsFor != "" && !revokes && r.Mode == keys.Slots {
		words += ". Where no slot is free at the switch, the key that drained longest is revoked then"
	}
	return words
}
