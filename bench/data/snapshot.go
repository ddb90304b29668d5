//go:build lab

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// snapshot puts the machine into every node of the cluster as the only thing
// that its disk holds: a snapshot of Raft's. The nodes start from it as they
// would after a night, with no log to replay.
func (w *world) snapshot() error {
	nodes, err := w.nodes()
	if err != nil {
		return err
	}
	var members raft.Configuration
	for _, n := range nodes {
		members.Servers = append(members.Servers, raft.Server{ID: raft.ServerID(n.id), Address: raft.ServerAddress(n.link)})
	}
	for _, n := range nodes {
		dir := filepath.Join(w.cluster, n.id)
		for _, old := range []string{"raft.db", "mark", "met", "snapshots"} {
			if err := os.RemoveAll(filepath.Join(dir, old)); err != nil {
				return err
			}
		}
		machine := w.machine
		if n.id == w.behind {
			machine = w.founded
		}
		if err := snapshotTo(dir, machine, members); err != nil {
			return fmt.Errorf("snapshot of %s: %w", n.id, err)
		}
	}
	return nil
}

func snapshotTo(dir string, machine state.Machine, members raft.Configuration) error {
	store, err := raft.NewFileSnapshotStoreWithLogger(dir, 1, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	const term = 1
	_, encoder := raft.NewInmemTransport("") // only writes the members down
	sink, err := store.Create(raft.SnapshotVersionMax, machine.Index(), term, members, 1, encoder)
	if err != nil {
		return err
	}
	if err := machine.WriteImage(io.Writer(sink)); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// member is a node of the cluster.
type member struct{ id, link string }

// linkListen finds the address of the node link in a node's file.
var linkListen = regexp.MustCompile(`(?s)\[link\][^\[]*?\nlisten\s*=\s*"([^"]+)"`)

// nodes reads the nodes' names and links from their files.
func (w *world) nodes() ([]member, error) {
	files, err := filepath.Glob(filepath.Join(w.cluster, "node-*.toml"))
	if err != nil {
		return nil, err
	}
	var list []member
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		link := linkListen.FindSubmatch(text)
		if link == nil {
			return nil, fmt.Errorf("%s has no listen in [link]", file)
		}
		id := strings.TrimSuffix(filepath.Base(file), ".toml")
		list = append(list, member{id, string(link[1])})
	}
	if len(list) != 3 {
		return nil, fmt.Errorf("%d nodes in %s, want 3: run `authd dev --empty --data %[2]s` and stop it", len(list), w.cluster)
	}
	return list, nil
}
