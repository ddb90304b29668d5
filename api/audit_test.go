package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"authd/cluster"
	"authd/cluster/state"
)

func TestAuditSaysWhoChangedWhat(t *testing.T) {
	h := newHouse(t)
	last := read[AuditPage](h, h.must(200, "GET", "/v1/audit?limit=1000", "")).Last
	h.must(200, "POST", "/v1/tenants/acme/suspend?reason=late+payment", "")
	page := read[AuditPage](h, h.must(200, "GET", fmt.Sprintf("/v1/audit?after=%d", last), ""))
	if len(page.Items) != 1 || page.Next != nil {
		t.Fatalf("%+v", page)
	}
	e := page.Items[0]
	if e.Seq != last+1 || e.Command != "SuspendTenant" || e.Subject != "acme" || e.Reason != "late payment" || e.Source != "192.0.2.1" || e.Actor == "" || e.Hash != page.Head {
		t.Errorf("%+v", e)
	}
}

func TestAuditPagesMakeOneChain(t *testing.T) {
	h := newHouse(t)
	page := read[AuditPage](h, h.must(200, "GET", "/v1/audit?limit=3", ""))
	hash, err := state.ParseAuditHash(page.Base)
	if err != nil {
		t.Fatal(err)
	}
	count := uint64(0)
	for {
		if len(page.Items) > 3 {
			t.Errorf("%d on a page of 3", len(page.Items))
		}
		for _, e := range page.Items {
			if hash = e.Next(hash); hash.String() != e.Hash {
				t.Fatalf("change %d does not follow", e.Seq)
			}
			count++
		}
		if page.Next == nil {
			break
		}
		page = read[AuditPage](h, h.must(200, "GET", fmt.Sprintf("/v1/audit?limit=3&after=%d", *page.Next), ""))
	}
	if count != page.Last || hash.String() != page.Head {
		t.Errorf("%d of %d changes", count, page.Last)
	}
}

func TestTenantSeesItsOwnChangesWithoutOthersAddresses(t *testing.T) {
	h := newHouse(t)
	h.live("acme", "send.customer.example")
	h.live("globex", "send.customer2.example")
	d := read[Domain](h, h.must(200, "GET", "/v1/domains/send.customer.example", ""))
	if a := h.as("tenant:acme", "PATCH", "/v1/domains/"+d.Token, `{"labels":{"a":"b"}}`); a.Code != 200 {
		t.Fatal(a.Body)
	}
	page := read[AuditPage](h, h.as("tenant:acme", "GET", "/v1/audit?limit=1000", ""))
	own := 0
	for _, e := range page.Items {
		if e.Tenant != "acme" {
			t.Errorf("sees %+v", e)
		}
		if e.Source != "" {
			own++
		}
	}
	if len(page.Items) < 4 || own != 1 {
		t.Errorf("%d changes, %d with an address", len(page.Items), own)
	}
}

// overflow makes more changes than are remembered.
func (h *house) overflow() {
	h.Helper()
	for n := 0; n < state.MaxAudit+1000; n += state.MaxBatch {
		commands := make([]state.Command, state.MaxBatch)
		for i := range commands {
			commands[i] = state.SuspendTenant{ID: "acme", Suspended: i%2 == 0}
		}
		if _, _, err := h.Propose(context.Background(), cluster.Actor{ID: "test"}, commands...); err != nil {
			h.Fatal(err)
		}
	}
}

func TestChangesThatAreForgottenAreGone(t *testing.T) {
	h := newHouse(t)
	h.overflow()
	for _, path := range []string{"/v1/audit?after=3", "/v1/events?after=3"} {
		if a := h.ask("GET", path, ""); a.Code != http.StatusGone || a.problem.Code != codeGone || !strings.Contains(a.problem.Detail, "from 4 to") {
			t.Errorf("%s: %d %s", path, a.Code, a.Body)
		}
	}
	r := newRequest("GET", "/v1/events", "")
	r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
	if h.handler.follow(r, &stream{seq: 3}) {
		t.Error("a stream that fell behind goes on as if it had missed nothing")
	}
	page := read[AuditPage](h, h.must(200, "GET", "/v1/audit?limit=1", ""))
	if page.First != page.Items[0].Seq || page.Last-page.First+1 != state.MaxAudit {
		t.Errorf("%+v", page)
	}
}

// follower is a client of the change stream.
type follower struct {
	*testing.T
	lines  *bufio.Scanner
	reply  *http.Response
	cancel func()
}

// listening serves the API on loopback.
func (h *house) listening() *Server {
	h.Helper()
	s, err := Listen(ListenConfig{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Handler: h.handler, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

func (h *house) following(s *Server, scope, query, last string) *follower {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	h.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.sockets[0].Addr().String()+"/v1/events"+query, nil)
	if err != nil {
		h.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+h.tokens[scope])
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	reply, err := http.DefaultClient.Do(r)
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { reply.Body.Close() })
	return &follower{T: h.T, lines: bufio.NewScanner(reply.Body), reply: reply, cancel: cancel}
}

// next is the next change; nil at the end of the stream.
func (f *follower) next() *state.AuditEntry {
	f.Helper()
	id := ""
	for f.lines.Scan() {
		line := f.lines.Text()
		if number, ok := strings.CutPrefix(line, "id: "); ok {
			id = number
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			var e state.AuditEntry
			if err := json.Unmarshal([]byte(data), &e); err != nil || fmt.Sprint(e.Seq) != id {
				f.Fatalf("%v: id %s, %s", err, id, data)
			}
			return &e
		}
	}
	return nil
}

// newStreamHouse has a replica whose waiting sees what happens, and a quick heartbeat.
func newStreamHouse(t *testing.T) (*house, *Server) {
	h := newHouse(t)
	h.handler.config.Heartbeat = 20 * time.Millisecond
	return h, h.listening()
}

func TestEventsAreResumedWithoutLoss(t *testing.T) {
	h, s := newStreamHouse(t)
	head, _ := h.Machine().AuditHead()
	f := h.following(s, "admin", "", "")
	if kind := f.reply.Header.Get("Content-Type"); f.reply.StatusCode != 200 || kind != "text/event-stream" {
		t.Fatalf("%d %s", f.reply.StatusCode, kind)
	}
	h.must(201, "POST", "/v1/tenants", `{"id":"one"}`)
	if e := f.next(); e == nil || e.Seq != head+1 || e.Subject != "one" {
		t.Fatalf("%+v", e)
	}
	f.cancel()
	h.must(201, "POST", "/v1/tenants", `{"id":"two"}`)
	h.must(201, "POST", "/v1/tenants", `{"id":"three"}`)
	f = h.following(s, "admin", "?after=1", fmt.Sprint(head+1)) // the header wins
	for i, want := range []string{"two", "three"} {
		if e := f.next(); e == nil || e.Seq != head+2+uint64(i) || e.Subject != want {
			t.Fatalf("%+v, want %s", e, want)
		}
	}
	f = h.following(s, "admin", "?after=0", "")
	for seq := uint64(1); seq <= head+3; seq++ {
		if e := f.next(); e == nil || e.Seq != seq {
			t.Fatalf("%+v, want %d", e, seq)
		}
	}
}

// A client whose connection breaks before the first change comes back to where it began.
func TestStreamBeginsWithItsPlace(t *testing.T) {
	h := newHouse(t) // whose heartbeat would be late
	s := h.listening()
	head, _ := h.Machine().AuditHead()
	f := h.following(s, "admin", "", "")
	want := fmt.Sprintf("id: %d", head)
	for f.lines.Scan() && f.lines.Text() != "" {
		if f.lines.Text() == want {
			return
		}
	}
	t.Errorf("a stream does not begin with %q", want)
}

// A quiet stream says that it lives, and moves a tenant's place past what is others'.
func TestHeartbeatMovesThePlaceOn(t *testing.T) {
	h, s := newStreamHouse(t)
	f := h.following(s, "tenant:acme", "", "")
	h.must(200, "POST", "/v1/tenants/globex/suspend", "")
	head, _ := h.Machine().AuditHead()
	for f.lines.Scan() {
		if strings.HasPrefix(f.lines.Text(), "data:") {
			t.Fatalf("sees %s", f.lines.Text())
		}
		if f.lines.Text() == fmt.Sprintf("id: %d", head) {
			if f.lines.Scan(); f.lines.Text() != "" { // what an event says comes behind its id
				t.Errorf("sees %s", f.lines.Text())
			}
			return
		}
	}
	t.Error("the stream ended")
}

func TestStreamEndsWithItsToken(t *testing.T) {
	h, s := newStreamHouse(t)
	h.grant(state.AccessToken{Scope: "tenant:acme"})
	f := h.following(s, "tenant:acme", "", "")
	for e := range h.Machine().AccessTokens() {
		if e.Scope == "tenant:acme" {
			h.must(204, "DELETE", "/v1/tokens/"+e.ID, "")
		}
	}
	for f.next() != nil { // the end comes, or the deadline of the request fails it
	}
	if err := f.lines.Err(); err != nil {
		t.Error(err)
	}
}

// A backup that is restored begins another history: whoever followed the first is
// sent away, and told when it comes back.
func TestStreamEndsWhereTheStateGoesBack(t *testing.T) {
	h, s := newStreamHouse(t)
	before := h.Machine()
	h.must(201, "POST", "/v1/tenants", `{"id":"one"}`)
	head, _ := h.Machine().AuditHead()
	f := h.following(s, "admin", fmt.Sprintf("?after=%d", head-1), "")
	if e := f.next(); e == nil || e.Seq != head {
		t.Fatalf("%+v", e)
	}
	h.mu.Lock()
	h.machine = before
	h.mu.Unlock()
	if e := f.next(); e != nil {
		t.Errorf("%+v", e)
	}
	if err := f.lines.Err(); err != nil {
		t.Error(err)
	}
}

func TestStreamsEndWhenTheServerStops(t *testing.T) {
	h := newHouse(t)
	h.handler.config.Heartbeat = time.Hour
	s := h.listening()
	f := h.following(s, "admin", "?after=0", "")
	f.next()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Errorf("it had to be cut: %v", err)
	}
	for f.next() != nil {
	}
	if err := f.lines.Err(); err != nil {
		t.Error(err)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	h, s := newStreamHouse(t)
	var open []*follower
	for range maxTokenStreams {
		f := h.following(s, "admin", "?after=0", "")
		if f.next() == nil {
			t.Fatal("no stream")
		}
		open = append(open, f)
	}
	f := h.following(s, "admin", "", "")
	if f.reply.StatusCode != http.StatusTooManyRequests || f.reply.Header.Get("Retry-After") == "" {
		t.Errorf("%d", f.reply.StatusCode)
	}
	if f := h.following(s, "tenant:acme", "", ""); f.reply.StatusCode != 200 {
		t.Errorf("another token: %d", f.reply.StatusCode)
	}
	for _, f := range open {
		f.cancel()
	}
	streams := h.handler.streams
	count := func() int { streams.mu.Lock(); defer streams.mu.Unlock(); return streams.open }
	for soon := time.Now().Add(10 * time.Second); count() > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(soon) {
			t.Fatal("streams that ended still count")
		}
	}
	if f := h.following(s, "admin", "", ""); f.reply.StatusCode != http.StatusOK {
		t.Errorf("streams that ended still count: %d", f.reply.StatusCode)
	}
	for i := range maxStreams {
		streams.enter(fmt.Sprint(i))
	}
	if f := h.following(s, "tenant:globex", "", ""); f.reply.StatusCode != http.StatusTooManyRequests {
		t.Errorf("beyond all: %d", f.reply.StatusCode)
	}
}

// A node that is behind waits for what the client saw on another; what never
// comes is of another history.
func TestEventsAfterWhatIsNotKnownHere(t *testing.T) {
	h, s := newStreamHouse(t)
	head, _ := h.Machine().AuditHead()
	h.arrives = func() {
		h.arrives = nil
		h.must(201, "POST", "/v1/tenants", `{"id":"one"}`)
		h.must(201, "POST", "/v1/tenants", `{"id":"two"}`)
	}
	f := h.following(s, "admin", fmt.Sprintf("?after=%d", head+1), "")
	if e := f.next(); e == nil || e.Subject != "two" {
		t.Errorf("%+v", e)
	}
	r := httptest.NewRequest("GET", "/v1/events?after=999999", nil)
	r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
	ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
	defer cancel()
	if a := h.send(r.WithContext(ctx)); a.Code != http.StatusGone || !strings.Contains(a.problem.Detail, "backup") {
		t.Errorf("%d %s", a.Code, a.Body)
	}
}

func TestTimelineHasKeysAndChanges(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	h.confirm(d.Token)
	h.must(200, "POST", "/v1/domains/"+d.Token+"/rotate", `{"reason":"exercise"}`)
	line := read[Timeline](h, h.must(200, "GET", "/v1/domains/send.customer.example/timeline", ""))
	if !line.Complete || line.Token != d.Token || len(line.Keys) < 2 {
		t.Fatalf("%+v", line)
	}
	last := line.Changes[len(line.Changes)-1]
	if last.Command != "StepKey" || last.Key == "" || last.Reason != "exercise" || last.Summary != "activate by hand" {
		t.Errorf("%+v", last)
	}
	addresses := 0
	for _, e := range line.Changes {
		if e.Subject != d.Token {
			t.Errorf("of another: %+v", e)
		}
		if e.Source != "" {
			addresses++
		}
	}
	seen := read[Timeline](h, h.as("read", "GET", "/v1/domains/send.customer.example/timeline", ""))
	for _, e := range seen.Changes {
		if e.Source != "" {
			t.Errorf("who reads sees from where it was changed: %+v", e)
		}
	}
	if addresses == 0 || len(seen.Changes) != len(line.Changes) {
		t.Errorf("an admin sees %d addresses, who reads %d of %d changes", addresses, len(seen.Changes), len(line.Changes))
	}
}
