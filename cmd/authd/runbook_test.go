package main

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// Every command line that an operator copies from the runbook is one that the
// program takes: those of their own line, and those in backquotes.
func TestCommandsOfTheRunbookParse(t *testing.T) {
	text, err := os.ReadFile("../../deploy/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/x.snapshot"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir()) // with what the commands take from where they are typed
	if err := errors.Join(os.WriteFile("kek", nil, 0o600), os.Mkdir("authd-cluster", 0o700)); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range regexp.MustCompile("(?m)(?:^    |`)(authd [a-z][^`\n]*)").FindAllStringSubmatch(string(text), -1) {
		line, _, _ := strings.Cut(m[1], " >") // where the shell takes over
		if line == "authd domain show" {
			line += " send.customer.example"
		}
		args := regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(line, -1)[1:]
		for i, a := range args {
			if strings.HasSuffix(a, ".snapshot") {
				args[i] = file
			}
		}
		found++
		var cli commands
		parser, err := kong.New(&cli, kong.Name("authd"), kong.Bind(&app{ctx: t.Context()}))
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("AUTHD_ADDR", "http://127.0.0.1:8301")
		t.Setenv("AUTHD_TOKEN", "authd_test")
		if _, err := parser.Parse(args); err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
	}
	if found < 15 {
		t.Errorf("only %d commands found: the test looks for the wrong thing", found)
	}
}

// What the runbook says you see is what the program says.
func TestMetricsOfTheRunbookExist(t *testing.T) {
	text, err := os.ReadFile("../../deploy/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	source := metricsSource(t)
	names := regexp.MustCompile(`authd_([a-z_]+)`).FindAllStringSubmatch(string(text), -1)
	if len(names) < 8 {
		t.Fatalf("only %d metrics found", len(names))
	}
	for _, m := range names {
		if !isMetric(source, m[1]) {
			t.Errorf("no metric %s", m[0])
		}
	}
}

func metricsSource(t *testing.T) string {
	t.Helper()
	var source strings.Builder
	for _, path := range []string{"../../api/metrics.go", "../../api/metrics_node.go", "../../api/metrics_fleet.go"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	return source.String()
}

// isMetric says whether a name, without its prefix authd_, is one of a metric.
func isMetric(source, name string) bool {
	return strings.Contains(source, `"`+name+`"`) || strings.Contains(source, `"authd_`+name+`"`)
}

// The alerts are about metrics and checks that exist, lead to a section of the
// runbook, and leave no check out but those that another alert is about.
func TestAlertsAreOfWhatExistsAndLeadToTheRunbook(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	runbook, err := os.ReadFile("../../deploy/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	checks, err := os.ReadFile("../../cluster/figures.go")
	if err != nil {
		t.Fatal(err)
	}
	source, text := metricsSource(t), string(rules)
	for _, m := range regexp.MustCompile(`expr:(?: >-\n)?[^:]*`).FindAllString(text, -1) {
		for _, name := range regexp.MustCompile(`authd_([a-z_]+)`).FindAllStringSubmatch(m, -1) {
			if !isMetric(source, name[1]) {
				t.Errorf("no metric %s", name[0])
			}
		}
	}
	watched := map[string]bool{
		"leader": true, "fence": true, "disk": true, // by metrics of their own
		"serving": true, // an operator's own doing
	}
	for _, m := range regexp.MustCompile(`check=~?"([a-z_|]+)"`).FindAllStringSubmatch(text, -1) {
		for name := range strings.SplitSeq(m[1], "|") {
			watched[name] = true
		}
	}
	known := map[string]bool{"dns": true, "api_certificate": true}
	for _, m := range regexp.MustCompile(`\badd\("([a-z_]+)"`).FindAllStringSubmatch(string(checks), -1) {
		known[m[1]] = true
	}
	for name := range known {
		if !watched[name] {
			t.Errorf("no alert for the check %s", name)
		}
	}
	for name := range watched {
		if !known[name] {
			t.Errorf("an alert for a check %s, which there is not", name)
		}
	}
	alerts := strings.Count(text, "- alert:")
	sections := regexp.MustCompile(`runbook: "([^"]+)"`).FindAllStringSubmatch(text, -1)
	if alerts < 15 || len(sections) != alerts {
		t.Errorf("%d alerts, %d sections", alerts, len(sections))
	}
	for _, m := range sections {
		if !strings.Contains(string(runbook), "\n## "+m[1]+"\n") {
			t.Errorf("the runbook has no section %q", m[1])
		}
	}
}
