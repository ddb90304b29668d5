package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/keys"
	"authd/zone"
)

// A step that is refused for what its key is leaves no trace either, also where
// names of the claim are in platform zones, which count their changes.
func TestRefusedStepDoesNotCountAsAChange(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer1.example", zone.CNAME, "acme"))
	c := claimOf(tok(2), "customer2.example", zone.CNAME, "zeta")
	c.Standby = nil
	w.must(c)
	m := material(2, "", "AAAA"+tok(1).String())
	w.refuse(StepKey{Token: tok(2), Step: keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}, Material: &m}, Conflict, "keys", "another tenant's")
	m.Payload = "v=DKIM1; k=rsa; p=\x01"
	w.refuse(StepKey{Token: tok(2), Step: keys.Step{Kind: keys.StepPublish, Algorithm: keys.RSA2048}, Material: &m}, Invalid, "keys", "printable")
}

// What the rotator may do it may do at its second, and not one before.
func TestScheduledStepsAreTakenAtTheirSecond(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer1.example", zone.Delegated, "acme"))
	w.runDue() // the standby is confirmed
	_, due, ok := w.domain(tok(1)).Ring().Next(keys.DefaultPolicy())
	if !ok || due <= w.at {
		t.Fatalf("nothing is planned: %d", due)
	}
	task := Task{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}}
	w.at = due - 1
	w.refuse(w.stepOf(task), TooEarly, "key", "not due")
	w.at = due
	w.must(w.stepOf(task))
}

// A suspended tenant's domain is not rotated by hand; a leaked key is replaced.
func TestSuspendedTenantsDomainIsNotRotatedByHand(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer1.example", zone.Delegated, "acme"))
	w.runDue()
	w.must(SuspendTenant{ID: "acme", Suspended: true})
	step := StepKey{Token: tok(1), Step: keys.Step{Kind: keys.StepActivate, Algorithm: keys.RSA2048, Key: 2}, Manual: true}
	w.refuse(step, Conflict, "domain", "suspended")
	w.must(ReplaceKey{Token: tok(1), Algorithm: keys.RSA2048, Old: keys.FateDrain})
	if active, _ := w.domain(tok(1)).Ring().Active(keys.RSA2048); active.ID != 2 {
		t.Errorf("key %d signs", active.ID)
	}
}

// A domain that leaves is gone at its time, also where its keys have steps that
// would come later; and never before its last signature is past its floor.
func TestLeavingDomainIsGoneInTime(t *testing.T) {
	w := newWorld(t)
	slow := spec()
	slow.Policy.SignerHold, slow.Policy.DrainFloor, slow.Policy.Drain = 7*24*time.Hour, 20*24*time.Hour, 21*24*time.Hour
	w.must(PutPool{ID: "slow", Spec: slow})
	for n, pool := range []string{"default", "slow"} {
		c := claimOf(tok(uint64(n+1)), fmt.Sprintf("send.customer%d.example", n+1), zone.Delegated, "acme")
		c.Pool = pool
		w.must(c)
		w.must(LeaveDomain{Token: c.Token})
	}
	left := w.at
	if first, second := w.domain(tok(1)).GoneAt, w.domain(tok(2)).GoneAt; first != left+leavingFor || second != left+27*day {
		t.Errorf("gone after %d and %d s", first-left, second-left)
	}
	w.at = left + leavingFor - 1
	w.runDue() // its key is revoked, and would be removed a month later
	w.refuse(ExpireDomain{tok(1)}, TooEarly, "domain")
	w.later(1)
	w.runDue()
	if _, ok := w.m.Domain(tok(1)); ok {
		t.Error("it is there after its time")
	}
	w.at = left + 27*day
	w.runDue()
	if _, ok := w.m.Domain(tok(2)); ok {
		t.Error("the second is there after its time")
	}
}

// A tenant that owns a name below may own the name above it, and is held off by
// another tenant's wherever that lies.
func TestOwnershipLooksPastTheTenantsOwnZones(t *testing.T) {
	w := newWorld(t)
	a, z, top := w.claim(1, "a.mail.customer.example", "acme"), w.claim(2, "b.mail.customer.example", "zeta"), w.claim(3, "mail.customer.example", "acme")
	w.prove(a)
	w.prove(z)
	w.refuse(ProveDomain{Token: top, Seen: []Token{top}}, Conflict, "domain", `lies above "b.mail.customer.example"`)
	w.who.Reason = "moved"
	w.must(LeaveDomain{Token: z, Now: true})
	w.prove(top)
}

func TestTenantMayClaimANameOnceAMode(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer1.example", zone.Delegated, "acme"))
	w.must(claimOf(tok(2), "send.customer1.example", zone.CNAME, "acme"))
	w.refuse(claimOf(tok(3), "send.customer1.example", zone.CNAME, "acme"), Conflict, "domain", `claimed by tenant "acme" already`)
	like := tok(1)
	like[len(like)-1] ^= 1
	w.refuse(claimOf(like, "send.customer3.example", zone.Delegated, "zeta"), Conflict, "token", "begins like")
}

func TestClaimsToOneNameAreBounded(t *testing.T) {
	w := newWorld(t)
	var entries []Entry
	for n := range MaxClaims {
		id := fmt.Sprintf("t%d", n)
		entries = append(entries, Entry{At: w.at, Command: AddTenant{ID: id, Name: id}},
			Entry{At: w.at, Command: claimOf(tok(uint64(n+1)), "send.customer1.example", zone.Delegated, id)})
	}
	w.all(entries)
	w.refuse(claimOf(tok(MaxClaims+1), "send.customer1.example", zone.Delegated, "acme"), Conflict, "domain", "at most 256")
}

func TestInvitationIsGoodForItsSecretUntilItEnds(t *testing.T) {
	i := invitation("node-4", 1, start+60)
	if !i.Good([32]byte{1}, start+59) || i.Good([32]byte{1}, start+60) || i.Good([32]byte{2}, start) {
		t.Error("an invitation is good for another secret, or past its end, or not before")
	}
	w := newWorld(t)
	w.must(SetAuthority{Authority{[]byte("certificate"), []byte("sealed")}})
	w.must(InviteNode{invitation("node-4", 1, w.at+60)})
	w.must(InviteNode{invitation("node-4", 2, w.at+60)})
	if all := w.m.Invitations(); len(all) != 1 || all[0].Hash != [32]byte{2} {
		t.Errorf("the invitation before is not void: %+v", all)
	}
	w.must(AdmitNode{"node-4", [32]byte{2}})
	w.later(3600)
	w.must(InviteNode{invitation("node-5", 3, w.at+60)})
	if _, ok := w.m.Invited("node-4"); !ok {
		t.Error("a node that was let in and does not vote yet is forgotten")
	}
}

func TestKeyOfARequestIsOfItsCallerAndOfAllItsParts(t *testing.T) {
	one := MakeOnce("ab", "c", []byte("xy"), []byte("z"))
	for name, other := range map[string]Once{
		"another caller":   MakeOnce("a", "bc", []byte("xy"), []byte("z")),
		"another key":      MakeOnce("ab", "d", []byte("xy"), []byte("z")),
		"the next command": one.At(1), "the one behind it": one.At(2),
	} {
		if other.Key == one.Key {
			t.Errorf("%s has the same key", name)
		}
	}
	if one.At(1).Key == one.At(2).Key || one.At(0) != one {
		t.Error("commands of one request are not told apart")
	}
	if MakeOnce("ab", "c", []byte("x"), []byte("yz")).Request == one.Request {
		t.Error("parts that are cut elsewhere are the same request")
	}
}

func TestTokenKeepsItsScope(t *testing.T) {
	w := newWorld(t)
	access := AccessToken{ID: "t1", Hash: [32]byte{1}, Scope: ScopeRead}
	w.must(AddAccessToken{access})
	if r := w.must(AddAccessToken{access}); r.Changed {
		t.Error("the same token again is a change")
	}
	access.Scope = ScopeAdmin
	w.refuse(AddAccessToken{access}, Conflict, "id", "already")
}

func TestTokensAreBounded(t *testing.T) {
	w := newWorld(t)
	token := func(i uint64) AccessToken {
		a := AccessToken{ID: fmt.Sprintf("t%d", i), Scope: ScopeRead}
		binary.BigEndian.PutUint64(a.Hash[:], i+1)
		return a
	}
	a := w.m.Applier()
	for i := a.w.access.Len(); i < MaxAccessTokens-1; i++ {
		one := token(uint64(i))
		a.w.setAccess(&one)
		a.w.accessHash.Set(string(one.Hash[:]), one.ID)
	}
	w.m, _ = a.Machine()
	w.must(AddAccessToken{token(MaxAccessTokens)})
	w.refuse(AddAccessToken{token(MaxAccessTokens + 1)}, Invalid, "id", "at most 100000")
}

func TestNextCookieSecretIsTakenOnceTheLastCookieIsOld(t *testing.T) {
	w := newWorld(t)
	w.must(SetCookieSecret{secretOf(1)})
	w.later(cookieFloor - 1)
	w.refuse(SetCookieSecret{secretOf(2)}, TooEarly, "secret")
	w.later(1)
	w.must(SetCookieSecret{secretOf(2)})
}

// A restored backup shows no serial again, also where nothing was shown since.
func TestRestoredBackupGoesOnPastEverySerial(t *testing.T) {
	for _, changes := range []int{0, 1, 5} {
		w := newWorld(t)
		delegated := w.claim(1, "send.customer1.example", "acme")
		w.prove(delegated)
		w.must(claimOf(tok(2), "customer2.example", zone.CNAME, "acme"))
		backup := w.m
		for n := range changes {
			w.must(PutDomainRecord{Token: delegated, Set: rrset(fmt.Sprintf("x%d.send.customer1.example", n), zone.TypeA, 300, "192.0.2.1")})
			w.must(PutRecord{Apex: name("p-dns.test"), Set: rrset(fmt.Sprintf("x%d.p-dns.test", n), zone.TypeA, 300, "192.0.2.1")})
		}
		shown, next := w.m.NextEpoch().tables(), backup.Succeed(w.m.NextEpoch())
		is := next.tables()
		d, _ := next.Domain(delegated)
		before, _ := w.m.Domain(delegated)
		if got, was := is.zoneSerial(d), shown.zoneSerial(before); int32(got-was) <= 0 {
			t.Errorf("%d changes: the zone showed %d and shows %d", changes, was, got)
		}
		got, _ := is.platformAt(name("p-dns.test"))
		was, _ := shown.platformAt(name("p-dns.test"))
		if int32(got.Serial-was.Serial) <= 0 {
			t.Errorf("%d changes: the platform zone showed %d and shows %d", changes, was.Serial, got.Serial)
		}
		if next.Epoch() != backup.Epoch()+1 {
			t.Errorf("epoch %d is the backup's, not the cluster's", next.Epoch())
		}
		// And answers with it, as one that reads it from an image does.
		again, err := ReadImage(bytes.NewReader(image(t, next)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := filled(next).Diff(filled(again)); diff != nil {
			t.Errorf("%d changes: it answers otherwise than its image: %v", changes, diff)
		}
		if next.Sum() != again.Sum() || next.Sum() != next.Recount(nil) {
			t.Error("its sum is not that of its image")
		}
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

func TestPlatformZoneThatTakesReportsStays(t *testing.T) {
	w := newWorld(t)
	c := claimOf(tok(1), "customer1.example", zone.CNAME, "acme")
	c.DMARC = "v=DMARC1; p=none; rua=mailto:d@reports.p-dns.example"
	w.must(c)
	w.refuse(DropPlatform{name("p-dns.example")}, Conflict, "zone", "DMARC reports")
	empty := ""
	w.must(PatchDomain{Token: tok(1), DMARC: &empty})
	w.must(DropPlatform{name("p-dns.example")})
}

func TestOctetsOfRecordsAreBounded(t *testing.T) {
	text := func(owner string) zone.RRset {
		var values []string
		for i := range 7 {
			values = append(values, fmt.Sprint(i, strings.Repeat("x", 4000)))
		}
		return rrset(owner, zone.TypeTXT, 300, values...)
	}
	w := newWorld(t)
	delegated := w.claim(1, "send.customer1.example", "acme")
	var sets []zone.RRset
	for n := range MaxDomainOctets / 28_000 {
		sets = append(sets, text(fmt.Sprintf("x%02d.send.customer1.example", n)))
	}
	w.must(SetDomainRecords{Token: delegated, Sets: sets})
	more := text("y.send.customer1.example")
	w.refuse(SetDomainRecords{Token: delegated, Sets: []zone.RRset{more}}, Invalid, "sets", "octets of records in all")
	w.refuse(PutDomainRecord{Token: delegated, Set: more}, Invalid, "values", "octets of records in all")
	w.must(PutDomainRecord{Token: delegated, Set: zone.RRset{Owner: name("x00.send.customer1.example"), Type: zone.TypeTXT}}) // one goes
	w.must(PutDomainRecord{Token: delegated, Set: more})
}

// What is handed to others is an admin's to change, not only to add.
func TestDelegationsAreAnAdminsToChange(t *testing.T) {
	w := newWorld(t)
	d := w.claim(1, "send.customer1.example", "acme")
	cut := func(server string) []zone.RRset {
		return []zone.RRset{rrset("sub.send.customer1.example", zone.TypeNS, 300, server)}
	}
	w.must(SetDomainRecords{Token: d, Sets: cut("ns.example.test."), Admin: true})
	w.refuse(SetDomainRecords{Token: d, Sets: cut("ns.elsewhere.test.")}, Invalid, "sets", "admin scope")
	w.refuse(SetDomainRecords{Token: d, Replace: true}, Invalid, "sets", "admin scope")
	w.must(SetDomainRecords{Token: d, Sets: cut("ns.example.test.")}) // as it is
}

// An emergency that revokes has no way back.
func TestRotationThatRevokedIsNotRolledBack(t *testing.T) {
	w := manyOf(t, 3)
	w.who.Reason = "leaked"
	w.must(start1(RotationSpec{Emergency: true, Old: keys.FateRevoke, Scope: RotationScope{All: true}}))
	w.refuse(ControlRotation{tok(99), RotationRollback}, Conflict, "id", "revoked key never signs again")
}

func TestNamesWithLongLabelsAreNotWellFormed(t *testing.T) {
	for length, want := range map[int]bool{1: true, 63: true, 64: false, 100: false} {
		n := zone.Name(append(append([]byte{byte(length)}, bytes.Repeat([]byte{'a'}, length)...), 0))
		if got := wellFormed(n); got != want {
			t.Errorf("a label of %d: %v", length, got)
		}
	}
}
