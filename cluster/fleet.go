package cluster

import (
	"context"
	"math"
	"sync"
	"time"

	"authd/cluster/state"
)

const (
	// fleetFlight is how many entries of a rotation of many domains are under way at
	// once: while one is applied the next is replicated.
	fleetFlight = 3
	// fleetPause is how long a rotation rests whose entries are not committed.
	fleetPause = 200 * time.Millisecond
)

// runFleet carries rotations of many domains forward while this node leads. It
// has a goroutine of its own, because an emergency must not wait behind a round
// that makes keys. All it decides is when to propose: how many domains an entry
// rotates, and where a stage ends, the machine says.
func (r *rotator) runFleet() {
	for {
		changed := r.node.fsm.next()
		if r.node.leads() && r.advanceAll() {
			continue
		}
		pause := r.node.tuning.rotate
		if len(r.node.Machine().RotationsDue(math.MaxInt64)) > 0 {
			pause = fleetPause // what is due later is due by time alone
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-r.node.ctx.Done():
			return
		}
	}
}

// advanceAll moves every rotation that is due by some entries, the oldest first,
// and says whether any was.
func (r *rotator) advanceAll() bool {
	moved := false
	for rotation := range r.node.Machine().Rotations() {
		if !r.fleetDue(rotation.ID) {
			continue
		}
		if !r.advance(rotation.ID) {
			r.sleep(fleetPause)
			return false
		}
		moved = true
	}
	return moved
}

// fleetDue says whether a rotation goes on now. While no clock serves an emergency does,
// at machine time, as one of a single domain: standbys that are ready are ready.
func (r *rotator) fleetDue(id state.Token) bool {
	m := r.node.Machine()
	rotation, ok := m.Rotation(id)
	if !ok {
		return false
	}
	if r.clock.serves(m.Time()) {
		return rotation.Due(max(r.node.c.Now().Unix(), m.Time()))
	}
	return rotation.Emergency && !rotation.Drill && rotation.Due(m.Time())
}

// advance proposes entries side by side until the rotation is no longer due: one
// too many does nothing. It says whether all were committed.
func (r *rotator) advance(id state.Token) bool {
	var flight sync.WaitGroup
	var mu sync.Mutex
	good := true
	for range fleetFlight {
		flight.Go(func() {
			for r.node.leads() && r.node.ctx.Err() == nil {
				if !r.fleetDue(id) {
					return
				}
				ctx, cancel := context.WithTimeout(r.node.ctx, callTime)
				_, _, err := r.node.Propose(ctx, Actor{ID: "rotator"}, state.AdvanceRotation{ID: id})
				cancel()
				if err != nil {
					mu.Lock()
					good = false
					mu.Unlock()
					return
				}
			}
		})
	}
	flight.Wait()
	return good
}
