package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/hashicorp/raft"
)

// askTime is how long a node may take to say how it is.
const askTime = time.Second

// Never is an index that is not reached: a node that must not serve waits for it.
const Never = math.MaxUint64

// peers calls the other members over the node link.
type peers struct {
	node *Node

	// mu guards what follows.
	mu      sync.Mutex
	callers map[string]*caller // by ID and address
	closed  bool
	vouched map[string]bool // members that others know and this node does not yet
	asked   time.Time       // when others were last asked whom they know
}

func (p *peers) init(n *Node) {
	p.node = n
	p.callers = make(map[string]*caller)
}

// call asks a member.
func (p *peers) call(ctx context.Context, id string, kind callKind, ask, reply any) error {
	for _, m := range p.node.members() {
		if m.ID == id {
			return p.callMember(ctx, m, kind, ask, reply)
		}
	}
	return fmt.Errorf("%w: node %q is not a member", errNotSent, id)
}

func (p *peers) callMember(ctx context.Context, m Member, kind callKind, ask, reply any) error {
	c, err := p.caller(m)
	if err != nil {
		return err
	}
	return c.call(ctx, kind, ask, reply)
}

func (p *peers) caller(m Member) (*caller, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, fmt.Errorf("%w: node closed", errNotSent)
	}
	key := m.ID + " " + m.Address
	c := p.callers[key]
	if c == nil {
		c = newCaller(func(ctx context.Context) (net.Conn, error) {
			return p.node.link.dial(ctx, m.ID, m.Address, protocolCall)
		})
		p.callers[key] = c
	}
	return c, nil
}

func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	callers := p.callers
	p.callers = nil
	p.mu.Unlock()
	for _, c := range callers {
		c.Close()
	}
}

// handle answers the calls of other members.
func (n *Node) handle(ctx context.Context, peer string, kind callKind, body []byte) (any, error) {
	switch kind {
	case callPropose:
		return answer(body, func(a proposeAsk) (proposeReply, error) { return n.takeForwarded(ctx, a) })
	case callWaiting:
		return answer(body, func(a waitingAsk) ([]BarrierWait, error) { return n.barrier.waiting(a.Token), nil })
	case callProof:
		return answer(body, func(a waitingAsk) (ProofCheck, error) { return n.prover.check(a.Token), nil })
	case callEvidence:
		return answer(body, func(a evidenceAsk) (evidenceReply, error) { return n.tell(ctx, a) })
	case callHanded:
		return answer(body, func(a handedAsk) (handedReply, error) { return n.tellHanded(ctx, a) })
	case callStatus:
		return answer(body, func(a statusAsk) (statusReply, error) { return n.hears(peer, a), nil })
	case callPairs:
		return answer(body, func(a pairsAsk) (pairsReply, error) { return n.mills.give(ctx, peer, a) })
	case callConfirm:
		return answer(body, func(a confirmAsk) (confirmReply, error) { return n.confirm(ctx, a) })
	case callSum:
		return answer(body, func(a sumAsk) (sumReply, error) { return n.checker.answer(ctx, a) })
	case callChange:
		return answer(body, func(a changeAsk) (struct{}, error) { return struct{}{}, n.change(ctx, a) })
	}
	return nil, kindError{ErrNotCommitted, fmt.Errorf("node %s does not know call %d; upgrade it", n.c.ID, kind)}
}

func answer[A, R any](body []byte, do func(A) (R, error)) (any, error) {
	var ask A
	if err := cbor.Unmarshal(body, &ask); err != nil {
		return nil, kindError{ErrNotCommitted, fmt.Errorf("reading call: %w", err)}
	}
	reply, err := do(ask)
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// statusAsk asks a node how it is.
type statusAsk struct {
	// Now is the time, in seconds since 1970, where the one who asks leads and most
	// nodes agree with its clock; 0 otherwise.
	Now int64 `cbor:"1,keyasint,omitempty"`
}

// statusReply is how a node is.
type statusReply struct {
	Applied uint64   `cbor:"1,keyasint"`
	Serving bool     `cbor:"2,keyasint"`
	Members []Member `cbor:"3,keyasint"`
	Clock   int64    `cbor:"4,keyasint"` // seconds since 1970
	// Knows: the node that asks was a member here before, with a log.
	Knows  bool `cbor:"5,keyasint"`
	Fenced bool `cbor:"6,keyasint"`
	// Wraps are the versions of the key-encryption key that it holds.
	Wraps []uint16 `cbor:"43,keyasint,omitempty"`
	// DiskShort: it has no room, and had better not lead.
	DiskShort bool `cbor:"60,keyasint,omitempty"`
	// DiskRoom is what is free beside its reserve, in octets; 0: not known.
	DiskRoom uint64 `cbor:"61,keyasint,omitempty"`
	// Ready are the RSA keys that it has ready, and Pace how long each further one
	// takes; 0: not known.
	Ready int           `cbor:"44,keyasint,omitempty"`
	Pace  time.Duration `cbor:"45,keyasint,omitempty"`
	// Problems are its checks that are not OK.
	Problems []string `cbor:"70,keyasint,omitempty"`
	// Mill is what its mill does for other nodes.
	Mill millStatus `cbor:"64,keyasint,omitempty"`

	// asked and heard are the times by this node's clock between which it was said.
	asked, heard time.Time
}

// apart is by how much the clock of the node that answered differs from this one's at
// least: the time that the call took may account for the rest.
func (r *statusReply) apart() time.Duration {
	switch {
	case r.Clock < r.asked.Unix():
		return time.Duration(r.asked.Unix()-r.Clock) * time.Second
	case r.Clock > r.heard.Unix():
		return time.Duration(r.Clock-r.heard.Unix()) * time.Second
	}
	return 0
}

// hears is status that takes what the one who asks tells.
func (n *Node) hears(peer string, a statusAsk) statusReply {
	if n.raft() != nil {
		n.transport.reach.heard(raft.ServerID(peer))
	}
	if a.Now != 0 {
		n.evidence.isNow(a.Now)
	}
	return n.status(peer)
}

func (n *Node) status(peer string) statusReply {
	r := statusReply{
		Applied:   n.fsm.current().Index(),
		Serving:   n.serving.Load(),
		Clock:     n.c.Now().Unix(),
		Knows:     n.met.has(peer),
		Fenced:    n.fence.err() != nil,
		Wraps:     n.c.Keeper.Versions(),
		DiskShort: n.disk.isShort(),
		DiskRoom:  n.disk.room(),
		Problems:  n.told(),
	}
	r.Ready, r.Pace, r.Mill = n.mills.status()
	if !n.start.fresh || n.raft() != nil {
		r.Members = n.members()
	}
	return r
}

// others are the members but this node.
func (n *Node) others() []Member {
	var others []Member
	for _, m := range n.members() {
		if m.ID != n.c.ID {
			others = append(others, m)
		}
	}
	return others
}

// askAll asks other members how they are, all at once, for at most askTime.
// Those that did not answer are missing from the reply.
func (n *Node) askAll(ctx context.Context, members []Member) map[string]statusReply {
	return n.tellAll(ctx, members, statusAsk{})
}

// tellAll is askAll with something to tell.
func (n *Node) tellAll(ctx context.Context, members []Member, ask statusAsk) map[string]statusReply {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	replies := make(map[string]statusReply)
	for _, m := range members {
		wg.Go(func() {
			r := statusReply{asked: n.c.Now()}
			if err := n.peers.callMember(ctx, m, callStatus, ask, &r); err != nil {
				n.logger.Debug("asking node", "node", m.ID, "error", err)
				return
			}
			r.heard = n.c.Now()
			mu.Lock()
			defer mu.Unlock()
			replies[m.ID] = r
		})
	}
	wg.Wait()
	return replies
}

// AskPeers asks the other members for at most a second how far they are, and
// returns the index that must be applied before listeners open; 0 where nobody
// answered and the state on disk is all that this node ever served. It is Never
// where the others say that this node is no member any more, and for a new node
// that nobody has added yet. Call it after Start.
func (n *Node) AskPeers(ctx context.Context) uint64 {
	need := n.start.need
	if n.joining() && !n.awaitMembership(ctx) {
		return Never
	}
	own := n.fsm.current().Index()
	for id, r := range n.askAll(ctx, n.others()) {
		if len(r.Members) > 0 && r.Applied >= own && !contains(r.Members, n.c.ID) {
			n.logger.Error("not a member of the cluster any more: must not serve", "says", id)
			return Never
		}
		need = max(need, r.Applied)
	}
	if why := n.outcast.problem(); why != "" {
		n.logger.Error("not a member of the cluster any more: must not serve", "why", why)
		return Never
	}
	if n.joining() && !n.joined.Load() {
		if err := n.mark.set(func(v *markValue) { v.Owed = need }); err != nil {
			n.fence.trip(err)
			return Never
		}
		n.joined.Store(true)
	}
	return need
}

// awaitMembership waits until a leader has told this node who is in the cluster.
func (n *Node) awaitMembership(ctx context.Context) bool {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !contains(n.members(), n.c.ID) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		case <-n.ctx.Done():
			return false
		}
	}
	return true
}

// Status is one node as seen from here.
type Status struct {
	Member
	Leader  bool
	Healthy bool   // answered within a second
	Serving bool   // its DNS listeners are open
	Applied uint64 // index of its machine; 0 where not known
	// Wraps are the versions of the key-encryption key that it holds; nil where it
	// did not answer.
	Wraps []uint16
	// Problems are what it says is wrong with it.
	Problems []string
}

// Members asks all nodes, for at most a second, how they are.
func (n *Node) Members(ctx context.Context) []Status {
	members := n.members()
	replies := n.askAll(ctx, n.others())
	replies[n.c.ID] = n.status(n.c.ID)
	leader := n.Leader()
	all := make([]Status, len(members))
	for i, m := range members {
		r, ok := replies[m.ID]
		all[i] = Status{
			Member: m, Leader: m.ID == leader,
			Healthy: ok && !r.Fenced, Serving: r.Serving, Applied: r.Applied, Wraps: r.Wraps, Problems: r.Problems,
		}
	}
	return all
}

type confirmAsk struct {
	Index uint64 `cbor:"1,keyasint"`
}

type confirmReply struct {
	Applied uint64 `cbor:"1,keyasint"`
	Answers string `cbor:"2,keyasint,omitempty"` // where its DNS listener is; empty: closed
}

// confirm returns once this node answers with an index applied, and would still
// after a crash.
func (n *Node) confirm(ctx context.Context, a confirmAsk) (confirmReply, error) {
	if err := n.WaitApplied(ctx, a.Index); err != nil {
		return confirmReply{}, err
	}
	if err := n.waitAlone(ctx); err != nil {
		return confirmReply{}, err
	}
	if err := n.mark.sync(a.Index); err != nil {
		n.fence.trip(err)
		return confirmReply{}, err
	}
	return confirmReply{Applied: n.fsm.current().Index(), Answers: n.answersAt()}, nil
}

// waitAlone waits until no predecessor answers beside this process.
func (n *Node) waitAlone(ctx context.Context) error {
	if n.c.Alone == nil {
		return nil
	}
	select {
	case <-n.c.Alone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the process before this one may still be answering: %w", ctx.Err())
	case <-n.fence.tripped:
		return errFenced
	case <-n.ctx.Done():
		return errors.New("node closed")
	}
}

// alone says whether no predecessor answers beside this process.
func (n *Node) alone() bool {
	if n.c.Alone == nil {
		return true
	}
	select {
	case <-n.c.Alone:
		return true
	default:
		return false
	}
}
