//go:build lab

package state

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"testing"

	"authd/keys"
	"authd/zone"
)

// BenchmarkReplay applies what a bulk import left in the log to a fleet of 100,000
// domains, AUTHD_LAB_DOMAINS of them: go test -tags lab -run '^$' -bench Replay -benchtime 10000x ./cluster/state
func BenchmarkReplay(b *testing.B) {
	domains := 100_000
	if n, err := strconv.Atoi(os.Getenv("AUTHD_LAB_DOMAINS")); err == nil {
		domains = n
	}
	base := newWorld(b)
	base.must(SetSettings{Settings{ClusterID: "test", VerificationOff: true}})
	random := rand.NewChaCha8([32]byte{1})
	m, n := base.m, 0
	claim := func() AddDomain {
		var token Token
		_, _ = random.Read(token[:])
		c := AddDomain{Token: token, Tenant: "acme", Pool: "default", Mode: zone.CNAME}
		c.Name = name(fmt.Sprintf("customer-%d.test", n))
		c.Registrable = c.Name
		c.Active = []keys.Material{labMaterial(random, keys.Slots, 1)}
		c.Standby = []keys.Material{labMaterial(random, keys.Slots, 2)}
		n++
		return c
	}
	for n < domains {
		var batch []Entry
		for range MaxBatch {
			batch = append(batch, Entry{At: start, Actor: "admin-1", Command: claim()})
		}
		m, _, _ = m.Apply(m.Index()+1, batch)
	}
	log := make([][]byte, b.N)
	for i := range log {
		var err error
		if log[i], err = EncodeBatch([]Entry{{At: start, Actor: "admin-1", Command: claim()}}); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	b.ReportAllocs()
	for b.ResetTimer(); len(log) > 0; log = log[1:] {
		entries, err := DecodeBatch(log[0])
		if err != nil {
			b.Fatal(err)
		}
		var results []Result
		if m, results, _ = m.Apply(m.Index()+1, entries); results[0].Refusal != nil {
			b.Fatal(results[0].Refusal)
		}
	}
}
