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
		line := m[1]
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
	var source strings.Builder
	for _, path := range []string{"../../api/metrics.go", "../../api/metrics_node.go"} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	names := regexp.MustCompile(`authd_([a-z_]+)`).FindAllStringSubmatch(string(text), -1)
	if len(names) < 8 {
		t.Fatalf("only %d metrics found", len(names))
	}
	for _, m := range names {
		if !strings.Contains(source.String(), `"`+m[1]+`"`) && !strings.Contains(source.String(), `"`+m[0]+`"`) {
			t.Errorf("no metric %s", m[0])
		}
	}
}
