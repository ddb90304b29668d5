package keys

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

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
func (s Stage) String() string {
	switch s {
	case Standby:
		return "standby"
	case Active:
		return "active"
	case Draining:
		return "draining"
	case Revoked:
		return "revoked"
	}
	return fmt.Sprintf("stage %d", uint8(s))
}

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
	// SwitchBy is when a draining key is revoked at the latest, where an emergency said
	// FateSwitch; 0 otherwise.
	SwitchBy int64
	// HeldUntil is until when evidence put off the revocation of a draining key.
	HeldUntil int64
	// HeldBefore is until when a signer may keep it that fetched it while the domain was
	// in another pool, with a longer hold. 0: as the present pool's policy says.
	HeldBefore int64
	// BroughtBy is the number of the rotation of many domains by which it came to sign;
	// 0: by none.
	BroughtBy int64

	Sealed  []byte // sealed compact private half; empty once revoked
	Payload string // TXT payload of the public half; empty once revoked
}

// ReadyAt is when the key may become active: ConfirmedAt + Gap; 0 while unconfirmed.
func (k Key) ReadyAt() int64 {
	if k.ConfirmedAt == 0 {
		return 0
	}
	return k.ConfirmedAt + k.Gap
}

// Ring is the keys of one domain: an immutable value. Methods that change anything
// return another ring. Times are seconds since 1970.
type Ring struct {
	Mode   RingMode
	NextID uint32
	Keys   []Key // by ID
	// Freed are names that answered before. Slots: when the last cache has forgotten
	// what a slot answered; it is refilled only then. Minted: selectors that were
	// removed, with the time, so that none is used again; see burnedFor.
	Freed map[string]int64
	// Handed are the slots whose last key signed and was revoked without evidence, and when
	// it was given to a signer for the last time at the latest: when every node confirmed
	// what came later; below zero, the time since which none of them should have. A signer
	// that keeps keys by their selectors signs with that key once the slot's next one is
	// active, so that one waits for SignerHold too. In seconds since 1970.
	Handed map[string]int64
	// Jitter spreads the period, -1000 to 1000 thousandths of jitterShare,
	// derived from the claim's token: JitterOf.
	Jitter int16
	// RolledFrom is the ID of the key that the active one replaced while the
	// rollback window is open, by algorithm.
	RolledFrom map[Algorithm]uint32
	// Urgent are the emergencies that wait for their standby, by algorithm.
	Urgent map[Algorithm]Urgent
	// Rotation is the number of the rotation of many domains that the ring takes part
	// in, from its wish or switch until every algorithm has a standby again; 0: none.
	// Nothing here depends on it.
	Rotation uint32
	// RetiredAt is when the domain began to leave: nothing signs, nothing new is
	// published. 0 otherwise.
	RetiredAt int64
}

// RingMode says how selectors are named.
type RingMode uint8

const (
	Minted RingMode = 1 // a fresh selector for every key, never reused
	Slots  RingMode = 2 // three fixed selectors per algorithm
)

// String is the mode's name in scenarios and errors.
func (m RingMode) String() string {
	switch m {
	case Minted:
		return "minted"
	case Slots:
		return "slots"
	}
	return fmt.Sprintf("ring mode %d", uint8(m))
}

// Material is what a new key brings into a ring.
type Material struct {
	Algorithm Algorithm `cbor:"1,keyasint"`
	// Selector is the name in minted mode. In slots mode it is the slot that the
	// private half was sealed for (Ring.Place) and the ring takes no other; empty,
	// the ring chooses.
	Selector   string `cbor:"2,keyasint"`
	Sealed     []byte `cbor:"3,keyasint"`
	Payload    string `cbor:"4,keyasint"`
	PublicOnly bool   `cbor:"5,keyasint"`
	Imported   bool   `cbor:"6,keyasint"`
	// ID is the key ID that the private half was sealed for. The ring refuses
	// sealed material made for another ID: nobody could ever open it. It may be 0
	// where nothing is sealed.
	ID uint32 `cbor:"7,keyasint"`
	// Maker is the node that made the key, for the counts of a rotation; a ring does
	// not keep it.
	Maker string `cbor:"8,keyasint,omitempty"`
}

const (
	// slotCount is how many slots an algorithm has: active, draining, standby.
	slotCount = 3
	// MaxKeys bounds the keys of one algorithm in minted mode. The longest
	// policy that Check allows keeps 26 in flight; the rest is room for rotations
	// by hand.
	MaxKeys = 32
	// maxSealed bounds a sealed half: the prime of a 4096-bit key and its overhead,
	// with room for a key-management service's own envelope.
	maxSealed = 1024
	// maxSelector is the longest selector (RFC 1035 section 2.3.4 allows a label of
	// 63; dots are allowed by RFC 6376 section 3.1).
	maxSelector = 63
)

// SlotLabel is the label of a slot: k1…k3 for RSA, ke1…ke3 for Ed25519.
func SlotLabel(a Algorithm, slot uint8) string {
	if slot < 1 || slot > slotCount {
		panic(fmt.Sprintf("keys: slot %d", slot))
	}
	if a == Ed25519 {
		return [...]string{"ke1", "ke2", "ke3"}[slot-1]
	}
	return [...]string{"k1", "k2", "k3"}[slot-1]
}

// slotOf reads what SlotLabel writes; 0 where it is no slot of the algorithm.
func slotOf(a Algorithm, label string) uint8 {
	for slot := uint8(1); slot <= slotCount; slot++ {
		if SlotLabel(a, slot) == label {
			return slot
		}
	}
	return 0
}

// Start is the ring of a new domain: one active key and, where standby material
// is there, one standby per algorithm, all with Gap 0, because their names were
// never answered before. IDs count from 1 through active and then standby. In
// slots mode the active key gets the first slot and the standby the second,
// unless their Selector says otherwise.
func Start(mode RingMode, jitter int16, at int64, active, standby []Material) (Ring, error) {
	if mode != Minted && mode != Slots {
		return Ring{}, fmt.Errorf("starting ring: %s is unknown", mode)
	}
	if at <= 0 {
		return Ring{}, fmt.Errorf("starting ring: time %d is not after 1970", at)
	}
	if jitter < -1000 || jitter > 1000 {
		return Ring{}, fmt.Errorf("starting ring: jitter %d, want -1000 to 1000", jitter)
	}
	if len(active) == 0 {
		return Ring{}, errors.New("starting ring: no active key")
	}
	r := Ring{Mode: mode, NextID: 1, Jitter: jitter}
	for i := range active {
		key, err := r.newKey(&active[i], at)
		if err == nil && r.has(key.Algorithm, Active) {
			err = fmt.Errorf("two active keys of %s", key.Algorithm)
		}
		if err != nil {
			return Ring{}, fmt.Errorf("starting ring: active key %d: %w", i+1, err)
		}
		key.Stage, key.ActivatedAt = Active, at
		r = r.with(key)
	}
	for i := range standby {
		key, err := r.newKey(&standby[i], at)
		if err == nil && r.has(key.Algorithm, Standby) {
			err = fmt.Errorf("two standby keys of %s", key.Algorithm)
		}
		if err != nil {
			return Ring{}, fmt.Errorf("starting ring: standby key %d: %w", i+1, err)
		}
		r = r.with(key)
	}
	return r, nil
}

// newKey checks material and makes the ring's next key of it, a standby.
func (r Ring) newKey(m *Material, at int64) (Key, error) {
	if err := m.check(); err != nil {
		return Key{}, err
	}
	if len(m.Sealed) > 0 && m.ID != r.NextID {
		return Key{}, fmt.Errorf("private half is sealed for key %d, but the next key is %d: seal it for that (Ring.Place)", m.ID, r.NextID)
	}
	if r.NextID == 1<<32-1 {
		return Key{}, errors.New("key IDs are used up")
	}
	key := Key{
		ID: r.NextID, Selector: m.Selector, Algorithm: m.Algorithm, Stage: Standby,
		PublicOnly: m.PublicOnly, Imported: m.Imported, CreatedAt: at,
		Sealed: m.Sealed, Payload: m.Payload,
	}
	if r.Mode == Minted {
		return key, r.mintable(m)
	}
	slot, err := r.slotFor(m.Algorithm, m.Selector, at)
	if err != nil {
		return Key{}, err
	}
	key.Slot, key.Selector = slot, SlotLabel(m.Algorithm, slot)
	return key, nil
}

func (m *Material) check() error {
	switch {
	case !m.Algorithm.known():
		return fmt.Errorf("%s is unknown", m.Algorithm)
	case m.Payload == "" || m.Payload == RevokedPayload(m.Algorithm):
		return errors.New("no payload")
	case len(m.Payload) > maxPayload:
		return fmt.Errorf("payload of %d octets, at most %d", len(m.Payload), maxPayload)
	case len(m.Sealed) > maxSealed:
		return fmt.Errorf("sealed half of %d octets, at most %d", len(m.Sealed), maxSealed)
	case m.PublicOnly && len(m.Sealed) > 0:
		return errors.New("public-only key with a sealed private half")
	case !m.PublicOnly && len(m.Sealed) == 0:
		return errors.New("no sealed private half: set public-only where it is kept elsewhere")
	}
	return nil
}

// mintable refuses a selector that is malformed, in use, or was used before.
func (r Ring) mintable(m *Material) error {
	if err := CheckSelector(m.Selector); err != nil {
		return err
	}
	if _, ok := r.BySelector(m.Selector); ok {
		return fmt.Errorf("selector %q is in use", m.Selector)
	}
	if _, ok := r.Freed[m.Selector]; ok {
		return fmt.Errorf("selector %q was used before: mint another", m.Selector)
	}
	count := 0
	for i := range r.Keys {
		if r.Keys[i].Algorithm == m.Algorithm {
			count++
		}
	}
	if len(r.Freed)+len(r.Keys) >= maxFreed {
		return fmt.Errorf("%d selectors used of late, the most a domain keeps: wait a month", len(r.Freed))
	}
	if count >= MaxKeys {
		return fmt.Errorf("%d keys of %s, the most a domain keeps: wait until one is removed", count, m.Algorithm)
	}
	return nil
}

// CheckSelector refuses what cannot be a selector (RFC 6376 section 3.1):
// lower-case labels of letters, digits, hyphens and underscores, joined by dots.
func CheckSelector(selector string) error {
	if selector == "" {
		return errors.New("no selector")
	}
	if len(selector) > maxSelector {
		return fmt.Errorf("selector %q has %d octets, at most %d", clip(selector), len(selector), maxSelector)
	}
	for label := range strings.SplitSeq(selector, ".") {
		if label == "" {
			return fmt.Errorf("selector %q has an empty label", selector)
		}
		for _, c := range []byte(label) {
			if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return fmt.Errorf("selector %q: %q is not a lower-case letter, digit, hyphen or underscore", selector, c)
			}
		}
	}
	return nil
}

// burnedFor is how many months a removed selector is remembered. A minted one
// carries its month, and a ring takes none that is older than this; so that a
// selector never comes back and the list stays short.
const burnedFor = 2

// forgotten says whether a selector is of a month that is no longer remembered.
func forgotten(selector string, at int64) bool {
	month, ok := mintedMonth(selector)
	now := time.Unix(at, 0).UTC()
	return ok && month+burnedFor < now.Year()*12+int(now.Month())-1
}

// slotFor finds the slot for a new key: the wanted one, or the first that is
// empty and past every cache.
func (r Ring) slotFor(a Algorithm, wanted string, at int64) (uint8, error) {
	if wanted != "" && slotOf(a, wanted) == 0 {
		return 0, fmt.Errorf("selector %q is no slot of %s, want %s to %s", clip(wanted), a, SlotLabel(a, 1), SlotLabel(a, slotCount))
	}
	soonest := NotReady{What: fmt.Sprintf("a slot of %s", a)}
	for slot := uint8(1); slot <= slotCount; slot++ {
		label := SlotLabel(a, slot)
		if wanted != "" && label != wanted {
			continue
		}
		k, used := r.BySelector(label)
		freed := r.Freed[label]
		if !used && freed <= at {
			return slot, nil
		}
		if used && k.Stage != Revoked {
			continue
		}
		// A revoked key is removed, and its slot empty, once it has left all caches.
		if freed = max(freed, at); soonest.At == 0 || freed < soonest.At {
			soonest.At = freed
		}
	}
	if wanted != "" {
		soonest.What = "slot " + wanted
	}
	return 0, &soonest
}

// NotReady is why a step is refused that fits the ring but not yet the time.
type NotReady struct {
	At   int64  // when it can be done; 0 where that is not known yet
	What string // what is waited for: "standby 2611-abcdef"
	Why  string // further words where the time is not known; may be empty
}

// Error says what is waited for, and until when.
func (e *NotReady) Error() string {
	if e.At == 0 {
		if e.Why == "" {
			return e.What + " is not free yet"
		}
		return e.What + " is not ready: " + e.Why
	}
	return fmt.Sprintf("%s is not ready before %s", e.What, time.Unix(e.At, 0).UTC().Format(time.RFC3339))
}

// Place is where a ring puts its next key: what a private half is sealed for.
type Place struct {
	ID       uint32
	Selector string // empty in minted mode: the caller mints one
}

// Place says where StepPublish of an algorithm would put the key.
func (r Ring) Place(a Algorithm, at int64) (Place, error) {
	if r.Mode == Minted {
		return Place{ID: r.NextID}, nil
	}
	slot, err := r.slotFor(a, "", at)
	if err != nil {
		return Place{}, err
	}
	return Place{ID: r.NextID, Selector: SlotLabel(a, slot)}, nil
}

// with is the ring with one more key.
func (r Ring) with(k Key) Ring {
	r.Keys = append(slices.Clip(r.Keys), k)
	r.NextID = k.ID + 1
	return r
}

// Active is the signing key of an algorithm, if any.
func (r Ring) Active(a Algorithm) (Key, bool) { return r.find(a, Active) }

// Standby is the standby of an algorithm, if any: the key that signs next. A
// public-only key never is.
func (r Ring) Standby(a Algorithm) (Key, bool) { return r.find(a, Standby) }

func (r Ring) find(a Algorithm, s Stage) (Key, bool) {
	for i := range r.Keys {
		if r.Keys[i].Algorithm == a && r.Keys[i].Stage == s && (s != Standby || r.Keys[i].isStandby()) {
			return r.Keys[i], true
		}
	}
	return Key{}, false
}

func (r Ring) has(a Algorithm, s Stage) bool { _, ok := r.find(a, s); return ok }

// ByID finds a key.
func (r Ring) ByID(id uint32) (Key, bool) {
	for i := range r.Keys {
		if r.Keys[i].ID == id {
			return r.Keys[i], true
		}
	}
	return Key{}, false
}

// BySelector finds a key.
func (r Ring) BySelector(selector string) (Key, bool) {
	for i := range r.Keys {
		if r.Keys[i].Selector == selector {
			return r.Keys[i], true
		}
	}
	return Key{}, false
}

// Record is what DNS answers for one selector of a ring.
type Record struct {
	Selector string
	Payload  string
	Short    bool // the short TTL: standby, revoked, or an empty slot
	// Watched: the key signs no more, so whoever asks for it holds an old signature.
	Watched bool
}

// Records lists every selector of the ring that answers. Minted: the keys by ID.
// Slots: every slot of every algorithm in the order given, a key or an empty p=.
func (r Ring) Records(algorithms []Algorithm) []Record {
	if r.Mode == Minted {
		records := make([]Record, 0, len(r.Keys))
		for i := range r.Keys {
			records = append(records, r.Keys[i].record())
		}
		return records
	}
	records := make([]Record, 0, slotCount*len(algorithms))
	for _, a := range algorithms {
		for slot := uint8(1); slot <= slotCount; slot++ {
			label := SlotLabel(a, slot)
			if key, ok := r.BySelector(label); ok {
				records = append(records, key.record())
			} else {
				records = append(records, Record{Selector: label, Payload: RevokedPayload(a), Short: true})
			}
		}
	}
	return records
}

func (k Key) record() Record {
	if k.Stage == Revoked {
		return Record{Selector: k.Selector, Payload: RevokedPayload(k.Algorithm), Short: true, Watched: true}
	}
	return Record{Selector: k.Selector, Payload: k.Payload, Short: k.Stage == Standby, Watched: k.Stage == Draining}
}

// ttl is how long caches hold what the key's name answers.
func (k Key) ttl() int64 {
	if k.record().Short {
		return TTLShort
	}
	return TTLLong
}
