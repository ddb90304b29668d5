package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// Config is what Open needs. Every field is required unless it says otherwise.
type Config struct {
	// ID is this node's name, as in its certificate: "node-1".
	ID string
	// DataDir holds raft.db, snapshots and the mark. Created with mode 0700.
	DataDir string
	// Bind is the address the node link listens on; Advertise is what peers dial
	// (empty: Bind). The link carries Raft and forwarded writes over mutual TLS.
	Bind, Advertise string
	// Bootstrap are the founding members, this node among them; used only while
	// the data directory is new.
	Bootstrap []Member
	// TLS authenticates both ends: its certificate's name is the node's ID and
	// its pools hold the cluster's own CA.
	TLS *tls.Config
	// Keeper seals and opens private halves.
	Keeper keys.Keeper
	// Source gives new keys.
	Source keys.Source
	// Logger takes what an operator must know.
	Logger *slog.Logger
	// Now is the clock of proposals and of the rotator; nil: time.Now.
	Now func() time.Time
	// Random is the entropy of tokens and nonces; nil: crypto/rand.
	Random io.Reader
}

// Member is one node of the cluster.
type Member struct {
	ID      string
	Address string // of the node link
	Voter   bool
}

// Errors that callers tell apart. A refusal is not among them: it is a Result.
var (
	// ErrNotCommitted: the write certainly did not happen; try again.
	ErrNotCommitted = errors.New("not committed")
	// ErrUnknown: the write may or may not have happened; look before trying again.
	ErrUnknown = errors.New("outcome unknown")
	// ErrNoLeader: there is no leader to take the write; it did not happen.
	ErrNoLeader = errors.New("no leader")
)

// Node is one member: machine, index, Raft.
type Node struct{ node }

type node struct{}

// Open builds the machine and the tree from this node's own disk, without Raft
// and without the network. An unreadable store is an error that says what to do.
func Open(c Config) (*Node, error) { panic("todo") }

// AskPeers asks the other members for at most a second how far they are, and
// returns the index that must be applied before listeners open; 0 where nobody
// answered. Call it after Start.
func (n *Node) AskPeers(ctx context.Context) uint64 { panic("todo") }

// Start starts Raft, the node link and the rotator.
func (n *Node) Start() error { panic("todo") }

// Tree is the index that queries read; the same for the life of the node.
func (n *Node) Tree() *zone.Tree { panic("todo") }

// Machine is the state as applied here. READ-ONLY.
func (n *Node) Machine() state.Machine { panic("todo") }

// Propose stamps and replicates commands as one batch, through the leader
// wherever it is, and returns their results and the log index once this node has
// applied them. Commands beyond MaxBatch are cut into several entries.
func (n *Node) Propose(ctx context.Context, who Actor, commands ...state.Command) ([]state.Result, uint64, error) {
	panic("todo")
}

// Actor is who asks for a write, for the audit.
type Actor struct {
	ID     string // token id
	Source string // client address
	Reason string
}

// WaitApplied waits until this node has applied an index.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error { panic("todo") }

// WaitServed waits until every serving node has confirmed that it answers with
// an index applied and has made its mark durable. A node that cannot be asked
// holds it until ctx is done; the error names the nodes waited for.
func (n *Node) WaitServed(ctx context.Context, index uint64) error { panic("todo") }

// Status is one node as seen from here.
type Status struct {
	Member
	Leader  bool
	Healthy bool   // answered within a second
	Serving bool   // its DNS listeners are open
	Applied uint64 // index of its machine; 0 where not known
}

// Members asks all nodes, for at most a second, how they are.
func (n *Node) Members(ctx context.Context) []Status { panic("todo") }

// Leader is the leader's ID; empty where there is none.
func (n *Node) Leader() string { panic("todo") }

// SetServing tells the node whether its DNS listeners are open.
func (n *Node) SetServing(serving bool) { panic("todo") }

// Health says what is wrong with the node, empty where nothing is.
func (n *Node) Health() []string { panic("todo") }

// ClaimKeys makes the first keys of a new claim: an active one for each
// algorithm, waiting for the source, and a standby for each where the source has
// one ready. A standby that comes with the claim needs no ready time, because
// its name was never answered before.
func (n *Node) ClaimKeys(ctx context.Context, t state.Token, mode keys.RingMode, algorithms []keys.Algorithm) (active, standby []keys.Material, err error) {
	panic("todo")
}

// Material makes sealed key material for a claim from the source: generates,
// checks by signing and verifying, mints a selector (in minted mode), seals.
func (n *Node) Material(ctx context.Context, t state.Token, mode keys.RingMode, a keys.Algorithm) (keys.Material, error) {
	panic("todo")
}

// Import makes sealed key material from a pair that the operator brings.
func (n *Node) Import(t state.Token, selector string, p *keys.Pair) (keys.Material, error) {
	panic("todo")
}

// OpenKey opens the sealed half of a key for a signer.
func (n *Node) OpenKey(d *state.Domain, k keys.Key) (*keys.Pair, error) { panic("todo") }

// NewToken draws a claim's token.
func (n *Node) NewToken() (state.Token, error) { panic("todo") }

// AddPeer adds a node as a voter or non-voter, RemovePeer removes one.
func (n *Node) AddPeer(ctx context.Context, m Member) error     { panic("todo") }
func (n *Node) RemovePeer(ctx context.Context, id string) error { panic("todo") }

// TransferLeader hands leadership to another voter; empty: the best one.
func (n *Node) TransferLeader(ctx context.Context, id string) error { panic("todo") }

// SaveSnapshot writes a consistent image of the cluster's state.
func (n *Node) SaveSnapshot(ctx context.Context, w io.Writer) (index uint64, err error) {
	panic("todo")
}

// RestoreSnapshot replaces the cluster's state by an image. Serials never go back.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader) error { panic("todo") }

// Close stops taking part: transfers leadership, syncs the mark, closes the stores.
func (n *Node) Close(ctx context.Context) error { panic("todo") }
