//go:build lab

package keys

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"testing"
)

func TestLabPairsLookLikeKeysAndCannotSign(t *testing.T) {
	source, ok := LabSource(7)
	if !ok {
		t.Fatal("this build has no lab source")
	}
	again, _ := LabSource(7)
	other, _ := LabSource(8)
	seen := map[string]bool{}
	sound := generate(t, RSA2048)
	for range 1000 {
		p, err := source.Take(context.Background(), RSA2048)
		if err != nil {
			t.Fatal(err)
		}
		if seen[p.Payload()] {
			t.Fatal("a pair was given twice")
		}
		seen[p.Payload()] = true
		if len(p.Payload()) != len(sound.Payload()) || len(p.Compact()) != len(sound.Compact()) || p.public.rsa.N.BitLen() != minRSABits {
			t.Fatalf("payload of %d octets, compact form of %d", len(p.Payload()), len(p.Compact()))
		}
		if p.Payload() != p.public.Payload() {
			t.Fatalf("the payload %s is not that of its public half", p.Payload())
		}
		if same, _ := again.Take(context.Background(), RSA2048); same.Payload() != p.Payload() {
			t.Fatal("the same seed gives another pair")
		}
		if o, _ := other.TryTake(RSA2048); o.Payload() == p.Payload() {
			t.Fatal("another seed gives the same pair")
		}
	}
	p, _ := source.TryTake(RSA2048)
	if err := p.Check(); !errors.Is(err, errLab) {
		t.Errorf("check: %v", err)
	}
	if _, err := p.Signer().Sign(nil, nil, nil); !errors.Is(err, errLab) {
		t.Errorf("sign: %v", err)
	}
	if _, err := ParsePEM(p.PKCS8()); err == nil {
		t.Error("it is read as a key")
	}
	restored, err := Restore(p.Payload(), p.Compact())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(restored.Compact(), p.Compact()) || restored.Payload() != p.Payload() {
		t.Error("restored to another pair")
	}
	if ed, ok := source.TryTake(Ed25519); !ok || ed.Check() != nil {
		t.Error("ed25519 pairs are real")
	}
}

func TestLabSignersSign(t *testing.T) {
	var primes []*big.Int
	for range 5 {
		p, err := rand.Prime(rand.Reader, minRSABits/2)
		if err != nil {
			t.Fatal(err)
		}
		primes = append(primes, p)
	}
	source, err := LabSigners(12345, primes)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range len(primes) * (len(primes) - 1) / 2 {
		p, err := source.Take(context.Background(), RSA2048)
		if err != nil {
			t.Fatal(err)
		}
		if seen[p.Payload()] {
			t.Error("a pair was given twice before all were given once")
		}
		seen[p.Payload()] = true
		restored, err := Restore(p.Payload(), p.Compact())
		if err != nil {
			t.Fatal(err)
		}
		if err := restored.Check(); err != nil {
			t.Error(err)
		}
	}
	if ed, ok := source.TryTake(Ed25519); !ok || ed.Check() != nil {
		t.Error("ed25519 pairs are real")
	}
	if _, err := LabSigners(1, primes[:1]); err == nil {
		t.Error("one prime is enough for it")
	}
}

func BenchmarkLabPair(b *testing.B) {
	source, _ := LabSource(1)
	for b.Loop() {
		if _, ok := source.TryTake(RSA2048); !ok {
			b.Fatal("none")
		}
	}
}
