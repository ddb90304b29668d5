package cluster

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// Identity is what a node shows its peers and whom it trusts. It is read again
// while the node runs: a certificate is renewed, a CA is replaced, and no restart
// is needed. Safe for concurrent use.
type Identity struct {
	c    IdentityConfig
	held atomic.Pointer[held]
}

// IdentityConfig are the files. All are required.
type IdentityConfig struct {
	ID                        string
	CAFile, CertFile, KeyFile string // the operator's, in PEM
	// Renewed is where this node keeps the key and the certificate that it renewed
	// itself; the later of it and CertFile is used.
	Renewed string
	// Now is the clock by which peers' certificates are judged; nil: time.Now.
	Now func() time.Time
}

// held is one reading of the files.
type held struct {
	pair   *tls.Certificate
	roots  *x509.CertPool
	source []byte // of all files
}

// OpenIdentity reads the files.
func OpenIdentity(c IdentityConfig) (*Identity, error) {
	i := &Identity{c: c}
	if _, err := i.reload(); err != nil {
		return nil, err
	}
	return i, nil
}

// Certificate is the pair in use. READ-ONLY.
func (i *Identity) Certificate() *tls.Certificate { return i.held.Load().pair }

// Roots are the CAs trusted now.
func (i *Identity) Roots() *x509.CertPool { return i.held.Load().roots }

// TLS is the configuration of both ends of the node link.
func (i *Identity) TLS() *tls.Config {
	roots := i.Roots()
	return &tls.Config{
		MinVersion:           tls.VersionTLS13,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return i.Certificate(), nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return i.Certificate(), nil },
		RootCAs:              roots, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert,
		Time:       i.c.Now,
	}
}

// reload reads the files again and says whether anything changed. What cannot be
// used is an error, and changes nothing.
func (i *Identity) reload() (bool, error) {
	ca, err := os.ReadFile(i.c.CAFile)
	if err != nil {
		return false, fmt.Errorf("reading link.ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return false, fmt.Errorf("reading link.ca_file: %s holds no certificate", i.c.CAFile)
	}
	cert, err := os.ReadFile(i.c.CertFile)
	if err != nil {
		return false, fmt.Errorf("reading link.cert_file: %w", err)
	}
	key, err := os.ReadFile(i.c.KeyFile)
	if err != nil {
		return false, fmt.Errorf("reading link.key_file: %w", err)
	}
	renewed, err := os.ReadFile(i.c.Renewed)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, fmt.Errorf("reading renewed certificate: %w", err)
	}
	h := &held{roots: roots, source: bytes.Join([][]byte{ca, cert, key, renewed}, []byte{0})}
	if now := i.held.Load(); now != nil && bytes.Equal(now.source, h.source) {
		return false, nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("reading link.cert_file and link.key_file: %w", err)
	}
	h.pair = &pair
	if name := nodeName(pair.Leaf); name != i.c.ID {
		return false, fmt.Errorf("reading link.cert_file: %s is the certificate of node %q, this is node %q", i.c.CertFile, name, i.c.ID)
	}
	// One that was renewed for a CA that is not trusted any more, or for another node
	// of this machine, is not used.
	if own, err := tls.X509KeyPair(renewed, renewed); err == nil && nodeName(own.Leaf) == i.c.ID &&
		!own.Leaf.NotBefore.Before(pair.Leaf.NotBefore) && trusted(own.Leaf, roots) {
		h.pair = &own
	}
	i.held.Store(h)
	return true, nil
}

// trusted says whether one of the CAs signed a certificate, expired or not.
func trusted(leaf *x509.Certificate, roots *x509.CertPool) bool {
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: leaf.NotBefore.Add(time.Second), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// install keeps a renewed certificate on disk and uses it from now on.
func (i *Identity) install(chain [][]byte, key crypto.Signer) error {
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return err
	}
	if !trusted(leaf, i.Roots()) {
		return errors.New("the new certificate is of a CA that link.ca_file does not hold: add that one to the file on every node first")
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	err = replaceFile(i.c.Renewed, func(w io.Writer) error { // with mode 0600, as os.CreateTemp makes it
		err := pem.Encode(w, &pem.Block{Type: "PRIVATE KEY", Bytes: private})
		for _, der := range chain {
			err = errors.Join(err, pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = i.reload()
	return err
}

// CertificateExpiry is when this node's certificate ends; zero where it has no
// Identity to renew it.
func (n *Node) CertificateExpiry() time.Time {
	if n.c.Identity == nil {
		return time.Time{}
	}
	return n.c.Identity.Certificate().Leaf.NotAfter
}

// certificateWarning is how much of its life is left when a certificate that was
// not renewed becomes a problem: a tenth, ten days after it was due.
const certificateWarning = CertificateLife / 10

// certificateProblem says what is wrong with this node's certificate, empty where
// nothing is.
func (n *Node) certificateProblem() string {
	end := n.CertificateExpiry()
	if end.IsZero() {
		return ""
	}
	switch left := end.Sub(n.c.Now()); {
	case left <= 0:
		return fmt.Sprintf("this node's certificate expired on %s: its peers refuse it; give it a new one with a join token", end.UTC().Format(time.DateOnly))
	case left < certificateWarning:
		return fmt.Sprintf("this node's certificate ends in %d days and could not be renewed", int(left.Hours()/24))
	}
	return ""
}

// renewal is when a certificate is to be renewed.
func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
}

// keepCertificate reads changed files and renews the certificate when it is due,
// or of another CA than the cluster's. The node issues it itself: it holds the
// key-encryption key, so asking the leader would not keep anything from it, and
// this way a node that is cut off does not lose its certificate on top.
func (n *Node) keepCertificate() {
	tick := time.NewTicker(n.tuning.certificates)
	defer tick.Stop()
	said := ""
	for {
		err := n.tendCertificate()
		if err != nil && err.Error() != said {
			n.logger.Error("renewing this node's certificate", "error", err)
			said = err.Error()
		} else if err == nil {
			said = ""
		}
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
	}
}

func (n *Node) tendCertificate() error {
	changed, err := n.c.Identity.reload()
	if err != nil {
		return err
	}
	leaf := n.c.Identity.Certificate().Leaf
	if changed {
		n.logger.Info("certificate or CA read anew", "until", leaf.NotAfter)
	}
	authority := n.Machine().Authority()
	if len(authority.Certificate) == 0 {
		if n.c.Now().Before(renewal(leaf)) {
			return nil
		}
		return errNoAuthority
	}
	ca, err := x509.ParseCertificate(authority.Certificate)
	if err != nil {
		return err
	}
	if n.c.Now().Before(renewal(leaf)) && leaf.CheckSignatureFrom(ca) == nil {
		return nil
	}
	key, err := NewCertificateKey()
	if err != nil {
		return err
	}
	chain, err := n.issue(key.Public(), n.c.ID, hostsOf(leaf))
	if err != nil {
		return err
	}
	if err := n.c.Identity.install(chain, key); err != nil {
		return err
	}
	n.logger.Info("certificate renewed", "until", n.CertificateExpiry())
	return nil
}
