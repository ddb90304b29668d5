package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"authd/api"
)

// operatorCmd is `authd operator`.
type operatorCmd struct {
	Init     operatorInitCmd `cmd:"" help:"Prepare a real cluster: CA, certificates, key-encryption key, first admin token, a file for every node."`
	Raft     raftCmd         `cmd:"" help:"Members of the cluster."`
	Check    checkCmd        `cmd:"" help:"Have all nodes compare their states now."`
	Snapshot snapshotCmd     `cmd:"" help:"Backups of the cluster's state."`
}

// raftCmd is `authd operator raft`.
type raftCmd struct {
	clientFlags

	ListPeers      raftListCmd     `cmd:"" help:"List the members and how they are."`
	AddPeer        raftAddCmd      `cmd:"" help:"Add a node."`
	RemovePeer     raftRemoveCmd   `cmd:"" help:"Remove a node for good."`
	TransferLeader raftTransferCmd `cmd:"" help:"Hand leadership to another voter."`
}

type raftListCmd struct{}

func (raftListCmd) Help() string { return "    authd operator raft list-peers\n" }

func (c *raftListCmd) Run(s *session) error {
	var reply api.Cluster
	raw, err := s.get(s.ctx, v1("cluster"), nil, &reply)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		row(w, "NODE", "ADDRESS", "ROLE", "HEALTHY", "SERVING", "APPLIED")
		for _, n := range reply.Nodes {
			role := "non-voter"
			if n.Voter {
				role = "voter"
			}
			if n.ID == reply.Leader {
				role = "leader"
			}
			row(w, n.ID, n.Address, role, yesNo(n.Healthy), yesNo(n.Serving), n.Applied)
		}
		if reply.Leader == "" {
			fmt.Fprintln(w, "no leader: DNS answers, writes wait for a majority")
		}
	})
}

type raftAddCmd struct {
	ID       string `arg:"" help:"The node's id, as in its certificate."`
	Address  string `arg:"" help:"Its node link, host:port."`
	NonVoter bool   `help:"It serves, but does not count for the quorum."`
}

func (raftAddCmd) Help() string {
	return `Prepare the node first (authd operator init in the same directory, with the new --node), start it,
then add it. It catches up by itself.

    authd operator raft add-peer node-4 node4.example:7301 --non-voter
`
}

func (c *raftAddCmd) Run(s *session) error {
	body := api.NewMember{ID: c.ID, Address: c.Address, Voter: !c.NonVoter}
	raw, err := s.post(s.ctx, v1("cluster", "nodes"), nil, body, nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s added", c.ID)
}

type raftRemoveCmd struct {
	ID string `arg:"" help:"The node's id."`
}

func (raftRemoveCmd) Help() string {
	return `By this you state that the node is off, or out of every address list for longer than its TTL:
changes no longer wait for it.

    authd operator raft remove-peer node-4
`
}

func (c *raftRemoveCmd) Run(s *session) error {
	raw, err := s.remove(s.ctx, v1("cluster", "nodes", c.ID), nil)
	if err != nil {
		return err
	}
	return s.say(raw, "%s removed", c.ID)
}

type raftTransferCmd struct {
	ID string `arg:"" optional:"" help:"The voter that shall lead (default: the one furthest on)."`
}

func (raftTransferCmd) Help() string { return "    authd operator raft transfer-leader node-2\n" }

func (c *raftTransferCmd) Run(s *session) error {
	var reply api.Cluster
	raw, err := s.post(s.ctx, v1("cluster", "leader"), nil, api.NewLeader{ID: c.ID}, &reply)
	if err != nil {
		return err
	}
	for until := time.Now().Add(electionTime); reply.Leader == "" && time.Now().Before(until); time.Sleep(devPoll) {
		if raw, err = s.get(s.ctx, v1("cluster"), nil, &reply); err != nil {
			return err
		}
	}
	if reply.Leader == "" {
		return fmt.Errorf("leadership was handed over, but nobody leads after %s: authd operator raft list-peers says more", electionTime)
	}
	return s.say(raw, "leading now: %s", reply.Leader)
}

// checkCmd is `authd operator check`.
type checkCmd struct{ clientFlags }

func (checkCmd) Help() string {
	return `The nodes do this every hour by themselves. One that the majority contradicts fences itself off and
begins anew; where no majority agrees, writes are stopped and the command fails.

    authd operator check
`
}

func (c *checkCmd) Run(s *session) error {
	var reply api.StateCheck
	raw, err := s.post(s.ctx, v1("cluster", "check"), nil, struct{}{}, &reply)
	if err != nil {
		return err
	}
	err = s.show(raw, func(w io.Writer) {
		row(w, "NODE", "SUM", "RIGHT")
		for _, n := range reply.Nodes {
			sum := n.Sum
			if sum == "" {
				sum = "no answer"
			}
			row(w, n.ID, sum, yesNo(n.Right))
		}
		fmt.Fprintf(w, "%s at index %d\n", reply.Verdict, reply.Index)
	})
	if err == nil && reply.Verdict != "agreed" {
		err = fmt.Errorf("the nodes' states are not proven equal (%s): deploy/RUNBOOK.md says what to do", reply.Verdict)
	}
	return err
}

// electionTime is how long an election may take before it is worth a word.
const electionTime = 10 * time.Second

// snapshotCmd is `authd operator snapshot`.
type snapshotCmd struct {
	Save    snapshotSaveCmd    `cmd:"" help:"Write the cluster's state to a file."`
	Restore snapshotRestoreCmd `cmd:"" help:"Replace the cluster's state by a saved one."`
	Inspect snapshotInspectCmd `cmd:"" help:"Check a saved snapshot and say what is in it."`
}

type snapshotSaveCmd struct {
	clientFlags
	File string `arg:"" help:"New file."`
}

func (snapshotSaveCmd) Help() string {
	return `Private keys inside are sealed: the file is of no use for signing without the key-encryption key,
and a backup without that key is of no use either. Keep both, apart.

    authd operator snapshot save authd-2026-11-21.snapshot
`
}

// Run writes to a temporary name first: a file under the final name is whole.
func (c *snapshotSaveCmd) Run(s *session) (err error) {
	if _, err := os.Lstat(c.File); err == nil {
		return fmt.Errorf("%s exists: choose another name", c.File)
	}
	reply, err := s.send(s.ctx, http.MethodGet, v1("cluster", "snapshot"), nil, "", nil, false)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(c.File), ".authd-snapshot-*")
	if err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	n, err := io.Copy(f, reply.Body)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	summary, err := inspectSnapshot(f.Name())
	if err != nil {
		return fmt.Errorf("saving snapshot: what arrived is damaged: %w", err)
	}
	if err := os.Rename(f.Name(), c.File); err != nil {
		return fmt.Errorf("saving snapshot: %w", err)
	}
	_, err = fmt.Fprintf(s.stdout, "%s: %d bytes, %s\n", c.File, n, summary)
	return err
}

type snapshotRestoreCmd struct {
	clientFlags
	File string `arg:"" type:"existingfile" help:"A saved snapshot."`
}

func (snapshotRestoreCmd) Help() string {
	return `Everything written since the snapshot is lost. Zone serials never go back.

    authd operator snapshot restore authd-2026-11-21.snapshot
`
}

func (c *snapshotRestoreCmd) Run(s *session) error {
	summary, err := inspectSnapshot(c.File)
	if err != nil {
		return err
	}
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("restoring snapshot: %w", err)
	}
	defer f.Close()
	reply, err := s.send(s.ctx, http.MethodPost, v1("cluster", "snapshot"), nil, "application/octet-stream", f, true)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	_, err = fmt.Fprintf(s.stdout, "restored %s\n", summary)
	return err
}

type snapshotInspectCmd struct {
	File string `arg:"" type:"existingfile" help:"A saved snapshot."`
}

func (snapshotInspectCmd) Help() string {
	return `Reads the whole file and checks it; asks nobody.

    authd operator snapshot inspect authd-2026-11-21.snapshot
`
}

func (c *snapshotInspectCmd) Run(a *app) error {
	summary, err := inspectSnapshot(c.File)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "%s: whole, %s\n", c.File, summary)
	return err
}
