package zone

import "testing"

func TestSmoke(t *testing.T) {
	tree := testTree(t, delegatedPlan(t, "send.customer.test", testToken), cnamePlan(t, otherToken))
	for _, c := range []struct {
		n string
		t Type
	}{
		{"send.customer.test.", TypeSOA}, {"send.customer.test.", TypeNS}, {"send.customer.test.", TypeMX}, {"sEnd.customer.test.", TypeTXT},
		{"2511-abcdef._domainkey.send.customer.test.", TypeTXT}, {"_domainkey.send.customer.test.", TypeTXT}, {"_dmarc.send.customer.test.", TypeTXT},
		{"k1." + otherToken + ".dkim.p.example.", TypeTXT}, {otherToken + ".bounce.p.example.", TypeMX}, {otherToken + ".dmarc.p.example.", TypeTXT},
		{"www.p.example.", TypeA}, {testToken + ".ns1.p.example.", TypeA}, {"x.test.", TypeA}, {"p.example.", TypeNS}, {otherToken + ".click.p.example.", TypeA},
	} {
		m, a := lookUp(t, tree, c.n, c.t, 65535)
		t.Log(a.outcome, m)
	}
	b := mustRender(t, func() Plan { p := cnamePlan(t, otherToken); p.Attachment = make([]byte, 560); return p }())
	t.Log(len(b))
	for _, s := range Served(mustRender(t, delegatedPlan(t, "send.customer.test", testToken)), mustRenderPool(t, testPool(t)), []*Platform{mustRenderPlatform(t, testPlatform(t))}) {
		t.Log(s.Owner, s.TTL, s.Type, s.Values())
	}
}
