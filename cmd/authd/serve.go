package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"authd/api"
	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
	"authd/zone/probe"
)

// serveCmd runs one node.
type serveCmd struct {
	Config string `required:"" type:"path" placeholder:"FILE" help:"The node's configuration file."`
	Check  bool   `help:"Only check the file and those that it names: say what is wrong, and exit."`
	// StaleOK is for the day on which a damaged disk is all that is left.
	StaleOK bool `name:"stale-ok" help:"Answer although the disk holds less than was answered from it before. Only where no peer is left to learn the rest from."`
	// TakeOver is for supervisors; people send SIGHUP.
	TakeOver bool `help:"Take the node over from the process that runs it, without losing a query; that one ends. Where none runs: just start."`
	// AskFD is for authd dev, which keeps track of its children.
	AskFD int `name:"ask-fd" hidden:"" help:"Descriptor on which to ask for a successor."`
}

func (serveCmd) Help() string {
	return `The node answers DNS from its own disk as soon as it is as far as its peers, or at once where none
answers; it does not wait for a leader. Until then the API's /ready says what it waits for. SIGTERM
and SIGINT hand leadership over, let running requests end, and stop it. SIGHUP starts the program
anew, in the version that is on the disk now, and hands the node over to it: DNS goes on from the
same sockets, and no query is lost. While both run they need twice the memory.

Examples:

    authd serve --config /etc/authd/authd.toml
    authd serve --config authd-dev/node-2.toml
    authd serve --check --config /etc/authd/authd.toml
`
}

// Bounds of starting and stopping.
const (
	defaultCatchUp = 10 * time.Second // for peers that are further than this node
	// leaderPatience is how many times as long a node waits for what it lacks while
	// it hears a leader.
	leaderPatience = 30
	transferTime   = 2 * time.Second  // for a leader to hand over
	drainTime      = 5 * time.Second  // for running requests and TCP exchanges
	closeTime      = 10 * time.Second // for the stores
	foundPoll      = 100 * time.Millisecond
)

func (c *serveCmd) Run(a *app) error {
	config, err := loadConfig(c.Config)
	if err != nil {
		return err
	}
	if c.Check {
		if _, err := (&server{config: config}).read(); err != nil {
			return fmt.Errorf("%s: %w", c.Config, err)
		}
		_, err := fmt.Fprintf(a.stdout, "%s: good\n", c.Config)
		return err
	}
	logger, err := config.Log.logger(a.stderr)
	if err != nil {
		return err
	}
	logger = logger.With("node", config.ID)
	if err := harden(); err != nil {
		return err
	}
	config.Runtime.apply()
	s := &server{
		config: config, processors: spread(), logger: logger, staleOK: c.StaleOK, takeOver: c.TakeOver,
		next: newSuccession(c.Config, c.AskFD),
	}
	return s.run(a.ctx)
}

// apply sets the collector up.
func (c runtimeConfig) apply() {
	if c.GCPercent > 0 {
		debug.SetGCPercent(c.GCPercent)
	}
	if c.MemoryLimit > 0 {
		debug.SetMemoryLimit(int64(c.MemoryLimit))
	}
}

// server is a running node: what serve opened, in the order in which it opened it.
type server struct {
	config     *nodeConfig
	processors int // that the node may use
	logger     *slog.Logger
	staleOK    bool
	takeOver   bool
	next       *succession
	halt       context.CancelFunc // ends tasks

	identity *cluster.Identity
	prober   *probe.Prober // asks customers' own servers

	mill   *keys.Mill       // nil in a lab build
	now    func() time.Time // nil: time.Now; a lab build may scale time
	node   *cluster.Node
	api    *api.Server
	census zone.Census
	dns    atomic.Pointer[zone.Server] // nil until its listeners are open
	tasks  sync.WaitGroup              // founding, cookies, collector
}

// run starts the node, serves until ctx is done, and stops it.
func (s *server) run(ctx context.Context) error {
	working, halt := context.WithCancel(ctx)
	defer halt()
	s.halt = halt
	succession, settled := context.WithCancel(ctx)
	defer settled()
	err := s.start(working)
	if err == nil {
		err = s.succeed(succession)
	}
	if err == nil {
		s.logger.Info("ready", "dns", s.config.DNS.Listen, "api", s.config.API.Listen)
		if err := notify("READY=1"); err != nil {
			s.logger.Warn("service manager not told", "error", err)
		}
		s.serveUntil(ctx)
	} else if ctx.Err() != nil {
		s.logger.Info("stopped before it was ready", "error", err)
		err = nil
	}
	settled()
	s.next.waiting.Wait()
	return errors.Join(err, s.stop())
}

// serveUntil returns when the node is to stop or is another process's.
func (s *server) serveUntil(ctx context.Context) {
	select {
	case <-s.next.succeeded:
		return // the service is not stopping: nobody is told
	case <-ctx.Done():
	}
	s.logger.Info("stopping")
	if err := notify("STOPPING=1"); err != nil {
		s.logger.Warn("service manager not told", "error", err)
	}
}

// start opens everything: the machine from this node's own disk, Raft, the API,
// so that an operator can see what the node waits for, and DNS once it is as far
// as its peers.
func (s *server) start(ctx context.Context) error {
	var err error
	if s.now, err = labClock(); err != nil {
		return err
	}
	if s.config.Runtime.GCPercent == 0 {
		s.tasks.Go(func() { tendCollector(ctx, func() bool { return s.dns.Load() == nil }) })
	}
	keeper, source, err := s.prepare()
	if err != nil {
		return err
	}
	// All that can be wrong with the configuration has been looked at: from here on a
	// predecessor has let go.
	if err := s.claim(ctx); err != nil {
		return err
	}
	if s.node, err = s.openNode(keeper, source); err != nil {
		return err // it says which node, and what
	}
	if err := s.node.Start(); err != nil {
		return err
	}
	s.tasks.Go(func() { s.found(ctx) })
	if err := s.startAPI(); err != nil {
		return err
	}
	if err := s.catchUp(ctx); err != nil {
		return err
	}
	return s.startDNS(ctx)
}

// prepare opens what a node needs besides its data directory, of which a predecessor
// may have the lock still.
func (s *server) prepare() (keeper keys.Keeper, source keys.Source, err error) {
	if keeper, err = s.read(); err != nil {
		return nil, nil, err
	}
	if source, err = s.openSource(); err != nil {
		return nil, nil, fmt.Errorf("starting the key mill: %w", err)
	}
	if err := os.MkdirAll(s.config.DataDir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("making data directory: %w", err)
	}
	if err := cluster.Superseded(s.config.DataDir); err != nil {
		return nil, nil, err
	}
	return keeper, source, nil
}

// read reads the files that the configuration names, and changes nothing.
func (s *server) read() (keeper keys.Keeper, err error) {
	if keeper, err = keys.OpenKeeper(s.config.Keys.KEKFile); err != nil {
		return nil, fmt.Errorf("opening keys.kek_file: %w", err)
	}
	s.identity, err = cluster.OpenIdentity(cluster.IdentityConfig{
		ID: s.config.ID, CAFile: s.config.Link.CAFile, CertFile: s.config.Link.CertFile, KeyFile: s.config.Link.KeyFile,
		Renewed: filepath.Join(s.config.DataDir, "certificate.pem"), Now: s.now,
	})
	if err != nil {
		return nil, err
	}
	if own := s.config.API; own.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(own.CertFile, own.KeyFile); err != nil {
			return nil, fmt.Errorf("reading api.cert_file and api.key_file: %w", err)
		}
	}
	if s.prober, err = probe.New(probe.Config{
		Resolvers: s.config.Verify.Resolvers, Timeout: time.Duration(s.config.Verify.Timeout), ServerPort: s.config.Verify.ServerPort,
	}); err != nil {
		return nil, fmt.Errorf("preparing verification: %w", err)
	}
	return keeper, nil
}

// startDNS opens the DNS listeners, or goes on with those of a predecessor, and lets
// that one end.
func (s *server) startDNS(ctx context.Context) error {
	var inherited []zone.Socket
	if s.next.from != nil {
		select {
		case <-s.node.Fenced():
			return errors.New("this process is fenced off too: its predecessor, which knows more, goes on answering")
		default:
		}
		if err := s.next.from.ready(); err != nil {
			s.logger.Warn("predecessor goes on reading beside this process", "pid", s.next.from.pid, "error", err)
		}
		inherited = s.next.from.sockets
	}
	dns, err := zone.Listen(zone.ServerConfig{
		Listen: s.config.DNS.Listen, Inherited: inherited, Processors: s.processors, Workers: s.config.DNS.Workers,
		Tree: s.node.Tree(), Watch: s.node.Watch(), NSID: s.nsid(), Logger: s.logger,
		RateLimit: zone.RateLimit(s.config.DNS.RateLimit), Census: &s.census,
	})
	if err != nil {
		return fmt.Errorf("opening DNS listeners: %w", err)
	}
	s.followCookies(ctx, dns)
	s.dns.Store(dns)
	s.node.AnswersAt(s.config.DNS.peerAddress(dns.Addresses()[0]))
	s.node.SetServing(true)
	s.installed(ctx)
	// Reading the state in left as much garbage as state, and an idle node would
	// keep it: nothing is allocated that would bring the collector.
	s.tasks.Go(debug.FreeOSMemory)
	return nil
}

func (s *server) openNode(keeper keys.Keeper, source keys.Source) (*cluster.Node, error) {
	members := make([]cluster.Member, 0, len(s.config.Bootstrap.Members))
	for _, m := range s.config.Bootstrap.Members {
		members = append(members, cluster.Member{ID: m.ID, Address: m.Address, Voter: !m.NonVoter})
	}
	var alone <-chan struct{}
	if s.next.from != nil {
		alone = s.next.from.ended
	}
	return cluster.Open(cluster.Config{
		ID: s.config.ID, DataDir: s.config.DataDir, DiskReserve: uint64(s.config.DiskReserve), Alone: alone,
		Bind: s.config.Link.Listen, Advertise: s.config.Link.Advertise,
		Bootstrap: members, Identity: s.identity,
		Keeper: keeper, Source: source, Parents: s.parents, CNAMEs: s.prober.CNAMEs, Logger: s.logger, Now: s.now,
	})
}

func (s *server) nsid() string {
	if s.config.DNS.NSID != "" {
		return s.config.DNS.NSID
	}
	return s.config.ID
}

// catchUp waits until this node may answer. It must reach what was answered from
// its disk before, without limit; it should be as far as the peers that answer,
// but where nothing comes for a time, a longer one while a leader is heard, it
// serves what it has: answers of a minute ago are better than none.
func (s *server) catchUp(ctx context.Context) error {
	s.logger.Info("asking peers how far they are", "here", s.node.Machine().Index())
	peers := s.node.AskPeers(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	if peers == cluster.Never {
		return fmt.Errorf("%s is no member of the cluster any more, so it must not answer: add it again with authd operator raft add-peer, or stop it for good", s.config.ID)
	}
	// Peers may have said that this node's cluster was given up: then its answers were too.
	if err := cluster.Superseded(s.config.DataDir); err != nil {
		return err
	}
	if floor := s.node.Needs(); !s.staleOK && s.node.Machine().Index() < floor {
		s.logger.Warn("the disk holds less than was answered from it: waiting for the cluster",
			"here", s.node.Machine().Index(), "needed", floor)
		if err := s.node.WaitApplied(ctx, floor); err != nil {
			return err
		}
	}
	limit := time.Duration(s.config.DNS.CatchUp)
	if limit == 0 {
		limit = defaultCatchUp
	}
	quiet := 0
	for before, _ := s.node.Progress(); ; {
		bounded, cancel := context.WithTimeout(ctx, limit)
		err := s.node.WaitApplied(bounded, peers)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		// A node that is being sent what it lacks waits on: its names would not exist.
		// A leader that is heard sends it, though reading a large snapshot takes it long.
		now, busy := s.node.Progress()
		if quiet++; now != before || busy {
			quiet = 0
		}
		if quiet >= leaderPatience || quiet > 0 && s.node.Leader() == "" {
			s.logger.Warn("peers are further on, and nothing comes: serving what is here", "error", err)
			return nil
		}
		before = now
	}
}

// parents is how the leader asks about pending claims.
func (s *server) parents(ctx context.Context, domain zone.Name) (ns []zone.Name, servers []string, err error) {
	found, err := s.prober.Ask(ctx, domain)
	return found.NS, found.Servers, err
}

func (s *server) startAPI() error {
	handler, err := api.New(api.Config{
		Replica: s.node, Prober: s.prober, Logger: s.logger,
		NodeID: s.config.ID, Version: version(), Now: s.now,
		DNSStats: s.dnsStats, Census: &s.census, Ready: s.notReady,
		Dev: s.config.Bootstrap.VerificationOff, Processors: s.processors,
	})
	if err != nil {
		return err
	}
	listen := api.ListenConfig{
		Listen:   s.config.API.Listen,
		CertFile: s.config.API.CertFile, KeyFile: s.config.API.KeyFile,
		Handler: handler, Logger: s.logger, Local: filepath.Join(s.config.DataDir, "api.sock"),
	}
	if s.config.API.CertFile == s.config.Link.CertFile {
		listen.Certificate = s.identity.Certificate // one certificate for both is renewed for both
	}
	s.api, err = api.Listen(listen)
	return err // it says what and where
}

// dnsStats are the counters of the DNS server, once there is one.
func (s *server) dnsStats() zone.Stats {
	if dns := s.dns.Load(); dns != nil {
		return dns.Stats()
	}
	return zone.Stats{}
}

// notReady says what keeps this node from being sent traffic.
func (s *server) notReady() []string {
	if s.dns.Load() != nil {
		return nil
	}
	return []string{"DNS listeners are not open: not as far as the cluster yet"}
}

// found makes the cluster's first state, once in its life: while it has no id,
// the leader gives it the one all founders were told, and the first admin token
// with it. A cluster id can be set once, so two leaders cannot both found.
func (s *server) found(ctx context.Context) {
	b := s.config.Bootstrap
	if b.ClusterID == "" {
		return
	}
	commands := []state.Command{state.SetSettings{Settings: state.Settings{
		ClusterID: b.ClusterID, VerificationOff: b.VerificationOff,
	}}}
	if b.AdminTokenHash != "" {
		access := state.AccessToken{
			ID: b.AdminTokenHash[:16], Scope: state.ScopeAdmin,
			CreatedAt: time.Now().Unix(), Note: "first admin token",
		}
		sum, err := hex.DecodeString(b.AdminTokenHash)
		if err != nil {
			s.logger.Error("founding the cluster", "error", err)
			return
		}
		copy(access.Hash[:], sum)
		commands = append(commands, state.AddAccessToken{Access: access})
	}
	if b.AuthorityFile != "" {
		a, err := readAuthority(b.AuthorityFile)
		if err != nil {
			s.logger.Error("founding the cluster: certificates will not be renewed", "error", err)
		} else {
			commands = append(commands, state.SetAuthority{Authority: a})
		}
	}
	tick := time.NewTicker(foundPoll)
	defer tick.Stop()
	for s.node.Machine().Settings().ClusterID == "" {
		if s.node.Leader() == s.config.ID {
			s.foundOnce(ctx, commands)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *server) foundOnce(ctx context.Context, commands []state.Command) {
	results, _, err := s.node.Propose(ctx, cluster.Actor{ID: "bootstrap"}, commands...)
	if err != nil {
		s.logger.Warn("founding the cluster, trying again", "error", err)
		return
	}
	for _, r := range results {
		if r.Refusal != nil {
			s.logger.Error("founding the cluster", "error", r.Refusal)
		}
	}
}

// stop closes what start opened. DNS ends last: it needs nobody.
func (s *server) stop() error {
	succeeded := s.next.released.Load() // somebody else has the data directory
	errs := []error{s.release()}
	if dns := s.dns.Load(); dns != nil {
		drain, cancel := context.WithTimeout(context.Background(), drainTime)
		errs = append(errs, dns.Close(drain))
		cancel()
		if !succeeded {
			errs = append(errs, s.node.KeepEvidence())
		}
	}
	if s.mill != nil {
		errs = append(errs, s.mill.Close())
	}
	errs = append(errs, s.removePID())
	errs = append(errs, s.next.Close())
	return errors.Join(errs...)
}
