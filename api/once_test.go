package api

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"authd/cluster"
	"authd/cluster/state"
)

// keyed sends a request as admin with an Idempotency-Key.
func (h *house) keyed(key, method, path, body string) answered {
	h.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
	r.Header.Set("Idempotency-Key", key)
	return h.send(r)
}

// Every write, repeated: nothing happens again, and the answer is the first one.
func TestRepeatedWriteIsAnsweredAsTheFirst(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	standing := h.live("acme", "send.standing.example")
	leaving := h.live("acme", "send.leaving.example")
	h.must(200, "DELETE", "/v1/domains/"+leaving.Token, "")
	h.must(200, "PUT", "/v1/domains/"+d.Token+"/records/old/A", `{"ttl":300,"values":["192.0.2.1"]}`)
	h.must(200, "PUT", "/v1/zones/p-dns.test/records/old/A", `{"ttl":300,"values":["192.0.2.1"]}`)
	h.must(200, "PUT", "/v1/zones/q-dns.test", `{"contact":"hostmaster@p-dns.test"}`)
	h.must(200, "PUT", "/v1/pools/empty", `{}`)
	h.must(200, "PUT", "/v1/nameservers/ns9", `{"addresses":["192.0.2.9"]}`)
	for what, c := range map[string][3]string{
		"a tenant":           {"POST", "/v1/tenants", `{"id":"new"}`},
		"suspending":         {"POST", "/v1/tenants/globex/suspend", ""},
		"a claim":            {"POST", "/v1/tenants/acme/domains", `{"domain":"customer2.example","mode":"cname","pool":"default"}`},
		"a change":           {"PATCH", "/v1/domains/" + d.Token, `{"labels":{"a":"b"}}`},
		"an end":             {"DELETE", "/v1/domains/" + standing.Token + "?now=true&reason=x", ""},
		"a return":           {"POST", "/v1/domains/" + leaving.Token + "/restore", ""},
		"a rotation":         {"POST", "/v1/domains/" + d.Token + "/rotate", `{"reason":"x"}`},
		"a record":           {"PUT", "/v1/domains/" + d.Token + "/records/new/A", `{"ttl":300,"values":["192.0.2.1"]}`},
		"no record":          {"DELETE", "/v1/domains/" + d.Token + "/records/old/A", ""},
		"a zone's record":    {"PUT", "/v1/zones/p-dns.test/records/new/A", `{"ttl":300,"values":["192.0.2.1"]}`},
		"no record any more": {"DELETE", "/v1/zones/p-dns.test/records/old/A", ""},
		"a zone":             {"PUT", "/v1/zones/r-dns.test", `{"contact":"hostmaster@p-dns.test"}`},
		"no zone":            {"DELETE", "/v1/zones/q-dns.test", ""},
		"a pool":             {"PUT", "/v1/pools/more", `{}`},
		"no pool":            {"DELETE", "/v1/pools/empty", ""},
		"a server":           {"PUT", "/v1/nameservers/ns8", `{"addresses":["192.0.2.8"]}`},
		"no server":          {"DELETE", "/v1/nameservers/ns9", ""},
	} {
		t.Run(what, func(t *testing.T) {
			h := &house{T: t, replica: h.replica, handler: h.handler, log: h.log, tokens: h.tokens}
			if what == "a rotation" {
				h.confirm(d.Token)
			}
			first := h.keyed("key "+what, c[0], c[1], c[2])
			if first.Code >= 300 || first.Header().Get(headReplayed) != "" {
				t.Fatalf("%d %s", first.Code, first.Body)
			}
			before := h.image()
			// With wait=served too, which changes nothing of what is asked.
			sep := "?"
			if strings.Contains(c[1], "?") {
				sep = "&"
			}
			for _, path := range []string{c[1], c[1] + sep + "wait=served"} {
				again := h.keyed("key "+what, c[0], path, c[2])
				if again.Code != first.Code || again.Body.String() != first.Body.String() || again.Header().Get(headReplayed) != "true" {
					t.Errorf("first %d %s\nthen %d %s", first.Code, first.Body, again.Code, again.Body)
				}
			}
			other := h.keyed("key "+what, c[0], c[1]+sep+"reason=other", c[2]+" ")
			if other.Code != 422 || other.problem.Field != "Idempotency-Key" {
				t.Errorf("another request with the key: %d %s", other.Code, other.Body)
			}
			if !bytes.Equal(before, h.image()) {
				t.Error("something changed")
			}
		})
	}
}

func TestAnotherTokensKeyIsAnother(t *testing.T) {
	h := newHouse(t)
	h.keyed("k", "POST", "/v1/tenants", `{"id":"one"}`)
	h.tokens["admin"] = h.grant(state.AccessToken{Scope: state.ScopeAdmin})
	if a := h.keyed("k", "POST", "/v1/tenants", `{"id":"two"}`); a.Code != 201 || a.Header().Get(headReplayed) != "" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

// A key is of one request: the same body sent elsewhere, or otherwise, is not
// passed off as done.
func TestKeyIsOfOneMethodPathAndQuery(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	for name, c := range map[string]struct{ first, other [2]string }{
		"another path":   {[2]string{"POST", "/v1/tenants/acme/suspend"}, [2]string{"POST", "/v1/tenants/globex/suspend"}},
		"another verb":   {[2]string{"POST", "/v1/tenants/acme/resume"}, [2]string{"POST", "/v1/tenants/acme/suspend"}},
		"another method": {[2]string{"PUT", "/v1/pools/empty"}, [2]string{"DELETE", "/v1/pools/empty"}},
		"another query":  {[2]string{"DELETE", "/v1/domains/" + d.Token + "?reason=a"}, [2]string{"DELETE", "/v1/domains/" + d.Token + "?reason=a&now=true"}},
	} {
		if a := h.keyed(name, c.first[0], c.first[1], "{}"); a.Code >= 300 {
			t.Fatalf("%s: %d %s", name, a.Code, a.Body)
		}
		if a := h.keyed(name, c.other[0], c.other[1], "{}"); a.Code != http.StatusUnprocessableEntity || a.problem.Field != state.OnceField {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
	}
	r := httptest.NewRequest("POST", "/v1/tenants", strings.NewReader(`{"id":"two-keys"}`))
	r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
	r.Header["Idempotency-Key"] = []string{"a", "b"}
	if a := h.send(r); a.Code != http.StatusUnprocessableEntity || a.problem.Field != state.OnceField {
		t.Errorf("two keys: %d %s", a.Code, a.Body)
	}
}

// The reply is lost; the retry gives the same claim.
func TestRetryAfterAnUnknownOutcomeGivesTheSameClaim(t *testing.T) {
	h := newHouse(t)
	const path, body = "/v1/tenants/acme/domains", `{"domain":"send.customer.example","mode":"delegated","pool":"default"}`
	h.refuse, h.lost = cluster.ErrUnknown, true
	lost := h.keyed("k", "POST", path, body)
	if lost.Code != 503 || lost.problem.Code != codeUnknown {
		t.Fatalf("%d %s", lost.Code, lost.Body)
	}
	h.refuse, h.lost = nil, false
	head, _ := h.Machine().AuditHead()
	a := h.keyed("k", "POST", path, body)
	claims := h.Machine().Claims(mustName("send.customer.example"))
	if a.Code != 201 || len(claims) != 1 || read[Domain](h, a).Token != claims[0].Token.String() {
		t.Errorf("%d claims, %d %s", len(claims), a.Code, a.Body)
	}
	if after, _ := h.Machine().AuditHead(); after != head {
		t.Error("it happened again")
	}
}

func TestRacingRequestsWithOneKeyMakeOneClaim(t *testing.T) {
	h := newHouse(t)
	var all sync.WaitGroup
	tokens := make([]string, 8)
	for i := range tokens {
		all.Go(func() {
			a := h.keyed("k", "POST", "/v1/tenants/acme/domains", `{"domain":"send.customer.example","mode":"delegated","pool":"default"}`)
			var d Domain
			if err := json.Unmarshal(a.Body.Bytes(), &d); err != nil || a.Code != 201 {
				t.Errorf("%d %s", a.Code, a.Body)
			}
			tokens[i] = d.Token
		})
	}
	all.Wait()
	for _, token := range tokens {
		if token != tokens[0] {
			t.Errorf("two claims: %s and %s", token, tokens[0])
		}
	}
}

func TestRefusedRequestIsDecidedAnewWithItsKey(t *testing.T) {
	h := newHouse(t)
	if a := h.keyed("k", "DELETE", "/v1/pools/both", ""); a.Code != 204 {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	if a := h.keyed("l", "POST", "/v1/tenants/acme/domains", `{"domain":"x.customer.example","mode":"delegated","pool":"both"}`); a.Code != 422 {
		t.Fatalf("%d %s", a.Code, a.Body)
	}
	h.must(200, "PUT", "/v1/pools/both", `{}`)
	if a := h.keyed("l", "POST", "/v1/tenants/acme/domains", `{"domain":"x.customer.example","mode":"delegated","pool":"both"}`); a.Code != 201 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

// A secret is in one reply alone: a repetition does not pretend to have it.
func TestRepeatedTokenIsNamedNotShown(t *testing.T) {
	h := newHouse(t)
	first := read[MadeToken](h, h.keyed("k", "POST", "/v1/tokens", `{"scope":"read"}`))
	again := h.keyed("k", "POST", "/v1/tokens", `{"scope":"read"}`)
	if again.Code != 409 || !strings.Contains(again.problem.Detail, first.Access.ID) {
		t.Errorf("%d %s", again.Code, again.Body)
	}
	if n := strings.Count(h.must(200, "GET", "/v1/tokens", "").Body.String(), `"read"`); n != 2 {
		t.Errorf("%d tokens with scope read", n)
	}
}

func TestKeyOfAReadIsNobodysBusiness(t *testing.T) {
	h := newHouse(t)
	if a := h.keyed("k", "GET", "/v1/tenants", ""); a.Code != http.StatusOK {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := h.keyed("k", "POST", "/v1/cluster/leader", `{}`); a.Code != http.StatusNotImplemented {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := h.keyed("k", "POST", "/v1/tenants", strings.Repeat(" ", MaxBody+1)); a.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}
