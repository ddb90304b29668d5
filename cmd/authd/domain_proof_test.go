package main

import (
	"strings"
	"testing"
	"time"

	"authd/api"
)

func TestPendingDomainIsShownWithWhatItsParentSaid(t *testing.T) {
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	next, ends := at.Add(time.Hour), at.Add(24*time.Hour)
	for _, x := range []struct {
		check *api.ProofCheck
		says  string
	}{
		{nil, "are asked by themselves, a minute after the claim"},
		{&api.ProofCheck{Outcome: "none", NextAt: next}, "are asked by themselves: next 2027-01-02T04:04:05Z"},
		{&api.ProofCheck{Outcome: "missing", At: &at, NextAt: next}, "were asked 2027-01-02T03:04:05Z: they do not delegate to this claim; next 2027-01-02T04:04:05Z"},
		{&api.ProofCheck{Outcome: "unasked", Detail: "timeout", At: &at, NextAt: next}, "nobody could be asked: timeout; next"},
		{&api.ProofCheck{Outcome: "refused", Detail: "names two claims", At: &at, NextAt: next}, ": names two claims; next"},
	} {
		var b strings.Builder
		printDomain(&b, &api.Domain{Domain: "send.customer.example", State: "pending", GoneAt: &ends, ProofCheck: x.check})
		if !strings.Contains(b.String(), x.says) {
			t.Errorf("%+v is shown as %s, without %q", x.check, b.String(), x.says)
		}
	}
}

func TestContestedDomainIsShownWithWhatItsCustomersDNSSaid(t *testing.T) {
	at := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	next := at.Add(time.Hour)
	d := api.Domain{Domain: "customer.example", Token: "b6tk3kfkxn4hnxvvwmrgjm4jwa", Mode: "cname", State: "live"}
	shown := func() string {
		var b strings.Builder
		printDomain(&b, &d)
		return b.String()
	}
	if s := shown(); strings.Contains(s, "asked") || strings.Contains(s, "others claim") {
		t.Errorf("a name that nobody else claims: %s", s)
	}
	d.ProofCheck = &api.ProofCheck{Outcome: "missing", At: &at, NextAt: next}
	if s := shown(); !strings.Contains(s, "others claim its names too") || strings.Contains(s, "proven") ||
		!strings.Contains(s, "asked 2027-01-02T03:04:05Z: no CNAME leads to this claim's keys; next") || !strings.Contains(s, "verify b6tk3kfkxn4hnxvvwmrgjm4jwa") {
		t.Errorf("not proven: %s", s)
	}
	d.ProofCheck.Outcome, d.Proven, d.ProvenAt = "found", "cnames", &at
	if s := shown(); !strings.Contains(s, "decide; proven (cnames) 2027-01-02T03:04:05Z") || !strings.Contains(s, "CNAMEs lead to this claim's keys") {
		t.Errorf("proven: %s", s)
	}
}
