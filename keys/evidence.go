package keys

import "fmt"

// Evidence is what the serving nodes know of the use of a draining key. It can put the
// revocation off, and never brings it before the floor; what is not known is never
// taken for silence. Times are seconds since 1970.
type Evidence struct {
	// Complete: every serving node has applied that the key signs no more, and has
	// said what follows.
	Complete bool `cbor:"1,keyasint"`
	// AskedAt is the last query for the key's record that a node saw, or may have
	// missed because its count was not whole; 0: none.
	AskedAt int64 `cbor:"2,keyasint"`
	// HandedOutAt is when a node last gave the private half to a signer, or may have.
	HandedOutAt int64 `cbor:"3,keyasint"`
	// Switched: every signer that fetched the key within the policy's SignerHold has
	// fetched a later one.
	Switched bool `cbor:"4,keyasint"`
}

// drained is the end of draining. Where the evidence says that the key is still
// in use, the ring notes until when that puts it off, so that the step is due
// again then and not before.
func (r Ring) drained(i int, at int64, p Policy, e *Evidence) (Ring, error) {
	k := &r.Keys[i]
	until, err := r.revocable(k, at, p, e)
	if err != nil {
		return Ring{}, err
	}
	if until <= at {
		next := r.revoked(i, at)
		if k.SwitchBy == 0 { // by the evidence nobody has it any more
			delete(next.Handed, k.Selector)
		}
		return next, nil
	}
	next := r.clone()
	next.Keys[i].HeldUntil = until
	return next, nil
}

// RevocableAt is when StepRevoke will revoke a draining key, by what is known of its
// use so far. The error is a *NotReady where that is not known, or before its floor.
func (r Ring) RevocableAt(id uint32, at int64, p Policy, e *Evidence) (int64, error) {
	i := r.index(id)
	if i < 0 {
		return 0, fmt.Errorf("key %d: no such key in the ring", id)
	}
	return r.revocable(&r.Keys[i], at, p, e)
}

func (r Ring) revocable(k *Key, at int64, p Policy, e *Evidence) (int64, error) {
	what := fmt.Sprintf("revoking draining %q", k.Selector)
	switch {
	case k.Stage != Draining:
		return 0, fmt.Errorf("it is %s, not draining", k.Stage)
	case k.SwitchBy != 0 && (at >= k.SwitchBy || e != nil && e.Complete && e.Switched):
		return at, nil
	case k.SwitchBy != 0:
		return 0, &NotReady{What: what, At: k.SwitchBy}
	case at < floorAt(k, p):
		return 0, &NotReady{What: what, At: floorAt(k, p)}
	case e == nil || !e.Complete:
		return 0, &NotReady{What: what, Why: "not every serving node has said whether it is still asked for"}
	}
	return max(at, r.inUseUntil(k, p, e)), nil
}

// inUseUntil is until when evidence puts a revocation off: for queries until the
// ceiling at most, for a private half that was handed out late without bound.
func (r Ring) inUseUntil(k *Key, p Policy, e *Evidence) int64 {
	var until int64
	if e.HandedOutAt > k.DrainedAt {
		until = e.HandedOutAt + p.holdFrom(e.HandedOutAt) + seconds(p.DrainFloor)
	}
	if e.AskedAt > 0 && r.RetiredAt == 0 {
		until = max(until, min(e.AskedAt+seconds(p.Quiet), drainedFrom(k, p)+seconds(p.DrainCeiling)))
	}
	return until
}
