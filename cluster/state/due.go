package state

import (
	"encoding/binary"
	"slices"

	"authd/keys"
)

// Task is one step that is due, as DueAfter found it.
type Task struct {
	Token  Token
	Expire bool      // the claim itself ends (ExpireDomain)
	Step   keys.Step // otherwise

	wake int64 // where the claim stands in the queue
}

// Behind says whether a task's claim stands behind another's in the queue.
func (t Task) Behind(other Task) bool {
	return dueKey(t.wake, t.Token) > dueKey(other.wake, other.Token)
}

// DueAfter lists at most limit tasks due at a time, the earliest first, from the
// claim behind a task's on, so that tasks which cannot be done now (a confirmation
// that waits for a node) do not hide the others. The zero Task is the beginning. A
// list may be longer than limit by the further tasks of its last claim.
func (m Machine) DueAfter(last Task, limit int, at int64) (list []Task) {
	t := m.tables()
	from := ""
	if last != (Task{}) {
		from = dueKey(last.wake, last.Token) + "\x00"
	}
	t.due.Ascend(from, func(key string, _ struct{}) bool {
		wake := int64(binary.BigEndian.Uint64([]byte(key[:8])))
		if wake > at || len(list) >= limit {
			return false
		}
		list = append(list, t.tasks(tokenOf(key[8:]), wake, at)...)
		return true
	})
	return list
}

// tasks are what is due for one claim.
func (t *tables) tasks(token Token, wake, at int64) []Task {
	d, ok := t.find(token)
	if !ok {
		panic("the queue names claim " + token.String() + " which is not there: stop this node and restore it from a snapshot")
	}
	if d.GoneAt != 0 && d.GoneAt <= at {
		return []Task{{Token: token, Expire: true, wake: wake}}
	}
	var list []Task
	planned := d.Ring().Plan(t.policy(d))
	for _, p := range planned {
		if p.Due <= at {
			list = append(list, Task{Token: token, Step: p.Step, wake: wake})
		}
	}
	if len(list) == 0 && len(planned) > 0 {
		// The pool's policy was slowed down meanwhile. The command is refused as too
		// early and puts the claim where it belongs now.
		list = append(list, Task{Token: token, Step: planned[0].Step, wake: wake})
	}
	return list
}

// dueAt is when the next step of a claim's ring is due; 0: none.
func (t *tables) dueAt(d *Domain, ring keys.Ring) int64 {
	_, due, ok := ring.Next(t.policy(d))
	if !ok {
		return 0
	}
	return max(due, 1)
}

// sweepShare is how many claims one Reschedule looks at: some milliseconds' work.
const sweepShare = 1000

// sweep notes that a pool's domains have to be rescheduled.
func (w *writer) sweep(pool uint32) {
	w.sweeps = slices.DeleteFunc(slices.Clone(w.sweeps), func(s sweep) bool { return s.Pool == pool })
	w.sweeps = append(w.sweeps, sweep{Pool: pool})
}

// reschedule goes on with the oldest sweep.
func (w *writer) reschedule() Result {
	if len(w.sweeps) == 0 {
		return same
	}
	s := w.sweeps[0]
	rest := slices.Clone(w.sweeps[1:])
	id, _ := w.poolIDs.Get(s.Pool)
	looked, next := 0, ""
	var moved []*Domain
	w.domains.Ascend(s.Next, func(key string, r record) bool {
		if looked == sweepShare {
			next = key
			return false
		}
		looked++
		if d := w.domain(r); d.Pool == id && w.dueAt(d, d.Ring()) != d.DueAt {
			moved = append(moved, d)
		}
		return true
	})
	for _, d := range moved {
		old := *d
		w.put(&old, d, d.Ring())
	}
	if next != "" {
		rest = append([]sweep{{Pool: s.Pool, Next: next}}, rest...)
	}
	w.sweeps = rest
	return done
}
