package keys

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// slotGenerations is how many keys of each algorithm come to sign in the simulator.
const slotGenerations = 1000

// slotValue is what a slot answered, to whoever asked, up to a moment.
type slotValue struct {
	payload string
	ttl     int64
	until   int64 // its last answer by the leader's machine; other nodes may lag
}

// slotWorld is a ring in slots and, beside it, all that its names ever answered:
// the rules of ready times are checked against that and not against the ring.
type slotWorld struct {
	*rand.Rand
	ring       Ring
	policy     Policy
	algorithms []Algorithm
	now        int64
	heldUntil  int64 // a node cannot be asked: nothing is confirmed
	past       map[string][]slotValue
	handed     map[string]int64 // until when a node may have handed out the key before in a slot
	refills    int
	signed     map[Algorithm]int
}

// TestNoSlotIsRefilledBeforeItsReadyTime in a thousand generations of each set of
// algorithms, with nodes that hold the barrier for days and emergencies at any
// moment. Caches are taken to keep every answer for its TTL and an hour.
func TestNoSlotIsRefilledBeforeItsReadyTime(t *testing.T) {
	for seed, algorithms := range [][]Algorithm{{RSA2048}, {Ed25519}, {RSA2048, Ed25519}} {
		t.Run(fmt.Sprint(algorithms), func(t *testing.T) {
			w := startSlots(t, uint64(seed), algorithms)
			for steps := 0; slices.ContainsFunc(algorithms, func(a Algorithm) bool { return w.signed[a] < slotGenerations }); steps++ {
				if steps > 100*slotGenerations {
					t.Fatalf("after %d steps only %v keys have signed: %+v", steps, w.signed, w.ring)
				}
				w.step(t)
			}
			if w.refills < slotGenerations {
				t.Errorf("only %d slots were filled again", w.refills)
			}
		})
	}
}

func startSlots(t *testing.T, seed uint64, algorithms []Algorithm) *slotWorld {
	t.Helper()
	w := &slotWorld{
		Rand: rand.New(rand.NewPCG(seed, 4)), policy: DefaultPolicy(), algorithms: algorithms, now: someTime,
		past: map[string][]slotValue{}, handed: map[string]int64{}, signed: map[Algorithm]int{},
	}
	w.policy.Period = w.policy.DrainCeiling + 24*time.Hour // the shortest that a pool may have in slots
	var first []Material
	for i, a := range algorithms {
		first = append(first, testMaterial(uint32(i+1), a, ""))
	}
	ring, err := Start(Slots, 0, w.now, first, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.become(t, ring)
	return w
}

// step lets time pass, and one thing happen.
func (w *slotWorld) step(t *testing.T) {
	t.Helper()
	switch w.IntN(20) {
	case 0:
		before := w.heldUntil
		w.heldUntil = max(w.heldUntil, w.now+w.Int64N(20*86400))
		for slot, until := range w.handed {
			if until == before && w.now < before { // the node that handed it out is still away
				w.handed[slot] = w.heldUntil
			}
		}
		return
	case 1, 2:
		w.now += w.Int64N(2 * 86400)
		a := w.algorithms[w.IntN(len(w.algorithms))]
		emergency := Ring.Emergency
		if w.IntN(2) == 0 {
			emergency = Ring.Burn
		}
		next, err := emergency(w.ring, a, 0, []Fate{FateDrain, FateRevoke, FateSwitch}[w.IntN(3)], w.now)
		if err != nil {
			t.Fatalf("an emergency was refused: %v", err)
		}
		w.become(t, next)
		return
	case 3:
		k := w.ring.Keys[w.IntN(len(w.ring.Keys))]
		if next, err := w.ring.Revoke(k.ID, w.now); err == nil {
			w.become(t, next)
		}
		return
	}
	for _, planned := range w.ring.Plan(w.policy) {
		due := max(w.now, planned.Due)
		if planned.Kind == StepConfirm || planned.Kind == StepRevoke {
			due = max(due, w.heldUntil)
		}
		// As soon as it is due, and also before: then it must be refused, or be in order.
		if w.IntN(4) == 0 {
			due -= w.Int64N(1 + due - w.now)
		}
		if due < w.heldUntil && planned.Kind == StepConfirm {
			continue
		}
		if w.take(t, planned.Step, due) {
			return
		}
	}
	w.now += w.Int64N(86400)
}

func (w *slotWorld) take(t *testing.T, step Step, at int64) bool {
	t.Helper()
	var m *Material
	switch step.Kind {
	case StepPublish:
		material := testMaterial(w.ring.NextID, step.Algorithm, "")
		m = &material
	case StepRevoke:
		step.Evidence = &Evidence{Complete: at >= w.heldUntil, Switched: true, AskedAt: at - w.Int64N(5*86400)}
	}
	next, err := w.ring.Take(step, at, w.policy, m)
	if err != nil {
		return false
	}
	w.now = at
	w.become(t, next)
	return true
}

// become checks what a change does to every slot, and notes what each answers.
func (w *slotWorld) become(t *testing.T, next Ring) {
	t.Helper()
	records := next.Records(w.algorithms)
	if len(records) != slotCount*len(w.algorithms) {
		t.Fatalf("%d slots answer, want every one", len(records))
	}
	for _, r := range records {
		ttl := int64(TTLLong)
		if r.Short {
			ttl = TTLShort
		}
		list := w.past[r.Selector]
		if len(list) > 0 {
			was := &list[len(list)-1]
			was.until = w.now
			if was.payload != r.Payload {
				w.changes(t, r, list)
			}
		}
		if len(list) == 0 || list[len(list)-1].payload != r.Payload || list[len(list)-1].ttl != ttl {
			w.past[r.Selector] = append(list, slotValue{r.Payload, ttl, w.now})
		}
	}
	for _, k := range next.Keys {
		switch was, _ := w.ring.ByID(k.ID); {
		case k.Stage == Active && was.Stage != Active:
			w.signs(t, k)
		case k.Stage != Active && was.Stage == Active:
			w.handed[k.Selector] = max(w.now, w.heldUntil)
		}
	}
	w.ring = next
}

// changes checks a slot that is to hold a key: no cache may have the key before it.
func (w *slotWorld) changes(t *testing.T, r Record, past []slotValue) {
	t.Helper()
	if r.Payload == RevokedPayload(RSA2048) || r.Payload == RevokedPayload(Ed25519) {
		return
	}
	for i, v := range past {
		if v.payload == RevokedPayload(RSA2048) || v.payload == RevokedPayload(Ed25519) {
			continue
		}
		if free := v.until + v.ttl + TTLStretch; w.now < free {
			t.Fatalf("slot %s is filled again at %d, though caches may have its key before (value %d of %d) until %d", r.Selector, w.now, i+1, len(past), free)
		}
	}
	if len(past) > 1 {
		w.refills++
	}
}

// signs checks a key that begins to sign: a node may have answered whatever the
// slot held before until the moment in which all confirmed the key.
func (w *slotWorld) signs(t *testing.T, k Key) {
	t.Helper()
	w.signed[k.Algorithm]++
	if w.signed[k.Algorithm] == 1 || k.DrainedAt != 0 {
		return // the claim's own, and one that signs again
	}
	// A signer that keeps keys by their selectors may have the one before.
	if until, ok := w.handed[k.Selector]; ok && w.now < until+seconds(w.policy.SignerHold) {
		t.Fatalf("key %d in slot %s signs at %d, though a signer may have the key before until %d", k.ID, k.Selector, w.now, until+seconds(w.policy.SignerHold))
	}
	for _, v := range w.past[k.Selector] {
		if v.payload == k.Payload {
			continue
		}
		if ready := max(v.until, k.ConfirmedAt) + v.ttl + TTLStretch; w.now < ready {
			t.Fatalf("key %d in slot %s signs at %d, though caches may have another answer until %d", k.ID, k.Selector, w.now, ready)
		}
	}
}

// Of several empty slots the next standby goes to the one that is free first.
func TestNextStandbyTakesTheSlotThatIsFreeFirst(t *testing.T) {
	r, err := Start(Slots, 0, someTime, []Material{testMaterial(1, RSA2048, "")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Freed = map[string]int64{"k2": someTime + 9000, "k3": someTime + 5000}
	if _, due, ok := r.Next(DefaultPolicy()); !ok || due != someTime+5000 {
		t.Errorf("due at %d, %v", due-someTime, ok)
	}
	r.Freed = map[string]int64{"k2": someTime + 5000, "k3": someTime + 9000}
	if _, due, ok := r.Next(DefaultPolicy()); !ok || due != someTime+5000 {
		t.Errorf("due at %d, %v", due-someTime, ok)
	}
}
