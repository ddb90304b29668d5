package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"authd/cluster"
	"authd/keys/keystest"
)

// importBody is an import of customers in both modes, with two bad lines.
func importBody(dry bool) string {
	items := []string{}
	for i := range importBatch + 6 {
		mode := []string{"delegated", "cname"}[i%2]
		items = append(items, fmt.Sprintf(`{"line":%d,"tenant":"t%d","domain":"send%d.customer%d.example","mode":%q,"pool":"ed","labels":{"n":"%d"}}`, i+2, i%5, i, i, mode, i))
	}
	items[3] = `{"line":5,"tenant":"t1","domain":"*.customer.example","mode":"cname"}`
	items[40] = `{"line":42,"tenant":"t1","domain":"a.customer.example","mode":"cname","pool":"nope"}`
	return fmt.Sprintf(`{"dry_run":%v,"items":[%s]}`, dry, strings.Join(items, ","))
}

func importing(t *testing.T) *house {
	h := newHouse(t)
	h.must(http.StatusOK, "PUT", "/v1/pools/ed", `{"dkim":{"algorithms":["ed25519"]}}`)
	return h
}

func TestImportTellsEachLine(t *testing.T) {
	h := importing(t)
	out := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import?wait=served&reason=migration", importBody(false)))
	if out.Added != importBatch+4 || out.Refused != 2 || out.Exists != 0 || len(out.Results) != importBatch+6 {
		t.Errorf("%d added, %d refused, %d exist", out.Added, out.Refused, out.Exists)
	}
	for i, r := range out.Results {
		bad := i == 3 || i == 40
		if r.Line != i+2 || bad != (r.Status == "refused") || bad != (r.Problem != nil) || bad != (r.Token == "") {
			t.Errorf("%+v", r)
		}
	}
	if p := out.Results[3].Problem; p.Field != "domain" || p.Status != 422 {
		t.Errorf("%+v", p)
	}
	if p := out.Results[40].Problem; p.Field != "pool" {
		t.Errorf("%+v", p)
	}
	if h.Machine().DomainCount() != out.Added || len(h.waited) != 1 {
		t.Errorf("%d domains, waited for %v", h.Machine().DomainCount(), h.waited)
	}
	if list := read[TenantList](h, h.must(http.StatusOK, "GET", "/v1/tenants", "")); len(list.Items) != 7 {
		t.Errorf("%d tenants", len(list.Items))
	}
}

// A tenant that cannot be added is refused for what is wrong with it, not as missing.
func TestImportTellsWhatIsWrongWithATenant(t *testing.T) {
	h := importing(t)
	for _, dry := range []string{"true", "false"} {
		out := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import",
			`{"dry_run":`+dry+`,"items":[{"tenant":"Big Corp","domain":"send.big.example","mode":"delegated","pool":"ed"}]}`))
		p := out.Results[0].Problem
		if p == nil || p.Field != "tenant" || p.Status != 422 || !strings.Contains(p.Detail, `"Big Corp"`) || !strings.Contains(p.Detail, "hyphens") {
			t.Errorf("dry run %s: %+v", dry, p)
		}
	}
}

func TestImportAgainChangesNothing(t *testing.T) {
	h := importing(t)
	first := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", importBody(false)))
	before := h.image()
	again := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import?wait=served", importBody(false)))
	if len(h.waited) != 1 || h.waited[0] != h.Machine().Index() {
		t.Errorf("waited for %v", h.waited)
	}
	if again.Added != 0 || again.Exists != first.Added || again.Refused != 2 || string(before) != string(h.image()) {
		t.Errorf("%d added, %d exist, %d refused", again.Added, again.Exists, again.Refused)
	}
	for i := range again.Results {
		if again.Results[i].Token != first.Results[i].Token {
			t.Errorf("%+v was %+v", again.Results[i], first.Results[i])
		}
	}
}

// A dry run says what the real one comes to.
func TestDryRunChangesNothingAndTellsTheSame(t *testing.T) {
	h := importing(t)
	before := h.image()
	dry := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", importBody(true)))
	if string(before) != string(h.image()) || !dry.DryRun {
		t.Error("something changed")
	}
	wet := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", importBody(false)))
	if dry.Added != wet.Added || dry.Refused != wet.Refused {
		t.Errorf("%d added and %d refused, then %d and %d", dry.Added, dry.Refused, wet.Added, wet.Refused)
	}
	for i := range dry.Results {
		if dry.Results[i].Status != wet.Results[i].Status {
			t.Errorf("line %d: %s, then %s", dry.Results[i].Line, dry.Results[i].Status, wet.Results[i].Status)
		}
	}
	again := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", importBody(true)))
	if again.Exists != wet.Added || again.Added != 0 {
		t.Errorf("%+v", again)
	}
}

func TestImportOfTheSameDomainTwiceIsRefusedOnce(t *testing.T) {
	h := importing(t)
	item := `{"line":%d,"tenant":"acme","domain":"send.customer.example","mode":"delegated","pool":"ed"}`
	for _, dry := range []bool{true, false} {
		body := fmt.Sprintf(`{"dry_run":%v,"items":[`+item+","+item+`]}`, dry, 1, 2)
		out := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", body))
		if out.Added != 1 || out.Refused != 1 || out.Results[1].Problem.Code != "conflict" {
			t.Errorf("dry %v: %+v", dry, out)
		}
	}
}

// What is there already is the same tenant's claim in the same mode, unless it leaves.
func TestImportTellsWhatIsThereFromWhatIsLikeIt(t *testing.T) {
	h := importing(t)
	h.live("acme", "send.customer.example")
	leaving := h.live("acme", "send.leaving.example")
	h.must(http.StatusOK, "DELETE", "/v1/domains/"+leaving.Token, "")
	item := func(tenant, domain, mode string) string {
		return fmt.Sprintf(`{"tenant":%q,"domain":%q,"mode":%q,"pool":"ed"}`, tenant, domain, mode)
	}
	body := `{"items":[` + strings.Join([]string{
		item("acme", "send.customer.example", "delegated"), item("acme", "send.customer.example", "cname"),
		item("globex", "send.customer.example", "delegated"), item("acme", "send.leaving.example", "delegated"),
	}, ",") + `]}`
	out := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", body))
	for i, want := range []string{"exists", "added", "added", "refused"} {
		if out.Results[i].Status != want {
			t.Errorf("item %d: %+v, want %s", i+1, out.Results[i], want)
		}
	}
	many := `{"items":[` + strings.Repeat("{},", maxElements) + `{}]}`
	if a := h.ask("POST", "/v1/import", many); a.Code != http.StatusUnprocessableEntity || a.problem.Field != "items" {
		t.Errorf("one item too many: %d %.200s", a.Code, a.Body)
	}
}

func TestImportBringsTargetsAndKeys(t *testing.T) {
	h := newHouse(t)
	item := ImportItem{Line: 1, Tenant: "initech", NewDomain: NewDomain{
		Domain: "old.example", Mode: "cname", Pool: "default",
		Targets: &NewTargets{Bounce: "b1.live.p-dns.test"},
		Keys:    []NewKey{{"", PrivateText(keystest.Pair(61).PKCS8())}},
	}}
	for _, dry := range []bool{true, false} {
		out := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", jsonText(t, Import{Items: []ImportItem{item}, DryRun: dry})))
		if out.Added != 1 {
			t.Fatalf("dry %v: %+v", dry, out.Results[0].Problem)
		}
	}
	d := read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/old.example", ""))
	if d.Tenant != "initech" || d.Records[3].Value != "b1.live.p-dns.test." || d.Keys[0].Public != keystest.Pair(61).Payload() {
		t.Errorf("%+v", d)
	}
}

// Whatever happened before the leader was lost, the same import sent again
// comes to the same end.
func TestImportIsResumedAfterAnUnknownOutcome(t *testing.T) {
	for _, lost := range []bool{false, true} {
		h := importing(t)
		h.refuse, h.lost = cluster.ErrUnknown, lost
		if a := h.ask("POST", "/v1/import", importBody(false)); a.Code != http.StatusServiceUnavailable || a.problem.Code != "outcome_unknown" {
			t.Fatalf("%d %s", a.Code, a.Body)
		}
		there := h.Machine().DomainCount()
		if (there > 0) != lost {
			t.Errorf("lost %v: %d domains", lost, there)
		}
		h.refuse = nil
		out := read[Imported](h, h.must(http.StatusOK, "POST", "/v1/import", importBody(false)))
		if out.Exists != there || out.Added+out.Exists != importBatch+4 || h.Machine().DomainCount() != importBatch+4 {
			t.Errorf("%d added, %d exist, %d were there", out.Added, out.Exists, there)
		}
	}
}
