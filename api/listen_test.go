package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// listening starts a server that answers what it was asked.
func listening(t *testing.T, c ListenConfig) (*Server, string) {
	t.Helper()
	if c.Handler == nil {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) })
	}
	c.Listen, c.Logger = []netip.AddrPort{anyPort, anyPort}, slog.New(slog.DiscardHandler)
	s, err := Listen(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, s.sockets[0].Addr().String()
}

func TestPlainHTTPOffLoopbackIsRefused(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0"} {
		c := ListenConfig{
			Listen:  []netip.AddrPort{anyPort, netip.MustParseAddrPort(addr)},
			Handler: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler),
		}
		if s, err := Listen(c); err == nil || !strings.Contains(err.Error(), "loopback") || !strings.Contains(err.Error(), addr) {
			t.Errorf("%s: %v", addr, err)
			if s != nil {
				s.Close(t.Context())
			}
		}
	}
}

func TestEveryAddressIsListenedOn(t *testing.T) {
	s, _ := listening(t, ListenConfig{})
	for _, socket := range s.sockets {
		reply, err := http.Get("http://" + socket.Addr().String() + "/x")
		if err != nil {
			t.Fatal(err)
		}
		reply.Body.Close()
	}
}

func TestSlowAndLargeHeadersAreCut(t *testing.T) {
	l := defaultLimits()
	l.Header = 50 * time.Millisecond
	_, addr := listening(t, ListenConfig{limits: l})
	c := dial(t, addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
	if _, err := c.Read(make([]byte, 1)); err == nil {
		// The server may say 408 before it closes.
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
	}
	large := dial(t, addr)
	fmt.Fprintf(large, "GET / HTTP/1.1\r\nHost: a\r\nX-Large: %s\r\n\r\n", strings.Repeat("a", 32<<10))
	reply, err := http.ReadResponse(bufio.NewReader(large), nil)
	if err != nil || reply.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", reply, err)
	}
}

// Who shows no token makes room for who comes next, whether he sends his header slowly,
// sends nothing or rests after a request; who has a request with one keeps his place.
func TestConnectionsWithoutATokenMakeRoom(t *testing.T) {
	h := newHouse(t)
	l := defaultLimits()
	l.Connections = 3
	_, addr := listening(t, ListenConfig{limits: l, Handler: h.handler})
	follow := func() net.Conn {
		c := dial(t, addr)
		fmt.Fprintf(c, "GET /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n", h.tokens["admin"])
		return c
	}
	follows := func(c net.Conn) {
		t.Helper()
		if reply, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || reply.StatusCode != http.StatusOK {
			t.Fatalf("%v %v", reply, err)
		}
	}
	gone := func(what string, c net.Conn) {
		t.Helper()
		if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("still open: %s", what)
		}
	}
	first := follow()
	follows(first)
	slow := dial(t, addr)
	fmt.Fprint(slow, "GET /ready HTTP/1.1\r\nHost: a\r\nX-Slow: ")
	rests := dial(t, addr)
	served(t, rests) // so that the slow one was accepted before it
	second := follow()
	gone("a slow header", slow)
	follows(second)
	third := follow()
	gone("one that rests", rests)
	follows(third)
	gone("one more, where all have requests", dial(t, addr))
	text := h.ask("GET", "/metrics", "").Body.String()
	for _, line := range []string{`authd_api_refused_total{reason="waiting"} 2`, `authd_api_refused_total{reason="connections"} 1`} {
		if !strings.Contains(text, line) {
			t.Errorf("no %s", line)
		}
	}
	first.Close()
	eventually(t, "the place of a closed connection", func() bool {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return false
		}
		defer c.Close()
		fmt.Fprint(c, "GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
		_, err = http.ReadResponse(bufio.NewReader(c), nil)
		return err == nil
	})
	third.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := io.Copy(io.Discard, third); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a stream was ended: %v", err)
	}
}

// A body that never comes, of a request that needs none or lacks a token, is not
// waited for.
func TestBodiesOfStrangersAreNotWaitedFor(t *testing.T) {
	h := newHouse(t)
	l := defaultLimits()
	l.Read = time.Minute
	_, addr := listening(t, ListenConfig{limits: l, Handler: h.handler})
	for _, to := range []string{"POST /v1/tenants", "GET /ready", "POST /none"} {
		c := dial(t, addr)
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{", to)
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// One address takes so many connections and not all of them; loopback, where
// the node's own programs are, may.
func TestOneAddressCannotTakeEveryConnection(t *testing.T) {
	l := &connections{limits: limits{Connections: 10, PerAddress: 2}, open: map[*cappedConn]struct{}{}, from: map[netip.Addr]int{}}
	near, far, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	enter := func(client netip.Addr, since int64) (c, gone *cappedConn, full string) {
		c = &cappedConn{all: l, client: client}
		c.since.Store(since)
		gone, full = l.enter(c)
		return c, gone, full
	}
	const held = 0 // by a request
	first, _, _ := enter(far, held)
	waits, _, _ := enter(far, 20)
	elder, _, _ := enter(other, 10)
	if _, gone, full := enter(far, held); gone != waits || full != "" {
		t.Errorf("%v makes room, %q", gone, full)
	}
	if _, gone, full := enter(far, held); gone != nil || full != refusedAddress {
		t.Errorf("%v makes room, %q", gone, full)
	}
	l.forget(first)
	l.forget(first)
	if _, gone, full := enter(far, held); gone != nil || full != "" {
		t.Errorf("its place was not given back: %v, %q", gone, full)
	}
	for range 7 {
		enter(near, held)
	}
	if _, gone, full := enter(near, held); gone != elder || full != "" {
		t.Errorf("%v makes room, %q", gone, full)
	}
	if _, gone, full := enter(near, held); gone != nil || full != refusedConnections {
		t.Errorf("%v makes room, %q", gone, full)
	}
	if len(l.open) != 10 || l.from[far] != 2 || l.from[near] != 8 || l.from[other] != 0 {
		t.Errorf("%d open, %v", len(l.open), l.from)
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, "first")
	_, addr := listening(t, ListenConfig{CertFile: certFile, KeyFile: keyFile})
	if name := presented(t, addr); name != "first" {
		t.Errorf("presented %s", name)
	}
	c, err := loadCertificate(certFile, keyFile, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		c.looked = c.looked.Add(-2 * certPeriod)
		pair, _ := c.get(nil)
		return pair.Leaf.Subject.CommonName
	}
	writeCertificate(t, certFile, keyFile, "second")
	if name := shown(); name != "second" {
		t.Errorf("after a change: %s", name)
	}
	if err := os.WriteFile(keyFile, []byte("half a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if name := shown(); name != "second" {
		t.Errorf("with files that do not fit: %s", name)
	}
	if _, err := Listen(ListenConfig{Listen: []netip.AddrPort{anyPort}, CertFile: certFile, KeyFile: keyFile, Handler: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("started with files that do not fit")
	}
}

// The whole of the API on a socket: HTTP/2 over TLS, chunked bodies past the bound.
func TestAPIOverTLS(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, "node-1")
	_, addr := listening(t, ListenConfig{CertFile: certFile, KeyFile: keyFile, Handler: h.handler})
	client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	do := func(method, path string, body io.Reader) *http.Response {
		r, err := http.NewRequest(method, "https://"+addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+h.tokens["admin"])
		reply, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { reply.Body.Close() })
		return reply
	}
	if r := do("GET", "/v1/cluster", nil); r.StatusCode != http.StatusOK || r.ProtoMajor != 2 {
		t.Errorf("%s %s", r.Proto, r.Status)
	}
	endless := io.MultiReader(strings.NewReader(`{"id":"x","name":"`), io.LimitReader(spaces{}, 8<<20))
	if r := do("POST", "/v1/tenants", endless); r.StatusCode != http.StatusRequestEntityTooLarge || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s", r.Status)
	}
	saved, err := io.ReadAll(do("GET", "/v1/cluster/snapshot", nil).Body)
	if err != nil {
		t.Fatal(err)
	}
	if r := do("POST", "/v1/cluster/snapshot", bytes.NewReader(saved)); r.StatusCode != http.StatusOK {
		t.Errorf("%s", r.Status)
	}
}

type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func served(t *testing.T, c net.Conn) {
	t.Helper()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	reply, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
}

func presented(t *testing.T, addr string) string {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func writeCertificate(t *testing.T, certFile, keyFile, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
