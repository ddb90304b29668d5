package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster"
	"authd/cluster/state"
)

// OffNode says that changes do not wait for a node.
type OffNode struct {
	Since     time.Time `json:"since"`
	Statement string    `json:"statement" doc:"The operator's, why nobody asks the node for answers."`
}

// NewServing is the body of PUT /v1/cluster/nodes/{id}/serving.
type NewServing struct {
	Serving   bool   `json:"serving" doc:"false: changes no longer wait for the node."`
	Statement string `json:"statement,omitempty" maxLength:"500" doc:"Required with serving false: that the node is off, or out of every address list for its TTL."`
}

func (h *Handler) registerServing() {
	add(h, huma.Operation{
		OperationID: "set-serving", Method: http.MethodPut, Path: "/v1/cluster/nodes/{id}/serving", Tags: []string{"Cluster"},
		Summary: "Take a node out of the serving set by a statement, or put it back",
		Description: "Every change waits for each serving node to answer with it before a key may sign, and before a write with ?wait=served is confirmed. " +
			"A node that is off holds that for ever: only an operator can say that nobody asks it any more. It stays a member, and its /ready is 503. " +
			"It is put back only once it answers and has applied all that this node has.",
	}, adminOnly, h.setServing)
}

func (h *Handler) setServing(ctx context.Context, in *struct {
	ID string `path:"id" maxLength:"63"`
	Wait
	Reason
	Body NewServing
}) (*clusterReply, error) {
	m := h.replica.Machine()
	var node *cluster.Status
	others := 0
	for _, s := range h.replica.Members(ctx) {
		if _, off := m.Off(s.ID); s.ID == in.ID {
			node = &s
		} else if !off {
			others++
		}
	}
	switch {
	case node == nil:
		return nil, notFound("id", "there is no node %q", bounded(in.ID))
	case !in.Body.Serving && others == 0:
		return nil, problem(http.StatusConflict, codeConflict, "id", "%s is the only serving node: without it nothing would be proven", in.ID)
	case in.Body.Serving && !node.Healthy:
		return nil, problem(http.StatusConflict, codeConflict, "id", "%s does not answer: start it before you put it back, or changes wait for it", in.ID)
	case in.Body.Serving && node.Applied < m.Index():
		return nil, problem(http.StatusConflict, codeConflict, "id", "%s is at index %d of %d: put it back once it has caught up", in.ID, node.Applied, m.Index())
	}
	command := state.SetServing{Node: in.ID, Serving: in.Body.Serving, Statement: in.Body.Statement}
	if _, err := h.write(ctx, in.Wait, in.Reason.Reason, command); err != nil {
		return nil, err
	}
	return h.viewCluster(ctx), nil
}

// offOf is what is said of a node that is out of the serving set.
func offOf(m state.Machine, id string) *OffNode {
	o, off := m.Off(id)
	if !off {
		return nil
	}
	return &OffNode{moment(o.Since), o.Statement}
}
