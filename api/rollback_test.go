package api

import (
	"net/http"
	"strings"
	"testing"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
)

func TestRollbackWithinItsWindow(t *testing.T) {
	for _, mode := range []string{"delegated", "cname"} {
		t.Run(mode, func(t *testing.T) {
			h := newHouse(t)
			d := h.claim("acme", "send.customer.example", mode)
			old, next := stages(d)["active"][0], stages(d)["standby"][0]
			h.confirm(d.Token)
			h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", `{"from":"`+old+`"}`)
			body := `{"from":"` + next + `","reason":"signers were not ready"}`
			got := stages(read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rollback", body)))
			if got["active"][0] != old || got["draining"][0] != next {
				t.Fatalf("%v", got)
			}
			before := h.image()
			h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rollback", body)
			if string(before) != string(h.image()) {
				t.Error("the second time changed something")
			}
			if a := h.ask("POST", "/v1/domains/"+d.Token+"/rollback", ""); a.Code != http.StatusConflict || !strings.Contains(a.problem.Detail, "nothing to go back to") {
				t.Errorf("back and forth: %d %s", a.Code, a.Body)
			}
		})
	}
}

// TestStoreLeakedBurnsTheStandbyAndSaysWhenTheNextKeySigns also in slots, where
// a name has to leave caches first.
func TestStoreLeakedBurnsTheStandbyAndSaysWhenTheNextKeySigns(t *testing.T) {
	for mode, wait := range map[string]int64{"delegated": keys.GapMinted, "cname": keys.TTLShort + keys.TTLStretch} {
		t.Run(mode, func(t *testing.T) {
			h := newHouse(t)
			d := h.claim("acme", "send.customer.example", mode)
			old, standby := stages(d)["active"][0], stages(d)["standby"][0]
			h.confirm(d.Token)
			body := `{"emergency":true,"compromised":"store","old":"revoke","from":"` + old + `","reason":"a backup was public"}`
			r := h.emergency(d.Token, body)
			e, by := r.Emergency, stages(r.Domain)
			if by["active"][0] != old || by["revoked"][0] != standby || strings.Join(e.Burned, " ") != standby {
				t.Fatalf("%v, %+v", by, e)
			}
			if e.ReadyAt != nil || e.ExpectedAt == nil || e.ExpectedAt.Unix() != h.at+wait || e.ExposureEndsAt != nil {
				t.Errorf("ready at %v, expected at %v", e.ReadyAt, e.ExpectedAt)
			}
			h.publish(d.Token)
			h.confirm(d.Token)
			e = h.emergency(d.Token, body).Emergency
			if len(e.Burned) != 0 || e.ReadyAt == nil || e.ReadyAt.Unix() != h.at+wait || e.ExposureEndsAt.Unix() != h.at+wait+keys.TTLLong {
				t.Errorf("asked again: %+v", e)
			}
		})
	}
}

// TestStoreLeakedWhileAKeyDrains: that key was in it too, so it is not called one
// that made room, and what is said of exposure and mail is true of it.
func TestStoreLeakedWhileAKeyDrains(t *testing.T) {
	for old, c := range map[string]struct {
		burned  int
		exposed int64 // from now on
		says    string
	}{
		"revoke":               {2, 3600, "signed before they drained fails DKIM from now on"},
		"revoke_when_switched": {1, 600 + 3600, "at most ten minutes after the switch"},
	} {
		h := newHouse(t)
		d := h.claim("acme", "send.customer.example", "delegated")
		first := stages(d)["active"][0]
		h.confirm(d.Token)
		h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", `{"from":"`+first+`"}`)
		h.publish(d.Token)
		h.confirm(d.Token)
		r := h.emergency(d.Token, `{"emergency":true,"compromised":"store","old":"`+old+`","reason":"a backup was public"}`)
		e := r.Emergency
		if len(e.Burned) != c.burned || len(e.RevokedForSlot) != 0 || !strings.Contains(e.MailAtRisk, c.says) {
			t.Errorf("%s: %+v", old, e)
		}
		m := h.replica.Machine()
		token, err := state.ParseToken(d.Token)
		if err != nil {
			t.Fatal(err)
		}
		now, _ := m.Domain(token)
		k, _ := now.Ring().BySelector(first)
		if until := now.Ring().ExposedUntil(k.ID, keys.DefaultPolicy()); until != h.at+c.exposed {
			t.Errorf("%s: %s is exposed for %d s more, want %d", old, first, until-h.at, c.exposed)
		}
		if a := h.ask("POST", "/v1/domains/"+d.Token+"/rollback", ""); a.Code != http.StatusConflict {
			t.Errorf("%s: rolled back onto a key that leaked: %d %s", old, a.Code, a.Body)
		}
	}
}

// TestLeakedStoreTakesEveryAlgorithm, whichever key the caller saw; again for that
// key it does nothing.
func TestLeakedStoreTakesEveryAlgorithm(t *testing.T) {
	h := newHouse(t)
	d := read[Domain](h, h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", `{"domain":"send.customer.example","mode":"cname","pool":"both"}`))
	h.confirm(d.Token)
	body := `{"emergency":true,"compromised":"store","old":"revoke","from":"k1","reason":"a backup was public"}`
	e := h.emergency(d.Token, body).Emergency
	if strings.Join(e.Old, " ") != "k1 ke1" || strings.Join(e.Burned, " ") != "k2 ke2" {
		t.Errorf("%+v", e)
	}
	before := h.image()
	h.emergency(d.Token, body)
	if string(before) != string(h.image()) {
		t.Error("the second time changed something")
	}
}

// TestLeakedStoreTakesWhatSignsByThen: a schedule rotates while the request is on its
// way, and the key that signs now was in the store as well.
func TestLeakedStoreTakesWhatSignsByThen(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "cname")
	h.confirm(d.Token)
	token, err := state.ParseToken(d.Token)
	if err != nil {
		t.Fatal(err)
	}
	h.between = state.StepKey{Token: token, Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true}
	e := h.emergency(d.Token, `{"emergency":true,"compromised":"store","old":"revoke","reason":"a backup was public"}`).Emergency
	if strings.Join(e.Active, " ") != "k2" || strings.Join(e.Old, " ") != "k2" || e.WaitsFor == "" {
		t.Errorf("%+v", e)
	}
}

// TestRotationsThatCannotBeAreRefusedWithTheRemedy: each is a 4xx, names its
// field, says what to do, and changes nothing.
func TestRotationsThatCannotBeAreRefusedWithTheRemedy(t *testing.T) {
	h := newHouse(t)
	suspended := h.claim("globex", "suspended.example", "cname")
	h.confirm(suspended.Token)
	h.must(http.StatusOK, "POST", "/v1/tenants/globex/suspend", "")
	left := h.claim("acme", "left.example", "cname")
	h.must(http.StatusOK, "DELETE", "/v1/domains/"+left.Token, "")
	fresh := h.claim("acme", "fresh.example", "cname")
	old := h.claim("acme", "old.example", "cname")
	h.confirm(old.Token)
	h.must(http.StatusOK, "POST", "/v1/domains/"+old.Token+"/rotate", "")
	h.at += 2 * 86400
	revoked := h.claim("acme", "revoked.example", "cname")
	h.confirm(revoked.Token)
	h.emergency(revoked.Token, `{"emergency":true,"old":"revoke","reason":"leaked"}`)
	before := h.image()
	for what, c := range map[string]struct {
		path, body  string
		code        int
		field, says string
	}{
		"rotate a suspended":         {suspended.Token + "/rotate", `{}`, 409, "domain", "resume it first"},
		"roll back a suspended":      {suspended.Token + "/rollback", `{}`, 409, "domain", "resume it first"},
		"rotate a leaving":           {left.Token + "/rotate", `{}`, 409, "domain", "restore it first"},
		"roll back a leaving":        {left.Token + "/rollback", `{}`, 409, "domain", "restore it first"},
		"emergency of a leaving":     {left.Token + "/rotate", `{"emergency":true,"reason":"x"}`, 409, "domain", "restore it first"},
		"rotate an unknown":          {"nobody.example/rotate", `{}`, 404, "domain", "nobody.example"},
		"roll back an unknown":       {"nobody.example/rollback", `{}`, 404, "domain", "nobody.example"},
		"rotate from no key":         {fresh.Token + "/rotate", `{"from":"nope"}`, 422, "from", `"nope"`},
		"roll back from no key":      {fresh.Token + "/rollback", `{"from":"nope"}`, 422, "from", `"nope"`},
		"rotate from the standby":    {fresh.Token + "/rotate", `{"from":"k2"}`, 412, "from", `signs with "k1" now, not with "k2"`},
		"emergency from the standby": {fresh.Token + "/rotate", `{"emergency":true,"from":"k2","reason":"x"}`, 412, "from", "revoke it instead"},
		"rotate too early":           {fresh.Token + "/rotate", `{}`, 409, "key", "not ready"},
		"a leaked store, calmly":     {fresh.Token + "/rotate", `{"compromised":"store"}`, 422, "compromised", "set emergency"},
		"an emergency for no reason": {fresh.Token + "/rotate", `{"emergency":true}`, 422, "reason", "needs a reason"},
		"roll back to no key":        {fresh.Token + "/rollback", `{}`, 409, "domain", "rotate to the standby"},
		"roll back too late":         {old.Token + "/rollback", `{}`, 409, "domain", "rollback window of 24h0m0s ended"},
		"roll back to a revoked":     {revoked.Token + "/rollback", `{}`, 409, "domain", "k1 of revoked.example is revoked"},
		"revoke the only one":        {fresh.Token + "/keys/k1/revoke", `{"reason":"x"}`, 409, "selector", "not ready"},
		"revoke by force, why":       {fresh.Token + "/keys/k1/revoke", `{"force":true}`, 422, "reason", "missing"},
	} {
		a := h.ask("POST", "/v1/domains/"+c.path, c.body)
		if a.Code != c.code || a.problem.Field != c.field || !strings.Contains(a.problem.Detail, c.says) {
			t.Errorf("%s: %d %s", what, a.Code, a.Body)
		}
	}
	pool := `{"spf":["ip4:192.0.2.0/24"],"mx":[],"dkim":{"algorithms":["rsa2048"],"period":"24h"}}`
	if a := h.ask("PUT", "/v1/pools/fast", pool); a.Code != http.StatusUnprocessableEntity || !strings.Contains(a.problem.Detail, "at least") {
		t.Errorf("a period below the bound: %d %s", a.Code, a.Body)
	}
	if string(before) != string(h.image()) {
		t.Error("a refusal changed something")
	}
	token, _ := state.ParseToken(suspended.Token)
	step := state.StepKey{Token: token, Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true}
	if _, results, _ := h.Machine().Apply(h.Machine().Index()+1, []state.Entry{{At: h.at, Command: step}}); results[0].Refusal == nil {
		t.Error("the machine rotates what the API refused a moment ago")
	}
}

// TestSecondEmergencyWithoutAStandbyIsTakenAndSaysWhyAndWhen: it is no refusal,
// because the key leaked all the same.
func TestSecondEmergencyWithoutAStandbyIsTakenAndSaysWhyAndWhen(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	h.confirm(d.Token)
	h.emergency(d.Token, `{"emergency":true,"old":"revoke","reason":"leaked"}`)
	e := h.emergency(d.Token, `{"emergency":true,"old":"revoke","reason":"leaked again"}`).Emergency
	if !strings.Contains(e.WaitsFor, "published first") || e.ExpectedAt == nil || e.ExpectedAt.Unix() != h.at+keys.GapMinted {
		t.Errorf("%+v", e)
	}
}

// TestRestoreWithNoSlotFreeSaysWhen: its last key was revoked while it left, and what
// the other slots answered is still in caches.
func TestRestoreWithNoSlotFreeSaysWhen(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "cname")
	h.confirm(d.Token)
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", "")
	h.at += 4 * 3600
	h.publish(d.Token)
	h.must(http.StatusOK, "DELETE", "/v1/domains/"+d.Token, "")
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/keys/k2/revoke", `{"reason":"leaked"}`)
	free := h.at + keys.TTLShort + keys.TTLStretch
	a := h.ask("POST", "/v1/domains/"+d.Token+"/restore", "")
	if a.Code != http.StatusConflict || a.problem.ReadyAt == nil || a.problem.ReadyAt.Unix() != free || !strings.Contains(a.problem.Detail, "slot") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	h.at = free
	token, err := state.ParseToken(d.Token)
	if err != nil {
		t.Fatal(err)
	}
	results, _, err := h.Propose(t.Context(), cluster.Actor{ID: "rotator"}, state.StepKey{Token: token, Step: keys.Step{Kind: keys.StepRemove, Algorithm: keys.RSA2048, Key: 3}})
	if err != nil || results[0].Refusal != nil {
		t.Fatal(err, results)
	}
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/restore", "")
}
