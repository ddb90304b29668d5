package cluster

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// linkedTransport is a node's transport over its link.
func linkedTransport(t *testing.T, l *link) *transport {
	t.Helper()
	logger := raftLogger(slog.New(slog.DiscardHandler))
	w := newTransport(newNetwork(outgoing{raftStreams{l}}, logger), newFence(slog.New(slog.DiscardHandler)))
	t.Cleanup(func() { w.Close() })
	go w.run()
	go w.takeIn(raftStreams{l})
	return w
}

// A node with a certificate of the cluster cannot vote, lead or send snapshots in
// another's name.
func TestNodeCannotSpeakForAnother(t *testing.T) {
	ca := newAuthority(t)
	members := []string{"node-1", "node-2", "node-3"}
	hearing, speaking := testLink(t, ca.tls("node-1"), "node-1", members...), testLink(t, ca.tls("node-2"), "node-2", members...)
	hearing.memberAt = func(address string) string {
		return map[string]string{"192.0.2.2:7301": "node-2", "192.0.2.3:7301": "node-3"}[address]
	}
	to, from := linkedTransport(t, hearing), linkedTransport(t, speaking)
	at := raft.ServerAddress(hearing.listener.Addr().String())

	send := map[string]func(raft.RPCHeader) error{
		"entries": func(h raft.RPCHeader) error {
			return from.AppendEntries("node-1", at, &raft.AppendEntriesRequest{RPCHeader: h, Term: 7}, new(raft.AppendEntriesResponse))
		},
		"a vote": func(h raft.RPCHeader) error {
			return from.RequestVote("node-1", at, &raft.RequestVoteRequest{RPCHeader: h, Term: 7}, new(raft.RequestVoteResponse))
		},
		"a vote before the vote": func(h raft.RPCHeader) error {
			return from.RequestPreVote("node-1", at, &raft.RequestPreVoteRequest{RPCHeader: h, Term: 7}, new(raft.RequestPreVoteResponse))
		},
		"a call to stand": func(h raft.RPCHeader) error {
			return from.TimeoutNow("node-1", at, &raft.TimeoutNowRequest{RPCHeader: h}, new(raft.TimeoutNowResponse))
		},
		"a snapshot": func(h raft.RPCHeader) error {
			return from.InstallSnapshot("node-1", at, &raft.InstallSnapshotRequest{RPCHeader: h, Term: 7, Size: 5}, new(raft.InstallSnapshotResponse), strings.NewReader("state"))
		},
	}
	header := func(id, address string) raft.RPCHeader {
		return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(id), Addr: []byte(address)}
	}
	for what, do := range send {
		before := hearing.refused.Load()
		for _, lie := range []struct {
			header raft.RPCHeader
			says   string
		}{
			{header("node-3", "192.0.2.2:7301"), `of node "node-3" came with the certificate of node "node-2"`},
			{header("", "192.0.2.2:7301"), `of node "" came with`},
			{header("node-2", "192.0.2.3:7301"), `the address of node "node-3"`},
		} {
			if err := do(lie.header); err == nil || !strings.Contains(err.Error(), lie.says) {
				t.Errorf("%s as %q at %q: %v", what, lie.header.ID, lie.header.Addr, err)
			}
		}
		if n := hearing.refused.Load() - before; n != 3 {
			t.Errorf("%s: %d refusals counted", what, n)
		}
		answered := make(chan error, 1)
		go func() { answered <- do(header("node-2", "192.0.2.2:7301")) }()
		select {
		case rpc := <-to.Consumer():
			if h := rpc.Command.(raft.WithRPCHeader).GetRPCHeader(); !bytes.Equal(h.ID, []byte("node-2")) {
				t.Errorf("%s: heard of %q", what, h.ID)
			}
			if rpc.Reader != nil {
				io.Copy(io.Discard, rpc.Reader)
			}
			rpc.Respond(map[string]func() any{
				"entries":                func() any { return &raft.AppendEntriesResponse{} },
				"a vote":                 func() any { return &raft.RequestVoteResponse{} },
				"a vote before the vote": func() any { return &raft.RequestPreVoteResponse{} },
				"a call to stand":        func() any { return &raft.TimeoutNowResponse{} },
				"a snapshot":             func() any { return &raft.InstallSnapshotResponse{} },
			}[what](), nil)
			must(t, <-answered)
		case err := <-answered:
			t.Errorf("%s in its own name: %v", what, err)
		case <-time.After(10 * time.Second):
			t.Fatalf("%s in its own name was not heard", what)
		}
	}
}
