package keys

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
)

// maxPEM bounds a private key's text: a 4096-bit key needs 3.3 KiB.
const maxPEM = 16 << 10

var (
	oidRSA     = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112} // RFC 8410 section 3
)

// ParsePEM reads a private key from PEM (PKCS #1 or PKCS #8, unencrypted). It
// refuses RSA below 2048 or above 4096 bits, an even or small public exponent,
// halves that do not match, and any other algorithm.
func ParsePEM(text []byte) (*Pair, error) {
	p, err := parsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("reading private key: %w", err)
	}
	return p, nil
}

func parsePEM(text []byte) (*Pair, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%d octets of PEM, at most %d", len(text), maxPEM)
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM block: want -----BEGIN PRIVATE KEY-----")
	}
	defer clear(block.Bytes)
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("more text after the PEM block: want one key alone")
	}
	if block.Headers["Proc-Type"] != "" || block.Type == "ENCRYPTED PRIVATE KEY" {
		return nil, errors.New("key is encrypted: decrypt it first, as with openssl pkey")
	}
	switch block.Type {
	case "RSA PRIVATE KEY":
		return parsePKCS1(block.Bytes)
	case "PRIVATE KEY":
		return parsePKCS8(block.Bytes)
	}
	return nil, fmt.Errorf("PEM block is %q, want PRIVATE KEY (PKCS #8) or RSA PRIVATE KEY (PKCS #1)", clip(block.Type))
}

// pkcs8Key is RFC 5958 section 2, of which version 1 adds the public key.
type pkcs8Key struct {
	Version   int
	Algorithm struct {
		OID        asn1.ObjectIdentifier
		Parameters asn1.RawValue `asn1:"optional"`
	}
	PrivateKey []byte
	Attributes asn1.RawValue `asn1:"optional,tag:0"`
	PublicKey  asn1.RawValue `asn1:"optional,tag:1"`
}

func parsePKCS8(der []byte) (*Pair, error) {
	var key pkcs8Key
	if err := unmarshalAll(der, &key); err != nil {
		return nil, fmt.Errorf("PKCS #8: %w", err)
	}
	defer clear(key.PrivateKey)
	switch {
	case key.Algorithm.OID.Equal(oidRSA):
		return parsePKCS1(key.PrivateKey)
	case key.Algorithm.OID.Equal(oidEd25519):
		return parseSeed(key.PrivateKey)
	}
	return nil, fmt.Errorf("algorithm %s, want RSA or Ed25519", key.Algorithm.OID)
}

// parseSeed reads CurvePrivateKey (RFC 8410 section 7).
func parseSeed(der []byte) (*Pair, error) {
	var seed []byte
	if err := unmarshalAll(der, &seed); err != nil {
		return nil, fmt.Errorf("ed25519 key: %w", err)
	}
	defer clear(seed)
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("ed25519 seed of %d octets, want %d", len(seed), ed25519.SeedSize)
	}
	return newEd25519(ed25519.NewKeyFromSeed(seed)), nil
}

// pkcs1Key is RFC 8017 appendix A.1.2. crypto/x509 would read it too, but
// refuses what is wrong with words that do not say what to do.
type pkcs1Key struct {
	Version             int
	N, E, D, P, Q       *big.Int
	DP, DQ, Coefficient *big.Int
	More                asn1.RawValue `asn1:"optional"`
}

func parsePKCS1(der []byte) (*Pair, error) {
	var key pkcs1Key
	if err := unmarshalAll(der, &key); err != nil {
		return nil, fmt.Errorf("PKCS #1: %w", err)
	}
	if key.Version != 0 || len(key.More.FullBytes) > 0 {
		return nil, errors.New("rsa key of more than two primes: make one of two")
	}
	if err := checkRSAPublic(key.N, key.E); err != nil {
		return nil, err
	}
	if err := checkRSAPrivate(key.N, key.P, key.Q, strangersPrime); err != nil {
		return nil, err
	}
	private, err := rsaFromPrime(&rsa.PublicKey{N: key.N, E: int(key.E.Int64())}, key.P)
	if err != nil {
		return nil, err
	}
	// The exponent in the file may be any that does the same work; one that
	// does not belongs to another key.
	for _, prime := range private.Primes {
		order := new(big.Int).Sub(prime, big.NewInt(1))
		product := new(big.Int).Mul(key.D, key.E)
		if product.Mod(product, order).Cmp(big.NewInt(1)) != 0 {
			return nil, errors.New("rsa halves do not match: the private exponent belongs to another key")
		}
	}
	// As Restore will make it, so that both give the same bytes.
	if _, err := x509.MarshalPKCS8PrivateKey(private); err != nil {
		return nil, fmt.Errorf("rsa key: %w", err)
	}
	return newRSA(private), nil
}

func unmarshalAll(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d octets too many", len(rest))
	}
	return nil
}
