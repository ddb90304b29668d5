package api

import (
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

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
	Key       string       `json:"key,omitempty" doc:"PEM, PKCS #8."`
	Domain    string       `json:"domain" doc:"The d= of the signature."`
}

// SigningKey is one private key with its selector.
type SigningKey struct {
	Selector  string `json:"selector"`
	Domain    string `json:"domain"`
	Key       string `json:"key" doc:"RSA: PEM, PKCS #8. Ed25519: base64 of the 32-byte seed (rspamd logs an Ed25519 PEM that it cannot read)."`
	Algorithm string `json:"alg" enum:"rsa,ed25519"`
	Bits      int    `json:"bits"`
	PublicKey string `json:"pubkey" doc:"The p= of the record."`
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
			"404": {Description: "Unknown domain", Content: jsonContent(h.schema(vaultErrors{}))},
		},
	}, signer|tenant, h.signingKeys)
}

func (h *Handler) signingKeys(w http.ResponseWriter, r *http.Request) {
	req := from(r.Context())
	n, err := zone.ParseHost(r.PathValue("domain"))
	if err != nil {
		writeJSON(w, http.StatusNotFound, vaultErrors{[]string{}})
		return
	}
	d, known := signerFor(req.machine, req.who, n)
	if !known {
		writeJSON(w, http.StatusNotFound, vaultErrors{[]string{}})
		return
	}
	out := Signing{Selectors: []SigningKey{}, Domain: n.Host()}
	if d != nil {
		out.Domain = d.Name.Host()
		if !h.fill(&out, d) {
			writeJSON(w, http.StatusInternalServerError, vaultErrors{[]string{"this node cannot open the domain's keys; its log says why"}})
			return
		}
	}
	id, err := h.requestID()
	if err != nil {
		h.logger.Error("drawing a request id", "error", err)
		internal().write(w)
		return
	}
	writeJSON(w, http.StatusOK, Secret{RequestID: id, Data: out})
}

// signerFor is the claim that signs for a name, nil where a claim is known and
// nothing signs.
func signerFor(m state.Machine, who identity, n zone.Name) (d *state.Domain, known bool) {
	if found, ok := m.SignerFor(n); ok && who.sees(found.Tenant) {
		d, known = found, true
	} else {
		for _, c := range m.Claims(n) {
			if !who.sees(c.Tenant) {
				continue
			}
			known = true
			if who.tenant != "" && c.State == state.Live {
				d = c // a tenant's own, where another tenant's claim signs for the name
			}
		}
	}
	if d != nil && !signs(m, d) {
		d = nil
	}
	return d, known
}

// fill adds the keys that sign. It says no where there are some and none opens.
func (h *Handler) fill(out *Signing, d *state.Domain) bool {
	active := signing(d.Ring())
	for _, k := range active {
		pair, err := h.replica.OpenKey(d, k)
		if err != nil {
			h.logger.Error("opening a signing key", "domain", d.Name.String(), "selector", k.Selector, "error", err)
			continue
		}
		pem := string(pair.PKCS8())
		one := SigningKey{Selector: d.Selector(k), Domain: out.Domain, Key: pem, Algorithm: "rsa", PublicKey: publicHalf(k.Payload)}
		if k.Algorithm == keys.Ed25519 {
			one.Key, one.Algorithm, one.Bits = pair.Seed(), "ed25519", 256
		} else if public, ok := pair.Signer().Public().(*rsa.PublicKey); ok {
			one.Bits = public.N.BitLen()
		}
		if out.Key == "" {
			out.Selector, out.Key = one.Selector, pem
		}
		out.Selectors = append(out.Selectors, one)
	}
	return len(active) == 0 || len(out.Selectors) > 0
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

// writeJSON sends a document outside huma.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may be gone; there is nobody else to tell.
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v)
}
