package state

const (
	// SwitchTime is what publication of a key, its confirmation and the switch take
	// beside the waiting, in seconds.
	SwitchTime = 2
	// etaKeys and etaTime are how many keys have to have been made, and in how many
	// seconds, before the progress says more than the estimate from the start.
	etaKeys = 50
	etaTime = 20
)

// ETA is when the last domain will have switched as things go; 0 where nothing is
// waited for, or the rotation rests. Those who lack a key get theirs at the pace of
// the last laps, one after the other, and sign Tail later.
func (r *Rotation) ETA(now int64) int64 {
	lacking := int64(r.Outstanding() + r.Waiting - r.Keyed)
	if r.Back || r.State != RotationRunning || lacking+int64(r.Keyed) == 0 {
		return 0
	}
	from := r.LapBefore
	if from.At == 0 {
		from = RotationLap{r.StartedAt, r.Ready}
	}
	made, took := int64(r.Switched+r.Keyed)-int64(from.Made), now-from.At
	switch {
	case !r.Store: // hardly any key has to be made
	case lacking == 0:
		return max(now, r.KeyedAt+r.Tail+SwitchTime)
	case made >= etaKeys && took >= etaTime:
		return now + (lacking*took+made-1)/made + r.Tail + SwitchTime
	}
	return max(r.Expected, now)
}

// Outstanding is how many domains are not begun.
func (r *Rotation) Outstanding() uint32 {
	if r.Walked || r.Ended() {
		return 0
	}
	return max(r.Total, r.Begun) - r.Begun
}
