package main

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"authd/cluster"
	"authd/keys"
)

// operatorJoinCmd prepares a machine with a join token.
type operatorJoinCmd struct {
	Dir       string   `arg:"" help:"Directory for the node's files; usually /etc/authd."`
	Peer      string   `required:"" placeholder:"HOST:PORT" help:"Node link of any member."`
	TokenFile string   `required:"" placeholder:"FILE" help:"File with the join token; - reads standard input."`
	KEK       string   `name:"kek" required:"" type:"existingfile" placeholder:"FILE" help:"The cluster's key-encryption key."`
	DNS       []string `name:"dns" default:"0.0.0.0:53,[::]:53" help:"Addresses to answer DNS on (default: ${default})."`
	APIPort   uint16   `name:"api-port" default:"8301" help:"Port of the API, over TLS (default: ${default})."`
	DataDir   string   `default:"/var/lib/authd" help:"Data directory (default: ${default})."`
}

func (operatorJoinCmd) Help() string {
	return `Makes a key on this machine, gets a certificate for it from the cluster, and writes what "authd
serve" needs. The member at --peer is trusted because its CA is the one whose fingerprint is in the
token. The token is spent by this; where it fails half-way, ask for another.

Where DIR holds a node already, only its certificate is replaced: that is how one whose certificate
has expired gets another.

    authd operator join /etc/authd --peer 192.0.2.11:7301 --kek ./kek --token-file token
`
}

// tokenBytes bounds a token file.
const tokenBytes = 4 << 10

func (c *operatorJoinCmd) Run(a *app) error {
	if err := checkHostPort("--peer", c.Peer); err != nil {
		return usageError{err}
	}
	token, err := c.token(a)
	if err != nil {
		return err
	}
	if _, err := keys.OpenKeeper(c.KEK); err != nil {
		return fmt.Errorf("reading --kek: %w", err)
	}
	key, err := cluster.NewCertificateKey()
	if err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	joined, err := cluster.Join(a.ctx, c.Peer, token, csr)
	if err != nil {
		return err
	}
	certPath, keyPath := filepath.Join(c.Dir, "cert.pem"), filepath.Join(c.Dir, "key.pem")
	// What was there is of a certificate that has been replaced just now.
	for _, path := range []string{certPath, keyPath} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("joining: %w", err)
		}
	}
	if err := writePair(certPath, keyPath, joined.Chain[0], key); err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	if err := c.complete(token.ID, joined); err != nil {
		return fmt.Errorf("joining: %w", err)
	}
	_, err = fmt.Fprintf(a.stdout, "%s may join cluster %s; now: authd serve --config %s\n", token.ID, joined.ClusterID, filepath.Join(c.Dir, "authd.toml"))
	return err
}

func (c *operatorJoinCmd) token(a *app) (cluster.JoinToken, error) {
	from := a.stdin
	if c.TokenFile != "-" {
		f, err := os.Open(c.TokenFile)
		if err != nil {
			return cluster.JoinToken{}, fmt.Errorf("reading --token-file: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, tokenBytes))
	if err != nil {
		return cluster.JoinToken{}, fmt.Errorf("reading --token-file: %w", err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n") // add-peer prints more behind it
	token, err := cluster.ParseJoinToken(line)
	if err != nil {
		return token, fmt.Errorf("reading --token-file: %w", err)
	}
	return token, nil
}

// complete writes what else a node needs and is not there yet.
func (c *operatorJoinCmd) complete(id string, joined cluster.Joined) error {
	kek, err := os.ReadFile(c.KEK)
	if err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(joined.Address)
	if err != nil {
		return err
	}
	file := nodeFile{
		Note: "Node " + id + " of cluster " + joined.ClusterID + ".",
		ID:   id, DataDir: c.DataDir, DNS: c.DNS,
		API: wildcards(strconv.Itoa(int(c.APIPort))), APICert: "cert.pem", APIKey: "key.pem",
		Link: "0.0.0.0:" + port, Advertise: joined.Address,
		LinkCA: "ca.pem", LinkCert: "cert.pem", LinkKey: "key.pem", KEK: "kek",
	}
	if strings.Contains(host, ":") {
		file.Link = "[::]:" + port
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: joined.Chain[1]})
	for _, f := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{{"ca.pem", ca, 0o644}, {"kek", kek, 0o600}, {"authd.toml", file.text(), 0o644}} {
		if err := newFile(filepath.Join(c.Dir, f.name), f.content, f.mode); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}
