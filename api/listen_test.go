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
	l := DefaultLimits()
	l.Header = 50 * time.Millisecond
	_, addr := listening(t, ListenConfig{Limits: l})
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

func TestConnectionsBeyondTheCapAreClosed(t *testing.T) {
	l := DefaultLimits()
	l.Connections = 2
	_, addr := listening(t, ListenConfig{Limits: l})
	first, second := dial(t, addr), dial(t, addr)
	served(t, first)
	served(t, second)
	third := dial(t, addr)
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection was served")
	}
	first.Close()
	for deadline := time.Now().Add(5 * time.Second); ; {
		fourth := dial(t, addr)
		fmt.Fprint(fourth, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(fourth), nil); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a closed connection is not free")
		}
	}
}

// One address takes so many connections and not all of them; loopback, where
// the node's own programs are, may.
func TestOneAddressCannotTakeEveryConnection(t *testing.T) {
	l := &connections{limits: Limits{Connections: 10, PerAddress: 2}, from: map[netip.Addr]int{}}
	near, far, other := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	got := fmt.Sprintf("%q", []string{l.enter(far), l.enter(far), l.enter(far), l.enter(other), l.enter(near), l.enter(near), l.enter(near)})
	if got != `["" "" "address" "" "" "" ""]` {
		t.Error(got)
	}
	l.leave(far)
	if why := l.enter(far); why != "" {
		t.Errorf("the place was not given back: %s", why)
	}
	for range 4 {
		l.enter(near)
	}
	if why := l.enter(near); why != refusedConnections {
		t.Errorf("more than all: %q", why)
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
