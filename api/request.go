package api

import (
	"context"
	"net/http"
	"strconv"

	"authd/cluster/state"
)

// request is what travels with a request's context.
type request struct {
	who     identity
	machine state.Machine // as it was when the request came
	writer  http.ResponseWriter
	once    state.Once    // of a write with an Idempotency-Key
	first   *state.Result // what the same request did before; nil: it is the first
}

type requestKey struct{}

func from(ctx context.Context) *request { return ctx.Value(requestKey{}).(*request) }

// index puts the index of a write on the reply.
func (r *request) index(index uint64) {
	r.writer.Header().Set("X-Authd-Index", strconv.FormatUint(index, 10))
}

// reply remembers the status that was sent.
type reply struct {
	http.ResponseWriter
	status int
}

// Unwrap lets http.ResponseController reach the connection.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *reply) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *reply) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}
