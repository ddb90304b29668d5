package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// registerLater answers what is announced and not there yet, so that a client
// can tell "not yet" from "no such thing".
func (h *Handler) registerLater() {
	for _, l := range []struct{ id, method, path, what string }{
		{"add-rotation", http.MethodPost, "/v1/rotations", "rotation of many domains at once"},
		{"show-rotation", http.MethodGet, "/v1/rotations/{id}", "rotation of many domains at once"},
		{"list-signing", http.MethodGet, "/v1/dkim", "the list of signing domains"},
		{"signing-key", http.MethodGet, "/v1/dkim/{domain}/{selector}", "the document of one selector"},
		{"vault-data", http.MethodGet, "/v1/secret/data/{path...}", "the KV version 2 shape"},
		{"vault-metadata", http.MethodGet, "/v1/secret/metadata/{path...}", "the KV version 2 list"},
		{"vault-mounts", http.MethodGet, "/v1/sys/internal/ui/mounts/{path...}", "Vault's mount look-up"},
		{"vault-lookup-self", http.MethodGet, "/v1/auth/token/lookup-self", "Vault's token look-up"},
	} {
		op := huma.Operation{
			OperationID: l.id, Method: l.method, Path: l.path, Tags: []string{"Not implemented yet"},
			Summary: "Answers 501: " + l.what + " comes with a later release",
		}
		h.addRaw(op, reader|tenant|signer, func(w http.ResponseWriter, _ *http.Request) {
			notYet("", "%s is not implemented yet", l.what).write(w)
		})
	}
}
