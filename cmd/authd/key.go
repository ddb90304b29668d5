package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"authd/api"
)

// keyCmd is `authd key`.
type keyCmd struct {
	clientFlags

	List     keyListCmd     `cmd:"" help:"List a domain's keys, their stage and what happens to each next."`
	Import   keyImportCmd   `cmd:"" help:"Bring a private key of your own as the next standby, or publish the public half of one that signs elsewhere."`
	Rotate   keyRotateCmd   `cmd:"" help:"Let the standby key sign from now on; the old key drains."`
	Rollback keyRollbackCmd `cmd:"" help:"Let the key before the active one sign again, within the rollback window."`
	Revoke   keyRevokeCmd   `cmd:"" help:"Answer a key with an empty p= at once: signatures by it fail."`
	Show     keyShowCmd     `cmd:"" help:"Show one key: its stage, who asks for it and who fetched it, and whether it is safe to revoke."`
	Timeline keyTimelineCmd `cmd:"" help:"Draw when each key of a domain was what, who changed it, and what is next."`
	Fetch    keyFetchCmd    `cmd:"" help:"Fetch the signing key of a domain, private half included."`
}

type keyListCmd struct {
	Domain string `arg:"" help:"Domain or token."`
}

func (keyListCmd) Help() string {
	return `A key is published as standby, signs as active, stays published while draining, is then answered
with an empty p= as revoked, and leaves.

    authd key list send.customer.example
`
}

func (c *keyListCmd) Run(s *session) error {
	var d struct {
		Keys []api.Key `json:"keys"`
	}
	raw, err := s.get(s.ctx, v1("domains", c.Domain), nil, &d)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printKeys(w, d.Keys) })
}

func printKeys(w io.Writer, keys []api.Key) {
	row(w, "SELECTOR", "ALGORITHM", "STAGE", "CREATED", "READY", "NEXT", "DUE", "WAITING FOR")
	for _, k := range keys {
		row(w, k.Selector, k.Algorithm, k.Stage, when(&k.CreatedAt), when(k.ReadyAt), k.Next, when(k.DueAt), waitingFor(&k))
	}
}

// waitingFor names the nodes that a standby's barrier waits for.
func waitingFor(k *api.Key) string {
	var nodes []string
	for _, one := range k.Waiting {
		nodes = append(nodes, one.Node+" since "+when(&one.Since))
	}
	return strings.Join(nodes, ", ")
}

// when is a moment that need not have come.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

type keyRotateCmd struct {
	Domain string `arg:"" help:"Domain or token."`
	From   string `placeholder:"SELECTOR" help:"The selector that signs now, as you saw it: nothing happens when another one does already."`
	Reason string `help:"Why, for the audit. An emergency needs it."`

	Emergency   bool   `help:"The key leaked: switch at once, or by itself as soon as the next key is ready. Never refused."`
	Compromised string `placeholder:"key|store" help:"With --emergency: what leaked. key (the default): the standby replaces it. store: the sealed store, so the standby is revoked too and the next key is made anew."`
	Old         string `placeholder:"drain|revoke|revoke_when_switched" help:"With --emergency: the old key drains; is revoked in the change that switches; or once every signer has the next key, at most ten minutes later (the default)."`
}

func (keyRotateCmd) Help() string {
	return `Mail signed with the old key stays verifiable: its record is answered until every message under
way has arrived. Rotate is not revoke.

For a leaked key there is --emergency: no soak, no period. The old key is never revoked before another
signs, so it may be a while where the next key is not ready; the reply says until when, which mail is at
risk, and when caches have forgotten the old record. The default revokes the old key
once every signer has fetched the next, ten minutes after the switch at the latest; --old revoke does
in the switch itself. Both break mail that is still under way; --old drain breaks none, and the thief
signs until the drain ends.

Examples:

    authd key rotate send.customer.example
    authd key rotate send.customer.example --from 2611-ab3de7 --reason "yearly exercise"
    authd key rotate send.customer.example --emergency --old revoke --reason "private half was in a public bucket"
`
}

func (c *keyRotateCmd) Run(s *session) error {
	body := api.Rotation{From: c.From, Reason: c.Reason, Emergency: c.Emergency, Old: c.Old, Compromised: c.Compromised}
	var rotated api.Rotated
	raw, err := s.post(s.ctx, v1("domains", c.Domain, "rotate"), nil, body, &rotated)
	if err != nil {
		return err
	}
	if s.json {
		return printJSON(s.stdout, raw)
	}
	if rotated.Emergency != nil {
		printEmergency(s.stdout, rotated.Emergency)
		fmt.Fprintln(s.stdout)
		return s.show(raw, func(w io.Writer) { printKeys(w, rotated.Keys) })
	}
	return (&keyListCmd{Domain: c.Domain}).Run(s)
}

// printEmergency says in words what an emergency did and what is still to come.
func printEmergency(w io.Writer, e *api.Emergency) {
	active, old := strings.Join(e.Active, " and "), strings.Join(e.Old, " and ")
	fate := "drains"
	if e.OldBecomes == "revoke" {
		fate = "is revoked"
	}
	if e.OldBecomes == "revoke_when_switched" {
		fate = "is revoked once every signer has fetched the next key, at most ten minutes later"
	}
	switch {
	case e.WaitsFor == "":
		fmt.Fprintf(w, "Switched: %s signs now; %s %s.\n", active, old, fate)
	case active == "":
		fmt.Fprintf(w, "Nothing signs yet: %s.\n", e.WaitsFor)
	default:
		fmt.Fprintf(w, "Not switched yet: %s signs until then, because %s.\n", active, e.WaitsFor)
		fmt.Fprintf(w, "Nothing more to do: at the switch %s %s.\n", old, fate)
	}
	switch {
	case e.WaitsFor == "":
	case e.ReadyAt != nil:
		fmt.Fprintf(w, "Switch: %s.\n", when(e.ReadyAt))
	case e.ExpectedAt != nil:
		fmt.Fprintf(w, "Switch: expected at %s, if every serving node can be asked.\n", when(e.ExpectedAt))
	}
	if len(e.Burned) > 0 {
		fmt.Fprintf(w, "Revoked, because it was in the leaked store: standby %s.\n", strings.Join(e.Burned, " and "))
	}
	exposed := "not known yet; ask again with --from, it changes nothing"
	if e.ExposureEndsAt != nil {
		exposed = when(e.ExposureEndsAt)
	}
	fmt.Fprintf(w, "A thief's signatures verify until: %s.\n", exposed)
	fmt.Fprintf(w, "Mail at risk: %s.\n", e.MailAtRisk)
}

type keyRollbackCmd struct {
	Domain string `arg:"" help:"Domain or token."`
	From   string `placeholder:"SELECTOR" help:"The selector that signs now, as you saw it: nothing happens when another one does already."`
	Reason string `help:"Why, for the audit."`
}

func (keyRollbackCmd) Help() string {
	return `Undoes a rotation within the pool's rollback window (24 hours unless set otherwise): the key before
signs again, the newer one drains. Mail signed with either verifies. A revoked key never signs again.

    authd key rollback send.customer.example --reason "the new signers are not ready"
`
}

func (c *keyRollbackCmd) Run(s *session) error {
	body := api.Rollback{From: c.From, Reason: c.Reason}
	var d api.Domain
	raw, err := s.post(s.ctx, v1("domains", c.Domain, "rollback"), nil, body, &d)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printKeys(w, d.Keys) })
}

type keyRevokeCmd struct {
	Domain   string `arg:"" help:"Domain or token."`
	Selector string `arg:"" help:"Selector of the key."`
	Reason   string `required:"" help:"Why, for the audit."`
	Force    bool   `help:"Even if no other key of the domain can sign (admin)."`
}

func (keyRevokeCmd) Help() string {
	return `Mail signed with this key, under way ones included, fails DKIM from now on. The key that signs is
refused: rotate first, or --force.

    authd key revoke send.customer.example 2611-ab3de7 --reason "private half was in a public bucket"
`
}

func (c *keyRevokeCmd) Run(s *session) error {
	raw, err := s.post(s.ctx, v1("domains", c.Domain, "keys", c.Selector, "revoke"), nil, api.Revocation{Reason: c.Reason, Force: c.Force}, nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s of %s is revoked", c.Selector, c.Domain)
}

type keyFetchCmd struct {
	Domain string `arg:"" help:"Domain, or a name it signs for."`
}

func (keyFetchCmd) Help() string {
	return `Prints the JSON document that mail servers read (HashiCorp Vault KV v1 shape), from the local state
of the node asked. Needs a token of scope signer. Handle the output like the key itself.

    authd key fetch send.customer.example
`
}

func (c *keyFetchCmd) Run(s *session) error {
	raw, err := s.get(s.ctx, v1("dkim", c.Domain), nil, nil)
	if refusedWith(err, http.StatusNotFound) {
		return fmt.Errorf("there is no domain %s that this token may sign for, and none that lists it: %w", c.Domain, err)
	}
	if err != nil {
		return err
	}
	return printJSON(s.stdout, raw)
}
