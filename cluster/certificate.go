package cluster

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

const (
	// CertificateLife is how long a node's certificate is good. It is renewed after
	// two thirds of that by the node itself.
	CertificateLife = 90 * 24 * time.Hour
	// issueSlack: nodes' clocks may be behind the one that signed.
	issueSlack = time.Hour
)

// NewCertificateKey draws the key of a node's certificate.
func NewCertificateKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// IssueCertificate signs a certificate (DER) for a node. Its name is the node's id,
// so that peers know whom they talk to; hosts are addresses and names under which
// its API is reached. It is good from since until its end, or the CA's.
func IssueCertificate(ca *x509.Certificate, signer crypto.Signer, public crypto.PublicKey, id string, hosts []string, since, end time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	if end.After(ca.NotAfter) {
		end = ca.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: id},
		NotBefore:    since.Add(-issueSlack), NotAfter: end,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{id},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if !slices.Contains(t.DNSNames, host) {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, public, signer)
	if err != nil {
		return nil, fmt.Errorf("issuing certificate of %s: %w", id, err)
	}
	return der, nil
}

// hostsOf are the hosts that a certificate is for besides its node's id.
func hostsOf(c *x509.Certificate) []string {
	var hosts []string
	if len(c.DNSNames) > 1 {
		hosts = append(hosts, c.DNSNames[1:]...)
	}
	for _, ip := range c.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return hosts
}

// authorityBinding binds the sealed key of the CA to what it is.
func authorityBinding() keys.Binding { return keys.Binding{Selector: "cluster-authority"} }

// SealAuthority makes what the machine keeps of a CA: the key only sealed under
// a version of the key-encryption key.
func SealAuthority(k keys.Keeper, version uint16, ca *x509.Certificate, key *ecdsa.PrivateKey) (state.Authority, error) {
	if !key.PublicKey.Equal(ca.PublicKey) {
		return state.Authority{}, errors.New("sealing the CA's key: it is not the key of that certificate")
	}
	if !ca.IsCA {
		return state.Authority{}, errors.New("sealing the CA's key: the certificate is not a CA's")
	}
	plain, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return state.Authority{}, fmt.Errorf("sealing the CA's key: %w", err)
	}
	sealed, err := k.SealUnder(rand.Reader, version, authorityBinding(), plain)
	clear(plain)
	if err != nil {
		return state.Authority{}, fmt.Errorf("sealing the CA's key: %w", err)
	}
	return state.Authority{Certificate: ca.Raw, Sealed: sealed}, nil
}

// errNoAuthority is a cluster that cannot issue certificates.
var errNoAuthority = errors.New("the cluster has no CA to issue certificates with: set one with authd operator raft set-authority")

// openAuthority opens the CA that the machine knows.
func openAuthority(k keys.Keeper, a state.Authority) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	if len(a.Certificate) == 0 {
		return nil, nil, errNoAuthority
	}
	ca, err := x509.ParseCertificate(a.Certificate)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the CA's certificate: %w", err)
	}
	plain, err := k.Open(authorityBinding(), a.Sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the CA's key: %w", err)
	}
	defer clear(plain)
	parsed, err := x509.ParsePKCS8PrivateKey(plain)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the CA's key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(ca.PublicKey) {
		return nil, nil, errors.New("opening the CA's key: it is not the key of its certificate")
	}
	return ca, key, nil
}

// issue signs a certificate for a node with the cluster's CA. It is the chain that
// peers are shown: the certificate, and the CA's, which a joining node pins.
func (n *Node) issue(public crypto.PublicKey, id string, hosts []string) ([][]byte, error) {
	ca, key, err := openAuthority(n.c.Keeper, n.Machine().Authority())
	if err != nil {
		return nil, err
	}
	// Since machine time, which is never ahead: a certificate from a clock that runs
	// ahead would not be valid yet for anybody else.
	since, now := n.c.Now(), n.c.Now()
	if machine := time.Unix(n.Machine().Time(), 0); machine.Unix() > 0 {
		since = machine
		if now.Before(machine) {
			now = machine
		}
	}
	der, err := IssueCertificate(ca, key, public, id, hosts, since, now.Add(CertificateLife))
	if err != nil {
		return nil, err
	}
	return [][]byte{der, ca.Raw}, nil
}

// SetAuthority makes another CA the one that issues, given in PEM. Nodes that do
// not trust it keep their certificates.
func (n *Node) SetAuthority(ctx context.Context, who Actor, certificate, key []byte) error {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return fmt.Errorf("setting the CA: %w", err)
	}
	private, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return errors.New("setting the CA: its key is not an ECDSA key")
	}
	if n.c.Identity != nil && !trusted(pair.Leaf, n.c.Identity.Roots()) {
		return errors.New("setting the CA: this node does not trust it: add its certificate to link.ca_file on every node first")
	}
	a, err := SealAuthority(n.c.Keeper, n.wrapVersion(), pair.Leaf, private)
	if err != nil {
		return fmt.Errorf("setting the CA: %w", err)
	}
	results, _, err := n.Propose(ctx, who, state.SetAuthority{Authority: a})
	if err == nil && results[0].Refusal != nil {
		err = results[0].Refusal
	}
	return err
}
