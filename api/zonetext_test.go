package api

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"authd/zone"
)

// text sends zone text with the token of a scope.
func (h *house) text(scope, path, media, body string) answered {
	h.Helper()
	r := httptest.NewRequest("POST", path, strings.NewReader(body))
	r.Header.Set("Content-Type", media)
	r.Header.Set("Authorization", "Bearer "+h.tokens[scope])
	return h.send(r)
}

const zoneFile = `$TTL 600
@ SOA ns.old.test. host.old.test. 1 2 3 4 5
@ NS ns.old.test.
@ CAA 0 issue "ca.example"
www A 192.0.2.7
* A 192.0.2.8
sub NS ns.sub
ns.sub A 192.0.2.9
`

func TestZoneTextIsImportedAsAWholeOrNotAtAll(t *testing.T) {
	h := newHouse(t)
	h.live("acme", "send.customer.example")
	const path = "/v1/domains/send.customer.example/zone"
	const records = "/v1/domains/send.customer.example/records"
	h.must(http.StatusOK, "PUT", records+"/www/A", `{"ttl":300,"values":["192.0.2.1"]}`)
	h.must(http.StatusOK, "PUT", records+"/mine/A", `{"ttl":300,"values":["192.0.2.1"]}`)
	before := len(h.must(http.StatusOK, "GET", records, "").Body.String())

	dry := h.text("admin", path+"?dry_run=true&replace=true", "text/dns", zoneFile)
	out := read[ImportedZone](h, dry)
	if dry.Code != http.StatusOK || !out.DryRun || out.Added != 4 || out.Changed != 1 || out.Removed != 1 || len(out.Records) != 5 || len(out.Notes) != 2 || out.Notes[0].Line != 2 {
		t.Errorf("a dry run says %d %s", dry.Code, dry.Body)
	}
	if bad := h.text("admin", path, "text/dns", zoneFile+"click A 192.0.2.1\nlast A 192.0.2\n"); bad.Code != http.StatusUnprocessableEntity ||
		len(bad.problem.Errors) != 2 || bad.problem.Errors[0].Field != "line 9" || bad.problem.Errors[1].Field != "line 10" || !strings.Contains(bad.problem.Errors[0].Detail, "managed") {
		t.Errorf("%d %s", bad.Code, bad.Body)
	}
	for name, body := range map[string]string{"below a cut that is there no more than the text says": "x.sub 60 TXT x\nsub 60 NS ns.other.test."} {
		if bad := h.text("admin", path, "text/dns", body); bad.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %s", name, bad.Code, bad.Body)
		}
	}
	if bad := h.text("tenant:acme", path, "text/dns", zoneFile); bad.Code != http.StatusForbidden || !strings.Contains(bad.Body.String(), "sub.send.customer.example. NS") {
		t.Errorf("a delegation by a tenant: %d %s", bad.Code, bad.Body)
	}
	if after := len(h.must(http.StatusOK, "GET", records, "").Body.String()); after != before {
		t.Error("a dry run or a refused text changed something")
	}

	if a := h.text("admin", path, "text/plain; charset=utf-8", zoneFile); a.Code != http.StatusOK || read[ImportedZone](h, a).Changed != 1 || len(read[ImportedZone](h, a).Records) != 6 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := h.text("tenant:acme", path, "text/dns", zoneFile+"more 60 A 192.0.2.1\n"); a.Code != http.StatusOK || read[ImportedZone](h, a).Same != 5 {
		t.Errorf("a tenant whose delegation is there already: %d %s", a.Code, a.Body)
	}
	if a := h.text("tenant:acme", path+"?replace=true", "text/dns", "www 60 A 192.0.2.1\n"); a.Code != http.StatusUnprocessableEntity || !strings.Contains(a.Body.String(), "admin") {
		t.Errorf("a tenant takes a delegation away: %d %s", a.Code, a.Body)
	}
	if a := h.text("admin", path+"?replace=true", "text/dns", "www 60 A 192.0.2.1\n"); a.Code != http.StatusOK || read[ImportedZone](h, a).Removed != 6 || len(read[ImportedZone](h, a).Records) != 1 {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestZoneTextThatIsNone(t *testing.T) {
	h := newHouse(t)
	h.live("acme", "send.customer.example")
	h.claim("acme", "customer.example", "cname")
	const path = "/v1/domains/send.customer.example/zone"
	for _, c := range []struct {
		what, path, media, body string
		status                  int
	}{
		{"JSON", path, "application/json", `{}`, http.StatusUnsupportedMediaType},
		{"too much", path, "text/dns", strings.Repeat(";", MaxBody+1), http.StatusRequestEntityTooLarge},
		{"no body", path, "text/dns", "", http.StatusBadRequest},
		{"an unknown domain", "/v1/domains/other.example/zone", "text/dns", "a 60 A 192.0.2.1", http.StatusNotFound},
		{"mode cname", "/v1/domains/customer.example/zone", "text/dns", "a 60 A 192.0.2.1", http.StatusUnprocessableEntity},
		{"too many records in a set", path, "text/dns", manyTexts(101), http.StatusUnprocessableEntity},
		{"a byte order mark and line ends of two octets", path + "?dry_run=true", "text/dns", "\ufeff$TTL 600\r\na A 192.0.2.1\r\n", http.StatusOK},
		{"an unknown parameter", path + "?dry=1", "text/dns", "a 60 A 192.0.2.1", http.StatusUnprocessableEntity},
	} {
		if a := h.text("admin", c.path, c.media, c.body); a.Code != c.status {
			t.Errorf("%s: %d, not %d: %s", c.what, a.Code, c.status, a.Body)
		}
	}
	if a := h.text("read", path, "text/dns", "a 60 A 192.0.2.1"); a.Code != http.StatusForbidden {
		t.Errorf("with scope read: %d", a.Code)
	}
	if a := h.text("tenant:globex", path, "text/dns", "a 60 A 192.0.2.1"); a.Code != http.StatusNotFound {
		t.Errorf("by another tenant: %d", a.Code)
	}
}

func manyTexts(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("a 60 TXT t" + strings.Repeat("x", i) + "\n")
	}
	return b.String()
}

// Types that no part of authd knows more of than octets, and some that it does.
func TestRecordsOfEveryKindComeBackAsTheyWere(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	digest := strings.Repeat("AB", 32)
	for _, c := range []struct{ kind, value, shown string }{
		{"A", "192.0.2.1", ""},
		{"AAAA", "2001:db8::1", ""},
		{"CAA", `0 issue "ca.example"`, ""},
		{"SRV", "1 2 5060 sip.other.test.", ""},
		{"MX", "10 mx.other.test.", ""},
		{"PTR", "www.other.test.", ""},
		{"TLSA", "3 1 1 " + digest, strings.ToLower("3 1 1 " + digest)},
		{"SSHFP", "4 2 " + digest, "4 2 " + digest},
		{"SMIMEA", "3 1 1 " + digest, strings.ToLower("3 1 1 " + digest)},
		{"OPENPGPKEY", "AQID", ""},
		{"NAPTR", `100 10 "u" "E2U+sip" "!^.*$!sip:info@other.test!" .`, ""},
		{"LOC", "52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m", "52 22 23.000 N 04 53 32.000 E -2m 0.00m 10000m 10m"},
		{"URI", `10 1 "https://other.test/"`, ""},
		{"HINFO", `"x86" "unix"`, ""},
		{"RP", "host.other.test. txt.other.test.", ""},
		{"AFSDB", "1 afs.other.test.", ""},
		{"SVCB", "1 svc.other.test. alpn=h2,h3 port=8443 ipv4hint=192.0.2.1", `1 svc.other.test. alpn="h2,h3" port="8443" ipv4hint="192.0.2.1"`},
		{"HTTPS", "0 edge.other.test.", ""},
		{"DNSKEY", "257 3 13 AQID", ""},
		{"CDS", "1 13 2 " + digest, ""},
		{"EUI48", "00-00-5e-00-53-2a", ""},
		{"CERT", "PGP 0 0 AQID", ""},
		{"TYPE65280", `\# 3 c0ffee`, ""},
		{"TYPE65280", `\# 0`, `\# 0 `},
		{"TYPE1", `\# 4 c0000201`, "192.0.2.1"},
	} {
		path := "/v1/domains/send.customer.example/records/any-" + strings.ToLower(c.kind) + "/" + url.PathEscape(c.kind)
		if c.shown == "" {
			c.shown = c.value
		}
		a := h.ask("PUT", path, jsonText(t, RecordSpec{TTL: 300, Values: []string{c.value}}))
		if a.Code != http.StatusOK {
			t.Errorf("%s %s: %d %s", c.kind, c.value, a.Code, a.Body)
			continue
		}
		got := read[RecordRR](h, a)
		if len(got.Values) != 1 || got.Values[0] != c.shown {
			t.Errorf("%s %q comes back as %q", c.kind, c.value, got.Values)
		}
		// And as it came back it is taken again, by PUT and in a zone text.
		if a := h.ask("PUT", path, jsonText(t, RecordSpec{TTL: 300, Values: got.Values})); a.Code != http.StatusOK || read[RecordRR](h, a).Values[0] != got.Values[0] {
			t.Errorf("%s %q is not read back: %d %s", c.kind, got.Values, a.Code, a.Body)
		}
		line := "any-" + c.kind + " 300 " + c.kind + " " + got.Values[0] + "\n"
		if a := h.text("admin", "/v1/domains/send.customer.example/zone", "text/dns", line); a.Code != http.StatusOK || read[ImportedZone](h, a).Same != 1 {
			t.Errorf("%s is not the same: %d %s", line, a.Code, a.Body)
		}
		kind, err := zone.ParseType(c.kind)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, s := range read[ServedList](h, h.must(http.StatusOK, "GET", "/v1/domains/"+d.Token+"/served", "")).Records {
			found = found || s.Type == kind.String() && s.Values[0] == got.Values[0]
		}
		if !found {
			t.Errorf("%s is not served", c.kind)
		}
	}
}
