package keys

import (
	"testing"
	"time"
)

// holding is the default policy with another signer_hold.
func holding(d time.Duration) Policy {
	p := DefaultPolicy()
	p.SignerHold = d
	return p
}

// A signer goes by what it was told when it fetched a key: at the latest when the domain
// left the pool, or when the key began to drain.
func TestKeysOfADomainThatMovesAreHeldAsSignersWereTold(t *testing.T) {
	const at, moves = someTime + 10_000, someTime + 10_000 + 2*86400
	const fiveDays = 5 * 86400
	long, short := holding(5*day), holding(time.Hour)
	drains := stepped(t, readyPair(t, Slots), at, Step{Kind: StepActivate, Key: 2})
	r := drains.Moved(long, short, moves)
	if old, active := r.Keys[0], r.Keys[1]; old.HeldBefore != at+fiveDays || active.HeldBefore != moves+fiveDays {
		t.Errorf("held until %d and %d s after the switch", old.HeldBefore-at, active.HeldBefore-at)
	}
	if r := drains.Moved(short, long, moves); r.Keys[0].HeldBefore != 0 || r.Keys[1].HeldBefore != 0 {
		t.Error("a longer hold of the pool that it moves to does not count alone")
	}
	// The next key of its slot would be signed for with the revoked one.
	if r, err := r.Revoke(1, moves); err != nil || r.Freed["k1"] != at+fiveDays {
		t.Errorf("the slot is free %d s after the switch, error %v", r.Freed["k1"]-at, err)
	}
}

func TestADomainStaysUntilTheLastOfItsKeysIsPastItsFloor(t *testing.T) {
	const at = someTime + 10_000
	r := stepped(t, readyPair(t, Minted), at, Step{Kind: StepActivate, Key: 2})
	r.Keys[0].HeldBefore = at + 20*86400 // longer than that of the key that drains after it
	p := DefaultPolicy()
	if last := r.Retire(at).DrainedBy(p); last != at+20*86400+seconds(p.DrainFloor) {
		t.Errorf("%d s after it began to leave", last-at)
	}
	if last := readyPair(t, Minted).DrainedBy(p); last != 0 {
		t.Errorf("no key drains, and the last is past its floor at %d", last)
	}
}
