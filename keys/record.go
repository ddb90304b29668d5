package keys

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// The TTLs that a ring counts with, in seconds. The zone package serves by the
// same table; a test where the two meet holds them equal.
const (
	TTLLong     = 3600 // active and draining keys
	TTLShort    = 300  // standby and revoked keys, empty slots
	TTLNegative = 300  // a selector that is not there (RFC 2308 section 4)

	// TTLStretch is added in slots, whose names answered something before, for
	// resolvers that keep records longer than they may.
	TTLStretch = 3600

	// ClockMargin is added to the negative TTL: two leaders in a row, each with a
	// clock that most nodes agree with, may be so much apart.
	ClockMargin = 60
	// GapMinted is how long after its confirmation a minted selector's record may
	// still be missing in a cache.
	GapMinted = TTLNegative + ClockMargin
)

const (
	minRSABits     = 2048      // what receivers still count as secure
	maxRSABits     = 4096      // the longest that verifiers must handle (RFC 8301 section 3.2)
	minRSAExponent = 65537     // smaller ones have a history of broken verifiers
	maxRSAExponent = 1<<31 - 1 // what common verifiers can read
	maxPayload     = 2048      // octets of TXT payload: a 4096-bit key needs 760
)

// errRevokedPayload is what parsePayload answers for an empty p=.
var errRevokedPayload = errors.New("key record is revoked: p= is empty")

// Public is the public half of a key. It is safe to print.
type Public struct {
	Algorithm Algorithm
	rsa       *rsa.PublicKey
	ed        ed25519.PublicKey
}

// Payload is the TXT payload that publishes the key (RFC 6376 section 3.6.1).
func (p Public) Payload() string {
	if p.Algorithm == Ed25519 {
		return payloadPrefix(Ed25519) + base64.StdEncoding.EncodeToString(p.ed)
	}
	spki, err := x509.MarshalPKIXPublicKey(p.rsa)
	if err != nil {
		panic("keys: encoding an RSA public key: " + err.Error())
	}
	return payloadPrefix(RSA2048) + base64.StdEncoding.EncodeToString(spki)
}

// RevokedPayload is the TXT payload of a revoked key and of an empty slot: an
// empty p= (RFC 6376 section 3.6.1).
func RevokedPayload(a Algorithm) string { return payloadPrefix(a) }

func payloadPrefix(a Algorithm) string {
	if a == Ed25519 {
		return "v=DKIM1; k=ed25519; p=" // RFC 8463 section 4
	}
	return "v=DKIM1; k=rsa; p="
}

// parsePayload reads a key record and refuses what no receiver should trust:
// the sizes and exponents that ParsePEM refuses, even moduli, moduli with a
// small factor, Ed25519 points of small order, records for other services or
// hashes. Unknown tags and notes are dropped: Public.Payload is the plain form.
func parsePayload(text string) (Public, error) {
	if len(text) > maxPayload {
		return Public{}, fmt.Errorf("reading key record: %d octets, at most %d", len(text), maxPayload)
	}
	tags, err := parseTags(text)
	if err != nil {
		return Public{}, fmt.Errorf("reading key record %q: %w", clip(text), err)
	}
	p, err := publicFromTags(tags)
	if err != nil {
		return Public{}, fmt.Errorf("reading key record %q: %w", clip(text), err)
	}
	return p, nil
}

// clip bounds what an error quotes.
func clip(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// parseTags splits a tag list (RFC 6376 section 3.2).
func parseTags(text string) (map[string]string, error) {
	tags := map[string]string{}
	for i, part := range strings.Split(text, ";") {
		part = strings.Trim(part, " \t\r\n")
		if part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name = strings.TrimRight(name, " \t\r\n")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not tag=value", clip(part))
		}
		if _, twice := tags[name]; twice {
			return nil, fmt.Errorf("tag %s= twice", clip(name)) // RFC 6376 section 3.2
		}
		// RFC 6376 section 3.6.1: v= must come first where it is present.
		if name == "v" && i != 0 {
			return nil, errors.New("v= must be the first tag")
		}
		tags[name] = strings.Trim(value, " \t\r\n")
	}
	return tags, nil
}

func publicFromTags(tags map[string]string) (Public, error) {
	if v, ok := tags["v"]; ok && v != "DKIM1" {
		return Public{}, fmt.Errorf("v=%s, want DKIM1", clip(v))
	}
	if h, ok := tags["h"]; ok && !listed(h, "sha256") {
		return Public{}, fmt.Errorf("h=%s does not allow sha256", clip(h))
	}
	if s, ok := tags["s"]; ok && !listed(s, "email") && !listed(s, "*") {
		return Public{}, fmt.Errorf("s=%s is not for email", clip(s))
	}
	text, ok := tags["p"]
	if !ok {
		return Public{}, errors.New("no p= tag")
	}
	text = strings.NewReplacer(" ", "", "\t", "", "\r", "", "\n", "").Replace(text)
	if text == "" {
		return Public{}, errRevokedPayload
	}
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return Public{}, fmt.Errorf("p= is not base64: %w", err)
	}
	k, ok := tags["k"]
	switch {
	case !ok || k == "rsa":
		return publicRSA(data)
	case k == "ed25519":
		return publicEd25519(data)
	}
	return Public{}, fmt.Errorf("k=%s, want rsa or ed25519", clip(k))
}

// listed says whether a colon-separated tag value has an item.
func listed(list, item string) bool {
	for part := range strings.SplitSeq(list, ":") {
		if strings.Trim(part, " \t\r\n") == item {
			return true
		}
	}
	return false
}

func publicRSA(der []byte) (Public, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		// RFC 6376 names RSAPublicKey, its erratum 3017 SubjectPublicKeyInfo:
		// both are in use, and we publish the second.
		plain, plainErr := x509.ParsePKCS1PublicKey(der)
		if plainErr != nil {
			return Public{}, fmt.Errorf("p= is not an RSA public key: %w", err)
		}
		key = plain
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return Public{}, fmt.Errorf("p= is a %T, but k= says rsa", key)
	}
	if err := checkRSAPublic(public.N, big.NewInt(int64(public.E))); err != nil {
		return Public{}, err
	}
	return Public{Algorithm: RSA2048, rsa: public}, nil
}

func publicEd25519(data []byte) (Public, error) {
	if len(data) != ed25519.PublicKeySize {
		return Public{}, fmt.Errorf("ed25519 key of %d octets, want %d", len(data), ed25519.PublicKeySize)
	}
	if err := checkPoint(data); err != nil {
		return Public{}, err
	}
	return Public{Algorithm: Ed25519, ed: ed25519.PublicKey(data)}, nil
}
