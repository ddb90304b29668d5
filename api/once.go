package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"authd/cluster/state"
	"authd/zone"
)

// maxOnceKey is the longest Idempotency-Key.
const maxOnceKey = 255

// headReplayed marks a reply that says what an earlier request with the same
// Idempotency-Key did.
const headReplayed = "Idempotent-Replayed"

// onceDoc documents the header with every write.
const onceDoc = "Makes a repetition safe: for an hour the same request with the same key changes nothing more and is answered " +
	"as the first was, as far as that can be rebuilt; another request with the key is 422. A refused request is decided anew."

// isWrite says whether a method changes things.
func isWrite(method string) bool { return method != http.MethodGet && method != http.MethodHead }

// withoutOnce are writes that do not go through the log one by one. Membership
// names its nodes, an import its domains: repeating them changes nothing anyway.
func withoutOnce(pattern string) bool {
	_, path, _ := strings.Cut(pattern, " ")
	return strings.HasPrefix(path, "/v1/cluster/") && path != "/v1/cluster/settings"
}

// once reads the Idempotency-Key of a write, and with it the body, and looks
// whether the request was made before. Whether it happens is decided by the
// machine in any case: this only spares keys and refusals of what was done.
func (h *Handler) once(w http.ResponseWriter, r *http.Request, pattern string, to route, req *request) *Problem {
	given := r.Header.Values(state.OnceField)
	if len(given) == 0 || !isWrite(r.Method) {
		return nil
	}
	key := given[0]
	if len(given) > 1 || len(key) == 0 || len(key) > maxOnceKey || strings.Trim(key, printableASCII) != "" {
		return invalid(state.OnceField, "want one key of 1 to %d printable ASCII characters, such as a UUID", maxOnceKey)
	}
	if withoutOnce(pattern) {
		return notYet(state.OnceField, "this call takes no Idempotency-Key: it may be repeated as it is; send it without")
	}
	if to.bulk {
		return nil // an import finds what it added before by tenant, name and mode
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, to.limit))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return problem(http.StatusRequestEntityTooLarge, codeTooLarge, "", "the body has more than %d octets", to.limit).with("Connection", "close")
		}
		return problem(http.StatusBadRequest, codeMalformed, "", "the body could not be read")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	query := r.URL.Query()
	query.Del("wait") // which does not change what is done
	req.once = state.MakeOnce(req.who.id, key, []byte(r.Method), []byte(r.URL.EscapedPath()), []byte(query.Encode()), body)
	first, ok := req.machine.Once(req.once)
	switch {
	case ok && first.Refusal != nil:
		return refused(first.Refusal)
	case ok:
		req.first = &first
	}
	return nil
}

const printableASCII = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"

// again is what the same request did before; false where it is the first. Calls
// whose checks would not pass a second time ask it.
func (h *Handler) again(ctx context.Context, w Wait) (state.Result, bool, error) {
	req := from(ctx)
	if req.first == nil {
		return state.Result{}, false, nil
	}
	req.repeated(*req.first)
	var questions []zone.Question
	if w.Wait != "" {
		questions = state.ClaimShown(state.Empty(), req.machine, req.first.Token)
	}
	return *req.first, true, h.served(ctx, w, req.first.First, questions...)
}

// againEach is again for a request of several commands: where only some were
// done it goes on, and the machine does the others.
func (h *Handler) againEach(ctx context.Context, w Wait, commands int) (bool, error) {
	req := from(ctx)
	for i := range commands {
		if r, known := req.machine.Once(req.once.At(i)); !known || r.Refusal != nil {
			return false, nil
		}
	}
	_, done, err := h.again(ctx, w)
	return done, err
}

// repeated marks the reply to a request that was done before.
func (r *request) repeated(result state.Result) {
	if result.First != 0 {
		r.writer.Header().Set(headReplayed, "true")
	}
}
