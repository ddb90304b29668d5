package api

import (
	"net/http"
	"strings"
	"testing"
)

// The mistakes that customers make when they enter CNAMEs, and what they are told.
func TestMistakesInCNAMEsAreNamed(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "customer.example", "cname")
	value := map[string]string{}
	for _, r := range d.Records {
		value[strings.TrimSuffix(r.Name, ".customer.example")] = r.Value
	}
	k1, k2 := "k1._domainkey", value["k2._domainkey"]
	right := func() []string {
		list := []string{`_dmarc.customer.example TXT "v=DMARC1; p=none"`}
		for _, r := range d.Records {
			list = append(list, r.Name+" CNAME "+r.Value)
		}
		return list
	}
	verify := func(records []string) Verification {
		h.parent.records = records
		return read[Verification](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/verify", ""))
	}
	if v := verify(right()); !v.Complete || !v.Proven || len(v.Records) != 5 || len(v.Notes) != 0 || !strings.Contains(v.Detail, "5 of 5") {
		t.Errorf("all right: %+v", v)
	}
	for name, c := range map[string]struct{ instead, status, hint string }{
		"nothing there":       {"", "missing", `named "k1._domainkey" in the zone customer.example`},
		"name doubled":        {k1 + ".customer.example.customer.example CNAME " + value[k1], "missing", `enter only "k1._domainkey"`},
		"value doubled":       {k1 + ".customer.example CNAME " + value[k1] + "customer.example.", "wrong", "with a dot at its end"},
		"underscore lost":     {"k1.domainkey.customer.example CNAME " + value[k1], "missing", "underscore"},
		"two mixed up":        {k1 + ".customer.example CNAME " + k2, "wrong", "value for k2._domainkey"},
		"an old one":          {k1 + ".customer.example CNAME old.esp.example.", "wrong", "points to old.esp.example."},
		"proxied":             {k1 + ".customer.example A 203.0.113.7", "wrong", "DNS only"},
		"an old TXT in place": {k1 + `.customer.example TXT "v=DKIM1; p=MII"`, "wrong", "remove it"},
		"delegated elsewhere": {k1 + ".customer.example NS ns.other.example.", "wrong", "delegated to ns.other.example."},
	} {
		var records []string
		for _, r := range right() {
			if !strings.HasPrefix(r, k1) {
				records = append(records, r)
			}
		}
		if c.instead != "" {
			records = append(records, c.instead)
		}
		v := verify(records)
		if r := v.Records[0]; v.Complete || r.Status != c.status || !strings.Contains(r.Hint, c.hint) {
			t.Errorf("%s: %+v", name, r)
		}
		if r := v.Records[1]; r.Status != "found" {
			t.Errorf("%s: the next one too: %+v", name, r)
		}
	}
	v := verify(append(right(), `customer.example CAA 0 issue "ca.example"`))
	if !v.Complete || len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "CAA") {
		t.Errorf("%q", v.Notes)
	}
	if v := verify(right()[1:]); len(v.Notes) != 1 || !strings.Contains(v.Notes[0], "no DMARC") {
		t.Errorf("%q", v.Notes)
	}
}

func TestMistakesInDelegationsAreNamed(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "delegated")
	one, two := "send.customer.example NS "+d.Records[0].Value, "send.customer.example NS "+d.Records[1].Value
	dmarc := `_dmarc.customer.example TXT "v=DMARC1; p=none"`
	for name, c := range map[string]struct {
		records   []string
		status    string // of the first
		hint      string
		note      string
		wantWhole bool
	}{
		"all right":         {[]string{one, two, dmarc}, "found", "", "", true},
		"nothing":           {[]string{dmarc}, "missing", `named "send" in the zone customer.example`, "", false},
		"one of two":        {[]string{two, dmarc}, "missing", "add it beside", "", false},
		"name doubled":      {[]string{"send.customer.example.customer.example NS " + d.Records[0].Value, dmarc}, "missing", `enter only "send"`, "", false},
		"value doubled":     {[]string{one + "customer.example.", dmarc}, "wrong", "dot at its end", "not of this claim", false},
		"a CNAME":           {[]string{"send.customer.example CNAME esp.example.", dmarc}, "wrong", "remove the CNAME", "", false},
		"old SPF":           {[]string{`send.customer.example TXT "v=spf1 include:esp.example ~all"`, dmarc}, "missing", "the delegation hides them", "", false},
		"a stranger beside": {[]string{one, two, "send.customer.example NS ns.old.example.", dmarc}, "found", "", "remove that NS record", true},
		"DS":                {[]string{one, two, "send.customer.example DS 1 13 2 00", dmarc}, "found", "", "remove the DS records", true},
		"strict DMARC":      {[]string{one, two, `_dmarc.customer.example TXT "v=DMARC1; p=reject; adkim=s"`}, "found", "", "adkim=s removed", true},
		"CAA":               {[]string{one, two, dmarc, `customer.example CAA 0 issue "ca.example"`}, "found", "", "@ CAA", true},
	} {
		h.parent.records = c.records
		v := read[Verification](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/verify", ""))
		notes := strings.Join(v.Notes, "\n")
		if r := v.Records[0]; r.Status != c.status || !strings.Contains(r.Hint, c.hint) || (c.hint == "") != (r.Hint == "") || v.Complete != c.wantWhole {
			t.Errorf("%s: complete %v, %+v", name, v.Complete, r)
		}
		if !strings.Contains(notes, c.note) || (c.note == "") != (notes == "") {
			t.Errorf("%s: %q", name, notes)
		}
	}
}
