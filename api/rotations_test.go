package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
)

// advance does what the leader does for rotations of many domains.
func (h *house) advance() {
	h.Helper()
	for range 100 {
		due := h.Machine().RotationsDue(h.at)
		if len(due) == 0 {
			return
		}
		if _, _, err := h.Propose(h.Context(), cluster.Actor{ID: "rotator"}, state.AdvanceRotation{ID: due[0]}); err != nil {
			h.Fatal(err)
		}
	}
	h.Fatal("it never ends")
}

func (h *house) rotation(id string) FleetRotation {
	h.Helper()
	return read[FleetRotation](h, h.must(http.StatusOK, "GET", "/v1/rotations/"+id, ""))
}

func TestFleetEmergencyIsFollowedToItsLastStandby(t *testing.T) {
	h := newHouse(t)
	var tokens []string
	for i := range 6 {
		d := h.claim("acme", fmt.Sprintf("c%d.customer.example", i), []string{"cname", "delegated"}[i%2])
		tokens = append(tokens, d.Token)
		h.confirm(d.Token)
	}
	h.claim("globex", "other.example", "cname")
	body := `{"scope":{"tenant":"acme"},"emergency":true,"old":"revoke","reason":"leaked"}`
	r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", body))
	if r.State != "running" || r.Total != 6 || r.Done != 0 || r.Old != "revoke" || r.Reason != "leaked" || r.ExpectedAt == nil {
		t.Fatalf("%+v", r)
	}
	h.advance()
	if r = h.rotation(r.ID); r.State != "done" || r.Switched != 6 || r.Done != 6 || r.Standbys.Refilled != 0 || r.Standbys.Of != 6 || r.Standbys.ETA == nil || r.ETA != nil {
		t.Fatalf("%+v", r)
	}
	for _, token := range tokens {
		h.publish(token)
	}
	if r = h.rotation(r.ID); r.Standbys != (FleetRefill{Refilled: 6, Of: 6}) {
		t.Errorf("%+v", r.Standbys)
	}
	one := read[FleetOutcomeList](h, h.must(http.StatusOK, "GET", "/v1/rotations/"+r.ID+"/domains?limit=4", ""))
	two := read[FleetOutcomeList](h, h.must(http.StatusOK, "GET", "/v1/rotations/"+r.ID+"/domains?limit=4&cursor="+one.Next, ""))
	if len(one.Items) != 4 || len(two.Items) != 2 || two.Next != "" || two.Items[1].Outcome != "switched" || two.Items[0].Tenant != "acme" {
		t.Errorf("%+v\n%+v", one, two)
	}
	list := read[FleetRotationList](h, h.must(http.StatusOK, "GET", "/v1/rotations", ""))
	if len(list.Items) != 1 || list.Items[0].ID != r.ID {
		t.Errorf("%+v", list)
	}
}

func TestFleetWithoutReadyStandbysSaysWhoWaitsForWhat(t *testing.T) {
	h := newHouse(t)
	a, b := h.claim("acme", "a.customer.example", "delegated"), h.claim("acme", "b.example", "cname")
	h.confirm(b.Token)
	r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"domains":["a.customer.example","`+b.Token+`"]},"reason":"plain"}`))
	h.advance()
	if r = h.rotation(r.ID); r.Waiting != 2 || r.State != "running" || r.ETA == nil || r.ETA.Unix() < h.at+86400 || r.Domains != 2 {
		t.Fatalf("%+v", r)
	}
	said := map[string]FleetOutcome{}
	for _, o := range read[FleetOutcomeList](h, h.must(http.StatusOK, "GET", "/v1/rotations/"+r.ID+"/domains?outcome=waiting", "")).Items {
		said[o.Token] = o
	}
	if o := said[a.Token]; !strings.Contains(o.WaitsFor, "confirm") || o.ReadyAt != nil {
		t.Errorf("%+v", o)
	}
	if o := said[b.Token]; !strings.Contains(o.WaitsFor, "soak") || o.ReadyAt == nil || o.ReadyAt.Unix() != h.at+86400 {
		t.Errorf("%+v", o)
	}
	// A rollback withdraws what only waits.
	h.must(http.StatusOK, "POST", "/v1/rotations/"+r.ID+"/rollback?reason=changed+our+mind", "")
	h.advance()
	if r = h.rotation(r.ID); r.State != "done" || r.Direction != "rollback" || r.RolledBack != 2 || r.Waiting != 0 {
		t.Errorf("%+v", r)
	}
}

// TestEmergencyOfAFleetSaysWhatItComesTo, in sums of what each domain would be told.
func TestEmergencyOfAFleetSaysWhatItComesTo(t *testing.T) {
	for old, want := range map[string]struct {
		words string
		after int64
	}{
		"revoke":               {"mail signed with the old keys of 3 domains that is still under way fails DKIM", 0},
		"revoke_when_switched": {"at most ten minutes after each switch", keys.SwitchTime},
		"drain":                {"which are answered until their drains end", int64((keys.DefaultPolicy().SignerHold + keys.DefaultPolicy().Drain) / time.Second)},
	} {
		h := newHouse(t)
		for i := range 3 {
			h.confirm(h.claim("acme", fmt.Sprintf("c%d.customer.example", i), "delegated").Token)
		}
		h.signers = cluster.FleetSigners{At: time.Unix(h.at, 500), OnOld: []string{"mta-1"}, Unheard: []string{"node-2"}}
		r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"all":true},"emergency":true,"old":"`+old+`","canary":[34,100],"reason":"leaked"}`))
		if r.ExposureEndsAt != nil || !strings.HasPrefix(r.MailAtRisk, "none: no domain has switched. Until they switch, 3 domains sign by the old key") {
			t.Errorf("%s, at first: %v, %q", old, r.ExposureEndsAt, r.MailAtRisk)
		}
		h.advance()
		if r = h.rotation(r.ID); r.ExposureEndsAt != nil || !strings.Contains(r.MailAtRisk, "1 domain signs by the old key") {
			t.Errorf("%s, between stages: %v, %q", old, r.ExposureEndsAt, r.MailAtRisk)
		}
		h.must(http.StatusOK, "POST", "/v1/rotations/"+r.ID+"/resume", "")
		h.advance()
		r = h.rotation(r.ID)
		if r.ExposureEndsAt == nil || r.ExposureEndsAt.Unix() != h.at+want.after+keys.TTLLong || !strings.Contains(r.MailAtRisk, want.words) || strings.Contains(r.MailAtRisk, "Until") {
			t.Errorf("%s: %v, %q", old, r.ExposureEndsAt, r.MailAtRisk)
		}
		if len(r.SignersOnOld) != 1 || r.SignersAt == nil || r.SignersAt.Unix() != h.at || len(r.Unheard) != 1 || r.Standbys.Of != 3 {
			t.Errorf("%s: signers %v at %v, unheard %v, standbys %+v", old, r.SignersOnOld, r.SignersAt, r.Unheard, r.Standbys)
		}
		h.signers.At = time.Time{}
		if r = h.rotation(r.ID); r.SignersOnOld != nil || r.SignersAt != nil {
			t.Errorf("%s: what is not known is %v at %v", old, r.SignersOnOld, r.SignersAt)
		}
	}
	h := newHouse(t)
	h.confirm(h.claim("acme", "a.customer.example", "delegated").Token)
	r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"all":true}}`))
	if r.MailAtRisk != "" || r.ExposureEndsAt != nil || r.SignersOnOld != nil {
		t.Errorf("a plain rotation: %+v", r)
	}
}

func TestFleetOfALeakedStoreStatesWhenFromThePaceOfTheMill(t *testing.T) {
	h := newHouse(t)
	const n = 22
	for i := range n {
		h.confirm(h.claim("acme", fmt.Sprintf("c%d.customer.example", i), "delegated").Token)
	}
	r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"all":true},"emergency":true,"compromised":"store","old":"revoke","reason":"leaked"}`))
	// Two keys are ready, the others take 50 ms each; then the negative TTL.
	if want := r.StartedAt.Unix() + (n-2)*50/1000 + keys.GapMinted + state.SwitchTime; r.ExpectedAt == nil || r.ExpectedAt.Unix() < want-2 || r.ExpectedAt.Unix() > want+2 {
		t.Errorf("expected at %v, want about %d", r.ExpectedAt, want)
	}
	h.advance()
	if r = h.rotation(r.ID); r.Waiting != n || r.ETA == nil {
		t.Errorf("%+v", r)
	}
}

func TestCanaryOfAFleetHoldsAndIsResumed(t *testing.T) {
	h := newHouse(t)
	for i := range 10 {
		h.confirm(h.claim("acme", fmt.Sprintf("c%d.customer.example", i), "cname").Token)
	}
	r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"pool":"default"},"drill":true,"old":"revoke","canary":[10,50,100],"hold":"1h","reason":"exercise"}`))
	h.advance()
	if r = h.rotation(r.ID); r.State != "paused" || r.Switched != 1 || r.Canary.Stage != 1 || r.Canary.ResumesAt == nil || r.Canary.ResumesAt.Unix() != h.at+3600 || r.Old != "drain" {
		t.Fatalf("%+v", r)
	}
	h.must(http.StatusOK, "POST", "/v1/rotations/"+r.ID+"/resume", "")
	h.advance()
	if r = h.rotation(r.ID); r.Switched != 5 || r.Canary.Stage != 2 {
		t.Fatalf("%+v", r)
	}
	h.at += 3600
	h.advance()
	if r = h.rotation(r.ID); r.State != "done" || r.Switched != 10 {
		t.Fatalf("%+v", r)
	}
	a := h.ask("POST", "/v1/rotations/"+r.ID+"/abort", "")
	if a.Code != http.StatusConflict || !strings.Contains(a.problem.Detail, "roll it back") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestFleetRepeatedWithItsKeyIsOneRotation(t *testing.T) {
	h := newHouse(t)
	h.confirm(h.claim("acme", "a.example", "cname").Token)
	var ids []string
	for range 2 {
		r := newRequest("POST", "/v1/rotations", `{"scope":{"all":true},"emergency":true,"reason":"leaked"}`)
		r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
		r.Header.Set(state.OnceField, "r-1")
		ids = append(ids, read[FleetRotation](h, h.send(r)).ID)
	}
	if ids[0] != ids[1] {
		t.Errorf("%v", ids)
	}
}

// TestTenantsAuditHasWhatBecameOfItsRotations, also once one of its domains is gone.
func TestTenantsAuditHasWhatBecameOfItsRotations(t *testing.T) {
	h := newHouse(t)
	gone := h.claim("acme", "a.example", "cname")
	h.claim("acme", "b.example", "cname")
	h.claim("globex", "c.example", "cname")
	mixed := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"domains":["b.example","c.example"]},"reason":"plain"}`))
	for _, tenant := range []string{"tenant:acme", "tenant:globex"} {
		if a := h.as(tenant, "GET", "/v1/rotations/"+mixed.ID, ""); a.Code != http.StatusNotFound {
			t.Errorf("%s sees a rotation of another's domain: %d", tenant, a.Code)
		}
	}
	for _, scope := range []string{`{"domains":["a.example","b.example"]}`, `{"tenant":"acme"}`} {
		own := read[FleetRotation](h, h.as("tenant:acme", "POST", "/v1/rotations", `{"scope":`+scope+`,"emergency":true,"reason":"leaked"}`))
		for _, verb := range []string{"pause", "resume", "abort"} {
			if a := h.as("tenant:acme", "POST", "/v1/rotations/"+own.ID+"/"+verb, ""); a.Code != http.StatusOK {
				t.Fatalf("%s: %d %s", verb, a.Code, a.Body)
			}
		}
		if scope[2] == 'd' {
			h.must(http.StatusNoContent, "DELETE", "/v1/domains/"+gone.Token+"?now=true&reason=test", "")
		}
		var told []string
		for _, e := range read[AuditPage](h, h.as("tenant:acme", "GET", "/v1/audit?limit=1000", "")).Items {
			if e.Kind == "rotation" && e.Subject == own.ID {
				told = append(told, e.Summary)
			}
			if e.Subject == mixed.ID {
				t.Errorf("sees one that is not its own: %+v", e)
			}
		}
		if len(told) != 4 || !slices.Equal(told[1:], []string{"paused", "resumed", "aborted"}) {
			t.Errorf("%s: its audit has %q", scope, told)
		}
		if a := h.as("tenant:acme", "GET", "/v1/rotations/"+own.ID, ""); a.Code != http.StatusOK {
			t.Errorf("%s: %d %s", scope, a.Code, a.Body)
		}
	}
}

func TestTenantRotatesAndSeesItsOwnDomainsAlone(t *testing.T) {
	h := newHouse(t)
	h.confirm(h.claim("acme", "a.example", "cname").Token)
	h.confirm(h.claim("globex", "b.example", "cname").Token)
	own := read[FleetRotation](h, h.as("tenant:acme", "POST", "/v1/rotations", `{"scope":{"domains":["a.example"]},"emergency":true,"reason":"leaked"}`))
	other := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"all":true},"reason":"plain"}`))
	if a := h.as("tenant:acme", "GET", "/v1/rotations/"+own.ID, ""); a.Code != http.StatusOK {
		t.Errorf("its own: %d %s", a.Code, a.Body)
	}
	for _, call := range [][2]string{{"GET", ""}, {"GET", "/domains"}, {"POST", "/abort"}} {
		if a := h.as("tenant:acme", call[0], "/v1/rotations/"+other.ID+call[1], ""); a.Code != http.StatusNotFound {
			t.Errorf("%s of another's: %d", call, a.Code)
		}
	}
	for _, scope := range []string{`{"all":true}`, `{"pool":"default"}`, `{"tenant":"globex"}`} {
		if a := h.as("tenant:acme", "POST", "/v1/rotations", `{"scope":`+scope+`,"emergency":true,"reason":"x"}`); a.Code != http.StatusForbidden {
			t.Errorf("%s: %d %s", scope, a.Code, a.Body)
		}
	}
	if a := h.as("tenant:acme", "POST", "/v1/rotations", `{"scope":{"domains":["b.example"]},"reason":"x"}`); a.Code != http.StatusNotFound {
		t.Errorf("another's domain: %d %s", a.Code, a.Body)
	}
	cursor := ""
	mixed := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"domains":["a.example","b.example"]},"reason":"plain"}`))
	if a := h.as("tenant:acme", "GET", "/v1/rotations/"+mixed.ID, ""); a.Code != http.StatusNotFound {
		t.Errorf("one of its own domains and another's: %d %s", a.Code, a.Body)
	}
	if list := read[FleetRotationList](h, h.as("tenant:acme", "GET", "/v1/rotations", "")); len(list.Items) != 1 {
		t.Errorf("%+v", list)
	}
	for page, want := range []string{mixed.ID, other.ID, own.ID} {
		list := read[FleetRotationList](h, h.must(http.StatusOK, "GET", "/v1/rotations?limit=1&cursor="+cursor, ""))
		if len(list.Items) != 1 || list.Items[0].ID != want || (list.Next == "") != (page == 2) {
			t.Errorf("page %d: %+v", page, list)
		}
		cursor = list.Next
	}
}

func TestFleetRotationsThatCannotBeAreRefused(t *testing.T) {
	h := newHouse(t)
	h.confirm(h.claim("acme", "a.example", "cname").Token)
	before := h.image()
	for what, c := range map[string]struct {
		body        string
		code        int
		field, says string
	}{
		"no scope":           {`{"reason":"x"}`, 422, "scope", "missing"},
		"an empty scope":     {`{"scope":{}}`, 422, "scope", "give one of"},
		"two scopes":         {`{"scope":{"all":true,"tenant":"acme"}}`, 422, "scope", "2 are given"},
		"an unknown tenant":  {`{"scope":{"tenant":"nobody"}}`, 422, "scope.tenant", "no tenant \"nobody\""},
		"an unknown pool":    {`{"scope":{"pool":"nothing"}}`, 422, "scope.pool", "no pool \"nothing\""},
		"an unknown domain":  {`{"scope":{"domains":["a.example","nobody.example"]}}`, 404, "scope.domains", "domain 2 of the list"},
		"calm revocation":    {`{"scope":{"all":true},"old":"revoke"}`, 422, "old", "emergency alone"},
		"calm leaked store":  {`{"scope":{"all":true},"compromised":"store"}`, 422, "compromised", "emergency"},
		"a drill that burns": {`{"scope":{"all":true},"drill":true,"compromised":"store","reason":"x"}`, 422, "compromised", "burns nothing"},
		"no reason":          {`{"scope":{"all":true},"emergency":true}`, 422, "reason", "needs a reason"},
		"half a canary":      {`{"scope":{"all":true},"canary":[1,10]}`, 422, "canary", "the last of them 100"},
		"a falling canary":   {`{"scope":{"all":true},"canary":[10,1,100]}`, 422, "canary", "rise to 100"},
		"a canary of none":   {`{"scope":{"all":true},"canary":[0,100]}`, 422, "canary", "no percentage"},
		"a hold of words":    {`{"scope":{"all":true},"hold":"soon"}`, 422, "hold", "such as 1h"},
		"a hold for ever":    {`{"scope":{"all":true},"hold":"9000h"}`, 422, "hold", "want 0 to"},
	} {
		if a := h.ask("POST", "/v1/rotations", c.body); a.Code != c.code || a.problem.Field != c.field || !strings.Contains(a.problem.Detail, c.says) {
			t.Errorf("%s: %d %s", what, a.Code, a.Body)
		}
	}
	for _, path := range []string{"/v1/rotations/nope", "/v1/rotations/" + strings.Repeat("a", 26), "/v1/rotations/nope/domains"} {
		if a := h.ask("GET", path, ""); a.Code != http.StatusNotFound || a.problem.Field != "id" {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
	if string(before) != string(h.image()) {
		t.Error("a refusal changed something")
	}
}
