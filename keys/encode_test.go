package keys

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestEncodedRingDecodesToTheSameRing(t *testing.T) {
	for _, mode := range []RingMode{Minted, Slots} {
		r := testRing(t, mode)
		encoded := r.Append(nil)
		again, err := DecodeRing(string(encoded), payloads(r))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(r, again) {
			t.Errorf("%s: %+v became %+v", mode, r, again)
		}
	}
}

func TestEncodedRingIsSmall(t *testing.T) {
	for mode, most := range map[RingMode]int{Minted: 88, Slots: 48} {
		r := testRing(t, mode)
		length := len(r.Append(nil))
		for _, k := range r.Keys {
			length -= len(k.Sealed)
		}
		if length > most {
			t.Errorf("%s: four keys take %d octets besides the sealed halves, want at most %d", mode, length, most)
		}
	}
}

func TestEqualRingsEncodeToEqualBytes(t *testing.T) {
	a, b := testRing(t, Minted), testRing(t, Minted)
	b.Freed, b.RolledFrom = map[string]int64{}, map[Algorithm]uint32{}
	if !bytes.Equal(a.Append(nil), b.Append(nil)) {
		t.Error("nil and empty maps encode differently")
	}
	a.Freed = map[string]int64{"a": 1, "b": 2, "c": 3, "d": 4}
	want := a.Append(nil)
	for range 20 {
		if !bytes.Equal(a.Append(nil), want) {
			t.Fatal("the order of a map shows in the bytes")
		}
	}
}

// What no sequence of steps makes is not read: the machine's images hold rings.
func TestRingsThatNoStepsMakeAreNotRead(t *testing.T) {
	p := DefaultPolicy()
	plain := stepped(t, readyPair(t, Minted), someTime+10_000, Step{Kind: StepActivate, Key: 2})
	if _, err := DecodeRing(string(plain.Append(nil)), payloads(plain)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Ring)
		says   string
	}{
		"an ID that is to come":      {func(r *Ring) { r.NextID = 2 }, "next ID"},
		"the same ID twice":          {func(r *Ring) { r.Keys[1].ID = 1 }, "do not rise"},
		"two active keys":            {func(r *Ring) { r.Keys[0].Stage = Active }, "two active"},
		"the same selector twice":    {func(r *Ring) { r.Keys[1].Selector = "s1" }, "same selector"},
		"a deadline of an active":    {func(r *Ring) { r.Keys[1].SwitchBy = someTime }, "deadline"},
		"evidence against an active": {func(r *Ring) { r.Keys[1].HeldUntil = someTime + 20_000 }, "deadline"},
		"a sealed public-only key":   {func(r *Ring) { r.Keys[0].PublicOnly = true }, "public-only"},
		"a wish while leaving": {func(r *Ring) {
			r.Urgent, r.RetiredAt = map[Algorithm]Urgent{RSA2048: {Key: 2, Old: FateDrain}}, someTime
		}, "not active"},
		"a wish for another key": {func(r *Ring) { r.Urgent = map[Algorithm]Urgent{RSA2048: {Key: 1, Old: FateDrain}} }, "not active"},
	} {
		r := plain.clone()
		r.Keys = slices.Clone(r.Keys)
		c.change(&r)
		if _, err := DecodeRing(string(r.Append(nil)), payloads(plain)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", name, err, c.says)
		}
	}
	active, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	active.Freed = map[string]int64{"zzza": 1, "zzzb": 1}
	encoded := string(active.Append(nil))
	const flags, afterCreated = 6, 6 + 4 + 5 // of the only key; see Append
	if encoded[flags] != hasActivated {
		t.Fatalf("%x has no key's flags at %d", encoded, flags)
	}
	for name, c := range map[string]struct{ encoded, says string }{
		"a freed name twice": {strings.Replace(encoded, "zzzb", "zzza", 1), "not in order"},
		"an unknown flag":    {encoded[:flags] + string(binary.AppendUvarint(nil, hasHeldBefore<<1|hasActivated)) + encoded[flags+1:], "flags"},
		"a gap of none":      {encoded[:flags] + string(rune(hasActivated|hasGap)) + encoded[flags+1:afterCreated] + "\x00" + encoded[afterCreated:], "is 0"},
	} {
		if _, err := DecodeRing(c.encoded, payloads(active)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", name, err, c.says)
		}
	}
	// The last IDs and names that a ring has room for.
	last := plain.clone()
	last.NextID = 1<<32 - 1
	m := testMaterial(1<<32-1, RSA2048, "s9")
	if _, err := last.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, someTime+20_000, p, &m); err == nil || !strings.Contains(err.Error(), "used up") {
		t.Errorf("%v", err)
	}
	full := plain.clone()
	for i := range maxFreed - len(full.Keys) {
		full.Freed["f"+big.NewInt(int64(i)).String()] = 1
	}
	m = testMaterial(3, RSA2048, "s9")
	if _, err := full.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, someTime+20_000, p, &m); err == nil || !strings.Contains(err.Error(), "wait a month") {
		t.Errorf("%v", err)
	}
	delete(full.Freed, "f0")
	if _, err := full.Take(Step{Kind: StepPublish, Algorithm: RSA2048}, someTime+20_000, p, &m); err != nil {
		t.Error(err)
	}
}

// TestRingWithAnEmergencyIsReadOnlyInItsOneForm: version 2 where one waits, 1 otherwise.
func TestRingWithAnEmergencyIsReadOnlyInItsOneForm(t *testing.T) {
	r, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1"), testMaterial(2, Ed25519, "s2")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	calm := string(r.Append(nil))
	for _, a := range []Algorithm{Ed25519, RSA2048} {
		if r, err = r.Emergency(a, 0, FateRevoke, someTime); err != nil {
			t.Fatal(err)
		}
	}
	urgent := string(r.Append(nil))
	if calm[0] != ringVersion || urgent[0] != urgentVersion {
		t.Fatalf("versions %d and %d", calm[0], urgent[0])
	}
	again, err := DecodeRing(urgent, payloads(r))
	if err != nil || again.Urgent[RSA2048] != (Urgent{Key: 1, Old: FateRevoke}) || again.Urgent[Ed25519] != (Urgent{Key: 2, Old: FateRevoke}) {
		t.Fatalf("%+v, %v", again.Urgent, err)
	}
	body := urgent[1 : len(urgent)-11] // without slots and the list of two
	for what, c := range map[string]struct{ encoded, says string }{
		"none":               {"\x02" + body + "\x00\x00\x00", "version 1"},
		"three":              {"\x02" + body + "\x00\x00\x03", "3 items"},
		"behind version 1":   {"\x01" + urgent[1:], "too many"},
		"no such fate":       {"\x02" + body + "\x00\x00\x01\x01\x04\x00\x01", "fate 4"},
		"no such flag":       {"\x02" + body + "\x00\x00\x01\x01\x01\x08\x01", "flags"},
		"no such algorithm":  {"\x02" + body + "\x00\x00\x01\x07\x01\x00\x01", "not active"},
		"another key":        {"\x02" + body + "\x00\x00\x01\x01\x01\x00\x02", "not active"},
		"out of order":       {"\x02" + body + "\x00\x00\x02\x02\x01\x00\x02\x01\x01\x00\x01", "order"},
		"twice":              {"\x02" + body + "\x00\x00\x02\x01\x01\x00\x01\x01\x01\x00\x01", "order"},
		"part of a rotation": {"\x02" + body + "\x07\x00\x00\x01", "too many"},
		"slots handed out":   {"\x02" + body + "\x00\x01\x02k1\x02\x00", "has none"},
		"cut short":          {urgent[:len(urgent)-1], "cut short"},
	} {
		if _, err := DecodeRing(c.encoded, payloads(r)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", what, err, c.says)
		}
	}
}
