package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2"

	"authd/keys"
)

// nodeConfig is one node's file: what this machine may decide alone. What nodes
// must agree on goes through the API into the log. Relative paths are relative
// to the directory of the file. An unknown key is an error.
type nodeConfig struct {
	// ID is this node's name in the cluster and in its certificate: "node-1".
	// Required; never change it while the data directory lives.
	ID string `toml:"id"`
	// DataDir holds the log, snapshots and the mark. Required; created with mode
	// 0700. It holds sealed private keys only; the key-encryption key is elsewhere.
	DataDir string `toml:"data_dir"`
	// DiskReserve is how much must stay free for data_dir, such as "2GiB": with less
	// the node does not lead while another has room, and a leader without one takes
	// no writes; empty: a twentieth of the file system, at most 1 GiB.
	DiskReserve byteSize `toml:"disk_reserve"`
	// PIDFile, where set, gets the process id while the node runs.
	PIDFile string `toml:"pid_file"`

	DNS       dnsConfig       `toml:"dns"`
	API       apiConfig       `toml:"api"`
	Link      linkConfig      `toml:"link"`
	Keys      keysConfig      `toml:"keys"`
	Verify    verifyConfig    `toml:"verify"`
	Bootstrap bootstrapConfig `toml:"bootstrap"`
	Runtime   runtimeConfig   `toml:"runtime"`
	Log       logConfig       `toml:"log"`
}

// dnsConfig is where and how this node answers queries.
type dnsConfig struct {
	// Listen are the addresses to answer on, UDP and TCP. Required. A wildcard
	// ("0.0.0.0:53") replies from the address that was asked.
	Listen []netip.AddrPort `toml:"listen"`
	// Workers is the number of UDP readers an address; 0: one a core.
	Workers int `toml:"workers"`
	// NSID is told to those who ask which server answered (RFC 5001); empty: the id.
	NSID string `toml:"nsid"`
	// CatchUp bounds how long the node, started beside peers that are further,
	// waits to be as far as they are before it opens its listeners, where nothing comes, and
	// thirty times that while a leader is heard; 0: 10 s.
	CatchUp duration `toml:"catch_up"`
	// PeerAddress is where the other nodes, and this one, ask over TCP whether it
	// answers a change; left out: the first of listen, a wildcard with the host of
	// the node link.
	PeerAddress string `toml:"peer_address"`
	// RateLimit bounds what one source gets over UDP.
	RateLimit rateLimitConfig `toml:"rate_limit"`
}

// rateLimitConfig bounds, per second, what one source prefix (/24 of IPv4, /56 of
// IPv6) gets over UDP without a DNS cookie of ours. Past a limit answers are cut
// to TC, so that a real client comes back over TCP; nothing stays unanswered.
type rateLimitConfig struct {
	// Off turns it off.
	Off bool `toml:"off"`
	// Answers for one existing name; 0: 200. However many different names a prefix
	// asks for, it is not limited by this.
	Answers int `toml:"answers"`
	// NoNames is answers that a name does not exist, in one zone; 0: 50.
	NoNames int `toml:"no_names"`
	// Errors is FORMERR, NOTIMP, REFUSED and such with EDNS options; 0: 50.
	Errors int `toml:"errors"`
	// Total is replies of all kinds; 0: 50000.
	Total int `toml:"total"`
	// Exempt are prefixes without any of these limits, and without the one of 64
	// TCP connections; where it is not there: loopback.
	Exempt []netip.Prefix `toml:"exempt"`
}

// apiConfig is where this node takes admin requests.
type apiConfig struct {
	// Listen are addresses as host:port. Required. Plain HTTP is allowed on
	// loopback only: elsewhere cert_file and key_file are required.
	Listen []netip.AddrPort `toml:"listen"`
	// CertFile and KeyFile are the server's certificate chain and key in PEM;
	// both are read again when they change.
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`
}

// linkConfig is the node link: Raft and forwarded writes over mutual TLS.
type linkConfig struct {
	// Listen is the address the link listens on. Required.
	Listen string `toml:"listen"`
	// Advertise is what peers dial, where it differs from listen.
	Advertise string `toml:"advertise"`
	// CAFile, CertFile and KeyFile are the cluster's own CA and this node's
	// certificate (its name is the node's id) and key, in PEM. Required. Whoever can
	// write the CA file decides who is a member.
	CAFile   string `toml:"ca_file"`
	CertFile string `toml:"cert_file"`
	KeyFile  string `toml:"key_file"`
}

// keysConfig is how DKIM keys are made and kept.
type keysConfig struct {
	// KEKFile holds the key-encryption keys that seal private halves: the same
	// content on every node, readable by nobody else. Left out, the systemd
	// credential kek (LoadCredential=kek:…); one of them is required.
	KEKFile string `toml:"kek_file"`
	// Stock is how many RSA keys this node's mill keeps ready, at most 500; left out,
	// 64. 0: it makes none, and has those that other nodes give.
	Stock int `toml:"stock"`
}

// verifyConfig is how customers' parent zones are asked for proof.
type verifyConfig struct {
	// Resolvers find the parent's servers; empty: those of /etc/resolv.conf.
	Resolvers []netip.AddrPort `toml:"resolvers"`
	// Timeout bounds one question; 0: 2 s.
	Timeout duration `toml:"timeout"`
	// ServerPort is where the parent's servers are asked; 0: 53.
	ServerPort uint16 `toml:"server_port"`
}

// bootstrapConfig founds a new cluster. It is used once, while the data
// directory is new and the cluster has no state; afterwards it is not read.
type bootstrapConfig struct {
	// Members are the founding nodes, this one among them; the same on each. Empty:
	// the node waits until a leader adds it (authd operator raft add-peer).
	Members []memberConfig `toml:"members"`
	// ClusterID tells clusters apart, for ever.
	ClusterID string `toml:"cluster_id"`
	// AdminTokenHash is the SHA-256, in hex, of the first admin token. The first
	// leader makes it a token of scope admin when it founds the cluster's state,
	// and never again: once revoked it stays revoked.
	AdminTokenHash string `toml:"admin_token_hash"`
	// AuthorityFile is the cluster's CA with its key sealed under the key-encryption
	// key: the founders put it into the cluster's state, so that nodes can renew
	// their certificates and others can join. Not read afterwards.
	AuthorityFile string `toml:"authority_file"`
	// VerificationOff counts delegated domains as proven from the start. Only
	// authd dev writes it; it is refused unless every address is loopback.
	VerificationOff bool `toml:"verification_off"`
}

// memberConfig is one founding node.
type memberConfig struct {
	ID      string `toml:"id"`
	Address string `toml:"address"` // of the node link, host:port
	// NonVoter: the node serves and does not count for the quorum.
	NonVoter bool `toml:"non_voter"`
}

// runtimeConfig sets the garbage collector and such.
type runtimeConfig struct {
	// GCPercent is how much the heap grows before it is collected; 0: what leaves
	// 128 MiB beside what lives, within 10 and 100.
	GCPercent int `toml:"gc_percent"`
	// MemoryLimit is a soft limit at which the collector works harder, such as
	// "3GiB"; empty: none.
	MemoryLimit byteSize `toml:"memory_limit"`
}

// logConfig is what goes to standard error.
type logConfig struct {
	// Level is debug, info, warn or error; empty: info.
	Level string `toml:"level"`
	// Format is text or json; empty: text.
	Format string `toml:"format"`
}

// configBytes bounds the size of a configuration file.
const configBytes = 1 << 20

// loadConfig reads and checks a node's file. Every error names the file, and
// the line and column or the key.
func loadConfig(path string) (*nodeConfig, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	if len(text) > configBytes {
		return nil, fmt.Errorf("reading configuration: %s has %d bytes, more than %d", path, len(text), configBytes)
	}
	c, err := parseConfig(path, text)
	if err != nil {
		return nil, err
	}
	if err := c.resolve(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("reading configuration: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// parseConfig reads the text alone: no path is resolved, no file looked at.
func parseConfig(path string, text []byte) (*nodeConfig, error) {
	c := &nodeConfig{Keys: keysConfig{Stock: keys.DefaultStock}}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // as some editors write it
	err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(c)
	if err == nil {
		return c, nil
	}
	if missing, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		lines := make([]string, len(missing.Errors))
		for i := range missing.Errors {
			row, column := missing.Errors[i].Position()
			lines[i] = fmt.Sprintf("%s:%d:%d: unknown key %q", path, row, column, strings.Join(missing.Errors[i].Key(), "."))
		}
		return nil, errors.New(strings.Join(lines, "\n"))
	}
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, column := bad.Position()
		key := ""
		if k := bad.Key(); len(k) > 0 {
			key = strings.Join(k, ".") + ": "
		}
		why := strings.TrimPrefix(bad.Error(), "toml: ")
		if kind, ok := strings.CutPrefix(why, "cannot decode TOML "); ok { // the rest is of our types
			kind, _, _ = strings.Cut(kind, " into ")
			why = "cannot be a " + kind
		}
		return nil, fmt.Errorf("%s:%d:%d: %s%s%s", path, row, column, key, why, quotedLine(text, row))
	}
	return nil, fmt.Errorf("%s: %w", path, err)
}

// quotedLine is a line of the file for a message; empty where it would not help.
func quotedLine(text []byte, row int) string {
	lines := strings.Split(string(text), "\n")
	if row < 1 || row > len(lines) {
		return ""
	}
	line := strings.TrimSpace(lines[row-1])
	if line == "" || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return ", in: " + bounded(line)
}

// credentialKEK is the name of the systemd credential that holds the
// key-encryption keys where keys.kek_file is left out (LoadCredential=kek:…).
const credentialKEK = "kek"

// resolve makes paths absolute, against the directory of the file.
func (c *nodeConfig) resolve(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if credentials := os.Getenv("CREDENTIALS_DIRECTORY"); c.Keys.KEKFile == "" && credentials != "" {
		c.Keys.KEKFile = filepath.Join(credentials, credentialKEK)
	}
	for _, p := range []*string{
		&c.DataDir, &c.PIDFile, &c.API.CertFile, &c.API.KeyFile,
		&c.Link.CAFile, &c.Link.CertFile, &c.Link.KeyFile, &c.Keys.KEKFile, &c.Bootstrap.AuthorityFile,
	} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	return nil
}

// duration is a time.Duration written "10s" in TOML.
type duration time.Duration

// UnmarshalText reads "10s".
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

// MarshalText writes what UnmarshalText reads.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// byteSize is a number of bytes written "3GiB" in TOML.
type byteSize int64

// UnmarshalText reads a whole number with B, KiB, MiB or GiB.
func (s *byteSize) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*s = 0
		return nil
	}
	for _, unit := range []struct {
		suffix string
		bytes  int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}} {
		digits, ok := strings.CutSuffix(string(text), unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/unit.bytes {
			break
		}
		*s = byteSize(n * unit.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size such as 512MiB or 3GiB", text)
}
