package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/keys/keystest"
	"authd/zone"
)

// authority is a CA of a test's own.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-365 * 24 * time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{t, cert, key, pool}
}

// tls is the configuration of a node with a certificate for name, and for others.
func (a *authority) tls(name string, others ...string) *tls.Config {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		DNSNames:  append([]string{name}, others...),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: a.cert.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(a.t, err)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		RootCAs:      a.pool, ClientCAs: a.pool,
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within is a context for something that must not take long.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// quick is a tuning for tests: short timers, the rest as in production.
func quick() tuning {
	t := defaultTuning()
	t.heartbeat, t.election, t.lease = 600*time.Millisecond, 600*time.Millisecond, 500*time.Millisecond
	t.patience = 10 * time.Second
	t.rotate = 200 * time.Millisecond
	t.stall = 2 * t.heartbeat
	t.disk = 20 * time.Millisecond
	t.certificates, t.promoteEvery, t.promoteAfter = 50*time.Millisecond, 50*time.Millisecond, 200*time.Millisecond
	t.recheck, t.checkWait = 200*time.Millisecond, time.Second
	t.piece = 1 << 10 // images of tests are small
	return t
}

// testCluster is nodes in this process, joined by TLS over loopback.
type testCluster struct {
	t       testing.TB
	ca      *authority
	dir     string
	tuning  tuning
	members []Member
	nodes   map[string]*Node
	keeper  keys.Keeper
	source  keys.Source   // of all nodes: each pair is given once
	config  func(*Config) // last changes
}

func newTestCluster(t testing.TB, size int) *testCluster {
	t.Helper()
	if t, ok := t.(*testing.T); ok {
		t.Parallel() // they mostly wait for timers
	}
	return anotherCluster(t, size)
}

// anotherCluster is a second one in a test.
func anotherCluster(t testing.TB, size int) *testCluster {
	t.Helper()
	c := &testCluster{
		t: t, ca: newAuthority(t), dir: t.TempDir(), tuning: quick(),
		nodes:  make(map[string]*Node),
		keeper: keys.NewMemoryKeeper([32]byte{1}), source: keystest.Source(),
		config: func(*Config) {},
	}
	for i, address := range freeAddresses(t, size) {
		c.members = append(c.members, Member{ID: fmt.Sprintf("node-%d", i+1), Address: address, Voter: true})
	}
	t.Cleanup(c.stopAll)
	return c
}

// freeAddresses are on a loopback address with ports that were free a moment ago.
// Each test has an address of its own, so that neither other tests nor outgoing
// connections take a port while its node is down.
func freeAddresses(t testing.TB, count int) []string {
	t.Helper()
	h := fnv.New32a()
	h.Write([]byte(t.Name()))
	ip := h.Sum32() | 1
	addresses := make([]string, count)
	for i := range addresses {
		l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+ip>>24%254, ip>>16&0xff, ip&0xff))
		must(t, err)
		defer l.Close() // once all are found
		addresses[i] = l.Addr().String()
	}
	return addresses
}

func (c *testCluster) member(id string) Member {
	for _, m := range c.members {
		if m.ID == id {
			return m
		}
	}
	c.t.Fatalf("no member %s", id)
	return Member{}
}

func (c *testCluster) data(id string) string { return filepath.Join(c.dir, id) }

func (c *testCluster) configOf(id string) Config {
	config := Config{
		ID: id, DataDir: c.data(id), Bind: c.member(id).Address,
		Bootstrap: c.members, TLS: c.ca.tls(id),
		Keeper: c.keeper, Source: c.source,
		Logger: slog.New(slog.NewTextHandler(logTo{c.t, id}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	c.config(&config)
	return config
}

// logTo shows a node's log with a failing test.
type logTo struct {
	t  testing.TB
	id string
}

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s: %s", l.id, strings.TrimSpace(string(b)))
	return len(b), nil
}

// open makes a node without starting it.
func (c *testCluster) open(id string) *Node {
	c.t.Helper()
	n, err := open(c.configOf(id), c.tuning)
	must(c.t, err)
	c.nodes[id] = n
	return n
}

func (c *testCluster) start(ids ...string) {
	c.t.Helper()
	for _, id := range ids {
		must(c.t, c.open(id).Start())
	}
}

func (c *testCluster) startAll() {
	c.t.Helper()
	for _, m := range c.members {
		c.start(m.ID)
	}
}

func (c *testCluster) stop(id string) {
	n := c.nodes[id]
	delete(c.nodes, id)
	if err := n.Close(within(c.t, 10*time.Second)); err != nil {
		c.t.Logf("closing %s: %v", id, err)
	}
}

// kill ends a node without hand-over: as far as others can see, it dies.
func (c *testCluster) kill(id string) {
	n := c.nodes[id]
	n.fence.trip(errors.New("killed by the test"))
	c.stop(id)
}

func (c *testCluster) stopAll() {
	for id := range c.nodes {
		c.stop(id)
	}
}

// eventually waits for a condition that others bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// anotherLeads waits until a node that is not the given one leads.
func (c *testCluster) anotherLeads(old *Node) {
	c.t.Helper()
	eventually(c.t, "another leader", func() bool {
		for _, n := range c.nodes {
			if n != old && n.leads() {
				return true
			}
		}
		return false
	})
}

// leader waits until all running nodes agree on a running leader.
func (c *testCluster) leader() *Node {
	c.t.Helper()
	var leader *Node
	eventually(c.t, "a leader", func() bool {
		leader = nil
		for _, n := range c.nodes {
			if n.leads() {
				leader = n
			}
		}
		if leader == nil {
			return false
		}
		for _, n := range c.nodes {
			if n.Leader() != leader.c.ID {
				return false
			}
		}
		return true
	})
	return leader
}

func (c *testCluster) follower() *Node {
	c.t.Helper()
	leader := c.leader()
	for _, n := range c.nodes {
		if n != leader {
			return n
		}
	}
	c.t.Fatal("no follower")
	return nil
}

// write adds a tenant through a node and returns the index.
func write(t testing.TB, n *Node, id string) uint64 {
	t.Helper()
	_, index := settle(t, n, state.AddTenant{ID: id, Name: id})
	return index
}

// settle proposes commands until it is known what they came to, and none is refused: on
// a busy machine a leader may fall meanwhile. Each is done once.
func settle(t testing.TB, n *Node, commands ...state.Command) (results []state.Result, index uint64) {
	t.Helper()
	request, err := n.NewToken()
	must(t, err)
	who := Actor{ID: "test", Once: state.MakeOnce("test", request.String())}
	for range 5 {
		if results, index, err = n.Propose(within(t, 20*time.Second), who, commands...); err == nil {
			break
		}
	}
	must(t, err)
	for i, r := range results {
		if r.Refusal != nil {
			t.Fatalf("%T: %v", commands[i], r.Refusal)
		}
	}
	return results, index
}

func (c *testCluster) waitAll(index uint64) {
	c.t.Helper()
	for _, n := range c.nodes {
		must(c.t, n.WaitApplied(within(c.t, 20*time.Second), index))
	}
}

func has(n *Node, tenant string) bool {
	_, ok := n.Machine().Tenant(tenant)
	return ok
}

func wantTenants(t testing.TB, n *Node, tenants ...string) {
	t.Helper()
	var have []string
	for x := range n.Machine().Tenants("") {
		have = append(have, x.ID)
	}
	if strings.Join(have, " ") != strings.Join(tenants, " ") {
		t.Fatalf("%s at index %d has tenants %v, want %v", n.c.ID, n.Machine().Index(), have, tenants)
	}
}

// wantNoDiff compares the index with one built from the machine, at a moment at
// which nothing is applied.
func wantNoDiff(t testing.TB, n *Node) {
	t.Helper()
	for {
		m, marked := n.Machine(), n.mark.get().Index
		diff := n.Tree().Diff(m.Tree())
		if diff == nil {
			return
		}
		if marked == m.Index() && n.mark.get().Index == marked { // nothing was under way: the mark is first
			t.Fatalf("%s: index differs from its machine at %d: %v", n.c.ID, m.Index(), diff)
		}
	}
}

func parseName(t testing.TB, text string) zone.Name {
	t.Helper()
	n, err := zone.ParseName(text)
	must(t, err)
	return n
}

// seed sets up a platform with a pool and a tenant.
func seed(t testing.TB, n *Node) {
	t.Helper()
	apex := parseName(t, "p-dns.test.")
	commands := []state.Command{
		state.SetSettings{Settings: state.Settings{VerificationOff: true, ClusterID: "test"}},
		state.PutPlatform{Apex: apex, Contact: parseName(t, "hostmaster.p-dns.test.")},
		state.PutNameServer{Label: "ns1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53")}},
		state.PutNameServer{Label: "ns2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.54")}},
		state.PutPool{ID: "default", Spec: state.PoolSpec{
			SPF: []string{"ip4:192.0.2.0/24"}, SPFAll: "~all",
			MX:     []zone.MX{{Preference: 10, Host: parseName(t, "mx1.p-dns.test.")}},
			ClickA: []netip.Addr{netip.MustParseAddr("192.0.2.80")},
			Policy: keys.DefaultPolicy(),
		}},
		state.AddTenant{ID: "acme", Name: "Acme"},
	}
	settle(t, n, commands...)
}

// claim adds a delegated domain and returns its token.
func claim(t testing.TB, n *Node, name string) state.Token {
	t.Helper()
	return claimFor(t, n, "acme", name)
}

func claimFor(t testing.TB, n *Node, tenant, name string) state.Token {
	t.Helper()
	return claimAs(t, n, tenant, name, zone.Delegated)
}

func claimAs(t testing.TB, n *Node, tenant, name string, mode zone.Mode) state.Token {
	t.Helper()
	ctx := within(t, 20*time.Second)
	token, err := n.NewToken()
	must(t, err)
	ring := keys.Minted
	if mode == zone.CNAME {
		ring = keys.Slots
	}
	active, standby, err := n.ClaimKeys(ctx, token, ring, []keys.Algorithm{keys.RSA2048})
	must(t, err)
	settle(t, n, state.AddDomain{
		Token: token, Name: parseName(t, name), Mode: mode, Tenant: tenant, Pool: "default",
		Registrable: parseName(t, "customer.test."), Active: active, Standby: standby,
	})
	return token
}
