//go:build lab

package state

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"authd/keys"
)

// labFleet is a machine with domains as in a million, AUTHD_LAB_DOMAINS of them or
// 100,000, and an image of it.
func labFleet(t *testing.T, seed byte) (Machine, []byte) {
	t.Helper()
	domains := 100_000
	if n, err := strconv.Atoi(os.Getenv("AUTHD_LAB_DOMAINS")); err == nil {
		domains = n
	}
	base := newWorld(t)
	base.must(SetSettings{Settings{ClusterID: "test", VerificationOff: true}})
	w := &writer{tables: base.m.tables().fork()}
	w.entry = Entry{At: start}
	for n := range 10_000 {
		w.addTenant(AddTenant{ID: fmt.Sprintf("tenant-%d", n)})
	}
	random := rand.NewChaCha8([32]byte{seed})
	for n := range domains {
		if n >= domains*7/10 {
			n += millionCNAME // delegated
		}
		d, ring := labClaim(t, w, random, n)
		w.link(d, useOf(ring, keys.Ring{}))
		w.put(nil, d, ring)
	}
	m := Machine{t: w.tables}
	var b bytes.Buffer
	if err := m.WriteImage(&b); err != nil {
		t.Fatal(err)
	}
	return m, b.Bytes()
}

// labTimed prints what something took of the clock and of processors, the collector's
// part among it.
func labTimed(t *testing.T, what string, do func()) {
	t.Helper()
	runtime.GC()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began, cpu := time.Now(), used()
	do()
	wall, spent := time.Since(began), used()-cpu
	runtime.ReadMemStats(&after)
	t.Logf("%s: %s, %s of processors, %d MiB allocated, %d collections", what,
		wall.Round(time.Millisecond), spent.Round(time.Millisecond), (after.TotalAlloc-before.TotalAlloc)>>20, after.NumGC-before.NumGC)
}

// What a restore costs a node while the image comes, and what it holds applies up for at
// its end: go test -tags lab -run LabSuccession -v ./cluster/state
func TestLabSuccession(t *testing.T) {
	debug.SetGCPercent(gcPercent)
	own, image := labFleet(t, 1)
	_, foreign := labFleet(t, 2)
	random := rand.New(rand.NewPCG(1, 2))
	changed := func(m Machine, many int) Machine {
		entries := make([]Entry, many)
		for k := range entries {
			policy := fmt.Sprint("v=DMARC1; p=none; x=", m.Index(), k)
			entries[k] = Entry{At: start + 200, Command: PatchDomain{Token: tokenFrom(m, random), DMARC: &policy}}
		}
		m, _, _ = m.Apply(m.Index()+1, entries)
		return m
	}
	for what, c := range map[string]struct {
		backup []byte
		from   Machine
	}{
		"the same cluster's":                      {image, own},
		"the same cluster's, a tenth has changed": {image, changed(own, own.DomainCount()/10)},
		"another cluster's":                       {foreign, own},
		"in an empty cluster":                     {image, Empty()},
	} {
		var s *Succession
		labTimed(t, what+", while it comes", func() {
			var err error
			if s, err = LoadSuccession(bytes.NewReader(c.backup), c.from, start+600, true); err != nil {
				t.Fatal(err)
			}
		})
		now := c.from
		if now.DomainCount() > 0 {
			now = changed(now, 1000)
		}
		labTimed(t, what+", at the end, 1,000 changes later", func() { s.Succeed(now) })
	}
}

// What a start costs: reading the image, and making the index. go test -tags lab -run
// LabStart -v ./cluster/state
func TestLabStart(t *testing.T) {
	_, image := labFleet(t, 1)
	for range 3 {
		var m Machine
		labTimed(t, "image read", func() {
			var err error
			if m, err = LoadImage(bytes.NewReader(image), Machine{}); err != nil {
				t.Fatal(err)
			}
		})
		labTimed(t, "index made", func() { m.Tree() })
	}
}
