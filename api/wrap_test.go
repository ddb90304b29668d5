package api

import (
	"net/http"
	"strings"
	"testing"

	"authd/cluster"
	"authd/cluster/state"
)

func TestKeyEncryptionKeyIsRotatedOnlyWhereEveryNodeHoldsIt(t *testing.T) {
	h := newHouse(t)
	h.claim("acme", "customer.example", "cname")
	h.peers[0].Wraps = []uint16{1, 2}
	h.peers = append(h.peers, cluster.Status{Member: cluster.Member{ID: "node-2", Voter: true}, Wraps: []uint16{1}},
		cluster.Status{Member: cluster.Member{ID: "node-3"}})
	rotate := func(status int, words string) {
		t.Helper()
		a := h.ask("POST", "/v1/cluster/kek", `{"version":2,"reason":"an operator left"}`)
		if a.Code != status || !strings.Contains(a.Body.String(), words) {
			t.Errorf("%d %s, want %d and %q", a.Code, a.Body, status, words)
		}
	}
	rotate(http.StatusConflict, "node-2 does not hold version 2")
	h.peers[1].Wraps = []uint16{1, 2}
	rotate(http.StatusConflict, "node-3 does not answer")
	if h.Machine().WrapVersion() != 0 {
		t.Error("a refusal chose a version")
	}
	h.peers = h.peers[:2]
	rotate(http.StatusOK, `"left":2`)
	got := read[Wrapping](h, h.must(http.StatusOK, "GET", "/v1/cluster/kek", ""))
	if got.Version != 2 || got.Sealed["1"] != 2 || got.Left != 2 || len(got.Nodes) != 2 {
		t.Errorf("%+v", got)
	}
	if a := h.as("read", "POST", "/v1/cluster/kek", `{"version":2}`); a.Code != http.StatusForbidden {
		t.Errorf("a reader rotates: %d", a.Code)
	}
	if a := h.ask("POST", "/v1/cluster/kek", `{"version":0}`); a.Code != http.StatusUnprocessableEntity {
		t.Errorf("version 0: %d", a.Code)
	}
	if a := h.ask("POST", "/v1/cluster/kek", `{"version":70000}`); a.Code != http.StatusUnprocessableEntity {
		t.Errorf("a version that is none: %d", a.Code)
	}
	var last state.AuditEntry
	for e := range h.Machine().Audit(0) {
		last = *e
	}
	if last.Command != "SetWrap" || last.Reason != "an operator left" {
		t.Errorf("the audit ends with %+v", last)
	}
}
