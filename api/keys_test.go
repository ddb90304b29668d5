package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
	"authd/keys/keystest"
)

// confirm does what the rotator does once every node answers the standbys.
func (h *house) confirm(token string) {
	h.Helper()
	t, err := state.ParseToken(token)
	if err != nil {
		h.Fatal(err)
	}
	d, _ := h.Machine().Domain(t)
	var commands []state.Command
	for _, k := range d.Ring().Keys {
		if k.Stage == keys.Standby {
			commands = append(commands, state.StepKey{Token: t, Step: keys.Step{Kind: keys.StepConfirm, Algorithm: k.Algorithm, Key: k.ID}})
		}
	}
	results, _, err := h.Propose(h.Context(), cluster.Actor{ID: "rotator"}, commands...)
	if err != nil {
		h.Fatal(err)
	}
	for _, r := range results {
		if r.Refusal != nil {
			h.Fatal(r.Refusal)
		}
	}
}

// stages are the selectors of a domain by stage.
func stages(d Domain) map[string][]string {
	by := map[string][]string{}
	for _, k := range d.Keys {
		by[k.Stage] = append(by[k.Stage], k.Selector)
	}
	return by
}

func TestRotateIsIdempotentOnTheSelectorSeen(t *testing.T) {
	for _, mode := range []string{"delegated", "cname"} {
		t.Run(mode, func(t *testing.T) {
			h := newHouse(t)
			d := h.claim("acme", "send.customer.example", mode)
			old, next := stages(d)["active"][0], stages(d)["standby"][0]
			if a := h.ask("POST", "/v1/domains/"+d.Token+"/rotate", ""); a.Code != http.StatusConflict || a.problem.Code != "too_early" {
				t.Fatalf("a standby that nobody confirmed: %d %s", a.Code, a.Body)
			}
			h.confirm(d.Token)
			body := `{"from":"` + old + `","reason":"leaver","old":"drain","compromised":"key"}`
			got := stages(read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate?wait=served", body)))
			if got["active"][0] != next || got["draining"][0] != old {
				t.Errorf("%v", got)
			}
			if who := h.actors[len(h.actors)-1]; who.Reason != "leaver" {
				t.Errorf("%+v", who)
			}
			before := h.image()
			again := stages(read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", body)))
			if again["active"][0] != next || string(before) != string(h.image()) {
				t.Errorf("the second time: %v", again)
			}
			if a := h.ask("POST", "/v1/domains/"+d.Token+"/rotate", `{}`); a.Code != http.StatusConflict || a.problem.Code != "too_early" {
				t.Errorf("no standby: %d %s", a.Code, a.Body)
			}
		})
	}
}

func TestRotateWaitsForTheConfirmationOfAStandbyPublishedJustNow(t *testing.T) {
	h := newHouse(t)
	h.handler.config.ConfirmWait = time.Minute
	d := h.claim("acme", "send.customer.example", "delegated")
	next := stages(d)["standby"][0]
	h.arrives = func() { h.confirm(d.Token) }
	got := stages(read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", "")))
	if got["active"][0] != next {
		t.Errorf("%v", got)
	}
}

func TestRotateThatIsTooEarlySaysWhen(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	h.confirm(d.Token)
	rotated := read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", ""))
	token, _ := state.ParseToken(d.Token)
	all, err := h.Materials(t.Context(), token, []keys.Algorithm{keys.RSA2048})
	if err != nil {
		t.Fatal(err)
	}
	results, _, _ := h.Propose(t.Context(), cluster.Actor{ID: "rotator"},
		state.StepKey{Token: token, Step: keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}, Material: &all[0]})
	if results[0].Refusal != nil {
		t.Fatal(results[0].Refusal)
	}
	h.confirm(d.Token)
	a := h.ask("POST", "/v1/domains/"+d.Token+"/rotate", `{"from":"`+stages(rotated)["active"][0]+`"}`)
	if a.Code != http.StatusConflict || a.problem.Code != "too_early" || a.problem.ReadyAt == nil || a.problem.ReadyAt.Unix() <= h.at || a.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestRotateTurnsEveryAlgorithm(t *testing.T) {
	h := newHouse(t)
	a := h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", `{"domain":"customer.example","mode":"cname","pool":"both"}`)
	d := read[Domain](h, a)
	h.confirm(d.Token)
	got := stages(read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", "")))
	if strings.Join(got["active"], " ") != "k2 ke2" || strings.Join(got["draining"], " ") != "k1 ke1" {
		t.Errorf("%v", got)
	}
}

func TestRevoke(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	active := stages(d)["active"][0]
	path := "/v1/domains/" + d.Token + "/keys/" + active + "/revoke"
	if a := h.ask("POST", path, `{"reason":"leaked"}`); a.Code != http.StatusConflict || a.problem.Code != "too_early" {
		t.Errorf("the only key that can sign: %d %s", a.Code, a.Body)
	}
	got := stages(read[Domain](h, h.must(http.StatusOK, "POST", path, `{"reason":"leaked","force":true}`)))
	if got["revoked"][0] != active {
		t.Errorf("%v", got)
	}
	if served := h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token+"/served", ""); !strings.Contains(served.Body.String(), `p=\"`) {
		t.Errorf("no empty p=: %s", served.Body)
	}
	h.must(http.StatusOK, "POST", path, `{"reason":"leaked"}`) // again: nothing to do
}

func TestBroughtKeySigns(t *testing.T) {
	h := newHouse(t)
	pem := PrivateText(keystest.Pair(60).PKCS8())
	for domain, c := range map[string]struct{ mode, selector, want string }{
		"send.customer.example": {"delegated", "s2019", "s2019"}, "customer.example": {"cname", "", "k1"},
	} {
		body := jsonText(t, NewDomain{Domain: domain, Mode: c.mode, Pool: "default", Keys: []NewKey{{c.selector, pem}}})
		d := read[Domain](h, h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", body))
		if len(d.Keys) != 1 || d.Keys[0].Selector != c.want || !d.Keys[0].Imported {
			t.Errorf("%+v", d.Keys)
		}
	}
	doc := read[Secret](h, h.must(http.StatusOK, "GET", "/v1/dkim/customer.example", ""))
	if len(doc.Data.Selectors) != 1 || doc.Data.Key != pem {
		t.Errorf("%+v", doc)
	}
	for name, body := range map[string]string{
		"another tenant's": jsonText(t, NewDomain{Domain: "x.example", Mode: "cname", Keys: []NewKey{{"", pem}}}),
		"half of them":     jsonText(t, NewDomain{Domain: "x.example", Mode: "cname", Pool: "both", Keys: []NewKey{{"", pem}}}),
		"a wrong slot":     jsonText(t, NewDomain{Domain: "x.example", Mode: "cname", Keys: []NewKey{{"k2", pem}}}),
		"a bad selector":   jsonText(t, NewDomain{Domain: "x.example", Mode: "delegated", Keys: []NewKey{{"S 1", pem}}}),
		"two of a kind":    jsonText(t, NewDomain{Domain: "x.example", Mode: "cname", Keys: []NewKey{{"", pem}, {"", pem}}}),
	} {
		if a := h.ask("POST", "/v1/tenants/globex/domains", body); a.Code/100 != 4 || !strings.HasPrefix(a.problem.Field, "keys") {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
	}
}

func TestNoKeyInTimeIsNoChange(t *testing.T) {
	h := newHouse(t)
	h.starved = true
	before := h.image()
	ctx, cancel := contextWithoutTime()
	defer cancel()
	a := h.within(ctx, "POST", "/v1/tenants/acme/domains", `{"domain":"send.customer.example","mode":"delegated"}`)
	if a.Code != http.StatusServiceUnavailable || a.problem.Code != "no_keys" || a.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if string(before) != string(h.image()) {
		t.Error("something changed")
	}
}

// The members that clients of Vault insist on, with the right types.
func TestSigningDocumentHasTheShapeOfVault(t *testing.T) {
	h := newHouse(t)
	a := h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", `{"domain":"customer.example","mode":"cname","pool":"both","signs_for":["news.customer.example"]}`)
	d := read[Domain](h, a)
	for _, asked := range []string{"customer.example", "CUSTOMER.example.", "news.customer.example"} {
		reply := h.must(http.StatusOK, "GET", "/v1/dkim/"+asked, "")
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(reply.Body.Bytes(), &raw); err != nil {
			t.Fatal(err)
		}
		for member, want := range map[string]string{"lease_id": `""`, "renewable": "false", "lease_duration": "0", "wrap_info": "null", "warnings": "null", "auth": "null"} {
			if string(raw[member]) != want {
				t.Errorf("%s: %s is %s", asked, member, raw[member])
			}
		}
		doc := read[Secret](h, reply)
		if len(doc.RequestID) != 36 || len(doc.Data.Selectors) != 2 || doc.Data.Domain != "customer.example" {
			t.Fatalf("%+v", doc)
		}
		rsa, ed := doc.Data.Selectors[0], doc.Data.Selectors[1]
		if rsa.Selector != "k1" || rsa.Algorithm != "rsa" || rsa.Bits != 2048 || !strings.HasPrefix(string(rsa.Key), "-----BEGIN PRIVATE KEY-----") || rsa.Domain != "customer.example" {
			t.Errorf("%+v", rsa)
		}
		if ed.Selector != "ke1" || ed.Algorithm != "ed25519" || len(ed.Key) != 44 || strings.Contains(string(ed.Key), "BEGIN") {
			t.Errorf("%+v", ed)
		}
		if doc.Data.Selector != "k1" || doc.Data.Key != rsa.Key {
			t.Errorf("the first key is not at the top: %+v", doc.Data)
		}
		pair, err := keys.ParsePEM([]byte(rsa.Key))
		if err != nil || pair.Payload() != d.Keys[0].Public || !strings.HasSuffix(pair.Payload(), rsa.PublicKey) {
			t.Errorf("the key is not the one in DNS: %v", err)
		}
	}
}

func TestDomainThatDoesNotSignHasNoSelectors(t *testing.T) {
	h := newHouse(t)
	empty := func(domain string) {
		t.Helper()
		doc := read[Secret](h, h.must(http.StatusOK, "GET", "/v1/dkim/"+domain, ""))
		if doc.Data.Selectors == nil || len(doc.Data.Selectors) != 0 || doc.Data.Key != "" {
			t.Errorf("%s: %+v", domain, doc.Data)
		}
	}
	h.claim("acme", "pending.customer.example", "delegated")
	empty("pending.customer.example")
	left := h.claim("acme", "left.example", "cname")
	h.must(http.StatusOK, "DELETE", "/v1/domains/"+left.Token, "")
	empty("left.example")
	h.claim("globex", "suspended.example", "cname")
	h.must(http.StatusOK, "POST", "/v1/tenants/globex/suspend", "")
	empty("suspended.example")
}

func TestUnknownDomainIsVaultsNothing(t *testing.T) {
	h := newHouse(t)
	for _, domain := range []string{"nobody.example", "not_a_name", "a..b", "*.example", strings.Repeat("a.", 200)} {
		a := h.as("signer", "GET", "/v1/dkim/"+domain, "")
		if a.Code != http.StatusNotFound || strings.TrimSpace(a.Body.String()) != `{"errors":[]}` || a.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", domain, a.Code, a.Body)
		}
	}
}

func TestVaultTokenHeaderIsTaken(t *testing.T) {
	h := newHouse(t)
	h.claim("acme", "customer.example", "cname")
	r := newRequest("GET", "/v1/dkim//customer.example", "")
	r.Header.Set("X-Vault-Token", h.tokens["signer"])
	if a := h.send(r); a.Code != http.StatusOK {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

// Two tenants' claims to one name: each sees and signs with its own.
func TestTenantGetsItsOwnKeys(t *testing.T) {
	h := newHouse(t)
	h.claim("acme", "customer.example", "cname")
	h.claim("globex", "customer.example", "cname")
	a := read[Secret](h, h.as("tenant:acme", "GET", "/v1/dkim/customer.example", ""))
	b := read[Secret](h, h.as("tenant:globex", "GET", "/v1/dkim/customer.example", ""))
	if len(a.Data.Selectors) != 1 || len(b.Data.Selectors) != 1 || a.Data.Key == b.Data.Key || b.Data.Selector != "t2-k1" {
		t.Errorf("%+v\n%+v", a.Data.Selector, b.Data.Selector)
	}
	if own := read[Secret](h, h.as("signer", "GET", "/v1/dkim/customer.example", "")); own.Data.Key != a.Data.Key {
		t.Error("a signer does not get the oldest claim's key")
	}
}

func TestKeyThatDoesNotOpenIsToldAndLogged(t *testing.T) {
	h := newHouse(t)
	h.claim("acme", "customer.example", "cname")
	h.closed = true
	a := h.ask("GET", "/v1/dkim/customer.example", "")
	if a.Code != http.StatusInternalServerError || !strings.Contains(h.log.String(), "opening a signing key") {
		t.Errorf("%d %s\n%s", a.Code, a.Body, h.log)
	}
}
