package keys

import (
	"fmt"
	"hash/fnv"
	"time"
)

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
	// Quiet is how long nobody may have asked for a draining key before it is revoked.
	Quiet time.Duration `cbor:"10,keyasint"`
	// Before is the longest SignerHold that was in force before this one and that signers
	// may go by still. It follows from the policy's changes: see After.
	Before Hold `cbor:"11,keyasint"`
	// Algorithms are what the pool's domains sign with.
	Algorithms []Algorithm `cbor:"9,keyasint"`
}

// Hold is for how long, in seconds, signers could keep what they fetched until a time.
type Hold struct {
	For   int64 `cbor:"1,keyasint,omitempty"`
	Until int64 `cbor:"2,keyasint,omitempty"`
}

// After is a policy that takes the place of another at a time: a signer that fetched a key
// before goes by what it was told then.
func (p Policy) After(old Policy, at int64) Policy {
	p.Before = old.Before
	if p.Before.Until+p.Before.For+seconds(maxDrainCeiling) < at {
		p.Before = Hold{} // any floor that counts with it has passed
	}
	if held := seconds(old.SignerHold); held > seconds(p.SignerHold) {
		p.Before = Hold{For: max(held, p.Before.For), Until: at}
	}
	return p
}

// holdFrom is for how long, from a time on, a signer may sign with what it fetched by then.
func (p Policy) holdFrom(at int64) int64 {
	return max(seconds(p.SignerHold), min(at, p.Before.Until)+p.Before.For-at)
}

// Hold is how long ago, at a time, a signer may have fetched a key that it signs with, in
// seconds.
func (p Policy) Hold(at int64) int64 {
	if at < p.Before.Until+p.Before.For {
		return max(seconds(p.SignerHold), p.Before.For)
	}
	return seconds(p.SignerHold)
}

const day = 24 * time.Hour

// DefaultPolicy is RSA-2048 every 90 days, with delays that suit receivers' queues and
// signers' caches.
func DefaultPolicy() Policy {
	return Policy{
		Period:       90 * day,
		Soak:         day,
		Rollback:     day,
		SignerHold:   day,
		DrainFloor:   7 * day,
		Drain:        10 * day,
		DrainCeiling: 21 * day,
		RevokedFor:   30 * day,
		Quiet:        2 * day,
		Algorithms:   []Algorithm{RSA2048},
	}
}

// PolicyError is why Check refuses a policy.
type PolicyError struct {
	Field   string // as the API names it: "period"
	Message string // the rest of the sentence
}

// Error names the field and the bound.
func (e *PolicyError) Error() string { return e.Field + ": " + e.Message }

// Bounds of a policy. The floor is RFC 6376 section 3.6.1's advice on how long a
// record outlives its last signature, so that mail in queues verifies.
const (
	minPeriodMinted = 5 * day
	maxPeriod       = 730 * day
	maxSoak         = 30 * day
	minSignerHold   = time.Minute
	maxSignerHold   = 7 * day
	minDrainFloor   = 7 * day
	maxDrainCeiling = 60 * day
	minRevokedFor   = day
	maxRevokedFor   = 90 * day
	minQuiet        = time.Hour
)

// Check refuses a policy that cannot be kept in the given ring modes: slots
// need a period of at least the drain ceiling and a day, minted selectors five
// days. The error (a *PolicyError) names the field and the bound.
func (p Policy) Check(slots bool) error {
	shortest, why := minPeriodMinted, "with minted selectors"
	if slots {
		shortest, why = max(minPeriodMinted, p.DrainCeiling+day), "in slots: the drain ceiling and a day"
	}
	for _, b := range []struct {
		field       string
		value       time.Duration
		least, most time.Duration
		why         string
	}{
		{"drain_ceiling", p.DrainCeiling, minDrainFloor, maxDrainCeiling, ""},
		{"drain_floor", p.DrainFloor, minDrainFloor, p.DrainCeiling, "the most is the drain ceiling"},
		{"drain", p.Drain, p.DrainFloor, p.DrainCeiling, "between drain floor and drain ceiling"},
		{"signer_hold", p.SignerHold, minSignerHold, maxSignerHold, ""},
		{"period", p.Period, shortest, maxPeriod, why},
		{"soak", p.Soak, 0, min(maxSoak, p.Period), "and never longer than the period"},
		{"rollback", p.Rollback, 0, p.DrainFloor, "the most is the drain floor"},
		{"revoked_for", p.RevokedFor, minRevokedFor, maxRevokedFor, ""},
		{"quiet", p.Quiet, minQuiet, p.DrainFloor, "the most is the drain floor"},
	} {
		if err := checkBound(b.field, b.value, b.least, b.most, b.why); err != nil {
			return err
		}
	}
	return p.checkAlgorithms()
}

func checkBound(field string, value, least, most time.Duration, why string) error {
	if why != "" {
		why = " (" + why + ")"
	}
	switch {
	case value%time.Second != 0:
		return &PolicyError{field, fmt.Sprintf("%s is not in whole seconds", value)}
	case value < least:
		return &PolicyError{field, fmt.Sprintf("%s is too short, at least %s%s", value, least, why)}
	case value > most:
		return &PolicyError{field, fmt.Sprintf("%s is too long, at most %s%s", value, most, why)}
	}
	return nil
}

func (p Policy) checkAlgorithms() error {
	if len(p.Algorithms) == 0 {
		return &PolicyError{"algorithms", "none is given, want rsa2048, ed25519 or both"}
	}
	seen := map[Algorithm]bool{}
	for _, a := range p.Algorithms {
		if !a.known() {
			return &PolicyError{"algorithms", fmt.Sprintf("%s is unknown, want rsa2048 or ed25519", a)}
		}
		if seen[a] {
			return &PolicyError{"algorithms", fmt.Sprintf("%s is given twice", a)}
		}
		seen[a] = true
	}
	return nil
}

// jitterShare is the share of the period by which domains are spread to each side.
const jitterShare = 0.1

// JitterOf derives a ring's jitter from its claim's token, so that the domains of
// an import do not all rotate on one day.
func JitterOf(token []byte) int16 {
	h := fnv.New64a()
	_, _ = h.Write(token) // a hash never fails
	return int16(h.Sum64()%2001) - 1000
}

// seconds is a policy's delay in the ring's unit.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }
