package keys

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"testing"
	"time"
)

const someTime = 1_800_000_000

func testMaterial(id uint32, a Algorithm, selector string) Material {
	return Material{Algorithm: a, Selector: selector, Sealed: fmt.Appendf(nil, "sealed %d", id), ID: id,
		Payload: fmt.Sprintf("%skey%d", RevokedPayload(a), id)}
}

func testRing(t *testing.T, mode RingMode) Ring {
	t.Helper()
	selectors := [4]string{"2611-aaaaaa", "2611-bbbbbb", "2611-cccccc", "2611-dddddd"}
	if mode == Slots {
		selectors = [4]string{}
	}
	r, err := Start(mode, -7, someTime,
		[]Material{testMaterial(1, RSA2048, selectors[0]), testMaterial(2, Ed25519, selectors[1])},
		[]Material{testMaterial(3, RSA2048, selectors[2]), testMaterial(4, Ed25519, selectors[3])})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// payloads answers as DNS does for a ring.
func payloads(r Ring) func(string) string {
	return func(selector string) string {
		k, _ := r.BySelector(selector)
		return k.Payload
	}
}

func TestStepsLeaveTheOldRingAlone(t *testing.T) {
	for _, mode := range []RingMode{Minted, Slots} {
		r := testRing(t, mode)
		p := DefaultPolicy()
		for range 60 {
			before := r.Append(nil)
			step, due, ok := r.Next(p)
			if !ok {
				t.Fatal("nothing is planned")
			}
			var m *Material
			if step.Kind == StepPublish {
				material := testMaterial(r.NextID, step.Algorithm, "")
				if mode == Minted {
					material.Selector = fmt.Sprintf("s%d", r.NextID)
				}
				m = &material
			}
			step.Evidence = &Evidence{Complete: true}
			next, err := r.Take(step, max(due, someTime), p, m)
			if err != nil {
				t.Fatal(err)
			}
			next.Retire(due + 1)
			if !bytes.Equal(r.Append(nil), before) {
				t.Fatalf("%s changed the ring it was taken on", step.Kind)
			}
			r = next
		}
	}
}

func TestStartRefusesWhatIsNoRing(t *testing.T) {
	good := testMaterial(1, RSA2048, "s1")
	with := func(change func(*Material)) []Material {
		m := good
		change(&m)
		return []Material{m}
	}
	second := testMaterial(2, RSA2048, "s2")
	for name, test := range map[string]struct {
		mode            RingMode
		jitter          int16
		at              int64
		active, standby []Material
		want            string
	}{
		"mode":             {7, 0, someTime, []Material{good}, nil, "ring mode 7 is unknown"},
		"time":             {Minted, 0, 0, []Material{good}, nil, "not after 1970"},
		"jitter":           {Minted, 1001, someTime, []Material{good}, nil, "jitter 1001"},
		"no active":        {Minted, 0, someTime, nil, []Material{good}, "no active key"},
		"two active":       {Minted, 0, someTime, []Material{good, second}, nil, "two active keys of rsa2048"},
		"two standby":      {Minted, 0, someTime, []Material{good}, []Material{second, testMaterial(3, RSA2048, "s3")}, "two standby keys"},
		"same selector":    {Minted, 0, someTime, []Material{good}, []Material{testMaterial(2, RSA2048, "s1")}, `"s1" is in use`},
		"algorithm":        {Minted, 0, someTime, with(func(m *Material) { m.Algorithm = 9 }), nil, "algorithm 9 is unknown"},
		"no selector":      {Minted, 0, someTime, with(func(m *Material) { m.Selector = "" }), nil, "no selector"},
		"bad selector":     {Minted, 0, someTime, with(func(m *Material) { m.Selector = "S1" }), nil, "lower-case"},
		"no payload":       {Minted, 0, someTime, with(func(m *Material) { m.Payload = "" }), nil, "no payload"},
		"revoked payload":  {Minted, 0, someTime, with(func(m *Material) { m.Payload = RevokedPayload(RSA2048) }), nil, "no payload"},
		"long payload":     {Minted, 0, someTime, with(func(m *Material) { m.Payload = strings.Repeat("a", 2049) }), nil, "at most 2048"},
		"nothing sealed":   {Minted, 0, someTime, with(func(m *Material) { m.Sealed = nil }), nil, "no sealed private half"},
		"too much sealed":  {Minted, 0, someTime, with(func(m *Material) { m.Sealed = make([]byte, 1025) }), nil, "at most 1024"},
		"public and seal":  {Minted, 0, someTime, with(func(m *Material) { m.PublicOnly = true }), nil, "public-only key with a sealed"},
		"sealed for other": {Minted, 0, someTime, with(func(m *Material) { m.ID = 2 }), nil, "sealed for key 2, but the next key is 1"},
		"no such slot":     {Slots, 0, someTime, with(func(m *Material) { m.Selector = "ke1" }), nil, "want k1 to k3"},
		"slot taken": {Slots, 0, someTime, with(func(m *Material) { m.Selector = "k2" }),
			[]Material{testMaterial(2, RSA2048, "k2")}, "slot k2 is not free"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Start(test.mode, test.jitter, test.at, test.active, test.standby)
			if err == nil {
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("refused with %q, want %q", err, test.want)
			}
		})
	}
}

func TestMoveInKeepsTheSlotsThatKeysHave(t *testing.T) {
	r, err := Start(Slots, 0, someTime, []Material{testMaterial(1, RSA2048, "k3")}, []Material{testMaterial(2, RSA2048, "k1")})
	if err != nil {
		t.Fatal(err)
	}
	active, _ := r.Active(RSA2048)
	standby, _ := r.Standby(RSA2048)
	if active.Selector != "k3" || standby.Selector != "k1" {
		t.Errorf("active %s, standby %s", active.Selector, standby.Selector)
	}
	place, err := r.Place(RSA2048, someTime)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Place{ID: 3, Selector: "k2"}); place != want {
		t.Errorf("the next key goes to %+v, want %+v", place, want)
	}
}

func TestMaterialSealedForAnotherPlaceIsRefused(t *testing.T) {
	r, err := Start(Slots, 0, someTime, []Material{testMaterial(1, RSA2048, "")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	publish := Step{Kind: StepPublish, Algorithm: RSA2048}
	for name, m := range map[string]Material{
		"another ID":        testMaterial(3, RSA2048, "k2"),
		"a taken slot":      testMaterial(2, RSA2048, "k1"),
		"another algorithm": testMaterial(2, Ed25519, "ke1"),
	} {
		if _, err := r.Take(publish, someTime, DefaultPolicy(), &m); err == nil {
			t.Errorf("material for %s was taken", name)
		}
	}
	m := testMaterial(2, RSA2048, "k3")
	next, err := r.Take(publish, someTime, DefaultPolicy(), &m)
	if err != nil {
		t.Fatal(err)
	}
	if k, _ := next.Standby(RSA2048); k.Selector != "k3" {
		t.Errorf("sealed for k3, published at %s", k.Selector)
	}
}

func TestPublicOnlyKeyIsNeverReplacedOnSchedule(t *testing.T) {
	public := Material{Algorithm: RSA2048, Selector: "elsewhere", Payload: "v=DKIM1; k=rsa; p=key1", PublicOnly: true, Imported: true}
	r, err := Start(Minted, 0, someTime, []Material{public}, []Material{testMaterial(2, RSA2048, "s2")})
	if err != nil {
		t.Fatal(err)
	}
	p := DefaultPolicy()
	r, err = r.Take(Step{Kind: StepConfirm, Algorithm: RSA2048, Key: 2}, someTime, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if step, due, ok := r.Next(p); ok {
		t.Errorf("%s is planned at %d", step.Kind, due)
	}
	r, err = r.Take(Step{Kind: StepActivate, Algorithm: RSA2048, Key: 2}, someTime, p, nil)
	if err != nil {
		t.Fatalf("a person may move it: %v", err)
	}
	if k, _ := r.ByID(1); k.Stage != Draining || !k.PublicOnly || !k.Imported {
		t.Errorf("%+v", k)
	}
}

func TestRemovedSelectorsStayBurned(t *testing.T) {
	p := DefaultPolicy()
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Unix()
	r, err := Start(Minted, 0, at, []Material{testMaterial(1, RSA2048, "2611-aaaaaa")}, []Material{testMaterial(2, RSA2048, "chosen")})
	if err != nil {
		t.Fatal(err)
	}
	for r.has(RSA2048, Standby) {
		k, _ := r.Standby(RSA2048)
		if r, err = r.Revoke(k.ID, at); err != nil {
			t.Fatal(err)
		}
		if r, err = r.Take(Step{Kind: StepRemove, Algorithm: RSA2048, Key: k.ID}, at+int64(p.RevokedFor/time.Second), p, nil); err != nil {
			t.Fatal(err)
		}
		if k.Selector == "2611-bbbbbb" {
			break
		}
		m := testMaterial(r.NextID, RSA2048, "2611-bbbbbb")
		if r, err = r.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, at, p, &m); err != nil {
			t.Fatal(err)
		}
	}
	year := at + 365*86400
	for selector, want := range map[string]string{
		"chosen":      "used before",
		"2611-bbbbbb": "used before",
		"2611-cccccc": "month long past", // nothing tells it from one that was forgotten
	} {
		m := testMaterial(r.NextID, RSA2048, selector)
		_, err := r.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, year, p, &m)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", selector, err, want)
		}
	}
}

func TestBurnedSelectorsAreForgottenOnceTheirMonthIsPast(t *testing.T) {
	p := DefaultPolicy()
	random := rand.New(rand.NewSource(1))
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	first, err := MintSelector(random, at)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Start(Minted, 0, at.Unix(), []Material{testMaterial(1, RSA2048, first)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	most := 0
	for range 400 { // steps: some thirty years of rotations
		step, due, _ := r.Next(p)
		now := max(due, at.Unix())
		var m *Material
		if step.Kind == StepPublish {
			selector, err := MintSelector(random, time.Unix(now, 0))
			if err != nil {
				t.Fatal(err)
			}
			material := testMaterial(r.NextID, RSA2048, selector)
			m = &material
		}
		step.Evidence = &Evidence{Complete: true}
		if r, err = r.Take(step, now, p, m); err != nil {
			t.Fatal(err)
		}
		most = max(most, len(r.Freed))
	}
	if r.NextID < 60 {
		t.Fatalf("only %d keys were made", r.NextID)
	}
	if most > 4 {
		t.Errorf("%d removed selectors are remembered, want at most 4", most)
	}
}

func TestKeysOfOneAlgorithmAreBounded(t *testing.T) {
	p := DefaultPolicy()
	r, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(someTime)
	publish := func() error {
		m := testMaterial(r.NextID, RSA2048, fmt.Sprintf("s%d", r.NextID))
		next, err := r.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, at, p, &m)
		if err == nil {
			r = next
		}
		return err
	}
	for i := 1; i < MaxKeys; i++ {
		if err := publish(); err != nil {
			t.Fatal(err)
		}
		k, _ := r.Standby(RSA2048)
		for _, kind := range []StepKind{StepConfirm, StepActivate} {
			if r, err = r.Take(Step{Kind: kind, Algorithm: RSA2048, Key: k.ID}, at, p, nil); err != nil {
				t.Fatal(err)
			}
			at += GapMinted
		}
	}
	if err := publish(); err == nil {
		t.Errorf("a domain has %d keys of one algorithm", len(r.Keys))
	}
	if step, _, _ := r.Next(p); step.Kind != StepRevoke {
		t.Errorf("%s is planned, want revoke: nothing else makes room", step.Kind)
	}
}

func TestMintedSelectorsCarryTheirMonth(t *testing.T) {
	at := time.Date(2026, 11, 30, 23, 0, 0, 0, time.FixedZone("west", -2*3600)) // December in UTC
	random := rand.New(rand.NewSource(1))
	seen := map[string]bool{}
	for range 1000 {
		selector, err := MintSelector(random, at)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckSelector(selector); err != nil {
			t.Fatal(err)
		}
		if month, ok := mintedMonth(selector); !ok || month != 2026*12+11 {
			t.Fatalf("%q is of month %d, %v", selector, month, ok)
		}
		seen[selector] = true
	}
	if len(seen) < 999 {
		t.Errorf("%d of 1000 selectors differ", len(seen))
	}
	if _, err := MintSelector(strings.NewReader("abc"), at); err == nil {
		t.Error("a random source that ends early gives a selector")
	}
	for _, selector := range []string{"s1", "2613-abcdef", "2600-abcdef", "2611-abcde1", "2611_abcdef", "26x1-abcdef"} {
		if _, ok := mintedMonth(selector); ok {
			t.Errorf("%q passes for minted", selector)
		}
	}
}

func TestJitterSpreadsTokensEvenly(t *testing.T) {
	var buckets [10]int
	for i := range 10000 {
		j := JitterOf(fmt.Appendf(nil, "token %d", i))
		if j < -1000 || j > 1000 {
			t.Fatalf("jitter %d", j)
		}
		if j != JitterOf(fmt.Appendf(nil, "token %d", i)) {
			t.Fatal("jitter is not a function of the token")
		}
		buckets[min(9, (int(j)+1000)/200)]++
	}
	for i, count := range buckets {
		if count < 800 || count > 1200 {
			t.Errorf("tenth %d has %d of 10000 tokens", i, count)
		}
	}
}

func TestDefaultPolicyCanBeKeptInBothModes(t *testing.T) {
	for _, slots := range []bool{false, true} {
		if err := DefaultPolicy().Check(slots); err != nil {
			t.Error(err)
		}
	}
}

func TestPolicyErrorsNameTheField(t *testing.T) {
	for field, change := range map[string]func(*Policy){
		"period":        func(p *Policy) { p.Period = 731 * day },
		"soak":          func(p *Policy) { p.Soak = -1 },
		"rollback":      func(p *Policy) { p.Rollback = 8 * day },
		"signer_hold":   func(p *Policy) { p.SignerHold = 8 * day },
		"drain_floor":   func(p *Policy) { p.DrainFloor = 22 * day },
		"drain":         func(p *Policy) { p.Drain = 22 * day },
		"drain_ceiling": func(p *Policy) { p.DrainCeiling = 61 * day },
		"revoked_for":   func(p *Policy) { p.RevokedFor = day + time.Millisecond },
		"algorithms":    func(p *Policy) { p.Algorithms = nil },
	} {
		p := DefaultPolicy()
		change(&p)
		var refused *PolicyError
		if err := p.Check(false); !errors.As(err, &refused) || refused.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	for _, algorithms := range [][]Algorithm{{RSA2048, RSA2048}, {3}} {
		p := DefaultPolicy()
		p.Algorithms = algorithms
		var refused *PolicyError
		if err := p.Check(false); !errors.As(err, &refused) || refused.Field != "algorithms" {
			t.Errorf("algorithms %v: %v", algorithms, err)
		}
	}
	if err := (Policy{}).Check(false); err == nil {
		t.Error("the zero policy passes")
	}
}

// A selector is remembered through the second month after its own.
func TestSelectorsAreForgottenWhenTheirMonthsAreOver(t *testing.T) {
	for moment, want := range map[string]bool{"2026-11-30": false, "2027-01-31": false, "2027-02-01": true, "2031-01-01": true} {
		at, err := time.Parse(time.DateOnly, moment)
		if err != nil {
			t.Fatal(err)
		}
		if got := forgotten("2611-aaaaaa", at.Unix()); got != want {
			t.Errorf("%s: forgotten %v", moment, got)
		}
	}
	if month, ok := mintedMonth("7001-aaaaaa"); !ok || month != 2070*12 {
		t.Errorf("a selector of January 2070 is of month %d, %v", month, ok)
	}
}

// Of what a domain that comes back is brought, only what it lacks is taken.
func TestRevivalIgnoresMaterialBeyondItsNeeds(t *testing.T) {
	r := testRing(t, Minted).Retire(someTime + 100)
	back, err := r.Revive(someTime+200, []Algorithm{RSA2048, Ed25519}, []Material{testMaterial(5, RSA2048, "2611-eeeeee")})
	if err != nil || len(back.Keys) != len(r.Keys) {
		t.Errorf("%d keys became %d: %v", len(r.Keys), len(back.Keys), err)
	}
	if needs := back.ReviveNeeds([]Algorithm{RSA2048, Ed25519}); len(needs) > 0 {
		t.Errorf("a ring that signs needs %v", needs)
	}
}
