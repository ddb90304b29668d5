package state

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"authd/keys"
	"authd/zone"
)

// manyOf has n live domains of acme, whose standbys are confirmed, in both modes.
func manyOf(t testing.TB, n int) *world {
	t.Helper()
	w := newWorld(t)
	var entries []Entry
	add := func(c Command) { entries = append(entries, Entry{At: w.at, Actor: "admin-1", Command: c}) }
	for i := range n {
		token, mode := tok(uint64(i+1)), zone.Delegated
		if i%2 == 1 {
			mode = zone.CNAME
		}
		add(claimOf(token, fmt.Sprintf("c%d.customer.test", i), mode, "acme"))
		add(ProveDomain{Token: token, Attested: true})
		add(StepKey{Token: token, Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
	}
	w.all(entries)
	return w
}

// all applies many commands at once.
func (w *world) all(entries []Entry) {
	w.t.Helper()
	w.index++
	next, results, _ := w.m.Apply(w.index, entries)
	for i, r := range results {
		if _, cname := entries[i].Command.(ProveDomain); r.Refusal != nil && !cname {
			w.t.Fatalf("%T refused: %s", entries[i].Command, r.Refusal.Message)
		}
	}
	w.m = next
}

// dueAll takes the steps that are due for many domains.
func (w *world) dueAll() {
	w.t.Helper()
	var entries []Entry
	for _, task := range w.m.Due(10_000, w.at) {
		entries = append(entries, Entry{At: w.at, Actor: "rotator", Command: w.stepOf(task)})
	}
	if len(entries) > 0 {
		w.all(entries)
	}
}

func (w *world) rotation() *Rotation {
	w.t.Helper()
	r, ok := w.m.Rotation(tok(99))
	if !ok {
		w.t.Fatal("no rotation")
	}
	return r
}

// advance does what the leader does, until nothing is due.
func (w *world) advance() *Rotation {
	w.t.Helper()
	for range 10_000 {
		due := w.m.RotationsDue(w.at)
		if len(due) == 0 {
			return w.rotation()
		}
		w.must(AdvanceRotation{due[0]})
	}
	w.t.Fatal("it never ends")
	return nil
}

// refill publishes and confirms what domains lack.
func (w *world) refill() {
	w.t.Helper()
	for range 3 {
		w.dueAll()
	}
}

func start1(spec RotationSpec) StartRotation {
	if spec.Old == 0 {
		spec.Old = keys.FateDrain
	}
	return StartRotation{ID: tok(99), RotationSpec: spec}
}

func TestEmergencyOfAFleetSwitchesEveryDomainInEntriesOfBoundedWork(t *testing.T) {
	const n = 2*rotateShare + 10
	w := manyOf(t, n)
	w.must(start1(RotationSpec{Scope: RotationScope{Tenant: "acme"}, Emergency: true, Old: keys.FateRevoke, Total: n}))
	entries := 0
	for len(w.m.RotationsDue(w.at)) > 0 {
		before := w.rotation().Begun
		w.must(AdvanceRotation{tok(99)})
		if did := w.rotation().Begun - before; did > rotateShare {
			t.Fatalf("one entry rotated %d domains", did)
		}
		entries++
	}
	r := w.rotation()
	if r.State != RotationDone || r.Switched != n || r.Begun != n || r.Refilling != n || entries != 3 {
		t.Fatalf("%d entries, %+v", entries, r)
	}
	for d := range w.m.Domains(Token{}) {
		if w.stageOf(d.Token, 1) != keys.Revoked || w.stageOf(d.Token, 2) != keys.Active || w.m.RotationOutcome(r, d) != OutcomeSwitched {
			t.Fatalf("%s: %s and %s, %s", d.Name.Host(), w.stageOf(d.Token, 1), w.stageOf(d.Token, 2), w.m.RotationOutcome(r, d))
		}
	}
	told := 0
	for e := range w.m.AuditOf("domain", tok(1).String()) {
		if e.Command == "ReplaceKey" && strings.Contains(e.Source, tok(99).String()) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d entries in a domain's own history", told)
	}
	w.later(3 * 3600)
	w.refill()
	if r = w.rotation(); r.Refilled != n || r.Refilling != 0 {
		t.Errorf("refilled %d of %d, %d still lack a standby", r.Refilled, n, r.Refilling)
	}
	w.checkIndexes()
}

// TestTwoAdvancesInOneEntryShareItsBound, however many a leader proposed at once.
func TestTwoAdvancesInOneEntryShareItsBound(t *testing.T) {
	w := manyOf(t, rotateShare+5)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Total: rotateShare + 5}))
	one := Entry{At: w.at, Actor: "rotator", Command: AdvanceRotation{tok(99)}}
	m, _, _ := w.m.Apply(w.index+1, []Entry{one, one})
	if r, _ := m.Rotation(tok(99)); r.Begun != rotateShare {
		t.Errorf("one log entry rotated %d domains", r.Begun)
	}
}

// publishing is a claim's step of publication that is due.
func (w *world) publishing(t Token) Task {
	w.t.Helper()
	for _, task := range w.m.Due(10_000, w.at) {
		if task.Token == t && task.Step.Kind == keys.StepPublish {
			return task
		}
	}
	w.t.Fatalf("claim %s publishes nothing", t)
	return Task{}
}

func TestPlainRotationWaitsForTheSoakAndLeavesSuspendedTenantsAlone(t *testing.T) {
	w := manyOf(t, 4)
	w.must(claimOf(tok(50), "suspended.test", zone.CNAME, "zeta"))
	w.must(SuspendTenant{"zeta", true})
	w.must(LeaveDomain{Token: tok(2)})
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Total: 5}))
	r := w.advance()
	if r.Waiting != 3 || r.Skipped != 2 || r.Switched != 0 {
		t.Fatalf("%+v", r)
	}
	w.later(day + 1)
	w.dueAll()
	if r = w.rotation(); r.State != RotationDone || r.Switched != 3 {
		t.Errorf("%+v", r)
	}
	if d, _ := w.m.Domain(tok(50)); w.m.RotationOutcome(r, d) != OutcomeSkipped {
		t.Errorf("suspended: %s", w.m.RotationOutcome(r, d))
	}
}

func TestCanaryStagesHoldAndGoOnByHandOrByThemselves(t *testing.T) {
	for _, hold := range []int64{0, 600} {
		w := manyOf(t, 20)
		w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Drill: true, Old: keys.FateRevoke, Canary: []uint8{1, 10, 100}, Hold: hold, Total: 20}))
		for stage, want := range []uint32{1, 2, 20} {
			r := w.advance()
			if r.Begun != want || int(r.Stage) != stage || (r.State == RotationPaused) != (want < 20) {
				t.Fatalf("hold %d, stage %d: %+v", hold, stage, r)
			}
			if w.later(hold + 1); hold == 0 && want < 20 {
				if w.advance().Begun != want {
					t.Fatal("it went on by itself")
				}
				w.must(ControlRotation{tok(99), RotationResume})
			}
		}
		if r := w.rotation(); r.State != RotationDone || r.Switched != 20 {
			t.Fatalf("%+v", r)
		}
		if w.stageOf(tok(1), 1) != keys.Draining {
			t.Errorf("a drill made the old key %s", w.stageOf(tok(1), 1))
		}
	}
}

func TestRotationIsPausedAbortedAndTakenBack(t *testing.T) {
	w := manyOf(t, 20)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Canary: []uint8{50, 100}, Total: 20}))
	w.must(ControlRotation{tok(99), RotationPause})
	if r := w.advance(); r.Begun != 0 || r.State != RotationPaused {
		t.Fatalf("paused: %+v", r)
	}
	w.must(ControlRotation{tok(99), RotationResume})
	if r := w.advance(); r.Begun != 10 {
		t.Fatalf("%+v", r)
	}
	w.must(ControlRotation{tok(99), RotationAbort})
	w.refuse(ControlRotation{tok(99), RotationResume}, Conflict, "id", "aborted")
	if r := w.advance(); r.Begun != 10 || r.State != RotationAborted {
		t.Fatalf("aborted: %+v", r)
	}
	w.later(3600)
	w.must(ControlRotation{tok(99), RotationRollback})
	r := w.advance()
	if r.State != RotationDone || !r.Back || r.Returned != 10 || r.Kept != 0 {
		t.Fatalf("taken back: %+v", r)
	}
	back, rest := 0, 0
	for d := range w.m.Domains(Token{}) {
		switch w.m.RotationOutcome(r, d) {
		case OutcomeReturned:
			back++
		case OutcomeOutstanding:
			rest++
		}
		if w.stageOf(d.Token, 1) != keys.Active {
			t.Fatalf("%s: the first key is %s", d.Name.Host(), w.stageOf(d.Token, 1))
		}
	}
	if back != 10 || rest != 10 {
		t.Errorf("%d taken back, %d never begun", back, rest)
	}
	w.checkIndexes()
}

func TestRollbackOfAFleetAfterTheWindowKeepsTheNewKeys(t *testing.T) {
	w := manyOf(t, 3)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Total: 3}))
	w.advance()
	w.later(2 * day)
	w.must(ControlRotation{tok(99), RotationRollback})
	if r := w.advance(); r.Kept != 3 || r.Returned != 0 || r.State != RotationDone {
		t.Errorf("%+v", r)
	}
	w.must(LeaveDomain{Token: tok(1)})
	if got := w.outcomeOf(tok(1)); got == OutcomeReplaced {
		t.Errorf("the key of a domain that leaves is %s", got)
	}
}

// outcomeOf is what a rotation came to for one claim.
func (w *world) outcomeOf(t Token) string {
	w.t.Helper()
	return w.m.RotationOutcome(w.rotation(), w.domain(t))
}

// TestRollbackOfAFleetLeavesDomainsThatWereRotatedSince, as what it brought signs no more.
func TestRollbackOfAFleetLeavesDomainsThatWereRotatedSince(t *testing.T) {
	w := manyOf(t, 3)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Total: 3}))
	w.advance()
	w.refill()
	w.later(3 * 3600)
	w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, Old: keys.FateDrain})
	if w.stageOf(tok(1), 3) != keys.Active || w.outcomeOf(tok(1)) != OutcomeSwitched {
		t.Fatalf("the emergency did not switch: %s, %s", w.stageOf(tok(1), 3), w.outcomeOf(tok(1)))
	}
	w.must(ControlRotation{tok(99), RotationRollback})
	if r := w.advance(); r.State != RotationDone || r.Returned != 2 || r.Kept != 1 {
		t.Errorf("%+v", r)
	}
	if w.stageOf(tok(1), 3) != keys.Active || w.outcomeOf(tok(1)) != OutcomeReplaced || w.outcomeOf(tok(2)) != OutcomeReturned {
		t.Errorf("the key of the later emergency is %s; outcomes %s and %s", w.stageOf(tok(1), 3), w.outcomeOf(tok(1)), w.outcomeOf(tok(2)))
	}
	w.checkIndexes()
}

func TestDomainsThatAreAddedLaterAreInNoRotation(t *testing.T) {
	for what, scope := range map[string]RotationScope{"all": {All: true}, "tenant": {Tenant: "acme"}, "pool": {Pool: "default"}} {
		w := manyOf(t, 2)
		w.must(start1(RotationSpec{Scope: scope, Emergency: true, Canary: []uint8{50, 100}, Total: 2}))
		w.advance()
		w.later(60)
		w.prove(w.claim(7, "late.customer.test", "acme"))
		w.must(StepKey{Token: tok(7), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
		w.must(ControlRotation{tok(99), RotationResume})
		if r := w.advance(); r.State != RotationDone || r.Begun != 2 || w.stageOf(tok(7), 1) != keys.Active {
			t.Errorf("%s: the first key of the domain that came later is %s; %+v", what, w.stageOf(tok(7), 1), r)
		}
	}
}

// TestDomainsStayInTheRotationOfThePoolThatTheyLeave, before their turn and after, and those
// that come to the pool meanwhile have no part in it.
func TestDomainsStayInTheRotationOfThePoolThatTheyLeave(t *testing.T) {
	w := manyOf(t, 6)
	w.must(PutPool{ID: "other", Spec: spec()})
	move := func(n uint64, pool string) { w.must(PatchDomain{Token: tok(n), Pool: &pool}) }
	move(6, "other")
	w.later(60)
	w.must(start1(RotationSpec{Scope: RotationScope{Pool: "default"}, Emergency: true, Canary: []uint8{20, 100}, Total: 5}))
	w.advance()
	w.later(60)
	move(6, "default")
	for n := range uint64(4) { // one has had its turn at most
		move(n+1, "other")
	}
	move(4, "default") // and comes back
	again, err := ReadImage(bytes.NewReader(image(t, w.m)))
	if err != nil {
		t.Fatal(err)
	}
	w.m = again
	w.must(ControlRotation{tok(99), RotationResume})
	if r := w.advance(); r.State != RotationDone || r.Switched != 5 || r.Begun != 5 {
		t.Errorf("%+v", r)
	}
	looked := 0
	for d := range w.m.InRotation(w.rotation(), Token{}, &looked) {
		if d.Token == tok(6) || w.outcomeOf(d.Token) != OutcomeSwitched {
			t.Errorf("%s: %s", d.Name.Host(), w.outcomeOf(d.Token))
		}
	}
	if w.stageOf(tok(6), 1) != keys.Active {
		t.Error("a domain that came later was rotated")
	}
	w.must(ControlRotation{tok(99), RotationRollback})
	if r := w.advance(); r.Returned != 5 || r.Kept != 0 {
		t.Errorf("taken back: %+v", r)
	}
	w.checkIndexes()
}

func TestRotationsThatCannotBeAreRefused(t *testing.T) {
	w := manyOf(t, 2)
	all := RotationScope{All: true}
	for says, c := range map[string]struct {
		spec  RotationSpec
		kind  RefusalKind
		field string
	}{
		"0 are given":             {RotationSpec{}, Invalid, "scope"},
		"2 are given":             {RotationSpec{Scope: RotationScope{All: true, Pool: "default"}}, Invalid, "scope"},
		"no tenant":               {RotationSpec{Scope: RotationScope{Tenant: "nobody"}}, NotFound, "scope.tenant"},
		"no pool":                 {RotationSpec{Scope: RotationScope{Pool: "nowhere"}}, NotFound, "scope.pool"},
		"no claim":                {RotationSpec{Scope: RotationScope{Tokens: []Token{tok(77)}}}, NotFound, "scope.domains"},
		"in order":                {RotationSpec{Scope: RotationScope{Tokens: []Token{tok(1), tok(1)}}}, Invalid, "scope.domains"},
		"at most 5000":            {RotationSpec{Scope: RotationScope{Tokens: make([]Token, maxRotationList+1)}}, Invalid, "scope.domains"},
		"emergency alone":         {RotationSpec{Scope: all, Old: keys.FateRevoke}, Invalid, "old"},
		"with an emergency alone": {RotationSpec{Scope: all, Store: true}, Invalid, "compromised"},
		"burns nothing":           {RotationSpec{Scope: all, Store: true, Drill: true}, Invalid, "compromised"},
		"the last of them 100":    {RotationSpec{Scope: all, Canary: []uint8{1, 10}}, Invalid, "canary"},
		"rise to 100":             {RotationSpec{Scope: all, Canary: []uint8{10, 1, 100}}, Invalid, "canary"},
		"want 0 to":               {RotationSpec{Scope: all, Hold: -1}, Invalid, "hold"},
	} {
		w.refuse(start1(c.spec), c.kind, c.field, says)
	}
	w.refuse(ControlRotation{tok(99), RotationPause}, NotFound, "id")
	for i := range maxPlainRotations {
		w.must(StartRotation{tok(uint64(200 + i)), RotationSpec{Scope: all, Old: keys.FateDrain}})
		w.must(ControlRotation{tok(uint64(200 + i)), RotationPause})
	}
	w.refuse(start1(RotationSpec{Scope: all}), Conflict, "scope", "let one end, or abort it")
	w.must(start1(RotationSpec{Scope: all, Emergency: true}))
	w.must(ControlRotation{tok(99), RotationAbort})
	w.must(ControlRotation{tok(99), RotationAbort}) // again
	for i := range 2 * MaxRotations {
		id := tok(uint64(300 + i))
		w.must(StartRotation{id, RotationSpec{Scope: all, Emergency: true, Old: keys.FateDrain}})
		w.must(ControlRotation{id, RotationAbort})
	}
	kept := 0
	for range w.m.Rotations() {
		kept++
	}
	if _, ok := w.m.Rotation(tok(200)); kept != MaxRotations || !ok {
		t.Errorf("%d are kept; one under way among them: %t", kept, ok)
	}
}

// A tenant's token can neither hold all places, so that an emergency of everybody's is
// refused, nor push out the rotations of others.
func TestTenantHoldsNoPlacesOfOthersRotations(t *testing.T) {
	w := manyOf(t, 1)
	for i, scope := range []Scope{"tenant:acme", "tenant:acme", "tenant:zeta"} {
		w.must(AddAccessToken{AccessToken{ID: fmt.Sprint("t", i), Hash: [32]byte{byte(i + 1)}, Scope: scope}})
	}
	all := RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Old: keys.FateDrain}
	own := RotationSpec{Scope: RotationScope{Tenant: "acme"}, Emergency: true, Old: keys.FateDrain, Canary: []uint8{1, 100}}
	w.must(StartRotation{tok(200), all})
	w.must(ControlRotation{tok(200), RotationAbort})
	for i := range maxTenantRotations {
		w.who.Actor = fmt.Sprint("t", i%2)
		w.must(StartRotation{tok(uint64(300 + i)), own})
	}
	w.refuse(StartRotation{tok(400), own}, Conflict, "scope", `tenant "acme"`, "at most 4", "abort it")
	w.who.Actor = "t2"
	w.must(StartRotation{tok(401), all})
	w.who.Actor = "t0"
	for i := range 2 * MaxRotations {
		w.must(ControlRotation{tok(uint64(300 + i)), RotationAbort})
		w.must(StartRotation{tok(uint64(300 + i + maxTenantRotations)), own})
	}
	w.who.Actor = "an admin's"
	w.must(StartRotation{tok(402), all})
	for _, id := range []Token{tok(200), tok(401), tok(402)} {
		if _, ok := w.m.Rotation(id); !ok {
			t.Errorf("rotation %s of somebody else is forgotten", id)
		}
	}
	kept := 0
	for range w.m.Rotations() {
		kept++
	}
	if kept != 3+maxTenantRotations {
		t.Errorf("%d rotations are kept", kept)
	}
}

// TestRotationSumsUntilWhenOldKeysAreExposed says the latest time that any domain
// alone would have been told.
func TestRotationSumsUntilWhenOldKeysAreExposed(t *testing.T) {
	policy := spec().Policy
	drains := int64((policy.SignerHold + policy.Drain) / time.Second)
	for fate, after := range map[keys.Fate]int64{keys.FateRevoke: 0, keys.FateSwitch: keys.SwitchTime, keys.FateDrain: drains} {
		w := manyOf(t, 4)
		w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Old: fate, Canary: []uint8{50, 100}, Total: 4}))
		first := w.at
		if r := w.advance(); r.Exposed != first+after+keys.TTLLong {
			t.Errorf("%s: exposed until %d, want %d", fate, r.Exposed, first+after+keys.TTLLong)
		}
		w.later(600)
		w.must(ControlRotation{tok(99), RotationResume})
		w.advance()
		latest := int64(0)
		for d := range w.m.Domains(Token{}) {
			latest = max(latest, d.Ring().ExposedUntil(1, policy))
		}
		if r := w.rotation(); r.Exposed != w.at+after+keys.TTLLong || r.Exposed != latest {
			t.Errorf("%s: exposed until %d, the latest domain until %d", fate, r.Exposed, latest)
		}
	}
}

func TestKeyThatIsPutOffExposesItsRotationForLonger(t *testing.T) {
	for what, scope := range map[string]RotationScope{"all": {All: true}, "tenant": {Tenant: "acme"}, "list": {Tokens: []Token{tok(1)}}} {
		w := manyOf(t, 2)
		w.must(start1(RotationSpec{Scope: scope, Emergency: true, Old: keys.FateDrain, Total: 2}))
		planned := w.advance().Exposed
		w.later(planned - keys.TTLLong - w.at)
		w.must(StepKey{Token: tok(1), Step: keys.Step{
			Kind: keys.StepRevoke, Algorithm: keys.RSA2048, Key: 1, Evidence: &keys.Evidence{Complete: true, AskedAt: w.at - 60},
		}})
		k, _ := w.domain(tok(1)).Ring().ByID(1)
		if r := w.rotation(); k.HeldUntil <= w.at || r.Exposed != k.HeldUntil+keys.TTLLong {
			t.Errorf("%s: held until %d, exposed until %d, planned %d", what, k.HeldUntil, r.Exposed, planned)
		}
	}
}

func TestRotationCountsOlderKeysRevokedForTheirSlots(t *testing.T) {
	w := manyOf(t, 4) // two in slots
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Old: keys.FateDrain, Total: 4}))
	w.advance()
	w.later(3 * 3600)
	w.refill()
	w.later(3 * 3600)
	w.refill()
	second := StartRotation{tok(98), RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Old: keys.FateDrain, Total: 4}}
	w.must(second)
	w.must(AdvanceRotation{tok(98)})
	r, _ := w.m.Rotation(tok(98))
	if w.rotation().ForSlot != 0 || r.ForSlot != 2 || w.stageOf(tok(2), 1) != keys.Revoked || w.stageOf(tok(1), 1) != keys.Draining {
		t.Errorf("%d older keys revoked, first rotation %d; %s and %s", r.ForSlot, w.rotation().ForSlot, w.stageOf(tok(2), 1), w.stageOf(tok(1), 1))
	}
}

func BenchmarkRotationApply(b *testing.B) {
	w := manyOf(b, rotateShare)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Old: keys.FateRevoke, Total: rotateShare}))
	one := []Entry{{At: w.at, Actor: "rotator", Command: AdvanceRotation{tok(99)}}}
	b.ReportAllocs()
	for b.Loop() {
		w.m.Apply(w.index+1, one)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/rotateShare, "µs/domain")
}

// A stage holds and goes on by itself after a while, unless somebody says to stop.
func TestPauseEndsTheHoldBetweenStages(t *testing.T) {
	w := manyOf(t, 20)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Canary: []uint8{10, 100}, Hold: 600, Total: 20}))
	if r := w.advance(); r.Begun != 2 || r.HeldAt == 0 {
		t.Fatalf("%+v", r)
	}
	w.must(ControlRotation{tok(99), RotationPause})
	w.later(day)
	if r := w.advance(); r.Begun != 2 || r.State != RotationPaused {
		t.Fatalf("paused: %+v", r)
	}
	w.must(ControlRotation{tok(99), RotationResume})
	if r := w.advance(); r.Begun != 20 || r.State != RotationDone {
		t.Errorf("resumed: %+v", r)
	}
}

// TestWayBackThatWasAbortedGoesOn when it is asked for again.
func TestWayBackThatWasAbortedGoesOn(t *testing.T) {
	w := manyOf(t, 3)
	w.must(start1(RotationSpec{Scope: RotationScope{All: true}, Emergency: true, Total: 3}))
	w.advance()
	w.must(ControlRotation{tok(99), RotationRollback})
	w.must(ControlRotation{tok(99), RotationAbort})
	if r := w.advance(); r.State != RotationAborted || r.Returned != 0 {
		t.Fatalf("%+v", r)
	}
	w.must(ControlRotation{tok(99), RotationRollback})
	if r := w.advance(); r.State != RotationDone || r.Returned != 3 {
		t.Errorf("%+v", r)
	}
}

// An emergency that revokes has no way back.
func TestRotationThatRevokedIsNotRolledBack(t *testing.T) {
	w := manyOf(t, 3)
	w.who.Reason = "leaked"
	w.must(start1(RotationSpec{Emergency: true, Old: keys.FateRevoke, Scope: RotationScope{All: true}}))
	w.refuse(ControlRotation{tok(99), RotationRollback}, Conflict, "id", "revoked key never signs again")
}
