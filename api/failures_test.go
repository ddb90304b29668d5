package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"authd/cluster"
)

// A write that certainly did not happen and one that may have are told apart.
func TestWritesThatWereNotConfirmed(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		lost  bool // it happened all the same
		code  string
		again bool // the reply says that it may be sent again blindly
	}{
		"no leader":             {fmt.Errorf("proposing: %w", cluster.ErrNoLeader), false, "no_leader", true},
		"not committed":         {cluster.ErrNotCommitted, false, "not_committed", true},
		"stopped":               {fmt.Errorf("%w: disk", cluster.ErrStopped), false, "writes_stopped", true},
		"unknown, not happened": {cluster.ErrUnknown, false, "outcome_unknown", false},
		"unknown, happened":     {cluster.ErrUnknown, true, "outcome_unknown", false},
		"time ran out":          {context.DeadlineExceeded, false, "outcome_unknown", false},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.refuse, h.lost = c.err, c.lost
			before := h.image()
			a := h.ask("POST", "/v1/tenants", `{"id":"initech"}`)
			if a.Code != http.StatusServiceUnavailable || a.problem.Code != c.code || (a.Header().Get("Retry-After") != "") != c.again {
				t.Errorf("%d %s %v", a.Code, a.Body, a.Header())
			}
			if changed := string(before) != string(h.image()); changed != c.lost {
				t.Errorf("changed: %v", changed)
			}
			h.refuse = nil
			h.must(http.StatusCreated, "POST", "/v1/tenants", `{"id":"initech"}`) // once more is right either way
		})
	}
}

func TestTooManyWritesAreToldWhenToTryAgain(t *testing.T) {
	h := newHouse(t)
	h.refuse = fmt.Errorf("%w: 4096 writes wait already", cluster.ErrBusy)
	a := h.ask("POST", "/v1/tenants", `{"id":"initech"}`)
	if a.Code != http.StatusTooManyRequests || a.problem.Code != "too_many" || a.Header().Get("Retry-After") != "1" || !strings.Contains(a.problem.Detail, "nothing was changed") {
		t.Errorf("%d %s %v", a.Code, a.Body, a.Header())
	}
}

func TestChangeThatIsNotServedEverywhereIsToldAsCommitted(t *testing.T) {
	h := newHouse(t)
	h.behind = errors.New("waiting for node-3")
	a := h.ask("POST", "/v1/tenants?wait=served", `{"id":"initech"}`)
	if a.Code != http.StatusGatewayTimeout || a.problem.Code != "not_served_yet" || !strings.Contains(a.problem.Detail, "node-3") || !strings.Contains(a.problem.Detail, "is committed at index "+a.Header().Get("X-Authd-Index")) {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	h.must(http.StatusOK, "GET", "/v1/tenants/initech", "")
}

// A fault of ours says nothing about itself to the caller, and all to the log.
func TestDefectIsLoggedAndNotTold(t *testing.T) {
	h := newHouse(t)
	h.handler.config.Random = strings.NewReader("")
	a := h.ask("POST", "/v1/tokens", `{"scope":"read"}`)
	if a.Code != http.StatusInternalServerError || a.problem.Code != "internal" || strings.Contains(a.Body.String(), "EOF") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if !strings.Contains(h.log.String(), "drawing an access token") {
		t.Errorf("the log: %s", h.log)
	}
}

func TestPanicIsAProblemAndTheServerGoesOn(t *testing.T) {
	h := newHouse(t)
	h.handler.prober = nil
	h.replica.keeper = nil // the next claim panics
	a := h.ask("POST", "/v1/tenants/acme/domains", `{"domain":"send.customer.example","mode":"delegated"}`)
	if a.Code != http.StatusInternalServerError || a.problem.Code != "internal" || !strings.Contains(h.log.String(), "stack") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	h.must(http.StatusOK, "GET", "/v1/cluster", "")
}

// TestWaitAsksForWhatAWriteChanged, and for nothing where nobody waits.
func TestWaitAsksForWhatAWriteChanged(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	shown := func() (all []string) {
		for _, q := range h.shown {
			all = append(all, q.String())
		}
		h.shown = nil
		return all
	}
	want := func(what string, names ...string) {
		t.Helper()
		got := shown()
		for _, name := range names {
			if !slices.Contains(got, name) {
				t.Errorf("%s: asked for %q, not for %s", what, got, name)
			}
		}
		if len(names) == 0 && len(got) > 0 {
			t.Errorf("%s: asked for %q", what, got)
		}
	}
	const www = "/v1/domains/send.customer.example/records/www/A"
	h.must(http.StatusOK, "PUT", www, `{"ttl":300,"values":["192.0.2.1"]}`)
	want("nobody waits")
	h.must(http.StatusOK, "PUT", www+"?wait=served", `{"ttl":300,"values":["192.0.2.2"]}`)
	want("a record", "A of www.send.customer.example.")
	h.must(http.StatusNoContent, "DELETE", www+"?wait=served", "")
	want("its removal", "A of www.send.customer.example.")
	h.must(http.StatusCreated, "POST", "/v1/tenants?wait=served", `{"id":"initech"}`)
	want("a tenant")
	h.must(http.StatusOK, "PATCH", "/v1/domains/"+d.Token+"?wait=served", `{"dmarc":"v=DMARC1; p=none"}`)
	want("a policy", "TXT of _dmarc.send.customer.example.")
	h.must(http.StatusOK, "PUT", "/v1/nameservers/ns1?wait=served", `{"addresses":["192.0.2.99"]}`)
	want("a name server", "A of ns1.p-dns.test.")
	h.must(http.StatusOK, "PUT", "/v1/pools/default?wait=served", `{"spf":["ip4:198.51.100.0/24"]}`)
	want("a pool, by a domain", "TXT of send.customer.example.")
	h.must(http.StatusNoContent, "DELETE", "/v1/domains/"+d.Token+"?now=true&reason=test&wait=served", "")
	want("the end of a domain", "NS of send.customer.example.", "A of "+d.Token+".ns1.p-dns.test.")
}
