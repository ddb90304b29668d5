package state

import (
	"crypto/sha256"
	"encoding/binary"

	"authd/zone"
)

// tables is what a Machine points at. It never changes once Apply has returned it: a
// batch works on a fork, of the maps too, so that readers, a snapshot in the making and
// dry runs need no lock.
type tables struct {
	index    uint64
	time     int64
	settings Settings
	cookies  CookieSecrets
	// epoch counts the recoveries of the cluster from one node.
	epoch uint32
	// authority and invitations are how nodes get certificates; never changed in place.
	authority   Authority
	invitations []Invitation
	// off are the nodes out of the serving set; never changed in place.
	off []OffNode

	// Numbers given last; never reused.
	platformNumber, poolNumber, tenantNumber uint32

	platforms table[uint32, *platformEntry]
	servers   table[string, *serverEntry]
	pools     table[string, *poolEntry]
	poolIDs   table[uint32, string]
	tenants   table[string, *Tenant]

	domains table[string, record]
	claimNames[nameIndex]
	// due is the rotator's queue: the time, big-endian, and the token.
	due table[string, struct{}]
	// pending are the claims that wait for their proof: when they end, as in due.
	pending table[string, struct{}]
	// keys are the public keys that DNS answers with. Tenants do not share one.
	keys keyIndex
	// sealed counts private halves by the version of their key-encryption key.
	sealed []sealedCount
	// wrap is the version that private halves are to be sealed under.
	wrap uint16
	// reads are the ends of the nodes' journals of key reads.
	reads []ReadsHead

	gone      graves // tokens of claims that ended
	goneBound graves // hashes of owner names that were bound to them

	access     table[string, *AccessToken]
	accessHash table[string, string] // SHA-256 of the text, and the id

	rotationNumber uint32 // given last; never reused
	rotations      table[uint32, *Rotation]

	audit   audit
	sums    sums
	results results // of commands with a key

	// sweeps are the pools whose policy changed and whose domains are not all
	// rescheduled yet, oldest first.
	sweeps []sweep
}

// sweep is the progress of rescheduling one pool's domains.
type sweep struct {
	Pool uint32 `cbor:"1,keyasint"`
	Next string `cbor:"2,keyasint"` // the token to go on from, as a key
}

// platformEntry, serverEntry and poolEntry hold an object, what was
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

// fork gives tables that may be written.
func (t *tables) fork() *tables {
	n, o := *t, new(owner)
	n.platforms = t.platforms.fork(o)
	n.servers = t.servers.fork(o)
	n.pools = t.pools.fork(o)
	n.poolIDs = t.poolIDs.fork(o)
	n.tenants = t.tenants.fork(o)
	n.domains = t.domains.fork(o)
	for _, x := range n.kinds() {
		*x = x.fork(o)
	}
	n.due = t.due.fork(o)
	n.pending = t.pending.fork(o)
	n.keys = t.keys.fork(o)
	n.gone = t.gone.fork(o)
	n.goneBound = t.goneBound.fork(o)
	n.access = t.access.fork(o)
	n.accessHash = t.accessHash.fork(o)
	n.rotations = t.rotations.fork(o)
	n.audit = t.audit.fork(o)
	n.results = t.results.fork(o)
	return &n
}

// graves is a set of 128-bit values that only grows. A map from first to second half
// holds nearly all of them, at some 25 octets each; a value whose first half is taken
// already is kept whole beside it.
type graves struct {
	halves table[uint64, uint64]
	whole  table[string, struct{}]
}

func (g *graves) fork(o *owner) graves {
	return graves{halves: g.halves.fork(o), whole: g.whole.fork(o)}
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

func (g *graves) len() int { return g.halves.Len() + g.whole.Len() }

// since walks at least the values that another set has not.
func (g *graves) since(old *graves, yield func([16]byte)) {
	g.halves.since(&old.halves, func(high, low uint64) {
		var v [16]byte
		binary.BigEndian.PutUint64(v[:8], high)
		binary.BigEndian.PutUint64(v[8:], low)
		yield(v)
	})
	g.whole.since(&old.whole, func(key string, _ struct{}) { yield(tokenOf(key)) })
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

// hash16 is the first half of SHA-256: nobody can find two texts that share it.
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

// domain makes a Domain of a record of the machine's own.
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
