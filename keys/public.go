package keys

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// ParsePublic reads a public half as operators have it: the TXT payload of its
// record, the bare p= of one, or PEM (SubjectPublicKeyInfo or PKCS #1). It refuses
// what parsePayload refuses, and a private key, which has no business here.
func ParsePublic(text string) (Public, error) {
	text = strings.TrimSpace(text)
	if len(text) > maxPEM {
		return Public{}, fmt.Errorf("reading public key: %d octets, at most %d", len(text), maxPEM)
	}
	var p Public
	var err error
	switch {
	case text == "":
		err = errors.New("it is empty: want the TXT payload, its p=, or PEM")
	case strings.HasPrefix(text, "-----BEGIN"):
		p, err = publicFromPEM([]byte(text))
	case strings.Contains(text, ";") || strings.Contains(text, "p="):
		return parsePayload(text)
	default:
		p, err = publicFromBase64(text)
	}
	if err != nil {
		return Public{}, fmt.Errorf("reading public key: %w", err)
	}
	return p, nil
}

func publicFromBase64(text string) (Public, error) {
	text = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(text)
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return Public{}, fmt.Errorf("neither a TXT payload, nor base64, nor PEM: %w", err)
	}
	if len(data) == ed25519.PublicKeySize {
		return publicEd25519(data)
	}
	return publicRSA(data)
}

func publicFromPEM(text []byte) (Public, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return Public{}, errors.New("no PEM block: want -----BEGIN PUBLIC KEY-----")
	}
	if strings.Contains(block.Type, "PRIVATE") {
		return Public{}, errors.New("it is a private key: bring it as one, or send its public half alone")
	}
	if len(rest) > 0 {
		return Public{}, errors.New("more text after the PEM block: want one key alone")
	}
	switch block.Type {
	case "RSA PUBLIC KEY":
		return publicRSA(block.Bytes)
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return Public{}, err
		}
		switch key := key.(type) {
		case *rsa.PublicKey:
			if err := checkRSAPublic(key.N, big.NewInt(int64(key.E))); err != nil {
				return Public{}, err
			}
			return Public{Algorithm: RSA2048, rsa: key}, nil
		case ed25519.PublicKey:
			return publicEd25519(key)
		}
		return Public{}, fmt.Errorf("a %T, want RSA or Ed25519", key)
	}
	return Public{}, fmt.Errorf("PEM block is %q, want PUBLIC KEY", clip(block.Type))
}
