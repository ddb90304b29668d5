package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// The documents of signing keys are also at the paths of HashiCorp Vault's KV
// version 2, can be listed, and come with the look-ups that Vault's own clients
// make first. Below these paths errors have Vault's shape too: a client that
// looks for "errors" finds it.

// vaultPaths are the subtrees that Vault's clients ask.
var vaultPaths = [...]string{"/v1/dkim", "/v1/secret", "/v1/sys/internal/ui/mounts", "/v1/auth/token"}

func isVault(path string) bool {
	for _, p := range vaultPaths {
		if rest, ok := strings.CutPrefix(path, p); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// vaultList turns LIST, a method of Vault's alone, into the GET that means the
// same.
func vaultList(r *http.Request) {
	if r.Method == "LIST" && isVault(r.URL.Path) {
		r.Method = http.MethodGet
		query := r.URL.Query()
		query.Set("list", "true")
		r.URL.RawQuery = query.Encode()
	}
}

// writeFor sends a problem in the shape that the path's clients read. Vault
// knows no 401.
func (p *Problem) writeFor(path string, w http.ResponseWriter) {
	if !isVault(path) {
		p.write(w)
		return
	}
	status, said := p.Status, p.Detail
	if status == http.StatusUnauthorized {
		status, said = http.StatusForbidden, "permission denied"
	}
	for name, values := range p.headers {
		w.Header()[name] = values
	}
	writeJSON(w, status, vaultErrors{[]string{said}})
}

// Versioned is a document in the shape of KV version 2.
type Versioned struct {
	Data     any             `json:"data"`
	Metadata VersionMetadata `json:"metadata"`
}

// VersionMetadata says of which version a document is; clients need each member.
type VersionMetadata struct {
	CreatedTime    time.Time `json:"created_time"`
	CustomMetadata any       `json:"custom_metadata"`
	DeletionTime   string    `json:"deletion_time"`
	Destroyed      bool      `json:"destroyed"`
	Version        int       `json:"version"`
}

// KeyDocument is the document of one selector. What it says of the selector never
// changes, so that a client may cache it by its path.
type KeyDocument struct {
	SigningKey
	Stage string `json:"stage" enum:"active,draining"`
}

// KeySecret is the document of one selector in the envelope of KV version 1.
type KeySecret struct {
	RequestID     string      `json:"request_id"`
	LeaseID       string      `json:"lease_id"`
	Renewable     bool        `json:"renewable"`
	LeaseDuration int         `json:"lease_duration"`
	Data          KeyDocument `json:"data"`
	WrapInfo      any         `json:"wrap_info"`
	Warnings      any         `json:"warnings"`
	Auth          any         `json:"auth"`
}

func (h *Handler) registerVault() {
	get := func(id, path, summary string, document *huma.Schema, handle http.HandlerFunc) {
		h.addRaw(huma.Operation{
			OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{"Signing"}, Summary: summary,
			Responses: map[string]*huma.Response{
				"200": {Description: "The document", Content: jsonContent(document)},
				"403": {Description: "No token, or not for this", Content: jsonContent(h.schema(vaultErrors{}))},
				"404": {Description: "Nothing there", Content: jsonContent(h.schema(vaultErrors{}))},
			},
		}, signer|tenant, handle)
	}
	plain, versioned := h.schema(KeySecret{}), h.schema(vaultReply{})
	get("list-signing", "/v1/dkim", "List the domains with signing keys (?list=true, or the method LIST; ?limit= and ?after= go on)", versioned,
		func(w http.ResponseWriter, r *http.Request) { h.listed(w, r, nil) })
	get("signing-key", "/v1/dkim/{domain}/{selector}", "One selector's key, while signers may use it (HashiCorp Vault KV version 1)", plain,
		func(w http.ResponseWriter, r *http.Request) {
			h.document(w, r, []string{r.PathValue("domain"), r.PathValue("selector")}, false)
		})
	get("vault-data", "/v1/secret/data/{path...}", "The same documents as HashiCorp Vault KV version 2, at dkim/<domain> and dkim/<domain>/<selector>", versioned,
		func(w http.ResponseWriter, r *http.Request) {
			if path, ok := mounted(r.PathValue("path")); ok && len(path) > 0 {
				h.document(w, r, path, true)
				return
			}
			writeVault(w, http.StatusNotFound)
		})
	get("vault-metadata", "/v1/secret/metadata/{path...}", "What there is, as HashiCorp Vault KV version 2 lists it (?list=true, or the method LIST)", versioned,
		func(w http.ResponseWriter, r *http.Request) {
			switch path, ok := mounted(r.PathValue("path")); {
			case ok:
				h.listed(w, r, path)
			case strings.Trim(r.PathValue("path"), "/") == "":
				h.vault(w, map[string]any{"keys": []string{"dkim/"}})
			default:
				writeVault(w, http.StatusNotFound)
			}
		})
	get("vault-mounts", "/v1/sys/internal/ui/mounts/{path...}", "Which version of KV a path has, as HashiCorp Vault's clients ask first", versioned, h.vaultMount)
	get("vault-lookup-self", "/v1/auth/token/lookup-self", "What the token is, as HashiCorp Vault's clients ask", versioned, h.vaultToken)
	renew := huma.Operation{
		OperationID: "vault-renew-self", Method: http.MethodPut, Path: "/v1/auth/token/renew-self", Tags: []string{"Signing"},
		Summary: "Refuses, in Vault's words: tokens are not renewed, they are valid until they expire",
	}
	refuse := func(w http.ResponseWriter, _ *http.Request) {
		writeVault(w, http.StatusBadRequest, "lease is not renewable: the token is valid until it expires")
	}
	h.addRaw(renew, signer|tenant, refuse)
	renew.OperationID, renew.Method = "vault-renew-self-post", http.MethodPost
	h.addRaw(renew, signer|tenant, refuse)
}

// mounted is the path below dkim of a path in the mount secret; false where it is
// outside. Segments are taken as they are: none can hold a slash.
func mounted(path string) ([]string, bool) {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	if segments[0] != "dkim" || len(segments) > 3 {
		return nil, false
	}
	return segments[1:], true
}

func writeVault(w http.ResponseWriter, status int, errs ...string) {
	writeJSON(w, status, vaultErrors{append([]string{}, errs...)})
}

// vaultReply is Vault's envelope around any document.
type vaultReply struct {
	RequestID     string   `json:"request_id"`
	LeaseID       string   `json:"lease_id"`
	Renewable     bool     `json:"renewable"`
	LeaseDuration int      `json:"lease_duration"`
	Data          any      `json:"data"`
	WrapInfo      any      `json:"wrap_info"`
	Warnings      []string `json:"warnings"`
	Auth          any      `json:"auth"`
}

// vault sends data in the envelope.
func (h *Handler) vault(w http.ResponseWriter, data any, warnings ...string) {
	id, err := h.requestID()
	if err != nil {
		h.logger.Error("drawing a request id", "error", err)
		writeVault(w, http.StatusInternalServerError, "a defect of ours; the node's log says more")
		return
	}
	writeJSON(w, http.StatusOK, vaultReply{RequestID: id, Data: data, Warnings: warnings})
}

// document answers with the document of a domain, or of one of its selectors.
func (h *Handler) document(w http.ResponseWriter, r *http.Request, path []string, versioned bool) {
	req := from(r.Context())
	n, err := zone.ParseHost(path[0])
	if err != nil {
		writeVault(w, http.StatusNotFound)
		return
	}
	d, known := signerFor(req.machine, req.who, n)
	var data any
	created := time.Unix(0, 0).UTC()
	switch {
	case !known, d == nil && len(path) > 1:
		writeVault(w, http.StatusNotFound)
		return
	case len(path) > 1:
		k, ok := readable(d, path[1], h.config.Now().Unix())
		if !ok {
			writeVault(w, http.StatusNotFound)
			return
		}
		created = moment(k.CreatedAt)
		one, err := h.signingKey(req, d, k)
		if err != nil {
			h.unreadable(w, err)
			return
		}
		one.Key = one.PEM // a document of one key has it as every client reads it
		data = KeyDocument{one.SigningKey, k.Stage.String()}
	default:
		out := Signing{Selectors: []SigningKey{}, Domain: n.Host()}
		if d != nil {
			out.Domain = d.Name.Host()
			if created, err = h.fill(req, &out, d); err != nil {
				h.unreadable(w, err)
				return
			}
		}
		data = out
	}
	if versioned {
		data = Versioned{Data: data, Metadata: VersionMetadata{CreatedTime: created, Version: 1}}
	}
	h.vault(w, data)
}

// lateRead is how long the key before the active one can still be read by its
// selector: for a signer that learnt the selector a moment before the rotation and
// fetches the key now. The time that a signer may hold a key runs from then on, so
// nothing signs later than it might anyway.
const lateRead = 15 * time.Minute

// readable finds a key that a signer may fetch by its selector at a time.
func readable(d *state.Domain, selector string, at int64) (keys.Key, bool) {
	k, ok := bySelector(d, d.Ring(), selector)
	if !ok || k.PublicOnly {
		return k, false
	}
	return k, k.Stage == keys.Active || k.Stage == keys.Draining && at < k.DrainedAt+int64(lateRead.Seconds())
}

// maxListed bounds one answer to LIST. Vault has no pages; limit and after are
// those of OpenBao.
const maxListed = maxWalk

// listed answers LIST: of dkim the domains, of a domain its selectors.
func (h *Handler) listed(w http.ResponseWriter, r *http.Request, path []string) {
	query := r.URL.Query()
	if query.Get("list") != "true" {
		writeVault(w, http.StatusMethodNotAllowed, "unsupported operation: add ?list=true, or use the method LIST")
		return
	}
	if len(path) > 0 {
		h.listSelectors(w, r, path)
		return
	}
	limit, err := listLimit(query)
	if err != nil {
		writeVault(w, http.StatusBadRequest, err.Error())
		return
	}
	names, more, ok := h.listDomainsAfter(from(r.Context()), query.Get("after"), limit)
	switch {
	case !ok:
		writeVault(w, http.StatusBadRequest, "after is not a domain of this list")
	case len(names) == 0:
		writeVault(w, http.StatusNotFound)
	case more:
		h.vault(w, map[string]any{"keys": names}, "there are more: go on with ?after="+names[len(names)-1])
	default:
		h.vault(w, map[string]any{"keys": names})
	}
}

func listLimit(query url.Values) (int, error) {
	text := query.Get("limit")
	if text == "" {
		return maxListed, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 || limit > maxListed {
		return 0, invalid("limit", "limit %q is not a number from 1 to %d", bounded(text), maxListed)
	}
	return limit, nil
}

// listDomainsAfter lists domains that sign, in order of their tokens. A name that several
// claims have is listed once, with the claim that signs for it: after is a name.
func (h *Handler) listDomainsAfter(req *request, after string, limit int) (names []string, more, ok bool) {
	var start state.Token
	if after != "" {
		n, err := zone.ParseHost(after)
		if err != nil {
			return nil, false, false
		}
		d, known := signerFor(req.machine, req.who, n)
		if !known || d == nil {
			return nil, false, false
		}
		start = d.Token
	}
	for d := range req.machine.Domains(start) {
		if after != "" && d.Token == start || !req.who.sees(d.Tenant) || !signs(req.machine, d) {
			continue
		}
		if by, _ := signerFor(req.machine, req.who, d.Name); by == nil || by.Token != d.Token {
			continue
		}
		if len(names) == limit {
			return names, true, true
		}
		names = append(names, d.Name.Host())
	}
	return names, false, true
}

func (h *Handler) listSelectors(w http.ResponseWriter, r *http.Request, path []string) {
	req := from(r.Context())
	n, err := zone.ParseHost(path[0])
	if err != nil || len(path) > 1 {
		writeVault(w, http.StatusNotFound)
		return
	}
	d, _ := signerFor(req.machine, req.who, n)
	var selectors []string
	if d != nil {
		for _, k := range d.Ring().Keys {
			if _, ok := readable(d, d.Selector(k), h.config.Now().Unix()); ok {
				selectors = append(selectors, d.Selector(k))
			}
		}
	}
	if len(selectors) == 0 {
		writeVault(w, http.StatusNotFound)
		return
	}
	h.vault(w, map[string]any{"keys": selectors})
}

// vaultMount says which of the two shapes a path has.
func (h *Handler) vaultMount(w http.ResponseWriter, r *http.Request) {
	mount, _, _ := strings.Cut(strings.Trim(r.PathValue("path"), "/"), "/")
	version, ok := map[string]string{"dkim": "1", "secret": "2"}[mount]
	if !ok {
		writeVault(w, http.StatusForbidden, "preflight capability check returned 403, please ensure client's policies grant access to path \""+bounded(mount)+"/\"")
		return
	}
	h.vault(w, map[string]any{"path": mount + "/", "type": "kv", "options": map[string]string{"version": version}})
}

// vaultToken says what the token of the request is, never the token.
func (h *Handler) vaultToken(w http.ResponseWriter, r *http.Request) {
	req := from(r.Context())
	access, ok := req.machine.AccessToken(req.who.id)
	if !ok {
		writeVault(w, http.StatusForbidden, "permission denied")
		return
	}
	data := map[string]any{
		"accessor": access.ID, "display_name": access.Note, "policies": []string{string(access.Scope)}, "type": "service",
		"creation_time": access.CreatedAt, "expire_time": nil, "ttl": 0, "renewable": false, "orphan": true, "num_uses": 0, "id": "",
	}
	if access.ExpiresAt != 0 {
		data["expire_time"] = moment(access.ExpiresAt)
		data["ttl"] = max(0, access.ExpiresAt-h.config.Now().Unix())
	}
	h.vault(w, data)
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
