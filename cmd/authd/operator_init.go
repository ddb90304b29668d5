package main

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"authd/keys"
)

// operatorInitCmd prepares a real cluster in a directory of its own.
type operatorInitCmd struct {
	Dir     string            `arg:"" help:"Directory to prepare; everything secret of the cluster is in it."`
	Node    map[string]string `required:"" mapsep:"," placeholder:"ID=HOST:PORT" help:"A node and the address of its node link as the other nodes reach it."`
	DNS     []string          `name:"dns" default:"0.0.0.0:53,[::]:53" help:"Addresses to answer DNS on (default: ${default})."`
	APIPort uint16            `name:"api-port" default:"8301" help:"Port of the API, over TLS (default: ${default})."`
	DataDir string            `default:"/var/lib/authd" help:"Data directory on the nodes (default: ${default})."`
}

func (operatorInitCmd) Help() string {
	return `Makes a CA of the cluster's own, a certificate for every node, the key-encryption key that seals
DKIM private keys, the first admin token, and DIR/<id>/ to copy to /etc/authd on each machine.
Nothing that exists is overwritten: running it again completes or changes nothing, and with a
further --node it prepares a machine to add with "authd operator raft add-peer --prepared".

Nodes renew their certificates themselves: the CA's key is in the cluster's state, sealed under the
key-encryption key. Keep DIR/ca.key and DIR/kek where no node is: who has the first can join, who has
the second and a backup has the keys.

Example:

    authd operator init ./mail-dns \
        --node node-1=192.0.2.11:7301,node-2=192.0.2.12:7301,node-3=192.0.2.13:7301
    scp -r ./mail-dns/node-1/. root@192.0.2.11:/etc/authd/
    ssh root@192.0.2.11 'chown -R authd: /etc/authd; systemctl start authd'

Once it runs, in this order:

    export AUTHD_ADDR=https://192.0.2.11:8301 AUTHD_CA=./mail-dns/ca.pem AUTHD_TOKEN=$(cat ./mail-dns/admin.token)
    authd nameserver set ns1 192.0.2.53 2001:db8::53
    authd nameserver set ns2 198.51.100.53
    authd zone set p-dns.test
    authd zone parent p-dns.test                    # for the registrar
    authd zone record set p-dns.test mx1 A 192.0.2.25
    authd pool set default --spf ip4:192.0.2.0/24 --mx "10 mx1.p-dns.test."
    authd tenant add acme
    authd domain add send.acme.example --tenant acme
`
}

// foundingDoc is DIR/cluster.toml: what was decided once for the cluster.
type foundingDoc struct {
	ClusterID      string         `toml:"cluster_id"`
	AdminTokenHash string         `toml:"admin_token_hash"`
	Members        []memberConfig `toml:"members"`
}

func (c *operatorInitCmd) Run(a *app) error {
	if err := c.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("preparing cluster: %w", err)
	}
	founding, fresh, err := c.found()
	if err != nil {
		return fmt.Errorf("preparing cluster: %w", err)
	}
	ca, err := openAuthority(c.Dir, "authd cluster "+founding.ClusterID)
	if err != nil {
		return fmt.Errorf("preparing cluster: %w", err)
	}
	if err := ca.seal(filepath.Join(c.Dir, "authority.pem"), filepath.Join(c.Dir, "kek")); err != nil {
		return fmt.Errorf("preparing cluster: %w", err)
	}
	for _, id := range c.ids() {
		made, err := c.node(ca, founding, id)
		if err != nil {
			return fmt.Errorf("preparing %s: %w", id, err)
		}
		state := "unchanged"
		if made {
			state = "prepared"
		}
		fmt.Fprintf(a.stdout, "%s: %s/%s %s\n", id, c.Dir, id, state)
	}
	if fresh {
		fmt.Fprintf(a.stdout, "\nfirst admin token: %s/admin.token\n"+
			"copy each node's directory to its machine as /etc/authd, owned by the user that authd runs as\n(chown -R authd: /etc/authd), start authd there, then:\n"+
			"  authd operator raft list-peers --addr https://HOST:%d --ca %s/ca.pem --token \"$(cat %s/admin.token)\"\n"+
			"what comes next is at the end of: authd operator init --help\n",
			c.Dir, c.APIPort, c.Dir, c.Dir)
	}
	return nil
}

func (c *operatorInitCmd) check() error {
	for _, id := range c.ids() {
		if err := checkNodeID("--node", id); err != nil {
			return usageError{err}
		}
		if err := checkHostPort("--node", c.Node[id]); err != nil {
			return usageError{err}
		}
	}
	return nil
}

func (c *operatorInitCmd) ids() []string {
	ids := make([]string, 0, len(c.Node))
	for id := range c.Node {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	return ids
}

// found reads DIR/cluster.toml or decides it: the nodes given are the founding
// members. It is written last of what nodes share, so that it is whole when it
// is there.
func (c *operatorInitCmd) found() (founding foundingDoc, fresh bool, err error) {
	file := filepath.Join(c.Dir, "cluster.toml")
	text, err := os.ReadFile(file)
	if err == nil {
		if err := toml.Unmarshal(text, &founding); err != nil {
			return founding, false, fmt.Errorf("%s: %w", file, err)
		}
		return founding, false, c.agrees(founding)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return founding, false, err
	}
	token, err := sharedSecrets(c.Dir)
	if err != nil {
		return founding, false, err
	}
	founding = foundingDoc{ClusterID: newClusterID(), AdminTokenHash: tokenHash(token)}
	for _, id := range c.ids() {
		founding.Members = append(founding.Members, memberConfig{ID: id, Address: c.Node[id]})
	}
	if text, err = toml.Marshal(founding); err != nil {
		return founding, false, err
	}
	return founding, true, newFile(file, text, 0o600)
}

// agrees refuses other addresses for nodes that founded the cluster.
func (c *operatorInitCmd) agrees(founding foundingDoc) error {
	for _, m := range founding.Members {
		if given, ok := c.Node[m.ID]; ok && given != m.Address {
			return fmt.Errorf("%s was prepared as %s, not %s: choose another directory for another cluster", m.ID, m.Address, given)
		}
	}
	return nil
}

// sharedSecrets makes what all nodes share and is not there yet, the
// key-encryption key and the admin token, and returns the token.
func sharedSecrets(dir string) (string, error) {
	kek := filepath.Join(dir, "kek")
	if _, err := os.Lstat(kek); errors.Is(err, os.ErrNotExist) {
		if err := keys.NewKeeperFile(kek, rand.Reader); err != nil {
			return "", fmt.Errorf("making the key-encryption key: %w", err)
		}
	}
	text, err := newTokenText()
	if err != nil {
		return "", err
	}
	tokenFile := filepath.Join(dir, "admin.token")
	err = secretFile(tokenFile, []byte(text+"\n"))
	if err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	content, err := os.ReadFile(tokenFile)
	if err != nil {
		return "", err
	}
	token, err := tokenLine(content)
	if err != nil {
		return "", fmt.Errorf("%s: %w", tokenFile, err)
	}
	return token, nil
}

// newClusterID tells clusters apart, for ever.
func newClusterID() string {
	var id [8]byte
	rand.Read(id[:]) // never fails (crypto/rand)
	return hex.EncodeToString(id[:])
}

// node writes one node's directory, and says whether anything was missing.
func (c *operatorInitCmd) node(ca *authority, founding foundingDoc, id string) (bool, error) {
	host, port, err := net.SplitHostPort(c.Node[id])
	if err != nil {
		return false, err
	}
	dir := filepath.Join(c.Dir, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	if err := ca.issue(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), id, []string{host}); err != nil {
		return false, err
	}
	kek, err := os.ReadFile(filepath.Join(c.Dir, "kek"))
	if err != nil {
		return false, err
	}
	file := nodeFile{
		Note: "Node " + id + " of cluster " + founding.ClusterID + ".",
		ID:   id, DataDir: c.DataDir,
		DNS:     c.DNS,
		API:     wildcards(strconv.Itoa(int(c.APIPort))),
		APICert: "cert.pem", APIKey: "key.pem",
		Link: "0.0.0.0:" + port, Advertise: c.Node[id],
		LinkCA: "ca.pem", LinkCert: "cert.pem", LinkKey: "key.pem",
		KEK: "kek",
	}
	if strings.Contains(host, ":") {
		file.Link = "[::]:" + port
	}
	for _, m := range founding.Members {
		if m.ID == id {
			file.Members = founding.Members
			file.ClusterID, file.AdminTokenHash = founding.ClusterID, founding.AdminTokenHash
			file.Authority = "authority.pem"
		}
	}
	authority, err := os.ReadFile(filepath.Join(c.Dir, "authority.pem"))
	if err != nil {
		return false, err
	}
	made := false
	for _, f := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{{"ca.pem", ca.pem, 0o644}, {"kek", kek, 0o600}, {"authority.pem", authority, 0o600}, {"authd.toml", file.text(), 0o644}} {
		if f.name == "authority.pem" && file.Authority == "" {
			continue // it founds nothing
		}
		wrote, err := completeFile(filepath.Join(dir, f.name), f.content, f.mode)
		if err != nil {
			return false, err
		}
		made = made || wrote
	}
	return made, nil
}

// wildcards are the addresses of both families.
func wildcards(port string) []string { return []string{"0.0.0.0:" + port, "[::]:" + port} }

// completeFile writes a file that is not there yet. One that is there and says
// something else is refused.
func completeFile(path string, content []byte, mode os.FileMode) (bool, error) {
	err := newFile(path, content, mode)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, os.ErrExist) {
		return false, err
	}
	there, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(there, content) {
		return false, fmt.Errorf("%s exists and differs from what would be written: move it away, or choose another directory", path)
	}
	return false, nil
}
