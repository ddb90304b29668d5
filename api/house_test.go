package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"authd/cluster"
	"authd/cluster/state"
	"authd/zone"
)

// house is an API with its replica, platform zone, name servers, pools, two
// tenants and a token of each scope.
type house struct {
	*testing.T
	*replica
	handler *Handler
	parent  *parent
	log     *bytes.Buffer
	now     time.Time
	tokens  map[string]string // secret by scope
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{T: t, replica: newReplica(), parent: &parent{}, log: &bytes.Buffer{}, tokens: map[string]string{}}
	h.now = time.Unix(h.at, 0)
	var err error
	h.handler, err = New(Config{
		ConfirmWait: time.Millisecond,
		Replica:     h.replica, Prober: h.parent, Logger: slog.New(slog.NewTextHandler(h.log, nil)),
		NodeID: "node-1", Version: "test", Now: func() time.Time { return h.now },
		Census: new(zone.Census),
		DNSStats: func() zone.Stats {
			return zone.Stats{Queries: map[string]uint64{"udp/ipv4/TXT": 3}, Responses: map[string]uint64{"udp/NOERROR": 3}, Outcomes: map[string]uint64{"udp/Found": 3},
				Limited: map[string]uint64{"answer": 1}, Durations: map[string]zone.Durations{"udp": {
					Bounds: []time.Duration{2 * time.Microsecond, 4 * time.Microsecond}, Counts: []uint64{1, 1, 1}, Sum: 10 * time.Microsecond,
				}}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []string{"admin", "read", "signer"} {
		h.grant(state.AccessToken{Scope: state.Scope(scope)})
	}
	h.must(http.StatusOK, "PUT", "/v1/nameservers/ns1", `{"addresses":["192.0.2.53","2001:db8::53"]}`)
	h.must(http.StatusOK, "PUT", "/v1/nameservers/ns2", `{"addresses":["198.51.100.53"]}`)
	h.must(http.StatusOK, "PUT", "/v1/zones/p-dns.test", `{"contact":"host.master@p-dns.test"}`)
	h.must(http.StatusOK, "PUT", "/v1/pools/default", `{"spf":["ip4:192.0.2.0/24"],"spf_all":"~all","mx":[{"preference":10,"host":"mx1.p-dns.test."}],
		"click":{"a":["192.0.2.80"],"aaaa":["2001:db8::80"],"cname":""},"dmarc":"","dkim":{"algorithms":["rsa2048"],"period":"2160h"}}`)
	h.must(http.StatusOK, "PUT", "/v1/pools/both", `{"spf":["ip4:198.51.100.0/24"],"dkim":{"algorithms":["rsa2048","ed25519"]}}`)
	h.must(http.StatusCreated, "POST", "/v1/tenants", `{"id":"acme","name":"Acme"}`)
	h.must(http.StatusCreated, "POST", "/v1/tenants", `{"id":"globex","name":"Globex"}`)
	h.grant(state.AccessToken{Scope: "tenant:acme"})
	h.grant(state.AccessToken{Scope: "tenant:globex"})
	return h
}

// grant adds a token beside the API.
func (h *house) grant(access state.AccessToken) string {
	h.Helper()
	secret, err := MintSecret(rand.Reader, &access)
	if err != nil {
		h.Fatal(err)
	}
	results, _, err := h.Propose(context.Background(), cluster.Actor{ID: "test"}, state.AddAccessToken{Access: access})
	if err != nil || results[0].Refusal != nil {
		h.Fatal(err, results)
	}
	h.tokens[string(access.Scope)] = secret
	return secret
}

// answered is a reply with its body read.
type answered struct {
	*httptest.ResponseRecorder
	problem Problem // where it is one
}

// ask sends a request as admin.
func (h *house) ask(method, path, body string) answered {
	h.Helper()
	return h.as("admin", method, path, body)
}

// as sends a request with the token of a scope.
func (h *house) as(scope, method, path, body string) answered {
	h.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if scope != "" {
		r.Header.Set("Authorization", "Bearer "+h.tokens[scope])
	}
	return h.send(r)
}

func (h *house) send(r *http.Request) answered {
	h.Helper()
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	out := answered{ResponseRecorder: w}
	if w.Header().Get("X-Authd-Index") == "" {
		h.Errorf("%s %s: the reply has no X-Authd-Index", r.Method, r.URL)
	}
	if w.Code >= 400 && w.Header().Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(w.Body.Bytes(), &out.problem); err != nil {
			h.Errorf("%s %s: the problem is no JSON: %v", r.Method, r.URL, err)
		}
		if p := out.problem; p.Status != w.Code || p.Title == "" || p.Type == "" || p.Code == "" || p.Detail == "" {
			h.Errorf("%s %s: the problem is not complete: %s", r.Method, r.URL, w.Body)
		}
	}
	return out
}

// must sends a request as admin that has to come to a status.
func (h *house) must(status int, method, path, body string) answered {
	h.Helper()
	a := h.ask(method, path, body)
	if a.Code != status {
		h.Fatalf("%s %s: %d, not %d\n%s\n%s", method, path, a.Code, status, a.Body, h.log)
	}
	return a
}

// read decodes a reply into T.
func read[T any](h *house, a answered) (v T) {
	h.Helper()
	if err := json.Unmarshal(a.Body.Bytes(), &v); err != nil {
		h.Fatalf("%v in %s", err, a.Body)
	}
	return v
}

// image is the machine as bytes but for its index, which a refused command
// advances too: to see whether anything changed.
func (h *house) image() []byte {
	h.Helper()
	var b bytes.Buffer
	m, _, _ := h.Machine().Apply(0, nil)
	if err := m.WriteImage(&b); err != nil {
		h.Fatal(err)
	}
	return b.Bytes()
}

// claim adds a domain and gives it as the API shows it.
func (h *house) claim(tenant, domain, mode string) Domain {
	h.Helper()
	body := fmt.Sprintf(`{"domain":%q,"mode":%q,"pool":"default"}`, domain, mode)
	return read[Domain](h, h.must(http.StatusCreated, "POST", "/v1/tenants/"+tenant+"/domains", body))
}

// live adds a delegated domain that is proven.
func (h *house) live(tenant, domain string) Domain {
	h.Helper()
	d := h.claim(tenant, domain, "delegated")
	return read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/attest", `{"reason":"seen at the registrar"}`))
}

func mustName(text string) zone.Name {
	n, err := zone.ParseName(text)
	if err != nil {
		panic(err)
	}
	return n
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// newRequest is a request without a token.
func newRequest(method, path, body string) *http.Request {
	return httptest.NewRequest(method, path, strings.NewReader(body))
}

// contextWithoutTime is one whose time is over.
func contextWithoutTime() (context.Context, context.CancelFunc) {
	return context.WithDeadline(context.Background(), time.Unix(0, 0))
}

// within sends a request as admin with a context.
func (h *house) within(ctx context.Context, method, path, body string) answered {
	h.Helper()
	r := newRequest(method, path, body).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
	return h.send(r)
}
