package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"authd/cluster"
	"authd/cluster/state"
)

func TestNobodyTakesMoreThanIsLeftForOthers(t *testing.T) {
	r := room{limit: 100, by: map[string]int64{}}
	fill := func(payer string) (n int) {
		for r.take(payer, 1) {
			n++
		}
		return n
	}
	if n := fill("acme"); n != 50 {
		t.Errorf("alone it took %d of 100", n)
	}
	if n := fill("globex"); n != 25 {
		t.Errorf("the second took %d", n)
	}
	if n := fill("initech"); n == 0 {
		t.Error("the third found no room")
	}
	for r.by["acme"] > 0 {
		r.give("acme", 1)
	}
	if n := fill("globex"); n == 0 {
		t.Error("what was given back is not there")
	}
	for _, payer := range []string{"globex", "initech"} {
		r.give(payer, r.by[payer])
	}
	if r.used != 0 || len(r.by) != 0 {
		t.Errorf("left behind: %+v", r)
	}
	if r.take("acme", 101) || !r.take("acme", 100) || r.take("globex", 1) {
		t.Error("what fits and what does not")
	}
}

// A request whose body finds no room leaves no place taken.
func TestRequestTurnedAwayForItsBodyHoldsNothing(t *testing.T) {
	a := newAdmission()
	if _, full := a.enter("acme", maxBodies+1); full != refusedBodies {
		t.Fatalf("full: %q", full)
	}
	if a.requests.used != 0 || a.bodies.used != 0 || len(a.requests.by) > 0 {
		t.Errorf("%+v, %+v", a.requests, a.bodies)
	}
	leave, full := a.enter("acme", 7)
	if full != "" || a.requests.used != 1 || a.bodies.used != 7 {
		t.Fatalf("%q, %+v, %+v", full, a.requests, a.bodies)
	}
	if leave(); a.requests.used != 0 || a.bodies.used != 0 {
		t.Errorf("%+v, %+v", a.requests, a.bodies)
	}
}

// One tenant's flood, through as many tokens as it has, neither starves another nor
// changes anything where it is refused.
func TestOneTenantsFloodLeavesRoomForAnother(t *testing.T) {
	h := newHouse(t)
	const room = 8
	h.handler.rooms.requests.limit = room
	second := h.grant(state.AccessToken{Scope: "tenant:acme", Note: "another"})
	h.grant(state.AccessToken{Scope: "tenant:acme"})
	held, release := make(chan struct{}), make(chan struct{})
	h.slow = func() { held <- struct{}{}; <-release }
	add := func(secret, tenant, domain string) answered {
		r := httptest.NewRequest("POST", "/v1/tenants/"+tenant+"/domains", strings.NewReader(fmt.Sprintf(`{"domain":%q,"mode":"cname","pool":"default"}`, domain)))
		r.Header.Set("Authorization", "Bearer "+secret)
		return h.send(r)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	claim := func(secret, tenant, domain string) {
		wg.Go(func() {
			a := add(secret, tenant, domain)
			mu.Lock()
			defer mu.Unlock()
			codes[a.Code]++
		})
		<-held
	}
	for i := range room / 2 {
		secret := h.tokens["tenant:acme"]
		if i%2 == 1 {
			secret = second
		}
		claim(secret, "acme", fmt.Sprintf("a%d.customer.test", i))
	}
	before := h.image()
	for _, secret := range []string{h.tokens["tenant:acme"], second} {
		a := add(secret, "acme", "refused.customer.test")
		if a.Code != http.StatusTooManyRequests || a.problem.Code != "too_many" || a.Header().Get("Retry-After") == "" || !strings.Contains(a.problem.Detail, "nothing was changed") {
			t.Errorf("%d %s", a.Code, a.Body)
		}
	}
	if !bytes.Equal(before, h.image()) {
		t.Error("a refused write changed something")
	}
	claim(h.tokens["tenant:globex"], "globex", "g.customer.test")
	claim(h.tokens["admin"], "globex", "h.customer.test")
	if a := h.ask("GET", "/ready", ""); a.Code != http.StatusOK {
		t.Errorf("/ready in a flood: %d", a.Code)
	}
	close(release)
	h.slow = nil
	wg.Wait()
	if codes[http.StatusCreated] != room/2+2 {
		t.Errorf("those let in ended as %v", codes)
	}
	if a := add(second, "acme", "later.customer.test"); a.Code != http.StatusCreated {
		t.Errorf("afterwards: %d %s", a.Code, a.Body)
	}
	if text := h.ask("GET", "/metrics", "").Body.String(); !strings.Contains(text, `authd_api_refused_total{reason="requests"} 2`) || !strings.Contains(text, `authd_api_refused_total{reason="queue"} 0`) {
		t.Error("the metrics do not count it")
	}
	if r := h.handler.rooms; r.requests.used != 0 || r.bodies.used != 0 || len(r.requests.by)+len(r.bodies.by) != 0 {
		t.Errorf("places were not given back: %+v", r)
	}
}

// What bodies hold in memory is bounded over all requests, whether they say their
// length or not.
func TestBodiesHeldAtOnceAreBounded(t *testing.T) {
	h := newHouse(t)
	h.handler.rooms.bodies.limit = 3 * MaxBody
	held, release := make(chan struct{}), make(chan struct{})
	h.slow = func() { held <- struct{}{}; <-release }
	post := func(id string, length int64) answered {
		body := fmt.Sprintf(`{"id":%q,"name":"x"}`, id)
		if length > 0 {
			body += strings.Repeat(" ", int(length)-len(body))
		}
		r := httptest.NewRequest("POST", "/v1/tenants", strings.NewReader(body))
		if length < 0 {
			r.ContentLength = -1
		}
		r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
		return h.send(r)
	}
	var wg sync.WaitGroup
	for _, length := range []int64{MaxBody, -1} {
		wg.Go(func() {
			if a := post(fmt.Sprint("first", length+1), length); a.Code != http.StatusCreated {
				t.Errorf("%d %s", a.Code, a.Body)
			}
		})
		<-held
	}
	if a := post("refused", MaxBody); a.Code != http.StatusTooManyRequests {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if a := h.ask("GET", "/v1/tenants", ""); a.Code != http.StatusOK {
		t.Errorf("what has no body: %d", a.Code)
	}
	close(release)
	wg.Wait()
	h.slow = nil
	if a := post("after", MaxBody); a.Code != http.StatusCreated {
		t.Errorf("afterwards: %d", a.Code)
	}
	if !strings.Contains(h.ask("GET", "/metrics", "").Body.String(), `authd_api_refused_total{reason="bodies"} 1`) {
		t.Error("the metrics do not count it")
	}
}

// Large bodies are decoded in turns, small ones wait for none of them.
func TestLargeBodiesTakeTurns(t *testing.T) {
	h := newHouse(t)
	post := func(id string, size int) answered {
		body := fmt.Sprintf(`{"id":%q,"name":"x"}`, id)
		r := httptest.NewRequest("POST", "/v1/tenants", strings.NewReader(body+strings.Repeat(" ", max(0, size-len(body)))))
		r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
		return h.send(r)
	}
	for range cap(h.handler.turns) { // as if as many were decoded
		h.handler.turns <- struct{}{}
	}
	large := make(chan int)
	go func() { large <- post("large", 2*largeBody).Code }()
	if a := post("small", 0); a.Code != http.StatusCreated {
		t.Errorf("a small one: %d %s", a.Code, a.Body)
	}
	select {
	case code := <-large:
		t.Errorf("%d out of turn", code)
	case <-time.After(20 * time.Millisecond):
	}
	<-h.handler.turns
	if code := <-large; code != http.StatusCreated {
		t.Errorf("in its turn: %d", code)
	}
	if n := len(h.handler.turns); n != cap(h.handler.turns)-1 {
		t.Errorf("%d turns are taken", n)
	}
}

func TestAFullQueueIsCounted(t *testing.T) {
	h := newHouse(t)
	h.refuse = fmt.Errorf("%w: full", cluster.ErrBusy)
	if a := h.ask("POST", "/v1/tenants", `{"id":"x","name":"X"}`); a.Code != http.StatusTooManyRequests || a.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", a.Code, a.Body)
	}
	if !strings.Contains(h.ask("GET", "/metrics", "").Body.String(), `authd_api_refused_total{reason="queue"} 1`) {
		t.Error("the metrics do not count it")
	}
}

// A body that comes an octet at a time ends with the deadline, tells so, and
// changes nothing; its place is free again.
func TestASlowBodyIsCut(t *testing.T) {
	h := newHouse(t)
	config := h.handler.config
	config.BodyTime = 300 * time.Millisecond
	handler, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	_, addr := listening(t, ListenConfig{Handler: handler})
	before := h.image()
	c := dial(t, addr)
	fmt.Fprintf(c, "POST /v1/tenants HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{", h.tokens["admin"])
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < 90; i++ {
			if _, err := c.Write([]byte(" ")); err != nil {
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	}()
	reply, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("not cut: %v", err)
	}
	text, _ := io.ReadAll(reply.Body)
	if reply.StatusCode != http.StatusRequestTimeout || reply.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s", reply.Status, text)
	}
	c.Close()
	<-done
	if !bytes.Equal(before, h.image()) {
		t.Error("something changed")
	}
	eventually(t, "its place", func() bool {
		handler.rooms.mu.Lock()
		defer handler.rooms.mu.Unlock()
		return handler.rooms.requests.used == 0 && handler.rooms.bodies.used == 0
	})
}

// A client that asks and does not read the reply is given up after the write
// deadline.
func TestASlowReaderIsCut(t *testing.T) {
	l := defaultLimits()
	l.Write = 200 * time.Millisecond
	ended := make(chan error, 1)
	_, addr := listening(t, ListenConfig{limits: l, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 1<<20)
		for {
			if _, err := w.Write(block); err != nil {
				ended <- err
				return
			}
		}
	})})
	c := dial(t, addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the server still writes to a client that does not read")
	}
}

// A follower of changes that stops reading ends by itself.
func TestAStreamNobodyReadsEnds(t *testing.T) {
	h := newHouse(t)
	w := &stuckWriter{header: http.Header{}, until: make(chan time.Time, 8)}
	s := &stream{w: w, control: http.NewResponseController(w), who: identity{scope: state.ScopeAdmin}}
	before := time.Now()
	if err := s.say("x"); err == nil {
		t.Error("nobody read it")
	}
	if until := <-w.until; until.Before(before.Add(streamWrite)) || until.After(time.Now().Add(streamWrite)) {
		t.Errorf("the deadline is %s off", until.Sub(before))
	}
	if h.handler.follow(httptest.NewRequest("GET", "/v1/events", nil), s) {
		t.Error("the stream goes on")
	}
}

// stuckWriter is a connection whose other end does not read.
type stuckWriter struct {
	header http.Header
	until  chan time.Time
}

func (w *stuckWriter) Header() http.Header                { return w.header }
func (w *stuckWriter) WriteHeader(int)                    {}
func (w *stuckWriter) Write([]byte) (int, error)          { return 0, os.ErrDeadlineExceeded }
func (w *stuckWriter) SetWriteDeadline(t time.Time) error { w.until <- t; return nil }

func TestSilentConnectionsAreClosed(t *testing.T) {
	l := defaultLimits()
	l.Header, l.Idle = 100*time.Millisecond, 100*time.Millisecond
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, "node-1")
	_, plain := listening(t, ListenConfig{limits: l})
	_, secure := listening(t, ListenConfig{limits: l, CertFile: certFile, KeyFile: keyFile})
	for what, addr := range map[string]string{"before a handshake": secure, "before a request": plain} {
		if _, err := io.ReadAll(dial(t, addr)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("still open %s", what)
		}
	}
	idle := dial(t, plain)
	served(t, idle)
	if _, err := io.ReadAll(idle); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("still open after a request")
	}
}

// What a server of HTTP/2 lets a connection do it says first (RFC 9113 section 6.5.2).
func TestAConnectionIsToldItsBounds(t *testing.T) {
	_, settings := secondHTTP(t, ListenConfig{}, nil)
	told := map[uint16]uint32{}
	for ; len(settings) >= 6; settings = settings[6:] {
		told[binary.BigEndian.Uint16(settings)] = binary.BigEndian.Uint32(settings[2:])
	}
	const maxStreams, window, maxFrame, maxHeader = 3, 4, 5, 6
	if told[maxStreams] != uint32(defaultLimits().Streams) || told[window] != streamOctets || told[maxFrame] != frameOctets ||
		told[maxHeader] == 0 || told[maxHeader] > 2*uint32(defaultLimits().HeaderBytes) {
		t.Errorf("%v", told)
	}
}

// A client of HTTP/2 that asks, gives the server leave to send for ever and takes
// nothing off the wire is given up like one of HTTP/1: the deadline of its request alone
// would wait for a write that never ends.
func TestASlowReaderOfHTTP2IsCut(t *testing.T) {
	l := defaultLimits()
	l.Write = 200 * time.Millisecond
	ended := make(chan struct{})
	block := make([]byte, 1<<20)
	c := ListenConfig{limits: l, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})}
	secondHTTP(t, c, []byte("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x7f\xff\xff\xff"+ // SETTINGS: the largest window
		"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\x00\x00"+ // WINDOW_UPDATE of the connection
		"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x84\x87\x41\x01a")) // HEADERS: GET https://a/
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the server still writes to a client that does not read")
	}
}

// secondHTTP begins a connection of HTTP/2 and gives the server's first settings.
func secondHTTP(t *testing.T, config ListenConfig, frames []byte) (c net.Conn, settings []byte) {
	t.Helper()
	dir := t.TempDir()
	config.CertFile, config.KeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, config.CertFile, config.KeyFile, "node-1")
	_, addr := listening(t, config)
	dialer := &tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if len(frames) == 0 {
		frames = []byte("\x00\x00\x00\x04\x00\x00\x00\x00\x00") // SETTINGS, none
	}
	if _, err := c.Write(append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frames...)); err != nil {
		t.Fatal(err)
	}
	var head [9]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || head[3] != 4 {
		t.Fatalf("%v %v", head, err)
	}
	settings = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	if _, err := io.ReadFull(c, settings); err != nil {
		t.Fatal(err)
	}
	return c, settings
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
