package state

import (
	"fmt"
	"strings"
	"testing"

	"authd/keys"
	"authd/zone"
)

// BenchmarkReplica is what each replica pays for a change: decoding, applying and
// publishing an entry of 16, in a cluster of 10,000 domains.
func BenchmarkReplica(b *testing.B) {
	const domains, group = 10_000, 16
	w := newWorld(b)
	entry := func(make func(n int) Command, from int) []byte {
		var entries []Entry
		for n := range group {
			entries = append(entries, Entry{At: w.at, Actor: "admin", Source: "192.0.2.1:4242", Command: make(from + n)})
		}
		data, err := EncodeBatch(entries)
		if err != nil {
			b.Fatal(err)
		}
		return data
	}
	add := func(n int) Command {
		c := claimOf(tok(uint64(n)+1), fmt.Sprintf("send.customer%d.example", n), zone.Delegated, "acme")
		c.Active = []keys.Material{material(1, fmt.Sprintf("2611-%06d", n), fmt.Sprint("active", n))}
		c.Standby = []keys.Material{material(2, fmt.Sprintf("2612-%06d", n), fmt.Sprint("standby", n))}
		return c
	}
	for n := 0; n < domains; n += group {
		replica(b, &w.m, nil, entry(add, n))
	}
	record := func(n int) Command {
		n = n * 7919 % domains
		return PutDomainRecord{Token: tok(uint64(n) + 1), Set: zone.TextRRset(
			name(fmt.Sprintf("note.send.customer%d.example", n)), 300, strings.Repeat("k", 400)+fmt.Sprint(n))}
	}
	confirm := func(n int) Command {
		return StepKey{Token: tok(uint64(n%domains) + 1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}}
	}
	for _, c := range []struct {
		name string
		make func(n int) Command
		from int
	}{{"record", record, 0}, {"add", add, domains}, {"confirm", confirm, 0}} {
		b.Run(c.name, func(b *testing.B) {
			m, tree := w.m, zone.NewTree()
			e := tree.Edit()
			m.PublishAll(e)
			e.Commit()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				b.StopTimer()
				data := entry(c.make, c.from+n)
				b.StartTimer()
				replica(b, &m, tree, data)
				if n += group; n >= domains {
					n, m = 0, w.m
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1000/float64(b.N)/group, "µs/change")
		})
	}
}

// replica applies one entry of a log as a node does.
func replica(b *testing.B, m *Machine, tree *zone.Tree, data []byte) {
	entries, err := DecodeBatch(data)
	if err != nil {
		b.Fatal(err)
	}
	next, results, delta := m.Apply(m.Index()+1, entries)
	for _, r := range results {
		if r.Refusal != nil || !r.Changed {
			b.Fatalf("%+v", r)
		}
	}
	if tree != nil {
		e := tree.Edit()
		next.Publish(e, *m, delta)
		e.Commit()
	}
	*m = next
}
