package state

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"

	"authd/zone"
)

// SumForm is raised whenever what a Sum is made of changes: the encoding of a
// claim's record or of a branch, what Render makes of a plan, or this file. Nodes
// compare their sums only where they have the same form, so that an upgrade is
// never taken for a divergence.
const SumForm = 1

// Sum tells machines apart. Equal machines have equal sums; two that differ have
// the same one with a chance of 2^-64. It guards against defects and bad memory,
// not against anybody who could choose what is in the machine.
type Sum uint64

// sumKind keeps equal octets in different maps apart.
type sumKind byte

const (
	sumDomain    sumKind = 1
	sumGone      sumKind = 2
	sumGoneBound sumKind = 3
	sumTenant    sumKind = 4
	sumAccess    sumKind = 5
	sumOnce      sumKind = 6
	sumSmall     sumKind = 7 // whatever is small enough to be summed when asked
)

// sums is the part of the Sum that is kept up to date with every change: of each
// map the sum, modulo 2^64, of one hash an entry, which does not depend on order. An
// entry that goes is hashed again, so memory that went bad in between shows.
type sums struct{ large Sum }

func (s *sums) add(v Sum)  { s.large += v }
func (s *sums) drop(v Sum) { s.large -= v }

// hashOf is the hash of one entry, given in parts of which each but the last has
// a fixed or self-delimiting form.
func hashOf(kind sumKind, parts ...string) Sum {
	var d xxhash.Digest
	d.ResetWithSeed(uint64(kind))
	for _, part := range parts {
		d.WriteString(part)
	}
	return Sum(d.Sum64())
}

func (r record) sum() Sum { return hashOf(sumDomain, r.meta, string(r.branch)) }

func (t *Tenant) sum() Sum {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 64), t.Number)
	b = appendText(appendText(b, t.ID), t.Name)
	b = binary.AppendVarint(b, t.CreatedAt)
	for _, n := range [...]int{int(t.MaxDomains), t.Domains, int(t.MaxOctets), t.Octets} {
		b = binary.AppendVarint(b, int64(n))
	}
	if t.Suspended {
		b = append(b, 1)
	}
	return hashOf(sumTenant, string(b))
}

func (a *AccessToken) sum() Sum { return hashOfObject(sumAccess, a) }

func (v onceResult) sum(key string) Sum {
	b := append(v.request[:], v.token[:]...)
	b = binary.BigEndian.AppendUint64(b, v.index)
	b = binary.BigEndian.AppendUint64(b, uint64(v.at))
	if v.changed {
		b = append(b, 1)
	}
	return hashOf(sumOnce, key, string(b))
}

// hashOfObject hashes what the image would hold.
func hashOfObject(kind sumKind, v any) Sum {
	b, err := encoding.Marshal(v)
	if err != nil {
		panic("the machine's own memory does not encode: " + err.Error() + ": stop this node and restore it from a snapshot")
	}
	return hashOf(kind, string(b))
}

// Sum is the sum of the machine at its index. It costs the same in any fleet.
func (m Machine) Sum() Sum {
	t := m.tables()
	return t.sums.large + t.results.sums.large + t.small()
}

// recountStep is how many entries Recount reads between two rests.
const recountStep = 256

// Recount is the Sum computed anew from the whole machine, which shows memory that went
// bad since. Every recountStep entries it calls rest, unless that is nil; once rest says
// false it stops, and its result means nothing.
func (m Machine) Recount(rest func() bool) Sum {
	t := m.tables()
	var all sums
	entries := 0
	add := func(v Sum) bool {
		all.add(v)
		entries++
		return rest == nil || entries%recountStep != 0 || rest()
	}
	t.domains.Scan(func(_ string, r record) bool { return add(r.sum()) })
	t.gone.each(func(v [16]byte) bool { return add(hashOf(sumGone, string(v[:]))) })
	t.goneBound.each(func(v [16]byte) bool { return add(hashOf(sumGoneBound, string(v[:]))) })
	t.tenants.Scan(func(_ string, t *Tenant) bool { return add(t.sum()) })
	t.access.Scan(func(_ string, a *AccessToken) bool { return add(a.sum()) })
	t.results.byKey.Scan(func(key string, v onceResult) bool { return add(v.sum(key)) })
	return all.large + t.small()
}

// small sums what is bounded by little: counters, platform zones, name servers,
// pools, and where the chain of changes stands.
func (t *tables) small() Sum {
	var s sums
	s.add(hashOfObject(sumSmall, t.image()))
	t.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		s.add(hashOfObject(sumSmall, imagePlatform{p.Number, p.Apex, p.Contact, p.Serial, p.Records}))
		return true
	})
	t.servers.Scan(func(_ string, e *serverEntry) bool {
		s.add(hashOfObject(sumSmall, imageServer{e.Label, e.Addresses}))
		return true
	})
	t.pools.Scan(func(_ string, p *poolEntry) bool {
		s.add(hashOfObject(sumSmall, imagePool{p.Number, p.ID, p.Serial, p.PoolSpec}))
		return true
	})
	return s.large
}

// The maps that have a sum are written by these alone.

func (t *tables) setDomain(r record) (old record) {
	old, ok := t.domains.Set(r.meta[:len(Token{})], r)
	if ok {
		t.sums.drop(old.sum())
	}
	t.sums.add(r.sum())
	return old
}

// loadDomains is setDomain for all claims, in order, none twice; sum is that of all.
func (t *tables) loadDomains(lists [][]record, sum Sum) {
	t.domains.fill(func(yield func(string, record) bool) {
		for _, list := range lists {
			for _, r := range list {
				yield(r.meta[:len(Token{})], r)
			}
		}
	})
	t.sums.add(sum)
}

func (t *tables) dropDomain(token Token) (old record) {
	old, ok := t.domains.Delete(token.key())
	if ok {
		t.sums.drop(old.sum())
	}
	return old
}

// bury makes a token a tombstone; buryName the hash of a name that was bound.
func (t *tables) bury(token Token) {
	if !t.gone.has(token) {
		t.gone.add(token)
		t.sums.add(hashOf(sumGone, token.key()))
	}
}

func (t *tables) buryName(n zone.Name) { t.buryHash(hash16(string(n))) }

func (t *tables) buryHash(h [16]byte) {
	if !t.goneBound.has(h) {
		t.goneBound.add(h)
		t.sums.add(hashOf(sumGoneBound, string(h[:])))
	}
}

func (t *tables) setTenant(n *Tenant) (twice bool) {
	old, twice := t.tenants.Set(n.ID, n)
	if twice {
		t.sums.drop(old.sum())
	}
	t.sums.add(n.sum())
	return twice
}

func (t *tables) setAccess(a *AccessToken) (twice bool) {
	old, twice := t.access.Set(a.ID, a)
	if twice {
		t.sums.drop(old.sum())
	}
	t.sums.add(a.sum())
	return twice
}

func (t *tables) dropAccess(id string) {
	if old, ok := t.access.Delete(id); ok {
		t.sums.drop(old.sum())
	}
}
