package api

import (
	"testing"

	"authd/cluster/state"
)

func TestErrorOfTheFirstEstimateIsTold(t *testing.T) {
	r := state.Rotation{RotationSpec: state.RotationSpec{Expected: 2000}, StartedAt: 1000, EndedAt: 2150, State: state.RotationDone}
	if got := expectedError(&r); got == nil || *got != 15 {
		t.Errorf("%v", got)
	}
	r.EndedAt = 1900
	if got := expectedError(&r); got == nil || *got != -10 {
		t.Errorf("%v", got)
	}
	for _, change := range []func(*state.Rotation){
		func(r *state.Rotation) { r.State = state.RotationRunning },
		func(r *state.Rotation) { r.State = state.RotationAborted },
		func(r *state.Rotation) { r.Back = true },
		func(r *state.Rotation) { r.Canary = []uint8{50, 100} },
	} {
		other := r
		if change(&other); expectedError(&other) != nil {
			t.Errorf("%+v has an error of %d %%", other, *expectedError(&other))
		}
	}
}
