package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound what one client, and all of them, can take of the server.
type Limits struct {
	Header      time.Duration // until a request's header is read
	Read        time.Duration // until its body is read
	Write       time.Duration // until its reply is written
	Idle        time.Duration // between requests of one connection
	HeaderBytes int
	Connections int // at once
	PerAddress  int // of them from one client address; loopback is exempt
	Streams     int // of one HTTP/2 connection
}

// DefaultLimits are what a slow or hostile client must not get past. The write
// timeout leaves room for ?wait=served behind a slow proposal.
func DefaultLimits() Limits {
	return Limits{
		Header: 5 * time.Second, Read: 15 * time.Second, Write: 30 * time.Second, Idle: 60 * time.Second,
		HeaderBytes: 16 << 10, Connections: 1024, PerAddress: 128, Streams: 100,
	}
}

// ListenConfig is what Listen needs.
type ListenConfig struct {
	// Addr is host:port. Without TLS the host must be a loopback address. Required.
	Addr string
	// Certificate is presented to clients; nil: plain HTTP, on loopback alone.
	Certificate *Certificate
	// Handler is a *Handler, or anything else. Required.
	Handler http.Handler
	// Limits; the zero value means DefaultLimits.
	Limits Limits
	// Logger takes what goes wrong below HTTP. Required.
	Logger *slog.Logger
}

// Server is the API listening.
type Server struct {
	http   http.Server
	socket net.Listener
	ended  chan struct{} // closed when serving has ended
}

// Listen opens the socket and starts serving. It refuses plain HTTP off
// loopback: tokens and private keys would travel in clear.
func Listen(c ListenConfig) (*Server, error) {
	if c.Handler == nil || c.Logger == nil {
		return nil, errors.New("listening for the API: handler and logger are required")
	}
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
	if c.Certificate == nil && !loopback(c.Addr) {
		return nil, fmt.Errorf("listening for the API on %s: plain HTTP is for loopback addresses; configure a certificate", c.Addr)
	}
	socket, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("listening for the API: %w", err)
	}
	l := c.Limits
	s := &Server{socket: socket, ended: make(chan struct{})}
	s.http = http.Server{
		Handler: c.Handler, ReadHeaderTimeout: l.Header, ReadTimeout: l.Read, WriteTimeout: l.Write, IdleTimeout: l.Idle,
		MaxHeaderBytes: l.HeaderBytes, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: l.Streams},
		ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	capped := newCapped(socket, l)
	go func() {
		defer close(s.ended)
		var err error
		if c.Certificate == nil {
			err = s.http.Serve(capped)
		} else {
			s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.Certificate.get}
			err = s.http.ServeTLS(capped, "", "")
		}
		if !errors.Is(err, http.ErrServerClosed) {
			c.Logger.Error("the API stopped listening", "addr", c.Addr, "error", err)
		}
	}()
	return s, nil
}

// Addr is the address listened on, with the port that :0 came to.
func (s *Server) Addr() net.Addr { return s.socket.Addr() }

// Close stops accepting, lets running requests end until ctx is done, then cuts
// them.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("ending requests: %w", err), s.http.Close())
	}
	<-s.ended
	return err
}

// loopback says whether an address is reachable from this machine alone. Names
// other than localhost are not looked up.
func loopback(addr string) bool {
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if name == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// Certificate is a server certificate that can be read again while it is in use.
type Certificate struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// LoadCertificate reads a PEM chain and its key.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	return c, c.Reload()
}

// Reload reads the files again. Where they do not fit together the certificate
// in use stays.
func (c *Certificate) Reload() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("reading the API's certificate: %w", err)
	}
	c.current.Store(&pair)
	return nil
}

func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}

// capped closes connections beyond the limits as soon as they are accepted.
type capped struct {
	net.Listener
	limits Limits

	mu   sync.Mutex // guards what follows; taken when a connection opens or closes
	open int
	from map[netip.Addr]int
}

func newCapped(l net.Listener, limits Limits) *capped {
	return &capped{Listener: l, limits: limits, from: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (l *capped) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		var client netip.Addr
		if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
			client = ap.Addr().Unmap().WithZone("")
		}
		if l.enter(client) {
			return &cappedConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(client) })}, nil
		}
		c.Close()
	}
}

func (l *capped) enter(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.limits.Connections || !client.IsLoopback() && l.from[client] >= l.limits.PerAddress {
		return false
	}
	l.open++
	l.from[client]++
	return true
}

func (l *capped) leave(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.from[client]--; l.from[client] == 0 {
		delete(l.from, client)
	}
}

type cappedConn struct {
	net.Conn
	leave func()
}

func (c *cappedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
