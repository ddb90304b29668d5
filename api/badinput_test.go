package api

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Every bad input is a problem with a status of its own kind that names the
// field, and changes nothing.
func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	h.claim("acme", "customer.example", "cname")
	h.must(http.StatusOK, "PUT", "/v1/domains/"+d.Token+"/records/www/A", `{"ttl":300,"values":["192.0.2.80"]}`)
	add := func(body string) [3]string { return [3]string{"POST", "/v1/tenants/acme/domains", body} }
	named := func(domain string) [3]string { return add(fmt.Sprintf(`{"domain":%q,"mode":"delegated"}`, domain)) }
	record := func(name, kind, body string) [3]string {
		return [3]string{"PUT", "/v1/domains/" + d.Token + "/records/" + name + "/" + kind, body}
	}
	pool := func(body string) [3]string { return [3]string{"PUT", "/v1/pools/new", body} }
	const one = `{"ttl":300,"values":["192.0.2.1"]}`
	long, label := strings.Repeat("a.", 127), strings.Repeat("a", 64)
	for name, c := range map[string]struct {
		request [3]string
		status  int
		field   string
		says    string
	}{
		"malformed JSON":               {add(`{"domain":`), 400, "", "ends in the middle"},
		"no body":                      {add(``), 400, "", "required"},
		"an array":                     {add(`[]`), 422, "", "object"},
		"trailing data":                {add(`{"domain":"a.example.test","mode":"cname"} 1`), 400, "", "behind"},
		"a member twice":               {add(`{"domain":"a.example.test","domain":"b.example.test","mode":"cname"}`), 400, "domain", "twice"},
		"an unknown field":             {add(`{"domain":"a.example.test","mode":"cname","color":"red"}`), 422, "color", "unknown field"},
		"another case of a field":      {add(`{"Domain":"a.example.test","mode":"cname"}`), 422, "Domain", "not a field"},
		"an unknown query parameter":   {[3]string{"GET", "/v1/domains?colour=red", ""}, 422, "colour", "unknown"},
		"a wrong type":                 {add(`{"domain":7,"mode":"cname"}`), 422, "domain", "string"},
		"a wrong type inside":          {add(`{"domain":"a.example.test","mode":"cname","labels":{"a":1}}`), 422, "labels.a", "string"},
		"a missing field":              {add(`{"mode":"cname"}`), 422, "domain", "missing"},
		"an unknown mode":              {add(`{"domain":"a.example.test","mode":"both"}`), 422, "mode", "one of"},
		"an empty name":                {named(""), 422, "domain", ""},
		"a long name":                  {named(long + "example.test"), 422, "domain", "octets"},
		"a long label":                 {named(label + ".example.test"), 422, "domain", "63"},
		"two dots":                     {named("a..example.test"), 422, "domain", "empty label"},
		"a leading dot":                {named(".example.test"), 422, "domain", "empty label"},
		"one label":                    {named("localhost"), 422, "domain", "two labels"},
		"a wildcard":                   {named("*.example.test"), 422, "domain", "wildcard"},
		"a U-label":                    {named("bücher.example.test"), 422, "domain", "xn--bcher-kva.example.test"},
		"a space":                      {named("a b.example.test"), 422, "domain", "not allowed"},
		"a NUL":                        {add(`{"domain":"a\u0000.example.test","mode":"cname"}`), 422, "domain", "not allowed"},
		"an address":                   {named("192.0.2.1"), 422, "domain", "address"},
		"a public suffix":              {named("co.uk"), 422, "domain", "public suffix"},
		"the registrable domain":       {named("customer.co.uk"), 422, "domain", "registered domain"},
		"a platform zone":              {named("x.p-dns.test"), 409, "domain", "platform zone"},
		"an unknown pool":              {add(`{"domain":"a.example.test","mode":"cname","pool":"nope"}`), 422, "pool", "no pool"},
		"a domain of its own again":    {named("send.customer.example"), 409, "domain", "already"},
		"an unknown tenant":            {[3]string{"POST", "/v1/tenants/nobody/domains", `{"domain":"a.example.test","mode":"cname"}`}, 404, "tenant", "no tenant"},
		"a bad signs_for":              {add(`{"domain":"a.example.test","mode":"cname","signs_for":["ok.example.test","*.x.test"]}`), 422, "signs_for[1]", "wildcard"},
		"too many labels":              {add(`{"domain":"a.example.test","mode":"cname","labels":{` + manyLabels(33) + `}}`), 422, "labels", ""},
		"a DMARC policy that is none":  {add(`{"domain":"a.example.test","mode":"cname","dmarc":"p=reject"}`), 422, "dmarc", ""},
		"bound names in delegated":     {add(`{"domain":"a.example.test","mode":"delegated","targets":{"bounce":"b.p-dns.test"}}`), 422, "targets", ""},
		"a bound name outside":         {add(`{"domain":"a.example.test","mode":"cname","targets":{"bounce":"b.example.test"}}`), 422, "targets.bounce", "platform zone"},
		"a key that is no PEM":         {add(`{"domain":"a.example.test","mode":"cname","keys":[{"private_key":"MIIB"}]}`), 422, "keys[0].private_key", ""},
		"a record outside the domain":  {record("www.customer.example.", "A", one), 422, "name", "outside"},
		"a record with a doubled name": {record("www.send.customer.example", "A", one), 422, "name", "relative"},
		"a managed name":               {record("_dmarc", "TXT", `{"ttl":300,"values":["v=DMARC1"]}`), 422, "values", "managed"},
		"a managed MX":                 {record("@", "MX", `{"ttl":3600,"values":["10 mx.example.test."]}`), 422, "values", "managed"},
		"a relative target":            {record("www", "CNAME", `{"ttl":300,"values":["click"]}`), 422, "values[0]", "write click.send.customer.example."},
		"a relative MX":                {record("www", "MX", `{"ttl":300,"values":["10 mx1.example.test","20 mail"]}`), 422, "values[1]", "write mail.send.customer.example."},
		"a target @":                   {record("www", "CNAME", `{"ttl":300,"values":["@"]}`), 422, "values[0]", "write send.customer.example."},
		"a managed SOA":                {record("@", "SOA", one), 422, "type", "cannot be set"},
		"a CNAME beside other data":    {record("www", "CNAME", `{"ttl":300,"values":["a.example.test."]}`), 422, "values", "CNAME"},
		"two CNAMEs":                   {record("x", "CNAME", `{"ttl":300,"values":["a.example.test.","b.example.test."]}`), 422, "values", ""},
		"a TTL too low":                {record("x", "A", `{"ttl":59,"values":["192.0.2.1"]}`), 422, "ttl", "60"},
		"a TTL too high":               {record("x", "A", `{"ttl":86401,"values":["192.0.2.1"]}`), 422, "ttl", "86400"},
		"a negative TTL":               {record("x", "A", `{"ttl":-1,"values":["192.0.2.1"]}`), 422, "ttl", ""},
		"an unknown type":              {record("x", "NOPE", one), 422, "type", ""},
		"a meta type":                  {record("x", "AXFR", one), 422, "type", "cannot be set"},
		"a type that is OPT":           {record("x", "TYPE41", one), 422, "type", "cannot be set"},
		"an A with an IPv6 address":    {record("x", "A", `{"ttl":300,"values":["2001:db8::1"]}`), 422, "values", "2001:db8::1"},
		"no values":                    {record("x", "A", `{"ttl":300,"values":[]}`), 422, "values", ""},
		"a record of a CNAME domain":   {[3]string{"PUT", "/v1/domains/customer.example/records/x/A", one}, 422, "name", "cname"},
		"removing what is not there":   {[3]string{"DELETE", "/v1/domains/" + d.Token + "/records/x/A", ""}, 404, "name", "no extra"},
		"a reserved platform name":     {[3]string{"PUT", "/v1/zones/p-dns.test/records/x.dkim/A", one}, 422, "name", "managed"},
		"a zone that is not ours":      {[3]string{"PUT", "/v1/zones/example.test/records/x/A", one}, 404, "zone", "no platform zone"},
		"a contact that is none":       {[3]string{"PUT", "/v1/zones/q-dns.test", `{"contact":"hostmaster"}`}, 422, "contact", "mail address"},
		"a contact with two @":         {[3]string{"PUT", "/v1/zones/q-dns.test", `{"contact":"a@b@q-dns.test"}`}, 422, "contact", "mail address"},
		"a name server named freely":   {[3]string{"PUT", "/v1/nameservers/primary", `{"addresses":["192.0.2.1"]}`}, 422, "nameserver", "ns1"},
		"a name server's bad address":  {[3]string{"PUT", "/v1/nameservers/ns3", `{"addresses":["192.0.2.1","example"]}`}, 422, "addresses[1]", "IP address"},
		"SPF that costs look-ups":      {pool(`{"spf":["include:example.test"]}`), 422, "spf[0]", "look-up"},
		"SPF for everybody":            {pool(`{"spf":["ip4:0.0.0.0/0"]}`), 422, "spf[0]", "everyone"},
		"an SPF end that is none":      {pool(`{"spf_all":"+all"}`), 422, "spf_all", "~all"},
		"an MX host that is none":      {pool(`{"mx":[{"preference":10,"host":"mx"}]}`), 422, "mx[0].host", "two labels"},
		"an MX preference too high":    {pool(`{"mx":[{"preference":65536,"host":"mx.example.test"}]}`), 422, "mx[0].preference", "65535"},
		"IPv6 among click's A":         {pool(`{"click":{"a":["2001:db8::1"]}}`), 422, "click.a[0]", "click.aaaa"},
		"a period that is none":        {pool(`{"dkim":{"period":"90 days"}}`), 422, "dkim.period", "duration"},
		"a period too short":           {pool(`{"dkim":{"period":"1h"}}`), 422, "dkim.period", ""},
		"an algorithm that is none":    {pool(`{"dkim":{"algorithms":["rsa1024"]}}`), 422, "dkim.algorithms[0]", "rsa1024"},
		"a pool id that is none":       {[3]string{"PUT", "/v1/pools/No_Good", `{}`}, 422, "pool", "a-z"},
		"removing a pool in use":       {[3]string{"DELETE", "/v1/pools/default", ""}, 409, "pool", "domains"},
		"removing a zone in use":       {[3]string{"DELETE", "/v1/zones/p-dns.test", ""}, 409, "zone", "claims"},
		"a tenant id that is none":     {[3]string{"POST", "/v1/tenants", `{"id":"A C"}`}, 422, "id", "a-z"},
		"a tenant of another name":     {[3]string{"POST", "/v1/tenants", `{"id":"acme","name":"Other"}`}, 409, "id", "already"},
		"an unknown scope":             {[3]string{"POST", "/v1/tokens", `{"scope":"root"}`}, 422, "scope", "none of"},
		"a scope of no tenant":         {[3]string{"POST", "/v1/tokens", `{"scope":"tenant:nobody"}`}, 422, "scope", "no tenant"},
		"a subnet that is none":        {[3]string{"POST", "/v1/tokens", `{"scope":"read","subnets":["192.0.2.1/24"]}`}, 422, "subnets[0]", "192.0.2.0/24"},
		"an expiry that is past":       {[3]string{"POST", "/v1/tokens", `{"scope":"read","expires_at":"2020-01-01T00:00:00Z"}`}, 422, "expires_at", "past"},
		"an expiry nobody can write":   {[3]string{"POST", "/v1/tokens", `{"scope":"read","expires_at":"9999-12-31T23:59:59-23:00"}`}, 422, "expires_at", "after the year 9999"},
		"no reason to attest":          {[3]string{"POST", "/v1/domains/" + d.Token + "/attest", `{"reason":""}`}, 422, "reason", ""},
		"no reason to end now":         {[3]string{"DELETE", "/v1/domains/" + d.Token + "?now=true", ""}, 422, "reason", "reason"},
		"a wait for something else":    {[3]string{"DELETE", "/v1/domains/" + d.Token + "?wait=forever", ""}, 422, "wait", "one of"},
		"a cursor of somebody else":    {[3]string{"GET", "/v1/domains?cursor=abc", ""}, 422, "cursor", "not one of ours"},
		"a limit too high":             {[3]string{"GET", "/v1/domains?limit=1001", ""}, 422, "limit", "1000"},
		"a domain nobody has":          {[3]string{"GET", "/v1/domains/nobody.example", ""}, 404, "domain", "no domain"},
		"a token nobody has":           {[3]string{"GET", "/v1/domains/" + strings.Repeat("a", 26), ""}, 404, "domain", "token"},
		"a rotation from nowhere":      {[3]string{"POST", "/v1/domains/" + d.Token + "/rotate", `{"from":"nope"}`}, 422, "from", "no key"},
		"an emergency without reason":  {[3]string{"POST", "/v1/domains/" + d.Token + "/rotate", `{"emergency":true,"reason":" "}`}, 422, "reason", "needs a reason"},
		"an emergency from nowhere":    {[3]string{"POST", "/v1/domains/" + d.Token + "/rotate", `{"emergency":true,"reason":"x","from":"nope"}`}, 422, "from", "no key"},
		"an emergency of nobody":       {[3]string{"POST", "/v1/domains/nobody.example/rotate", `{"emergency":true,"reason":"x"}`}, 404, "domain", "no domain"},
		"a fate that is none":          {[3]string{"POST", "/v1/domains/" + d.Token + "/rotate", `{"emergency":true,"reason":"x","old":"burn"}`}, 422, "old", "one of"},
		"revoking the old key at once": {[3]string{"POST", "/v1/domains/" + d.Token + "/rotate", `{"old":"revoke"}`}, 422, "old", "emergency"},
		"a lost store":                 {[3]string{"POST", "/v1/domains/" + d.Token + "/rotate", `{"compromised":"store"}`}, 422, "compromised", "set emergency"},
		"revoking a key that is not":   {[3]string{"POST", "/v1/domains/" + d.Token + "/keys/nope/revoke", `{"reason":"x"}`}, 404, "selector", "no key"},
		"verification switched off":    {[3]string{"PUT", "/v1/cluster/settings", `{"verification_off":true}`}, 422, "verification_off", "dev"},
		"a node without a port":        {[3]string{"POST", "/v1/cluster/nodes", `{"id":"node-2","address":"192.0.2.1"}`}, 422, "address", "host:port"},
		"removing no node":             {[3]string{"DELETE", "/v1/cluster/nodes/node-9", ""}, 404, "id", "no node"},
		"an import of nothing":         {[3]string{"POST", "/v1/import", `{"items":[]}`}, 422, "items", "no items"},
		"an import of something else":  {[3]string{"POST", "/v1/import", `{"items":[{"tenant":"acme","owner":"x"}]}`}, 422, "items[0].owner", "not a field"},
		"a snapshot that is none":      {[3]string{"POST", "/v1/cluster/snapshot", `garbage`}, 422, "", "not restored"},
		"a path that is none":          {[3]string{"GET", "/v1/nothing", ""}, 404, "", "nothing at this path"},
		"a path outside":               {[3]string{"GET", "/v1/../etc/passwd", ""}, 404, "", "nothing at this path"},
		"an escaped path outside":      {[3]string{"GET", "/v1/%2e%2e/etc", ""}, 404, "", "nothing at this path"},
		"a trailing slash":             {[3]string{"GET", "/v1/tenants/", ""}, 404, "", "nothing at this path"},
		"a method that is none":        {[3]string{"DELETE", "/v1/tenants", ""}, 405, "", "DELETE"},
		"a preflight":                  {[3]string{"OPTIONS", "/v1/tenants", ""}, 405, "", "OPTIONS"},
		"a long URI":                   {[3]string{"GET", "/v1/domains/" + strings.Repeat("a", 9000), ""}, 414, "", "8192"},
		"events after no number":       {[3]string{"GET", "/v1/events?after=x", ""}, 422, "after", "number"},
		"changes after no number":      {[3]string{"GET", "/v1/audit?after=x", ""}, 422, "after", ""},
		"a timeline of nobody":         {[3]string{"GET", "/v1/domains/nobody.example/timeline", ""}, 404, "domain", "no domain"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &house{T: t, replica: h.replica, handler: h.handler, log: h.log, tokens: h.tokens}
			before := h.image()
			a := h.ask(c.request[0], c.request[1], c.request[2])
			p := a.problem
			if a.Code != c.status || p.Field != c.field || !strings.Contains(p.Detail, c.says) {
				t.Errorf("%d, field %q: %s\nwant %d, field %q, …%s…", a.Code, p.Field, a.Body, c.status, c.field, c.says)
			}
			if !bytes.Equal(before, h.image()) {
				t.Error("something changed")
			}
			if c.status == http.StatusMethodNotAllowed && a.Header().Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			if got := a.Header().Get("Access-Control-Allow-Origin"); got != "" {
				t.Errorf("a cross-origin reply: %q", got)
			}
		})
	}
}

func manyLabels(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(`"l%d":""`, i))
	}
	return strings.Join(all, ",")
}

func TestBodyBoundsAre413(t *testing.T) {
	h := newHouse(t)
	before := h.image()
	for name, c := range map[string]struct {
		path string
		size int
	}{
		"any":    {"/v1/tenants", MaxBody + 1},
		"import": {"/v1/import", maxImportBody + 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := &house{T: t, replica: h.replica, handler: h.handler, log: h.log, tokens: h.tokens}
			body := `{"id":"x","name":"` + strings.Repeat(" ", c.size-20) + `"}`
			for _, length := range []int64{int64(len(body)), -1} { // said, and chunked
				r := httptest.NewRequest("POST", c.path, strings.NewReader(body))
				r.ContentLength = length
				r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
				if a := h.send(r); a.Code != http.StatusRequestEntityTooLarge || a.problem.Code != "too_large" {
					t.Errorf("length %d: %d %.300s", length, a.Code, a.Body)
				}
			}
		})
	}
	if !bytes.Equal(before, h.image()) {
		t.Error("something changed")
	}
}

func TestBodyOfTheGreatestSizeIsRead(t *testing.T) {
	h := newHouse(t)
	body := `{"id":"x","name":"X"}`
	body += strings.Repeat(" ", MaxBody-len(body))
	h.must(http.StatusCreated, "POST", "/v1/tenants", body)
}

func TestHeadersThatAreRefused(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]struct {
		header, value string
		status        int
		field         string
	}{
		"a compressed body":     {"Content-Encoding", "gzip", 415, "Content-Encoding"},
		"an unknown media type": {"Content-Type", "text/csv", 415, "Content-Type"},
		"a form":                {"Content-Type", "application/x-www-form-urlencoded", 415, "Content-Type"},
		"a key with a control":  {"Idempotency-Key", "a\tb", 422, "Idempotency-Key"},
		"a key without an end":  {"Idempotency-Key", strings.Repeat("a", 256), 422, "Idempotency-Key"},
		"a condition":           {"If-Match", `"1"`, 501, "If-Match"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &house{T: t, replica: h.replica, handler: h.handler, log: h.log, tokens: h.tokens}
			before := h.image()
			r := httptest.NewRequest("POST", "/v1/tenants", strings.NewReader(`{"id":"x"}`))
			r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
			r.Header.Set(c.header, c.value)
			if a := h.send(r); a.Code != c.status || a.problem.Field != c.field {
				t.Errorf("%d %s", a.Code, a.Body)
			}
			if !bytes.Equal(before, h.image()) {
				t.Error("something changed")
			}
		})
	}
}

// A body may hold private keys: no problem repeats one.
func TestProblemsDoNotRepeatTheBody(t *testing.T) {
	h := newHouse(t)
	for _, body := range []string{
		`{"domain":"a.example.test","mode":"cname","keys":[{"private_key":"SECRET-HALF"}],"x":1}`,
		`{"domain":"a.example.test","mode":"cname","keys":[{"private_key":"SECRET-HALF"}]`,
		`{"domain":"a.example.test","mode":"cname","keys":[{"private_key":"SECRET-HALF","selector":1}]}`,
	} {
		a := h.ask("POST", "/v1/tenants/acme/domains", body)
		if a.Code < 400 || strings.Contains(a.Body.String(), "SECRET-HALF") {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
	if strings.Contains(h.log.String(), "SECRET-HALF") {
		t.Error("the log repeats it")
	}
}

func TestRepeatedSlashesAreCollapsedWithoutRedirect(t *testing.T) {
	h := newHouse(t)
	h.live("acme", "send.customer.example")
	for _, path := range []string{"/v1/dkim//send.customer.example", "//v1//dkim/send.customer.example", "/v1/domains///send.customer.example"} {
		if a := h.ask("GET", path, ""); a.Code != http.StatusOK {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
	for _, path := range []string{"/v1/domains/../tenants", "/v1/./tenants", "/v1/domains/%2e%2e/tenants"} {
		if a := h.ask("GET", path, ""); a.Code != http.StatusNotFound || a.Header().Get("Location") != "" {
			t.Errorf("%s: %d, on to %q", path, a.Code, a.Header().Get("Location"))
		}
	}
}
