package api

import (
	"net/http"
	"strings"
	"testing"

	"authd/cluster"
)

func TestReadyNamesWhatIsNotReady(t *testing.T) {
	for name, x := range map[string]struct {
		check  cluster.Check
		code   int
		status string
	}{
		"all is well":           {cluster.Check{Name: "disk", OK: true}, http.StatusOK, "ok"},
		"something is wrong":    {cluster.Check{Name: "disk", Detail: "3.0 MiB free"}, http.StatusOK, "degraded"},
		"it must not be served": {cluster.Check{Name: "fence", Blocks: true, Detail: "fenced off"}, http.StatusServiceUnavailable, "not ready"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.checks = []cluster.Check{x.check}
			a := h.as("", "GET", "/ready", "")
			out := read[Health](h, a)
			if a.Code != x.code || out.Status != x.status || len(out.Checks) != 2 || out.Checks[1] != Check(x.check) {
				t.Errorf("%d %s", a.Code, a.Body)
			}
			if !x.check.OK && !strings.Contains(strings.Join(out.Problems, ";"), x.check.Name+": "+x.check.Detail) {
				t.Errorf("problems %v", out.Problems)
			}
		})
	}
}

func TestMetricsOfTheMechanisms(t *testing.T) {
	h := newHouse(t)
	h.figures = cluster.Figures{Term: 7, CommitIndex: 41, Fenced: true, Waiting: 3, Disk: cluster.DiskState{Free: 5, Short: true}, Check: cluster.CheckCounts{Split: 2, Alarm: true}}
	m := h.as("", "GET", "/metrics", "").Body.String()
	for _, line := range []string{
		"authd_raft_term 7", "authd_raft_commit_index 41", "authd_fenced 1", "authd_proposals_waiting 3",
		"authd_disk_free_bytes 5", "authd_disk_short 1", `authd_state_checks_total{verdict="split"} 2`, "authd_state_check_alarm 1",
	} {
		if !strings.Contains(m, "\n"+line+"\n") {
			t.Errorf("no %s in\n%s", line, m)
		}
	}
}
