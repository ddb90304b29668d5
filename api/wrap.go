package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster/state"
)

// Wrapping is how private halves are sealed.
type Wrapping struct {
	Version uint16         `json:"version" doc:"Version of the key-encryption key that private halves are to be sealed under; 0: none was ever chosen."`
	Sealed  map[string]int `json:"sealed" doc:"How many private halves, that of the cluster's CA among them, are sealed under each version. A version that is not here may be removed from the nodes."`
	Left    int            `json:"left" doc:"Private halves still to be sealed under the version. They are, by themselves."`
	Nodes   []WrapNode     `json:"nodes" nullable:"false"`
}

// WrapNode is which versions a node holds.
type WrapNode struct {
	ID       string   `json:"id" example:"node-1"`
	Answered bool     `json:"answered"`
	Versions []uint16 `json:"versions" nullable:"false"`
}

// NewWrapping is the body of POST /v1/cluster/kek.
type NewWrapping struct {
	Version uint16 `json:"version" minimum:"1" doc:"Every node must hold it already."`
	Reason  string `json:"reason,omitempty" maxLength:"500" doc:"Why, for the audit."`
}

func (h *Handler) registerWrap() {
	tags := []string{"Cluster"}
	add(h, huma.Operation{
		OperationID: "show-kek", Method: http.MethodGet, Path: "/v1/cluster/kek", Tags: tags,
		Summary: "How many private halves are sealed under which version of the key-encryption key, and who holds which",
	}, reader, func(ctx context.Context, _ *struct{}) (*struct{ Body Wrapping }, error) {
		return &struct{ Body Wrapping }{h.viewWrapping(ctx)}, nil
	})
	add(h, huma.Operation{
		OperationID: "rotate-kek", Method: http.MethodPost, Path: "/v1/cluster/kek", Tags: tags,
		Summary:     "Seal all private halves under another version of the key-encryption key",
		Description: "Refused unless every node says over the node link that it holds the version. It goes on by itself, across leaders; GET shows how far it is.",
	}, adminOnly, h.rotateWrap)
}

func (h *Handler) viewWrapping(ctx context.Context) Wrapping {
	m := h.replica.Machine()
	out := Wrapping{Version: m.WrapVersion(), Sealed: map[string]int{}, Left: m.ToRewrap(), Nodes: []WrapNode{}}
	for v, count := range m.SealedUnder() {
		out.Sealed[strconv.Itoa(int(v))] = count
	}
	for _, s := range h.replica.Members(ctx) {
		out.Nodes = append(out.Nodes, WrapNode{s.ID, s.Wraps != nil, append([]uint16{}, s.Wraps...)})
	}
	return out
}

func (h *Handler) rotateWrap(ctx context.Context, in *struct {
	Wait
	Body NewWrapping
}) (*struct{ Body Wrapping }, error) {
	for _, s := range h.replica.Members(ctx) {
		switch {
		case s.Wraps == nil:
			return nil, problem(http.StatusConflict, codeConflict, "version",
				"%s does not answer, so nobody knows whether it holds version %d; start it, or remove it from the cluster", s.ID, in.Body.Version)
		case !slices.Contains(s.Wraps, in.Body.Version):
			return nil, problem(http.StatusConflict, codeConflict, "version",
				"%s does not hold version %d; add the line to its key-encryption key file first", s.ID, in.Body.Version)
		}
	}
	if _, err := h.write(ctx, in.Wait, in.Body.Reason, state.SetWrap{Version: in.Body.Version}); err != nil {
		return nil, err
	}
	return &struct{ Body Wrapping }{h.viewWrapping(ctx)}, nil
}
