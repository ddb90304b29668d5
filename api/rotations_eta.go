package api

import (
	"context"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

const (
	// usualPace is the time for a key where no mill has measured it yet.
	usualPace = 45 * time.Millisecond
	// sampled bounds how many rings are looked into for an estimate: of more
	// domains the others are taken for like them.
	sampled = 20_000
)

// outlook counts a rotation's domains and says when the last of them is expected
// to have switched.
func (h *Handler) outlook(ctx context.Context, spec *state.RotationSpec) error {
	m := h.replica.Machine()
	now := m.Time()
	asked := &state.Rotation{RotationSpec: *spec, StartedAt: max(now, h.config.Now().Unix())}
	var made, kept int64 // seconds until ready: of keys to be made, of those there are
	looked, total, missing, seen := 0, 0, 0, 0
	for d := range m.InRotation(asked, state.Token{}, &looked) {
		if total++; total > sampled {
			continue
		}
		seen++
		ring, p := d.Ring(), policyOf(m, d)
		for _, a := range d.Algorithms {
			make, wait := ahead(ring, a, spec, p, now)
			if make && a == keys.RSA2048 {
				missing++
			}
			if make {
				made = max(made, wait)
			} else {
				kept = max(kept, wait)
			}
		}
	}
	if total == 0 {
		return invalid("scope", "no domain is in it: look at authd domain list")
	}
	ready, pace := h.replica.KeyPace(ctx)
	missing = missing * total / seen
	spec.Total = uint32(total)
	spec.Ready = uint32(min(ready, missing))
	spec.Tail = max(kept, made)
	wait := kept
	if missing > 0 || made > 0 {
		wait = max(kept, int64(milled(missing-ready, pace)/time.Second)+made+state.SwitchTime)
	}
	spec.Expected = asked.StartedAt + max(wait, 1)
	return nil
}

// ahead is how long one ring waits for its next key, and whether that has to be
// made first.
func ahead(r keys.Ring, a keys.Algorithm, spec *state.RotationSpec, p policy, now int64) (make bool, wait int64) {
	if spec.Store {
		if burned, err := r.Burn(a, 0, spec.Old, now); err == nil {
			r = burned
		}
	}
	at := r.Outlook(a, now, p.Policy)
	if at == 0 {
		return false, 0 // it leaves, or its only key is elsewhere
	}
	if !spec.Emergency && !spec.Drill {
		at += p.soak()
	}
	_, published := r.Standby(a)
	return !published, max(0, at-now)
}

// milled is how long the mills take for some keys.
func milled(keys int, pace time.Duration) time.Duration {
	if pace == 0 {
		pace = usualPace
	}
	return time.Duration(max(0, keys)) * pace
}

// expectedError is how far off the first estimate was, in percent of the time that
// it stated; negative: all had switched sooner. Nil while that is not known.
func expectedError(r *state.Rotation) *int {
	stated := r.Expected - r.StartedAt
	if r.State != state.RotationDone || r.Back || stated <= 0 || len(r.Canary) > 1 {
		return nil
	}
	percent := int((r.EndedAt - r.Expected) * 100 / stated)
	return &percent
}

// refillETA is when the last standby is expected to have been made too: keys for
// domains that wait come first.
func (h *Handler) refillETA(ctx context.Context, now int64, r *state.Rotation) *time.Time {
	standbys := r.Outstanding() + r.Waiting + r.Refilling
	if r.Back || r.State != state.RotationRunning && r.State != state.RotationDone || standbys == 0 {
		return nil
	}
	missing := standbys
	if r.Store {
		missing += r.Outstanding() + r.Waiting - r.Keyed
	}
	ready, pace := h.replica.KeyPace(ctx)
	at := moment(max(r.ETA(now), now+int64(milled(int(missing)-ready, pace)/time.Second)+state.SwitchTime))
	return &at
}
