package api

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		"no keys for signers":   {cluster.Check{Name: "kek", API: true, Detail: "version 2 is missing"}, http.StatusOK, "degraded"},
		"it must not be served": {cluster.Check{Name: "fence", Blocks: true, Detail: "fenced off"}, http.StatusServiceUnavailable, "not ready"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.checks = []cluster.Check{x.check}
			a := h.as("", "GET", "/ready", "")
			out := read[Health](h, a)
			if a.Code != x.code || out.Status != x.status || len(out.Checks) != 3 || out.Checks[1] != Check(x.check) {
				t.Errorf("%d %s", a.Code, a.Body)
			}
			want := http.StatusOK
			if x.check.API && !x.check.OK {
				want = http.StatusServiceUnavailable
			}
			if a := h.as("", "GET", "/ready?for=api", ""); a.Code != want {
				t.Errorf("for the API: %d %s", a.Code, a.Body)
			}
			ok := "1"
			if !x.check.OK {
				ok = "0"
			}
			if line := `authd_check_ok{check="` + x.check.Name + `"} ` + ok; !strings.Contains(h.as("", "GET", "/metrics", "").Body.String(), line) {
				t.Errorf("no metric %s", line)
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

func TestReadyRefusesAPurposeItDoesNotKnow(t *testing.T) {
	h := newHouse(t)
	if a := h.as("", "GET", "/ready?for=mail", ""); a.Code != http.StatusUnprocessableEntity || a.problem.Field != "for" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestReadyTellsWhenTheAPIsCertificateEnds(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, "node-1")
	listening(t, ListenConfig{CertFile: certFile, KeyFile: keyFile, Handler: h.handler})
	c := h.handler.certificate.Load()
	end := c.current.Leaf.NotAfter
	check := func(code int) Check {
		t.Helper()
		a := h.as("", "GET", "/ready?for=api", "")
		out := read[Health](h, a)
		last := out.Checks[len(out.Checks)-1]
		if a.Code != code || last.Name != "api_certificate" {
			t.Errorf("%d %s", a.Code, a.Body)
		}
		if a := h.as("", "GET", "/ready", ""); a.Code != http.StatusOK {
			t.Errorf("DNS: %d", a.Code)
		}
		return last
	}
	h.now = end.Add(-apiCertificateWarning - time.Hour)
	if k := check(http.StatusOK); !k.OK {
		t.Errorf("%+v", k)
	}
	h.now = end.Add(-apiCertificateWarning + time.Hour)
	if k := check(http.StatusOK); k.OK || !strings.Contains(k.Detail, "was not replaced") {
		t.Errorf("%+v", k)
	}
	if err := os.WriteFile(keyFile, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.looked = time.Time{}
	c.mu.Unlock()
	if k := check(http.StatusOK); k.OK || !strings.Contains(k.Detail, "cannot be used") {
		t.Errorf("%+v", k)
	}
	h.now = end
	if k := check(http.StatusServiceUnavailable); k.OK || !strings.Contains(k.Detail, "api.cert_file") {
		t.Errorf("%+v", k)
	}
	if line := fmt.Sprintf("authd_api_certificate_expiry_timestamp_seconds %v", float64(end.Unix())); !strings.Contains(h.as("", "GET", "/metrics", "").Body.String(), line) {
		t.Errorf("no metric %s", line)
	}
}
