//go:build lab

package state

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"authd/keys"
	"authd/zone"
)

// One machine and one tree with a million
// domains. go test -tags lab -run Million -timeout 30m -v ./cluster/state
const (
	millionCNAME     = 700_000
	millionDelegated = 300_000
	gcPercent        = 10 // [runtime] gc_percent for a cluster of this size
)

// labMaterial is key material of production size that signs nothing.
func labMaterial(random *rand.ChaCha8, ring keys.RingMode, id uint32) keys.Material {
	public, sealed := make([]byte, 294), make([]byte, 128+keys.SealedOverhead)
	_, _ = random.Read(public)
	_, _ = random.Read(sealed)
	binary.BigEndian.PutUint16(sealed, 1) // one version for all, as in a cluster
	m := keys.Material{Algorithm: keys.RSA2048, ID: id, Sealed: sealed, Payload: "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public)}
	if ring == keys.Minted {
		m.Selector = fmt.Sprintf("2601-%s", Token(public[:16]).String()[:6])
	}
	return m
}

// labClaim is a claim with a draining, an active and a standby key.
func labClaim(t testing.TB, w *writer, random *rand.ChaCha8, n int) (*Domain, keys.Ring) {
	var token Token
	_, _ = random.Read(token[:])
	c := AddDomain{Token: token, Tenant: fmt.Sprintf("tenant-%d", n%10_000), Pool: "default", Mode: zone.CNAME}
	registered := name(fmt.Sprintf("customer-%d.test", n))
	c.Name, c.Registrable = registered, registered
	if n >= millionCNAME {
		c.Mode, c.Name = zone.Delegated, name(fmt.Sprintf("send.customer-%d.test", n))
	}
	mode := (&Domain{Mode: c.Mode}).ringMode()
	c.Active = []keys.Material{labMaterial(random, mode, 1)}
	c.Standby = []keys.Material{labMaterial(random, mode, 2)}
	d, r := w.newDomain(c)
	if r != nil {
		t.Fatal(r)
	}
	ring, err := keys.Start(mode, keys.JitterOf(token[:]), start, c.Active, c.Standby)
	third := labMaterial(random, mode, 3)
	for i, s := range []keys.Step{{Kind: keys.StepConfirm, Key: 2}, {Kind: keys.StepActivate, Key: 2}, {Kind: keys.StepPublish}} {
		var m *keys.Material
		if s.Algorithm = keys.RSA2048; s.Kind == keys.StepPublish {
			m = &third
		}
		if err == nil {
			ring, err = ring.Take(s, start+int64(i)+1, keys.DefaultPolicy(), m)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if d.Branch, err = w.render(d, ring); err != nil {
		t.Fatal(err)
	}
	return d, ring
}

// What the quick test says of 100,000 domains: go test -tags lab -run InAMillion -v ./cluster/state
func TestChangeCostsNearlyTheSameInAMillion(t *testing.T) { compareChanges(t, 1_000_000, 1.28, 1.15) }

func TestMillionDomains(t *testing.T) {
	runtime.LockOSThread() // for cpuTime
	defer runtime.UnlockOSThread()
	debug.SetGCPercent(gcPercent)
	base := newWorld(t)
	base.must(SetSettings{Settings{ClusterID: "test", VerificationOff: true}})
	w := &writer{tables: base.m.tables().fork()}
	for n := range 10_000 {
		w.entry = Entry{At: start}
		w.addTenant(AddTenant{ID: fmt.Sprintf("tenant-%d", n)})
	}
	random := rand.NewChaCha8([32]byte{1})
	began := time.Now()
	tree := zone.NewTree()
	m := Machine{t: w.tables}
	published := Machine{}
	var branchBytes, metaBytes int
	for n := range millionCNAME + millionDelegated {
		d, ring := labClaim(t, w, random, n)
		w.link(d, useOf(ring, keys.Ring{}))
		w.put(nil, d, ring)
		if n%10_000 == 9_999 {
			e := tree.Edit()
			m = Machine{t: w.tables}
			if published.t == nil {
				m.PublishAll(e)
			} else {
				m.Publish(e, published, w.delta)
			}
			e.Commit()
			published = m
			w = &writer{tables: w.tables.fork()}
		}
	}
	m.tables().domains.Scan(func(_ string, r record) bool {
		branchBytes += len(r.branch)
		metaBytes += len(r.meta)
		return true
	})
	count := m.DomainCount()
	t.Logf("built and published %d domains in %s; a branch has %d octets, a record %d", count, time.Since(began).Round(time.Second), branchBytes/count, metaBytes/count)
	w, published = nil, Machine{}
	report(t, "at rest, garbage returned to the system", true)

	debug.SetGCPercent(-1)
	m = changes(t, m, tree, 3_000, "between collections")
	debug.SetGCPercent(gcPercent)
	m = changes(t, m, tree, 20_000, "back to back, collections included")
	report(t, "after the changes", false)
	lookups(t, m, tree)
	imageOf(t, m)
	runtime.KeepAlive(tree)
}

// tokenFrom draws a claim's token.
func tokenFrom(m Machine, random *rand.Rand) Token {
	var from Token
	binary.BigEndian.PutUint64(from[:], random.Uint64())
	for d := range m.Domains(from) {
		return d.Token
	}
	return tokenFrom(m, random)
}

// changes measures Apply, Publish and Commit of one command each.
func changes(t *testing.T, m Machine, tree *zone.Tree, many int, when string) Machine {
	runtime.GC()
	random := rand.New(rand.NewPCG(1, 2))
	var took [3]time.Duration
	var counts [3]int
	var slowest time.Duration
	for i := range many {
		token := tokenFrom(m, random)
		var c Command
		kind := i % 3
		switch kind {
		case 0:
			labels := map[string]string{"change": fmt.Sprint(m.Index())}
			c = PatchDomain{Token: token, Labels: &labels}
		case 1:
			c = StepKey{Token: token, Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 3}}
		case 2:
			policy := fmt.Sprintf("v=DMARC1; p=none; x=%d", m.Index())
			c = PatchDomain{Token: token, DMARC: &policy}
		}
		began := cpuTime(t)
		next, results, delta := m.Apply(m.Index()+1, []Entry{{At: start + 100, Command: c}})
		e := tree.Edit()
		next.Publish(e, m, delta)
		e.Commit()
		d := cpuTime(t) - began
		if results[0].Refusal != nil {
			t.Fatal(results[0].Refusal)
		}
		took[kind] += d
		counts[kind]++
		slowest = max(slowest, d)
		m = next
	}
	for kind, what := range []string{"labels", "confirm a key", "a policy, seen in DNS"} {
		t.Logf("one change (%s), published, %s: %s", what, when, took[kind]/time.Duration(counts[kind]))
	}
	t.Logf("slowest change: %s", slowest)
	// In batches, as a busy log has them.
	began := cpuTime(t)
	for range 100 {
		entries := make([]Entry, 100)
		for k := range entries {
			token := tokenFrom(m, random)
			policy := fmt.Sprintf("v=DMARC1; p=none; y=%d-%d", m.Index(), k)
			entries[k] = Entry{At: start + 200, Command: PatchDomain{Token: token, DMARC: &policy}}
		}
		next, _, delta := m.Apply(m.Index()+1, entries)
		e := tree.Edit()
		next.Publish(e, m, delta)
		e.Commit()
		m = next
	}
	t.Logf("one change in batches of 100, published, %s: %s", when, (cpuTime(t)-began)/10_000)
	return m
}

// lookups measures answers out of the tree, message to message.
func lookups(t *testing.T, m Machine, tree *zone.Tree) {
	const many = 200_000
	random := rand.New(rand.NewPCG(3, 4))
	questions := make([][]byte, many)
	for i := range questions {
		token := tokenFrom(m, random)
		d, _ := m.Domain(token)
		owner, _ := d.keyOwner(d.Ring().Keys[random.IntN(3)].Selector)
		questions[i] = question(owner, zone.TypeTXT)
	}
	r := zone.NewResponder(tree, "")
	buffer := make([]byte, 0, 4096)
	for _, q := range questions[:1000] {
		if reply := r.Reply(buffer, q, false); len(reply) < 400 {
			t.Fatalf("reply of %d octets", len(reply))
		}
	}
	began := cpuTime(t)
	for _, q := range questions {
		r.Reply(buffer, q, false)
	}
	t.Logf("one answer (TXT of a random key, message to message): %s", (cpuTime(t)-began)/many)
}

// question is a query message with EDNS.
func question(owner zone.Name, typ zone.Type) []byte {
	b := []byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}
	b = append(b, owner...)
	b = binary.BigEndian.AppendUint16(b, uint16(typ))
	b = append(b, 0, 1)
	return append(b, 0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0)
}

// cpuTime is what this thread has spent, so that a busy machine does not count.
func cpuTime(t testing.TB) time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// imageOf measures a snapshot and the way back.
func imageOf(t *testing.T, m Machine) {
	path := t.TempDir() + "/image"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := m.WriteImage(f); err != nil {
		t.Fatal(err)
	}
	size, _ := f.Seek(0, 1)
	t.Logf("image of %d MiB written in %s", size>>20, time.Since(began).Round(time.Millisecond))
	report(t, "after writing the image", false)
	_, _ = f.Seek(0, 0)
	began = time.Now()
	again, err := LoadImage(f, Machine{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("loaded in %s", time.Since(began).Round(time.Millisecond))
	began = time.Now()
	tree := zone.NewTree()
	e := tree.Edit()
	again.PublishAll(e)
	e.Commit()
	t.Logf("index filled in %s", time.Since(began).Round(time.Millisecond))
	if again.DomainCount() != m.DomainCount() {
		t.Errorf("%d domains", again.DomainCount())
	}
}

// report prints memory as the system and as the runtime see it, and the cost of
// one collection.
func report(t *testing.T, when string, returned bool) {
	runtime.GC()
	sample := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(sample)
	before, began := sample[0].Value.Float64(), time.Now()
	runtime.GC()
	wall := time.Since(began)
	metrics.Read(sample)
	if returned {
		debug.FreeOSMemory()
	}
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	t.Logf("%s: VmRSS %s, heap in use %d MiB in %d objects; one collection %s of wall clock, %.2f s of CPU (%.2f %% of a core at one in two minutes)",
		when, status("VmRSS"), ms.HeapAlloc>>20, ms.HeapObjects, wall.Round(time.Millisecond), sample[0].Value.Float64()-before,
		(sample[0].Value.Float64()-before)/120*100)
}

func status(field string) string {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	return "unknown"
}
