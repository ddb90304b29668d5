package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
)

// Problem is what every error of the API looks like (RFC 9457). Status, Code and
// Field are for programs, Detail is for people; Code never changes its meaning.
type Problem struct {
	Type   string `json:"type" example:"about:blank" doc:"Always about:blank: code tells problems apart."`
	Title  string `json:"title" example:"Unprocessable Entity" doc:"The status in words."`
	Status int    `json:"status" example:"422" doc:"The HTTP status."`
	Code   string `json:"code" example:"invalid" doc:"Stable identifier of the kind of problem."`
	Detail string `json:"detail" doc:"What is wrong, with the input, and the remedy where there is one."`
	Field  string `json:"field,omitempty" example:"domain" doc:"The field, path or query parameter or header concerned."`
	// Errors has every fault where a request has several.
	Errors    []FieldError `json:"errors,omitempty" doc:"Every fault, where there are several."`
	Conflicts []string     `json:"conflicts,omitempty" doc:"Tokens of the claims in the way."`
	ReadyAt   *time.Time   `json:"ready_at,omitempty" doc:"When the same request can succeed, where that is known."`

	headers http.Header
}

// FieldError is one fault of a request.
type FieldError struct {
	Field  string `json:"field" example:"mx[0].host"`
	Detail string `json:"detail"`
}

// Codes of problems. They are part of the API.
const (
	codeMalformed    = "malformed"       // 400: not the JSON or HTTP that was expected
	codeUnauthorized = "unauthorized"    // 401
	codeForbidden    = "forbidden"       // 403
	codeNotFound     = "not_found"       // 404
	codeMethod       = "method"          // 405
	codeConflict     = "conflict"        // 409
	codeAmbiguous    = "ambiguous"       // 409: a name that several claims have
	codeTooEarly     = "too_early"       // 409
	codeGone         = "gone"            // 410: changes that are not remembered any more; a claim that was removed since
	codeStale        = "stale"           // 412
	codeTooLarge     = "too_large"       // 413, 414
	codeMediaType    = "media_type"      // 415
	codeInvalid      = "invalid"         // 422
	codeBusy         = "too_many"        // 429: streams, requests or writes
	codeInternal     = "internal"        // 500
	codeNotYet       = "not_implemented" // 501: announced, and a later release has it
	codeUnasked      = "could_not_ask"   // 502: the customer's servers gave no answer
	codeNoKeys       = "no_keys"         // 503: the write did not happen
	codeNoLeader     = "no_leader"       // 503: the write did not happen
	codeNotCommitted = "not_committed"   // 503: the write did not happen
	codeStopped      = "writes_stopped"  // 503: the write did not happen, for the reason that detail names
	codeUnknown      = "outcome_unknown" // 503: the write may have happened
	codeNotServed    = "not_served_yet"  // 504: committed, but not confirmed by every node
)

// Error makes a Problem an error.
func (p *Problem) Error() string { return p.Detail }

// GetStatus and GetHeaders tell huma how to send it, ContentType what it is.
func (p *Problem) GetStatus() int            { return p.Status }
func (p *Problem) GetHeaders() http.Header   { return p.headers }
func (p *Problem) ContentType(string) string { return "application/problem+json" }

func problem(status int, code, field, format string, args ...any) *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Code: code, Field: field, Detail: fmt.Sprintf(format, args...),
	}
}

func invalid(field, format string, args ...any) *Problem {
	return problem(http.StatusUnprocessableEntity, codeInvalid, field, format, args...)
}

func notFound(field, format string, args ...any) *Problem {
	return problem(http.StatusNotFound, codeNotFound, field, format, args...)
}

func forbidden(field, format string, args ...any) *Problem {
	return problem(http.StatusForbidden, codeForbidden, field, format, args...)
}

func notYet(field, what string) *Problem {
	return problem(http.StatusNotImplemented, codeNotYet, field, "%s", what)
}

// with adds a header to the reply that carries the problem.
func (p *Problem) with(name, value string) *Problem {
	if p.headers == nil {
		p.headers = http.Header{}
	}
	p.headers.Set(name, value)
	return p
}

// write sends the problem outside huma.
func (p *Problem) write(w http.ResponseWriter) {
	for name, values := range p.headers {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	// The client may be gone; there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(p)
}

// refused turns a refusal of the machine into a problem.
func refused(r *state.Refusal) *Problem {
	kinds := map[state.RefusalKind]struct {
		status int
		code   string
	}{
		state.Invalid:  {http.StatusUnprocessableEntity, codeInvalid},
		state.NotFound: {http.StatusNotFound, codeNotFound},
		state.Conflict: {http.StatusConflict, codeConflict},
		state.Stale:    {http.StatusPreconditionFailed, codeStale},
		state.TooEarly: {http.StatusConflict, codeTooEarly},
	}
	k, ok := kinds[r.Kind]
	if !ok {
		k.status, k.code = http.StatusInternalServerError, codeInternal
	}
	p := problem(k.status, k.code, r.Field, "%s", r.Message)
	for _, t := range r.Conflicts {
		p.Conflicts = append(p.Conflicts, t.String())
	}
	if p.ReadyAt = maybe(r.At); p.ReadyAt != nil {
		p.with("Retry-After", p.ReadyAt.Format(http.TimeFormat))
	}
	return p
}

// unwritten turns what Propose returned into a problem. "Not committed" and
// "unknown" stay apart: only the first may be tried again blindly.
func unwritten(err error) *Problem {
	switch {
	case errors.Is(err, cluster.ErrUnknown): // whatever else it is: a part may have happened
	case errors.Is(err, cluster.ErrNoLeader):
		return problem(http.StatusServiceUnavailable, codeNoLeader, "",
			"there is no leader to take the write; nothing was changed; try again").with("Retry-After", "1")
	case errors.Is(err, cluster.ErrStopped):
		return problem(http.StatusServiceUnavailable, codeStopped, "", "nothing was changed: %s", err).with("Retry-After", "60")
	case errors.Is(err, cluster.ErrBusy):
		return problem(http.StatusTooManyRequests, codeBusy, "", "nothing was changed: %s", err).with("Retry-After", "1")
	case errors.Is(err, cluster.ErrNotCommitted):
		return problem(http.StatusServiceUnavailable, codeNotCommitted, "",
			"the write was not committed; nothing was changed; try again").with("Retry-After", "1")
	}
	return problem(http.StatusServiceUnavailable, codeUnknown, "",
		"it is not known whether the write happened; read the object again before sending the request again")
}

// asProblem is the problem for any error a handler returned; nil where the error
// is a fault of ours, which belongs into the log and not into a reply.
func asProblem(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var r *state.Refusal
	if errors.As(err, &r) {
		return refused(r)
	}
	var early *keys.NotReady
	if errors.As(err, &early) {
		return refused(&state.Refusal{Kind: state.TooEarly, Field: "keys", At: early.At, Message: early.Error()})
	}
	for _, known := range []error{cluster.ErrNoLeader, cluster.ErrNotCommitted, cluster.ErrUnknown} {
		if errors.Is(err, known) {
			return unwritten(err)
		}
	}
	return nil
}

// fromHuma is a huma transformer: what huma itself found wrong with a request
// becomes a Problem. The values that huma echoes are left out, because a body
// may hold private keys.
func fromHuma(_ huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	codes := map[int]string{
		http.StatusBadRequest: codeMalformed, http.StatusRequestEntityTooLarge: codeTooLarge,
		http.StatusRequestTimeout: codeMalformed, http.StatusUnsupportedMediaType: codeMediaType,
		http.StatusUnprocessableEntity: codeInvalid,
	}
	code, known := codes[m.Status]
	if !known {
		code = codeInternal
	}
	p := problem(m.Status, code, "", "%s", m.Detail)
	for _, e := range m.Errors {
		if e == nil {
			continue
		}
		p.Errors = append(p.Errors, fieldError(e))
	}
	if len(p.Errors) > 0 {
		p.Field, p.Detail = p.Errors[0].Field, p.Errors[0].Detail
	}
	if len(p.Errors) == 1 {
		p.Errors = nil
	}
	return p, nil
}

// fieldError names a field as the caller wrote it: "body.mx[0].host" is
// "mx[0].host". A missing or unknown member is named itself, not its parent.
func fieldError(e *huma.ErrorDetail) FieldError {
	field := e.Location
	for _, place := range []string{"body", "query", "path", "header"} {
		if field == place {
			field = ""
		}
		field = strings.TrimPrefix(field, place+".")
	}
	if name, rest, ok := cutField(e.Message); ok {
		return FieldError{Field: name, Detail: strconv.Quote(name) + " " + rest}
	}
	const missing = "expected required property "
	if rest, ok := strings.CutPrefix(e.Message, missing); ok {
		member := strings.TrimSuffix(rest, " to be present")
		if field != "" {
			member = field + "." + member
		}
		return FieldError{Field: member, Detail: fmt.Sprintf("%q is missing", bounded(member))}
	}
	if e.Message == "unexpected property" {
		return FieldError{Field: field, Detail: fmt.Sprintf("unknown field %q", bounded(field))}
	}
	if field == "" {
		return FieldError{Detail: bounded(e.Message)}
	}
	return FieldError{Field: field, Detail: fmt.Sprintf("%q: %s", bounded(field), bounded(e.Message))}
}

// maxQuoted bounds what is quoted of an input.
const maxQuoted = 256

func bounded(text string) string {
	if len(text) <= maxQuoted {
		return text
	}
	return strings.ToValidUTF8(text[:maxQuoted], "") + "…"
}
