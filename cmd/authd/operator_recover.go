package main

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"authd/cluster"
)

// raftRecoverCmd is the last resort.
type raftRecoverCmd struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The surviving node's configuration; the node must not run."`
	Yes    bool   `help:"Do not ask."`
}

func (raftRecoverCmd) Help() string {
	return `For the day on which the majority is lost for ever and one node is left. It makes a cluster of that
node alone, out of what is on its disk: everything it had answered, and what it had received besides.
What other nodes had acknowledged and this one never received is lost. Nothing changes before you
agree.

The others are not in this cluster any more. One that comes back and reaches this node stands down and
says so; where they cannot reach it, a majority of them would be a cluster of its own: destroy their
disks. Then add new nodes with authd operator raft add-peer, under old names or new ones.

    systemctl stop authd
    authd operator raft recover --config /etc/authd/authd.toml
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
	if !c.Yes {
		fmt.Fprintf(a.stdout, "Type the id of this node to go on: ")
		line, err := bufio.NewReader(a.stdin).ReadString('\n')
		if strings.TrimSpace(line) != config.ID {
			return errors.Join(errors.New("nothing was changed"), err)
		}
	}
	if err := r.Commit(); err != nil {
		return fmt.Errorf("recovering %s: %w", config.ID, err)
	}
	_, err = fmt.Fprintf(a.stdout, "done: start %s, then add other nodes\n", config.ID)
	return err
}
