package api

import (
	"context"
	"fmt"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

// urgent says whether a rotation is an emergency, or the drill of one.
func urgent(r *state.Rotation) bool { return (r.Emergency || r.Drill) && !r.Back }

// replacing is how many domains of a rotation still sign with the key that it is
// to replace.
func replacing(r *state.Rotation) uint32 {
	return r.Waiting + r.Outstanding()
}

// fleetExposure is when the last cache has let go of the last old record; nil
// while domains still sign with theirs, as for a single one.
func fleetExposure(r *state.Rotation) *time.Time {
	if !urgent(r) || replacing(r) > 0 {
		return nil
	}
	return maybe(r.Exposed)
}

// fleetAtRisk says which mail fails because of an emergency.
func fleetAtRisk(r *state.Rotation) string {
	if !urgent(r) {
		return ""
	}
	words := "none: no domain has switched"
	if of := fmt.Sprintf("the old keys of %s", counted(r.Switched, "domain")); r.Switched > 0 {
		switch r.Old {
		case keys.FateRevoke:
			words = "mail signed with " + of + " that is still under way fails DKIM, at the latest from exposure_ends_at on"
		case keys.FateSwitch:
			words = "mail signed with " + of + " that is still under way when they are revoked fails DKIM: once every signer has the new key, at most ten minutes after each switch"
		default:
			words = "none signed with " + of + ", which are answered until their drains end; so is what a thief signs with them"
		}
	}
	if left := replacing(r); left > 0 {
		words += fmt.Sprintf(". Until they switch, %s by the old key, and what a thief signs for them verifies", counted(left, "domain signs", "domains sign"))
	}
	if r.ForSlot > 0 {
		words += ". Mail signed with " + counted(r.ForSlot, "older key") + ", revoked to free the slots, fails DKIM"
	}
	return words
}

// counted is a number with its noun; the plural where it is not just an s.
func counted(n uint32, one string, many ...string) string {
	if n == 1 {
		return "1 " + one
	}
	if len(many) > 0 {
		return fmt.Sprintf("%d %s", n, many[0])
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// fleetSigners adds who is still on the old keys of an emergency.
func (h *Handler) fleetSigners(ctx context.Context, r *state.Rotation, out *FleetRotation) {
	if !urgent(r) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, useTime)
	defer cancel()
	found, known := h.replica.FleetSigners(ctx, r.ID)
	if !known {
		return
	}
	at := found.At.UTC().Truncate(time.Second)
	out.SignersAt, out.SignersOnOld, out.Unheard = &at, merged(found.OnOld, nil), merged(found.Unheard, nil)
}
