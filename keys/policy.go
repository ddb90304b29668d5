package keys

import "time"

// Policy is how the keys of a pool are rotated. The zero value is not usable:
// see DefaultPolicy. All are whole seconds.
type Policy struct {
	Period       time.Duration `cbor:"1,keyasint"` // from one activation to the next
	Soak         time.Duration `cbor:"2,keyasint"` // ready standby to scheduled activation
	Rollback     time.Duration `cbor:"3,keyasint"` // previous key may come back
	SignerHold   time.Duration `cbor:"4,keyasint"` // longest a signer may cache a key
	DrainFloor   time.Duration `cbor:"5,keyasint"` // shortest drain after the last possible signature
	Drain        time.Duration `cbor:"6,keyasint"` // usual drain
	DrainCeiling time.Duration `cbor:"7,keyasint"` // longest wait for queries to stop
	RevokedFor   time.Duration `cbor:"8,keyasint"` // empty p= before removal (minted)
	// Algorithms are what the pool's domains sign with.
	Algorithms []Algorithm `cbor:"9,keyasint"`
}

// DefaultPolicy is RSA-2048 every 90 days, with the delays of ARCHITECTURE.md.
func DefaultPolicy() Policy { panic("todo") }

// Check refuses a policy that cannot be kept in the given ring modes: slots
// need a period of at least the drain ceiling and a day, minted selectors five
// days. The error names the field and the bound.
func (p Policy) Check(slots bool) error { panic("todo") }

// JitterShare is the share of the period by which domains are spread to each side.
const JitterShare = 0.1
