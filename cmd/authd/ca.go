package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
)

// authority is a cluster's own CA: whoever holds its key decides who is a member.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// authorityLife: a CA outlives the cluster. Nodes renew their own certificates,
// which last for cluster.CertificateLife.
const (
	authorityLife = 20 * 365 * 24 * time.Hour
	clockSlack    = time.Hour // nodes' clocks may be behind the one that signed
)

// openAuthority reads DIR/ca.pem and DIR/ca.key, or makes them.
func openAuthority(dir, clusterName string) (*authority, error) {
	certPath, keyPath := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	if errors.Is(err, os.ErrNotExist) {
		if err := newAuthority(certPath, keyPath, clusterName); err != nil {
			return nil, fmt.Errorf("making a CA: %w", err)
		}
		pair, err = tls.LoadX509KeyPair(certPath, keyPath)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the CA: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("opening the CA: %s is not an authd CA", certPath)
	}
	text, err := os.ReadFile(certPath)
	if err != nil {
		return nil, fmt.Errorf("opening the CA: %w", err)
	}
	return &authority{cert: pair.Leaf, key: key, pem: text}, nil
}

func newAuthority(certPath, keyPath, name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template, err := certificate(name, authorityLife)
	if err != nil {
		return err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.MaxPathLenZero = true
	template.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	return writePair(certPath, keyPath, der, key)
}

// issue writes a node's certificate and key unless both are there. Its name is
// the node's id, so that peers know whom they talk to; hosts are the addresses
// under which its API is reached.
func (a *authority) issue(certPath, keyPath, id string, hosts []string) error {
	if _, err := tls.LoadX509KeyPair(certPath, keyPath); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("certificate of %s: %w", id, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("certificate of %s: %w", id, err)
	}
	der, err := cluster.IssueCertificate(a.cert, a.key, key.Public(), id, hosts, time.Now(), time.Now().Add(cluster.CertificateLife))
	if err != nil {
		return err // it says whose
	}
	if err := writePair(certPath, keyPath, der, key); err != nil {
		return fmt.Errorf("certificate of %s: %w", id, err)
	}
	return nil
}

// certificate is a template with a random serial number.
func certificate(name string, life time.Duration) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(life),
	}, nil
}

// writePair writes the key before the certificate: a pair whose certificate is
// there is whole.
func writePair(certPath, keyPath string, der []byte, key *ecdsa.PrivateKey) error {
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// A key without a certificate is what an interrupted run left: of no use.
	if _, err := os.Stat(certPath); errors.Is(err, os.ErrNotExist) {
		if err := os.Remove(keyPath); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := secretFile(keyPath, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})); err != nil {
		return err
	}
	return newFile(certPath, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// sealedBlock is the CA's key as nodes get it: sealed under the key-encryption key.
const sealedBlock = "AUTHD SEALED KEY"

// seal writes the CA for the nodes that found the cluster, unless it is there: they
// put it into the cluster's state, so that any node can issue certificates.
func (a *authority) seal(path, kek string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	keeper, err := keys.OpenKeeper(kek)
	if err != nil {
		return fmt.Errorf("sealing the CA: %w", err)
	}
	versions := keeper.Versions()
	sealed, err := cluster.SealAuthority(keeper, versions[len(versions)-1], a.cert, a.key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: sealed.Certificate})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: sealedBlock, Bytes: sealed.Sealed})...)
	return secretFile(path, text)
}

// readAuthority reads what seal wrote.
func readAuthority(path string) (a state.Authority, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return a, fmt.Errorf("reading bootstrap.authority_file: %w", err)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			a.Certificate = block.Bytes
		case sealedBlock:
			a.Sealed = block.Bytes
		}
	}
	if len(a.Certificate) == 0 || len(a.Sealed) == 0 {
		return a, fmt.Errorf("reading bootstrap.authority_file: %s holds no certificate with its sealed key: take it from the directory of authd operator init", path)
	}
	return a, nil
}
