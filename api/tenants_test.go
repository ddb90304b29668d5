package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestATenantsOwnTokenAddsDomainsUpToItsBound(t *testing.T) {
	h := newHouse(t)
	add := func(scope string, n int) answered {
		h.Helper()
		return h.as(scope, "POST", "/v1/tenants/acme/domains", fmt.Sprintf(`{"domain":"send.customer%d.example","mode":"cname"}`, n))
	}
	if s := read[Tenant](h, h.must(http.StatusOK, "PATCH", "/v1/tenants/acme?reason=a+test", `{"max_domains":1}`)); s.MaxDomains != 1 || s.Domains != 0 {
		t.Errorf("%+v", s)
	}
	if a := add("tenant:acme", 1); a.Code != http.StatusCreated {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	drawn := h.drawn
	a := add("tenant:acme", 2)
	if p := a.problem; a.Code != http.StatusConflict || p.Code != "conflict" || p.Field != "tenant" ||
		!strings.Contains(p.Detail, `tenant "acme" has 1 domains, at most 1`) || !strings.Contains(p.Detail, "ask the operator") {
		t.Errorf("%d %+v", a.Code, p)
	}
	if h.drawn != drawn {
		t.Error("keys were made for a claim that has no place")
	}
	if a := add("admin", 2); a.Code != http.StatusCreated {
		t.Errorf("an admin's: %d %s", a.Code, a.Body)
	}
	out := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import",
		`{"items":[{"line":1,"tenant":"acme","domain":"send.customer3.example","mode":"cname"}]}`))
	if out.Added != 1 {
		t.Errorf("an import: %+v", out)
	}
	h.must(http.StatusOK, "PATCH", "/v1/tenants/acme", `{"max_domains":4}`)
	if a := add("tenant:acme", 4); a.Code != http.StatusCreated {
		t.Errorf("after raising it: %d %s", a.Code, a.Body)
	}
	if s := read[Tenant](h, h.as("tenant:acme", "GET", "/v1/tenants/acme", "")); s.Domains != 4 || s.MaxDomains != 4 {
		t.Errorf("%+v", s)
	}
	if s := read[Tenant](h, h.must(http.StatusOK, "PATCH", "/v1/tenants/acme", `{}`)); s.MaxDomains != 4 {
		t.Errorf("nothing given: %+v", s)
	}
	h.must(http.StatusUnprocessableEntity, "PATCH", "/v1/tenants/acme", `{"max_domains":-1}`)
	h.must(http.StatusUnprocessableEntity, "PATCH", "/v1/tenants/acme", `{"max_domains":20000001}`)
	h.must(http.StatusNotFound, "PATCH", "/v1/tenants/nobody", `{"max_domains":1}`)
	if s := read[Tenant](h, h.must(http.StatusCreated, "POST", "/v1/tenants", `{"id":"new","max_domains":7}`)); s.MaxDomains != 7 {
		t.Errorf("%+v", s)
	}
}

func TestATenantsOwnTokenFillsItsDomainsUpToItsBound(t *testing.T) {
	h := newHouse(t)
	token := h.claim("acme", "send.customer.example", "delegated").Token
	www := "/v1/domains/" + token + "/records/www/TXT"
	text := `{"ttl":300,"values":["` + strings.Repeat("x", 9000) + `"]}`
	if s := read[Tenant](h, h.must(http.StatusOK, "PATCH", "/v1/tenants/acme", `{"max_octets":1000}`)); s.MaxOctets != 1000 || s.Octets != 0 || s.MaxDomains != 10000 {
		t.Errorf("%+v", s)
	}
	a := h.as("tenant:acme", "PUT", www, text)
	if p := a.problem; a.Code != http.StatusConflict || p.Code != "conflict" || p.Field != "tenant" || !strings.Contains(p.Detail, "at most 1000") {
		t.Errorf("%d %+v", a.Code, p)
	}
	if a := h.as("admin", "PUT", www, text); a.Code != http.StatusOK {
		t.Errorf("an admin's: %d %s", a.Code, a.Body)
	}
	if s := read[Tenant](h, h.as("tenant:acme", "GET", "/v1/tenants/acme", "")); s.Octets < 9000 || s.MaxOctets != 1000 {
		t.Errorf("%+v", s)
	}
	if s := read[Tenant](h, h.must(http.StatusOK, "PATCH", "/v1/tenants/acme", `{"max_octets":0}`)); s.MaxOctets != 16777216 {
		t.Errorf("%+v", s)
	}
	if a := h.as("tenant:acme", "PUT", www, strings.Replace(text, "x", "y", 1)); a.Code != http.StatusOK {
		t.Errorf("after raising it: %d %s", a.Code, a.Body)
	}
	h.must(http.StatusUnprocessableEntity, "PATCH", "/v1/tenants/acme", `{"max_octets":1073741825}`)
}
