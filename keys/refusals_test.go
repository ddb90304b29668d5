package keys

import (
	"crypto/rand"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

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

func TestKeyRecordsUpToTheBoundAreRead(t *testing.T) {
	record := generate(t, Ed25519).Payload() + "; n="
	for length, ok := range map[int]bool{maxPayload: true, maxPayload + 1: false} {
		if _, err := parsePayload(record + strings.Repeat("x", length-len(record))); (err == nil) != ok {
			t.Errorf("%d octets: %v", length, err)
		}
	}
}

func TestPublicHalvesAreRefusedWhereTheyAreNotOne(t *testing.T) {
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}))
	for name, c := range map[string]struct{ text, says string }{
		"a private key":   {string(generate(t, Ed25519).PKCS8()), "it is a private key"},
		"two keys":        {public + public, "more text"},
		"too long":        {strings.Repeat("A", maxPEM+1), "octets, at most"},
		"another PEM":     {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "want PUBLIC KEY"},
		"nothing":         {" \n", "empty"},
		"neither of them": {"hello!", "neither"},
	} {
		if _, err := ParsePublic(c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", name, err, c.says)
		}
	}
}

func TestKeysOfManyPrimesAndHugeExponentsAreRefused(t *testing.T) {
	var key pkcs1Key
	block, _ := pem.Decode(fromPrimes(t, big.NewInt(65539), big.NewInt(65543)))
	if err := unmarshalAll(block.Bytes, &key); err != nil {
		t.Fatal(err)
	}
	key.Version = 1
	der, err := asn1.Marshal(struct {
		Version                   int
		N, E, D, P, Q, DP, DQ, QI *big.Int
	}{1, key.N, key.E, key.D, key.P, key.Q, key.DP, key.DQ, key.Coefficient})
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der})
	if _, err := ParsePEM(text); err == nil || !strings.Contains(err.Error(), "more than two primes") {
		t.Errorf("%v", err)
	}
	n := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 2048), big.NewInt(1))
	if err := checkRSAPublic(n, big.NewInt(maxRSAExponent+2)); err == nil || !strings.Contains(err.Error(), "exponent") {
		t.Errorf("%v", err)
	}
}

// A credentials directory speaks for what is in it, and for nothing else.
func TestCredentialsDirectorySpeaksForItsOwnFilesAlone(t *testing.T) {
	path := writeKeeper(t, wrapKeyLine("1", 'a'), 0o440)
	t.Setenv("CREDENTIALS_DIRECTORY", t.TempDir())
	if _, err := OpenKeeper(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file outside that its group may read: %v", err)
	}
}

// A file whose last line an editor left open gets its version on a line of its own.
func TestVersionIsAddedBehindALineWithoutAnEnd(t *testing.T) {
	path := writeKeeper(t, strings.TrimSuffix(wrapKeyLine("7", 'a'), "\n"), 0o600)
	version, err := AddKeeperVersion(path)
	if err != nil || version != 8 {
		t.Fatalf("version %d, %v", version, err)
	}
	keeper, err := OpenKeeper(path)
	if err != nil {
		t.Fatal(err)
	}
	if sealed, err := keeper.Seal(rand.Reader, Binding{"token", "s1", 1}, []byte("half")); err != nil || SealedVersion(sealed) != 8 || !slices.Equal(keeper.Versions(), []uint16{7, 8}) {
		t.Errorf("%v, %v", keeper.Versions(), err)
	}
	if text, err := os.ReadFile(path); err != nil || strings.Count(string(text), "\n") != 2 {
		t.Errorf("%d lines, %v", strings.Count(string(text), "\n"), err)
	}
}
