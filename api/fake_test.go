package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
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

func (p *parent) Ask(context.Context, zone.Name) (probe.Delegation, error) {
	return probe.Delegation{Parent: mustName("customer.example"), Servers: []string{"a.nic.example/192.0.2.1"}, NS: p.ns}, p.err
}

// house is an API with its replica, platform zone, name servers, pools, two
// tenants and a token of each scope.
type house struct {
	*testing.T
	*replica
	handler *Handler
	parent  *parent
	log     *bytes.Buffer
	now     time.Time
	tokens  map[string]string // secret by scope
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{T: t, replica: newReplica(), parent: &parent{}, log: &bytes.Buffer{}, tokens: map[string]string{}}
	h.now = time.Unix(h.at, 0)
	var err error
	h.handler, err = New(Config{
		ConfirmWait: time.Millisecond,
		Replica:     h.replica, Prober: h.parent, Logger: slog.New(slog.NewTextHandler(h.log, nil)),
		NodeID: "node-1", Version: "test", Now: func() time.Time { return h.now },
		Census: new(zone.Census),
		DNSStats: func() zone.Stats {
			return zone.Stats{Queries: map[string]uint64{"udp/ipv4/TXT": 3}, Responses: map[string]uint64{"udp/NOERROR": 3}, Outcomes: map[string]uint64{"udp/Found": 3},
				Limited: map[string]uint64{"answer": 1}, Durations: map[string]zone.Durations{"udp": {
					Bounds: []time.Duration{2 * time.Microsecond, 4 * time.Microsecond}, Counts: []uint64{1, 1, 1}, Sum: 10 * time.Microsecond,
				}}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, scope := range []string{"admin", "read", "signer"} {
		h.grant(state.AccessToken{Scope: state.Scope(scope)})
	}
	h.must(http.StatusOK, "PUT", "/v1/nameservers/ns1", `{"addresses":["192.0.2.53","2001:db8::53"]}`)
	h.must(http.StatusOK, "PUT", "/v1/nameservers/ns2", `{"addresses":["198.51.100.53"]}`)
	h.must(http.StatusOK, "PUT", "/v1/zones/p-dns.test", `{"contact":"host.master@p-dns.test"}`)
	h.must(http.StatusOK, "PUT", "/v1/pools/default", `{"spf":["ip4:192.0.2.0/24"],"spf_all":"~all","mx":[{"preference":10,"host":"mx1.p-dns.test."}],
		"click":{"a":["192.0.2.80"],"aaaa":["2001:db8::80"],"cname":""},"dmarc":"","dkim":{"algorithms":["rsa2048"],"period":"2160h"}}`)
	h.must(http.StatusOK, "PUT", "/v1/pools/both", `{"spf":["ip4:198.51.100.0/24"],"dkim":{"algorithms":["rsa2048","ed25519"]}}`)
	h.must(http.StatusCreated, "POST", "/v1/tenants", `{"id":"acme","name":"Acme"}`)
	h.must(http.StatusCreated, "POST", "/v1/tenants", `{"id":"globex","name":"Globex"}`)
	h.grant(state.AccessToken{Scope: "tenant:acme"})
	h.grant(state.AccessToken{Scope: "tenant:globex"})
	return h
}

// grant adds a token beside the API.
func (h *house) grant(access state.AccessToken) string {
	h.Helper()
	secret, err := MintSecret(rand.Reader, &access)
	if err != nil {
		h.Fatal(err)
	}
	results, _, err := h.Propose(context.Background(), cluster.Actor{ID: "test"}, state.AddAccessToken{Access: access})
	if err != nil || results[0].Refusal != nil {
		h.Fatal(err, results)
	}
	h.tokens[string(access.Scope)] = secret
	return secret
}

// answered is a reply with its body read.
type answered struct {
	*httptest.ResponseRecorder
	problem Problem // where it is one
}

// ask sends a request as admin.
func (h *house) ask(method, path, body string) answered {
	h.Helper()
	return h.as("admin", method, path, body)
}

// as sends a request with the token of a scope.
func (h *house) as(scope, method, path, body string) answered {
	h.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if scope != "" {
		r.Header.Set("Authorization", "Bearer "+h.tokens[scope])
	}
	return h.send(r)
}

func (h *house) send(r *http.Request) answered {
	h.Helper()
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	out := answered{ResponseRecorder: w}
	if w.Header().Get("X-Authd-Index") == "" {
		h.Errorf("%s %s: the reply has no X-Authd-Index", r.Method, r.URL)
	}
	if w.Code >= 400 && w.Header().Get("Content-Type") == "application/problem+json" {
		if err := json.Unmarshal(w.Body.Bytes(), &out.problem); err != nil {
			h.Errorf("%s %s: the problem is no JSON: %v", r.Method, r.URL, err)
		}
		if p := out.problem; p.Status != w.Code || p.Title == "" || p.Type == "" || p.Code == "" || p.Detail == "" {
			h.Errorf("%s %s: the problem is not complete: %s", r.Method, r.URL, w.Body)
		}
	}
	return out
}

// must sends a request as admin that has to come to a status.
func (h *house) must(status int, method, path, body string) answered {
	h.Helper()
	a := h.ask(method, path, body)
	if a.Code != status {
		h.Fatalf("%s %s: %d, not %d\n%s\n%s", method, path, a.Code, status, a.Body, h.log)
	}
	return a
}

// read decodes a reply into T.
func read[T any](h *house, a answered) (v T) {
	h.Helper()
	if err := json.Unmarshal(a.Body.Bytes(), &v); err != nil {
		h.Fatalf("%v in %s", err, a.Body)
	}
	return v
}

// image is the machine as bytes but for its index, which a refused command
// advances too: to see whether anything changed.
func (h *house) image() []byte {
	h.Helper()
	var b bytes.Buffer
	m, _, _ := h.Machine().Apply(0, nil)
	if err := m.WriteImage(&b); err != nil {
		h.Fatal(err)
	}
	return b.Bytes()
}

// claim adds a domain and gives it as the API shows it.
func (h *house) claim(tenant, domain, mode string) Domain {
	h.Helper()
	body := fmt.Sprintf(`{"domain":%q,"mode":%q,"pool":"default"}`, domain, mode)
	return read[Domain](h, h.must(http.StatusCreated, "POST", "/v1/tenants/"+tenant+"/domains", body))
}

// live adds a delegated domain that is proven.
func (h *house) live(tenant, domain string) Domain {
	h.Helper()
	d := h.claim(tenant, domain, "delegated")
	return read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/attest", `{"reason":"seen at the registrar"}`))
}

func mustName(text string) zone.Name {
	n, err := zone.ParseName(text)
	if err != nil {
		panic(err)
	}
	return n
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// newRequest is a request without a token.
func newRequest(method, path, body string) *http.Request {
	return httptest.NewRequest(method, path, strings.NewReader(body))
}

// contextWithoutTime is one whose time is over.
func contextWithoutTime() (context.Context, context.CancelFunc) {
	return context.WithDeadline(context.Background(), time.Unix(0, 0))
}

// within sends a request as admin with a context.
func (h *house) within(ctx context.Context, method, path, body string) answered {
	h.Helper()
	r := newRequest(method, path, body).WithContext(ctx)
	r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
	return h.send(r)
}
