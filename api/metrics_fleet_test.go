package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"authd/cluster"
)

// scraped checks lines of the metrics.
func (h *house) scraped(lines ...string) {
	h.Helper()
	text := h.ask("GET", "/metrics", "").Body.String()
	for _, line := range lines {
		if !strings.Contains(text, "\n"+line+"\n") {
			h.Errorf("no line %s in the metrics", line)
		}
	}
}

func TestRotationsAreSeenInTheMetricsFromBeginToEnd(t *testing.T) {
	h := newHouse(t)
	h.scraped(`authd_rotations{kind="emergency",state="running"} 0`, `authd_rotations_oldest_seconds{kind="emergency"} 0`)
	for _, name := range []string{"a.example", "b.example", "c.example", "d.example"} {
		h.confirm(h.claim("acme", name, "cname").Token)
	}
	r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations",
		`{"scope":{"all":true},"emergency":true,"compromised":"store","old":"revoke","canary":[50,100],"reason":"leaked"}`))
	h.at, h.now = h.at+60, h.now.Add(60*time.Second)
	h.scraped(`authd_rotations{kind="emergency",state="running"} 1`, `authd_rotation_domains_left{kind="emergency",state="running"} 4`,
		`authd_rotations_oldest_seconds{kind="emergency"} 60`, `authd_rotations{kind="planned",state="running"} 0`)
	h.advance()
	h.scraped(`authd_rotation_domains_left{kind="emergency",state="running"} 2`, `authd_rotation_domains_waiting{kind="emergency"} 2`)
	h.must(http.StatusOK, "POST", "/v1/rotations/"+r.ID+"/pause", "")
	h.scraped(`authd_rotations{kind="emergency",state="paused"} 1`, `authd_rotation_domains_left{kind="emergency",state="paused"} 2`,
		`authd_rotations{kind="emergency",state="running"} 0`)
	h.must(http.StatusOK, "POST", "/v1/rotations/"+r.ID+"/abort", "")
	h.scraped(`authd_rotations{kind="emergency",state="paused"} 0`, `authd_rotation_domains_left{kind="emergency",state="paused"} 0`,
		`authd_rotations_oldest_seconds{kind="emergency"} 0`, `authd_rotation_domains_waiting{kind="emergency"} 2`)
}

func TestWaysBackAndDrillsAreCountedApart(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{"a.example", "b.example"} {
		h.confirm(h.claim("acme", name, "cname").Token)
	}
	r := read[FleetRotation](h, h.must(http.StatusAccepted, "POST", "/v1/rotations", `{"scope":{"all":true},"drill":true,"reason":"exercise"}`))
	h.scraped(`authd_rotations{kind="drill",state="running"} 1`, `authd_rotations{kind="emergency",state="running"} 0`)
	h.advance()
	h.scraped(`authd_rotation_domains_refilling{kind="drill"} 2`)
	h.must(http.StatusOK, "POST", "/v1/rotations/"+r.ID+"/rollback?reason=enough", "")
	h.scraped(`authd_rotation_domains_left{kind="drill",state="running"} 2`)
	h.advance()
	h.scraped(`authd_rotation_domains_left{kind="drill",state="running"} 0`)
}

func TestResealingAndPendingClaimsAreSeenInTheMetrics(t *testing.T) {
	h := newHouse(t)
	h.scraped("authd_keys_to_reseal 0", "authd_domains_pending 0", "authd_domains_pending_oldest_seconds 0")
	h.claim("acme", "one.customer.example", "delegated")
	h.at, h.now = h.at+100, h.now.Add(100*time.Second)
	h.claim("acme", "two.customer.example", "delegated")
	h.at, h.now = h.at+20, h.now.Add(20*time.Second)
	h.scraped("authd_domains_pending 2", "authd_domains_pending_oldest_seconds 120")
	h.must(http.StatusOK, "POST", "/v1/domains/one.customer.example/attest", `{"reason":"seen"}`)
	h.scraped("authd_domains_pending 1", "authd_domains_pending_oldest_seconds 20")
	h.peers = []cluster.Status{{Member: cluster.Member{ID: "node-1", Voter: true}, Wraps: []uint16{1, 2}}}
	h.must(http.StatusOK, "POST", "/v1/cluster/kek", `{"version":2,"reason":"an operator left"}`)
	h.scraped("authd_keys_to_reseal 4")
}
