package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"authd/zone"
)

func TestQueriesOfADomainAreCountedOnlyOnRequest(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "send.customer.example", "delegated")
	path := "/v1/domains/" + d.Token + "/queries"
	if a := h.ask("GET", path, ""); a.Code != http.StatusNotFound || !strings.Contains(a.problem.Detail, "POST /v1/domains/"+d.Token) {
		t.Errorf("before anybody asked: %d %s", a.Code, a.Body)
	}
	q := read[Queries](h, h.must(http.StatusOK, "POST", path, `{"minutes":5}`))
	if q.Node != "node-1" || q.Until.Sub(q.Since) != 5*time.Minute || len(q.Counts) != 0 {
		t.Errorf("%+v", q)
	}
	if q = read[Queries](h, h.must(http.StatusOK, "POST", path, `{}`)); q.Until.Sub(q.Since) != 10*time.Minute {
		t.Errorf("by default %+v", q)
	}
	h.must(http.StatusOK, "GET", path, "")
	h.must(http.StatusNoContent, "DELETE", path, "")
	h.must(http.StatusNotFound, "GET", path, "")
	for _, minutes := range []int{-1, 1441} {
		h.must(http.StatusUnprocessableEntity, "POST", path, fmt.Sprintf(`{"minutes":%d}`, minutes))
	}
}

func TestNoMoreDomainsAreCountedThanTheBound(t *testing.T) {
	h := newHouse(t)
	path := func(i int) string {
		return "/v1/domains/" + h.claim("acme", fmt.Sprintf("send.customer-%d.example", i), "cname").Token + "/queries"
	}
	for i := range zone.MaxCensus {
		h.must(http.StatusOK, "POST", path(i), `{"minutes":5}`)
	}
	last := path(zone.MaxCensus)
	if a := h.ask("POST", last, `{"minutes":5}`); a.Code != http.StatusConflict || !strings.Contains(a.problem.Detail, "16 domains") {
		t.Errorf("one more: %d %s", a.Code, a.Body)
	}
	h.now = h.now.Add(6 * time.Minute)
	h.must(http.StatusOK, "POST", last, `{"minutes":5}`) // in the place of one that ended
}
