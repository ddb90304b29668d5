package main

import (
	"crypto/rand"
	"errors"
	"math/big"
	"os"
	"strings"
	"sync"
)

// writePrimes makes what RSA keys of the run are made of: half a thousand primes
// are good for a hundred thousand keys.
func writePrimes(path string, count int) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	lines := make([]string, count)
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for half := range 2 {
		wg.Go(func() {
			for i := half; i < count && errs[half] == nil; i += 2 {
				p, err := prime()
				errs[half] = err
				lines[i] = p.Text(16)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600)
}

// prime is one of 1024 bits that the usual exponent fits.
func prime() (*big.Int, error) {
	for {
		p, err := rand.Prime(rand.Reader, 1024)
		if err != nil {
			return new(big.Int), err
		}
		if new(big.Int).Mod(new(big.Int).Sub(p, big.NewInt(1)), big.NewInt(65537)).Sign() != 0 {
			return p, nil
		}
	}
}
