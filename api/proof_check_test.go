package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"authd/cluster"
)

func (h *house) proofCheck(d Domain) *ProofCheck {
	h.Helper()
	return read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token, "")).ProofCheck
}

func TestPendingDomainShowsHowTheAskingForItsProofStands(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "delegated")
	show := func() *ProofCheck { t.Helper(); return h.proofCheck(d) }
	if c := show(); c != nil {
		t.Errorf("where no leader says anything: %+v", c)
	}
	h.proof = cluster.ProofCheck{Next: h.at + 60}
	if c := show(); c == nil || c.Outcome != "none" || c.At != nil || c.NextAt.Unix() != h.at+60 {
		t.Errorf("before the first look: %+v", c)
	}
	h.proof = cluster.ProofCheck{Outcome: cluster.ProofUnasked, Detail: "ns.customer.example does not answer", At: h.at - 5, Next: h.at + 70}
	if c := show(); c == nil || c.Outcome != "unasked" || c.Detail != h.proof.Detail || c.At == nil || c.At.Unix() != h.at-5 {
		t.Errorf("after one that came to nothing: %+v", c)
	}
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/attest", `{"reason":"seen"}`)
	if c := show(); c != nil {
		t.Errorf("once it is proven: %+v", c)
	}
}

func TestSignersGetTheKeysOfWhomTheCustomersCNAMEsLeadTo(t *testing.T) {
	h := newHouse(t)
	squatter := h.claim("globex", "customer.example", "cname")
	customer := h.claim("acme", "customer.example", "cname")
	records := func(d Domain) (list []string) {
		for _, r := range d.Records {
			list = append(list, r.Name+" CNAME "+r.Value)
		}
		return list
	}
	selector := func() string {
		t.Helper()
		return read[Secret](h, h.as("signer", "GET", "/v1/dkim/customer.example", "")).Data.Selector
	}
	verify := func(d Domain, scope string) Verification {
		t.Helper()
		return read[Verification](h, h.as(scope, "POST", "/v1/domains/"+d.Token+"/verify", ""))
	}
	if s := selector(); s != "k1" {
		t.Fatalf("before anything is known %q signs", s)
	}
	if v := verify(customer, "tenant:acme"); v.Proven || len(v.Seen) != 0 || !strings.Contains(v.Detail, "0 of 5") || !strings.Contains(v.Detail, "nothing is proven") {
		t.Errorf("nothing is there: %+v", v)
	}
	h.parent.records = records(customer)
	v := verify(customer, "tenant:acme")
	if !v.Proven || len(v.Seen) != 1 || v.Seen[0] != customer.Token || v.Domain.Proven != "cnames" || v.Domain.ProvenAt == nil || v.Domain.Serial != customer.Serial {
		t.Errorf("all is there: %+v", v)
	}
	if s := selector(); s != "t2-k1" {
		t.Errorf("%q signs, not the claim that the CNAMEs lead to", s)
	}
	if v := verify(squatter, "admin"); v.Proven || v.Domain.Proven != "" {
		t.Errorf("the squatter's: %+v", v)
	}
	before := h.image()
	if v := verify(customer, "tenant:acme"); !v.Proven {
		t.Errorf("asked again: %+v", v)
	}
	h.parent.err = errors.New("no server answers")
	if a := h.ask("POST", "/v1/domains/"+squatter.Token+"/verify", ""); a.Code != http.StatusBadGateway {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if string(before) != string(h.image()) {
		t.Error("something changed where nothing was seen, or nothing else")
	}
	h.parent.err, h.parent.records = nil, records(squatter)
	if v := verify(squatter, "admin"); !v.Proven {
		t.Errorf("the customer has moved: %+v", v)
	}
	if s := selector(); s != "k1" {
		t.Errorf("%q signs after the customer has moved", s)
	}
	if d := read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/"+customer.Token, "")); d.Proven != "" || d.ProvenAt != nil {
		t.Errorf("%+v", d)
	}
	// An admin may say so where the DNS cannot, but not against it.
	if a := h.ask("POST", "/v1/domains/"+customer.Token+"/attest", `{"reason":"ticket 7"}`); a.Code != http.StatusConflict {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestContestedDomainShowsHowTheAskingStands(t *testing.T) {
	h := newHouse(t)
	h.proof.Next = h.at + 60
	d := h.claim("acme", "customer.example", "cname")
	show := func() *ProofCheck { t.Helper(); return h.proofCheck(d) }
	if c := show(); c != nil {
		t.Errorf("a name that nobody else claims: %+v", c)
	}
	other := h.claim("globex", "customer.example", "cname")
	if c := show(); c == nil || c.Outcome != "none" {
		t.Errorf("a name that another claims: %+v", c)
	}
	h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/attest", `{"reason":"ticket 7"}`)
	if c := show(); c == nil {
		t.Error("once it is proven nothing is shown, and the customer may move")
	}
	h.must(http.StatusOK, "DELETE", "/v1/domains/"+other.Token, "")
	if c := show(); c != nil {
		t.Errorf("the other leaves: %+v", c)
	}
}
