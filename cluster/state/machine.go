package state

import (
	"iter"

	"authd/zone"
)

// Machine is the whole replicated state at one index: an immutable value that
// shares structure with its neighbours, so that keeping an old one costs
// nothing and a Raft snapshot is a copy of this struct.
type Machine struct {
	t *tables // nil: nothing yet
}

// Result is what a command came to. A refusal is a result like any other.
type Result struct {
	Refusal *Refusal // nil: done
	// Token is the claim that the command was about, for AddDomain the new one.
	Token Token
	// Changed is false where the state already was as asked.
	Changed bool
	// First is the index of the entry that did this already, for the same request with
	// the same Once; 0: it was done now.
	First uint64
}

// Refusal is why a command was not done, the same on every node.
type Refusal struct {
	Kind  RefusalKind
	Field string // the field of the command concerned, as the API names it; may be empty
	// Message says what is wrong, names the input, and the remedy where there is one.
	Message string
	// Conflicts are the claims in the way, where that is the reason.
	Conflicts []Token
	// At is from when it is not TooEarly any more, in seconds since 1970; 0: not known.
	At int64
}

// RefusalKind sorts refusals for the API.
type RefusalKind uint8

const (
	Invalid  RefusalKind = 1 // 422
	NotFound RefusalKind = 2 // 404
	Conflict RefusalKind = 3 // 409
	Stale    RefusalKind = 4 // 412: If-Match, From or Serial does not fit any more
	TooEarly RefusalKind = 5 // 409 with a time
)

// Error makes a Refusal an error for callers that propagate it.
func (r *Refusal) Error() string { return r.Message }

// Empty is the machine before the first entry.
func Empty() Machine { return Machine{t: new(tables)} }

// tables gives what to read; the zero Machine reads as Empty.
func (m Machine) tables() *tables {
	if m.t == nil {
		return new(tables)
	}
	return m.t
}

// Index is the Raft index of the last entry applied.
func (m Machine) Index() uint64 { return m.tables().index }

// Time is the machine's time: the latest stamp applied, seconds since 1970.
func (m Machine) Time() int64 { return m.tables().time }

// Settings are the cluster's settings.
func (m Machine) Settings() Settings { return m.tables().settings }

// CookieSecrets are the secrets of DNS cookies.
func (m Machine) CookieSecrets() CookieSecrets { return m.tables().cookies }

// Rescheduling says whether a pool's policy changed and not all due times of its
// domains follow it yet: propose Reschedule until it is false.
func (m Machine) Rescheduling() bool { return len(m.tables().sweeps) > 0 }

// Domain finds a claim by token.
func (m Machine) Domain(t Token) (*Domain, bool) { return m.tables().find(t) }

// Claims are the claims to a name, pending and leaving ones included.
func (m Machine) Claims(n zone.Name) []*Domain { return m.tables().claimsTo(n) }

func (t *tables) claimsTo(n zone.Name) []*Domain {
	return t.all(t.claims.at(n))
}

// all looks up claims that an index names.
func (t *tables) all(list []Token) []*Domain {
	out := make([]*Domain, 0, len(list))
	for _, token := range list {
		if d, ok := t.find(token); ok {
			out = append(out, d)
		}
	}
	return out
}

// Domains walks the claims in order of token, from a token on.
func (m Machine) Domains(from Token) iter.Seq[*Domain] {
	return func(yield func(*Domain) bool) {
		t := m.tables()
		t.domains.Ascend(from.key(), func(_ string, r record) bool { return yield(t.domain(r)) })
	}
}

// DomainCount is how many claims there are.
func (m Machine) DomainCount() int { return m.tables().domains.Len() }

// TenantCount is how many tenants there are.
func (m Machine) TenantCount() int { return m.tables().tenants.Len() }

// Tombstoned says whether a token was used by a claim that is gone.
func (m Machine) Tombstoned(t Token) bool { return m.tables().gone.has(t) }

// Tenant finds a tenant by its id.
func (m Machine) Tenant(id string) (*Tenant, bool) {
	return m.tables().tenants.Get(id)
}

// Pool finds a pool by its id.
func (m Machine) Pool(id string) (*Pool, bool) {
	e, ok := m.tables().pools.Get(id)
	if !ok {
		return nil, false
	}
	return &e.Pool, true
}

// Platform finds a platform zone by its apex.
func (m Machine) Platform(apex zone.Name) (*Platform, bool) {
	e, ok := m.tables().platformAt(apex)
	if !ok {
		return nil, false
	}
	return &e.Platform, true
}

// NameServer finds a name server by its label.
func (m Machine) NameServer(label string) (*NameServer, bool) {
	e, ok := m.tables().servers.Get(label)
	if !ok {
		return nil, false
	}
	return &e.NameServer, true
}

// AccessToken finds an API credential by its id.
func (m Machine) AccessToken(id string) (*AccessToken, bool) { return m.tables().access.Get(id) }

// AccessByHash finds an API credential by the SHA-256 of its text.
func (m Machine) AccessByHash(hash [32]byte) (*AccessToken, bool) {
	t := m.tables()
	id, ok := t.accessHash.Get(string(hash[:]))
	if !ok {
		return nil, false
	}
	return t.access.Get(id)
}

// Tenants walks the tenants in order of id, from an id on.
func (m Machine) Tenants(from string) iter.Seq[*Tenant] {
	return func(yield func(*Tenant) bool) {
		m.tables().tenants.Ascend(from, func(_ string, t *Tenant) bool { return yield(t) })
	}
}

// Pools walks the pools in order of id.
func (m Machine) Pools() iter.Seq[*Pool] {
	return func(yield func(*Pool) bool) {
		m.tables().pools.Scan(func(_ string, e *poolEntry) bool { return yield(&e.Pool) })
	}
}

// Platforms walks the platform zones in order of number.
func (m Machine) Platforms() iter.Seq[*Platform] {
	return func(yield func(*Platform) bool) {
		m.tables().platforms.Scan(func(_ uint32, e *platformEntry) bool { return yield(&e.Platform) })
	}
}

// NameServers walks the name servers, ns2 before ns10.
func (m Machine) NameServers() iter.Seq[*NameServer] {
	return func(yield func(*NameServer) bool) {
		for _, e := range m.tables().serversInOrder() {
			if !yield(&e.NameServer) {
				return
			}
		}
	}
}

// AccessTokens walks the API credentials in order of id.
func (m Machine) AccessTokens() iter.Seq[*AccessToken] {
	return func(yield func(*AccessToken) bool) {
		m.tables().access.Scan(func(_ string, a *AccessToken) bool { return yield(a) })
	}
}

// Served lists what DNS answers for a claim, its pool's share included.
func (m Machine) Served(d *Domain) []zone.RRset {
	t := m.tables()
	pool, ok := t.pools.Get(d.Pool)
	if !ok {
		return nil // the claim is of another machine
	}
	var platforms []*zone.Platform
	t.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		platforms = append(platforms, p.answers)
		return true
	})
	return zone.Served(d.Branch, pool.answers, platforms)
}

// WithIndex is the machine at another index. A snapshot that Raft installs or
// restores is at the index Raft gave it, whatever its image says.
func (m Machine) WithIndex(index uint64) Machine {
	t := m.tables().fork()
	t.index = index
	return Machine{t: t}
}

// Epoch says how often the cluster was recovered from a single node. Nodes of
// different epochs have logs that went different ways.
func (m Machine) Epoch() uint32 { return m.tables().epoch }

// NextEpoch is the machine at the beginning of the next one.
func (m Machine) NextEpoch() Machine {
	t := m.tables().fork()
	t.epoch++
	return Machine{t: t}
}
