package state

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/tidwall/btree"

	"authd/zone"
)

// tables is what a Machine points at. It never changes once Apply has returned
// it: a batch works on a fork.
//
// The maps are tidwall/btree's, which copy nodes on write. Its Copy gives both
// sides a new identity and so writes to the original; fork therefore copies the
// map's header first and lets Copy write to that. The original keeps the
// identity of its own nodes, but nothing writes through it any more, and Get,
// Scan and Ascend do not look at identities. So readers, a snapshot in the
// making and any number of forks (dry runs) need no lock between them.
type tables struct {
	index    uint64
	time     int64
	settings Settings
	cookies  CookieSecrets

	// Numbers given last; never reused.
	platformNumber, poolNumber, tenantNumber uint32

	platforms btree.Map[uint32, *platformEntry]
	servers   btree.Map[string, *serverEntry]
	pools     btree.Map[string, *poolEntry]
	poolIDs   btree.Map[uint32, string]
	tenants   btree.Map[string, *tenantEntry]

	domains btree.Map[string, record]
	claims  nameIndex // all claims, by what they claim
	signs   nameIndex // by the names of SignsFor
	owned   nameIndex // the proven delegated claims
	bound   nameIndex // by the owner names that an admin bound to their targets
	reports nameIndex // by the report authorisation names that their branches hold
	// due is what the rotator looks at: the time, big-endian, and the token.
	due btree.Map[string, struct{}]
	// keys are the public keys that DNS answers with. Tenants do not share one.
	keys keyIndex
	// sealed counts private halves by the version of their key-encryption key.
	sealed []sealedCount

	gone      graves // tokens of claims that ended
	goneBound graves // hashes of owner names that were bound to them

	access     btree.Map[string, *AccessToken]
	accessHash btree.Map[string, string] // SHA-256 of the text, and the id

	rotationNumber uint32 // given last; never reused
	rotations      btree.Map[uint32, *Rotation]

	audit   audit
	sums    sums
	results results // of commands with a key

	// sweeps are the pools whose policy changed and whose domains are not all
	// rescheduled yet, oldest first.
	sweeps []sweep
}

// degree is half of what a node of the large maps holds. A change copies a node
// a level: smaller nodes than the library's own 32 cost less of that.
const degree = 16

// newTables are those of the machine before the first entry.
func newTables() *tables {
	t := new(tables)
	t.domains = *btree.NewMap[string, record](degree)
	for _, x := range []*nameIndex{&t.claims, &t.signs, &t.owned, &t.bound, &t.reports} {
		x.pairs = *btree.NewMap[string, struct{}](degree)
	}
	t.due = *btree.NewMap[string, struct{}](degree)
	return t
}

// sweep is the progress of rescheduling one pool's domains.
type sweep struct {
	Pool uint32 `cbor:"1,keyasint"`
	Next string `cbor:"2,keyasint"` // the token to go on from, as a key
}

// platformEntry, serverEntry, poolEntry and tenantEntry hold an object, what was
// rendered of it, and how many claims use it. They are replaced, not edited.
type platformEntry struct {
	Platform
	answers *zone.Platform
	domains int // uses by claims: a target or a server name each
	octets  int // of the operator's records
}

type serverEntry struct {
	NameServer
	domains int
}

type poolEntry struct {
	Pool
	answers *zone.Pool
	domains int // all, and
	slots   int // those in CNAME mode
}

type tenantEntry struct {
	Tenant
	domains int
}

// forkMap gives a map that may be written while m goes on being read.
func forkMap[K ~string | ~uint32 | ~uint64, V any](m *btree.Map[K, V]) btree.Map[K, V] {
	header := *m
	return *header.Copy()
}

// fork gives tables that may be written.
func (t *tables) fork() *tables {
	n := *t
	n.platforms = forkMap(&t.platforms)
	n.servers = forkMap(&t.servers)
	n.pools = forkMap(&t.pools)
	n.poolIDs = forkMap(&t.poolIDs)
	n.tenants = forkMap(&t.tenants)
	n.domains = forkMap(&t.domains)
	n.claims = t.claims.fork()
	n.signs = t.signs.fork()
	n.owned = t.owned.fork()
	n.bound = t.bound.fork()
	n.reports = t.reports.fork()
	n.due = forkMap(&t.due)
	n.keys = t.keys.fork()
	n.gone = t.gone.fork()
	n.goneBound = t.goneBound.fork()
	n.access = forkMap(&t.access)
	n.accessHash = forkMap(&t.accessHash)
	n.rotations = forkMap(&t.rotations)
	n.audit = t.audit.fork()
	n.results = t.results.fork()
	return &n
}

// graves is a set of 128-bit values that only grows. Nearly all of them lie in
// one map of the two halves, at some 25 octets each; only those whose first half
// is taken already are kept whole.
type graves struct {
	halves btree.Map[uint64, uint64]
	whole  btree.Map[string, struct{}]
}

func (g *graves) fork() graves {
	return graves{halves: forkMap(&g.halves), whole: forkMap(&g.whole)}
}

func (g *graves) add(v [16]byte) {
	high, low := binary.BigEndian.Uint64(v[:8]), binary.BigEndian.Uint64(v[8:])
	if had, ok := g.halves.Get(high); ok {
		if had != low {
			g.whole.Set(string(v[:]), struct{}{})
		}
		return
	}
	g.halves.Set(high, low)
}

func (g *graves) has(v [16]byte) bool {
	if low, ok := g.halves.Get(binary.BigEndian.Uint64(v[:8])); ok {
		if low == binary.BigEndian.Uint64(v[8:]) {
			return true
		}
		_, ok = g.whole.Get(string(v[:]))
		return ok
	}
	return false
}

func (g *graves) len() int { return g.halves.Len() + g.whole.Len() }

// hash16 is the first half of SHA-256: two texts that a person could find do not
// share it.
func hash16(text string) (h [16]byte) {
	sum := sha256.Sum256([]byte(text))
	copy(h[:], sum[:])
	return h
}

// dueKey orders claims by time.
func dueKey(at int64, t Token) string {
	var b [24]byte
	binary.BigEndian.PutUint64(b[:8], uint64(at))
	copy(b[8:], t[:])
	return string(b[:])
}

// apex implements apexes.
func (t *tables) apex(number uint32) (zone.Name, bool) {
	p, ok := t.platforms.Get(number)
	if !ok {
		return "", false
	}
	return p.Apex, true
}

// domain makes a Domain of a record that is known to be whole.
func (t *tables) domain(r record) *Domain {
	d, err := decodeMeta(r.meta, t)
	if err != nil {
		panic("the machine's own memory does not decode: " + err.Error() + ": stop this node and restore it from a snapshot")
	}
	d.Branch = r.branch
	return d
}

// find looks a claim up.
func (t *tables) find(token Token) (*Domain, bool) {
	r, ok := t.domains.Get(token.key())
	if !ok {
		return nil, false
	}
	return t.domain(r), true
}

// platformOf is the platform zone that a name lies in.
func (t *tables) platformOf(n zone.Name) (found *platformEntry) {
	t.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		if n.In(p.Apex) {
			found = p
		}
		return found == nil
	})
	return found
}

// platformAt is the platform zone with an apex.
func (t *tables) platformAt(apex zone.Name) (*platformEntry, bool) {
	p := t.platformOf(apex)
	if p == nil || p.Apex != apex {
		return nil, false
	}
	return p, true
}

// firstPlatform is the one with the lowest number.
func (t *tables) firstPlatform() (*platformEntry, bool) {
	_, p, ok := t.platforms.Min()
	return p, ok
}
