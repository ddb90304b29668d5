package keys

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// walk is a ring on which random things happen, and what must hold of it.
type walk struct {
	ring       Ring
	policy     Policy
	algorithms []Algorithm
	now        int64
	used       map[string]bool // minted selectors seen at any time
	live       map[string]bool // those in the ring after the last step
	unsigned   map[Algorithm]bool
}

// TestRingKeepsItsPromises takes rings through random steps: due or not, by hand
// or by schedule, with policies far outside what Check allows.
func TestRingKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := startWalk(t)
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.advance(t)
			w.act(t)
			w.check(t)
		}
	})
}

func startWalk(t *rapid.T) *walk {
	hours := rapid.IntRange(0, 400)
	w := &walk{now: someTime, used: map[string]bool{}, unsigned: map[Algorithm]bool{}}
	w.policy = DefaultPolicy()
	w.policy.Period = 5 * day
	for i, delay := range []*time.Duration{
		&w.policy.Soak, &w.policy.Rollback, &w.policy.SignerHold,
		&w.policy.DrainFloor, &w.policy.Drain, &w.policy.RevokedFor,
	} {
		*delay = time.Duration(hours.Draw(t, fmt.Sprint("delay ", i))) * time.Hour
	}
	w.algorithms = rapid.SampledFrom([][]Algorithm{{RSA2048}, {Ed25519}, {RSA2048, Ed25519}}).Draw(t, "algorithms")
	w.ring = Ring{Mode: rapid.SampledFrom([]RingMode{Minted, Slots}).Draw(t, "mode"), NextID: 1}
	var active, standby []Material
	for i, a := range w.algorithms {
		active = append(active, w.material(a, i, false))
	}
	if rapid.Bool().Draw(t, "with standby") {
		for i, a := range w.algorithms {
			standby = append(standby, w.material(a, len(active)+i, false))
		}
	}
	ring, err := Start(w.ring.Mode, int16(rapid.IntRange(-1000, 1000).Draw(t, "jitter")), w.now, active, standby)
	if err != nil {
		t.Fatal(err)
	}
	w.ring = ring
	w.check(t)
	return w
}

func (w *walk) material(a Algorithm, ahead int, old bool) Material {
	id := w.ring.NextID + uint32(ahead)
	m := testMaterial(id, a, "")
	if w.ring.Mode == Minted {
		m.Selector = fmt.Sprintf("s%d", id)
		if old { // a clash: the ring must refuse it
			m.Selector = fmt.Sprintf("s%d", max(1, id/2))
		}
	}
	return m
}

func (w *walk) advance(t *rapid.T) {
	if _, due, ok := w.ring.Next(w.policy); ok && rapid.Bool().Draw(t, "to the next step") {
		w.now = max(w.now, due)
		return
	}
	w.now += int64(rapid.IntRange(0, 4*86400).Draw(t, "seconds"))
}

// act does one thing; a refusal is fine, but must not be of a planned step at its time.
func (w *walk) act(t *rapid.T) {
	var next Ring
	var err error
	switch what := rapid.IntRange(0, 21).Draw(t, "what"); {
	case what < 9:
		step, due, ok := w.ring.Next(w.policy)
		if !ok {
			return
		}
		if next, err = w.take(step, false); err != nil && due <= w.now {
			t.Fatalf("%s was planned and is refused: %v", step.Kind, err)
		} else if err == nil {
			w.drains(t, next)
		}
	case what < 11:
		step := Step{Kind: StepKind(rapid.IntRange(1, 5).Draw(t, "kind"))}
		step.Evidence = &Evidence{
			Complete: rapid.Bool().Draw(t, "complete"), Switched: rapid.Bool().Draw(t, "switched"),
			AskedAt: w.now - int64(rapid.IntRange(0, 5*86400).Draw(t, "asked")), HandedOutAt: w.now - int64(rapid.IntRange(0, 30*86400).Draw(t, "handed out")),
		}
		if step.Kind == StepPublish {
			step.Algorithm = rapid.SampledFrom(w.algorithms).Draw(t, "algorithm")
		} else {
			step.Key = uint32(rapid.IntRange(1, int(w.ring.NextID)).Draw(t, "key"))
		}
		next, err = w.take(step, rapid.Bool().Draw(t, "old selector"))
	case what < 13:
		next, err = w.ring.Revoke(uint32(rapid.IntRange(1, int(w.ring.NextID)).Draw(t, "key")), w.now)
	case what < 14:
		id := uint32(rapid.IntRange(1, int(w.ring.NextID)).Draw(t, "key"))
		if k, ok := w.ring.ByID(id); ok && k.Stage == Active && !w.ring.has(k.Algorithm, Standby) {
			w.unsigned[k.Algorithm] = true // by force: nothing signs until the next is ready
		}
		next, err = w.ring.RevokeAnyway(id, w.now)
	case what < 15:
		next = w.ring.Retire(w.now)
	case what < 18:
		next = w.emergency(t)
	case what < 20:
		w.ring = w.ring.Part(uint32(what), w.ring)
		next, err = w.ring.Renew(rapid.SampledFrom(w.algorithms).Draw(t, "algorithm"), w.now, w.policy)
		if err == nil {
			w.drains(t, next)
		}
	case what < 21:
		if next, err = w.ring.Drill(rapid.SampledFrom(w.algorithms).Draw(t, "algorithm"), 0, w.now); err == nil {
			w.drains(t, next)
		}
	default:
		var material []Material
		for i, a := range w.ring.ReviveNeeds(w.algorithms) {
			material = append(material, w.material(a, i, false))
			w.unsigned[a] = true
		}
		next, err = w.ring.Revive(w.now, w.algorithms, material)
	}
	if err == nil {
		w.ring = next
	}
}

// drains: what no emergency asked for revokes no key before its floor.
func (w *walk) drains(t *rapid.T, next Ring) {
	for _, k := range w.ring.Keys {
		wish := w.ring.Urgent[k.Algorithm]
		if now, ok := next.ByID(k.ID); !ok || now.Stage != Revoked || k.Stage == Revoked || k.SwitchBy != 0 || wish.Serious() {
			continue
		}
		if k.Stage != Draining || w.now < floorAt(&k, w.policy) {
			t.Fatalf("%s, %s since %d, is revoked at %d with no emergency", k.Selector, k.Stage, k.DrainedAt, w.now)
		}
	}
}

// emergency is never refused to a domain that stays, and the key it replaces is
// not revoked before another is active.
func (w *walk) emergency(t *rapid.T) Ring {
	a := rapid.SampledFrom(w.algorithms).Draw(t, "algorithm")
	old := rapid.SampledFrom([]Fate{FateDrain, FateRevoke, FateSwitch}).Draw(t, "fate")
	before, signed := w.ring.Active(a)
	var from uint32
	if signed && rapid.Bool().Draw(t, "from") {
		from = before.ID
	}
	emergency := Ring.Emergency
	if rapid.Bool().Draw(t, "burn") {
		emergency = Ring.Burn
	}
	next, err := emergency(w.ring, a, from, old, w.now)
	if w.ring.RetiredAt != 0 {
		if err == nil {
			t.Fatal("a domain that leaves had an emergency")
		}
		return w.ring
	}
	if err != nil {
		t.Fatalf("an emergency was refused: %v", err)
	}
	after, signs := next.Active(a)
	switch k, _ := next.ByID(before.ID); {
	case !signed:
	case !signs:
		t.Fatal("after an emergency nothing signs")
	case after.ID == before.ID && (next.Urgent[a].Key != before.ID || next.Urgent[a].Old != old || !next.Urgent[a].Serious()):
		t.Fatalf("%s signs on, and what waits is %+v", after.Selector, next.Urgent[a])
	case after.ID != before.ID && (k.Stage == Revoked) != (old == FateRevoke):
		t.Fatalf("%s is %s, but was to %s", k.Selector, k.Stage, old)
	}
	again, err := emergency(next, a, before.ID, old, w.now)
	if signed && (err != nil || !bytes.Equal(again.Append(nil), next.Append(nil))) {
		t.Fatalf("the same emergency twice: %v", err)
	}
	return next
}

func (w *walk) take(step Step, old bool) (Ring, error) {
	var m *Material
	if step.Kind == StepPublish {
		material := w.material(step.Algorithm, 0, old)
		m = &material
	}
	if step.Evidence == nil {
		step.Evidence = &Evidence{Complete: true, Switched: true}
	}
	return w.ring.Take(step, w.now, w.policy, m)
}

func (w *walk) check(t *rapid.T) {
	r := w.ring
	if err := r.check(); err != nil {
		t.Fatal(err)
	}
	encoded := r.Append(nil)
	again, err := DecodeRing(string(encoded), payloads(r))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Append(nil), encoded) {
		t.Fatal("the ring does not encode to the same bytes again")
	}
	w.checkRecords(t)
	for _, p := range r.Plan(w.policy) {
		if k, _ := r.ByID(p.Key); p.Kind == StepActivate && r.Urgent[k.Algorithm].Key != 0 && !r.Urgent[k.Algorithm].Planned && p.Due != k.ReadyAt() {
			t.Fatalf("in an emergency %s is due at %d, but ready at %d", k.Selector, p.Due, k.ReadyAt())
		}
	}
	for _, a := range w.algorithms {
		count := map[Stage]int{}
		for _, k := range r.Keys {
			if k.Algorithm == a {
				count[k.Stage]++
			}
		}
		if count[Active] == 1 {
			w.unsigned[a] = false
		}
		if want := 1; r.RetiredAt == 0 && !w.unsigned[a] && count[Active] != want {
			t.Fatalf("%d active keys of %s", count[Active], a)
		}
		if r.RetiredAt != 0 && count[Active]+count[Standby] > 0 {
			t.Fatalf("a domain that leaves has %v", count)
		}
		if total := count[Standby] + count[Active] + count[Draining] + count[Revoked]; r.Mode == Slots && total > slotCount || total > MaxKeys {
			t.Fatalf("%d keys of %s", total, a)
		}
	}
	w.checkSelectors(t)
}

// checkRecords: every key that is not revoked is answered, a revoked one with an
// empty p=, and in slots all slots are.
func (w *walk) checkRecords(t *rapid.T) {
	answers := map[string]Record{}
	for _, record := range w.ring.Records(w.algorithms) {
		if _, twice := answers[record.Selector]; twice {
			t.Fatalf("%s is answered twice", record.Selector)
		}
		answers[record.Selector] = record
	}
	if want := slotCount * len(w.algorithms); w.ring.Mode == Slots && len(answers) != want {
		t.Fatalf("%d slots answer, want %d", len(answers), want)
	}
	for _, k := range w.ring.Keys {
		record, ok := answers[k.Selector]
		want := k.Payload
		if k.Stage == Revoked {
			want = RevokedPayload(k.Algorithm)
			if len(k.Sealed) > 0 {
				t.Fatalf("revoked %s keeps its private half", k.Selector)
			}
		}
		if !ok || record.Payload != want || record.Payload == "" {
			t.Fatalf("%s %s is answered with %q, want %q", k.Stage, k.Selector, record.Payload, want)
		}
		if (k.Stage == Draining) != (k.DrainedAt != 0 && k.RevokedAt == 0) || (k.Stage == Revoked) != (k.RevokedAt != 0) {
			t.Fatalf("%s %s drained at %d, revoked at %d", k.Stage, k.Selector, k.DrainedAt, k.RevokedAt)
		}
		if long := k.Stage == Active || k.Stage == Draining; record.Short == long {
			t.Fatalf("%s %s has the wrong TTL", k.Stage, k.Selector)
		}
	}
}

// checkSelectors: a minted selector that has left never comes back, and a slot is
// refilled only when no cache holds what it answered.
func (w *walk) checkSelectors(t *rapid.T) {
	live := map[string]bool{}
	for _, k := range w.ring.Keys {
		if w.ring.Mode == Minted && w.used[k.Selector] && !w.live[k.Selector] {
			t.Fatalf("%s is back", k.Selector)
		}
		if w.ring.Mode == Slots && k.Stage != Revoked && w.ring.Freed[k.Selector] > k.CreatedAt {
			t.Fatalf("%s was refilled at %d, but caches hold it until %d", k.Selector, k.CreatedAt, w.ring.Freed[k.Selector])
		}
		live[k.Selector], w.used[k.Selector] = true, true
	}
	w.live = live
}

// TestScheduleNeverFallsBehind: with any period and drain that Check allows, and
// barriers that clear at once, every key signs for its period and no longer.
func TestScheduleNeverFallsBehind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &walk{policy: DefaultPolicy(), now: someTime, ring: Ring{Mode: Minted, NextID: 1}}
		shortest := 5
		if rapid.Bool().Draw(t, "slots") {
			w.ring.Mode = Slots
			shortest = 22
		}
		w.policy.Period = day * time.Duration(rapid.IntRange(shortest, 200).Draw(t, "period in days"))
		w.policy.Drain = day * time.Duration(rapid.IntRange(7, 21).Draw(t, "drain in days"))
		if err := w.policy.Check(w.ring.Mode == Slots); err != nil {
			t.Fatal(err)
		}
		jitter := int16(rapid.IntRange(0, 1000).Draw(t, "jitter"))
		ring, err := Start(w.ring.Mode, jitter, w.now, []Material{w.material(RSA2048, 0, false)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.ring = ring
		for range 100 {
			before, _ := w.ring.Active(RSA2048)
			step, due, ok := w.ring.Next(w.policy)
			if !ok {
				t.Fatal("nothing is planned")
			}
			w.now = max(w.now, due)
			if w.ring, err = w.take(step, false); err != nil {
				t.Fatal(err)
			}
			if step.Kind != StepActivate {
				continue
			}
			if signed := w.now - before.ActivatedAt; signed != w.ring.period(w.policy) {
				t.Fatalf("a key signed for %d s, want %d", signed, w.ring.period(w.policy))
			}
		}
	})
}
