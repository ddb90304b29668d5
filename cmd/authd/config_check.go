package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"authd/keys"
	"authd/zone"
)

// check refuses what cannot work, by key.
func (c *nodeConfig) check() error {
	for _, required := range []struct {
		key   string
		given bool
	}{
		{"id", c.ID != ""},
		{"data_dir", c.DataDir != ""},
		{"dns.listen", len(c.DNS.Listen) > 0},
		{"api.listen", len(c.API.Listen) > 0},
		{"link.listen", c.Link.Listen != ""},
		{"link.ca_file", c.Link.CAFile != ""},
		{"link.cert_file", c.Link.CertFile != ""},
		{"link.key_file", c.Link.KeyFile != ""},
		{"keys.kek_file", c.Keys.KEKFile != ""},
	} {
		if !required.given {
			return fmt.Errorf("%s: missing", required.key)
		}
	}
	if err := checkNodeID("id", c.ID); err != nil {
		return err
	}
	if err := c.checkNumbers(); err != nil {
		return err
	}
	if err := c.checkAPI(); err != nil {
		return err
	}
	if err := checkHostPort("link.listen", c.Link.Listen); err != nil {
		return err
	}
	if c.Link.Advertise != "" {
		if err := checkHostPort("link.advertise", c.Link.Advertise); err != nil {
			return err
		}
	}
	if _, err := netip.ParseAddrPort(c.DNS.PeerAddress); err != nil && c.DNS.PeerAddress != "" {
		return fmt.Errorf("dns.peer_address: %q is not an IP address and port, such as 192.0.2.10:53", c.DNS.PeerAddress)
	}
	if err := c.checkBootstrap(); err != nil {
		return err
	}
	if _, err := c.Log.logger(io.Discard); err != nil {
		return err
	}
	return c.checkSecrets()
}

func (c *nodeConfig) checkNumbers() error {
	switch {
	case c.DNS.Workers < 0 || c.DNS.Workers > zone.MaxWorkers:
		return fmt.Errorf("dns.workers: %d is not between 0 and %d", c.DNS.Workers, zone.MaxWorkers)
	case c.Keys.Stock < 0 || c.Keys.Stock > keys.MaxStock:
		return fmt.Errorf("keys.stock: %d is not between 0 and %d", c.Keys.Stock, keys.MaxStock)
	case c.DNS.CatchUp < 0:
		return fmt.Errorf("dns.catch_up: %s is negative", time.Duration(c.DNS.CatchUp))
	case c.Verify.Timeout < 0:
		return fmt.Errorf("verify.timeout: %s is negative", time.Duration(c.Verify.Timeout))
	case c.Runtime.GCPercent < 0:
		return fmt.Errorf("runtime.gc_percent: %d is negative", c.Runtime.GCPercent)
	}
	limit := zone.RateLimit(c.DNS.RateLimit)
	if err := limit.Check(); err != nil {
		return fmt.Errorf("dns.rate_limit.%w", err)
	}
	return nil
}

// peerAddress is where nodes ask for barriers; first is what listen came to.
func (c *dnsConfig) peerAddress(first netip.AddrPort) netip.AddrPort {
	if a, err := netip.ParseAddrPort(c.PeerAddress); err == nil {
		return a
	}
	return first
}

// checkAPI insists on TLS wherever a token could be read off the wire.
func (c *nodeConfig) checkAPI() error {
	if (c.API.CertFile == "") != (c.API.KeyFile == "") {
		return errors.New("api.cert_file and api.key_file: give both or neither")
	}
	if c.API.CertFile != "" {
		return nil
	}
	for i, a := range c.API.Listen {
		if !a.Addr().IsLoopback() {
			return fmt.Errorf("api.listen[%d]: %s is not loopback, and plain HTTP is for loopback only: set api.cert_file and api.key_file", i, a)
		}
	}
	return nil
}

func (c *nodeConfig) checkBootstrap() error {
	b := &c.Bootstrap
	self := len(b.Members) == 0
	seen := map[string]bool{}
	for i, m := range b.Members {
		key := fmt.Sprintf("bootstrap.members[%d]", i)
		if err := checkNodeID(key+".id", m.ID); err != nil {
			return err
		}
		if err := checkHostPort(key+".address", m.Address); err != nil {
			return err
		}
		if seen[m.ID] {
			return fmt.Errorf("%s.id: %q is there twice", key, m.ID)
		}
		seen[m.ID] = true
		self = self || m.ID == c.ID
	}
	if !self {
		return fmt.Errorf("bootstrap.members: this node, %q, is not among them", c.ID)
	}
	if b.AdminTokenHash != "" {
		if sum, err := hex.DecodeString(b.AdminTokenHash); err != nil || len(sum) != 32 {
			return errors.New("bootstrap.admin_token_hash: not the 64 hex digits of a SHA-256")
		}
		if b.ClusterID == "" {
			return errors.New("bootstrap.cluster_id: missing beside bootstrap.admin_token_hash")
		}
	}
	if !b.VerificationOff {
		return nil
	}
	for _, a := range append(append([]netip.AddrPort(nil), c.DNS.Listen...), c.API.Listen...) {
		if !a.Addr().IsLoopback() {
			return fmt.Errorf("bootstrap.verification_off: not with %s: a cluster that others can reach must prove its domains", a)
		}
	}
	return nil
}

// checkSecrets refuses secret files that others may read.
func (c *nodeConfig) checkSecrets() error {
	for _, f := range []struct{ key, path string }{
		{"link.key_file", c.Link.KeyFile},
		{"keys.kek_file", c.Keys.KEKFile},
		{"api.key_file", c.API.KeyFile},
	} {
		if f.path == "" || f.key == "keys.kek_file" && filepath.Dir(f.path) == filepath.Clean(os.Getenv("CREDENTIALS_DIRECTORY")) {
			continue // systemd's modes are its own; keys.OpenKeeper checks them
		}
		info, err := os.Stat(f.path)
		if err != nil {
			return fmt.Errorf("%s: %w", f.key, err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return fmt.Errorf("%s: %s has mode %04o, so others can use it: chmod 600 %s", f.key, f.path, info.Mode().Perm(), f.path)
		}
	}
	return nil
}

// checkNodeID bounds ids to what certificates, file names and logs all bear.
func checkNodeID(key, id string) error {
	const maxID = 63
	if id == "" || len(id) > maxID {
		return fmt.Errorf("%s: %q must have 1 to %d characters", key, id, maxID)
	}
	for i := range len(id) {
		b := id[i]
		if ('a' > b || b > 'z') && ('0' > b || b > '9') && (b != '-' || i == 0 || i == len(id)-1) {
			return fmt.Errorf("%s: %q may only have a to z, 0 to 9 and, inside, hyphens", key, id)
		}
	}
	return nil
}

func checkHostPort(key, text string) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return fmt.Errorf("%s: %q is not host:port", key, text)
	}
	return nil
}
