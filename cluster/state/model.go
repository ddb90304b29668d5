package state

import (
	"net/netip"

	"authd/keys"
	"authd/zone"
)

// Settings are what all nodes must agree on and no other object holds.
type Settings struct {
	// VerificationOff counts delegated domains as proven from the start. Only
	// authd dev chooses it.
	VerificationOff bool `cbor:"1,keyasint,omitempty" json:"verification_off"`
	// ClusterID tells clusters apart, for ever.
	ClusterID string `cbor:"2,keyasint" json:"cluster_id"`
}

// Platform is a platform zone.
type Platform struct {
	Number  uint32 // never reused
	Apex    zone.Name
	Contact zone.Name // RNAME
	Serial  uint32
	Records []zone.RRset // operator's records, in canonical order
}

// NameServer is a name with public addresses; nodes come and go behind it.
type NameServer struct {
	Label     string // "ns1"
	Addresses []netip.Addr
}

// Pool is what the domains that send through it share.
type Pool struct {
	Number uint32 // never reused
	ID     string
	Serial uint32
	PoolSpec
}

// PoolSpec is what PUT /v1/pools/{pool} sets.
type PoolSpec struct {
	SPF        []string          `cbor:"1,keyasint"`
	SPFAll     string            `cbor:"2,keyasint"`
	MX         []zone.MX         `cbor:"3,keyasint"`
	ClickA     []netip.Addr      `cbor:"4,keyasint"` // both families
	ClickCNAME zone.Name         `cbor:"5,keyasint"`
	DMARC      string            `cbor:"6,keyasint"`
	Labels     map[string]string `cbor:"7,keyasint"`
	Policy     keys.Policy       `cbor:"8,keyasint"`
}

// Tenant is a customer of the platform.
type Tenant struct {
	Number    uint32 // never reused
	ID        string
	Name      string
	Suspended bool  // DNS unchanged, signing documents empty
	CreatedAt int64 // seconds since 1970, as all times here
	// MaxDomains and MaxOctets bound what the tenant's own tokens add; 0: see DomainLimit
	// and OctetLimit.
	MaxDomains, MaxOctets uint32
	// Domains counts the tenant's claims that have not ended, and Octets what they take
	// in memory past usualDomain each. They follow from the claims, and are not in the
	// image.
	Domains, Octets int
}

// DomainLimit is the bound of Domains in force.
func (t *Tenant) DomainLimit() int {
	if t.MaxDomains == 0 {
		return defaultTenantDomains
	}
	return int(t.MaxDomains)
}

// OctetLimit is the bound of Octets in force.
func (t *Tenant) OctetLimit() int {
	if t.MaxOctets == 0 {
		return defaultTenantOctets
	}
	return int(t.MaxOctets)
}

// DomainState is where a claim is in its life. Values are kept in the log.
type DomainState uint8

const (
	Pending DomainState = 1 // delegated, not proven: its zone is REFUSED; expires
	Live    DomainState = 2 // proven, or CNAME
	Leaving DomainState = 3 // no longer signs; restorable until GoneAt
	// A claim that is gone is a tombstone: only its token and bound names stay.
)

// Domain is one claim of one tenant to one name. Branch holds what DNS answers
// and, as its attachment, the ring of keys.
type Domain struct {
	Token    Token
	Name     zone.Name
	Mode     zone.Mode
	State    DomainState
	Tenant   string
	Pool     string
	Labels   map[string]string
	SignsFor []zone.Name // further From: domains signed with this domain's key
	DMARC    string      // explicit policy of this domain; empty: none
	// Prefix tells the customer-side names of several CNAME claims to one name
	// apart: empty for the first, "t2-" for the second. See Selector.
	Prefix  string
	Servers []zone.ServerName
	Targets zone.Targets
	// Reports are the names in platform zones that authorise reports for this
	// domain's own DMARC policy (RFC 9990 section 4).
	Reports []zone.Target
	// Records are the extra records of a delegated zone, in canonical order.
	Records []zone.RRset
	// Algorithms were chosen at claim time, with the slots of CNAME mode.
	Algorithms []keys.Algorithm
	Serial     uint32
	// Registrable is the registrable domain of Name as the proposer's public
	// suffix list had it: subtree ownership is counted down from there.
	Registrable zone.Name
	// Override says that an admin let the claim be of the registrable domain itself.
	Override   bool
	CreatedAt  int64
	ProvenAt   int64
	AttestedBy string // who attested, and why; empty where the parent proved it
	LeavingAt  int64
	GoneAt     int64 // when a leaving or pending claim becomes a tombstone
	DueAt      int64 // when its ring's next step is due; 0: none
	// MovedAt is when it last changed its pool; 0: never. Parts are the numbers of the
	// rotations of pools that it left and is in all the same, rising.
	MovedAt int64
	Parts   []uint32
	Branch  zone.Branch
}

// Scope is what an API token may do.
type Scope string

// Scopes other than these are "tenant:<id>".
const (
	ScopeAdmin  Scope = "admin"
	ScopeSigner Scope = "signer"
	ScopeRead   Scope = "read"
)

// AccessToken is an API credential; of its secret only a hash is kept.
type AccessToken struct {
	ID        string         `cbor:"1,keyasint"`
	Hash      [32]byte       `cbor:"2,keyasint"` // SHA-256 of the whole token text
	Scope     Scope          `cbor:"3,keyasint"`
	Subnets   []netip.Prefix `cbor:"4,keyasint"` // empty: any
	ExpiresAt int64          `cbor:"5,keyasint"` // 0: never
	CreatedAt int64          `cbor:"6,keyasint"`
	Note      string         `cbor:"7,keyasint"`
}
