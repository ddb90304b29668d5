package api

import (
	"time"

	"authd/cluster/state"
	"authd/keys"
)

const (
	// usualPace is the time for a key where the mill has not measured it yet.
	usualPace = 45 * time.Millisecond
	// stepTime is what publication and its confirmation take beside, in seconds.
	stepTime = 2
	// sampled bounds how many rings are looked into for an estimate: of more
	// domains the others are taken for like them.
	sampled = 20_000
	// fewSwitched is how many domains have to have switched before the progress says
	// more than the estimate from the start.
	fewSwitched = 20
)

// outlook counts a rotation's domains and says when the last of them is expected
// to have switched.
func (h *Handler) outlook(spec *state.RotationSpec) error {
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
	ready, pace := h.replica.KeyPace()
	if pace == 0 {
		pace = usualPace
	}
	mill := time.Duration(max(0, missing*total/seen-ready)) * pace
	spec.Total = uint32(total)
	spec.Tail = max(kept, made)
	wait := kept
	if missing > 0 || made > 0 {
		wait = max(kept, int64(mill/time.Second)+made+stepTime)
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
	at := r.Outlook(a, now)
	if at == 0 {
		return false, 0 // it leaves, or its only key is elsewhere
	}
	if !spec.Emergency && !spec.Drill {
		at += p.soak()
	}
	_, published := r.Standby(a)
	return !published, max(0, at-now)
}

// eta is when the last domain will have switched as things go; 0 where nothing
// is waited for, or the rotation rests.
func eta(now int64, r *state.Rotation) int64 {
	left := int64(max(r.Total, r.Begun)) - int64(r.Begun-r.Waiting)
	if r.Back || r.State != state.RotationRunning || left <= 0 {
		return 0
	}
	// The first key made is ready Tail later; from then on they come one by one.
	if spent := now - r.StartedAt - r.Tail; r.Store && r.Switched >= fewSwitched && spent > 0 {
		return now + (left*spent+int64(r.Switched)-1)/int64(r.Switched)
	}
	return max(r.Expected, now)
}
