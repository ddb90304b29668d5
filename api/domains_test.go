package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"authd/cluster/state"
	"authd/zone"
)

func TestAddedDomainSaysWhatTheCustomerMustAdd(t *testing.T) {
	h := newHouse(t)
	a := h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains?wait=served&reason=signup",
		`{"domain":"Send.Customer.Example.","mode":"delegated","pool":"default","labels":{"plan":"gold"},"signs_for":["customer.example"]}`)
	d := read[Domain](h, a)
	if a.Header().Get("Location") != "/v1/domains/"+d.Token || a.Header().Get("ETag") != fmt.Sprintf(`"%d"`, d.Serial) {
		t.Errorf("Location %q, ETag %q", a.Header().Get("Location"), a.Header().Get("ETag"))
	}
	if d.Domain != "send.customer.example" || d.Tenant != "acme" || d.Mode != "delegated" || d.Pool != "default" ||
		d.State != "pending" || d.Labels["plan"] != "gold" || len(d.SignsFor) != 1 || d.GoneAt == nil || d.UsableForSigning {
		t.Errorf("%+v", d)
	}
	want := []Record{
		{"send.customer.example", "NS", d.Token + ".ns1.p-dns.test.", 86400, "send", "waiting"},
		{"send.customer.example", "NS", d.Token + ".ns2.p-dns.test.", 86400, "send", "waiting"},
	}
	if len(d.Records) != 2 || d.Records[0] != want[0] || d.Records[1] != want[1] {
		t.Errorf("records %+v", d.Records)
	}
	if len(d.Keys) != 2 || d.Keys[0].Stage != "active" || d.Keys[1].Stage != "standby" || !strings.HasPrefix(d.Keys[0].Public, "v=DKIM1; k=rsa; p=") {
		t.Errorf("keys %+v", d.Keys)
	}
	if n := len(h.waited); n != 1 || a.Header().Get("X-Authd-Index") != fmt.Sprint(h.waited[0]) {
		t.Errorf("waited for %v, index %s", h.waited, a.Header().Get("X-Authd-Index"))
	}
	who := h.actors[len(h.actors)-1]
	if who.ID == "" || who.Source != "192.0.2.1" || who.Reason != "signup" {
		t.Errorf("the actor is %+v", who)
	}
}

func TestCNAMEDomainListsItsFiveRecords(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "customer.example", "cname")
	var names []string
	for _, r := range d.Records {
		if r.Type != "CNAME" || r.Status != "unchecked" || !strings.Contains(r.Value, d.Token) {
			t.Errorf("%+v", r)
		}
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "k1._domainkey.customer.example k2._domainkey.customer.example k3._domainkey.customer.example bounce.customer.example click.customer.example" {
		t.Error(got)
	}
	if d.State != "live" || !d.UsableForSigning || d.Keys[0].Slot != "k1" || d.Keys[0].Selector != "k1" {
		t.Errorf("%+v", d)
	}
}

func TestOverrideAndBoundNamesForAnAdmin(t *testing.T) {
	h := newHouse(t)
	h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", `{"domain":"customer.example","mode":"delegated","override":true}`)
	a := h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", `{"domain":"old.example","mode":"cname","targets":
		{"keys":["a1.live.p-dns.test","a2.live.p-dns.test","a3.live.p-dns.test"],"bounce":"b.live.p-dns.test","click":"c.live.p-dns.test"}}`)
	if d := read[Domain](h, a); d.Records[0].Value != "a1.live.p-dns.test." || d.Records[3].Value != "b.live.p-dns.test." {
		t.Errorf("%+v", d.Records)
	}
}

func TestListIsPagedAndFiltered(t *testing.T) {
	h := newHouse(t)
	for i := range 7 {
		h.claim("acme", fmt.Sprintf("s%d.customer.example", i), "cname")
	}
	h.claim("globex", "send.customer2.example", "delegated")
	seen := map[string]bool{}
	path, pages := "/v1/domains?limit=3&tenant=acme", 0
	for cursor := ""; ; pages++ {
		list := read[DomainList](h, h.must(http.StatusOK, "GET", path+"&cursor="+cursor, ""))
		for _, d := range list.Items {
			if seen[d.Token] || d.Tenant != "acme" {
				t.Errorf("%s of %s: twice, or another tenant's", d.Token, d.Tenant)
			}
			seen[d.Token] = true
		}
		if cursor = list.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 7 || pages != 2 {
		t.Errorf("%d domains on %d pages", len(seen), pages+1)
	}
	for query, want := range map[string]int{"state=pending": 1, "state=live": 7, "state=leaving": 0, "pool=default": 8, "pool=both": 0} {
		if list := read[DomainList](h, h.must(http.StatusOK, "GET", "/v1/domains?"+query, "")); len(list.Items) != want {
			t.Errorf("%s: %d, not %d", query, len(list.Items), want)
		}
	}
}

func TestEveryListIsPaged(t *testing.T) {
	h := newHouse(t)
	for _, path := range []string{"/v1/tenants", "/v1/pools", "/v1/nameservers", "/v1/tokens"} {
		type list struct {
			Items []any  `json:"items"`
			Next  string `json:"next"`
		}
		all := read[list](h, h.must(http.StatusOK, "GET", path+"?limit=500&cursor=", ""))
		walked, cursor := 0, ""
		for {
			page := read[list](h, h.must(http.StatusOK, "GET", path+"?limit=1&cursor="+cursor, ""))
			if walked += len(page.Items); len(page.Items) > 1 {
				t.Errorf("%s: %d on a page of one", path, len(page.Items))
			}
			if cursor = page.Next; cursor == "" {
				break
			}
		}
		if walked != len(all.Items) || walked < 2 || all.Next != "" {
			t.Errorf("%s: %d one by one, %d at once", path, walked, len(all.Items))
		}
	}
}

// patch sends a PATCH with an If-Match.
func (h *house) patch(token, match, body string) answered {
	h.Helper()
	r := httptest.NewRequest("PATCH", "/v1/domains/"+token, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
	if match != "" {
		r.Header.Set("If-Match", match)
	}
	return h.send(r)
}

func TestPatchHonoursIfMatch(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "delegated")
	seen := etag(d.Serial)
	first := h.patch(d.Token, seen, `{"labels":{"a":"1"},"pool":"both","dmarc":"v=DMARC1; p=none","signs_for":["customer.example"]}`)
	if first.Code != http.StatusOK {
		t.Fatalf("%d %s", first.Code, first.Body)
	}
	now := read[Domain](h, first)
	if now.Pool != "both" || now.Labels["a"] != "1" || now.DMARC == "" || len(now.SignsFor) != 1 || first.Header().Get("ETag") == seen {
		t.Errorf("%+v, ETag %s", now, first.Header().Get("ETag"))
	}
	for _, match := range []string{seen, `W/` + first.Header().Get("ETag"), `"0` + first.Header().Get("ETag")[1:], `"x"`, "7", `"07"`} {
		if a := h.patch(d.Token, match, `{"labels":{"a":"2"}}`); a.Code != http.StatusPreconditionFailed || a.problem.Code != "stale" {
			t.Errorf("If-Match %s: %d %s", match, a.Code, a.Body)
		}
	}
	if a := h.patch(d.Token, first.Header().Get("ETag"), `{"labels":{}}`); a.Code != http.StatusOK || len(read[Domain](h, a).Labels) != 0 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := h.patch(d.Token, "*", `{"signs_for":[]}`); a.Code != http.StatusOK || len(read[Domain](h, a).SignsFor) != 0 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if kept := read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token, "")); kept.DMARC == "" || kept.Pool != "both" {
		t.Errorf("what was left out changed: %+v", kept)
	}
}

func TestLeaveAndRestore(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	left := read[Domain](h, h.must(http.StatusOK, "DELETE", "/v1/domains/"+d.Token, ""))
	if left.State != "leaving" || left.GoneAt == nil || left.LeavingAt == nil || left.UsableForSigning {
		t.Errorf("%+v", left)
	}
	back := read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/restore", ""))
	if back.State != "live" || back.Token != d.Token || !back.UsableForSigning || back.GoneAt != nil {
		t.Errorf("%+v", back)
	}
}

// A domain whose keys were all revoked while it was leaving needs a fresh one.
func TestRestoreBringsAKeyWhereNoneIsLeft(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	left := read[Domain](h, h.must(http.StatusOK, "DELETE", "/v1/domains/"+d.Token, ""))
	for _, k := range left.Keys {
		h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/keys/"+k.Selector+"/revoke", `{"reason":"leaked"}`)
	}
	back := read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/restore", ""))
	if !back.UsableForSigning {
		t.Errorf("%+v", back.Keys)
	}
}

func TestDomainEndedNowIsGoneForEver(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	a := h.must(http.StatusNoContent, "DELETE", "/v1/domains/"+d.Token+"?now=true&reason=fraud", "")
	if a.Body.Len() != 0 {
		t.Errorf("a body: %s", a.Body)
	}
	h.must(http.StatusNotFound, "GET", "/v1/domains/"+d.Token, "")
	h.must(http.StatusNotFound, "POST", "/v1/domains/"+d.Token+"/restore", "")
}

func TestVerifyCommitsWhatTheParentSays(t *testing.T) {
	h := newHouse(t)
	mine := h.claim("acme", "send.customer.example", "delegated")
	rival := h.claim("globex", "send.customer.example", "delegated")
	server := func(token string) zone.Name { return mustName(token + ".ns1.p-dns.test") }
	verify := func(token string) (Verification, []byte) {
		before := h.image()
		v := read[Verification](h, h.must(http.StatusOK, "POST", "/v1/domains/"+token+"/verify", ""))
		return v, before
	}
	for name, ns := range map[string][]zone.Name{
		"nothing":                       nil,
		"somebody's name servers":       {mustName("ns1.customer.example")},
		"another claim":                 {server(rival.Token)},
		"both claims":                   {server(mine.Token), server(rival.Token)},
		"the token in a foreign zone":   {mustName(mine.Token + ".ns1.evil.example")},
		"a token that nobody ever drew": {server(strings.Repeat("a", 26))},
	} {
		h.parent.ns = ns
		v, before := verify(mine.Token)
		if v.Proven || v.Domain.State != "pending" || v.Detail == "" || len(v.NS) != len(ns) || v.Parent != "customer.example." || len(v.Servers) != 1 {
			t.Errorf("%s: %+v", name, v)
		}
		if string(before) != string(h.image()) {
			t.Errorf("%s: something changed", name)
		}
	}
	h.parent.ns = []zone.Name{server(mine.Token), mustName("other.example")}
	v, _ := verify(mine.Token)
	if !v.Proven || v.Domain.State != "live" || v.Domain.Proven != "parent" || v.Domain.Records[0].Status != "found" || len(v.Seen) != 1 || v.Seen[0] != mine.Token {
		t.Errorf("%+v", v)
	}
	// The customer moved: the parent carries another claim's token and no longer ours.
	h.parent.ns = []zone.Name{server(rival.Token)}
	if v, _ := verify(rival.Token); !v.Proven || v.Domain.Tenant != "globex" {
		t.Errorf("%+v", v)
	}
}

func TestVerifyThatCouldNotAskChangesNothing(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "delegated")
	before := h.image()
	h.parent.err = errors.New("asking for the parent of send.customer.example: no resolver answered")
	a := h.ask("POST", "/v1/domains/"+d.Token+"/verify", "")
	if a.Code != http.StatusBadGateway || a.problem.Code != "could_not_ask" || !strings.Contains(a.problem.Detail, "nothing was changed") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if string(before) != string(h.image()) {
		t.Error("something changed")
	}
	c := h.claim("acme", "customer.example", "cname")
	if a := h.ask("POST", "/v1/domains/"+c.Token+"/verify", ""); a.Code != http.StatusBadGateway || a.problem.Code != "could_not_ask" {
		t.Errorf("CNAME mode: %d %s", a.Code, a.Body)
	}
}

func TestAttestKeepsWhoAndWhy(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	if d.Proven != "attested" || !strings.Contains(d.AttestedBy, "seen at the registrar") || d.ProvenAt == nil {
		t.Errorf("%+v", d)
	}
}

func TestExtraRecordsComeAndGo(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	base := "/v1/domains/send.customer.example/records"
	h.must(http.StatusOK, "PUT", base+"/default._bimi/TXT", `{"ttl":300,"values":["v=BIMI1; l=https://customer.example/logo.svg"]}`)
	h.must(http.StatusOK, "PUT", base+"/@/CAA", `{"ttl":300,"values":["0 issue \"ca.example\""]}`)
	h.must(http.StatusOK, "PUT", base+"/absolute.send.customer.example./A", `{"ttl":300,"values":["192.0.2.2","192.0.2.1"]}`)
	h.must(http.StatusOK, "PUT", base+"/sub/NS", `{"ttl":300,"values":["ns.example.test."]}`)
	got := map[string]RecordRR{}
	for _, r := range read[RecordList](h, h.must(http.StatusOK, "GET", base, "")).Items {
		got[r.Name+" "+r.Type] = r
	}
	if len(got) != 4 || got["@ CAA"].TTL != 300 || len(got["absolute A"].Values) != 2 || got["default._bimi TXT"].Values[0] != `"v=BIMI1; l=https://customer.example/logo.svg"` {
		t.Errorf("%+v", got)
	}
	served := h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token+"/served", "")
	if !strings.Contains(served.Body.String(), "default._bimi.send.customer.example.") {
		t.Errorf("DNS does not answer it: %s", served.Body)
	}
	if a := h.as("tenant:acme", "DELETE", base+"/sub/NS", ""); a.Code != http.StatusForbidden {
		t.Errorf("a tenant takes away what an admin handed to others: %d %s", a.Code, a.Body)
	}
	h.must(http.StatusNoContent, "DELETE", base+"/sub/NS", "")
	h.must(http.StatusNotFound, "DELETE", base+"/sub/NS", "")
	if left := read[RecordList](h, h.must(http.StatusOK, "GET", base, "")).Items; len(left) != 3 {
		t.Errorf("%+v", left)
	}
}

func TestPlatformZone(t *testing.T) {
	h := newHouse(t)
	base := "/v1/zones/p-dns.test"
	h.must(http.StatusOK, "PUT", base+"/records/mx1/A", `{"ttl":3600,"values":["192.0.2.25"]}`)
	z := read[Zone](h, h.must(http.StatusOK, "GET", base, ""))
	if z.Contact != "host.master@p-dns.test" || len(z.Records) != 1 || z.Records[0].Name != "mx1" || len(z.NameServers) != 2 {
		t.Errorf("%+v", z)
	}
	again := read[Zone](h, h.must(http.StatusOK, "PUT", base, ""))
	if again.Contact != "hostmaster@p-dns.test" {
		t.Errorf("%+v", again)
	}
	if served := h.must(http.StatusOK, "GET", base+"/served", ""); !strings.Contains(served.Body.String(), `"name":"mx1.p-dns.test."`) {
		t.Errorf("%s", served.Body)
	}
	p := read[Parent](h, h.must(http.StatusOK, "GET", base+"/parent", ""))
	if len(p.NS) != 2 || p.NS[0].Name != "ns1.p-dns.test." || len(p.NS[0].Addresses) != 2 || len(p.Records) != 4 {
		t.Errorf("%+v", p)
	}
	h.must(http.StatusNoContent, "DELETE", base+"/records/mx1/A", "")
	h.must(http.StatusOK, "PUT", "/v1/zones/q-dns.test", `{"contact":"hostmaster.q-dns.test"}`)
	h.must(http.StatusNoContent, "DELETE", "/v1/zones/q-dns.test", "")
	h.must(http.StatusNotFound, "GET", "/v1/zones/q-dns.test", "")
	h.must(http.StatusOK, "PUT", "/v1/nameservers/ns3", `{"addresses":["203.0.113.53"]}`)
	h.must(http.StatusNoContent, "DELETE", "/v1/nameservers/ns3", "")
}

// What GET says of a pool can be PUT again and changes nothing.
func TestPoolRoundTrip(t *testing.T) {
	h := newHouse(t)
	h.must(http.StatusOK, "PUT", "/v1/pools/edge", `{"spf":["ip6:2001:db8::/32"],"click":{"cname":"edge.example.test"},"dmarc":"v=DMARC1; p=none","labels":{"a":"b"},
		"dkim":{"algorithms":["ed25519"],"period":"1440h","soak":"90m","drain":"241h"}}`)
	shown := read[map[string]any](h, h.must(http.StatusOK, "GET", "/v1/pools/edge", ""))
	if dkim := shown["dkim"].(map[string]any); dkim["period"] != "1440h" || dkim["soak"] != "1h30m" || dkim["drain"] != "241h" {
		t.Errorf("%v", dkim)
	}
	serial := shown["serial"]
	delete(shown, "serial")
	delete(shown, "id")
	again := read[map[string]any](h, h.must(http.StatusOK, "PUT", "/v1/pools/edge", jsonText(t, shown)))
	if again["serial"] != serial {
		t.Errorf("serial went from %v to %v", serial, again["serial"])
	}
	h.must(http.StatusNoContent, "DELETE", "/v1/pools/edge", "")
}

func TestSuspendedTenant(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	before := h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token+"/served", "").Body.String()
	if s := read[Tenant](h, h.must(http.StatusOK, "POST", "/v1/tenants/acme/suspend", "")); !s.Suspended {
		t.Errorf("%+v", s)
	}
	if now := read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token, "")); now.UsableForSigning {
		t.Errorf("%+v", now)
	}
	if after := h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token+"/served", "").Body.String(); after != before {
		t.Error("DNS changed")
	}
	if s := read[Tenant](h, h.must(http.StatusOK, "POST", "/v1/tenants/acme/resume", "")); s.Suspended {
		t.Errorf("%+v", s)
	}
	h.must(http.StatusNotFound, "POST", "/v1/tenants/nobody/suspend", "")
}

func TestOwnerReadsAndShowsNames(t *testing.T) {
	apex := mustName("send.customer.example")
	for text, want := range map[string]string{
		"@": "send.customer.example.", "a": "a.send.customer.example.", "a.b": "a.b.send.customer.example.",
		"*.a": "*.a.send.customer.example.", "x.send.customer.example.": "x.send.customer.example.",
	} {
		n, err := owner("name", text, apex)
		if err != nil || n.String() != want {
			t.Errorf("%s: %s, %v", text, n, err)
			continue
		}
		if again, err := owner("name", relative(n, apex), apex); err != nil || again != n {
			t.Errorf("%s comes back as %s, %v", text, again, err)
		}
	}
}

// TestWriteToAClaimThatIsRemovedBeforeItsReply is not told that it never happened:
// it was committed, and so was the removal.
func TestWriteToAClaimThatIsRemovedBeforeItsReply(t *testing.T) {
	h := newHouse(t)
	h.since = func(t state.Token) state.Command { return state.LeaveDomain{Token: t, Now: true} }
	a := h.ask("POST", "/v1/tenants/acme/domains", `{"domain":"a.customer.example","mode":"delegated"}`)
	if a.Code != http.StatusGone || a.problem.Code != codeGone || !strings.Contains(a.problem.Detail, "was carried out") {
		t.Errorf("added: %d %s", a.Code, a.Body)
	}
	d := h.live("acme", "b.customer.example")
	h.since = func(t state.Token) state.Command { return state.LeaveDomain{Token: t, Now: true} }
	if a := h.ask("PATCH", "/v1/domains/"+d.Token, `{"labels":{"plan":"gold"}}`); a.Code != http.StatusGone || !strings.Contains(a.problem.Detail, d.Token) {
		t.Errorf("changed: %d %s", a.Code, a.Body)
	}
	if a := h.ask("GET", "/v1/domains/"+d.Token, ""); a.Code != http.StatusNotFound {
		t.Errorf("read: %d %s", a.Code, a.Body)
	}
}
