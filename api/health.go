package api

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

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
	API    bool   `json:"api" doc:"Where it is not ok, /ready?for=api is 503."`
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
		Summary: "200 when this node may be sent queries, or with for=api requests to the API; 503 with the reasons otherwise",
		Parameters: []*huma.Param{{
			Name: "for", In: "query", Description: "What is to be sent: queries, where it is left out.",
			Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{"dns", "api"}},
		}},
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

// checks are all that /ready looks at, always the same in the same order.
func (h *Handler) checks() []Check {
	dns := Check{Name: "dns", OK: true, Blocks: true}
	if h.config.Ready != nil {
		if reasons := h.config.Ready(); len(reasons) > 0 {
			dns.OK, dns.Detail = false, strings.Join(reasons, "; ")
		}
	}
	list := []Check{dns}
	for _, c := range h.replica.Checks() {
		list = append(list, Check(c))
	}
	problem, gone := h.certificateProblem()
	return append(list, Check{Name: "api_certificate", OK: problem == "", API: gone, Detail: problem})
}

func (h *Handler) ready(w http.ResponseWriter, r *http.Request) {
	what := r.URL.Query().Get("for")
	if what != "" && what != "dns" && what != "api" {
		invalid("for", "%q is not dns or api", bounded(what)).write(w)
		return
	}
	out := h.report()
	out.Checks = h.checks()
	for _, c := range out.Checks {
		if !c.OK {
			out.Problems = append(out.Problems, c.Name+": "+c.Detail)
		}
	}
	status := http.StatusOK
	for _, c := range out.Checks {
		switch {
		case c.OK:
		case what != "api" && c.Blocks, what == "api" && c.API:
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

// apiCertificateWarning is how long before its end the API's certificate is a
// problem: whoever renews it has had two weeks and more by then.
const apiCertificateWarning = 14 * 24 * time.Hour

// certificateEnd is when the certificate ends that the API shows, where it has one
// of its own.
func (h *Handler) certificateEnd() (end time.Time, ok bool) {
	c := h.certificate.Load()
	if c == nil {
		return end, false
	}
	end, _ = c.state()
	return end, true
}

// certificateProblem says what is wrong with the certificate that the API shows, and
// whether clients refuse it already.
func (h *Handler) certificateProblem() (problem string, gone bool) {
	c := h.certificate.Load()
	if c == nil {
		return "", false
	}
	end, fault := c.state()
	left := end.Sub(h.config.Now())
	day := end.UTC().Format(time.DateOnly)
	switch {
	case left <= 0:
		return "the API's certificate ended on " + day + ": clients refuse it; replace api.cert_file and api.key_file, which are read again by themselves", true
	case fault != nil:
		return fmt.Sprintf("the API's new certificate cannot be used (%v); the old one is good until %s", fault, day), false
	case left < apiCertificateWarning:
		return "the API's certificate ends on " + day + " and was not replaced", false
	}
	return "", false
}

// schema is the schema of a type in the OpenAPI document.
func (h *Handler) schema(v any) *huma.Schema {
	t := reflect.TypeOf(v)
	return h.api.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
}

func jsonContent(s *huma.Schema) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{"application/json": {Schema: s}}
}
