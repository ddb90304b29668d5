package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"authd/api"
)

// rotationCmd is `authd rotation`.
type rotationCmd struct {
	clientFlags

	Start    rotationStartCmd    `cmd:"" help:"Rotate the keys of a tenant, a pool, a list of domains, or all."`
	List     rotationListCmd     `cmd:"" help:"List the last rotations, the newest first."`
	Show     rotationShowCmd     `cmd:"" help:"Show how far a rotation is, and what became of each domain."`
	Pause    rotationPauseCmd    `cmd:"" help:"Begin no further domain until it is resumed."`
	Resume   rotationResumeCmd   `cmd:"" help:"Go on, or begin the next canary stage."`
	Abort    rotationAbortCmd    `cmd:"" help:"End a rotation; what it did stays."`
	Rollback rotationRollbackCmd `cmd:"" help:"Let the keys before sign again, within the rollback window."`
}

type rotationStartCmd struct {
	Tenant string   `xor:"scope" required:"" help:"All domains of a tenant."`
	Pool   string   `xor:"scope" required:"" help:"All domains of a pool."`
	Domain []string `xor:"scope" required:"" placeholder:"DOMAIN" help:"These domains or tokens, at most 5000; may be repeated."`
	All    bool     `xor:"scope" required:"" help:"Every domain (admin)."`

	Emergency   bool          `help:"Keys leaked: no soak; a domain whose next key is not ready switches by itself as soon as it is."`
	Old         string        `placeholder:"FATE" help:"With --emergency, what becomes of the old keys: revoke_when_switched (the default: once signers have fetched the new ones, at most 10 minutes later), revoke (in the change that switches) or drain."`
	Compromised string        `placeholder:"key|store" help:"With --emergency: store burns the standbys too and gives every domain a key made anew."`
	Drill       bool          `help:"An emergency in everything but revocation: nothing is revoked, also to free no slot."`
	Canary      []int         `placeholder:"PERCENT,…" help:"Stages in percent, rising to 100, with a hold after each: 1,10,100."`
	Hold        time.Duration `help:"How long it holds between stages (default: until authd rotation resume)."`
	Reason      string        `help:"Why, for the audit of every domain. An emergency needs it."`
	Follow      bool          `short:"f" help:"Show progress until it ends or holds (on a terminal it does so by itself)."`
	Detach      bool          `help:"Return at once on a terminal too."`
}

func (rotationStartCmd) Help() string {
	return `The rotation goes on by itself in the cluster: leaving the display with Ctrl-C does not stop it. A
plain one switches each domain once its standby has soaked and leaves suspended tenants alone; an
emergency does neither. After each canary stage it holds until "authd rotation resume ID", or for --hold.

Examples:

    authd rotation start --pool default --canary 1,10,100 --hold 1h --reason "quarterly"
    authd rotation start --tenant acme --drill --reason "exercise"
    authd rotation start --tenant acme --emergency --old revoke --reason "signer's disk was stolen"
    authd rotation start --all --emergency --compromised store --old revoke --reason "a backup was public"
`
}

func (c *rotationStartCmd) Run(s *session) error {
	body := api.NewFleetRotation{
		Scope:     api.FleetScope{Tenant: c.Tenant, Pool: c.Pool, Domains: c.Domain, All: c.All},
		Emergency: c.Emergency, Old: c.Old, Compromised: c.Compromised, Drill: c.Drill, Canary: c.Canary, Reason: c.Reason,
	}
	if c.Hold != 0 {
		body.Hold = c.Hold.String()
	}
	var r api.FleetRotation
	raw, err := s.post(s.ctx, v1("rotations"), nil, body, &r)
	if err != nil {
		return err
	}
	f, terminal := s.stderr.(*os.File)
	terminal = terminal && term.IsTerminal(int(f.Fd()))
	if s.json || !c.Follow && (c.Detach || !terminal) {
		return s.say(raw, "rotation %s of %s begun; expected to have switched all by %s\nauthd rotation show %s", r.ID, plural(r.Total, "domain"), when(r.ExpectedAt), r.ID)
	}
	fmt.Fprintf(s.stderr, "rotation %s of %s; expected to have switched all by %s\n", r.ID, plural(r.Total, "domain"), when(r.ExpectedAt))
	return s.followRotation(r.ID)
}

// followEvery is how often a rotation that is followed is asked for.
const followEvery = 500 * time.Millisecond

// followRotation shows progress until a rotation ends or holds.
func (s *session) followRotation(id string) error {
	var p *progress
	for {
		var r api.FleetRotation
		raw, err := s.get(s.ctx, v1("rotations", id), nil, &r)
		if err != nil {
			return err
		}
		if p == nil {
			p = newProgress(s.stderr, "switched", r.Total)
		}
		p.total = r.Total
		p.at(r.Done)
		if r.State != "running" {
			p.end()
			return s.show(raw, func(w io.Writer) { printRotation(w, &r) })
		}
		select {
		case <-time.After(followEvery):
		case <-s.ctx.Done():
			p.end()
			return fmt.Errorf("no longer watching; rotation %s goes on: authd rotation show %s", id, id)
		}
	}
}

type rotationListCmd struct{}

func (rotationListCmd) Help() string { return "    authd rotation list\n" }

func (c *rotationListCmd) Run(s *session) error {
	items, raw, err := pages[api.FleetRotation](s.ctx, s.client, v1("rotations"), nil)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "ID", "STATE", "KIND", "SCOPE", "DONE", "WAITING", "STARTED", "REASON")
		for i := range items {
			r := &items[i]
			row(w, r.ID, r.State, rotationKind(r), rotationScope(r), fmt.Sprintf("%d of %d", r.Done, r.Total), r.Waiting, when(&r.StartedAt), r.Reason)
		}
	})
}

func rotationKind(r *api.FleetRotation) string {
	switch {
	case r.Direction == "rollback":
		return "rollback"
	case r.Drill:
		return "drill"
	case r.Compromised == "store":
		return "emergency, store"
	case r.Emergency:
		return "emergency"
	}
	return "plain"
}

func rotationScope(r *api.FleetRotation) string {
	switch {
	case r.Scope.Tenant != "":
		return "tenant " + r.Scope.Tenant
	case r.Scope.Pool != "":
		return "pool " + r.Scope.Pool
	case r.Scope.All:
		return "all"
	}
	return plural(r.Domains, "domain")
}

type rotationShowCmd struct {
	ID      string `arg:"" help:"Rotation."`
	Follow  bool   `short:"f" help:"Show progress until it ends or holds."`
	Domains bool   `help:"List what became of each domain."`
	Outcome string `placeholder:"OUTCOME" help:"With --domains: outstanding, waiting, switched, skipped, rolled_back or replaced_since alone."`
}

func (rotationShowCmd) Help() string {
	return `    authd rotation show k4vq2m5zr3w7ndax6ehtbc2yfi --follow
    authd rotation show k4vq2m5zr3w7ndax6ehtbc2yfi --domains --outcome waiting
`
}

func (c *rotationShowCmd) Run(s *session) error {
	if c.Domains || c.Outcome != "" {
		q := url.Values{}
		if c.Outcome != "" {
			q.Set("outcome", c.Outcome)
		}
		items, raw, err := pages[api.FleetOutcome](s.ctx, s.client, v1("rotations", c.ID, "domains"), q)
		if err != nil {
			return err
		}
		return s.show(raw, func(w io.Writer) {
			row(w, "DOMAIN", "TENANT", "OUTCOME", "READY", "WAITS FOR")
			for _, o := range items {
				row(w, o.Domain, o.Tenant, o.Outcome, when(o.ReadyAt), o.WaitsFor)
			}
		})
	}
	if c.Follow && !s.json {
		return s.followRotation(c.ID)
	}
	var r api.FleetRotation
	raw, err := s.get(s.ctx, v1("rotations", c.ID), nil, &r)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printRotation(w, &r) })
}

func printRotation(w io.Writer, r *api.FleetRotation) {
	row(w, "Rotation", r.ID)
	row(w, "State", r.State)
	row(w, "Kind", rotationKind(r)+", old keys: "+r.Old)
	row(w, "Scope", rotationScope(r))
	row(w, "Reason", r.Reason)
	row(w, "Started", when(&r.StartedAt))
	row(w, "Ended", when(r.EndedAt))
	row(w, "Done", fmt.Sprintf("%d of %d", r.Done, r.Total))
	row(w, "Switched", r.Switched)
	row(w, "Waiting", r.Waiting)
	row(w, "Skipped", r.Skipped)
	row(w, "Dropped", r.Dropped)
	if r.Direction == "rollback" {
		row(w, "Rolled back", fmt.Sprintf("%d, %d not", r.RolledBack, r.NotBack))
	}
	row(w, "Standbys", fmt.Sprintf("%d of %d refilled%s", r.Standbys.Refilled, r.Standbys.Of, expected(r.Standbys.ETA)))
	if len(r.Makers) > 0 {
		row(w, "Keys made", keysMade(r))
	}
	if len(r.Canary.Stages) > 1 {
		text := fmt.Sprintf("%d of %d (%d %%)", r.Canary.Stage, len(r.Canary.Stages), r.Canary.Stages[r.Canary.Stage-1])
		switch {
		case r.Canary.ResumesAt != nil:
			text += ", holds until " + when(r.Canary.ResumesAt)
		case r.Canary.HeldSince != nil:
			text += ", holds: authd rotation resume " + r.ID
		}
		row(w, "Stage", text)
	}
	if r.MailAtRisk != "" {
		row(w, "Exposed until", when(r.ExposureEndsAt))
		row(w, "Mail at risk", r.MailAtRisk)
		row(w, "Signers on old", signersOnOld(r))
	}
	if off := r.OffPercent; off != nil {
		row(w, "Expected", fmt.Sprintf("%s (%+d %%)", when(r.ExpectedAt), *off))
	} else {
		row(w, "Expected", when(r.ExpectedAt))
	}
	row(w, "ETA", when(r.ETA))
}

func expected(at *time.Time) string {
	if at == nil {
		return ""
	}
	return ", all expected by " + when(at)
}

// signersOnOld lists who still signs with old keys, as far as that is known.
func signersOnOld(r *api.FleetRotation) string {
	if r.SignersAt == nil {
		return "not known yet"
	}
	text := "none"
	if len(r.SignersOnOld) > 0 {
		text = strings.Join(r.SignersOnOld, ", ")
	}
	if len(r.Unheard) > 0 {
		text += "; not all is known of " + strings.Join(r.Unheard, ", ")
	}
	return text
}

// rotationVerb are the arguments of what is done to a rotation.
type rotationVerb struct {
	ID     string `arg:"" help:"Rotation."`
	Reason string `help:"Why, for the audit."`
}

func (v *rotationVerb) run(s *session, verb string) error {
	var r api.FleetRotation
	raw, err := s.post(s.ctx, v1("rotations", v.ID, verb), because(v.Reason), nil, &r)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printRotation(w, &r) })
}

type (
	rotationPauseCmd    struct{ rotationVerb }
	rotationResumeCmd   struct{ rotationVerb }
	rotationAbortCmd    struct{ rotationVerb }
	rotationRollbackCmd struct{ rotationVerb }
)

func (rotationPauseCmd) Help() string {
	return `Domains that wait for their next key switch all the same: their wish is in their own rings.

    authd rotation pause k4vq2m5zr3w7ndax6ehtbc2yfi
`
}

func (rotationResumeCmd) Help() string {
	return `Ends a pause, or a hold between two stages; where a stage still waits for some domains, begins the
next one all the same.

    authd rotation resume k4vq2m5zr3w7ndax6ehtbc2yfi
`
}

func (rotationAbortCmd) Help() string {
	return `Begins no further domain. Domains that wait for their next key switch all the same; roll back to
undo what was done.

    authd rotation abort k4vq2m5zr3w7ndax6ehtbc2yfi --reason "signers of acme do not follow"
`
}

func (rotationRollbackCmd) Help() string {
	return `Also after it has ended. In each domain the key before signs again, where it was replaced within the
pool's rollback window (24 hours unless set otherwise) and is not revoked; wishes that wait are
withdrawn. There is no way back to keys that were revoked or leaked with the store.

    authd rotation rollback k4vq2m5zr3w7ndax6ehtbc2yfi --reason "signers of acme do not follow"
`
}

func (c *rotationPauseCmd) Run(s *session) error    { return c.run(s, "pause") }
func (c *rotationResumeCmd) Run(s *session) error   { return c.run(s, "resume") }
func (c *rotationAbortCmd) Run(s *session) error    { return c.run(s, "abort") }
func (c *rotationRollbackCmd) Run(s *session) error { return c.run(s, "rollback") }

// keysMade is by whom the keys of a rotation were made.
func keysMade(r *api.FleetRotation) string {
	list := make([]string, len(r.Makers))
	for i, k := range r.Makers {
		list[i] = fmt.Sprintf("%d by %s", k.Keys, cmp.Or(k.Node, "others"))
	}
	return strings.Join(list, ", ")
}
