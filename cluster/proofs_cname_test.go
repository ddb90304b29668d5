package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/zone"
)

// contest has two tenants claim customer.test in mode cname, a stranger first.
func contest(t *testing.T, v *virtual) (squatter, customer *state.Domain) {
	t.Helper()
	leader := v.waitLeader()
	must(t, v.write(leader, "globex", time.Minute))
	one := claimAs(t, leader, "globex", "customer.test.", zone.CNAME)
	time.Sleep(time.Minute)
	two := claimAs(t, leader, "acme", "customer.test.", zone.CNAME)
	squatter, _ = leader.Machine().Domain(one)
	customer, _ = leader.Machine().Domain(two)
	return squatter, customer
}

// signs waits until every node has a claim sign for customer.test.
func (v *virtual) signs(d *state.Domain, patience time.Duration) {
	v.t.Helper()
	v.wait("the other claim to sign", patience, func() bool {
		for _, n := range v.nodes {
			if by, ok := n.Machine().SignerFor(d.Name, ""); !ok || by.Token != d.Token {
				return false
			}
		}
		return true
	})
}

func (v *virtual) proofs(of ...*state.Domain) (at []int64) {
	for _, d := range of {
		now, _ := v.waitLeader().Machine().Domain(d.Token)
		at = append(at, now.ProvenAt)
	}
	return at
}

func TestSigningFollowsTheCustomersCNAMEsNotWhoClaimedFirst(t *testing.T) {
	withParents(t, func(t *testing.T, v *virtual, f *fakeParents) {
		squatter, customer := contest(t, v)
		check := func(d *state.Domain, want string) {
			t.Helper()
			for _, id := range v.ids() {
				if c, ok := v.nodes[id].ProofCheck(within(t, time.Minute), d.Token); !ok || c.Outcome != want || c.At == 0 {
					t.Errorf("%s says %v %+v, want %s", id, ok, c, want)
				}
			}
		}
		time.Sleep(10 * time.Minute)
		v.signs(squatter, time.Minute)
		check(customer, ProofMissing)
		f.point(customer)
		v.signs(customer, 15*time.Minute)
		time.Sleep(10 * time.Minute)
		check(customer, ProofFound)
		check(squatter, ProofMissing)

		// Nobody can be asked for an hour: nothing changes.
		before := v.proofs(squatter, customer)
		names, _ := customer.KeyAliases()
		others, _ := squatter.KeyAliases()
		f.darken(append(names, others...)...)
		f.point(squatter)
		time.Sleep(time.Hour)
		check(customer, ProofUnasked)
		if after := v.proofs(squatter, customer); !slices.Equal(before, after) {
			t.Errorf("proofs of %v are %v after an outage", before, after)
		}
		// The first one's CNAMEs show, and of the second's none answers for one name: it
		// may still be there.
		f.darken(names[2])
		time.Sleep(time.Hour)
		check(squatter, ProofFound)
		if after := v.proofs(squatter, customer); after[0] == 0 || after[1] != before[1] {
			t.Errorf("proofs of %v are %v while one name is not answered", before, after)
		}
		v.signs(customer, time.Second)

		// Now all is answered, under another leader: the customer has moved.
		f.darken()
		v.kill(v.waitLeader().c.ID)
		v.signs(squatter, time.Hour)
		if after := v.proofs(squatter, customer); after[0] == 0 || after[1] != 0 {
			t.Errorf("proofs are %v after the customer has moved", after)
		}
		last := ""
		for e := range v.waitLeader().Machine().Audit(0) {
			if e.Command == "ProveDomain" {
				last = e.Actor + ": " + e.Summary
			}
		}
		if last != "prover: proven by ns.customer.test./192.0.2.7, and no longer "+customer.Token.String() {
			t.Errorf("the audit says %q", last)
		}
	})
}

func TestOnlyContestedClaimsAreLookedAt(t *testing.T) {
	withParents(t, func(t *testing.T, v *virtual, f *fakeParents) {
		leader := v.waitLeader()
		alone := claimAs(t, leader, "acme", "other.customer.test.", zone.CNAME)
		claimFor(t, leader, "acme", "send.customer.test.")
		time.Sleep(30 * time.Minute)
		if names := f.looks(); names != nil {
			t.Errorf("names that nobody else claims were asked for: %v", names)
		}
		squatter, customer := contest(t, v)
		began := time.Now()
		v.wait("the first look", 3*time.Minute, func() bool { return len(f.looks()) > 0 })
		if first := time.Since(began); first < proofFirst/2 {
			t.Errorf("the first look comes after %s", first)
		}
		time.Sleep(2 * time.Hour)
		// As many as at a pending claim, three names of each of the two.
		want := 0
		for at := proofFirst; at < time.Since(began); at += proofPause(began.Unix(), began.Add(at)) {
			want += 2 * 3
		}
		if n := len(f.looks()); n < want-4*2*3 || n > want+2*3 {
			t.Errorf("%d names were asked for in %s, want some %d", n, time.Since(began), want)
		}
		if d, _ := leader.Machine().Domain(alone); leader.Machine().Contested(d) {
			t.Error("a claim to another name is contested")
		}
		settle(t, leader, state.LeaveDomain{Token: squatter.Token})
		f.looks()
		time.Sleep(2 * time.Hour)
		if names := f.looks(); names != nil {
			t.Errorf("%d names are asked for that nobody contests any more", len(names))
		}
		if _, ok := leader.ProofCheck(within(t, time.Minute), customer.Token); ok {
			t.Error("a claim that nobody contests is still looked after")
		}
		leader.prover.mu.Lock()
		defer leader.prover.mu.Unlock()
		if leader.prover.contested != 0 {
			t.Errorf("%d contested claims are counted", leader.prover.contested)
		}
	})
}

func TestLookAtCNAMEsProposesWhatItSawAlone(t *testing.T) {
	withParents(t, func(t *testing.T, v *virtual, f *fakeParents) {
		squatter, customer := contest(t, v)
		leader := v.waitLeader()
		look := func(d *state.Domain) (bool, *state.ProveDomain, error) {
			d, _ = leader.Machine().Domain(d.Token)
			return LookAtCNAMEs(within(t, time.Minute), leader.Machine(), d, f.cnames)
		}
		names, _ := customer.KeyAliases()
		if names[0].Host() != "t2-k1._domainkey.customer.test" || len(names) != 3 {
			t.Fatalf("%v", names)
		}
		if found, proof, err := look(customer); found || proof != nil || err != nil {
			t.Errorf("nothing is there: %v %v %v", found, proof, err)
		}
		f.darken(names[1])
		if found, proof, err := look(customer); found || proof != nil || err == nil || !strings.Contains(err.Error(), names[1].Host()) {
			t.Errorf("one is not answered: %v %v %v", found, proof, err)
		}
		// CNAMEs to another's keys prove nothing, and one of three is enough.
		f.point(squatter, customer)
		f.mu.Lock()
		_, theirs := squatter.KeyAliases()
		_, own := customer.KeyAliases()
		f.leads[names[0]], f.leads[names[1]], f.leads[names[2]] = theirs[0], own[0], ""
		f.mu.Unlock()
		f.darken()
		if found, _, err := look(customer); found || err != nil {
			t.Errorf("led to the keys of others: %v %v", found, err)
		}
		f.point(customer)
		f.darken(names[1:]...)
		found, proof, err := look(customer)
		if !found || proof == nil || err != nil || !slices.Equal(proof.Seen, []state.Token{customer.Token}) || proof.Gone != nil || len(proof.Servers) != 1 {
			t.Fatalf("one leads here: %v %+v %v", found, proof, err)
		}
		settle(t, leader, *proof)
		if found, proof, err := look(customer); !found || proof != nil || err != nil {
			t.Errorf("proven before: %v %+v %v", found, proof, err)
		}
	})
}
