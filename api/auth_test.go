package api

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
)

func TestAbsentWrongExpiredAndForeignTokensLookAlike(t *testing.T) {
	h := newHouse(t)
	expired := h.grant(state.AccessToken{Scope: "admin", ExpiresAt: h.at + 60, Note: "expired"})
	elsewhere := h.grant(state.AccessToken{Scope: "admin", Subnets: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}, Note: "elsewhere"})
	revoked := h.grant(state.AccessToken{Scope: "admin", Note: "revoked"})
	good := h.grant(state.AccessToken{Scope: "admin"})
	for token := range h.Machine().AccessTokens() {
		if token.Note == "revoked" {
			h.must(http.StatusNoContent, "DELETE", "/v1/tokens/"+token.ID, "")
		}
	}
	h.now = h.now.Add(3600 * 1e9)
	bodies := map[string]bool{}
	for name, header := range map[string]string{
		"none": "", "another scheme": "Basic " + good, "only a scheme": "Bearer", "empty": "Bearer ",
		"a near miss": "Bearer " + good[:len(good)-1] + "_", "a prefix": "Bearer " + good[:len(good)-1],
		"ten kilobytes": "Bearer " + strings.Repeat("a", 10<<10), "expired": "Bearer " + expired,
		"used from elsewhere": "Bearer " + elsewhere, "revoked": "Bearer " + revoked,
	} {
		r := httptest.NewRequest("GET", "/v1/cluster", nil)
		if header != "" {
			r.Header.Set("Authorization", header)
		}
		a := h.send(r)
		if a.Code != http.StatusUnauthorized || a.Header().Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
		bodies[a.Body.String()] = true
	}
	if len(bodies) != 1 {
		t.Errorf("%d different bodies: %v", len(bodies), bodies)
	}
}

func TestNodeWithoutStateSaysSoAndNotThatTheTokenIsWrong(t *testing.T) {
	h := newHouse(t)
	h.replica.mu.Lock()
	h.machine = state.Empty()
	h.replica.mu.Unlock()
	a := h.send(httptest.NewRequest("GET", "/v1/cluster", nil))
	if a.Code != http.StatusServiceUnavailable || a.Header().Get("Retry-After") == "" || !strings.Contains(a.Body.String(), "no state yet") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestTokenCountsWhereItMayBeUsed(t *testing.T) {
	h := newHouse(t)
	h.grant(state.AccessToken{Scope: "admin", Subnets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}})
	for address, want := range map[string]int{
		"192.0.2.7:1000": 200, "[::ffff:192.0.2.7]:1000": 200, "[2001:db8::7]:1000": 200, "192.0.3.7:1000": 401, "[2001:db9::7]:1": 401, "nonsense": 401,
	} {
		r := httptest.NewRequest("GET", "/v1/cluster", nil)
		r.RemoteAddr = address
		r.Header.Set("X-Forwarded-For", "192.0.2.7") // which counts for nothing
		r.Header.Set("Authorization", "bearer "+h.tokens["admin"])
		if a := h.send(r); a.Code != want {
			t.Errorf("from %s: %d, not %d", address, a.Code, want)
		}
	}
}

// A token ends at its second.
func TestTokenIsGoodUntilItExpires(t *testing.T) {
	h := newHouse(t)
	h.grant(state.AccessToken{Scope: "admin", ExpiresAt: h.at + 600})
	for after, want := range map[int64]int{599: 200, 600: 401} {
		h.now = time.Unix(h.at+after, 0)
		if a := h.ask("GET", "/v1/cluster", ""); a.Code != want {
			t.Errorf("%d s on: %d, not %d", after, a.Code, want)
		}
	}
}

// The matrix of scopes: what the calls come to.
func TestScopesAllowWhatTheyAreFor(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	for _, c := range []struct {
		method, path, body          string
		read, signer, acme, foreign int
	}{
		{"GET", "/v1/tenants", "", 200, 403, 200, 200},
		{"GET", "/v1/tenants/acme", "", 200, 403, 200, 404},
		{"POST", "/v1/tenants", `{"id":"x"}`, 403, 403, 403, 403},
		{"POST", "/v1/tenants/acme/suspend", "", 403, 403, 403, 403},
		{"POST", "/v1/tenants/acme/domains", `{"domain":"send.customer.example","mode":"delegated"}`, 403, 403, 409, 404},
		{"GET", "/v1/domains", "", 200, 403, 200, 200},
		{"GET", "/v1/domains/" + d.Token, "", 200, 403, 200, 404},
		{"GET", "/v1/domains/send.customer.example", "", 200, 403, 200, 404},
		{"GET", "/v1/domains/" + d.Token + "/served", "", 200, 403, 200, 404},
		{"PATCH", "/v1/domains/" + d.Token, `{}`, 403, 403, 200, 404},
		{"POST", "/v1/domains/" + d.Token + "/attest", `{"reason":"x"}`, 403, 403, 403, 403},
		{"POST", "/v1/domains/" + d.Token + "/verify", "", 403, 403, 200, 404},
		{"POST", "/v1/domains/" + d.Token + "/restore", "", 403, 403, 200, 404},
		{"POST", "/v1/domains/" + d.Token + "/rotate", `{"from":"nope"}`, 403, 403, 422, 404},
		{"DELETE", "/v1/domains/" + d.Token + "?now=true&reason=x", "", 403, 403, 403, 404},
		{"PUT", "/v1/domains/" + d.Token + "/records/x/A", `{"ttl":300,"values":["192.0.2.1"]}`, 403, 403, 200, 404},
		{"PUT", "/v1/domains/" + d.Token + "/records/sub/NS", `{"ttl":300,"values":["ns.example.test."]}`, 403, 403, 403, 404},
		{"POST", "/v1/domains/" + d.Token + "/keys/nope/revoke", `{"reason":"x","force":true}`, 403, 403, 403, 404},
		{"GET", "/v1/dkim/send.customer.example", "", 403, 200, 200, 404},
		{"GET", "/v1/pools", "", 200, 403, 403, 403},
		{"PUT", "/v1/pools/default", `{}`, 403, 403, 403, 403},
		{"GET", "/v1/zones", "", 200, 403, 403, 403},
		{"PUT", "/v1/zones/q-dns.test", `{}`, 403, 403, 403, 403},
		{"GET", "/v1/nameservers", "", 200, 403, 403, 403},
		{"GET", "/v1/tokens", "", 403, 403, 403, 403},
		{"POST", "/v1/tokens", `{"scope":"admin"}`, 403, 403, 403, 403},
		{"GET", "/v1/cluster", "", 200, 403, 403, 403},
		{"GET", "/v1/cluster/snapshot", "", 403, 403, 403, 403},
		{"POST", "/v1/cluster/snapshot", "", 403, 403, 403, 403},
		{"POST", "/v1/cluster/leader", `{}`, 403, 403, 403, 403},
		{"POST", "/v1/import", `{"items":[]}`, 403, 403, 403, 403},
		{"GET", "/v1/audit", "", 403, 403, 200, 200},
		{"GET", "/v1/domains/" + d.Token + "/timeline", "", 200, 403, 200, 404},
	} {
		for scope, want := range map[string]int{"read": c.read, "signer": c.signer, "tenant:acme": c.acme, "tenant:globex": c.foreign} {
			if a := h.as(scope, c.method, c.path, c.body); a.Code != want {
				t.Errorf("%s as %s %s: %d, not %d: %s", scope, c.method, c.path, a.Code, want, a.Body)
			}
		}
	}
}

// An admin-only choice inside an allowed call is 403 as well.
func TestTenantCannotOverrideOrBind(t *testing.T) {
	h := newHouse(t)
	for field, body := range map[string]string{
		"override": `{"domain":"customer.example","mode":"delegated","override":true}`,
		"targets":  `{"domain":"customer.example","mode":"cname","targets":{"bounce":"b.p-dns.test"}}`,
	} {
		if a := h.as("tenant:acme", "POST", "/v1/tenants/acme/domains", body); a.Code != http.StatusForbidden || a.problem.Field != field {
			t.Errorf("%s: %d %s", field, a.Code, a.Body)
		}
	}
}

func TestTenantSeesOnlyItsOwnInLists(t *testing.T) {
	h := newHouse(t)
	mine := h.claim("acme", "send.customer.example", "delegated")
	h.claim("globex", "send.customer2.example", "delegated")
	domains := read[DomainList](h, h.as("tenant:acme", "GET", "/v1/domains", ""))
	if len(domains.Items) != 1 || domains.Items[0].Token != mine.Token {
		t.Errorf("domains: %+v", domains.Items)
	}
	if other := read[DomainList](h, h.as("tenant:acme", "GET", "/v1/domains?tenant=globex", "")); len(other.Items) != 0 {
		t.Errorf("another tenant's domains: %+v", other.Items)
	}
	tenants := read[TenantList](h, h.as("tenant:acme", "GET", "/v1/tenants", ""))
	if len(tenants.Items) != 1 || tenants.Items[0].ID != "acme" {
		t.Errorf("tenants: %+v", tenants.Items)
	}
}

// A tenant is not told that another tenant claims the same name.
func TestNameIsAmbiguousOnlyForThoseWhoSeeBothClaims(t *testing.T) {
	h := newHouse(t)
	a := h.claim("acme", "send.customer.example", "delegated")
	b := h.claim("globex", "send.customer.example", "delegated")
	got := h.ask("GET", "/v1/domains/send.customer.example", "")
	if got.Code != http.StatusConflict || got.problem.Code != "ambiguous" || len(got.problem.Conflicts) != 2 {
		t.Errorf("admin: %d %s", got.Code, got.Body)
	}
	for _, token := range []string{a.Token, b.Token} {
		h.must(http.StatusOK, "GET", "/v1/domains/"+token, "")
	}
	if own := read[Domain](h, h.as("tenant:globex", "GET", "/v1/domains/send.customer.example", "")); own.Token != b.Token {
		t.Errorf("globex sees %s, not %s", own.Token, b.Token)
	}
}

func TestTokenSecretIsShownOnceAndWorks(t *testing.T) {
	h := newHouse(t)
	made := h.must(http.StatusCreated, "POST", "/v1/tokens", `{"scope":"signer","subnets":["192.0.2.0/24"],"expires_at":"2030-01-01T00:00:00Z","note":"mta1"}`)
	m := read[MadeToken](h, made)
	if !strings.HasPrefix(string(m.Token), "authd_") || len(m.Token) < len("authd_")+43 || m.Access.Note != "mta1" || m.Access.ExpiresAt == nil {
		t.Errorf("%+v", m)
	}
	if made.Header().Get("Location") != "/v1/tokens/"+m.Access.ID {
		t.Errorf("Location %q", made.Header().Get("Location"))
	}
	if list := h.must(http.StatusOK, "GET", "/v1/tokens", ""); strings.Contains(list.Body.String(), string(m.Token)) {
		t.Error("the list shows a secret")
	}
	if strings.Contains(string(h.image()), string(m.Token)) {
		t.Error("the secret is in the machine")
	}
	h.tokens["new"] = string(m.Token)
	if a := h.as("new", "GET", "/v1/dkim/nobody.example", ""); a.Code != http.StatusNotFound {
		t.Errorf("the new token: %d", a.Code)
	}
	h.must(http.StatusNoContent, "DELETE", "/v1/tokens/"+m.Access.ID, "")
	if a := h.as("new", "GET", "/v1/dkim/nobody.example", ""); a.Code != http.StatusForbidden {
		t.Errorf("the revoked token: %d", a.Code)
	}
	h.must(http.StatusNotFound, "DELETE", "/v1/tokens/"+m.Access.ID, "")
}
