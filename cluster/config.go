package cluster

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"time"

	"authd/keys"
	"authd/zone"
)

// Config is what Open needs. Every field is required unless it says otherwise.
type Config struct {
	// ID is this node's name, as in its certificate: "node-1".
	ID string
	// DataDir holds raft.db, snapshots and the mark. Created with mode 0700.
	DataDir string
	// Bind is the address the node link listens on; Advertise is what peers dial
	// (empty: Bind). The link carries Raft and forwarded writes over mutual TLS.
	Bind, Advertise string
	// Bootstrap are the founding members, this node among them; used only while
	// the data directory is new.
	Bootstrap []Member
	// TLS authenticates both ends: its certificate's name is the node's ID and
	// its pools hold the cluster's own CA.
	TLS *tls.Config
	// Identity, where set, takes the place of TLS and is renewed by the node.
	Identity *Identity
	// Keeper seals and opens private halves.
	Keeper keys.Keeper
	// Source gives new keys.
	Source keys.Source
	// DiskReserve is how many octets must be free for the data directory; with less
	// the node does not lead while another has room. 0: a twentieth of the file
	// system, at most 1 GiB.
	DiskReserve uint64
	// Alone is closed once no other process answers DNS with an older state of this
	// node, as a predecessor does for a moment while it hands over; nil: none does.
	// Until then the node confirms to nobody what it answers with.
	Alone <-chan struct{}
	// Parents asks the servers of the zone above a pending domain what they delegate it
	// to, and gives their names too; an error: nobody could be asked. nil: no such asking.
	Parents func(ctx context.Context, domain zone.Name) (ns []zone.Name, servers []string, err error)
	// CNAMEs asks where the CNAMEs lead of claims whose names others claim too; nil: no
	// such asking. It needs Parents.
	CNAMEs AskCNAMEs
	// Logger takes what an operator must know.
	Logger *slog.Logger
	// Now is the clock of proposals and of the rotator; nil: time.Now.
	Now func() time.Time
	// Random is the entropy of tokens and nonces; nil: crypto/rand.
	Random io.Reader
}

// Member is one node of the cluster.
type Member struct {
	ID      string
	Address string // of the node link
	Voter   bool
}

func (c *Config) check() error {
	if c.Identity != nil {
		c.TLS = c.Identity.TLS()
	}
	missing := func(field string) error { return fmt.Errorf("opening node: %s is not set", field) }
	switch {
	case c.ID == "":
		return missing("ID")
	case c.DataDir == "":
		return missing("DataDir")
	case c.Bind == "":
		return missing("Bind")
	case c.TLS == nil:
		return missing("TLS")
	case c.Keeper == nil:
		return missing("Keeper")
	case c.Source == nil:
		return missing("Source")
	case c.Logger == nil:
		return missing("Logger")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	return checkBootstrap(c)
}

func checkBootstrap(c *Config) error {
	seen := make(map[string]bool)
	for _, m := range c.Bootstrap {
		if m.ID == "" || m.Address == "" {
			return fmt.Errorf("opening node %s: Bootstrap: member %q at %q: both are needed", c.ID, m.ID, m.Address)
		}
		if seen[m.ID] {
			return fmt.Errorf("opening node %s: Bootstrap names %s twice", c.ID, m.ID)
		}
		seen[m.ID] = true
	}
	if len(seen) > 0 && !seen[c.ID] {
		return fmt.Errorf("opening node %s: Bootstrap does not name this node", c.ID)
	}
	return nil
}

// tuning is what tests change.
type tuning struct {
	heartbeat, election, lease time.Duration
	// commit is the library's CommitTimeout. Followers learn of a commit from the
	// transport; this is for those that could not be told then.
	commit time.Duration
	// patience is how long a write waits for a leader to be known.
	patience time.Duration
	// trailing is the fewest entries kept behind a snapshot.
	trailing uint64
	// piece is how much of a restored image one entry holds.
	piece int
	// rotate is the longest sleep of the rotator.
	rotate time.Duration
	// certificates is how often the certificate is looked at, promoteEvery how often
	// nodes that joined are, promoteAfter how long they must have kept up.
	certificates, promoteEvery, promoteAfter time.Duration
	// check is how often the nodes compare their machines, recheck how often while
	// they differ and no majority says who is right, checkWait how long the others
	// may take to come to the place.
	check, recheck, checkWait time.Duration
	// recount is how often a node counts its own machine anew.
	recount time.Duration
	// stall is how long an append may hang before a leader falls silent.
	stall time.Duration
	// disk is how often free space is looked at, statfs how.
	disk   time.Duration
	statfs func(dir string) (free, total uint64, err error)
	// reads is how often the end of the journal of key reads is told at most.
	reads time.Duration
	// keep is how often the length of the log is looked at, count how often what the
	// DNS workers counted is added up.
	keep, count time.Duration
	// noSync leaves the log to the kernel, for tests that do not cut the power.
	noSync bool
	// network is what the node link runs over, ask how a node's DNS listener is asked
	// for keys; nil: by the Asker.
	network network
	ask     func(ctx context.Context, server string, names []zone.Name) ([]zone.Told, error)
}

// defaultTuning: heartbeats queue behind fsync (see transport), so the timers
// are twice the library's.
func defaultTuning() tuning {
	return tuning{
		heartbeat: 2 * time.Second, election: 2 * time.Second, lease: time.Second,
		commit:   50 * time.Millisecond,
		patience: time.Second,
		trailing: minTrailing,
		piece:    pieceSize,
		rotate:   10 * time.Second,
		check:    time.Hour, recheck: time.Minute, checkWait: 5 * time.Second, recount: recountEvery,
		stall: 3 * time.Second,
		disk:  2 * time.Second, statfs: statfs,
		reads: readsPause,
		keep:  time.Second, count: time.Second,
		network: tcp{},

		certificates: time.Minute, promoteEvery: time.Second, promoteAfter: 10 * time.Second,
	}
}
