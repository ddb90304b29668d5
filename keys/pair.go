package keys

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// Algorithm is a DKIM key algorithm. Values are kept in the log: never renumber.
type Algorithm uint8

const (
	RSA2048 Algorithm = 1 // k=rsa (RFC 6376 section 3.3.1, RFC 8301), 2048 bits
	Ed25519 Algorithm = 2 // k=ed25519 (RFC 8463)
)

// ParseAlgorithm reads "rsa2048" or "ed25519".
func ParseAlgorithm(text string) (Algorithm, error) {
	switch text {
	case "rsa2048":
		return RSA2048, nil
	case "ed25519":
		return Ed25519, nil
	}
	return 0, fmt.Errorf("algorithm %q, want rsa2048 or ed25519", clip(text))
}

// String is the name used in the API.
func (a Algorithm) String() string {
	switch a {
	case RSA2048:
		return "rsa2048"
	case Ed25519:
		return "ed25519"
	}
	return fmt.Sprintf("algorithm %d", uint8(a))
}

func (a Algorithm) known() bool { return a == RSA2048 || a == Ed25519 }

// Pair is a private key with its public half. It prints as its public half.
// Safe for concurrent use.
type Pair struct {
	public  Public
	payload string
	// reveal hides the private half behind a function, so that even a struct that holds
	// a Pair in an unexported field, where fmt asks no method of ours, prints an address.
	// A pointer would not do: fmt follows it for a verb that does not fit.
	reveal func() *secret
	maker  string // the node that made it; empty: this one
}

type secret struct {
	rsa *rsa.PrivateKey
	ed  ed25519.PrivateKey
	lab []byte // compact form of a lab pair, which cannot sign
}

func newPair(public Public, s secret) *Pair {
	return &Pair{public: public, payload: public.Payload(), reveal: func() *secret { return &s }}
}

// From is the same pair, of another node's making.
func (p *Pair) From(maker string) *Pair {
	q := *p
	q.maker = maker
	return &q
}

// Maker is the node that made the pair; empty: this one.
func (p *Pair) Maker() string { return p.maker }

// Generate makes a pair from the random source. An RSA pair costs 35 to 50 ms
// of one core, an Ed25519 pair microseconds. Since Go 1.26 crypto/rsa takes its
// randomness from the system whatever the source.
func Generate(random io.Reader, a Algorithm) (*Pair, error) {
	switch a {
	case RSA2048:
		key, err := rsa.GenerateKey(random, minRSABits)
		if err != nil {
			return nil, fmt.Errorf("generating rsa key: %w", err)
		}
		return newRSA(key), nil
	case Ed25519:
		var seed [ed25519.SeedSize]byte
		defer clear(seed[:])
		if _, err := io.ReadFull(random, seed[:]); err != nil {
			return nil, fmt.Errorf("generating ed25519 key: %w", err)
		}
		return newEd25519(ed25519.NewKeyFromSeed(seed[:])), nil
	}
	return nil, fmt.Errorf("generating key: %s is unknown", a)
}

func newRSA(key *rsa.PrivateKey) *Pair {
	public := Public{Algorithm: RSA2048, rsa: &key.PublicKey}
	return newPair(public, secret{rsa: key})
}

func newEd25519(key ed25519.PrivateKey) *Pair {
	public := Public{Algorithm: Ed25519, ed: key.Public().(ed25519.PublicKey)}
	return newPair(public, secret{ed: key})
}

// rsaFromPrime makes the whole key from the public half and one prime.
func rsaFromPrime(public *rsa.PublicKey, prime *big.Int) (*rsa.PrivateKey, error) {
	if prime.Sign() <= 0 || prime.BitLen() >= public.N.BitLen() {
		return nil, errors.New("rsa halves do not match: the prime does not divide the modulus")
	}
	one := big.NewInt(1)
	other, rest := new(big.Int).QuoRem(public.N, prime, new(big.Int))
	if rest.Sign() != 0 || prime.Cmp(one) == 0 {
		return nil, errors.New("rsa halves do not match: the prime does not divide the modulus")
	}
	// The exponent of FIPS 186-5 appendix A.1.1: modulo lcm(p-1, q-1).
	p1, q1 := new(big.Int).Sub(prime, one), new(big.Int).Sub(other, one)
	lcm := new(big.Int).Mul(p1, q1)
	lcm.Quo(lcm, new(big.Int).GCD(nil, nil, p1, q1))
	d := new(big.Int).ModInverse(big.NewInt(int64(public.E)), lcm)
	if d == nil {
		return nil, errors.New("rsa public exponent does not fit the primes")
	}
	key := &rsa.PrivateKey{PublicKey: *public, D: d, Primes: []*big.Int{prime, other}}
	key.Precompute()
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("rsa halves do not match: %w", err)
	}
	return key, nil
}

// Restore makes the pair again from its payload and compact form. The compact
// form stays the caller's, who should clear it.
func Restore(payload string, compact []byte) (*Pair, error) {
	if p, ok := restoreLab(payload, compact); ok {
		return p, nil
	}
	public, err := parsePayload(payload)
	if err != nil {
		return nil, fmt.Errorf("restoring pair: %w", err)
	}
	if public.Algorithm == Ed25519 {
		if len(compact) != ed25519.SeedSize {
			return nil, fmt.Errorf("restoring pair: ed25519 seed of %d octets, want %d", len(compact), ed25519.SeedSize)
		}
		key := ed25519.NewKeyFromSeed(compact)
		if !public.ed.Equal(key.Public()) {
			return nil, errors.New("restoring pair: ed25519 halves do not match")
		}
		return newEd25519(key), nil
	}
	key, err := rsaFromPrime(public.rsa, new(big.Int).SetBytes(compact))
	if err != nil {
		return nil, fmt.Errorf("restoring pair: %w", err)
	}
	return newRSA(key), nil
}

// Admit is Restore for a pair that another node made: the halves must match and be
// of an RSA key as Generate makes them, the primes must be prime and far apart, and
// the pair must sign. It takes a twentieth of what the key took.
func Admit(payload string, compact []byte) (*Pair, error) {
	p, err := Restore(payload, compact)
	if err != nil {
		return nil, err
	}
	key := p.reveal().rsa
	if key == nil || key.N.BitLen() != minRSABits || p.Payload() != payload {
		return nil, fmt.Errorf("admitting pair: want RSA of %d bits in the form that is published", minRSABits)
	}
	if err := checkRSAPrivate(key.N, key.Primes[0], key.Primes[1], ownPrime); err != nil {
		return nil, fmt.Errorf("admitting pair: %w", err)
	}
	return p, p.Check()
}

// checkMessage is what Check signs. Its header fields are those that a signer of
// ours would name.
const checkMessage = "From: check@authd.example\r\nTo: check@authd.example\r\nSubject: check\r\n" +
	"Date: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <check@authd.example>\r\n\r\nIs this key whole?\r\n"

// Check signs a message with the pair and verifies it against Payload, through
// go-msgauth as a receiver would.
func (p *Pair) Check() error {
	if p.reveal().lab != nil {
		return fmt.Errorf("checking pair: %w", errLab)
	}
	var signed bytes.Buffer
	err := dkim.Sign(&signed, strings.NewReader(checkMessage), &dkim.SignOptions{
		Domain:   "authd.example",
		Selector: "check",
		Signer:   p.Signer(),
		Hash:     crypto.SHA256,
	})
	if err != nil {
		return fmt.Errorf("checking pair: signing: %w", err)
	}
	results, err := dkim.VerifyWithOptions(&signed, &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) { return []string{p.payload}, nil },
	})
	if err != nil {
		return fmt.Errorf("checking pair: verifying: %w", err)
	}
	if len(results) != 1 {
		return fmt.Errorf("checking pair: verifying: %d signatures found, want 1", len(results))
	}
	if results[0].Err != nil {
		return fmt.Errorf("checking pair: verifying: %w", results[0].Err)
	}
	return nil
}

// Algorithm is the pair's algorithm; imported RSA keys up to 4096 bits are RSA2048.
func (p *Pair) Algorithm() Algorithm { return p.public.Algorithm }

// Payload is the TXT payload that publishes the public half: "v=DKIM1; k=rsa; p=…".
func (p *Pair) Payload() string { return p.payload }

// Compact is the private half in its smallest form: RSA one prime (the rest
// follows from the public half), Ed25519 the seed. Handle like the key itself:
// the caller clears it after use.
func (p *Pair) Compact() []byte {
	switch {
	case p.reveal().lab != nil:
		return bytes.Clone(p.reveal().lab)
	case p.reveal().rsa != nil:
		return p.reveal().rsa.Primes[0].Bytes()
	}
	return p.reveal().ed.Seed()
}

// PKCS8 is the private half as PKCS #8 PEM (RFC 5958). Of a lab pair it is an
// RSA-sized block that no parser takes for a key.
func (p *Pair) PKCS8() []byte {
	var der []byte
	switch {
	case p.reveal().lab != nil:
		return pem.EncodeToMemory(&pem.Block{Type: "LAB KEY", Bytes: p.reveal().lab})
	case p.reveal().rsa != nil:
		der, _ = x509.MarshalPKCS8PrivateKey(p.reveal().rsa)
	default:
		der, _ = x509.MarshalPKCS8PrivateKey(p.reveal().ed)
	}
	if der == nil {
		panic("keys: a checked pair does not encode")
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// Seed is an Ed25519 pair's 32-byte seed in base64, as rspamd reads it; empty
// for RSA.
func (p *Pair) Seed() string {
	if p.reveal().ed == nil {
		return ""
	}
	seed := p.reveal().ed.Seed()
	defer clear(seed)
	return base64.StdEncoding.EncodeToString(seed)
}

// Signer signs with the private half, for go-msgauth's dkim.SignOptions. The
// signer of a lab pair answers every call with an error.
func (p *Pair) Signer() crypto.Signer {
	switch {
	case p.reveal().lab != nil:
		return labSigner{p.public.rsa}
	case p.reveal().rsa != nil:
		return p.reveal().rsa
	}
	return p.reveal().ed
}

// errLab is why a lab pair does not sign.
var errLab = errors.New("this is a lab pair, made for scale tests: it cannot sign")

type labSigner struct{ public *rsa.PublicKey }

func (s labSigner) Public() crypto.PublicKey { return s.public }

func (s labSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, errLab }

// String is the public half.
func (p Pair) String() string {
	if p.reveal == nil {
		return "no pair"
	}
	return p.payload
}

// GoString is the public half.
func (p Pair) GoString() string { return fmt.Sprintf("keys.Pair(%q)", p.String()) }

// Format writes the public half, whatever the verb.
func (p Pair) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		_, _ = io.WriteString(f, p.GoString())
		return
	}
	_, _ = io.WriteString(f, p.String())
}

// LogValue is the public half.
func (p Pair) LogValue() slog.Value { return slog.StringValue(p.String()) }

// MarshalText is the public half, so that JSON and CBOR hold nothing more.
func (p Pair) MarshalText() ([]byte, error) { return []byte(p.String()), nil }
