package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
	"authd/keys/keystest"
	"authd/zone"
	"authd/zone/probe"
)

// replica is a Replica without Raft: it applies to the pure machine at once.
type replica struct {
	checks  []cluster.Check
	figures cluster.Figures
	mu      sync.Mutex // guards what follows
	machine state.Machine
	at      int64
	drawn   byte
	minted  int
	actors  []cluster.Actor
	waited  []uint64
	shown   []zone.Question // of the last WaitServed

	keeper keys.Keeper
	source keys.Source
	// refuse, where not nil, is what Propose returns, before applying (lost:
	// after it).
	refuse error
	lost   bool
	// behind is what WaitServed returns.
	behind error
	// arrives is what happens while WaitApplied waits; nil: nothing, until ctx ends.
	arrives func()
	// unwritable is what Release answers; read is what it was told.
	unwritable error
	read       []cluster.KeyRead
	// between is what others propose before the next command arrives; nil: nothing.
	between state.Command
	// since is what others propose, for the claim that the next command made or
	// changed, before it is replied to; nil: nothing.
	since func(state.Token) state.Command
	// starved is a source that gives no key.
	starved bool
	// closed keeps keys from being opened.
	closed bool
	// follows: another node leads, until leadership is asked for.
	follows bool
	peers   []cluster.Status
	handed  []string
	uses    map[uint32]cluster.KeyUse
	waits   []cluster.BarrierWait
	proof   cluster.ProofCheck
	signers cluster.FleetSigners
	// slow is called before a proposal is taken, by each on its own; nil: nothing.
	slow func()
	pace time.Duration
}

func newReplica() *replica {
	return &replica{
		machine: state.Empty(), at: 1_800_000_000,
		keeper: keys.NewMemoryKeeper([32]byte{1}), source: keystest.Source(), pace: 50 * time.Millisecond,
		peers: []cluster.Status{{Member: cluster.Member{ID: "node-1", Address: "127.0.0.1:7301", Voter: true}, Leader: true, Healthy: true, Serving: true, Applied: 7}},
	}
}

func (r *replica) Waiting(_ context.Context, t state.Token) []cluster.BarrierWait {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waits
}

func (r *replica) BarrierWaits() []cluster.BarrierWait {
	return r.Waiting(context.Background(), state.Token{})
}

func (r *replica) ProofCheck(context.Context, state.Token) (cluster.ProofCheck, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proof, r.proof.Next != 0
}

func (r *replica) HandedOut(t state.Token, key uint32, signer string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handed = append(r.handed, fmt.Sprintf("%s/%d to %s", t, key, signer))
}

func (r *replica) KeyUse(context.Context, state.Token, ...uint32) map[uint32]cluster.KeyUse {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.uses
}

func (r *replica) FleetSigners(context.Context, state.Token) (cluster.FleetSigners, bool) {
	return r.signers, !r.signers.At.IsZero()
}

func (r *replica) Machine() state.Machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.machine
}

func (r *replica) Propose(_ context.Context, who cluster.Actor, commands ...state.Command) ([]state.Result, uint64, error) {
	if r.slow != nil {
		r.slow()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.actors = append(r.actors, who)
	if r.refuse != nil && !r.lost {
		return nil, 0, r.refuse
	}
	if r.between != nil {
		r.machine, _, _ = r.machine.Apply(r.machine.Index()+1, []state.Entry{{At: r.at, Command: r.between}})
		r.between = nil
	}
	entries := []state.Entry{}
	for i, c := range commands {
		entries = append(entries, state.Entry{At: r.at, Actor: who.ID, Source: who.Source, Reason: who.Reason, Once: who.Once.At(i), Command: c})
	}
	next, results, _ := r.machine.Apply(r.machine.Index()+1, entries)
	r.machine = next
	if r.since != nil {
		r.machine, _, _ = next.Apply(next.Index()+1, []state.Entry{{At: r.at, Actor: "admin-2", Reason: "cleaned up", Command: r.since(results[0].Token)}})
		r.since = nil
	}
	if r.refuse != nil {
		return nil, 0, r.refuse
	}
	return results, next.Index(), nil
}

func (r *replica) WaitApplied(ctx context.Context, index uint64) error {
	if r.Machine().Index() < index && r.arrives != nil {
		r.arrives()
	}
	if r.Machine().Index() < index {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (r *replica) WaitServed(_ context.Context, index uint64, questions ...zone.Question) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waited, r.shown = append(r.waited, index), questions
	return r.behind
}

func (r *replica) Members(context.Context) []cluster.Status { return r.peers }
func (r *replica) Leader() string {
	if r.follows {
		return "node-2"
	}
	return "node-1"
}
func (r *replica) Health() []string { return nil }

func (r *replica) NewToken() (state.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drawn++
	return state.Token{0: r.drawn, 15: 1}, nil
}

func (r *replica) ClaimKeys(ctx context.Context, t state.Token, mode keys.RingMode, algorithms []keys.Algorithm) (active, standby []keys.Material, err error) {
	if r.starved {
		<-ctx.Done()
		return nil, nil, fmt.Errorf("taking a key: %w", ctx.Err())
	}
	id := uint32(1)
	for _, list := range []*[]keys.Material{&active, &standby} {
		for _, a := range algorithms {
			pair, err := r.source.Take(ctx, a)
			if err != nil {
				return nil, nil, err
			}
			selector := keys.SlotLabel(a, 1)
			if list == &standby {
				selector = keys.SlotLabel(a, 2)
			}
			if mode == keys.Minted {
				selector = r.mint()
			}
			m, err := r.seal(t, id, selector, pair)
			if err != nil {
				return nil, nil, err
			}
			*list, id = append(*list, m), id+1
		}
	}
	return active, standby, nil
}

func (r *replica) mint() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.minted++
	return fmt.Sprintf("2701-aaaa%02d", r.minted)
}

func (r *replica) seal(t state.Token, id uint32, selector string, p *keys.Pair) (keys.Material, error) {
	sealed, err := r.keeper.Seal(rand.Reader, keys.Binding{Token: t.String(), Selector: selector, KeyID: id}, p.Compact())
	return keys.Material{Algorithm: p.Algorithm(), Selector: selector, Sealed: sealed, Payload: p.Payload(), ID: id}, err
}

func (r *replica) Materials(ctx context.Context, t state.Token, algorithms []keys.Algorithm) ([]keys.Material, error) {
	d, ok := r.Machine().Domain(t)
	if !ok {
		return nil, errors.New("no such claim")
	}
	ring := d.Ring()
	var list []keys.Material
	for i, a := range algorithms {
		pair, err := r.source.Take(ctx, a)
		if err != nil {
			return nil, err
		}
		place, err := ring.Place(a, r.at)
		if err != nil {
			return nil, err
		}
		if ring.Mode == keys.Minted {
			place.Selector = r.mint()
		}
		m, err := r.seal(t, place.ID+uint32(i), place.Selector, pair)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

func (r *replica) KeyPace(context.Context) (int, time.Duration) { return 2, r.pace }

func (r *replica) Import(t state.Token, id uint32, selector string, p *keys.Pair) (keys.Material, error) {
	if selector == "" {
		selector = r.mint()
	}
	m, err := r.seal(t, id, selector, p)
	m.Imported = true
	return m, err
}

func (r *replica) OpenKey(d *state.Domain, k keys.Key) (*keys.Pair, error) {
	if r.closed {
		return nil, errors.New("no such key-encryption key")
	}
	compact, err := r.keeper.Open(keys.Binding{Token: d.Token.String(), Selector: k.Selector, KeyID: k.ID}, k.Sealed)
	if err != nil {
		return nil, err
	}
	return keys.Restore(k.Payload, compact)
}

func (r *replica) Checks() []cluster.Check  { return r.checks }
func (r *replica) Figures() cluster.Figures { return r.figures }

func (r *replica) CheckState(context.Context) (cluster.CheckReport, error) {
	if r.refuse != nil {
		return cluster.CheckReport{}, r.refuse
	}
	sum := fmt.Sprintf("%016x", uint64(r.Machine().Sum()))
	return cluster.CheckReport{Index: r.Machine().Index(), Verdict: cluster.Agreed, Nodes: []cluster.NodeSum{{ID: "node-1", Sum: sum, Right: true}}}, nil
}

func (r *replica) Release(read cluster.KeyRead) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unwritable == nil {
		r.read = append(r.read, read)
	}
	return r.unwritable
}

func (r *replica) Invite(_ context.Context, _ cluster.Actor, m cluster.Member, life time.Duration) (cluster.JoinToken, time.Time, error) {
	return cluster.JoinToken{ID: m.ID}, time.Unix(0, 0).Add(life), nil
}

func (r *replica) SetAuthority(_ context.Context, _ cluster.Actor, certificate, _ []byte) error {
	if len(certificate) == 0 {
		return errors.New("setting the CA: no certificate")
	}
	return nil
}

func (r *replica) CertificateExpiry() time.Time { return time.Unix(4102444800, 0) }

func (r *replica) AddPeer(_ context.Context, m cluster.Member) error {
	r.peers = append(r.peers, cluster.Status{Member: m})
	return nil
}

func (r *replica) RemovePeer(_ context.Context, id string) error {
	if id == "node-1" {
		return errors.New("removing node-1: it is the last voter")
	}
	r.peers = r.peers[:1]
	return nil
}

func (r *replica) TransferLeader(_ context.Context, id string) error {
	if id == "" || !r.follows {
		return cluster.ErrNoLeader
	}
	r.follows = false
	return nil
}

func (r *replica) SaveSnapshot(_ context.Context, w io.Writer) (uint64, error) {
	if r.closed {
		io.WriteString(w, "half an im")
		return 0, errors.New("disk")
	}
	return 1, r.Machine().WriteImage(w)
}

func (r *replica) RestoreSnapshot(_ context.Context, who cluster.Actor, in io.Reader, withoutKeys bool) (uint64, error) {
	if r.follows {
		return 0, cluster.ErrNoLeader
	}
	m, err := state.ReadImage(in)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", cluster.ErrNotCommitted, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	note := state.Note{Kind: "cluster", Subject: m.Settings().ClusterID, Text: "replaced by a backup"}
	r.machine, _, _ = m.Apply(m.Index()+1, []state.Entry{{At: r.at, Actor: who.ID, Source: who.Source, Command: note}})
	return r.machine.Index(), nil
}

// parent is a Prober that says what a test wants.
type parent struct {
	ns  []zone.Name
	err error
	// records are in the customer's zone, "name type value".
	records []string
}

func (p *parent) Look(_ context.Context, _ zone.Name, questions []probe.Question) (probe.Sight, error) {
	sight := probe.Sight{Zone: mustName("customer.example"), Servers: []string{"a.nic.example/192.0.2.1"}, Answers: make([]probe.Answer, len(questions))}
	for i, q := range questions {
		a := &sight.Answers[i]
		a.Asked = true
		for _, text := range p.records {
			f := strings.SplitN(text, " ", 3)
			if mustName(f[0]) == q.Name && (f[1] == q.Type || f[1] == "CNAME" || f[1] == "NS") {
				a.Records = append(a.Records, probe.Record{Type: f[1], Value: f[2]})
			}
		}
	}
	return sight, p.err
}

func (p *parent) CNAMEs(ctx context.Context, names []zone.Name) (leads [][]zone.Name, servers []string, err error) {
	for _, n := range names {
		sight, _ := p.Look(ctx, n, []probe.Question{{Name: n, Type: "CNAME"}})
		found := []zone.Name{}
		for _, r := range sight.Answers[0].Records {
			if r.Type == "CNAME" {
				found = append(found, mustName(strings.TrimSuffix(r.Value, ".")))
			}
		}
		leads = append(leads, found)
	}
	return leads, []string{"a.nic.example/192.0.2.1"}, p.err
}

func (p *parent) Ask(context.Context, zone.Name) (probe.Delegation, error) {
	return probe.Delegation{Parent: mustName("customer.example"), Servers: []string{"a.nic.example/192.0.2.1"}, NS: p.ns}, p.err
}
