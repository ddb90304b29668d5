package api

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// registerLater answers what is announced and not there yet, so that a client
// can tell "not yet" from "no such thing".
func (h *Handler) registerLater() {
	for _, l := range []struct{ id, method, path, what string }{} {
		op := huma.Operation{
			OperationID: l.id, Method: l.method, Path: l.path, Tags: []string{"Not implemented yet"},
			Summary: "Answers 501: " + l.what + " comes with a later release",
		}
		h.addRaw(op, reader|tenant|signer, func(w http.ResponseWriter, _ *http.Request) {
			notYet("", "%s is not implemented yet", l.what).write(w)
		})
	}
}
