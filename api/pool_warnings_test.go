package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestPoolWarnsOfHostsThatCannotTakeMail(t *testing.T) {
	h := newHouse(t)
	for _, record := range [][2]string{
		{"mx1/A", "192.0.2.25"}, {"six/AAAA", "2001:db8::25"}, {"alias/CNAME", "mx1.p-dns.test."}, {"words/TXT", "no address"},
		{"*.wild/A", "192.0.2.26"}, {"cut/NS", "ns.elsewhere.example."},
	} {
		h.must(http.StatusOK, "PUT", "/v1/zones/p-dns.test/records/"+record[0], fmt.Sprintf(`{"ttl":300,"values":[%q]}`, record[1]))
	}
	for _, x := range []struct{ host, says string }{
		{"mx1.p-dns.test.", ""}, {"six.p-dns.test.", ""}, {"ns1.p-dns.test.", ""},
		{"mx.wild.p-dns.test.", ""}, {"a.b.wild.p-dns.test.", ""}, {"mx.cut.p-dns.test.", ""}, {"mx.elsewhere.example.", ""},
		{"mx9.p-dns.test.", "mx[0].host: mx9.p-dns.test has no address in the platform zone p-dns.test"},
		{"words.p-dns.test.", "has no address"}, {"p-dns.test.", "has no address"}, {"wild.p-dns.test.", "has no address"},
		{"alias.p-dns.test.", "alias.p-dns.test is an alias"},
	} {
		a := h.must(http.StatusOK, "PUT", "/v1/pools/tried", fmt.Sprintf(`{"spf":["ip4:192.0.2.0/24"],"mx":[{"preference":10,"host":%q}]}`, x.host))
		got := strings.Join(read[Pool](h, a).Warnings, "; ")
		if x.says == "" && got != "" || !strings.Contains(got, x.says) {
			t.Errorf("%s: warned %q, want %q", x.host, got, x.says)
		}
	}
	bare := `{"spf":["ip4:192.0.2.0/24"],"mx":[{"preference":10,"host":"mx1.p-dns.test."},{"preference":20,"host":"mx2.p-dns.test."}],"click":{"cname":"edge.p-dns.test."}}`
	h.must(http.StatusOK, "PUT", "/v1/pools/tried", bare)
	show := func() []string { return read[Pool](h, h.must(http.StatusOK, "GET", "/v1/pools/tried", "")).Warnings }
	if got := show(); len(got) != 2 || !strings.HasPrefix(got[0], "mx[1].host: ") || !strings.HasPrefix(got[1], "click.cname: ") {
		t.Errorf("warned %q", got)
	}
	h.must(http.StatusOK, "PUT", "/v1/zones/p-dns.test/records/mx2/AAAA", `{"ttl":300,"values":["2001:db8::26"]}`)
	h.must(http.StatusOK, "PUT", "/v1/zones/p-dns.test/records/edge/CNAME", `{"ttl":300,"values":["edge.elsewhere.example."]}`)
	if got := show(); got != nil {
		t.Errorf("once they are there: %q", got)
	}
}
