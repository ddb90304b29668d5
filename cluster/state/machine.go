package state

import (
	"io"
	"iter"

	"authd/keys"
	"authd/zone"
)

// Machine is the whole replicated state at one index: an immutable value that
// shares structure with its neighbours, so that keeping an old one costs
// nothing and a Raft snapshot is a copy of this struct.
type Machine struct{ machine }

type machine struct{}

// Result is what a command came to. A refusal is a result like any other.
type Result struct {
	Refusal *Refusal // nil: done
	// Token is the claim concerned, for AddDomain the new one.
	Token Token
	// Changed is false where the state already was as asked.
	Changed bool
}

// Refusal is a deterministic no.
type Refusal struct {
	Kind  RefusalKind
	Field string // the field of the command concerned, as the API names it; may be empty
	// Message says what is wrong, names the input, and the remedy where there is one.
	Message string
	// Conflicts are the claims in the way, where that is the reason.
	Conflicts []Token
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
func Empty() Machine { panic("todo") }

// Apply gives the machine after the entries of one log entry, with a result
// each, and what changed. It depends on nothing but its arguments. An entry
// that cannot be applied at all (a defect or a divergence) panics.
func (m Machine) Apply(index uint64, entries []Entry) (Machine, []Result, Delta) { panic("todo") }

// Delta is what one or several Apply calls changed, for Publish.
type Delta struct{ delta }

type delta struct{}

// Merge adds what another delta changed.
func (d *Delta) Merge(other Delta) { panic("todo") }

// Publish carries a delta from old to m into the index that queries read.
func (m Machine) Publish(e *zone.Editor, old Machine, d Delta) { panic("todo") }

// PublishAll fills an empty index.
func (m Machine) PublishAll(e *zone.Editor) { panic("todo") }

// Index is the Raft index of the last entry applied.
func (m Machine) Index() uint64 { panic("todo") }

// Time is the machine's time: the latest stamp applied, seconds since 1970.
func (m Machine) Time() int64 { panic("todo") }

// Settings are the cluster's settings.
func (m Machine) Settings() Settings { panic("todo") }

// Domain finds a claim by token.
func (m Machine) Domain(t Token) (*Domain, bool) { panic("todo") }

// Claims are the claims to a name, pending and leaving ones included.
func (m Machine) Claims(n zone.Name) []*Domain { panic("todo") }

// SignerFor is the live claim that signs for a From: domain: the claim to the
// name itself, or the one whose SignsFor lists it.
func (m Machine) SignerFor(n zone.Name) (*Domain, bool) { panic("todo") }

// Domains walks the claims in order of token, from a token on.
func (m Machine) Domains(from Token) iter.Seq[*Domain] { panic("todo") }

// DomainCount is how many claims there are.
func (m Machine) DomainCount() int { panic("todo") }

// Tombstoned says whether a token was used by a claim that is gone.
func (m Machine) Tombstoned(t Token) bool { panic("todo") }

// Tenant, Pool, Platform, NameServer and AccessToken find one object by its id.
func (m Machine) Tenant(id string) (*Tenant, bool)            { panic("todo") }
func (m Machine) Pool(id string) (*Pool, bool)                { panic("todo") }
func (m Machine) Platform(apex zone.Name) (*Platform, bool)   { panic("todo") }
func (m Machine) NameServer(label string) (*NameServer, bool) { panic("todo") }
func (m Machine) AccessToken(id string) (*AccessToken, bool)  { panic("todo") }

// Tenants, Pools, Platforms, NameServers and AccessTokens walk all, in order of id.
func (m Machine) Tenants(from string) iter.Seq[*Tenant] { panic("todo") }
func (m Machine) Pools() iter.Seq[*Pool]                { panic("todo") }
func (m Machine) Platforms() iter.Seq[*Platform]        { panic("todo") }
func (m Machine) NameServers() iter.Seq[*NameServer]    { panic("todo") }
func (m Machine) AccessTokens() iter.Seq[*AccessToken]  { panic("todo") }

// Served lists what DNS answers for a claim, its pool's share included.
func (m Machine) Served(d *Domain) []zone.RRset { panic("todo") }

// PlatformServed lists what DNS answers in a platform zone besides the claims' names.
func (m Machine) PlatformServed(p *Platform) []zone.RRset { panic("todo") }

// Task is one step that is due, as Due found it.
type Task struct {
	Token  Token
	Due    int64
	Expire bool      // the claim itself ends (ExpireDomain)
	Step   keys.Step // otherwise
}

// Due lists at most limit tasks due at a time, the earliest first.
func (m Machine) Due(limit int, at int64) []Task { panic("todo") }

// WriteImage writes the snapshot format: versioned, checksummed, the same bytes
// for the same machine.
func (m Machine) WriteImage(w io.Writer) error { panic("todo") }

// ReadImage reads what WriteImage wrote, in this or a released version. It
// fails on any damage; nothing of a damaged image is returned.
func ReadImage(r io.Reader) (Machine, error) { panic("todo") }
