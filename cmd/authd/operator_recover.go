package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"authd/cluster"
	"authd/cluster/state"
)

// raftRecoverCmd is the last resort.
type raftRecoverCmd struct {
	Config    string `required:"" type:"path" placeholder:"FILE" help:"The surviving node's configuration; the node must not run."`
	Statement string `help:"That the other nodes' disks are destroyed, for the audit; asked for where it is missing."`
	DNSMoved  bool   `name:"dns-moved" help:"What answers DNS at the name servers' addresses is none of the old nodes."`
	Yes       bool   `help:"Do not ask."`
}

func (raftRecoverCmd) Help() string {
	return `For the day on which the majority is lost for ever and one node is left. It makes a cluster of that
node alone, out of what is on its disk: everything it had answered, and what it had received besides.
What other nodes had acknowledged and this one never received is lost. Nothing changes before you
agree.

The others are not in this cluster any more, and do not know it. One that comes back and reaches this
node stands down and says so. A majority of them that does not reach it is a healthy cluster to itself:
it answers with what it has, takes writes, and goes on switching to keys that this cluster will never
answer for, until customers' mail fails. So you are asked to state that their disks are destroyed, and
nothing is done while one of them, or anything at the name servers' addresses, still answers from here.
Where it is a network between you that is broken, mend that instead.
Then add new nodes with authd operator raft add-peer, under old names or new ones.

    systemctl stop authd
    authd operator raft recover --config /etc/authd/authd.toml --statement "disks of node-1 and node-2 shredded"
    systemctl start authd
`
}

func (c *raftRecoverCmd) Run(a *app) (err error) {
	config, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	lock, err := lockData(config.DataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	logger, err := config.Log.logger(a.stderr)
	if err != nil {
		return err
	}
	address := config.Link.Advertise
	if address == "" {
		address = config.Link.Listen
	}
	r, err := cluster.OpenRecovery(config.ID, config.DataDir, address, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	fmt.Fprintf(a.stdout, "%s becomes a cluster of one at %s, with %s.\n", r.Member.ID, r.Member.Address, plural(r.Domains, "domain"))
	fmt.Fprintf(a.stdout, "It had applied index %d; its log ends at %d, which is kept whole. What others acknowledged beyond %d is lost.\n", r.Marked, r.Last, r.Last)
	if r.Missing > 0 {
		fmt.Fprintf(a.stdout, "ITS DISK HOLDS LESS THAN IT HAD ANSWERED: %d was reached once. Look for another survivor first.\n", r.Missing)
	}
	for _, m := range r.Lost {
		fmt.Fprintf(a.stdout, "given up for ever: %s at %s\n", m.ID, m.Address)
	}
	if err := c.nobodyLives(a, r, config.Link.CAFile); err != nil {
		return err
	}
	if err := c.agreed(a, r); err != nil {
		return err
	}
	if err := r.Commit(c.Statement); err != nil {
		return fmt.Errorf("recovering %s: %w", config.ID, err)
	}
	_, err = fmt.Fprintf(a.stdout, "done: start %s, then add other nodes\n", config.ID)
	return err
}

// nobodyLives refuses while anything of the old cluster can be reached from here.
func (c *raftRecoverCmd) nobodyLives(a *app, r *cluster.Recovery, caFile string) error {
	if len(r.Lost) == 0 {
		return nil
	}
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("reading link.ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("reading link.ca_file: %s holds no certificate", caFile)
	}
	if living := r.Living(a.ctx, roots); len(living) > 0 {
		return fmt.Errorf("nothing was changed: %s. Where most nodes live nothing is lost: start this one again, or replace it (remove-peer, add-peer). Where too few do, stop each of them and destroy its data directory first", strings.Join(living, "; "))
	}
	if c.DNSMoved {
		return nil
	}
	if answering := r.Answering(a.ctx); len(answering) > 0 {
		return fmt.Errorf("nothing was changed: %s, so an old node lives whose node link is not reached from here: stop it and destroy its data directory. Where that is something else that you put there, say --dns-moved", strings.Join(answering, "; "))
	}
	return nil
}

// agreed asks for what only the operator can know.
func (c *raftRecoverCmd) agreed(a *app, r *cluster.Recovery) error {
	ask := a.asker()
	if c.Statement == "" && len(r.Lost) > 0 {
		if c.Yes {
			return errors.New("nothing was changed: --statement is missing: say where the disks of the other nodes are, such as \"destroyed\"; those that live on would be a second cluster")
		}
		var err error
		if c.Statement, err = ask("State that the disks of those nodes are destroyed (it goes into the audit): "); c.Statement == "" {
			return errors.Join(errors.New("nothing was changed: without that statement those nodes may live on as a second cluster"), err)
		}
	}
	if n := len(c.Statement); n > state.MaxStatement {
		return fmt.Errorf("nothing was changed: the statement has %d octets, at most %d", n, state.MaxStatement)
	}
	if c.Yes {
		return nil
	}
	if id, err := ask("Type the id of this node to go on: "); id != r.Member.ID {
		return errors.Join(fmt.Errorf("nothing was changed: %q is not %s; type that id, or give --yes", id, r.Member.ID), err)
	}
	return nil
}
