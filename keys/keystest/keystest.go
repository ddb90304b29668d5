// Package keystest gives real key pairs to tests that sign, without the 50 ms
// that each RSA pair costs. The private halves are public, in this repository:
// only tests may import this package, and rules_test.go holds them to it.
//
// Read keys for what a Source promises.
package keystest

import (
	"bufio"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	"authd/keys"
)

//go:embed testdata/test-keys-rsa2048.txt
var committed string

// Count is how many committed RSA pairs there are.
const Count = 64

// Pair is a committed RSA pair, 0 to Count-1.
func Pair(i int) *keys.Pair {
	p, err := parse(lines()[i])
	if err != nil {
		panic(fmt.Sprintf("keystest: pair %d: %v", i, err))
	}
	return p
}

// Source gives every committed RSA pair once, then RSA pairs made afresh;
// Ed25519 pairs always afresh. Safe for concurrent use.
func Source() keys.Source { return &source{left: lines()} }

type source struct {
	mu   sync.Mutex // guards left; taken by all methods
	left []string
}

// Take implements keys.Source.
func (s *source) Take(ctx context.Context, a keys.Algorithm) (*keys.Pair, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if p, ok := s.TryTake(a); ok {
		return p, nil
	}
	return fresh(a)
}

func fresh(a keys.Algorithm) (*keys.Pair, error) {
	p, err := keys.Generate(rand.Reader, a)
	if err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// TryTake implements keys.Source.
func (s *source) TryTake(a keys.Algorithm) (*keys.Pair, bool) {
	if a != keys.RSA2048 {
		p, err := fresh(a)
		return p, err == nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.left) == 0 {
		return nil, false
	}
	p, err := parse(s.left[0])
	s.left = s.left[1:]
	return p, err == nil
}

// Ready implements keys.Source.
func (s *source) Ready() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.left)
}

func lines() []string {
	var found []string
	in := bufio.NewScanner(strings.NewReader(committed))
	for in.Scan() {
		if line := in.Text(); line != "" && !strings.HasPrefix(line, "#") {
			found = append(found, line)
		}
	}
	return found
}

// parse reads one line: the p= of the payload and the compact private half.
func parse(line string) (*keys.Pair, error) {
	public, private, _ := strings.Cut(line, " ")
	compact, err := base64.StdEncoding.DecodeString(private)
	if err != nil {
		return nil, err
	}
	return keys.Restore(keys.RevokedPayload(keys.RSA2048)+public, compact)
}
