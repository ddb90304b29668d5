package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"authd/api"
)

// devCmd runs a whole cluster on loopback.
type devCmd struct {
	Nodes   *int    `placeholder:"N" help:"How many nodes, 1 to 9 (default 3)."`
	Data    string  `default:"authd-dev" type:"path" placeholder:"DIR" help:"Directory of the cluster (default: ./authd-dev)."`
	DNSPort *uint16 `name:"dns-port" placeholder:"PORT" help:"DNS port of node 1; node 2 has the next (default 5301)."`
	APIPort *uint16 `name:"api-port" placeholder:"PORT" help:"API port of node 1; node 2 has the next (default 8301)."`
	Empty   bool    `help:"No demo tenants."`
}

func (devCmd) Help() string {
	return `Starts real nodes, a process each, with certificates, Raft and their own disks, and prints what to
try. Delegated domains count as proven, which only this command allows.

    DIR/env             . authd-dev/env sets AUTHD_ADDR and AUTHD_TOKEN for the other commands
    DIR/admin.token     the admin token
    DIR/node-N.toml     a node's configuration
    DIR/node-N/         its data, its log, and its process id in "pid"

Kill a node (kill -9 $(cat authd-dev/node-1/pid)) and see the others answer; bring it back with
"authd serve --config authd-dev/node-1.toml". Restart one without losing a query, as an upgrade does:
kill -HUP $(cat authd-dev/node-1/pid). SIGINT (control-C) stops all. The same command again
goes on where it was; remove the directory to begin anew.

Examples:

    authd dev
    authd dev --nodes 1 --data /tmp/one --dns-port 5401 --api-port 8401
`
}

// Bounds of a cluster on loopback.
const (
	devMaxNodes  = 9
	devLinkAbove = 2000             // the node link's port is the DNS port and this
	devStart     = 60 * time.Second // for all nodes to be ready
	devStop      = 20 * time.Second // for all nodes to stop
	devPoll      = 30 * time.Millisecond
)

// devCluster is a cluster in a directory.
type devCluster struct {
	*app
	dir     string
	nodes   int
	dnsPort uint16
	apiPort uint16
	token   string
	fleet   *fleet
}

func (c *devCmd) Run(a *app) error {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("starting cluster: %w", err)
	}
	lock, err := lockDirectory(c.Data)
	if err != nil {
		return err
	}
	defer lock.Close()
	d := &devCluster{app: a, dir: c.Data}
	if err := d.settle(c); err != nil {
		return err
	}
	if d.fleet, err = newFleet(d); err != nil {
		return fmt.Errorf("starting cluster: %w", err)
	}
	// Before anything is written, since a directory keeps its ports.
	if err := d.portsFree(); err != nil {
		return err
	}
	if err := d.prepare(); err != nil {
		return fmt.Errorf("preparing %s: %w", d.dir, err)
	}
	err = d.up(!c.Empty)
	if err == nil {
		d.watch()
		fmt.Fprintln(a.stdout, "stopping")
	} else if a.ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, d.fleet.stop(devStop))
}

// lockDirectory keeps two clusters out of one directory. Closing the file, or
// the end of the process, unlocks it.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another authd dev: stop that one, or give another directory with --data", dir)
	}
	return f, nil
}

// settle decides size and ports: those the directory was made with, which flags
// must not contradict, or those of the flags.
func (d *devCluster) settle(c *devCmd) error {
	d.nodes, d.dnsPort, d.apiPort = 3, 5301, 8301
	first := d.path("node-1.toml")
	if _, err := os.Stat(first); err == nil {
		made, err := loadConfig(first)
		if err != nil {
			return err
		}
		d.nodes = len(made.Bootstrap.Members)
		d.dnsPort = made.DNS.Listen[0].Port()
		d.apiPort = made.API.Listen[0].Port()
		differs := ""
		switch {
		case c.Nodes != nil && *c.Nodes != d.nodes:
			differs = fmt.Sprintf("--nodes %d", d.nodes)
		case c.DNSPort != nil && *c.DNSPort != d.dnsPort:
			differs = fmt.Sprintf("--dns-port %d", d.dnsPort)
		case c.APIPort != nil && *c.APIPort != d.apiPort:
			differs = fmt.Sprintf("--api-port %d", d.apiPort)
		}
		if differs != "" {
			return usagef("%s was made with %s: leave the flag out, or give another directory with --data", d.dir, differs)
		}
		return nil
	}
	if c.Nodes != nil {
		d.nodes = *c.Nodes
	}
	if c.DNSPort != nil {
		d.dnsPort = *c.DNSPort
	}
	if c.APIPort != nil {
		d.apiPort = *c.APIPort
	}
	if d.nodes < 1 || d.nodes > devMaxNodes {
		return usagef("--nodes: %d is not between 1 and %d", d.nodes, devMaxNodes)
	}
	const last = 65535
	if d.dnsPort == 0 || d.apiPort == 0 ||
		int(d.dnsPort)+devLinkAbove+d.nodes > last || int(d.apiPort)+d.nodes > last {
		return usagef("--dns-port, --api-port: no room for %d nodes and their links (%d above the DNS ports)", d.nodes, devLinkAbove)
	}
	return nil
}

// portsFree says which port another program has, and what to do.
func (d *devCluster) portsFree() error {
	for i := 1; i <= d.nodes; i++ {
		for _, p := range []struct{ network, address, flag string }{
			{"udp", d.dns(i), "--dns-port"}, {"tcp", d.dns(i), "--dns-port"}, {"tcp", d.link(i), "--dns-port"}, {"tcp", d.api(i), "--api-port"},
		} {
			err := portFree(p.network, p.address)
			if err == nil {
				continue
			}
			if _, made := os.Stat(d.path("node-1.toml")); made == nil {
				return fmt.Errorf("%s: %s was made with this port: end what has it, or give another directory with --data, and other ports", err, d.shown())
			}
			return fmt.Errorf("%s: give others with %s", err, p.flag)
		}
	}
	return nil
}

func portFree(network, address string) error {
	if network == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return err
		}
		return c.Close()
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return l.Close()
}

func (d *devCluster) path(elements ...string) string {
	return filepath.Join(append([]string{d.dir}, elements...)...)
}

// shown is a path as people can copy it: relative to where they are, if it lies below.
func (d *devCluster) shown(elements ...string) string {
	path := d.path(elements...)
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	if relative, err := filepath.Rel(here, path); err == nil && filepath.IsLocal(relative) {
		return relative
	}
	return path
}

func nodeName(i int) string { return "node-" + strconv.Itoa(i) }

// dns, link and api are node i's addresses; nodes count from 1.
func (d *devCluster) dns(i int) string  { return loopback(int(d.dnsPort) + i - 1) }
func (d *devCluster) link(i int) string { return loopback(int(d.dnsPort) + devLinkAbove + i - 1) }
func (d *devCluster) api(i int) string  { return loopback(int(d.apiPort) + i - 1) }

func loopback(port int) string {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)).String()
}

// prepare writes what is not there yet: secrets first, then a file for every
// node, node 1's last, because settle takes it as the sign of a whole directory.
func (d *devCluster) prepare() error {
	token, err := sharedSecrets(d.dir)
	if err != nil {
		return err
	}
	d.token = token
	env := fmt.Sprintf("export AUTHD_ADDR=http://%s\nexport AUTHD_TOKEN=%s\n", d.api(1), token)
	if err := os.WriteFile(d.path("env"), []byte(env), 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(d.path("node-1.toml")); err == nil {
		return nil
	}
	ca, err := openAuthority(d.dir, "authd dev")
	if err != nil {
		return err
	}
	if err := ca.seal(d.path("authority.pem"), d.path("kek")); err != nil {
		return err
	}
	var members []memberConfig
	for i := 1; i <= d.nodes; i++ {
		members = append(members, memberConfig{ID: nodeName(i), Address: d.link(i)})
	}
	id := newClusterID()
	for i := d.nodes; i >= 1; i-- {
		if err := d.prepareNode(i, ca, nodeFile{
			Note: "A node of authd dev.", ClusterID: id, AdminTokenHash: tokenHash(token),
			Members: members, Authority: "authority.pem", VerificationOff: true,
		}); err != nil {
			return err
		}
	}
	return nil
}

func (d *devCluster) prepareNode(i int, ca *authority, file nodeFile) error {
	name := nodeName(i)
	if err := os.MkdirAll(d.path(name), 0o700); err != nil {
		return err
	}
	if err := ca.issue(d.path(name, "cert.pem"), d.path(name, "key.pem"), name, []string{"127.0.0.1"}); err != nil {
		return err
	}
	file.ID, file.DataDir, file.PIDFile = name, name, filepath.Join(name, "pid")
	file.DNS, file.API, file.Link = []string{d.dns(i)}, []string{d.api(i)}, d.link(i)
	file.LinkCA, file.KEK = "ca.pem", "kek"
	file.LinkCert, file.LinkKey = filepath.Join(name, "cert.pem"), filepath.Join(name, "key.pem")
	file.Stock = devStock
	// Written anew, by rename: an interrupted first start left another cluster id.
	next := d.path(name + ".toml.new")
	if err := os.WriteFile(next, file.text(), 0o644); err != nil {
		return err
	}
	return os.Rename(next, d.path(name+".toml"))
}

// devStock is how many keys each node of a demo keeps ready: enough to add a
// few customers without waiting, few enough to leave the machine in peace.
const devStock = 8

// up starts the nodes, waits until all are ready, seeds a new cluster, and
// prints what to try.
func (d *devCluster) up(demo bool) error {
	fmt.Fprintf(d.stdout, "starting %s in %s\n", plural(d.nodes, "node"), d.shown())
	for i := 1; i <= d.nodes; i++ {
		if err := d.fleet.start(nodeName(i)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(d.ctx, devStart)
	defer cancel()
	for i := 1; i <= d.nodes; i++ {
		if err := d.awaitNode(ctx, i); err != nil {
			return err
		}
	}
	c, err := newClient("http://"+d.api(1), d.token, "")
	if err != nil {
		return err
	}
	if err := d.seed(ctx, c, demo); err != nil {
		return fmt.Errorf("seeding the cluster: %w", err)
	}
	d.invite(ctx, c)
	_, err = fmt.Fprintln(d.stdout, "ready")
	return err
}

// awaitNode waits until a node says that it is ready, knows the token, and knows
// a leader to send writes to.
func (d *devCluster) awaitNode(ctx context.Context, i int) error {
	c, err := newClient("http://"+d.api(i), d.token, "")
	if err != nil {
		return err
	}
	defer c.http.CloseIdleConnections()
	for {
		if ended, why := d.fleet.ended(nodeName(i)); ended {
			return fmt.Errorf("%s ended while starting: %s\n%s", nodeName(i), why, d.fleet.tail(nodeName(i)))
		}
		err := c.probe(ctx, "/ready")
		var reply api.Cluster
		switch _, asked := c.get(ctx, v1("cluster"), nil, &reply); {
		case asked != nil:
			err = asked
		case reply.Leader == "":
			err = errors.New("it knows no leader yet")
		case refusedWith(err, http.StatusServiceUnavailable) && answersSetOff(&reply, nodeName(i)):
			err = nil
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			if d.ctx.Err() != nil {
				return d.ctx.Err()
			}
			return fmt.Errorf("%s is not ready after %s: %w\n%s", nodeName(i), devStart, err, d.fleet.tail(nodeName(i)))
		case <-time.After(devPoll):
		}
	}
}

// answersSetOff says whether a node answers DNS and is not ready only because
// somebody took it out of the serving set.
func answersSetOff(c *api.Cluster, id string) bool {
	return slices.ContainsFunc(c.Nodes, func(m api.Member) bool { return m.ID == id && m.Off != nil && m.Serving })
}

// probe asks a path outside /v1 and says whether it answered with 2xx.
func (c *client) probe(ctx context.Context, path string) error {
	reply, err := c.send(ctx, http.MethodGet, path, nil, "", nil, false)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, reply.Body)
	return errors.Join(err, reply.Body.Close())
}

// watch tells about nodes that end until the command is stopped.
func (d *devCluster) watch() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case name := <-d.fleet.asks:
			fmt.Fprintf(d.stdout, "%s is handed over to a new process\n", name)
			if err := d.fleet.succeed(name); err != nil {
				fmt.Fprintf(d.stderr, "authd: %v\n", err)
			}
		case e := <-d.fleet.exits:
			if e.other {
				continue // one of two: the node runs on
			}
			fmt.Fprintf(d.stdout, "%s ended (%s); bring it back with: authd serve --config %s\n",
				e.name, e.why, d.shown(e.name+".toml"))
		}
	}
}
