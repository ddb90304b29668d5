//go:build lab

package keys

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"sync/atomic"
)

// labPrime is the length of a lab pair's compact form: that of a real prime.
const labPrime = minRSABits / 2 / 8

// LabSource gives pairs that look like keys and cannot sign, for scale tests:
// distinct, of production size, derived from a seed, some microseconds each. The
// same seed gives the same pairs in the same order. Only a build with the tag lab
// has it.
func LabSource(seed uint64) (Source, bool) { return &labSource{seed: seed}, true }

type labSource struct {
	seed uint64
	next atomic.Uint64
}

// Take implements Source and never waits.
func (s *labSource) Take(_ context.Context, a Algorithm) (*Pair, error) {
	if !a.known() {
		return nil, fmt.Errorf("taking lab pair: %s is unknown", a)
	}
	var label [17]byte
	label[0] = byte(a)
	binary.BigEndian.PutUint64(label[1:], s.seed)
	binary.BigEndian.PutUint64(label[9:], s.next.Add(1))
	if a == Ed25519 {
		seed := sha256.Sum256(label[:])
		return Generate(bytes.NewReader(seed[:]), Ed25519)
	}
	compact := make([]byte, labPrime)
	expand(compact, label[:])
	return labPair(compact), nil
}

// TryTake implements Source.
func (s *labSource) TryTake(a Algorithm) (*Pair, bool) {
	p, err := s.Take(context.Background(), a)
	return p, err == nil
}

// Ready implements Source: there are always more.
func (s *labSource) Ready() int { return MaxStock }

// LabSigners gives real RSA pairs that cost a millisecond, each of two primes out of a
// list of a few hundred: they sign and verify as any other, and keep nothing secret,
// because two public halves with a common prime give both away. The seed says where in
// the list of all pairs they begin.
func LabSigners(seed uint64, primes []*big.Int) (Source, error) {
	if len(primes) < 2 {
		return nil, fmt.Errorf("lab signers: %d primes, want two or more", len(primes))
	}
	s := &labSigners{labSource: labSource{seed: seed}, primes: primes}
	return s, nil
}

type labSigners struct {
	labSource
	primes []*big.Int
}

// Take implements Source and never waits.
func (s *labSigners) Take(ctx context.Context, a Algorithm) (*Pair, error) {
	if a != RSA2048 {
		return s.labSource.Take(ctx, a)
	}
	count := uint64(len(s.primes))
	n := (s.seed%(count*count) + s.next.Add(1)) % (count * (count - 1) / 2)
	j := uint64(1) // the n-th pair i < j
	for n >= j {
		n -= j
		j++
	}
	p, q := s.primes[n], s.primes[j]
	key, err := rsaFromPrime(&rsa.PublicKey{N: new(big.Int).Mul(p, q), E: minRSAExponent}, p)
	if err != nil {
		return nil, fmt.Errorf("taking lab pair: %w", err)
	}
	return newRSA(key), nil
}

// TryTake implements Source.
func (s *labSigners) TryTake(a Algorithm) (*Pair, bool) {
	p, err := s.Take(context.Background(), a)
	return p, err == nil
}

// labPair makes the public half from the compact form, so that Restore knows a
// lab pair by its halves.
//
// A ready key costs nothing when it is taken, so this must cost next to nothing:
// the public half is put together instead of encoded.
func labPair(compact []byte) *Pair {
	const at = len(labHead)
	var spki [at + minRSABits/8 + len(labTail)]byte
	copy(spki[:], labHead)
	modulus := spki[at : at+minRSABits/8]
	expand(modulus, compact)
	modulus[0] |= 0xc0
	modulus[len(modulus)-1] |= 1
	copy(spki[at+len(modulus):], labTail)
	public := Public{Algorithm: RSA2048, rsa: &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: minRSAExponent}}
	payload := payloadPrefix(RSA2048) + base64.StdEncoding.EncodeToString(spki[:])
	return &Pair{public: public, payload: payload, reveal: func() *secret { return &secret{lab: compact} }}
}

// What stands before and behind the modulus in the SubjectPublicKeyInfo of a
// 2048-bit key with the usual exponent (RFC 8017 appendix A.1.1).
const (
	labHead = "\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00" +
		"\x03\x82\x01\x0f\x00\x30\x82\x01\x0a\x02\x82\x01\x01\x00"
	labTail = "\x02\x03\x01\x00\x01"
)

func restoreLab(payload string, compact []byte) (*Pair, bool) {
	if len(compact) != labPrime {
		return nil, false
	}
	p := labPair(bytes.Clone(compact))
	return p, p.payload == payload
}

// expand fills out, a multiple of eight octets, with pseudo-random ones that follow
// from a seed.
func expand(out, seed []byte) {
	sum := sha256.Sum256(seed)
	state := binary.LittleEndian.Uint64(sum[:])
	for ; len(out) > 0; out = out[8:] { // SplitMix64
		state += 0x9e3779b97f4a7c15
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(out, z^z>>31)
	}
}
