package api

import (
	"net/http"
	"strings"
	"testing"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
)

// publish does what the rotator does when a domain lacks a standby.
func (h *house) publish(token string) {
	h.Helper()
	t, err := state.ParseToken(token)
	if err != nil {
		h.Fatal(err)
	}
	all, err := h.Materials(h.Context(), t, []keys.Algorithm{keys.RSA2048})
	if err != nil {
		h.Fatal(err)
	}
	step := keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}
	results, _, err := h.Propose(h.Context(), cluster.Actor{ID: "rotator"}, state.StepKey{Token: t, Step: step, Material: &all[0]})
	if err != nil || results[0].Refusal != nil {
		h.Fatal(err, results)
	}
}

func (h *house) emergency(token, body string) Rotated {
	h.Helper()
	r := read[Rotated](h, h.must(http.StatusOK, "POST", "/v1/domains/"+token+"/rotate", body))
	if r.Emergency == nil || r.Token != token {
		h.Fatalf("no emergency in the reply: %+v", r)
	}
	return r
}

func TestEmergencyWithAReadyStandbyIsDoneAtOnce(t *testing.T) {
	for _, mode := range []string{"delegated", "cname"} {
		t.Run(mode, func(t *testing.T) {
			h := newHouse(t)
			d := h.claim("acme", "send.customer.example", mode)
			old, next := stages(d)["active"][0], stages(d)["standby"][0]
			h.confirm(d.Token)
			body := `{"emergency":true,"old":"revoke","from":"` + old + `","reason":"leaked"}`
			r := h.emergency(d.Token, body)
			e, by := r.Emergency, stages(r.Domain)
			if by["active"][0] != next || by["revoked"][0] != old {
				t.Fatalf("%v", by)
			}
			if e.WaitsFor != "" || e.ReadyAt != nil || e.Active[0] != next || e.Old[0] != old || e.OldBecomes != "revoke" {
				t.Errorf("%+v", e)
			}
			if e.ExposureEndsAt == nil || e.ExposureEndsAt.Unix() != h.at+keys.TTLLong || !strings.Contains(e.MailAtRisk, "mail signed with "+old) {
				t.Errorf("exposed until %v; %s", e.ExposureEndsAt, e.MailAtRisk)
			}
			before := h.image()
			if again := h.emergency(d.Token, body); again.Emergency.Active[0] != next || string(before) != string(h.image()) {
				t.Errorf("the second time: %+v", again.Emergency)
			}
		})
	}
}

func TestEmergencyBeforeTheStandbyIsReadySaysWhen(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	first, second := stages(d)["active"][0], stages(d)["standby"][0]
	e := h.emergency(d.Token, `{"emergency":true,"old":"revoke","reason":"leaked"}`).Emergency
	if e.Active[0] != first || e.Old[0] != first || e.ReadyAt != nil || e.ExposureEndsAt != nil ||
		!strings.Contains(e.WaitsFor, "confirm") || !strings.Contains(e.MailAtRisk, "none until the switch") {
		t.Fatalf("%+v", e)
	}
	h.confirm(d.Token)
	// Its name was never answered before, so it is ready with its confirmation.
	if e = h.emergency(d.Token, `{"emergency":true,"from":"`+first+`","reason":"leaked"}`).Emergency; e.Active[0] != second || e.WaitsFor != "" {
		t.Fatalf("%+v", e)
	}
	if e = h.emergency(d.Token, `{"emergency":true,"old":"revoke","reason":"leaked"}`).Emergency; !strings.Contains(e.WaitsFor, "published first") || e.ReadyAt != nil {
		t.Fatalf("without a standby: %+v", e)
	}
	h.publish(d.Token)
	h.confirm(d.Token)
	e = h.emergency(d.Token, `{"emergency":true,"old":"revoke","from":"`+second+`","reason":"leaked"}`).Emergency
	if e.ReadyAt == nil || e.ReadyAt.Unix() != h.at+keys.GapMinted || e.ExposureEndsAt == nil || e.ExposureEndsAt.Unix() != e.ReadyAt.Unix()+keys.TTLLong {
		t.Fatalf("with one that is confirmed: %+v", e)
	}
}

func TestEmergencyWithoutAFreeSlotRevokesTheOlderDrainingKeyAndSaysSo(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "customer.example", "cname")
	h.confirm(d.Token)
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", `{"from":"k1"}`)
	h.publish(d.Token)
	h.confirm(d.Token)
	h.at += 86400
	r := h.emergency(d.Token, `{"emergency":true,"old":"drain","from":"k2","reason":"leaked"}`)
	by := stages(r.Domain)
	if by["active"][0] != "k3" || by["draining"][0] != "k2" || by["revoked"][0] != "k1" {
		t.Fatalf("%v", by)
	}
	if e := r.Emergency; strings.Join(e.RevokedForSlot, " ") != "k1" || !strings.Contains(e.MailAtRisk, "k1") || e.OldBecomes != "drain" {
		t.Errorf("%+v", e)
	}
}

func TestEmergencyTurnsEveryAlgorithm(t *testing.T) {
	h := newHouse(t)
	a := h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", `{"domain":"customer.example","mode":"cname","pool":"both"}`)
	d := read[Domain](h, a)
	h.confirm(d.Token)
	e := h.emergency(d.Token, `{"emergency":true,"reason":"leaked","old":"revoke"}`).Emergency
	if strings.Join(e.Active, " ") != "k2 ke2" || strings.Join(e.Old, " ") != "k1 ke1" {
		t.Errorf("%+v", e)
	}
}

func TestEmergencyRepeatedWithItsKeyIsToldOfTheSameKeys(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	old, next := stages(d)["active"][0], stages(d)["standby"][0]
	h.confirm(d.Token)
	for range 2 {
		r := newRequest("POST", "/v1/domains/"+d.Token+"/rotate", `{"emergency":true,"reason":"leaked","old":"revoke"}`)
		r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
		r.Header.Set(state.OnceField, "e-1")
		a := h.send(r)
		if a.Code != http.StatusOK {
			t.Fatalf("%d %s", a.Code, a.Body)
		}
		if e := read[Rotated](h, a).Emergency; e.WaitsFor != "" || e.Active[0] != next || len(e.Old) != 1 || e.Old[0] != old {
			t.Errorf("%+v", e)
		}
	}
}

func TestEmergencyOfASuspendedTenantIsCarriedOutAndOfALeavingDomainRefused(t *testing.T) {
	h := newHouse(t)
	d := h.claim("globex", "suspended.example", "cname")
	h.confirm(d.Token)
	h.must(http.StatusOK, "POST", "/v1/tenants/globex/suspend", "")
	if e := h.emergency(d.Token, `{"emergency":true,"reason":"leaked"}`).Emergency; e.Active[0] != "k2" && e.Active[0] != "t2-k2" {
		t.Errorf("%+v", e)
	}
	left := h.claim("acme", "left.example", "cname")
	h.must(http.StatusOK, "DELETE", "/v1/domains/"+left.Token, "")
	before := h.image()
	a := h.ask("POST", "/v1/domains/"+left.Token+"/rotate", `{"emergency":true,"reason":"leaked"}`)
	if a.Code != http.StatusConflict || a.problem.Field != "domain" || !strings.Contains(a.problem.Detail, "leaving") || string(before) != string(h.image()) {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	fresh := h.claim("acme", "fresh.example", "cname")
	a = h.ask("POST", "/v1/domains/"+fresh.Token+"/rotate", `{"emergency":true,"from":"k2","reason":"leaked"}`)
	if a.Code/100 != 4 || a.problem.Field != "from" || !strings.Contains(a.problem.Detail, "signed nothing") {
		t.Errorf("from a standby: %d %s", a.Code, a.Body)
	}
}
