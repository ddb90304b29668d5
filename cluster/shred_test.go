package cluster

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
	"authd/keys"
)

// holders are the files below a directory that hold octets.
func holders(t *testing.T, dir string, wanted []byte) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file that was being replaced
		}
		if err == nil && bytes.Contains(text, wanted) {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	}))
	return names
}

// TestSealedHalfOfADeletedKeyIsDestroyed: it leaves the machine with its key, what
// is written of it afterwards, the log when that is compacted, and the snapshots of
// before. What may linger are pages of the log's file that are free and not used
// again yet: another key-encryption key makes them worthless.
func TestSealedHalfOfADeletedKeyIsDestroyed(t *testing.T) {
	c := newTestCluster(t, 1)
	path := filepath.Join(c.dir, "kek")
	must(t, keys.NewKeeperFile(path, rand.Reader))
	var err error
	c.keeper, err = keys.OpenKeeper(path)
	must(t, err)
	c.startAll()
	n := c.leader()
	seed(t, n)
	token := c.claim(n, "gone.test")
	kept := c.claim(n, "kept.test")
	d, _ := n.Machine().Domain(token)
	k, ok := d.Ring().Active(keys.RSA2048)
	if !ok || len(k.Sealed) < 100 {
		t.Fatalf("%d octets are sealed", len(k.Sealed))
	}
	half := bytes.Clone(k.Sealed[oldPart:]) // without the version and nonce, which Rewrap repeats
	binding := keys.Binding{Token: token.String(), Selector: k.Selector, KeyID: k.ID}
	sealed := bytes.Clone(k.Sealed)
	compactions := 0
	compact := func() {
		t.Helper()
		compactions++
		config := n.raft().ReloadableConfig()
		config.TrailingLogs = 1
		must(t, n.raft().ReloadConfig(config))
		must(t, n.raft().Snapshot().Error())
		write(t, n, fmt.Sprintf("after-%d", compactions))
	}
	present := func(in string) {
		t.Helper()
		if found := strings.Join(holders(t, c.data("node-1"), half), " "); !strings.Contains(found, in) {
			t.Fatalf("the half is in %q while the key signs, not in %s: the test looks for the wrong thing", found, in)
		}
	}
	present("raft.db")
	compact()
	present("snapshots")

	propose := func(command state.Command) {
		t.Helper()
		results, _, err := n.Propose(within(t, changeTime), Actor{ID: "test", Reason: "test"}, command)
		must(t, err)
		if results[0].Refusal != nil {
			t.Fatal(results[0].Refusal)
		}
	}
	propose(state.LeaveDomain{Token: token, Now: true})
	var image bytes.Buffer
	must(t, n.Machine().WriteImage(&image))
	if bytes.Contains(image.Bytes(), half) {
		t.Error("the half is in the image of a machine without its key")
	}
	for range keptSnapshots {
		compact()
	}
	first, err := n.store.FirstIndex()
	must(t, err)
	last, err := n.store.LastIndex()
	must(t, err)
	for i := first; i <= last; i++ {
		var l raft.Log
		if must(t, n.store.GetLog(i, &l)); bytes.Contains(l.Data, half) {
			t.Errorf("entry %d of the log holds the half", i)
		}
	}
	for _, name := range holders(t, c.data("node-1"), half) {
		if name != "raft.db" {
			t.Errorf("%s holds the half", name)
			continue
		}
		t.Log("a free page of raft.db holds the half")
	}

	// Another key-encryption key, and the old one's line is gone: nothing opens it.
	version, err := keys.AddKeeperVersion(path)
	must(t, err)
	propose(state.SetWrap{Version: version})
	eventually(t, "all is sealed anew", func() bool { return len(n.Machine().SealedUnder()) == 1 && n.Machine().ToRewrap() == 0 })
	if _, err := c.keeper.Open(binding, sealed); err != nil {
		t.Fatalf("while the old key is there: %v", err)
	}
	text, err := os.ReadFile(path)
	must(t, err)
	lines := strings.SplitAfter(strings.TrimSpace(string(text)), "\n")
	must(t, os.WriteFile(path, []byte(lines[len(lines)-1]), 0o600))
	c.keeper.Versions() // looks at the file
	if _, err := c.keeper.Open(binding, sealed); err == nil {
		t.Error("a half that was sealed under the old key-encryption key opens without it")
	}
	c.opened(n, kept)
}
