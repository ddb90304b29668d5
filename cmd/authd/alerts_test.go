package main_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Prometheus's own program reads the alerts, and they fire where they must on series as
// nodes give them: testdata/alerts/alerts.yml.
func TestAlertsFireInPrometheus(t *testing.T) {
	promtool, err := findProgram("promtool")
	if err != nil {
		missing(t, "%v: apt-get install prometheus", err)
	}
	for _, args := range [][]string{{"check", "rules", "../../deploy/alerts.yml"}, {"test", "rules", "../../testdata/alerts/alerts.yml"}} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
