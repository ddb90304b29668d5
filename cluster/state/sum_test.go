package state

import (
	"bytes"
	"fmt"
	"testing"

	"authd/zone"
)

// Whatever differs between two machines shows in their sums.
func TestSumTellsMachinesApart(t *testing.T) {
	w := newWorld(t)
	w.must(SetSettings{Settings{ClusterID: "test", VerificationOff: true}})
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	other := spec()
	other.SPFAll = "-all"
	seen := map[Sum]string{w.m.Sum(): "the machine"}
	for _, c := range []Command{
		AddTenant{ID: "another", Name: "Another"},
		SuspendTenant{"acme", true},
		atMost("acme", 7),
		LimitTenant{ID: "acme", MaxOctets: new(uint32(7))},
		PutRecord{name("p-dns.test"), rrset("www.p-dns.test", zone.TypeA, 300, "192.0.2.1")},
		PutPool{"another", spec()},
		PutPool{"default", other},
		SetCookieSecret{secretOf(1)},
		AddAccessToken{AccessToken{ID: "a1", Hash: [32]byte{1}, Scope: ScopeAdmin}},
		PutDomainRecord{tok(1), rrset("www.send.customer.test", zone.TypeA, 300, "192.0.2.1"), true},
		LeaveDomain{Token: tok(1), Now: true},
		CheckState{}, // nothing but the index, and that is enough
	} {
		next, results, _ := w.m.Apply(w.m.Index()+1, []Entry{{At: w.m.Time(), Actor: "a", Reason: "a test", Command: c}})
		if results[0].Refusal != nil {
			t.Fatalf("%T: %s", c, results[0].Refusal.Message)
		}
		sum := unaudited(next, w.m).Sum()
		if before, twice := seen[sum]; twice {
			t.Errorf("after %+v the sum is that of %s", c, before)
		}
		seen[sum] = fmt.Sprintf("%T", c)
	}
	noted, _, _ := w.m.Apply(w.m.Index()+1, []Entry{{At: w.m.Time(), Command: Note{"node", "node-2", "added"}}})
	if noted.Sum() == unaudited(noted, w.m).Sum() {
		t.Error("an entry of the audit does not show in the sum")
	}
}

// unaudited is a machine with the audit of another: every change has an entry there,
// which would tell all sums apart.
func unaudited(m, other Machine) Machine {
	t := m.tables().fork()
	t.audit = other.tables().audit
	return Machine{t: t}
}

// Memory that went bad after a claim was stored does not change the sum that is
// kept; counting anew finds it.
func TestRecountFindsMemoryThatWentBad(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.CNAME, "acme"))
	if w.m.Recount(nil) != w.m.Sum() {
		t.Fatal("nothing is wrong yet")
	}
	bad := w.m.tables().fork()
	r, _ := bad.domains.Get(tok(1).key())
	flipped := []byte(r.branch)
	flipped[len(flipped)/2] ^= 1
	bad.domains.Set(tok(1).key(), record{r.meta, zone.Branch(flipped)})
	m := Machine{t: bad}
	if m.Sum() != w.m.Sum() || m.Recount(nil) == m.Sum() {
		t.Errorf("kept %x and %x, counted %x", w.m.Sum(), m.Sum(), m.Recount(nil))
	}
}

func TestSumSurvivesTheImage(t *testing.T) {
	f := newFleet(t, 300)
	back, err := ReadImage(bytes.NewReader(image(t, f.m)))
	if err != nil {
		t.Fatal(err)
	}
	if back.Sum() != f.m.Sum() || back.Recount(nil) != back.Sum() {
		t.Errorf("%x before, %x and %x after", f.m.Sum(), back.Sum(), back.Recount(nil))
	}
}

// BenchmarkSum: the same in any fleet, against Recount, which reads all of it.
func BenchmarkSum(b *testing.B) {
	f := newFleet(b, 10_000)
	b.Run("kept", func(b *testing.B) {
		for b.Loop() {
			f.m.Sum()
		}
	})
	b.Run("counted", func(b *testing.B) {
		for b.Loop() {
			f.m.Recount(nil)
		}
	})
}
