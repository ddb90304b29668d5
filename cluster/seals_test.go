package cluster

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"authd/keys"
	"authd/keys/keystest"
)

// versions is a keeper that says it holds others.
type versions struct {
	keys.Keeper
	held []uint16
}

func (v versions) Versions() []uint16 { return v.held }

func checkOf(n *Node, name string) Check {
	for _, k := range n.Checks() {
		if k.Name == name {
			return k
		}
	}
	return Check{}
}

// The key-encryption key of another cluster, or one that lacks a version, is found
// before a signer asks; DNS goes on.
func TestReadyTellsThatPrivateHalvesCannotBeOpened(t *testing.T) {
	c := newTestCluster(t, 1)
	c.startAll()
	n := c.leader()
	seed(t, n)
	if k := checkOf(n, "kek"); !k.OK || k.Name == "" {
		t.Errorf("without any key: %+v", k)
	}
	for _, name := range []string{"a.customer.test.", "b.customer.test."} {
		claim(t, n, name)
	}
	for range 5 { // one claim after the other, and round again
		n.seals.tried = time.Time{}
		if k := checkOf(n, "kek"); !k.OK {
			t.Errorf("with the right one: %+v", k)
		}
	}
	right := c.keeper
	for _, x := range []struct {
		keeper keys.Keeper
		says   string
	}{
		{keys.NewMemoryKeeper([32]byte{2}), "cannot be opened"},
		{versions{right, []uint16{2, 3}}, "sealed under version 1 of the key-encryption key, and keys.kek_file of this node holds [2 3]"},
	} {
		c.stop("node-1")
		c.keeper = x.keeper
		c.start("node-1")
		n := c.leader()
		if k := checkOf(n, "kek"); k.OK || k.Blocks || !k.API || !strings.Contains(k.Detail, x.says) {
			t.Errorf("%+v, want %s", k, x.says)
		}
	}
}

// brokenMill is a source that makes nothing any more.
type brokenMill struct{ keys.Source }

func (brokenMill) Fault() error { return errors.New("the mill's child ended: no entropy today") }

func TestReadyTellsThatNoKeysAreMade(t *testing.T) {
	c := newTestCluster(t, 1)
	c.source = brokenMill{keystest.Source()}
	c.startAll()
	if k := checkOf(c.leader(), "mill"); k.OK || k.Blocks || k.API || !strings.Contains(k.Detail, "no entropy today") {
		t.Errorf("%+v", k)
	}
}

// A node lives on with the keys that it read, but would not start again.
func TestReadyTellsThatTheFileOfKeysIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if err := keys.NewKeeperFile(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c := newTestCluster(t, 1)
	if c.keeper, err = keys.OpenKeeper(path); err != nil {
		t.Fatal(err)
	}
	c.startAll()
	n := c.leader()
	for _, x := range []struct {
		content []byte
		ok      bool
	}{{good, true}, {[]byte("not a key at all\n"), false}, {nil, false}, {good, true}} {
		if x.content == nil {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, x.content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		k := checkOf(n, "kek_file")
		if k.OK != x.ok || k.Blocks || k.API || !x.ok && !strings.Contains(k.Detail, "copy the file of another node") {
			t.Errorf("%q: %+v", x.content, k)
		}
	}
}
