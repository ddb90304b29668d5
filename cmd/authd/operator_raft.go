package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"authd/api"
)

// raftCmd is `authd operator raft`.
type raftCmd struct {
	ListPeers      raftListCmd      `cmd:"" help:"List the members and how they are."`
	AddPeer        raftAddCmd       `cmd:"" help:"Make a join token for a new node."`
	Promote        raftPromoteCmd   `cmd:"" help:"Give a node a vote."`
	RemovePeer     raftRemoveCmd    `cmd:"" help:"Remove a node for good."`
	SetServing     raftServingCmd   `cmd:"" help:"Take a node out of the serving set by a statement, or put it back."`
	TransferLeader raftTransferCmd  `cmd:"" help:"Hand leadership to another voter."`
	SetAuthority   raftAuthorityCmd `cmd:"" help:"Set the CA that issues the certificates of nodes."`
	Recover        raftRecoverCmd   `cmd:"" help:"Make a cluster of the one node that is left; asks first."`
}

type raftListCmd struct{ clientFlags }

func (raftListCmd) Help() string {
	return `One look at the whole cluster: who leads, how far each node is, and below that what each says is
wrong with it and what to do, as its /ready does. A node that is not healthy did not answer within a
second, or is fenced off.

    authd operator raft list-peers
`
}

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
			serving := yesNo(n.Serving)
			if n.Off != nil {
				serving = "set off"
			}
			row(w, n.ID, n.Address, role, yesNo(n.Healthy), serving, n.Applied)
		}
		for _, n := range reply.Nodes {
			for _, p := range n.Problems {
				fmt.Fprintf(w, "%s: %s\n", n.ID, p)
			}
		}
		for _, n := range reply.Nodes {
			if n.Off != nil {
				fmt.Fprintf(w, "nothing waits for %s since %s: %s\n", n.ID, when(&n.Off.Since), n.Off.Statement)
			}
		}
		if reply.Epoch > 0 {
			fmt.Fprintf(w, "epoch %d: recovered from a single node; disks of before are refused\n", reply.Epoch)
		}
		if reply.Leader == "" {
			fmt.Fprintln(w, "no leader: DNS answers, writes wait for a majority")
		}
	})
}

type raftRemoveCmd struct {
	clientFlags

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

type raftServingCmd struct {
	clientFlags

	ID        string `arg:"" help:"The node's id."`
	On        bool   `xor:"serving" required:"" help:"Put it back: it answers, and has caught up."`
	Off       bool   `xor:"serving" required:"" help:"Take it out; it stays a member."`
	Statement string `help:"With --off: that the node is off, or out of every address list for its TTL."`
}

func (raftServingCmd) Help() string {
	return `A node that cannot be asked holds back every new key, because it may be answering with old records.
Where you know that nobody asks it, say so; what waits for it goes on at once. Unlike remove-peer it
stays a member, and is put back when it has caught up. Until then its /ready is 503.

    authd operator raft set-serving node-3 --off --statement "node-3 is off since 10:40, its host is dead"
    authd operator raft set-serving node-3 --on
`
}

func (c *raftServingCmd) Run(s *session) error {
	body := api.NewServing{Serving: c.On, Statement: c.Statement}
	raw, err := s.put(s.ctx, v1("cluster", "nodes", c.ID, "serving"), body)
	if err != nil {
		return err
	}
	if c.On {
		return s.say(raw, "changes wait for %s again", c.ID)
	}
	return s.say(raw, "changes no longer wait for %s", c.ID)
}

type raftTransferCmd struct {
	clientFlags

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

type raftAddCmd struct {
	clientFlags

	ID       string        `arg:"" help:"The new node's id."`
	Address  string        `arg:"" help:"Its node link as the other nodes reach it, host:port."`
	NonVoter bool          `help:"It serves, but does not count for the quorum."`
	Life     time.Duration `default:"1h" help:"How long the token is good (default: ${default})."`
	Prepared bool          `help:"The node has a certificate already, from authd operator init: add it now, without a token."`
}

func (raftAddCmd) Help() string {
	return `Prints a join token, good once and for this node alone. On the new machine, with the key-encryption
key copied there by your own means (no token brings it):

    authd operator join /etc/authd --peer 192.0.2.11:7301 --kek kek --token-file -
    systemctl start authd

The node is added without a vote and gets its vote when it has caught up. For a member the token
brings a new certificate, where the old one has expired.

A node that is lost for ever is replaced: remove it, then add another. Take a new id for the other
one unless the old disk is destroyed: two nodes of one name must never run.

    authd operator raft remove-peer node-3
    authd operator raft add-peer node-4 192.0.2.14:7301
`
}

func (c *raftAddCmd) Run(s *session) error {
	if c.Prepared {
		body := api.NewMember{ID: c.ID, Address: c.Address, Voter: !c.NonVoter}
		raw, err := s.post(s.ctx, v1("cluster", "nodes"), nil, body, nil)
		if err != nil {
			return err
		}
		return s.say(raw, "%s added", c.ID)
	}
	var made api.MadeInvitation
	body := api.NewInvitation{ID: c.ID, Address: c.Address, Voter: !c.NonVoter, Life: c.Life.String()}
	raw, err := s.post(s.ctx, v1("cluster", "invitations"), nil, body, &made)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "%s\n\nJoin token of %s, good once until %s. On its machine:\n"+
			"  authd operator join /etc/authd --peer HOST:PORT --kek FILE --token-file -\n", string(made.Token), c.ID, made.ExpiresAt)
	})
}

type raftPromoteCmd struct {
	clientFlags

	ID string `arg:"" help:"The node's id."`
}

func (raftPromoteCmd) Help() string {
	return `A node that joined as a voter gets its vote by itself. This is for one that was added without.

    authd operator raft promote node-4
`
}

func (c *raftPromoteCmd) Run(s *session) error {
	var reply api.Cluster
	if _, err := s.get(s.ctx, v1("cluster"), nil, &reply); err != nil {
		return err
	}
	for _, n := range reply.Nodes {
		if n.ID != c.ID {
			continue
		}
		if !n.Healthy || !n.Serving {
			return fmt.Errorf("%s does not answer DNS now: a vote of a node that is not there makes the quorum harder to reach", c.ID)
		}
		raw, err := s.post(s.ctx, v1("cluster", "nodes"), nil, api.NewMember{ID: n.ID, Address: n.Address, Voter: true}, nil)
		if err != nil {
			return err
		}
		return s.say(raw, "%s votes", c.ID)
	}
	return fmt.Errorf("%s is not a member: authd operator raft list-peers shows them", c.ID)
}

type raftAuthorityCmd struct {
	clientFlags

	Dir string `arg:"" type:"existingdir" help:"Directory with ca.pem and ca.key."`
}

func (raftAuthorityCmd) Help() string {
	return `Moves the cluster to another CA, or gives it one. First append the new ca.pem to link.ca_file on every
node; a minute later all trust both. Then:

    authd operator raft set-authority ./new-ca

Each node renews its certificate at once, without a restart. When the metric
authd_certificate_expiry_timestamp_seconds has moved on all nodes, take the old CA out of
link.ca_file: from then on its certificates are good for nothing.
`
}

func (c *raftAuthorityCmd) Run(s *session) error {
	certificate, err := os.ReadFile(filepath.Join(c.Dir, "ca.pem"))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(c.Dir, "ca.key"))
	if err != nil {
		return err
	}
	body := api.NewAuthority{Certificate: string(certificate), Key: api.PrivateText(key)}
	raw, err := s.put(s.ctx, v1("cluster", "authority"), body)
	if err != nil {
		return err
	}
	return s.say(raw, "nodes get their certificates from the CA in %s from now on", c.Dir)
}
