package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"log/slog"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write openapi.json anew")

// The document is committed, so that a change of the API shows in review. It is
// generated from the handlers' own types; after a deliberate change run
//
//	go test ./api -run OpenAPI -update
func TestOpenAPIDocumentIsTheCommittedOne(t *testing.T) {
	h := describing(t)
	if *update {
		if err := os.WriteFile("openapi.json", h.spec, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, h.spec) {
		t.Error("openapi.json differs from what the handlers say; if that is meant: go test ./api -run OpenAPI -update")
	}
}

func TestOpenAPIDocumentIsTheSameEveryTime(t *testing.T) {
	first := describing(t).spec
	for range 5 {
		if !bytes.Equal(first, describing(t).spec) {
			t.Fatal("two handlers describe themselves differently")
		}
	}
}

func TestOpenAPIDocumentListsEveryRoute(t *testing.T) {
	h := describing(t)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			OperationID string
			Summary     string
			Responses   map[string]any
			Parameters  []struct{ Name, In string }
			Security    []any
		}
	}
	if err := json.Unmarshal(h.spec, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("OpenAPI version %q", doc.OpenAPI)
	}
	routes := map[string]route{}
	for pattern, to := range h.routes {
		routes[strings.ReplaceAll(pattern, "...}", "}")] = to
	}
	listed, ids := 0, map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			listed++
			pattern := strings.ToUpper(method) + " " + path
			to, ok := routes[pattern]
			if !ok {
				t.Errorf("%s is described and not served", pattern)
			}
			if op.OperationID == "" || ids[op.OperationID] {
				t.Errorf("%s: operation id %q is empty or used twice", pattern, op.OperationID)
			}
			ids[op.OperationID] = true
			inPath := 0
			for _, p := range op.Parameters {
				if p.In == "path" && strings.Contains(path, "{"+p.Name+"}") {
					inPath++
				}
			}
			if inPath != strings.Count(path, "{") {
				t.Errorf("%s describes %d of its path parameters", pattern, inPath)
			}
			if op.Summary == "" || op.Responses["default"] == nil {
				t.Errorf("%s: no summary, or no problem among its responses", pattern)
			}
			if open := to.need == anyone; open == (len(op.Security) > 0) {
				t.Errorf("%s: wrong about whether it wants a token", pattern)
			}
		}
	}
	if listed != len(h.routes) {
		t.Errorf("%d routes are described, %d served", listed, len(h.routes))
	}
}

// describing is a handler that answers nothing but what it is.
func describing(t *testing.T) *Handler {
	t.Helper()
	h, err := New(Config{Replica: noReplica{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

type noReplica struct{ Replica }
