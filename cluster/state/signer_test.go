package state

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"authd/zone"
)

func (w *world) signer(domain string) Token { return w.signerOf(domain, "") }

func (w *world) signerOf(domain, tenant string) Token {
	w.t.Helper()
	d, ok := w.m.SignerFor(name(domain), tenant)
	if !ok {
		return Token{}
	}
	return d.Token
}

// aliased notes that the customer's CNAMEs lead to a claim, and no longer to others.
func (w *world) aliased(t Token, gone ...Token) Result {
	w.t.Helper()
	w.later(1)
	return w.must(ProveDomain{Token: t, Seen: []Token{t}, Gone: gone})
}

// cnames has a claim to customer.test of each tenant, a stranger's first.
func cnames(t *testing.T) (w *world, squatter, customer Token) {
	w = newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "zeta"))
	w.later(10)
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "acme"))
	return w, tok(1), tok(2)
}

func TestSignerIsTheClaimToTheNameBeforeThoseThatListIt(t *testing.T) {
	w := newWorld(t)
	lister := claimOf(tok(1), "bulk.other.test", zone.CNAME, "zeta")
	lister.SignsFor = []zone.Name{name("customer.test")}
	w.must(lister)
	if w.signer("customer.test") != tok(1) {
		t.Error("the claim that lists the name does not sign")
	}
	w.later(10)
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "acme"))
	if w.signer("customer.test") != tok(2) {
		t.Error("the claim to the name itself does not sign")
	}
	w.later(10)
	w.must(claimOf(tok(3), "customer.test", zone.CNAME, "zeta"))
	if w.signer("customer.test") != tok(2) {
		t.Error("a later claim took the name away from an earlier one")
	}
}

// A tenant that merely claims a name, or lists it, does not get to sign for who has a
// proven zone below it: its selectors are in nobody's DNS, so the mail would fail.
func TestSignerIsWhoHoldsTheNamesDNSBeforeWhoOnlyClaimsIt(t *testing.T) {
	w := newWorld(t)
	signs := []zone.Name{name("customer.test")}
	listed := claimOf(tok(1), "send.stranger.test", zone.Delegated, "zeta")
	listed.SignsFor = signs
	w.must(listed)
	w.must(ProveDomain{Token: tok(1), Seen: []Token{tok(1)}})
	w.later(10)
	w.must(claimOf(tok(2), "customer.test", zone.CNAME, "zeta"))
	w.later(10)
	holder := claimOf(tok(3), "send.customer.test", zone.Delegated, "acme")
	holder.SignsFor = signs
	w.must(holder)
	if w.signer("customer.test") != tok(2) || w.signerOf("customer.test", "acme") != (Token{}) {
		t.Error("a claim that is not proven signs")
	}
	w.must(ProveDomain{Token: tok(3), Seen: []Token{tok(3)}})
	if w.signer("customer.test") != tok(3) || w.signerOf("customer.test", "acme") != tok(3) {
		t.Error("who proved that it holds the DNS of the name does not sign for it")
	}
	if w.signerOf("customer.test", "zeta") != tok(2) {
		t.Error("a tenant that asks does not get its own")
	}
	w.must(claimOf(tok(4), "customer.test", zone.CNAME, "acme"))
	if w.signer("customer.test") != tok(4) || w.signerOf("customer.test", "acme") != tok(4) {
		t.Error("the holder's own claim to the name itself does not come before its list")
	}
}

func TestClaimThatTheCNAMEsLeadToSignsBeforeOlderOnes(t *testing.T) {
	w, squatter, customer := cnames(t)
	if w.signer("customer.test") != squatter {
		t.Error("of two that nothing is known of the older does not sign")
	}
	w.refuse(ProveDomain{Token: customer, Seen: []Token{squatter}}, Invalid, "domain", "no CNAME", customer.String())
	if r := w.aliased(customer); !r.Changed || w.signer("customer.test") != customer {
		t.Error("the claim that the CNAMEs lead to does not sign")
	}
	if r := w.aliased(customer); r.Changed {
		t.Error("the same again changed something")
	}
	// The customer adds the other's CNAMEs beside these, then removes these.
	w.aliased(squatter)
	if w.signer("customer.test") != customer {
		t.Error("a later proof took the name away from an earlier one")
	}
	w.aliased(squatter, customer)
	if w.signer("customer.test") != squatter || w.domain(customer).ProvenAt != 0 {
		t.Error("signing does not follow the CNAMEs")
	}
	if d, ok := w.m.SignerFor(name("customer.test"), "acme"); !ok || d.Token != customer {
		t.Error("a tenant that asks does not get its own")
	}
}

func TestDelegationVouchesMoreThanCNAMEs(t *testing.T) {
	w, squatter, customer := cnames(t)
	w.must(AddTenant{ID: "third", Name: "Third"})
	w.aliased(customer)
	w.aliased(squatter)
	below := claimOf(tok(3), "send.customer.test", zone.Delegated, "third")
	below.SignsFor = []zone.Name{name("customer.test"), name("www.send.customer.test")}
	w.must(below)
	if w.signer("customer.test") != customer {
		t.Error("a pending claim signs")
	}
	w.prove(tok(3))
	if w.signer("customer.test") != tok(3) {
		t.Error("who has a zone below the name does not sign for it")
	}
	// A claim within another's zone takes nothing away from its owner either.
	w.must(claimOf(tok(4), "www.send.customer.test", zone.CNAME, "zeta"))
	w.aliased(tok(4))
	if w.signer("www.send.customer.test") != tok(3) {
		t.Error("who has the zone above the name does not sign for it")
	}
}

func TestCNAMEsOfANameVouchForThoseItListsAboveAndBelow(t *testing.T) {
	w := newWorld(t)
	stranger := claimOf(tok(1), "bulk.stranger.test", zone.CNAME, "zeta")
	stranger.SignsFor = []zone.Name{name("customer.test")}
	w.must(stranger)
	w.must(claimOf(tok(2), "x.send.customer.test", zone.CNAME, "zeta"))
	w.later(10)
	holder := claimOf(tok(3), "send.customer.test", zone.CNAME, "acme")
	holder.SignsFor = []zone.Name{name("customer.test"), name("x.send.customer.test"), name("other.test")}
	w.must(holder)
	w.must(claimOf(tok(4), "other.test", zone.CNAME, "zeta"))
	w.aliased(tok(1)) // of its own name
	if w.signer("customer.test") != tok(1) || w.signer("x.send.customer.test") != tok(2) {
		t.Error("before anything is known of the holder")
	}
	w.aliased(tok(3))
	for _, n := range []string{"customer.test", "x.send.customer.test"} {
		if w.signer(n) != tok(3) {
			t.Errorf("whose CNAMEs are at send.customer.test does not sign for %s", n)
		}
	}
	if w.signer("other.test") != tok(4) {
		t.Error("CNAMEs at one name vouch for another that has nothing to do with it")
	}
}

func TestProofByCNAMEsChangesNoAnswerAndIsKept(t *testing.T) {
	w, squatter, customer := cnames(t)
	before := w.domain(customer)
	w.aliased(customer)
	after := w.domain(customer)
	if after.Branch != before.Branch || after.Serial != before.Serial || after.DueAt != before.DueAt || after.ProvenAt != w.at {
		t.Errorf("%+v", after)
	}
	again, err := ReadImage(bytes.NewReader(image(t, w.m)))
	if err != nil {
		t.Fatal(err)
	}
	if d, _ := again.Domain(customer); d.ProvenAt != w.at {
		t.Error("the image does not keep the proof")
	}
	w.must(LeaveDomain{Token: customer})
	if w.signer("customer.test") != squatter {
		t.Error("a leaving claim signs")
	}
	w.refuse(ProveDomain{Token: customer, Seen: []Token{customer}}, Conflict, "domain", "restore")
	if rivals := w.m.Rivals(w.domain(squatter)); len(rivals) != 1 || rivals[0].Token != customer {
		t.Error("a leaving claim, which may come back, is no rival")
	}
	// It comes back with its proof, unless that has ended meanwhile.
	w.must(RestoreDomain{Token: customer})
	if w.signer("customer.test") != customer {
		t.Error("it came back without its proof")
	}
	w.must(LeaveDomain{Token: customer})
	w.aliased(squatter, customer)
	w.must(RestoreDomain{Token: customer})
	if w.signer("customer.test") != squatter {
		t.Error("it came back with a proof that had ended")
	}
}

func TestAttestingSettlesAContestUntilTheCNAMEsSayOtherwise(t *testing.T) {
	w, squatter, customer := cnames(t)
	w.refuse(ProveDomain{Token: customer, Attested: true}, Invalid, "reason")
	w.who.Reason = "ticket 7"
	w.must(ProveDomain{Token: customer, Attested: true})
	if d := w.domain(customer); d.AttestedBy != "admin-1: ticket 7" || w.signer("customer.test") != customer {
		t.Errorf("%+v", d)
	}
	w.refuse(ProveDomain{Token: squatter, Attested: true}, Conflict, "domain", customer.String())
	w.aliased(squatter, customer)
	if d := w.domain(customer); d.AttestedBy != "" || w.signer("customer.test") != squatter {
		t.Errorf("%+v", d)
	}
}

// A proposer that is mistaken about whose CNAMEs are gone ends no proof of another kind,
// nor that of the claim it proves.
func TestOnlyProofsByCNAMEsEnd(t *testing.T) {
	w, _, customer := cnames(t)
	zoned := w.claim(3, "send.customer.test", "zeta")
	w.prove(zoned)
	w.aliased(customer, zoned, customer, tok(99))
	if !w.domain(zoned).owns() || w.domain(customer).ProvenAt == 0 {
		t.Error("a proof ended")
	}
}

func TestContestIsBetweenLiveClaimsOfSeveralTenantsThatNoDelegationSettles(t *testing.T) {
	w, squatter, customer := cnames(t)
	n := name("customer.test")
	want := []Waiting{{squatter, w.at, n}, {customer, w.at, n}}
	slices.SortFunc(want, func(a, b Waiting) int { return strings.Compare(a.Token.key(), b.Token.key()) })
	if got := w.m.Contest(n); !reflect.DeepEqual(got, want) {
		t.Errorf("looked at are %v, want %v", got, want)
	}
	w.aliased(customer)
	if len(w.m.Contest(n)) != 2 || !w.m.Contested(w.domain(customer)) {
		t.Error("a proof ends the looking, and the customer may move")
	}
	w.must(LeaveDomain{Token: squatter})
	if w.m.Contest(n) != nil || w.m.Contested(w.domain(customer)) {
		t.Error("contested by a claim that does not sign")
	}
	w.must(RestoreDomain{Token: squatter})
	zoned := claimOf(tok(3), "send.customer.test", zone.Delegated, "acme")
	zoned.SignsFor = []zone.Name{n}
	w.must(zoned)
	if len(w.m.Contest(n)) != 2 {
		t.Error("a claim that is pending settles something")
	}
	w.prove(tok(3))
	if w.m.Contest(n) != nil {
		t.Error("looked at, while a delegation says who signs")
	}
	own := claimOf(tok(4), "other.test", zone.CNAME, "acme")
	w.must(own)
	lists := claimOf(tok(5), "send.other.test", zone.CNAME, "acme")
	lists.SignsFor = []zone.Name{name("other.test")}
	w.must(lists)
	if w.m.Contest(name("other.test")) != nil {
		t.Error("one tenant contests its own name")
	}
}

func TestRivalsAreThoseProvenFirstAndBounded(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "customer.test", zone.CNAME, "acme"))
	const others = maxRivals + 3
	for i := range uint64(others) {
		id := fmt.Sprintf("t%d", i)
		w.must(AddTenant{ID: id, Name: id})
		w.must(claimOf(tok(10+i), "customer.test", zone.CNAME, id))
	}
	if len(w.m.Rivals(w.domain(tok(1)))) != 0 {
		t.Error("claims that were never proven are rivals")
	}
	for i := range uint64(others) {
		w.aliased(tok(10 + others - 1 - i))
	}
	rivals := w.m.Rivals(w.domain(tok(1)))
	if len(rivals) != maxRivals {
		t.Fatalf("%d rivals", len(rivals))
	}
	for i, d := range rivals {
		if d.Token != tok(10+others-1-uint64(i)) {
			t.Errorf("rival %d is %s", i, d.Token)
		}
	}
}

func TestTokensThatAreKeptForEverAreBounded(t *testing.T) {
	for _, c := range []struct {
		claims, ended int
		says          string
	}{
		{0, 0, ""}, {maxDomains - 1, 0, ""}, {maxDomains, 0, "at most 20000000"},
		{1000, maxTombstones - 1001, ""}, {1000, maxTombstones - 1000, "never forgotten"},
	} {
		switch r := roomForClaim(c.claims, c.ended); {
		case r == nil && c.says != "", r != nil && (c.says == "" || !strings.Contains(r.Message, c.says)):
			t.Errorf("%d claims and %d ended: %v", c.claims, c.ended, r)
		}
	}
	w := newWorld(t)
	for i := range uint64(3) {
		w.must(claimOf(tok(i+1), "customer.test", zone.CNAME, "acme"))
		w.who.Reason = "churn"
		w.must(LeaveDomain{Token: tok(i + 1), Now: true})
	}
	if n := w.m.tables().gone.len(); n != 3 {
		t.Errorf("%d tombstones of 3 claims", n)
	}
}
