package cluster

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// TestAllPrivateHalvesAreSealedAnewAcrossLeaders: it goes on where the leader that
// began is gone, and every key opens afterwards as before.
func TestAllPrivateHalvesAreSealedAnewAcrossLeaders(t *testing.T) {
	c := newTestCluster(t, 3)
	path := filepath.Join(c.dir, "kek")
	must(t, keys.NewKeeperFile(path, rand.Reader))
	keeper, err := keys.OpenKeeper(path)
	must(t, err)
	c.keeper = keeper
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	const claims = 12
	before := map[state.Token]string{}
	for n := range claims {
		add := c.claim(leader, fmt.Sprintf("customer-%d.test", n))
		before[add] = c.opened(leader, add)
	}
	version, err := keys.AddKeeperVersion(path)
	must(t, err)
	if got := leader.wrapVersion(); got != 1 {
		t.Fatalf("version %d is used before the cluster was told to", got)
	}
	for _, s := range leader.Members(within(t, 5*time.Second)) {
		if len(s.Wraps) != 2 || s.Wraps[1] != version {
			t.Errorf("%s says it holds %v", s.ID, s.Wraps)
		}
	}
	_, _, err = leader.Propose(within(t, 5*time.Second), Actor{ID: "test"}, state.SetWrap{Version: version})
	must(t, err)
	c.kill(leader.c.ID)
	leader = c.leader()
	eventually(t, "all is sealed anew", func() bool {
		m := leader.Machine()
		return m.WrapVersion() == version && m.ToRewrap() == 0 && len(m.SealedUnder()) == 1
	})
	for token, pem := range before {
		if got := c.opened(leader, token); got != pem {
			t.Errorf("claim %s has another key now", token)
		}
	}
	add := c.claim(leader, "later.test")
	d, _ := leader.Machine().Domain(add)
	for _, k := range d.Ring().Keys {
		if keys.SealedVersion(k.Sealed) != version {
			t.Errorf("a new key is sealed under version %d", keys.SealedVersion(k.Sealed))
		}
	}
}

// TestOldKeyEncryptionKeyIsNotNeededForTheCA: once all is sealed anew its line may
// go, and nodes join as before.
func TestOldKeyEncryptionKeyIsNotNeededForTheCA(t *testing.T) {
	c := newTestCluster(t, 1)
	path := filepath.Join(c.dir, "kek")
	must(t, keys.NewKeeperFile(path, rand.Reader))
	open := func() {
		keeper, err := keys.OpenKeeper(path)
		must(t, err)
		c.keeper = keeper
	}
	open()
	c.startAll()
	c.withAuthority()
	version, err := keys.AddKeeperVersion(path)
	must(t, err)
	_, _, err = c.leader().Propose(within(t, 5*time.Second), Actor{ID: "test"}, state.SetWrap{Version: version})
	must(t, err)
	eventually(t, "the CA's key is sealed anew", func() bool {
		under := c.leader().Machine().SealedUnder()
		return len(under) == 1 && under[version] == 1
	})
	text, err := os.ReadFile(path)
	must(t, err)
	lines := strings.SplitAfter(strings.TrimSpace(string(text)), "\n")
	must(t, os.WriteFile(path, []byte(lines[len(lines)-1]), 0o600))
	c.kill("node-1")
	open()
	if held := c.keeper.Versions(); len(held) != 1 || held[0] != version {
		t.Fatalf("the file holds %v still: the test shows nothing", held)
	}
	c.start("node-1")
	c.leader()
	c.join(t, "node-2", false)
}

// claim adds a domain in CNAME mode with keys of the source.
func (c *testCluster) claim(n *Node, domain string) state.Token {
	c.t.Helper()
	name, err := zone.ParseName(domain)
	must(c.t, err)
	token, err := n.NewToken()
	must(c.t, err)
	add := state.AddDomain{Token: token, Name: name, Registrable: name, Mode: zone.CNAME, Tenant: "acme", Pool: "default"}
	ctx := within(c.t, 20*time.Second)
	add.Active, add.Standby, err = n.ClaimKeys(ctx, token, keys.Slots, []keys.Algorithm{keys.RSA2048})
	must(c.t, err)
	results, _, err := n.Propose(ctx, Actor{ID: "test"}, add)
	must(c.t, err)
	if results[0].Refusal != nil {
		c.t.Fatal(results[0].Refusal)
	}
	return token
}

// opened is the active private half of a claim.
func (c *testCluster) opened(n *Node, token state.Token) string {
	c.t.Helper()
	d, ok := n.Machine().Domain(token)
	if !ok {
		c.t.Fatalf("no claim %s", token)
	}
	k, _ := d.Ring().Active(keys.RSA2048)
	p, err := n.OpenKey(d, k)
	must(c.t, err)
	return string(p.PKCS8())
}
