package state

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"authd/zone"
)

// entries are the changes that a machine remembers.
func entriesOf(m Machine) []*AuditEntry { return slices.Collect(m.Audit(0)) }

func TestEveryChangeIsInTheAudit(t *testing.T) {
	w := newWorld(t)
	w.who = Entry{Actor: "a1", Source: "192.0.2.9", Reason: "new customer"}
	before, _ := w.m.AuditHead()
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	got := slices.Collect(w.m.Audit(before))
	if len(got) != 1 {
		t.Fatalf("%d entries for one change", len(got))
	}
	e := got[0]
	want := AuditEntry{
		Seq: before + 1, Index: w.index, At: e.At, Actor: "a1", Source: "192.0.2.9", Reason: "new customer", Command: "AddDomain",
		Kind: "domain", Subject: tok(1).String(), Name: "send.customer.test", Tenant: "acme", Summary: "delegated, pool default, 2 keys", Hash: e.Hash,
	}
	if *e != want || e.At.Unix() != w.at {
		t.Errorf("got\n%+v\nwant\n%+v", *e, want)
	}
}

func TestRefusalsAndWhatWasSoAlreadyAreNotInTheAudit(t *testing.T) {
	w := newWorld(t)
	before, _ := w.m.AuditHead()
	w.refuse(DropPool{ID: "nobody"}, NotFound, "pool")
	w.must(AddTenant{ID: "acme", Name: "Acme"})
	if after, _ := w.m.AuditHead(); after != before {
		t.Errorf("%d entries for nothing", after-before)
	}
}

func TestAuditNamesTheKeyOfAStep(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	w.must(RevokeKey{Token: tok(1), Selector: "k2"})
	all := slices.Collect(w.m.AuditOf("domain", tok(1).String()))
	last := all[len(all)-1]
	if len(all) != 2 || last.Key != "k2" || last.Command != "RevokeKey" || last.Name != "customer.test" {
		t.Errorf("%d entries, the last is %+v", len(all), last)
	}
	w.later(10 * day)
	w.runDue()
	steps := map[string]bool{}
	for e := range w.m.AuditOf("domain", tok(1).String()) {
		if e.Command == "StepKey" {
			steps[e.Summary] = true
			if e.Key == "" {
				t.Errorf("no key in %+v", e)
			}
		}
	}
	if len(steps) == 0 {
		t.Error("no step was recorded")
	}
}

func TestClaimThatEndsIsNamedInTheAudit(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	w.who.Reason = "fraud"
	w.must(LeaveDomain{Token: tok(1), Now: true})
	last := entriesOf(w.m)[len(entriesOf(w.m))-1]
	if last.Name != "customer.test" || last.Tenant != "acme" || last.Reason != "fraud" || last.Summary != "ended at once" {
		t.Errorf("%+v", last)
	}
}

// Whose a change is says which tenant reads of it, also where what it was about is gone.
func TestChangesOfATenantsTokensAreTheTenants(t *testing.T) {
	for scope, tenant := range map[Scope]string{"tenant:acme": "acme", ScopeSigner: ""} {
		w := newWorld(t)
		w.must(AddAccessToken{AccessToken{ID: "t1", Hash: [32]byte{1}, Scope: scope}})
		w.must(DropAccessToken{"t1"})
		told := slices.Collect(w.m.AuditOf("token", "t1"))
		if len(told) != 2 || told[0].Tenant != tenant || told[1].Tenant != tenant {
			t.Errorf("%s: %+v", scope, told)
		}
	}
}

func TestChainIsBrokenByEveryAlteredField(t *testing.T) {
	w := newWorld(t)
	w.who.Reason, w.who.Source = "why", "192.0.2.1"
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.must(RevokeKey{Token: tok(1), Selector: "2601-bbbbbb"})
	var before AuditHash
	tried := 0
	for e := range w.m.Audit(0) {
		good := e.Next(before)
		if good.String() != e.Hash {
			t.Fatalf("entry %d does not follow from the one before it", e.Seq)
		}
		plain, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		// Every octet of the line, but for those whose change is no JSON or no entry.
		for i := range plain {
			altered := bytes.Clone(plain)
			altered[i] ^= 1
			var other AuditEntry
			if json.Unmarshal(altered, &other) != nil {
				continue
			}
			if again, err := json.Marshal(other); err != nil || !bytes.Equal(again, altered) {
				continue // not a line that authd would have written
			}
			if tried++; other.Next(before).String() == other.Hash {
				t.Fatalf("octet %d of %s can be altered", i, plain)
			}
		}
		var other AuditEntry
		if err := json.Unmarshal(plain, &other); err != nil || other.Next(before) != good {
			t.Fatalf("%s does not come back from JSON: %v", plain, err)
		}
		before = good
	}
	if _, head := w.m.AuditHead(); head != before {
		t.Error("the chain does not end at the head")
	}
	if tried < 200 {
		t.Errorf("only %d alterations were tried", tried)
	}
}

func TestAuditHoldsNoSecrets(t *testing.T) {
	w := newWorld(t)
	for _, c := range examples() {
		w.do(c)
	}
	for _, c := range variety() {
		w.do(c)
	}
	w.later(day)
	w.must(SetCookieSecret{secretOf(7)})
	for e := range w.m.Audit(0) {
		text := e.canonical()
		for _, secret := range []string{"sealed half", "AAAA", "BBBB", strings.Repeat("\x07", 4), string(make([]byte, 8))} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in %q", secret, text)
			}
		}
		if len(text) > 400 {
			t.Errorf("an entry of %d octets: %s", len(text), text)
		}
	}
}

func TestAuditWindowIsBounded(t *testing.T) {
	w := newWorld(t)
	m, index := w.m, w.index
	was, _ := m.AuditHead()
	const extra = 500
	for n := 0; n < MaxAudit+extra; {
		entries := make([]Entry, MaxBatch)
		for i := range entries {
			entries[i] = Entry{At: start, Actor: "a", Command: SuspendTenant{ID: "acme", Suspended: n%2 == 0}}
			n++
		}
		index++
		m, _, _ = m.Apply(index, entries)
	}
	head, _ := m.AuditHead()
	base, hash := m.AuditBase()
	if head-base != MaxAudit || base < was+extra {
		t.Errorf("%d entries are kept, from %d on", head-base, base)
	}
	first := true
	for e := range m.Audit(base) {
		if first && (e.Seq != base+1 || e.Next(hash).String() != e.Hash) {
			t.Error("the window does not follow from its base")
		}
		first = false
	}
	read, err := ReadImage(bytes.NewReader(image(t, m)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(image(t, read), image(t, m)) {
		t.Error("the image does not come back")
	}
}

func TestAuditWindowIsBoundedInOctets(t *testing.T) {
	var a audit
	long := strings.Repeat("x", 1<<20)
	for range 3 * maxAuditOctets >> 20 {
		a.push(long)
	}
	if a.octets > maxAuditOctets || a.entries.Len() < maxAuditOctets>>20-1 {
		t.Errorf("%d octets in %d entries", a.octets, a.entries.Len())
	}
}

func TestForgedChangeInAnImageIsRefused(t *testing.T) {
	w := newWorld(t)
	w.who.Reason = "the true reason"
	w.must(SuspendTenant{ID: "acme", Suspended: true})
	var a audit
	forged := w.m.tables().fork()
	for _, e := range entriesOf(w.m) {
		e.Reason = strings.Replace(e.Reason, "true", "fine", 1)
		a.push(e.canonical())
	}
	forged.audit.entries = a.entries
	if _, err := ReadImage(bytes.NewReader(image(t, Machine{t: forged}))); err == nil || !strings.Contains(err.Error(), "chain") {
		t.Errorf("read with %v", err)
	}
}

func TestTextsThatAreNoJSONBecomeOnesThatAre(t *testing.T) {
	w := newWorld(t)
	w.who.Reason = "caf\xe9 \x00 \u2028 <&>"
	w.must(SuspendTenant{ID: "acme", Suspended: true})
	all := entriesOf(w.m)
	e := all[len(all)-1]
	line, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var back AuditEntry
	if err := json.Unmarshal(line, &back); err != nil || back != *e {
		t.Errorf("%s comes back as %+v: %v", line, back, err)
	}
}

func FuzzReadAudit(f *testing.F) {
	w := newWorld(f)
	for _, e := range entriesOf(w.m) {
		f.Add(e.canonical())
	}
	f.Add("1:1,")
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := readAudit(text); err == nil && e.canonical() != text {
			t.Errorf("%q comes back as %q", text, e.canonical())
		}
	})
}

func TestRequestWithAKeyHappensOnce(t *testing.T) {
	w := newWorld(t)
	first, second := claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"), claimOf(tok(2), "send.customer.test", zone.Delegated, "acme")
	w.who.Once = MakeOnce("a1", "key", []byte("POST"), []byte("body"))
	done := w.must(first)
	at := w.index
	w.later(onceFor - 1)
	again := w.must(second)
	if again.Token != tok(1) || again.First != at || !again.Changed || done.First != 0 {
		t.Errorf("first %+v, then %+v", done, again)
	}
	if _, ok := w.m.Domain(tok(2)); ok {
		t.Error("it happened twice")
	}
	// Before asking at all.
	if known, ok := w.m.Once(w.who.Once); !ok || known.Token != tok(1) {
		t.Errorf("known as %+v, %t", known, ok)
	}
	w.who.Once = MakeOnce("a1", "key", []byte("POST"), []byte("another body"))
	w.refuse(second, Invalid, OnceField, "new key")
	w.who.Once = MakeOnce("a2", "key", []byte("POST"), []byte("body"))
	w.refuse(second, Conflict, "domain") // another caller's key
}

func TestRefusedRequestIsDecidedAnew(t *testing.T) {
	w := newWorld(t)
	w.who.Once = MakeOnce("a1", "key", []byte("x"))
	w.refuse(DropPool{ID: "nobody"}, NotFound, "pool")
	w.must(PutPool{ID: "nobody", Spec: spec()})
}

func TestKeyIsForgottenAfterAnHour(t *testing.T) {
	w := newWorld(t)
	w.who.Once = MakeOnce("a1", "key", []byte("x"))
	w.must(SuspendTenant{ID: "acme", Suspended: true})
	w.later(onceFor)
	if _, ok := w.m.Once(w.who.Once); ok && w.m.Time() >= w.at {
		t.Error("it is known still")
	}
	if r := w.must(SuspendTenant{ID: "acme", Suspended: false}); r.First != 0 || !r.Changed {
		t.Errorf("%+v", r)
	}
	if n := w.m.tables().results.order.Len(); n != 1 || w.m.tables().results.byKey.Len() != 1 {
		t.Errorf("%d results are kept", n)
	}
}

func TestResultsAreBoundedAndExpire(t *testing.T) {
	m, index := newWorld(t).m, uint64(100)
	apply := func(at int64, n, from int) {
		for n > 0 {
			entries := make([]Entry, min(n, MaxBatch))
			for i := range entries {
				entries[i] = Entry{At: at, Once: MakeOnce("a", fmt.Sprint(from)), Command: SuspendTenant{ID: "acme", Suspended: from%2 == 0}}
				from++
			}
			index++
			m, _, _ = m.Apply(index, entries)
			n -= len(entries)
		}
	}
	apply(start, maxOnce+10, 0)
	if n := m.tables().results.order.Len(); n != maxOnce || m.tables().results.byKey.Len() != n {
		t.Errorf("%d results are kept", n)
	}
	apply(start+onceFor, maxOnce/(onceDrop-1)+1, maxOnce+10)
	if n := m.tables().results.order.Len(); n > maxOnce/(onceDrop-1)+onceDrop {
		t.Errorf("%d results are kept an hour later", n)
	}
	read, err := ReadImage(bytes.NewReader(image(t, m)))
	if err != nil || !bytes.Equal(image(t, read), image(t, m)) {
		t.Errorf("the image does not come back: %v", err)
	}
}

func BenchmarkApplyWithAudit(b *testing.B) {
	m, index := newWorld(b).m, uint64(100)
	for n := 0; b.Loop(); n++ {
		index++
		m, _, _ = m.Apply(index, []Entry{{At: start, Actor: "a", Command: SuspendTenant{ID: "acme", Suspended: n%2 == 0}}})
	}
}

// The changes of one claim are those, and not the ones that merely name it.
func TestChangesOfASubjectAreItsOwn(t *testing.T) {
	w := newWorld(t)
	w.claim(1, "send.customer1.example", "acme")
	w.who.Reason = "as for " + tok(1).String()
	w.claim(2, "send.customer2.example", "acme")
	found := slices.Collect(w.m.AuditOf("domain", tok(1).String()))
	if len(found) != 1 || found[0].Name != "send.customer1.example" {
		t.Errorf("%d changes: %+v", len(found), found)
	}
}
