package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
)

// describe is huma's configuration: JSON alone, decoded strictly, no pages of
// its own.
func (h *Handler) describe() huma.Config {
	c := huma.DefaultConfig("authd", "1")
	c.Info.Description = "Authoritative DNS for platforms that send mail for their customers: zones, pools, " +
		"tenants, domains, and the DKIM keys behind them. Errors are problem documents (RFC 9457). " +
		"Every reply carries the log index it reflects in X-Authd-Index."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "authd_… with a scope: admin, read, signer or tenant:<id>"},
	}
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: h.decodeInTurn}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format}
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.RejectUnknownQueryParameters = true
	c.CreateHooks = nil // no $schema members in replies
	c.Transformers = []huma.Transformer{fromHuma}
	return c
}

// add registers an operation: scope and limits for ServeHTTP, decoding and
// documentation through huma, and errors as problems.
func add[I, O any](h *Handler, op huma.Operation, need access, handle func(context.Context, *I) (*O, error)) {
	h.prepare(&op, need)
	huma.Register(h.api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handle(ctx, in)
		if err == nil {
			return out, nil
		}
		if p := asProblem(err); p != nil {
			return nil, p
		}
		h.logger.Error("a request was not carried out", "operation", op.OperationID, "error", err)
		return nil, internal()
	})
}

// addRaw registers an operation that huma documents and does not serve.
func (h *Handler) addRaw(op huma.Operation, need access, handle http.HandlerFunc) {
	h.prepare(&op, need)
	h.mux.HandleFunc(op.Method+" "+op.Path, handle)
	op.Path = strings.ReplaceAll(op.Path, "...}", "}") // OpenAPI knows no rest of a path
	for _, part := range strings.Split(op.Path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: strings.TrimSuffix(name, "}"), In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString},
			})
		}
	}
	h.api.OpenAPI().AddOperation(&op)
}

func (h *Handler) prepare(op *huma.Operation, need access) {
	to := route{need: need, limit: MaxBody, ifMatch: need&conditional != 0}
	if op.RequestBody != nil {
		for media := range op.RequestBody.Content {
			to.media = media // the only one
		}
	}
	if op.MaxBodyBytes != 0 {
		to.limit, to.bulk = op.MaxBodyBytes, true
	}
	// huma refuses a body of exactly MaxBodyBytes.
	op.MaxBodyBytes = to.limit + 1
	op.BodyReadTimeout = h.config.BodyTime
	if to.bulk {
		op.BodyReadTimeout = bulkTime
	}
	if need != anyone {
		op.Security = []map[string][]string{{"token": {}}}
	}
	if isWrite(op.Method) && need != anyone && !withoutOnce(op.Method+" "+op.Path) {
		most := maxOnceKey
		op.Parameters = append(op.Parameters, &huma.Param{
			Name: state.OnceField, In: "header", Description: onceDoc, Schema: &huma.Schema{Type: huma.TypeString, MaxLength: &most},
		})
	}
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = &huma.Response{
		Description: "Problem",
		Content: map[string]*huma.MediaType{"application/problem+json": {
			Schema: h.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem"),
		}},
	}
	h.routes[op.Method+" "+op.Path] = to
}

// marshalSpec is the OpenAPI document, the same bytes for the same routes.
func (h *Handler) marshalSpec() ([]byte, error) {
	schemas := h.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel") // huma's own problem, which no reply has
	delete(schemas, "ErrorDetail")
	plain, err := json.Marshal(h.api.OpenAPI())
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, plain, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
