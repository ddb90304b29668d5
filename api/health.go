package api

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Health is the reply of /health and /ready.
type Health struct {
	Status   string   `json:"status" enum:"ok,degraded,not ready"`
	Node     string   `json:"node" example:"node-1"`
	Version  string   `json:"version"`
	Leader   string   `json:"leader" doc:"Empty where there is none: writes wait, DNS goes on."`
	Index    uint64   `json:"index"`
	Problems []string `json:"problems" nullable:"false"`
	// Checks is of /ready alone.
	Checks []Check `json:"checks,omitempty" doc:"Everything that /ready looks at."`
}

// Check is one thing that /ready looks at.
type Check struct {
	Name   string `json:"name" example:"disk"`
	OK     bool   `json:"ok"`
	Blocks bool   `json:"blocks" doc:"Where it is not ok, /ready is 503."`
	Detail string `json:"detail,omitempty" doc:"What is wrong and what to do."`
}

func (h *Handler) registerHealth() {
	tags := []string{"Health"}
	document := map[string]*huma.Response{"200": {Description: "Health", Content: jsonContent(h.schema(Health{}))}}
	h.addRaw(huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/health", Tags: tags, Responses: document,
		Summary: "200 while the process is up, with what is wrong",
	}, anyone, h.health)
	h.addRaw(huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: "/ready", Tags: tags,
		Summary: "200 when this node may be sent traffic, 503 with the reasons otherwise",
		Responses: map[string]*huma.Response{
			"200": {Description: "Ready", Content: jsonContent(h.schema(Health{}))},
			"503": {Description: "Not ready", Content: jsonContent(h.schema(Health{}))},
		},
	}, anyone, h.ready)
	h.addRaw(huma.Operation{
		OperationID: "metrics", Method: http.MethodGet, Path: "/metrics", Tags: tags, Summary: "Metrics in the Prometheus format",
		Responses: map[string]*huma.Response{"200": {Description: "Metrics", Content: map[string]*huma.MediaType{
			"text/plain": {Schema: &huma.Schema{Type: huma.TypeString}},
		}}},
	}, anyone, h.metrics.serve)
	h.addRaw(huma.Operation{
		OperationID: "openapi", Method: http.MethodGet, Path: "/openapi.json", Tags: tags, Summary: "This document",
		Responses: map[string]*huma.Response{"200": {Description: "OpenAPI 3.1", Content: jsonContent(&huma.Schema{Type: huma.TypeObject})}},
	}, anyone, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		// The client may be gone; there is nobody else to tell.
		_, _ = w.Write(h.spec)
	})
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	out := h.report()
	out.Problems = append(out.Problems, h.replica.Health()...)
	if len(out.Problems) > 0 {
		out.Status = "degraded"
	}
	writeJSON(w, http.StatusOK, out)
}

func (h *Handler) ready(w http.ResponseWriter, _ *http.Request) {
	out := h.report()
	dns := Check{Name: "dns", OK: true, Blocks: true}
	if h.config.Ready != nil {
		if reasons := h.config.Ready(); len(reasons) > 0 {
			dns.OK, dns.Detail = false, strings.Join(reasons, "; ")
			out.Problems = append(out.Problems, reasons...)
		}
	}
	out.Checks = append(out.Checks, dns)
	for _, c := range h.replica.Checks() {
		out.Checks = append(out.Checks, Check(c))
		if !c.OK {
			out.Problems = append(out.Problems, c.Name+": "+c.Detail)
		}
	}
	status := http.StatusOK
	for _, c := range out.Checks {
		switch {
		case c.OK:
		case c.Blocks:
			status, out.Status = http.StatusServiceUnavailable, "not ready"
		case status == http.StatusOK:
			out.Status = "degraded"
		}
	}
	writeJSON(w, status, out)
}

func (h *Handler) report() Health {
	return Health{
		Status: "ok", Node: h.config.NodeID, Version: h.config.Version,
		Leader: h.replica.Leader(), Index: h.replica.Machine().Index(), Problems: []string{},
	}
}

// schema is the schema of a type in the OpenAPI document.
func (h *Handler) schema(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return h.api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func jsonContent(s *huma.Schema) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: s}}
}
