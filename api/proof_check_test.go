package api

import (
	"net/http"
	"testing"

	"authd/cluster"
)

func TestPendingDomainShowsHowTheAskingForItsProofStands(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "delegated")
	show := func() *ProofCheck {
		t.Helper()
		return read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token, "")).ProofCheck
	}
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
