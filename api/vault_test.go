package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
)

// vaultDoc is what the clients read: vaultrs (KumoMTA) fails on a missing member,
// so that the test decodes into pointers.
type vaultDoc struct {
	RequestID     *string `json:"request_id"`
	LeaseID       *string `json:"lease_id"`
	LeaseDuration *int    `json:"lease_duration"`
	Renewable     *bool   `json:"renewable"`
	Data          struct {
		Data struct {
			Key, Selector, Domain, Stage string
			Selectors                    []SigningKey
		} `json:"data"`
		Metadata struct {
			CreatedTime  *string `json:"created_time"`
			DeletionTime *string `json:"deletion_time"`
			Destroyed    *bool   `json:"destroyed"`
			Version      *int    `json:"version"`
		} `json:"metadata"`
		Keys    []string          `json:"keys"`
		Path    string            `json:"path"`
		Type    string            `json:"type"`
		Options map[string]string `json:"options"`
	} `json:"data"`
	Errors []string `json:"errors"`
}

// vault asks as Vault's clients do: the token in their header.
func (h *house) vault(method, path string) (int, vaultDoc) {
	h.Helper()
	r := newRequest(method, path, "")
	r.Header.Set("X-Vault-Token", h.tokens["signer"])
	r.Header.Set("X-Vault-Request", "true")
	a := h.send(r)
	var doc vaultDoc
	if err := json.Unmarshal(a.Body.Bytes(), &doc); err != nil {
		h.Fatalf("%s %s: %s: %v", method, path, a.Body, err)
	}
	return a.Code, doc
}

// TestKVVersion2HasEveryMemberThatClientsNeed replays what KumoMTA and Vault's own
// clients ask.
func TestKVVersion2HasEveryMemberThatClientsNeed(t *testing.T) {
	h := newHouse(t)
	h.live("acme", "send.customer.example")
	plain := read[Secret](h, h.must(http.StatusOK, "GET", "/v1/dkim/send.customer.example", ""))
	selector := plain.Data.Selector
	for path, wantKey := range map[string]string{
		"/v1/secret/data/dkim/send.customer.example":              string(plain.Data.Key),
		"/v1/secret/data/dkim//send.customer.example/" + selector: string(plain.Data.Key), // KumoMTA's own example doubles the slash
	} {
		status, doc := h.vault("GET", path)
		if status != http.StatusOK || doc.RequestID == nil || doc.LeaseID == nil || doc.LeaseDuration == nil || doc.Renewable == nil {
			t.Fatalf("%s: %d %+v", path, status, doc)
		}
		meta := doc.Data.Metadata
		if meta.CreatedTime == nil || meta.DeletionTime == nil || meta.Destroyed == nil || meta.Version == nil || *meta.Version != 1 {
			t.Errorf("%s: metadata %+v", path, meta)
		}
		if doc.Data.Data.Key != wantKey || doc.Data.Data.Selector != selector || doc.Data.Data.Domain != "send.customer.example" {
			t.Errorf("%s: %+v", path, doc.Data.Data)
		}
	}
}

func TestVaultClientsFindMountsListsAndTheirToken(t *testing.T) {
	h := newHouse(t)
	h.live("acme", "send.customer.example")
	h.claim("globex", "other.example", "cname")
	h.claim("globex", "pending.example.test", "delegated")
	for path, version := range map[string]string{"dkim/send.customer.example": "1", "dkim": "1", "secret/dkim/x.example": "2"} {
		status, doc := h.vault("GET", "/v1/sys/internal/ui/mounts/"+path)
		if status != http.StatusOK || doc.Data.Type != "kv" || doc.Data.Options["version"] != version || !strings.HasSuffix(doc.Data.Path, "/") {
			t.Errorf("%s: %d %+v", path, status, doc.Data)
		}
	}
	if status, _ := h.vault("GET", "/v1/sys/internal/ui/mounts/kv"); status != http.StatusForbidden {
		t.Errorf("a mount that is not there: %d", status)
	}
	want := []string{"other.example", "send.customer.example"}
	for _, ask := range [][2]string{{"LIST", "/v1/dkim"}, {"GET", "/v1/dkim?list=true"}, {"LIST", "/v1/secret/metadata/dkim"}, {"GET", "/v1/secret/metadata/dkim/?list=true"}} {
		status, doc := h.vault(ask[0], ask[1])
		got := slices.Sorted(slices.Values(doc.Data.Keys))
		if status != http.StatusOK || !slices.Equal(got, want) {
			t.Errorf("%s %s: %d %v", ask[0], ask[1], status, got)
		}
	}
	_, first := h.vault("GET", "/v1/dkim?list=true&limit=1")
	_, rest := h.vault("GET", "/v1/dkim?list=true&limit=1&after="+first.Data.Keys[0])
	if got := slices.Sorted(slices.Values(append(first.Data.Keys, rest.Data.Keys...))); !slices.Equal(got, want) {
		t.Errorf("in pages: %v", got)
	}
	if a := h.as("tenant:globex", "GET", "/v1/dkim?list=true", ""); a.Code != http.StatusOK || !strings.Contains(a.Body.String(), "other.example") || strings.Contains(a.Body.String(), "customer") {
		t.Errorf("a tenant lists %d %s", a.Code, a.Body)
	}
	for _, limit := range []string{"0", "-1", "100001", "x"} {
		if status, _ := h.vault("GET", "/v1/dkim?list=true&limit="+limit); status != http.StatusBadRequest {
			t.Errorf("limit %s: %d", limit, status)
		}
	}
	if status, doc := h.vault("GET", "/v1/secret/data/dkim/other.example/k1/more"); status != http.StatusNotFound {
		t.Errorf("a path below a selector: %d %+v", status, doc.Data)
	}
	if status, doc := h.vault("LIST", "/v1/dkim/other.example/"); status == http.StatusOK {
		t.Errorf("a selector without a name: %+v", doc.Data)
	}
	if status, doc := h.vault("LIST", "/v1/secret/metadata/dkim/other.example"); status != http.StatusOK || !slices.Equal(doc.Data.Keys, []string{"k1"}) {
		t.Errorf("selectors: %d %v", status, doc.Data.Keys)
	}
	r := newRequest("GET", "/v1/auth/token/lookup-self", "")
	r.Header.Set("X-Vault-Token", h.tokens["signer"])
	if a := h.send(r); a.Code != http.StatusOK || strings.Contains(a.Body.String(), h.tokens["signer"]) || !strings.Contains(a.Body.String(), `"renewable":false`) {
		t.Errorf("lookup-self: %d %s", a.Code, a.Body)
	}
	if status, _ := h.vault("PUT", "/v1/auth/token/renew-self"); status != http.StatusBadRequest {
		t.Errorf("renew-self: %d", status)
	}
}

// A name with several claims is in the list once, or its pages would have no end.
func TestVaultListsANameOfSeveralClaimsOnce(t *testing.T) {
	h := newHouse(t)
	h.claim("acme", "shared.example", "cname")
	h.claim("globex", "shared.example", "cname")
	h.claim("globex", "other.example", "cname")
	var got []string
	after := ""
	for range 4 {
		status, page := h.vault("GET", "/v1/dkim?list=true&limit=1&after="+after)
		if status != http.StatusOK {
			break
		}
		got = append(got, page.Data.Keys...)
		after = page.Data.Keys[0]
	}
	if slices.Sort(got); !slices.Equal(got, []string{"other.example", "shared.example"}) {
		t.Errorf("in pages: %v", got)
	}
}

// TestVaultErrorsHaveVaultsShape: never 5xx for what is not there.
func TestVaultErrorsHaveVaultsShape(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	standby := stages(d)["standby"][0]
	for path, want := range map[string]int{
		"/v1/dkim": http.StatusMethodNotAllowed, "/v1/dkim?list=true&limit=x": 400, "/v1/dkim?list=true&after=nobody.example": 400,
		"/v1/dkim/nobody.example": 404, "/v1/dkim/No_Such..name": 404, "/v1/dkim/nobody.example/s1": 404,
		"/v1/dkim/send.customer.example/nope":       404,
		"/v1/dkim/send.customer.example/" + standby: 404, // it does not sign yet
		"/v1/dkim/send.customer.example/a/b":        404, "/v1/secret/data/dkim": 404, "/v1/secret/data/other/x": 404,
		"/v1/secret/data/dkim/a/b/c": 404, "/v1/secret/nothing": 404, "/v1/secret/metadata/other?list=true": 404,
	} {
		status, doc := h.vault("GET", path)
		if status != want || doc.Errors == nil {
			t.Errorf("%s: %d %v, want %d", path, status, doc.Errors, want)
		}
	}
	if status, doc := h.vault("PUT", "/v1/dkim/send.customer.example"); status != http.StatusMethodNotAllowed || len(doc.Errors) != 1 {
		t.Errorf("a write: %d %v", status, doc.Errors)
	}
	r := newRequest("GET", "/v1/dkim/send.customer.example", "")
	r.Header.Set("X-Vault-Token", "s.wrong")
	if a := h.send(r); a.Code != http.StatusForbidden || !strings.Contains(a.Body.String(), `{"errors":["permission denied"]}`) {
		t.Errorf("another's token: %d %s", a.Code, a.Body)
	}
	if a := h.as("read", "GET", "/v1/dkim/send.customer.example", ""); a.Code != http.StatusForbidden || !strings.Contains(a.Body.String(), `"errors":[`) {
		t.Errorf("a scope that may not: %d %s", a.Code, a.Body)
	}
}

// TestSelectorDocumentLastsAMomentLongerThanTheSelector: a signer that learnt the
// selector just before a rotation may still fetch its key, and no later.
func TestSelectorDocumentLastsAMomentLongerThanTheSelector(t *testing.T) {
	h := newHouse(t)
	h.claim("acme", "customer.example", "cname")
	h.confirm(h.claim("globex", "customer.test", "cname").Token)
	h.must(http.StatusOK, "POST", "/v1/domains/customer.test/rotate", "")
	for _, c := range []struct {
		after  int64
		status int
	}{{0, 200}, {14 * 60, 200}, {15 * 60, 404}} {
		h.now = time.Unix(h.at+c.after, 0)
		status, doc := h.vault("GET", "/v1/secret/data/dkim/customer.test/k1")
		if status != c.status || status == http.StatusOK && doc.Data.Data.Stage != "draining" {
			t.Errorf("after %d s: %d %+v", c.after, status, doc.Data.Data.Stage)
		}
	}
	token, _ := state.ParseToken(read[Domain](h, h.must(http.StatusOK, "GET", "/v1/domains/customer.test", "")).Token)
	d, _ := h.Machine().Domain(token)
	if k, ok := d.Ring().Active(keys.RSA2048); !ok || k.Selector != "k2" {
		t.Errorf("%+v", k)
	}
	if status, _ := h.vault("GET", "/v1/dkim/customer.test/k2"); status != http.StatusOK {
		t.Errorf("the active one: %d", status)
	}
}

// TestEveryReleaseIsNotedBeforeItLeaves: whatever the path, who read which key is
// told once a key; where that cannot be written no key leaves.
func TestEveryReleaseIsNotedBeforeItLeaves(t *testing.T) {
	h := newHouse(t)
	h.must(http.StatusCreated, "POST", "/v1/tenants/acme/domains", `{"domain":"both.example","mode":"cname","pool":"both"}`)
	paths := map[string]int{"/v1/dkim/both.example": 2, "/v1/secret/data/dkim/both.example": 2, "/v1/dkim/both.example/k1": 1, "/v1/secret/data/dkim/both.example/ke1": 1}
	for path, keys := range paths {
		h.read = nil
		if status, _ := h.vault("GET", path); status != http.StatusOK || len(h.read) != keys {
			t.Errorf("%s: %d, %d noted", path, status, len(h.read))
		}
		for _, r := range h.read {
			if r.Token == "" || r.Source == "" || r.Domain != "both.example." || r.Selector == "" || r.Key == 0 || len(r.Claim) != 26 {
				t.Errorf("%s: %+v", path, r)
			}
		}
	}
	for _, path := range []string{"/v1/dkim?list=true", "/v1/dkim/both.example/k2", "/v1/dkim/both.example/nope"} {
		h.read = nil
		h.vault("GET", path)
		if len(h.read) > 0 {
			t.Errorf("%s: noted %+v", path, h.read)
		}
	}
	h.unwritable = fmt.Errorf("%w: no space left on device", cluster.ErrJournal)
	for path := range paths {
		r := newRequest("GET", path, "")
		r.Header.Set("X-Vault-Token", h.tokens["signer"])
		a := h.send(r)
		if a.Code != http.StatusServiceUnavailable || a.Header().Get("Retry-After") == "" || !strings.Contains(a.Body.String(), "ask another node") || strings.Contains(a.Body.String(), "PRIVATE") {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
}
