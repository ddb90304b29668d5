package keystest

import (
	"context"
	"testing"

	"authd/keys"
)

func TestEveryCommittedPairSigns(t *testing.T) {
	if got := len(lines()); got != Count {
		t.Fatalf("%d committed pairs, want %d", got, Count)
	}
	for i := range Count {
		if err := Pair(i).Check(); err != nil {
			t.Errorf("pair %d: %v", i, err)
		}
	}
}

func TestSourceGivesEachPairOnceAndThenMakesMore(t *testing.T) {
	s := Source()
	seen := map[string]bool{}
	for i := range Count + 1 {
		if want := max(0, Count-i); s.Ready() != want {
			t.Fatalf("after %d pairs %d are ready, want %d", i, s.Ready(), want)
		}
		p, err := s.Take(context.Background(), keys.RSA2048)
		if err != nil {
			t.Fatal(err)
		}
		if seen[p.Payload()] {
			t.Fatalf("pair %d was given before", i)
		}
		seen[p.Payload()] = true
	}
	if _, ok := s.TryTake(keys.RSA2048); ok {
		t.Error("a pair is said to be ready, but none is left")
	}
	p, err := s.Take(context.Background(), keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
}
