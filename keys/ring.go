package keys

// Stage is where a key is in its life. Values are kept in the log: never renumber.
type Stage uint8

const (
	Standby  Stage = 1 // published, not signing yet
	Active   Stage = 2 // signs
	Draining Stage = 3 // published, no longer signs
	Revoked  Stage = 4 // answered with an empty p= (RFC 6376 section 3.6.1)
	// A removed key is not in the ring; its selector is never used again.
)

// String is the stage's name in the API.
func (s Stage) String() string { panic("todo") }

// Key is one key of a ring. Times are seconds since 1970, 0 where not reached.
type Key struct {
	ID        uint32
	Selector  string // minted name, or the slot's label: "k1"
	Slot      uint8  // 1…3 in CNAME mode, 0 for minted selectors
	Algorithm Algorithm
	Stage     Stage
	// PublicOnly: the private half is elsewhere; Sealed is empty.
	PublicOnly bool
	// Imported: brought by the operator, not from the mill.
	Imported bool

	CreatedAt   int64 // proposed with its record
	ConfirmedAt int64 // every serving node confirmed that it answers the record
	// Gap is how long after ConfirmedAt a cache may still hold what the name
	// answered before, in seconds: 0 where it was never answered, the negative
	// TTL where it was absent, a slot's earlier TTL and an hour otherwise.
	Gap         int64
	ActivatedAt int64
	DrainedAt   int64 // left Active
	RevokedAt   int64

	Sealed  []byte // sealed compact private half
	Payload string // TXT payload of the public half; empty once revoked
}

// ReadyAt is when the key may become active: ConfirmedAt + Gap; 0 while unconfirmed.
func (k Key) ReadyAt() int64 { panic("todo") }

// Ring is the keys of one domain: an immutable value. Methods that change
// anything return another ring.
type Ring struct {
	Mode   RingMode
	NextID uint32
	Keys   []Key // by ID
	// Freed is, for each slot in use or used before, when the last value there
	// stops being in any cache; a slot is refilled only after.
	Freed map[string]int64
	// Jitter spreads the period, -1000 to 1000 thousandths of JitterShare,
	// derived from the claim's token.
	Jitter int16
	// RolledFrom is the ID of the key that the active one replaced while the
	// rollback window is open, by algorithm.
	RolledFrom map[Algorithm]uint32
}

// RingMode says how selectors are named.
type RingMode uint8

const (
	Minted RingMode = 1 // a fresh selector for every key, never reused
	Slots  RingMode = 2 // three fixed selectors per algorithm
)

// Material is what a new key brings into a ring.
type Material struct {
	Algorithm  Algorithm `cbor:"1,keyasint"`
	Selector   string    `cbor:"2,keyasint"` // minted mode; in slots mode the ring chooses
	Sealed     []byte    `cbor:"3,keyasint"`
	Payload    string    `cbor:"4,keyasint"`
	PublicOnly bool      `cbor:"5,keyasint"`
	Imported   bool      `cbor:"6,keyasint"`
}

// SlotLabel is the label of a slot: k1…k3 for RSA, ke1…ke3 for Ed25519.
func SlotLabel(a Algorithm, slot uint8) string { panic("todo") }

// StepKind is a transition. Values are kept in the log: never renumber.
type StepKind uint8

const (
	StepPublish  StepKind = 1 // add a standby (needs Material)
	StepConfirm  StepKind = 2 // every serving node answers the standby's record
	StepActivate StepKind = 3 // the standby signs, the active one drains
	StepRevoke   StepKind = 4 // a draining key is answered with an empty p=
	StepRemove   StepKind = 5 // a revoked key leaves the ring
)

// String is the step's name in the API and in scenarios.
func (k StepKind) String() string { panic("todo") }

// Step is one transition of one key, or (StepPublish) of one algorithm.
type Step struct {
	Kind      StepKind  `cbor:"1,keyasint"`
	Algorithm Algorithm `cbor:"2,keyasint"`
	Key       uint32    `cbor:"3,keyasint"` // ID; 0 for StepPublish
}

// Next says which step is due next and when, and whether there is any. It
// decides nothing about barriers: StepConfirm is due at once, and whoever
// proposes it has asked the nodes.
func (r Ring) Next(p Policy) (step Step, due int64, ok bool) { panic("todo") }

// Take carries out a step at a time. It refuses a step that does not fit the
// ring (the error says why), whatever Next said: a manual rotation takes
// StepActivate before its due time. m is nil but for StepPublish.
func (r Ring) Take(s Step, at int64, p Policy, m *Material) (Ring, error) { panic("todo") }

// Start is the ring of a new domain: one active key and, where standby material
// is there, one standby per algorithm, all with Gap 0.
func Start(mode RingMode, jitter int16, at int64, active, standby []Material) (Ring, error) {
	panic("todo")
}

// Active is the signing key of an algorithm, if any.
func (r Ring) Active(a Algorithm) (Key, bool) { panic("todo") }

// Standby is the standby of an algorithm, if any.
func (r Ring) Standby(a Algorithm) (Key, bool) { panic("todo") }

// Record is what DNS answers for one selector of a ring.
type Record struct {
	Selector string
	Payload  string
	Short    bool // the short TTL: standby, revoked, or an empty slot
}

// Records lists every selector of the ring that answers, in order. In slots
// mode every slot of every algorithm answers: a key, or an empty p=.
func (r Ring) Records(algorithms []Algorithm) []Record { panic("todo") }

// Append encodes the ring without the payloads of its keys, which DNS holds
// already. Equal rings encode to equal bytes.
func (r Ring) Append(dst []byte) []byte { panic("todo") }

// DecodeRing reads what Append wrote; payload gives the TXT payload served for
// a selector. Sealed halves alias b.
func DecodeRing(b string, payload func(selector string) string) (Ring, error) { panic("todo") }
