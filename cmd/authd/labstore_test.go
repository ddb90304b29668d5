//go:build lab

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	storeShort = 1000
	// storeSettle is how long the mills fill their stocks, and then rest for as long as
	// the load of that is remembered: three on one machine is no load that nodes of
	// their own have. storeStock is how
	// much each keeps: that of a real node, and not of authd dev.
	storeSettle = 3 * time.Minute
	storeStock  = 64
	storeEvery  = 5 * time.Second
	storeError  = 20 // percent
)

// TestStoreLeakedOfAFleetKeepsItsETA replaces all keys of a fleet by keys of the
// real mills, and compares when with what was stated. The fleet's first keys are lab
// keys, so that only the emergency takes its time: about 45 ms a domain by the
// processors that there are, and six minutes of caches.
//
//	AUTHD_FLEET=10000 go test -tags lab ./cmd/authd -run StoreLeaked -v -timeout 60m
func TestStoreLeakedOfAFleetKeepsItsETA(t *testing.T) {
	l := enterLab(t)
	if l == nil {
		return
	}
	domains := storeShort
	if text := os.Getenv(fleetEnv); text != "" {
		var err error
		if domains, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	c := l.startDev(l.build("lab"))
	c.fleetOf(domains, "delegated")
	c.dev.end(syscall.SIGTERM)
	for node := 1; node <= labNodes; node++ {
		stockUp(t, filepath.Join(c.dir, fmt.Sprintf("node-%d.toml", node)))
	}
	// The same cluster with a binary that has no lab keys.
	c.binary = l.build("")
	c.restartDev()
	time.Sleep(storeSettle)

	type progress struct {
		ID         string     `json:"id"`
		State      string     `json:"state"`
		Total      int        `json:"total"`
		Switched   int        `json:"switched"`
		StartedAt  time.Time  `json:"started_at"`
		EndedAt    time.Time  `json:"ended_at"`
		ExpectedAt time.Time  `json:"expected_at"`
		ETA        *time.Time `json:"eta"`
		OffPercent int        `json:"expected_off_percent"`
		KeysMade   []struct {
			Node string
			Keys int
		} `json:"keys_made"`
		Standbys struct {
			Refilled, Of int
			ETA          *time.Time
		}
	}
	var r progress
	c.call(1, "POST", "/v1/rotations", map[string]any{
		"scope": map[string]any{"pool": "default"}, "emergency": true, "compromised": "store", "old": "revoke", "reason": "a backup was public",
	}, &r)
	stated := r.ExpectedAt.Sub(r.StartedAt)
	t.Logf("%d domains; stated at first: %s", domains, stated)
	said := map[time.Duration]time.Time{}
	for r.State != "done" {
		time.Sleep(storeEvery)
		r = progress{ID: r.ID}
		c.call(1, "GET", "/v1/rotations/"+r.ID, nil, &r)
		if since := time.Since(r.StartedAt).Truncate(time.Second); r.ETA != nil {
			said[since] = *r.ETA
			if int(since.Seconds())%60 < int(storeEvery.Seconds()) {
				t.Logf("after %s: %d switched, eta %s, standbys %d of %d, all by %v", since, r.Switched, r.ETA.Sub(r.StartedAt), r.Standbys.Refilled, r.Standbys.Of, r.Standbys.ETA)
			}
		}
		if time.Since(r.StartedAt) > 3*stated {
			t.Fatalf("after three times as long: %+v", r)
		}
	}
	took := r.EndedAt.Sub(r.StartedAt)
	worst := 0.0
	for since, eta := range said {
		if left := took - since; left > time.Minute {
			worst = max(worst, (eta.Sub(r.EndedAt).Abs()).Seconds()/left.Seconds()*100)
		}
	}
	t.Logf("%d domains: stated %s, took %s, off by %d %%; later ETAs off by at most %.0f %% of what was left (more than a minute)", domains, stated, took, r.OffPercent, worst)
	t.Logf("keys made: %v", r.KeysMade)
	if r.OffPercent < -storeError || r.OffPercent > storeError || r.Switched != domains || worst > storeError {
		t.Errorf("stated %s, took %s for %d, later ETAs off by %.0f %%: want %d %% at most", stated, took, r.Switched, worst, storeError)
	}
	if len(r.KeysMade) != labNodes {
		t.Errorf("keys of %d nodes: %v", len(r.KeysMade), r.KeysMade)
	}
}

// stockUp gives a node of authd dev the stock of a real one.
func stockUp(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	found := false
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "stock") {
			line, found = fmt.Sprintf("stock = %d\n", storeStock), true
		}
		lines = append(lines, line)
	}
	if !found {
		t.Fatalf("no stock in %s", path)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// restartDev starts authd dev again on its directory.
func (c *cluster) restartDev() {
	c.Helper()
	c.dev = c.start("dev-again", exec.Command(c.binary, "dev", "--data", c.dir, "--empty"))
	c.Cleanup(func() { c.dev.end(syscall.SIGTERM) })
	c.eventually(labStart, "authd dev printing ready again", func() error {
		text, err := os.ReadFile(c.dev.log)
		if err == nil && !strings.Contains("\n"+string(text), "\nready\n") {
			err = fmt.Errorf("no such line yet")
		}
		return err
	})
}
