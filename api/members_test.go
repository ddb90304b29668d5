package api

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"authd/cluster"
	"authd/cluster/state"
)

func TestClusterShowsItsNodes(t *testing.T) {
	h := newHouse(t)
	c := read[Cluster](h, h.must(http.StatusOK, "GET", "/v1/cluster", ""))
	if c.Leader != "node-1" || len(c.Nodes) != 1 || !reflect.DeepEqual(c.Nodes[0], Member{"node-1", "127.0.0.1:7301", true, true, true, 7, true, []string{}, nil}) || c.Settings.VerificationOff {
		t.Errorf("%+v", c)
	}
	c = read[Cluster](h, h.must(http.StatusOK, "POST", "/v1/cluster/nodes", `{"id":"node-2","address":"192.0.2.12:7301","voter":true}`))
	if len(c.Nodes) != 2 || c.Nodes[1].ID != "node-2" || !c.Nodes[1].Voter {
		t.Errorf("%+v", c)
	}
	c = read[Cluster](h, h.must(http.StatusOK, "DELETE", "/v1/cluster/nodes/node-2", ""))
	if len(c.Nodes) != 1 {
		t.Errorf("%+v", c)
	}
	if a := h.ask("DELETE", "/v1/cluster/nodes/node-1", ""); a.Code != http.StatusConflict || !strings.Contains(a.problem.Detail, "last voter") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := h.ask("POST", "/v1/cluster/leader", ""); a.Code != http.StatusServiceUnavailable || a.problem.Code != "no_leader" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestJoinTokensAreGoodForAWeekAtMost(t *testing.T) {
	h := newHouse(t)
	for life, want := range map[string]int{"": 201, "1s": 201, "168h": 201, "168h0m1s": 422, "999ms": 422, "-1h": 422, "soon": 422} {
		a := h.ask("POST", "/v1/cluster/invitations", `{"id":"node-4","address":"192.0.2.14:7301","life":"`+life+`"}`)
		if a.Code != want || want == 422 && a.problem.Field != "life" {
			t.Errorf("%q: %d %s", life, a.Code, a.Body)
		}
	}
}

func TestVerificationIsSwitchedOffOnlyInDev(t *testing.T) {
	h := newHouse(t)
	h.handler.config.Dev = true
	if s := read[Settings](h, h.must(http.StatusOK, "PUT", "/v1/cluster/settings", `{"verification_off":true}`)); !s.VerificationOff {
		t.Errorf("%+v", s)
	}
	if d := h.claim("acme", "send.customer.example", "delegated"); d.State != "live" || d.Proven != "unchecked" {
		t.Errorf("%+v", d)
	}
	if s := read[Settings](h, h.must(http.StatusOK, "PUT", "/v1/cluster/settings", `{"verification_off":false}`)); s.VerificationOff {
		t.Errorf("%+v", s)
	}
}

func TestSnapshotSavesAndRestores(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	saved := h.must(http.StatusOK, "GET", "/v1/cluster/snapshot", "")
	if saved.Header().Get("Content-Type") != "application/octet-stream" || saved.Body.Len() == 0 {
		t.Fatalf("%v", saved.Header())
	}
	h.must(http.StatusNoContent, "DELETE", "/v1/domains/"+d.Token+"?now=true&reason=test", "")
	h.follows = true // any node takes the request
	h.must(http.StatusOK, "POST", "/v1/cluster/snapshot", saved.Body.String())
	// It is the one that was saved, and who restored it is in its audit log.
	want, err := state.ReadImage(saved.Body)
	if err != nil {
		t.Fatal(err)
	}
	head, _ := want.AuditHead()
	var note *state.AuditEntry
	for note = range h.Machine().Audit(head) {
	}
	if note == nil || note.Command != "Note" || !strings.Contains(note.Summary, "backup") || note.Seq != head+1 {
		t.Fatalf("%+v", note)
	}
	want, _, _ = want.Apply(note.Index, []state.Entry{{
		At: h.at, Actor: note.Actor, Source: note.Source, Command: state.Note{Kind: note.Kind, Subject: note.Subject, Text: note.Summary},
	}})
	is := h.image()
	h.machine = want
	if string(is) != string(h.image()) {
		t.Error("the state is another one")
	}
}

func TestChangesOfMembersAreInTheAudit(t *testing.T) {
	h := newHouse(t)
	head, _ := h.Machine().AuditHead()
	h.must(http.StatusOK, "POST", "/v1/cluster/nodes?reason=growth", `{"id":"node-2","address":"192.0.2.2:7300","voter":true}`)
	h.must(http.StatusOK, "DELETE", "/v1/cluster/nodes/node-2?reason=broken", "")
	var said []string
	for e := range h.Machine().Audit(head) {
		said = append(said, e.Kind+" "+e.Subject+" "+e.Summary+" "+e.Reason)
	}
	if len(said) != 2 || said[0] != "node node-2 added as a voter growth" || said[1] != "node node-2 removed broken" {
		t.Errorf("%q", said)
	}
}

// A snapshot that breaks off must not look whole.
func TestSnapshotThatBreaksOffIsCut(t *testing.T) {
	h := newHouse(t)
	h.closed = true
	defer func() {
		if recover() != http.ErrAbortHandler {
			t.Error("the connection was not cut")
		}
	}()
	h.ask("GET", "/v1/cluster/snapshot", "")
	t.Error("the reply ended as if it were whole")
}

func TestHealthReadyAndMetricsNeedNoToken(t *testing.T) {
	h := newHouse(t)
	h.live("acme", "send.customer.example")
	reasons := []string{}
	h.handler.config.Ready = func() []string { return reasons }
	if a := h.as("", "GET", "/health", ""); a.Code != http.StatusOK || read[Health](h, a).Status != "ok" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := h.as("", "GET", "/ready", ""); a.Code != http.StatusOK {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	reasons = []string{"DNS listeners are not open"}
	if a := h.as("", "GET", "/ready", ""); a.Code != http.StatusServiceUnavailable || read[Health](h, a).Problems[0] != "dns: "+reasons[0] {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	h.as("", "GET", "/v1/cluster", "")
	m := h.as("", "GET", "/metrics", "").Body.String()
	for _, line := range []string{
		`authd_dns_requests_total{family="ipv4",proto="udp",type="TXT"} 3`, `authd_dns_responses_total{proto="udp",rcode="NOERROR"} 3`,
		`authd_dns_outcomes_total{outcome="Found",proto="udp"} 3`, `authd_dns_rate_limited_total{limit="answer"} 1`,
		`authd_dns_request_duration_seconds_bucket{proto="udp",le="4e-06"} 2`, `authd_dns_request_duration_seconds_count{proto="udp"} 3`, "authd_domains 1", "authd_tenants 2", "authd_raft_leader 1", "authd_machine_index ",
		`authd_api_requests_total{code="201",route="POST /v1/tenants"} 2`, `authd_api_requests_total{code="401",route="none"} 1`, `authd_build_info{node="node-1",version="test"} 1`,
	} {
		if !strings.Contains(m, line) {
			t.Errorf("no %s in\n%s", line, m)
		}
	}
	if strings.Contains(m, "customer.example") {
		t.Error("a customer's name in the metrics")
	}
	if a := h.as("", "GET", "/openapi.json", ""); a.Code != http.StatusOK || a.Body.String() != string(h.handler.spec) {
		t.Errorf("%d", a.Code)
	}
}

func TestNodeIsTakenOutOfTheServingSetByAStatement(t *testing.T) {
	h := newHouse(t)
	h.peers = append(h.peers, cluster.Status{Member: cluster.Member{ID: "node-2", Address: "192.0.2.12:7301", Voter: true}})
	set := func(node, body string, status int, words string) answered {
		t.Helper()
		a := h.ask("PUT", "/v1/cluster/nodes/"+node+"/serving", body)
		if a.Code != status || !strings.Contains(a.Body.String(), words) {
			t.Errorf("%s: %d %s, want %d and %q", body, a.Code, a.Body, status, words)
		}
		return a
	}
	set("node-2", `{"serving":false}`, 422, "the node is off, or out of every address list for its TTL")
	set("node-2", `{"serving":false,"statement":" "}`, 422, "statement")
	set("node-9", `{"serving":false,"statement":"it is off"}`, 404, "no node")
	set("node-2", `{}`, 422, "serving")
	if a := h.as("read", "PUT", "/v1/cluster/nodes/node-2/serving", `{"serving":true}`); a.Code != http.StatusForbidden {
		t.Errorf("a reader: %d", a.Code)
	}
	if len(h.Machine().OffNodes()) != 0 {
		t.Fatal("a refusal took a node out")
	}
	c := read[Cluster](h, set("node-2", `{"serving":false,"statement":"its host is dead"}`, 200, ""))
	if off := c.Nodes[1].Off; off == nil || off.Statement != "its host is dead" || off.Since.IsZero() || c.Nodes[0].Off != nil {
		t.Errorf("%+v", c.Nodes)
	}
	var last state.AuditEntry
	for e := range h.Machine().Audit(0) {
		last = *e
	}
	if last.Command != "SetServing" || last.Subject != "node-2" || !strings.Contains(last.Summary, "its host is dead") {
		t.Errorf("the audit ends with %+v", last)
	}
	set("node-1", `{"serving":false,"statement":"it is off"}`, 409, "the only serving node")
	set("node-2", `{"serving":true}`, 409, "does not answer")
	h.peers[1].Healthy = true
	set("node-2", `{"serving":true}`, 409, "is at index 0 of")
	h.peers[1].Applied = h.Machine().Index()
	if c := read[Cluster](h, set("node-2", `{"serving":true}`, 200, "")); c.Nodes[1].Off != nil {
		t.Errorf("%+v", c.Nodes[1])
	}
}
