package cluster

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"authd/cluster/state"
)

// withAuthority gives the cluster its CA.
func (c *testCluster) withAuthority() {
	c.t.Helper()
	a, err := SealAuthority(c.keeper, c.leader().wrapVersion(), c.ca.cert, c.ca.key)
	must(c.t, err)
	settle(c.t, c.leader(), state.SetAuthority{Authority: a})
}

// request is a new key and a request for its certificate.
func request(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := NewCertificateKey()
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	return key, csr
}

// identity writes a certificate and the CA into files.
func identity(t testing.TB, id string, ca []byte, chain [][]byte, key *ecdsa.PrivateKey) IdentityConfig {
	t.Helper()
	dir := t.TempDir()
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	c := IdentityConfig{
		ID: id, CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "cert.pem"),
		KeyFile: filepath.Join(dir, "key.pem"), Renewed: filepath.Join(dir, "renewed.pem"),
	}
	must(t, os.WriteFile(c.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca}), 0o600))
	must(t, os.WriteFile(c.CertFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[0]}), 0o600))
	must(t, os.WriteFile(c.KeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	return c
}

// identity is node-1's, by a certificate of the cluster's CA that begins at a time.
func (c *testCluster) identity(t *testing.T, hosts []string, begins time.Time) (*Identity, IdentityConfig) {
	t.Helper()
	key, err := NewCertificateKey()
	must(t, err)
	der, err := IssueCertificate(c.ca.cert, c.ca.key, key.Public(), "node-1", hosts, begins, begins.Add(CertificateLife))
	must(t, err)
	files := identity(t, "node-1", c.ca.cert.Raw, [][]byte{der}, key)
	who, err := OpenIdentity(files)
	must(t, err)
	return who, files
}

// join brings a new node in with a token, and starts it.
func (c *testCluster) join(t *testing.T, id string, voter bool) *Node {
	t.Helper()
	m := Member{ID: id, Address: freeAddresses(t, 1)[0], Voter: voter}
	token, _, err := c.leader().Invite(within(t, 10*time.Second), Actor{ID: "test"}, m, time.Hour)
	must(t, err)
	key, csr := request(t)
	var via string
	for id := range c.nodes { // any member will do
		via = c.member(id).Address
	}
	joined, err := Join(within(t, 10*time.Second), via, token, csr)
	must(t, err)
	who, err := OpenIdentity(identity(t, id, joined.Chain[1], joined.Chain, key))
	must(t, err)
	c.members = append(slices.Clone(c.members), m)
	before := c.config
	c.config = func(config *Config) {
		before(config)
		if config.ID == id {
			config.Identity, config.Bootstrap = who, nil
		}
	}
	c.start(id)
	n := c.nodes[id]
	if index := n.AskPeers(within(t, 20*time.Second)); index == Never {
		t.Fatalf("%s was not told that it is a member", id)
	} else {
		must(t, n.WaitApplied(within(t, 20*time.Second), index))
	}
	n.SetServing(true)
	return n
}

func TestNodeJoinsWithATokenAndGetsItsVoteWhenItHasCaughtUp(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.withAuthority()
	write(t, c.leader(), "acme")
	n := c.join(t, "node-4", true)
	wantTenants(t, n, "acme")
	eventually(t, "the vote of node-4", func() bool { return c.leader().votes("node-4") })
	eventually(t, "the end of its invitation", func() bool {
		_, ok := c.leader().Machine().Invited("node-4")
		return !ok
	})
	if other := c.join(t, "node-5", false); !contains(other.members(), "node-5") || other.votes("node-5") {
		t.Errorf("members %v", other.members())
	}
}

func TestLostVoterIsReplacedByAnother(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	c.withAuthority()
	write(t, c.leader(), "acme")
	c.kill("node-3")
	must(t, c.leader().RemovePeer(within(t, 10*time.Second), "node-3"))
	must(t, os.RemoveAll(c.data("node-3")))
	c.members = slices.DeleteFunc(slices.Clone(c.members), func(m Member) bool { return m.ID == "node-3" })
	c.join(t, "node-3", true) // the same name, with nothing of the old one's
	eventually(t, "the vote of node-3", func() bool { return c.leader().votes("node-3") })
	// It counts: the cluster writes on without another one.
	for id, n := range c.nodes {
		if id != "node-3" && !n.leads() {
			c.kill(id)
			break
		}
	}
	must(t, c.nodes["node-3"].WaitApplied(within(t, 10*time.Second), write(t, c.leader(), "zeta")))
	wantTenants(t, c.nodes["node-3"], "acme", "zeta")
}

func TestJoinTokensAreNotGoodTwiceNorElsewhere(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	m := Member{ID: "node-4", Address: "127.0.0.1:7304"}
	if _, _, err := c.leader().Invite(within(t, 5*time.Second), Actor{}, m, time.Hour); err == nil || !strings.Contains(err.Error(), "no CA") {
		t.Errorf("without a CA: %v", err)
	}
	c.withAuthority()
	token, _, err := c.leader().Invite(within(t, 5*time.Second), Actor{}, m, time.Hour)
	must(t, err)
	read, err := ParseJoinToken(token.Text())
	if err != nil || read != token {
		t.Errorf("%v: %+v", err, read)
	}
	_, csr := request(t)
	via := c.member("node-1").Address
	ask := func(token JoinToken, csr []byte) error {
		_, err := Join(within(t, 10*time.Second), via, token, csr)
		return err
	}
	refused := func(what string, err error, word string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v, want an error that says %q", what, err, word)
		}
	}
	wrong := token
	wrong.Secret[3]++
	refused("another secret", ask(wrong, csr), "not known here")
	wrong = token
	wrong.ID = "node-5"
	refused("another node", ask(wrong, csr), "not known here")
	wrong = token
	wrong.Fingerprint[3]++
	refused("another cluster", ask(wrong, csr), "its CA is another one")
	refused("no request", ask(token, []byte("csr")), "certificate request")
	if contains(c.leader().members(), "node-4") {
		t.Fatal("a node was added with a bad token")
	}
	must(t, ask(token, csr))
	refused("again", ask(token, csr), "used before")
	image := new(bytes.Buffer)
	_, err = c.leader().SaveSnapshot(within(t, 5*time.Second), image)
	must(t, err)
	if bytes.Contains(image.Bytes(), token.Secret[:]) {
		t.Error("the secret of the token is in the state")
	}
	private, err := c.ca.key.Bytes()
	must(t, err)
	if bytes.Contains(image.Bytes(), private) {
		t.Error("the CA's key is in the state, unsealed")
	}
	for _, bad := range []string{"", "authd_join_node", "authd_join_node-4_00_00", strings.ToUpper(token.Text()), token.Text() + "0", "authd_x" + token.Text()} {
		if _, err := ParseJoinToken(bad); err == nil || bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCertificateRenewsItselfBeforeItEnds(t *testing.T) {
	c := newTestCluster(t, 1)
	who, files := c.identity(t, []string{"192.0.2.1", "ns.p-dns.test"}, time.Now().Add(-CertificateLife*3/4))
	old := who.Certificate().Leaf
	c.config = func(config *Config) { config.Identity = who }
	c.startAll()
	if who.Certificate().Leaf != old {
		t.Fatal("renewed without a CA")
	}
	c.withAuthority()
	eventually(t, "a renewed certificate", func() bool { return who.Certificate().Leaf.NotAfter.After(old.NotAfter) })
	leaf := who.Certificate().Leaf
	if nodeName(leaf) != "node-1" || !slices.Equal(hostsOf(leaf), hostsOf(old)) || len(hostsOf(leaf)) != 2 {
		t.Errorf("renewed for %s and %v", nodeName(leaf), hostsOf(leaf))
	}
	if info, err := os.Stat(files.Renewed); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	again, err := OpenIdentity(files)
	must(t, err)
	if !again.Certificate().Leaf.Equal(leaf) {
		t.Error("after a restart the old certificate is used")
	}
	// A renewed file that is broken is not used, and stops nothing.
	must(t, os.WriteFile(files.Renewed, []byte("no PEM"), 0o600))
	if again, err = OpenIdentity(files); err != nil || !again.Certificate().Leaf.Equal(old) {
		t.Errorf("with a broken renewed file: %v", err)
	}
}

func TestCertificateRenewedByAClockAheadIsGoodNow(t *testing.T) {
	c := newTestCluster(t, 3) // one alone is the majority
	who, _ := c.identity(t, nil, time.Now())
	old := who.Certificate().Leaf
	var ahead atomic.Int64
	c.config = func(config *Config) {
		if config.ID == "node-1" {
			config.Identity = who
			config.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		}
	}
	c.startAll()
	c.withAuthority()
	if n := c.leader(); n.c.ID == "node-1" { // its leaps are found by the monotonic clock, which this one has none of
		must(t, n.transfer(within(t, 10*time.Second), ""))
		c.leader()
	}
	ahead.Store(int64(200 * day))
	eventually(t, "a renewed certificate", func() bool { return who.Certificate().Leaf.NotAfter.After(old.NotAfter) })
	if leaf := who.Certificate().Leaf; leaf.NotBefore.After(time.Now()) {
		t.Errorf("peers refuse it until %s", leaf.NotBefore)
	}
}

func TestCertificateThatCannotBeRenewedIsTold(t *testing.T) {
	c := newTestCluster(t, 1)
	who, _ := c.identity(t, nil, time.Now())
	now := time.Now()
	c.config = func(config *Config) {
		config.Identity, config.Now = who, func() time.Time { return now }
	}
	n := c.open("node-1")
	for _, at := range []struct {
		after time.Duration
		want  string
	}{{0, ""}, {-certificateWarning + time.Hour, "ends in 8 days"}, {time.Hour, "expired on"}} {
		if at.want != "" {
			now = who.Certificate().Leaf.NotAfter.Add(at.after)
		}
		if got := n.certificateProblem(); !strings.Contains(got, at.want) || (got == "") != (at.want == "") {
			t.Errorf("%s from the end: %q", at.after, got)
		}
		if check := checkOf(n, "certificate"); check.Name == "" || check.OK != (at.want == "") || check.Blocks {
			t.Errorf("%s from the end: /ready says %+v", at.after, check)
		}
	}
}

// The way from one CA to the next (README, runbook): trust both, change, forget the old.
func TestClusterMovesToAnotherAuthority(t *testing.T) {
	c := newTestCluster(t, 1)
	who, files := c.identity(t, nil, time.Now())
	old := who.Certificate().Leaf
	c.config = func(config *Config) { config.Identity = who }
	c.startAll()
	c.withAuthority()
	next := newAuthority(t)
	c.ca = next
	c.withAuthority() // too early: nobody trusts it, so nothing changes
	time.Sleep(4 * c.tuning.certificates)
	if who.Certificate().Leaf.CheckSignatureFrom(next.cert) == nil {
		t.Fatal("a certificate of a CA that is not trusted is in use")
	}
	f, err := os.OpenFile(files.CAFile, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	must(t, pem.Encode(f, &pem.Block{Type: "CERTIFICATE", Bytes: next.cert.Raw}))
	must(t, f.Close())
	eventually(t, "a certificate of the new CA", func() bool { return who.Certificate().Leaf.CheckSignatureFrom(next.cert) == nil })
	must(t, os.WriteFile(files.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: next.cert.Raw}), 0o600))
	eventually(t, "the old CA forgotten", func() bool { return !trusted(old, who.Roots()) })
}
