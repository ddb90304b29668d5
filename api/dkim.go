package api

import (
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// Secret is a document in the shape of HashiCorp Vault's KV version 1, which
// rspamd, Vault's own clients and scripts read without any code of ours. The
// envelope's members are all needed; clients fail on a missing one.
type Secret struct {
	RequestID     string  `json:"request_id"`
	LeaseID       string  `json:"lease_id"`
	Renewable     bool    `json:"renewable"`
	LeaseDuration int     `json:"lease_duration"`
	Data          Signing `json:"data"`
	WrapInfo      any     `json:"wrap_info"`
	Warnings      any     `json:"warnings"`
	Auth          any     `json:"auth"`
}

// Signing is what a message From: a domain must be signed with now. Signers sign
// once for every element of Selectors; where there is none they do not sign.
// Selector, Key and Domain repeat the first for readers of a single key.
type Signing struct {
	Selectors []SigningKey `json:"selectors" nullable:"false"`
	Selector  string       `json:"selector,omitempty"`
	Key       PrivateText  `json:"key,omitempty" doc:"PEM, PKCS #8."`
	Domain    string       `json:"domain" doc:"The d= of the signature."`
}

// SigningKey is one private key with its selector.
type SigningKey struct {
	Selector  string      `json:"selector"`
	Domain    string      `json:"domain"`
	Key       PrivateText `json:"key" doc:"RSA: PEM, PKCS #8. Ed25519: base64 of the 32-byte seed (rspamd logs an Ed25519 PEM that it cannot read)."`
	Algorithm string      `json:"alg" enum:"rsa,ed25519"`
	Bits      int         `json:"bits"`
	PublicKey string      `json:"pubkey" doc:"The p= of the record."`
}

// vaultErrors is how Vault says that there is nothing: with an empty list.
type vaultErrors struct {
	Errors []string `json:"errors" nullable:"false"`
}

func (h *Handler) registerDKIM() {
	document := h.schema(Secret{})
	h.addRaw(huma.Operation{
		OperationID: "signing-keys", Method: http.MethodGet, Path: "/v1/dkim/{domain}", Tags: []string{"Signing"},
		Summary: "The keys that a message From: a domain is signed with now (HashiCorp Vault KV version 1)",
		Description: "From this node's own state; any node answers, also without a quorum. A name in some domain's signs_for " +
			"answers with that domain's keys. A domain that does not sign has no selectors; an unknown one is 404 {\"errors\":[]}. " +
			"The token may also come in X-Vault-Token.",
		Responses: map[string]*huma.Response{
			"200": {Description: "Keys, or none", Content: jsonContent(document)},
			"403": {Description: "No token, or not for this", Content: jsonContent(h.schema(vaultErrors{}))},
			"404": {Description: "Unknown domain", Content: jsonContent(h.schema(vaultErrors{}))},
		},
	}, signer|tenant, func(w http.ResponseWriter, r *http.Request) { h.document(w, r, []string{r.PathValue("domain")}, false) })
	h.registerVault()
}

// signerFor is the claim that signs for a name, a tenant's own for its token; nil where
// a claim is known and nothing signs.
func signerFor(m state.Machine, who identity, n zone.Name) (d *state.Domain, known bool) {
	d, known = m.SignerFor(n, who.tenant)
	for _, c := range m.Claims(n) {
		known = known || who.sees(c.Tenant)
	}
	if d != nil && !signs(m, d) {
		d = nil
	}
	return d, known
}

// fill adds the keys that sign, and says when the latest of them began to. It
// fails where there are some and none can be given.
func (h *Handler) fill(req *request, out *Signing, d *state.Domain) (since time.Time, err error) {
	since = moment(d.CreatedAt)
	var failed error
	for _, k := range signing(d.Ring()) {
		one, err := h.signingKey(req, d, k)
		if err != nil {
			failed = err
			continue
		}
		if out.Key == "" {
			out.Selector, out.Key = one.Selector, one.PEM
		}
		out.Selectors = append(out.Selectors, one.SigningKey)
		if at := moment(k.ActivatedAt); at.After(since) {
			since = at
		}
	}
	if len(out.Selectors) > 0 {
		return since, nil // a signer of one algorithm is better than none
	}
	return since, failed
}

// released is a key as it leaves this node.
type released struct {
	SigningKey
	PEM PrivateText `json:"-"`
}

// signingKey opens one key for the maker of a request, and has it written down.
// Every private half that leaves a node does so here.
func (h *Handler) signingKey(req *request, d *state.Domain, k keys.Key) (released, error) {
	pair, err := h.replica.OpenKey(d, k)
	if err != nil {
		h.logger.Error("opening a signing key", "domain", d.Name.String(), "selector", k.Selector, "error", err)
		return released{}, err
	}
	err = h.replica.Release(cluster.KeyRead{
		Token: req.who.id, Source: req.who.source, Claim: d.Token.String(), Domain: d.Name.String(), Selector: d.Selector(k), Key: k.ID,
	})
	if err != nil {
		h.logger.Error("a signing key was not given", "domain", d.Name.String(), "selector", k.Selector, "error", err)
		return released{}, err
	}
	h.replica.HandedOut(d.Token, k.ID, req.who.id)
	pem := PrivateText(pair.PKCS8())
	one := SigningKey{Selector: d.Selector(k), Domain: d.Name.Host(), Key: pem, Algorithm: "rsa", PublicKey: publicHalf(k.Payload)}
	if k.Algorithm == keys.Ed25519 {
		one.Key, one.Algorithm, one.Bits = PrivateText(pair.Seed()), "ed25519", 256
	} else if public, ok := pair.Signer().Public().(*rsa.PublicKey); ok {
		one.Bits = public.N.BitLen()
	}
	return released{one, pem}, nil
}

// unreadable is the reply where there are keys and none could be given.
func (h *Handler) unreadable(w http.ResponseWriter, err error) {
	if errors.Is(err, cluster.ErrJournal) {
		w.Header().Set("Retry-After", "5")
		writeVault(w, http.StatusServiceUnavailable,
			"this node cannot write down who reads the key, and gives none that it has not given to this token before; ask another node. Its /health says why")
		return
	}
	writeVault(w, http.StatusInternalServerError, "this node cannot open the domain's keys; its log says why")
}

// publicHalf is the p= of a key record.
func publicHalf(payload string) string {
	for tag := range strings.SplitSeq(payload, ";") {
		if p, ok := strings.CutPrefix(strings.TrimSpace(tag), "p="); ok {
			return p
		}
	}
	return ""
}

// requestID identifies a reply, in the form that Vault's have (a random UUID).
func (h *Handler) requestID() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(h.config.Random, b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562 section 5.4
	x := hex.EncodeToString(b[:])
	return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:], nil
}
