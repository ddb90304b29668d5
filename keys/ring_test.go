package keys

import (
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

// Who asks for a key that signs no more has an old signature: that, and nothing
// else, is counted.
func TestOnlyKeysThatSignNoMoreAreWatched(t *testing.T) {
	late := int64(someTime + 10_000)
	r := stepped(t, readyPair(t, Slots), late, Step{Kind: StepActivate, Key: 2})
	watched := func(r Ring) (selectors string) {
		for _, record := range r.Records([]Algorithm{RSA2048}) {
			if record.Watched {
				selectors += record.Selector + " "
			}
		}
		return selectors
	}
	if got := watched(readyPair(t, Slots)); got != "" {
		t.Errorf("an active key, a standby and an empty slot: %sis watched", got)
	}
	if got := watched(r); got != "k1 " {
		t.Errorf("a draining key: %q", got)
	}
	if r, err := r.Revoke(1, late); err != nil || watched(r) != "k1 " {
		t.Errorf("a revoked key: %q, %v", watched(r), err)
	}
}
