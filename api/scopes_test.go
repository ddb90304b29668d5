package api

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// call is what a call asks of its caller besides admin, who may make all.
type call struct {
	scopes string // which enter: read, tenant, signer; "anyone": also without a token
	// body is one that is taken, of a write that tenants may make: what is another
	// tenant's must be found out before anything else.
	body string
}

// everyCall is every call that there is. What is added to the API is added here,
// with who may make it.
func everyCall() map[string]call {
	const name = "/v1/domains/{domain}"
	return map[string]call{
		"GET /health":       {scopes: "anyone"},
		"GET /metrics":      {scopes: "anyone"},
		"GET /openapi.json": {scopes: "anyone"},
		"GET /ready":        {scopes: "anyone"},

		"GET /v1/audit":                                 {scopes: "tenant"},
		"GET /v1/audit/reads":                           {scopes: "read"},
		"GET /v1/events":                                {scopes: "tenant"},
		"GET /v1/cluster":                               {scopes: "read"},
		"GET /v1/cluster/kek":                           {scopes: "read"},
		"POST /v1/cluster/kek":                          {},
		"GET /v1/cluster/snapshot":                      {},
		"POST /v1/cluster/snapshot":                     {},
		"PUT /v1/cluster/authority":                     {},
		"POST /v1/cluster/check":                        {},
		"POST /v1/cluster/invitations":                  {},
		"POST /v1/cluster/leader":                       {},
		"POST /v1/cluster/nodes":                        {},
		"DELETE /v1/cluster/nodes/{id}":                 {},
		"PUT /v1/cluster/nodes/{id}/serving":            {},
		"PUT /v1/cluster/settings":                      {},
		"POST /v1/import":                               {},
		"GET /v1/tokens":                                {},
		"POST /v1/tokens":                               {},
		"DELETE /v1/tokens/{id}":                        {},
		"GET /v1/nameservers":                           {scopes: "read"},
		"GET /v1/nameservers/{nameserver}":              {scopes: "read"},
		"PUT /v1/nameservers/{nameserver}":              {},
		"DELETE /v1/nameservers/{nameserver}":           {},
		"GET /v1/pools":                                 {scopes: "read"},
		"GET /v1/pools/{pool}":                          {scopes: "read"},
		"PUT /v1/pools/{pool}":                          {},
		"DELETE /v1/pools/{pool}":                       {},
		"GET /v1/zones":                                 {scopes: "read"},
		"GET /v1/zones/{zone}":                          {scopes: "read"},
		"PUT /v1/zones/{zone}":                          {},
		"DELETE /v1/zones/{zone}":                       {},
		"GET /v1/zones/{zone}/parent":                   {scopes: "read"},
		"GET /v1/zones/{zone}/served":                   {scopes: "read"},
		"GET /v1/zones/{zone}/records":                  {scopes: "read"},
		"PUT /v1/zones/{zone}/records/{name}/{type}":    {},
		"DELETE /v1/zones/{zone}/records/{name}/{type}": {},

		"GET /v1/tenants":                   {scopes: "read tenant"},
		"POST /v1/tenants":                  {},
		"GET /v1/tenants/{tenant}":          {scopes: "read tenant"},
		"PATCH /v1/tenants/{tenant}":        {},
		"POST /v1/tenants/{tenant}/suspend": {},
		"POST /v1/tenants/{tenant}/resume":  {},
		"POST /v1/tenants/{tenant}/domains": {scopes: "tenant", body: `{"domain":"send.customer9.example","mode":"cname"}`},

		"GET /v1/domains":                           {scopes: "read tenant"},
		"GET " + name:                               {scopes: "read tenant"},
		"GET " + name + "/served":                   {scopes: "read tenant"},
		"GET " + name + "/timeline":                 {scopes: "read tenant"},
		"GET " + name + "/queries":                  {scopes: "read tenant"},
		"GET " + name + "/records":                  {scopes: "read tenant"},
		"GET " + name + "/keys/{selector}":          {scopes: "read tenant"},
		"PATCH " + name:                             {scopes: "tenant", body: `{"labels":{"a":"b"}}`},
		"DELETE " + name:                            {scopes: "tenant"},
		"POST " + name + "/attest":                  {},
		"POST " + name + "/verify":                  {scopes: "tenant"},
		"POST " + name + "/restore":                 {scopes: "tenant"},
		"POST " + name + "/rotate":                  {scopes: "tenant", body: `{}`},
		"POST " + name + "/rollback":                {scopes: "tenant", body: `{}`},
		"POST " + name + "/queries":                 {},
		"DELETE " + name + "/queries":               {},
		"POST " + name + "/keys":                    {scopes: "tenant", body: `{}`},
		"POST " + name + "/keys/{selector}/revoke":  {scopes: "tenant", body: `{"reason":"x"}`},
		"POST " + name + "/zone":                    {scopes: "tenant", body: "x 300 IN A 192.0.2.1\n"},
		"PUT " + name + "/records/{name}/{type}":    {scopes: "tenant", body: `{"ttl":300,"values":["192.0.2.1"]}`},
		"DELETE " + name + "/records/{name}/{type}": {scopes: "tenant"},

		"GET /v1/rotations":                {scopes: "read tenant"},
		"POST /v1/rotations":               {scopes: "tenant", body: `{"scope":{"tenant":"acme"}}`},
		"GET /v1/rotations/{id}":           {scopes: "read tenant"},
		"GET /v1/rotations/{id}/domains":   {scopes: "read tenant"},
		"POST /v1/rotations/{id}/abort":    {scopes: "tenant"},
		"POST /v1/rotations/{id}/pause":    {scopes: "tenant"},
		"POST /v1/rotations/{id}/resume":   {scopes: "tenant"},
		"POST /v1/rotations/{id}/rollback": {scopes: "tenant"},

		"GET /v1/dkim":                             {scopes: "signer tenant"},
		"GET /v1/dkim/{domain}":                    {scopes: "signer tenant"},
		"GET /v1/dkim/{domain}/{selector}":         {scopes: "signer tenant"},
		"GET /v1/secret/data/{path...}":            {scopes: "signer tenant"},
		"GET /v1/secret/metadata/{path...}":        {scopes: "signer tenant"},
		"GET /v1/sys/internal/ui/mounts/{path...}": {scopes: "signer tenant"},
		"GET /v1/auth/token/lookup-self":           {scopes: "signer tenant"},
		"PUT /v1/auth/token/renew-self":            {scopes: "signer tenant"},
		"POST /v1/auth/token/renew-self":           {scopes: "signer tenant"},
	}
}

// of is the request of a call for a domain with everything that it has, and for a
// rotation.
func (c call) of(pattern string, d Domain, rotation string) (method, path, body string) {
	method, path, _ = strings.Cut(pattern, " ")
	id := "x"
	if strings.HasPrefix(path, "/v1/rotations") {
		id = rotation
	}
	domain, listed := d.Token, ""
	if strings.HasPrefix(path, "/v1/dkim") {
		domain = d.Domain
	}
	if strings.HasPrefix(path, "/v1/secret/metadata") {
		listed = "?list=true"
	}
	return method, strings.NewReplacer("{domain}", domain, "{tenant}", d.Tenant, "{id}", id, "{path...}", "dkim/"+d.Domain,
		"{selector}", d.Keys[0].Selector, "{name}", "held", "{type}", "A", "{zone}", "p-dns.test", "{pool}", "default", "{nameserver}", "ns1").Replace(path) + listed, c.body
}

func (h *house) call(scope, method, path, body string) answered {
	h.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a change stream ends by itself
	r := newRequest(method, path, body).WithContext(ctx)
	r.Header.Set("Content-Type", "application/json")
	if strings.HasSuffix(path, "/zone") {
		r.Header.Set("Content-Type", textZone)
	}
	if scope != "" {
		r.Header.Set("Authorization", "Bearer "+h.tokens[scope])
	}
	return h.send(r)
}

// The whole matrix: what is not allowed is refused before anything is read of the
// request, and nothing is refused for its scope that is allowed.
func TestEveryCallIsForItsScopesAlone(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	calls := everyCall()
	if missing, gone := slices.Sorted(maps.Keys(h.handler.routes)), slices.Sorted(maps.Keys(calls)); !slices.Equal(missing, gone) {
		t.Fatalf("the API has\n%s\nthe table of scopes\n%s", strings.Join(missing, "\n"), strings.Join(gone, "\n"))
	}
	for pattern, c := range calls {
		method, path, body := c.of(pattern, d, "x")
		want := http.StatusUnauthorized
		if isVault(path) {
			want = http.StatusForbidden
		}
		if a := h.call("", method, path, body); (a.Code == want) != (c.scopes != "anyone") {
			t.Errorf("%s without a token: %d", pattern, a.Code)
		}
		for _, scope := range []string{"read", "signer", "tenant"} {
			token := scope
			if scope == "tenant" {
				token = "tenant:acme"
			}
			allowed := c.scopes == "anyone" || slices.Contains(strings.Fields(c.scopes), scope)
			a := h.call(token, method, path, body)
			if refused := a.Code == http.StatusForbidden && strings.Contains(a.Body.String(), "the token's scope"); refused == allowed {
				t.Errorf("%s as %s: %d %s", pattern, scope, a.Code, a.Body)
			}
		}
	}
}

// Whatever a tenant may call, the things of another are not there, and stay as
// they are.
func TestWhatIsAnotherTenantsIsNotThereInAnyCall(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	h.must(http.StatusOK, "PUT", "/v1/domains/"+d.Token+"/records/held/A", `{"ttl":300,"values":["192.0.2.1"]}`)
	rotation := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"tenant":"acme"}}`))
	before, asked := h.image(), 0
	for pattern, c := range everyCall() {
		_, path, _ := strings.Cut(pattern, " ")
		addressed := strings.Contains(path, "{") && !strings.Contains(path, "/mounts/") || pattern == "POST /v1/rotations"
		if !addressed || !slices.Contains(strings.Fields(c.scopes), "tenant") {
			continue
		}
		asked++
		method, path, body := c.of(pattern, d, rotation.ID)
		want := http.StatusNotFound
		if pattern == "POST /v1/rotations" {
			want = http.StatusForbidden // it names itself as who may
		}
		if a := h.call("tenant:globex", method, path, body); a.Code != want {
			t.Errorf("%s as another tenant: %d %s", pattern, a.Code, a.Body)
		}
		if a := h.call("tenant:globex", method, strings.Replace(path, d.Token, d.Domain, 1), body); a.Code != want {
			t.Errorf("%s by name, as another tenant: %d %s", pattern, a.Code, a.Body)
		}
	}
	if asked < 30 {
		t.Errorf("only %d calls were tried", asked)
	}
	if !bytes.Equal(before, h.image()) {
		t.Error("something of another tenant was changed")
	}
}
