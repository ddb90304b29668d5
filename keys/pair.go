package keys

import (
	"crypto"
	"io"
)

// Algorithm is a DKIM key algorithm. Values are kept in the log: never renumber.
type Algorithm uint8

const (
	RSA2048 Algorithm = 1 // k=rsa (RFC 6376 section 3.3.1, RFC 8301), 2048 bits
	Ed25519 Algorithm = 2 // k=ed25519 (RFC 8463)
)

// ParseAlgorithm reads "rsa2048" or "ed25519".
func ParseAlgorithm(text string) (Algorithm, error) { panic("todo") }

// String is the name used in the API.
func (a Algorithm) String() string { panic("todo") }

// Pair is a private key with its public half. It prints as its public half.
type Pair struct{ pair }

type pair struct{}

// Generate makes a pair from the random source. An RSA pair costs 35 to 50 ms
// of one core, an Ed25519 pair microseconds.
func Generate(random io.Reader, a Algorithm) (*Pair, error) { panic("todo") }

// ParsePEM reads a private key from PEM (PKCS #1 or PKCS #8, unencrypted). It
// refuses RSA below 2048 or above 4096 bits, an even or small public exponent,
// halves that do not match, and any other algorithm.
func ParsePEM(text []byte) (*Pair, error) { panic("todo") }

// Check signs a message with the pair and verifies it against Payload, through
// go-msgauth as a receiver would.
func (p *Pair) Check() error { panic("todo") }

// Algorithm is the pair's algorithm; imported RSA keys up to 4096 bits are RSA2048.
func (p *Pair) Algorithm() Algorithm { panic("todo") }

// Payload is the TXT payload that publishes the public half: "v=DKIM1; k=rsa; p=…".
func (p *Pair) Payload() string { panic("todo") }

// Compact is the private half in its smallest form: RSA one prime (the rest
// follows from the public half), Ed25519 the seed. Handle like the key itself.
func (p *Pair) Compact() []byte { panic("todo") }

// Restore makes the pair again from its payload and compact form.
func Restore(payload string, compact []byte) (*Pair, error) { panic("todo") }

// PKCS8 is the private half as PKCS #8 PEM.
func (p *Pair) PKCS8() []byte { panic("todo") }

// Seed is an Ed25519 pair's 32-byte seed in base64, as rspamd reads it; empty
// for RSA.
func (p *Pair) Seed() string { panic("todo") }

// Signer signs with the private half, for go-msgauth's dkim.SignOptions.
func (p *Pair) Signer() crypto.Signer { panic("todo") }
