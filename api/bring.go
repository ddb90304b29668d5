package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// BroughtKey is the body of POST /v1/domains/{domain}/keys.
type BroughtKey struct {
	PrivateKey PrivateText `json:"private_key,omitempty" maxLength:"16384" doc:"PEM, PKCS #1 or PKCS #8, unencrypted: RSA of 2048 to 4096 bits, or Ed25519. Stored sealed."`
	Public     string      `json:"public,omitempty" maxLength:"16384" doc:"Instead of private_key, for a signer that keeps its own: the TXT payload of the record, its p=, or PEM."`
	Selector   string      `json:"selector,omitempty" maxLength:"63" doc:"Delegated mode: the selector to publish it at; minted where it is left out, and needed for a public half. In CNAME mode the slot decides."`
	Reason     string      `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit."`
}

// bringTries bounds how often a key is sealed anew because a step of the ring took its
// place meanwhile.
const bringTries = 3

func (h *Handler) registerBring() {
	op := huma.Operation{
		OperationID: "bring-key", Method: http.MethodPost, Path: "/v1/domains/{domain}/keys", Tags: []string{"Keys"},
		Summary: "Bring a key of your own, or publish the public half of one that signs elsewhere",
		Description: "A private key becomes the standby, in the place of the one that is there, and signs after the same barrier and ready " +
			"time as a key of ours; rotate puts it to use. A public half is published and watched, never signs here and is never handed out; " +
			"in CNAME mode it holds a slot, and rotation is by hand until it is revoked. Weak keys are 422; a key of another tenant, or one that the domain has, is 409.",
		DefaultStatus: http.StatusCreated,
	}
	add(h, op, tenant, h.bring)
}

func (h *Handler) bring(ctx context.Context, in *struct {
	DomainPath
	Wait
	Body BroughtKey
}) (*domainReply, error) {
	d, err := from(ctx).domain(in.Domain)
	if err != nil {
		return nil, err
	}
	if _, done, err := h.again(ctx, in.Wait); done {
		return h.domainAfter(d.Token, err)
	}
	key, err := in.Body.read(d)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		next := d.Ring().NextID
		command, err := h.placed(d, key)
		if err != nil {
			return nil, err
		}
		_, err = h.write(ctx, in.Wait, in.Body.Reason, command)
		if err == nil {
			return h.domainAfter(d.Token, nil)
		}
		now, ok := h.replica.Machine().Domain(d.Token)
		if !ok || now.Ring().NextID == next || try == bringTries {
			return nil, err
		}
		d = now
	}
}

// foreign is a key that an operator brings: a pair, or a public half alone.
type foreign struct {
	pair     *keys.Pair
	public   keys.Public
	selector string
}

func (k foreign) algorithm() keys.Algorithm {
	if k.pair != nil {
		return k.pair.Algorithm()
	}
	return k.public.Algorithm
}

// read checks all of a key that can be checked without the machine's rules.
func (b BroughtKey) read(d *state.Domain) (k foreign, err error) {
	private, public := strings.TrimSpace(string(b.PrivateKey)) != "", strings.TrimSpace(b.Public) != ""
	switch {
	case private == public:
		return k, invalid("private_key", "want private_key, or public for a key that signs elsewhere: one of them")
	case private:
		if k.pair, err = keys.ParsePEM([]byte(b.PrivateKey)); err != nil {
			return k, invalid("private_key", "%s", err)
		}
	default:
		if k.public, err = keys.ParsePublic(b.Public); err != nil {
			return k, invalid("public", "%s", err)
		}
	}
	k.selector = b.Selector
	switch {
	case d.Mode == zone.CNAME && b.Selector != "":
		return k, invalid("selector", "in mode cname the free slot decides; leave the selector out")
	case d.Mode == zone.Delegated && public && b.Selector == "":
		return k, invalid("selector", "a key that signs elsewhere has a selector already; say which")
	case b.Selector != "":
		if err := keys.CheckSelector(b.Selector); err != nil {
			return k, invalid("selector", "%s", err)
		}
	}
	return k, nil
}

// placed seals a key for where the domain's ring would put it.
func (h *Handler) placed(d *state.Domain, k foreign) (state.BringKey, error) {
	command := state.BringKey{Token: d.Token}
	if k.pair == nil {
		command.Material = keys.Material{Algorithm: k.public.Algorithm, Selector: k.selector, Payload: k.public.Payload(), PublicOnly: true, Imported: true}
		return command, nil
	}
	at := max(h.config.Now().Unix(), h.replica.Machine().Time())
	place, err := d.Ring().PlaceBrought(k.algorithm(), false, at)
	if err != nil {
		return command, problem(http.StatusConflict, codeTooEarly, "", "%s has no place for another %s key yet: %s", d.Name.Host(), k.algorithm(), err)
	}
	if place.Selector == "" {
		place.Selector = k.selector
	}
	command.Material, err = h.replica.Import(d.Token, place.ID, place.Selector, k.pair)
	if err != nil {
		return command, invalid("private_key", "%s", err)
	}
	return command, nil
}

// suspended says why a domain's keys do not rotate on schedule; empty where they do.
func suspended(d *state.Domain, r keys.Ring) string {
	for _, k := range r.Keys {
		switch {
		case !k.PublicOnly:
		case k.Stage == keys.Active:
			return "the private half of " + d.Selector(k) + " is kept elsewhere, and its signer would not know of another: rotate by hand"
		case k.Stage == keys.Standby && d.Mode == zone.CNAME:
			return d.Selector(k) + " is public-only and holds one of the three slots: rotate by hand, or revoke it"
		}
	}
	return ""
}
