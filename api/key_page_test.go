package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"authd/cluster"
	"authd/cluster/state"
)

func (h *house) keyPage(token, selector string) (p KeyPage) {
	h.Helper()
	r := h.must(http.StatusOK, "GET", "/v1/domains/"+token+"/keys/"+selector, "")
	if err := json.Unmarshal(r.Body.Bytes(), &p); err != nil {
		h.Fatal(err)
	}
	return p
}

func TestKeyPageSaysWhetherAKeyIsSafeToRevoke(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	by := stages(d)
	first, second := by["active"][0], by["standby"][0]
	uses := func(u cluster.KeyUse) { h.uses = map[uint32]cluster.KeyUse{1: u, 2: u} }
	wants := func(selector string, safe bool, why string) {
		t.Helper()
		if p := h.keyPage(d.Token, selector); p.SafeToRevoke != safe || !strings.Contains(p.Why, why) {
			t.Errorf("%s %s: safe %v, %q; want %v, …%s…", p.Stage, selector, p.SafeToRevoke, p.Why, safe, why)
		}
	}
	began := h.at
	uses(cluster.KeyUse{Since: began})
	wants(first, false, "it signs")
	wants(second, true, "signed nothing")
	h.confirm(d.Token)
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", `{"from":"`+first+`"}`)
	wants(first, false, "under way until")

	h.at += 9 * 86400
	h.now = time.Unix(h.at, 0)
	uses(cluster.KeyUse{Since: began, Missing: []string{"node-3"}})
	wants(first, false, "node-3 did not say")
	uses(cluster.KeyUse{Since: h.at - 3600})
	wants(first, false, "counts queries only since")
	uses(cluster.KeyUse{Since: began, LastAsked: h.at - 3600, Day: h.at / 86400, Days: [cluster.AskedDays]uint32{4, 0, 2}, HandedOut: began,
		Signers: []cluster.SignerSeen{{ID: "kumo", At: began, Later: h.at}, {ID: "other", Later: h.at}}})
	wants(first, false, "it was asked for on")
	p := h.keyPage(d.Token, first)
	if p.Selector != first || p.Stage != "draining" || len(p.Use.Asked) != cluster.AskedDays || p.Use.Asked[0].Queries != 4 || p.Use.Asked[2].Queries != 2 ||
		p.Use.LastAsked.Unix() != h.at-3600 || p.Use.LastHandedOut.Unix() != began || len(p.Use.Signers) != 1 || p.Use.Signers[0].LaterAt == nil {
		t.Errorf("%+v", p)
	}
	uses(cluster.KeyUse{Since: began, HandedOut: h.at - 86400})
	wants(first, false, "given to a signer")
	uses(cluster.KeyUse{Since: began, LastAsked: h.at - 3*86400})
	wants(first, true, "had time to arrive")
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/keys/"+first+"/revoke", `{"reason":"done"}`)
	wants(first, true, "already")
	if r := h.ask("GET", "/v1/domains/"+d.Token+"/keys/nope", ""); r.Code != http.StatusNotFound {
		t.Errorf("an unknown key: %d", r.Code)
	}
}

func TestSignersAreNotedAndAnEmergencyNamesThoseOnTheOldKey(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	if r := h.as("signer", "GET", "/v1/dkim/send.customer.example", ""); r.Code != http.StatusOK {
		t.Fatalf("%d %s", r.Code, r.Body)
	}
	if len(h.handed) != 1 || !strings.HasPrefix(h.handed[0], d.Token+"/1 to ") {
		t.Errorf("handed out: %q", h.handed)
	}
	h.uses = map[uint32]cluster.KeyUse{1: {Missing: []string{"node-2"}, Signers: []cluster.SignerSeen{{ID: "kumo", At: h.at - 60}, {ID: "gone", At: h.at - 10*86400}}}}
	h.confirm(d.Token)
	e := h.emergency(d.Token, `{"emergency":true,"reason":"leaked"}`).Emergency
	if strings.Join(e.SignersOnOld, " ") != "kumo" || strings.Join(e.Unheard, " ") != "node-2" || e.OldBecomes != "revoke_when_switched" {
		t.Errorf("%+v", e)
	}
	if e.ExposureEndsAt == nil || e.ExposureEndsAt.Unix() != h.at+600+3600 || !strings.Contains(e.MailAtRisk, "ten minutes") {
		t.Errorf("exposed until %v, at risk: %s", e.ExposureEndsAt, e.MailAtRisk)
	}
}

func TestBarrierIsSeenPerKeyAndInTheMetrics(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	token, _ := state.ParseToken(d.Token)
	h.uses = map[uint32]cluster.KeyUse{2: {}}
	h.waits = []cluster.BarrierWait{{Token: token, Key: 2, Node: "node-3", Since: h.at - 90, Why: "it cannot be asked"}}
	shown := read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token, ""))
	for _, k := range shown.Keys {
		want := 0
		if k.Stage == "standby" {
			want = 1
		}
		if len(k.Waiting) != want || want == 1 && (k.Waiting[0].Node != "node-3" || k.Waiting[0].Since.Unix() != h.at-90) {
			t.Errorf("%s %s waits for %+v", k.Stage, k.Selector, k.Waiting)
		}
	}
	if p := h.keyPage(d.Token, stages(d)["standby"][0]); len(p.Waiting) != 1 || p.Waiting[0].Why != "it cannot be asked" {
		t.Errorf("%+v", p.Waiting)
	}
	text := h.ask("GET", "/metrics", "").Body.String()
	for _, want := range []string{`authd_barrier_waiting{node="node-3"} 1`, "authd_barrier_oldest_seconds 90"} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
