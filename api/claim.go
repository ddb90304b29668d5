package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// NewDomain is the body of POST /v1/tenants/{tenant}/domains.
type NewDomain struct {
	Domain   string            `json:"domain" minLength:"1" maxLength:"1024" example:"send.customer.example"`
	Mode     string            `json:"mode" enum:"delegated,cname" doc:"delegated: we serve the zone; cname: we serve what the customer's CNAMEs point at."`
	Pool     string            `json:"pool,omitempty" maxLength:"63" default:"default" example:"default"`
	Labels   map[string]string `json:"labels,omitempty" maxProperties:"32"`
	SignsFor []string          `json:"signs_for,omitempty" maxItems:"100" nullable:"false" example:"[\"customer.example\"]" doc:"Further From: domains that are signed with this domain's key."`
	DMARC    string            `json:"dmarc,omitempty" maxLength:"1000" doc:"A policy of this domain's own."`
	Override bool              `json:"override,omitempty" doc:"Allow the registrable domain itself in delegated mode. Needs scope admin."`
	Targets  *NewTargets       `json:"targets,omitempty" doc:"Existing owner names of a platform zone to use instead of generated ones, in CNAME mode. Needs scope admin."`
	Keys     []NewKey          `json:"keys,omitempty" maxItems:"2" nullable:"false" doc:"Existing private keys to sign with, one an algorithm, instead of fresh ones."`
}

// NewTargets are owner names chosen by an admin; what is left out is generated.
type NewTargets struct {
	Keys   []string `json:"keys,omitempty" maxItems:"6" nullable:"false" doc:"Three an algorithm, in the order of the slots."`
	Bounce string   `json:"bounce,omitempty"`
	Click  string   `json:"click,omitempty"`
	DMARC  string   `json:"dmarc,omitempty"`
}

// NewKey is a private key that the operator brings.
type NewKey struct {
	Selector   string      `json:"selector,omitempty" maxLength:"63" doc:"Delegated mode: the selector in use; minted where it is left out. In CNAME mode the slot decides."`
	PrivateKey PrivateText `json:"private_key" maxLength:"16384" doc:"PEM, PKCS #1 or PKCS #8, unencrypted. Stored sealed."`
}

// claim is an AddDomain that has no token and no keys yet.
type claim struct {
	state.AddDomain
	algorithms []keys.Algorithm // to make keys for
	brought    []broughtKey
}

type broughtKey struct {
	selector string
	pair     *keys.Pair
}

// readClaim checks what can be checked without the machine's rules.
func readClaim(m state.Machine, owner string, in NewDomain, admin bool) (claim, error) {
	var c claim
	n, err := host("domain", in.Domain)
	if err != nil {
		return c, err
	}
	mode, err := readMode(in.Mode)
	if err != nil {
		return c, err
	}
	of, suffix := registrable(n)
	c.AddDomain = state.AddDomain{
		Name: n, Mode: mode, Tenant: owner, Pool: in.Pool, Labels: in.Labels, DMARC: in.DMARC,
		Registrable: of, Suffix: suffix, Override: in.Override,
	}
	if c.Pool == "" {
		c.Pool = "default"
	}
	if c.SignsFor, err = hosts("signs_for", in.SignsFor); err != nil {
		return c, err
	}
	if in.Override && !admin {
		return c, forbidden("override", "only an admin overrides; leave override out")
	}
	if in.Targets != nil {
		if !admin {
			return c, forbidden("targets", "only an admin binds existing names; leave targets out")
		}
		if c.Bound, err = readTargets(*in.Targets); err != nil {
			return c, err
		}
	}
	pool, ok := m.Pool(c.Pool)
	if !ok {
		return c, invalid("pool", "there is no pool %q; add it first, or name another", bounded(c.Pool))
	}
	c.algorithms = slices.Clone(pool.Policy.Algorithms)
	return c, c.bring(in.Keys)
}

// bring reads keys that the operator has; they take the place of fresh ones.
func (c *claim) bring(in []NewKey) error {
	if len(in) == 0 {
		return nil
	}
	seen := map[keys.Algorithm]bool{}
	for i, k := range in {
		pair, err := keys.ParsePEM([]byte(k.PrivateKey))
		if err != nil {
			return invalid(indexed("keys", i)+".private_key", "%s", err)
		}
		if seen[pair.Algorithm()] {
			return invalid(indexed("keys", i), "a second %s key; bring one an algorithm", pair.Algorithm())
		}
		seen[pair.Algorithm()] = true
		selector, err := c.selectorFor(k.Selector, pair.Algorithm())
		if err != nil {
			return invalid(indexed("keys", i)+".selector", "%s", err)
		}
		c.brought = append(c.brought, broughtKey{selector, pair})
		c.algorithms = slices.DeleteFunc(c.algorithms, func(a keys.Algorithm) bool { return a == pair.Algorithm() })
	}
	if len(c.algorithms) > 0 {
		return invalid("keys", "the pool signs with %s too; bring a key of it as well, or none", c.algorithms[0])
	}
	return nil
}

// selectorFor is what Import is told: the selector in use, or nothing so that one
// is minted; in CNAME mode the first slot, which is where a first key goes.
func (c *claim) selectorFor(given string, a keys.Algorithm) (string, error) {
	if c.Mode == zone.CNAME {
		slot := keys.SlotLabel(a, 1)
		if given != "" && given != slot {
			return "", fmt.Errorf("in mode cname the first %s key goes into slot %s; leave the selector out", a, slot)
		}
		return slot, nil
	}
	if given == "" {
		return "", nil
	}
	return given, keys.CheckSelector(given)
}

// keyed draws the token and makes or seals the keys: what in a claim needs entropy.
func (h *Handler) keyed(ctx context.Context, c claim) (state.AddDomain, error) {
	command := c.AddDomain
	var err error
	if command.Token, err = h.replica.NewToken(); err != nil {
		return command, fmt.Errorf("drawing a token: %w", err)
	}
	if len(c.brought) == 0 {
		command.Active, command.Standby, err = h.replica.ClaimKeys(ctx, command.Token, ringMode(c.Mode), c.algorithms)
		if err != nil {
			return command, keyless(c.Name, err)
		}
		return command, nil
	}
	for i, k := range c.brought {
		m, err := h.replica.Import(command.Token, uint32(i)+1, k.selector, k.pair)
		if err != nil {
			return command, invalid(indexed("keys", i), "%s", err)
		}
		command.Active = append(command.Active, m)
	}
	return command, nil
}

// keyless is the reply where no key was made in time: nothing has happened.
func keyless(n zone.Name, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return problem(http.StatusServiceUnavailable, codeNoKeys, "",
			"no key for %s was ready in time; nothing was changed; try again", n.Host()).with("Retry-After", "5")
	}
	return fmt.Errorf("making keys for %s: %w", n, err)
}

func readMode(text string) (zone.Mode, error) {
	switch text {
	case "delegated":
		return zone.Delegated, nil
	case "cname":
		return zone.CNAME, nil
	}
	return 0, invalid("mode", "mode %q is neither delegated nor cname", bounded(text))
}

func readTargets(in NewTargets) (state.BoundTargets, error) {
	var out state.BoundTargets
	var err error
	if out.Keys, err = hosts("targets.keys", in.Keys); err != nil {
		return out, err
	}
	for _, t := range []struct {
		field, text string
		to          *zone.Name
	}{
		{"targets.bounce", in.Bounce, &out.Bounce}, {"targets.click", in.Click, &out.Click}, {"targets.dmarc", in.DMARC, &out.DMARC},
	} {
		if t.text == "" {
			continue
		}
		if *t.to, err = host(t.field, t.text); err != nil {
			return out, err
		}
	}
	return out, nil
}
