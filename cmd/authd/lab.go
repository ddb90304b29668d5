//go:build lab

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"time"

	"authd/keys"
)

// What a lab run tells its nodes. No release reads either.
const (
	// labTimeEnv scales time: "1767225600,1767225600000000000,8000" is 8,000 seconds
	// of the cluster for each second since a moment (nanoseconds since 1970), when it
	// was the first (seconds since 1970). All processes of a run have the same.
	labTimeEnv = "AUTHD_LAB_TIME"
	// labPrimesEnv names a file with a prime of 1024 bits a line, in hexadecimal, that
	// RSA keys are made of: these sign, and cost nothing.
	labPrimesEnv = "AUTHD_LAB_PRIMES"
)

// labClock is the clock of a lab run with scaled time; nil: time.Now.
func labClock() (func() time.Time, error) {
	text := os.Getenv(labTimeEnv)
	if text == "" {
		return nil, nil
	}
	var epoch, began, factor int64
	if n, err := fmt.Sscanf(text, "%d,%d,%d", &epoch, &began, &factor); n != 3 || factor < 1 {
		return nil, fmt.Errorf("reading %s %q: want seconds, nanoseconds and a factor: %w", labTimeEnv, text, err)
	}
	return func() time.Time {
		return time.Unix(epoch, (time.Now().UnixNano()-began)*factor)
	}, nil
}

// labSource is what makes keys in a build with the tag lab.
func labSource(logger *slog.Logger) (keys.Source, error) {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	// A seed of its own for every start, so that no pair is given twice.
	seed := binary.BigEndian.Uint64(random[:])
	path := os.Getenv(labPrimesEnv)
	if path == "" {
		logger.Warn("this is a lab build: its keys cannot sign")
		source, _ := keys.LabSource(seed)
		return source, nil
	}
	logger.Warn("this is a lab build: its keys keep nothing secret")
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", labPrimesEnv, err)
	}
	var primes []*big.Int
	for line := range bytes.FieldsSeq(text) {
		p, ok := new(big.Int).SetString(string(line), 16)
		if !ok {
			return nil, fmt.Errorf("reading %s: %s holds what is no number", labPrimesEnv, path)
		}
		primes = append(primes, p)
	}
	return keys.LabSigners(seed, primes)
}
