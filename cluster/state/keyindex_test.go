package state

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"authd/keys"
	"authd/zone"
)

// TestKeyIndexIsASetOfPairs compares it with a map through random changes, among
// hashes so few that claims share them.
func TestKeyIndexIsASetOfPairs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var tables tables
	model := map[string]bool{}
	for range 3_000 {
		h := keyHash{1: byte(random.IntN(2)), 2: byte(random.IntN(2)) << 6, keyHashSize - 1: byte(random.IntN(16))}
		var token Token
		token[0] = byte(random.IntN(12))
		pair := string(h[:]) + token.key()
		before := tables.keys
		was := before.dump()
		tables.keys = before.fork(new(owner))
		if model[pair] {
			tables.keys.drop(h, token)
			delete(model, pair)
		} else {
			tables.keys.add(h, token)
			model[pair] = true
		}
		if before.dump() != was {
			t.Fatal("a change showed in the index before it")
		}
	}
	var want []string
	for pair := range model {
		want = append(want, fmt.Sprintf("%x", pair[:keyHashSize+tokenStart]))
	}
	slices.Sort(want)
	if got := tables.keys.dump(); got != joined(want) {
		t.Errorf("the index holds\n%s\nwant\n%s", got, joined(want))
	}
}

func joined(list []string) (s string) {
	for i, l := range list {
		if i > 0 {
			s += "\n"
		}
		s += l
	}
	return s
}

// TestKeyIndexIsSmall: three keys for each of a million claims take 68 MiB at
// most, 24 octets each; a third of that is measured here, where shards are a third
// as full and so no better.
func TestKeyIndexIsSmall(t *testing.T) {
	const entries = 1_000_000
	random := rand.New(rand.NewPCG(3, 4))
	var x keyIndex
	before := liveBytes()
	for range entries {
		var token Token
		var drawn [8]byte
		binary.BigEndian.PutUint64(drawn[:], random.Uint64())
		h := keyHash(drawn[:])
		binary.BigEndian.PutUint64(token[:], random.Uint64())
		x.add(h, token)
	}
	each := float64(liveBytes()-before) / entries
	t.Logf("%.1f octets a key", each)
	if each > 24 {
		t.Errorf("%.1f octets a key", each)
	}
	runtime.KeepAlive(&x)
}

func liveBytes() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func brought(w *world, claim Token, payload string, change func(*keys.Material)) BringKey {
	w.t.Helper()
	d, ok := w.m.Domain(claim)
	if !ok {
		w.t.Fatalf("no claim %s", claim)
	}
	m := material(0, "", payload)
	m.Imported = true
	if change != nil {
		change(&m)
	}
	place, err := d.Ring().PlaceBrought(m.Algorithm, m.PublicOnly, w.at)
	if err != nil {
		w.t.Fatal(err)
	}
	m.ID = place.ID
	if m.Selector == "" {
		m.Selector = place.Selector
	}
	if m.Selector == "" {
		m.Selector = "brought"
	}
	if m.PublicOnly {
		m.Sealed, m.ID = nil, 0
	}
	return BringKey{claim, m}
}

func TestBroughtKeyBecomesTheStandby(t *testing.T) {
	for _, mode := range []zone.Mode{zone.Delegated, zone.CNAME} {
		w := newWorld(t)
		w.must(claimOf(tok(1), "send.customer.test", mode, "acme"))
		w.later(day)
		w.must(brought(w, tok(1), "MINE", nil))
		ring := w.domain(tok(1)).Ring()
		standby, ok := ring.Standby(keys.RSA2048)
		if !ok || !standby.Imported || standby.Payload != "v=DKIM1; k=rsa; p=MINE" || standby.ReadyAt() != 0 {
			t.Errorf("the standby is %+v", standby)
		}
		if mode == zone.Delegated {
			if old, _ := ring.BySelector("2601-bbbbbb"); old.Stage != keys.Revoked || len(old.Sealed) > 0 {
				t.Errorf("the standby before it is %+v", old)
			}
		} else if standby.Selector != "k2" || len(ring.Keys) != 2 {
			t.Errorf("it is at %s of %d keys", standby.Selector, len(ring.Keys))
		}
		// Nobody may sign with it before every cache has let go of what was there.
		activate := StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: standby.ID}, Manual: true}
		w.refuse(activate, TooEarly, "key")
		w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: standby.ID}})
		w.refuse(activate, TooEarly, "key")
		gap := keys.GapMinted
		if mode == zone.CNAME {
			gap = keys.TTLShort + keys.TTLStretch
		}
		w.later(int64(gap))
		w.must(activate)
		w.checkIndexes()
	}
}

func TestPublicOnlyKeyTakesASlotAndSuspendsTheSchedule(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
	public := func(m *keys.Material) { m.PublicOnly = true }
	w.must(brought(w, tok(1), "THEIRS", public))
	d := w.domain(tok(1))
	k, ok := d.Ring().BySelector("k3")
	if !ok || !k.PublicOnly || k.Stage != keys.Standby {
		t.Fatalf("k3 is %+v", k)
	}
	if tasks := w.m.Due(10, w.at+1000*day); len(tasks) != 1 || tasks[0].Step.Kind != keys.StepConfirm || tasks[0].Step.Key != k.ID {
		t.Errorf("planned: %+v; want its own confirmation alone", tasks)
	}
	w.refuse(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: k.ID}, Manual: true}, Invalid, "key", "elsewhere")
	second := brought(w, tok(1), "MORE", nil)
	second.Material.PublicOnly, second.Material.Sealed, second.Material.ID, second.Material.Selector = true, nil, 0, ""
	w.refuse(second, Invalid, "key", "revoke one first")
	// By hand it rotates: the standby is its own.
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true})
	w.must(RevokeKey{Token: tok(1), Selector: "k3"})
	if len(w.m.Due(10, w.at+1000*day)) < 2 {
		t.Error("the schedule does not go on after it is revoked")
	}
	w.checkIndexes()
}

func TestPublicOnlyKeyOfADelegatedDomainDoesNotStopRotation(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepConfirm, Algorithm: keys.RSA2048, Key: 2}})
	w.must(brought(w, tok(1), "THEIRS", func(m *keys.Material) { m.PublicOnly, m.Selector = true, "elsewhere" }))
	planned := w.domain(tok(1)).Ring().Plan(keys.DefaultPolicy())
	if !slices.ContainsFunc(planned, func(p keys.Planned) bool { return p.Kind == keys.StepActivate && p.Key == 2 }) {
		t.Errorf("planned: %+v", planned)
	}
}

func TestKeyOfAnotherTenantIsRefused(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(claimOf(tok(2), "send.other.test", zone.Delegated, "zeta"))
	generated := w.domain(tok(1)).Ring().Keys[0].Payload[len("v=DKIM1; k=rsa; p="):]
	w.refuse(brought(w, tok(2), generated, nil), Conflict, "keys", tok(1).String())
	w.refuse(brought(w, tok(1), generated, nil), Conflict, "key", "2601-aaaaaa")
	// A public half proves nothing: whoever has the private one may bring it.
	w.must(brought(w, tok(2), "COMMON", func(m *keys.Material) { m.PublicOnly, m.Selector = true, "squat" }))
	w.must(brought(w, tok(1), "COMMON", nil))
	w.checkIndexes()
}

// TestManyClaimsOfOneTenantShareAKey: a platform that moves in may have given all
// its customers the same, and the cost of one more must not grow with them.
func TestManyClaimsOfOneTenantShareAKey(t *testing.T) {
	w := newWorld(t)
	const claims = 2 * maxKeyHolders
	for n := range uint64(claims) {
		c := claimOf(tok(n+1), fmt.Sprintf("send.customer-%d.test", n), zone.Delegated, "acme")
		c.Active[0].Payload, c.Active[0].Imported = "v=DKIM1; k=rsa; p=SHARED", true
		w.must(c)
	}
	w.must(claimOf(tok(1000), "send.other.test", zone.Delegated, "zeta"))
	w.refuse(brought(w, tok(1000), "SHARED", nil), Conflict, "keys")
	if got := len(w.m.tables().holders(hashOfKey("v=DKIM1; k=rsa; p=SHARED"))); got != maxKeyHolders {
		t.Errorf("%d claims are looked at, want %d", got, maxKeyHolders)
	}
	for n := range uint64(claims) {
		w.who.Reason = "gone"
		w.must(LeaveDomain{Token: tok(n + 1), Now: true})
	}
	w.must(brought(w, tok(1000), "SHARED", nil))
	w.checkIndexes()
}
