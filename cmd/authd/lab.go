//go:build lab

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"authd/keys"
)

// What a lab run tells its nodes. No release reads either.
const (
	// labTimeEnv scales time: "1767225600,1767225600000000000,8000" is 8,000 seconds
	// of the cluster for each second since a moment (nanoseconds since 1970), when it
	// was the first (seconds since 1970). All processes of a run have the same.
	labTimeEnv = "AUTHD_LAB_TIME"
	// labClockEnv names a file with the seconds by which this node's wall clock is set
	// wrong; it is read again and again.
	labClockEnv = "AUTHD_LAB_CLOCK"
	// labPrimesEnv names a file with a prime of 1024 bits a line, in hexadecimal, that
	// RSA keys are made of: these sign, and cost nothing.
	labPrimesEnv = "AUTHD_LAB_PRIMES"
)

// labClock is the clock of a lab run with scaled time, or one that can be set wrong;
// nil: time.Now.
func labClock() (func() time.Time, error) {
	if path := os.Getenv(labClockEnv); path != "" {
		return wrongClock(path)
	}
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

// wrongClock is a clock that is wrong by what a file says: none where it is not there.
func wrongClock(path string) (func() time.Time, error) {
	// The monotonic reading goes on as if nothing were, as it does when the kernel's
	// clock is set. Only the layout of time.Time can say that.
	now := time.Now()
	if later := stepped(now, 3600); later.Sub(now) != 0 || later.Round(0).Sub(now.Round(0)) != time.Hour {
		return nil, errors.New("setting the clock wrong: time.Time is laid out otherwise")
	}
	var wrong atomic.Int64
	read := func() {
		text, err := os.ReadFile(path)
		if err != nil {
			return
		}
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64); err == nil {
			wrong.Store(n)
		}
	}
	read()
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			read()
		}
	}()
	return func() time.Time { return stepped(time.Now(), wrong.Load()) }, nil
}

// stepped is a reading of both clocks with the wall clock set by some seconds.
func stepped(t time.Time, seconds int64) time.Time {
	const secondShift = 30 // below are the nanoseconds
	*(*uint64)(unsafe.Pointer(&t)) += uint64(seconds) << secondShift
	return t
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
