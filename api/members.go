package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"authd/cluster"
	"authd/cluster/state"
)

// Cluster is the cluster as this node sees it.
type Cluster struct {
	ID       string   `json:"id" doc:"Tells clusters apart, for ever."`
	Leader   string   `json:"leader" example:"node-1" doc:"Empty where there is none."`
	Nodes    []Member `json:"nodes" nullable:"false"`
	Settings Settings `json:"settings"`
	Index    uint64   `json:"index" doc:"Of this node's state."`
	Domains  int      `json:"domains"`
	Epoch    uint32   `json:"epoch" doc:"How often the cluster was recovered from a single node. Nodes of an earlier epoch are refused."`
}

// Member is one node.
type Member struct {
	ID       string   `json:"id" example:"node-1"`
	Address  string   `json:"address" example:"192.0.2.10:7301" doc:"Of the node link."`
	Voter    bool     `json:"voter"`
	Leader   bool     `json:"leader"`
	Serving  bool     `json:"serving" doc:"Its DNS listeners are open."`
	Applied  uint64   `json:"applied" doc:"Index of its state; 0 where it did not answer."`
	Healthy  bool     `json:"healthy" doc:"It answered within a second."`
	Problems []string `json:"problems" nullable:"false" doc:"What it says is wrong with it, as its /ready does."`
	// Off is nil for a node in the serving set.
	Off *OffNode `json:"off,omitempty" doc:"An operator took it out of the serving set: no change waits for it. Absent: it is in the set."`
}

// Settings are what all nodes must agree on and no other object holds.
type Settings struct {
	VerificationOff bool `json:"verification_off" doc:"Delegated domains count as proven from the start. Only authd dev switches verification off."`
}

// NewMember is the body of POST /v1/cluster/nodes.
type NewMember struct {
	ID      string `json:"id" minLength:"1" maxLength:"63" example:"node-4"`
	Address string `json:"address" maxLength:"300" example:"192.0.2.13:7301" doc:"host:port of its node link."`
	Voter   bool   `json:"voter,omitempty" doc:"Left out: it serves and does not vote."`
}

// NewLeader is the body of POST /v1/cluster/leader.
type NewLeader struct {
	ID string `json:"id,omitempty" maxLength:"63" doc:"Who should lead; left out: the voter that is furthest."`
}

type clusterReply struct{ Body Cluster }

func (h *Handler) registerMembers() {
	tags := []string{"Cluster"}
	add(h, huma.Operation{
		OperationID: "show-cluster", Method: http.MethodGet, Path: "/v1/cluster", Tags: tags,
		Summary: "Show the nodes, who leads, and how far each is",
	}, reader, func(ctx context.Context, _ *struct{}) (*clusterReply, error) { return h.viewCluster(ctx), nil })
	add(h, huma.Operation{
		OperationID: "put-settings", Method: http.MethodPut, Path: "/v1/cluster/settings", Tags: tags, Summary: "Change the cluster's settings",
	}, adminOnly, h.putSettings)
	add(h, huma.Operation{
		OperationID: "add-node", Method: http.MethodPost, Path: "/v1/cluster/nodes", Tags: tags, Summary: "Add a node, or change whether it votes",
	}, adminOnly, h.addNode)
	add(h, huma.Operation{
		OperationID: "invite-node", Method: http.MethodPost, Path: "/v1/cluster/invitations", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Make a join token for a new node, or for a new certificate of one",
		Description: "The token is good once, for this node alone; the reply is the only place that shows it. The node is added without a vote when it uses the token, and gets its vote when it has caught up.",
	}, adminOnly, h.inviteNode)
	add(h, huma.Operation{
		OperationID: "set-authority", Method: http.MethodPut, Path: "/v1/cluster/authority", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary:     "Set the CA that issues the certificates of nodes",
		Description: "Every node must trust it before (link.ca_file): each renews its certificate at once.",
	}, adminOnly, h.setAuthority)
	add(h, huma.Operation{
		OperationID: "remove-node", Method: http.MethodDelete, Path: "/v1/cluster/nodes/{id}", Tags: tags,
		Summary: "Remove a node that is off, or out of every address list for its TTL",
	}, adminOnly, h.removeNode)
	add(h, huma.Operation{
		OperationID: "transfer-leader", Method: http.MethodPost, Path: "/v1/cluster/leader", Tags: tags, Summary: "Hand leadership to another voter",
	}, adminOnly, func(ctx context.Context, in *struct{ Body *NewLeader }) (*clusterReply, error) {
		var body NewLeader
		if in.Body != nil {
			body = *in.Body
		}
		if err := membership(h.replica.TransferLeader(ctx, body.ID)); err != nil {
			return nil, err
		}
		h.note(ctx, "", "cluster", h.replica.Machine().Settings().ClusterID, "leadership handed to another node")
		return h.viewCluster(ctx), nil
	})
	add(h, huma.Operation{
		OperationID: "check-state", Method: http.MethodPost, Path: "/v1/cluster/check", Tags: tags,
		Summary:     "Have all nodes compare their states now",
		Description: "It happens every hour by itself. A node that a majority of the voters contradicts fences itself off; where nodes differ and no majority agrees, nobody does, but writes are stopped.",
	}, adminOnly, h.checkState)
	binary := map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}
	h.addRaw(huma.Operation{
		OperationID: "save-snapshot", Method: http.MethodGet, Path: "/v1/cluster/snapshot", Tags: tags, MaxBodyBytes: MaxBody,
		Summary:     "Save the state of the whole cluster",
		Description: "Private keys in it are sealed: restoring needs the key-encryption key too. A reply that is cut short is not a snapshot; its checksum says so.",
		Responses:   map[string]*huma.Response{"200": {Description: "The image", Content: binary}},
	}, adminOnly, h.saveSnapshot)
	h.addRaw(huma.Operation{
		OperationID: "restore-snapshot", Method: http.MethodPost, Path: "/v1/cluster/snapshot", Tags: tags, MaxBodyBytes: maxSnapshot,
		Summary: "Replace the state of the whole cluster by a saved one",
		Description: "A snapshot whose private halves this node cannot open is refused: give every node its key-encryption key first. " +
			"Writes go on meanwhile; those that are acknowledged before the state is replaced are lost with the rest. An error other than `outcome_unknown` changed nothing, and no outcome is one node's alone.",
		Parameters: []*huma.Param{{
			Name: "without_keys", In: "query", Description: "Restore it all the same, for DNS alone: no signer gets a key until the key-encryption key is there, or each domain was rotated.",
			Schema: &huma.Schema{Type: huma.TypeBoolean},
		}},
		RequestBody: &huma.RequestBody{Required: true, Content: binary},
		Responses:   map[string]*huma.Response{"200": {Description: "The cluster", Content: jsonContent(h.schema(Cluster{}))}},
	}, adminOnly, h.restoreSnapshot)
}

// StateCheck is what a comparison of the nodes' states found.
type StateCheck struct {
	Index   uint64    `json:"index" doc:"The place in the log at which the nodes were compared."`
	Verdict string    `json:"verdict" enum:"agreed,diverged,split,unclear" doc:"diverged: a majority agrees and fenced the others off. split: no majority agrees, writes are stopped. unclear: too few answered."`
	Nodes   []NodeSum `json:"nodes" nullable:"false"`
}

// NodeSum is one node in a comparison.
type NodeSum struct {
	ID    string `json:"id" example:"node-1"`
	Sum   string `json:"sum" example:"3c9c6b1d6b0a2f11" doc:"Of its state there; empty: it did not answer in time, or runs a release whose sums mean something else."`
	Right bool   `json:"right" doc:"A majority of the voters has the same."`
}

func (h *Handler) checkState(ctx context.Context, _ *struct{}) (*struct{ Body StateCheck }, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	r, err := h.replica.CheckState(ctx)
	if err != nil {
		return nil, unwritten(err)
	}
	out := StateCheck{Index: r.Index, Verdict: string(r.Verdict), Nodes: []NodeSum{}}
	for _, n := range r.Nodes {
		out.Nodes = append(out.Nodes, NodeSum{n.ID, n.Sum, n.Right})
	}
	return &struct{ Body StateCheck }{out}, nil
}

func (h *Handler) viewCluster(ctx context.Context) *clusterReply {
	m := h.replica.Machine()
	out := Cluster{
		ID: m.Settings().ClusterID, Leader: h.replica.Leader(), Nodes: []Member{},
		Settings: viewSettings(m.Settings()), Index: m.Index(), Domains: m.DomainCount(), Epoch: m.Epoch(),
	}
	for _, s := range h.replica.Members(ctx) {
		out.Nodes = append(out.Nodes, Member{
			ID: s.ID, Address: s.Address, Voter: s.Voter, Leader: s.Leader,
			Serving: s.Serving, Applied: s.Applied, Healthy: s.Healthy, Off: offOf(m, s.ID),
			Problems: append([]string{}, s.Problems...),
		})
	}
	return &clusterReply{out}
}

func viewSettings(s state.Settings) Settings { return Settings{s.VerificationOff} }

func (h *Handler) putSettings(ctx context.Context, in *struct {
	Wait
	Reason
	Body Settings
}) (*struct{ Body Settings }, error) {
	settings := from(ctx).machine.Settings()
	settings.VerificationOff = in.Body.VerificationOff
	if settings.VerificationOff && !h.config.Dev {
		return nil, invalid("verification_off", "only authd dev switches verification off; attest domains one by one instead")
	}
	if _, err := h.write(ctx, in.Wait, in.Reason.Reason, state.SetSettings{Settings: settings}); err != nil {
		return nil, err
	}
	return &struct{ Body Settings }{viewSettings(h.replica.Machine().Settings())}, nil
}

func (h *Handler) addNode(ctx context.Context, in *struct {
	Reason
	Body NewMember
}) (*clusterReply, error) {
	if name, port, err := net.SplitHostPort(in.Body.Address); err != nil || name == "" || port == "" {
		return nil, invalid("address", "%q is not host:port of a node link", bounded(in.Body.Address))
	}
	m := cluster.Member{ID: in.Body.ID, Address: in.Body.Address, Voter: in.Body.Voter}
	if err := membership(h.replica.AddPeer(ctx, m)); err != nil {
		return nil, err
	}
	said := "added without a vote"
	if m.Voter {
		said = "added as a voter"
	}
	h.note(ctx, in.Reason.Reason, "node", m.ID, said)
	return h.viewCluster(ctx), nil
}

// NewInvitation is the body of POST /v1/cluster/invitations.
type NewInvitation struct {
	ID      string `json:"id" minLength:"1" maxLength:"63" example:"node-4"`
	Address string `json:"address" maxLength:"300" example:"192.0.2.14:7301" doc:"host:port of its node link, as the other nodes reach it."`
	Voter   bool   `json:"voter,omitempty" doc:"It votes once it has caught up. Left out: it serves and does not vote."`
	Life    string `json:"life,omitempty" example:"1h" doc:"How long the token is good, at most 168h; left out: 1h."`
}

// MadeInvitation is its reply.
type MadeInvitation struct {
	Token     PrivateText `json:"token" example:"authd_join_node-4_…" doc:"The secret. It is kept nowhere: only its hash is."`
	ExpiresAt string      `json:"expires_at" format:"date-time"`
}

// NewAuthority is the body of PUT /v1/cluster/authority.
type NewAuthority struct {
	Certificate string      `json:"certificate" maxLength:"8192" doc:"In PEM."`
	Key         PrivateText `json:"key" maxLength:"8192" doc:"In PEM, PKCS #8, ECDSA P-256. It is sealed before it is replicated."`
}

// inviteLife is how long a join token is good where nobody says.
const inviteLife = time.Hour

func (h *Handler) actor(ctx context.Context, reason string) cluster.Actor {
	req := from(ctx)
	return cluster.Actor{ID: req.who.id, Source: req.who.source, Reason: reason}
}

func (h *Handler) inviteNode(ctx context.Context, in *struct {
	Reason
	Body NewInvitation
}) (*struct{ Body MadeInvitation }, error) {
	if name, port, err := net.SplitHostPort(in.Body.Address); err != nil || name == "" || port == "" {
		return nil, invalid("address", "%q is not host:port of a node link", bounded(in.Body.Address))
	}
	life := inviteLife
	if in.Body.Life != "" {
		var err error
		if life, err = time.ParseDuration(in.Body.Life); err != nil || life < time.Second || life > state.MaxInvitationLife*time.Second {
			return nil, invalid("life", "%q is not a time from 1s to %dh, such as 1h", bounded(in.Body.Life), state.MaxInvitationLife/3600)
		}
	}
	m := cluster.Member{ID: in.Body.ID, Address: in.Body.Address, Voter: in.Body.Voter}
	token, until, err := h.replica.Invite(ctx, h.actor(ctx, in.Reason.Reason), m, life)
	if refusal, ok := errors.AsType[*state.Refusal](err); ok {
		return nil, refused(refusal)
	}
	if err != nil {
		return nil, membership(err)
	}
	return &struct{ Body MadeInvitation }{MadeInvitation{PrivateText(token.Text()), until.UTC().Format(time.RFC3339)}}, nil
}

func (h *Handler) setAuthority(ctx context.Context, in *struct {
	Reason
	Body NewAuthority
}) (*struct{}, error) {
	err := h.replica.SetAuthority(ctx, h.actor(ctx, in.Reason.Reason), []byte(in.Body.Certificate), []byte(in.Body.Key))
	return nil, membership(err)
}

func (h *Handler) removeNode(ctx context.Context, in *struct {
	ID string `path:"id" maxLength:"63"`
	Reason
}) (*clusterReply, error) {
	known := false
	for _, s := range h.replica.Members(ctx) {
		known = known || s.ID == in.ID
	}
	if !known {
		return nil, notFound("id", "there is no node %q", bounded(in.ID))
	}
	if err := membership(h.replica.RemovePeer(ctx, in.ID)); err != nil {
		return nil, err
	}
	h.note(ctx, in.Reason.Reason, "node", in.ID, "removed")
	return h.viewCluster(ctx), nil
}

// note puts into the audit log what was done outside the machine. That is done
// already: where the note is not taken, the node's own log has it.
func (h *Handler) note(ctx context.Context, reason, kind, subject, text string) {
	if _, _, err := h.propose(ctx, reason, state.Note{Kind: kind, Subject: subject, Text: text}); err != nil {
		h.logger.Error("a change is not in the audit log", "by", from(ctx).who.id, "kind", kind, "subject", subject, "what", text, "reason", reason)
	}
}

// membership turns what a change of members came to into a problem. Unlike a
// defect, its reason is the operator's to read.
func membership(err error) error {
	if err == nil || asProblem(err) != nil {
		return err
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return unwritten(err)
	}
	return problem(http.StatusConflict, codeConflict, "", "%s", err)
}

func (h *Handler) saveSnapshot(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="authd.snapshot"`)
	out := w.(*reply)
	if _, err := h.replica.SaveSnapshot(r.Context(), out); err != nil {
		h.logger.Error("a snapshot was not saved", "error", err)
		if out.status != 0 {
			panic(http.ErrAbortHandler) // cut it: it must not look whole
		}
		w.Header().Del("Content-Disposition")
		h.failed(w, err)
	}
}

func (h *Handler) restoreSnapshot(w http.ResponseWriter, r *http.Request) {
	req := from(r.Context())
	err := h.lead(r.Context())
	var index uint64
	if err == nil {
		who := cluster.Actor{ID: req.who.id, Source: req.who.source}
		index, err = h.replica.RestoreSnapshot(r.Context(), who, http.MaxBytesReader(w, r.Body, maxSnapshot), r.URL.Query().Get("without_keys") == "true")
	}
	if err != nil {
		h.logger.Error("a snapshot was not restored", "error", err)
		h.failed(w, unrestored(err))
		return
	}
	req.index(index)
	writeJSON(w, http.StatusOK, h.viewCluster(r.Context()).Body)
}

// lead takes leadership, because only the leader restores and any node takes the
// request.
func (h *Handler) lead(ctx context.Context) error {
	id := h.config.NodeID
	if id == "" || h.replica.Leader() == id {
		return nil
	}
	if err := h.replica.TransferLeader(ctx, id); err != nil {
		return fmt.Errorf("this node does not lead and cannot: ask node %s: %w", h.replica.Leader(), err)
	}
	ctx, cancel := context.WithTimeout(ctx, leadTime)
	defer cancel()
	tick := time.NewTicker(leadPoll)
	defer tick.Stop()
	for h.replica.Leader() != id {
		select {
		case <-ctx.Done():
			return fmt.Errorf("taking leadership: %w", cluster.ErrNoLeader)
		case <-tick.C:
		}
	}
	return nil
}

// How long a hand-over of leadership may take, and how often it is looked for.
const (
	leadTime = 10 * time.Second
	leadPoll = 20 * time.Millisecond
)

// unrestored is why a snapshot was not restored: a bad image is the caller's to
// mend, and the words say how.
func unrestored(err error) error {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return problem(http.StatusRequestEntityTooLarge, codeTooLarge, "", "a snapshot has at most %d octets", large.Limit)
	case errors.Is(err, cluster.ErrUnknown):
		return unwritten(err)
	case errors.Is(err, cluster.ErrNoLeader):
		return problem(http.StatusServiceUnavailable, codeNoLeader, "", "nothing was changed: %s", err).with("Retry-After", "1")
	}
	return invalid("", "the snapshot was not restored, nothing was changed: %s", err)
}

// failed answers an error outside huma.
func (h *Handler) failed(w http.ResponseWriter, err error) {
	if p := asProblem(err); p != nil {
		p.write(w)
		return
	}
	h.logger.Error("a request was not carried out", "error", fmt.Sprint(err))
	internal().write(w)
}
