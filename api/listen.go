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
	"os"
	"sync"
	"time"
)

// limits bound what one client, and all of them, can take of the server.
type limits struct {
	Header      time.Duration // until a request's header is read
	Read        time.Duration // until its body is read
	Write       time.Duration // until its reply is written
	Idle        time.Duration // between requests of one connection
	HeaderBytes int
	Connections int // at once
	PerAddress  int // of them from one client address; loopback is exempt
	Streams     int // of one HTTP/2 connection
}

// What one HTTP/2 connection may have the server keep for it before anybody has looked
// at a token. The library would take frames of 1 MiB and keep as much beside.
const (
	frameOctets  = 16 << 10  // the least that RFC 9113 section 4.2 lets a server take
	streamOctets = 64 << 10  // that a request may send ahead of its reader
	unreadOctets = 256 << 10 // the same of all requests of a connection
)

// defaultLimits are what a slow or hostile client must not get past. The write
// timeout leaves room for ?wait=served behind a slow proposal.
func defaultLimits() limits {
	return limits{
		Header: 5 * time.Second, Read: 15 * time.Second, Write: 30 * time.Second, Idle: 60 * time.Second,
		HeaderBytes: 16 << 10, Connections: 1024, PerAddress: 128, Streams: 100,
	}
}

// ListenConfig is what Listen needs.
type ListenConfig struct {
	// Listen are the addresses. Without TLS all must be loopback addresses. Required.
	Listen []netip.AddrPort
	// CertFile and KeyFile are the certificate chain and its key in PEM, read
	// again when they change; empty: plain HTTP, on loopback alone.
	CertFile, KeyFile string
	// Local is the path of a Unix socket that serves too, without TLS or token, to
	// this node's own user; empty: none. That it cannot be opened is logged, and ends
	// nothing: the disk may be full.
	Local string
	// Certificate, where set, is used in place of what those files hold.
	Certificate func() *tls.Certificate
	// Handler is a *Handler, or anything else. Required.
	Handler http.Handler
	// Logger takes what goes wrong below HTTP. Required.
	Logger *slog.Logger

	limits limits // of tests; the zero value means defaultLimits
}

// Server is the API listening.
type Server struct {
	http    http.Server
	sockets []net.Listener
	serving sync.WaitGroup
}

// Listen opens the sockets and starts serving. It refuses plain HTTP off
// loopback: tokens and private keys would travel in clear. The error names the
// address.
func Listen(c ListenConfig) (*Server, error) {
	if c.Handler == nil || c.Logger == nil || len(c.Listen) == 0 {
		return nil, errors.New("listening for the API: addresses, handler and logger are required")
	}
	if c.limits == (limits{}) {
		c.limits = defaultLimits()
	}
	s := &Server{}
	s.configure(c)
	secure := c.CertFile != "" || c.KeyFile != ""
	if secure {
		if err := s.secure(c); err != nil {
			return nil, err
		}
	}
	for _, addr := range c.Listen {
		socket, err := listenOn(addr, secure)
		if err != nil {
			for _, open := range s.sockets {
				err = errors.Join(err, open.Close())
			}
			return nil, err
		}
		s.sockets = append(s.sockets, socket)
	}
	s.serveLocal(c)
	shared := &connections{limits: c.limits, open: map[*cappedConn]struct{}{}, from: map[netip.Addr]int{}, refused: func(string) {}}
	if h, ok := c.Handler.(interface{ Refused(reason string) }); ok {
		shared.refused = h.Refused
	}
	for _, socket := range s.sockets {
		s.serving.Go(func() {
			var err error
			if secure {
				err = s.http.ServeTLS(&capped{socket, shared}, "", "")
			} else {
				err = s.http.Serve(&capped{socket, shared})
			}
			if !errors.Is(err, http.ErrServerClosed) {
				c.Logger.Error("the API stopped listening", "addr", socket.Addr().String(), "error", err)
			}
		})
	}
	return s, nil
}

// configure sets up HTTP within the limits.
func (s *Server) configure(c ListenConfig) {
	l := c.limits
	s.http = http.Server{
		Handler: c.Handler, ReadHeaderTimeout: l.Header, ReadTimeout: l.Read, WriteTimeout: l.Write, IdleTimeout: l.Idle,
		MaxHeaderBytes: l.HeaderBytes, HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: l.Streams, MaxReadFrameSize: frameOctets,
			MaxReceiveBufferPerStream: streamOctets, MaxReceiveBufferPerConnection: unreadOctets,
			// Write bounds a request's time, not that of a connection whose other end
			// takes nothing more; a ping tells whether one is there at all.
			WriteByteTimeout: l.Write, SendPingTimeout: l.Idle,
		},
		ConnContext: vouchable, ConnState: noteIdle,
		ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
	}
	if h, ok := c.Handler.(interface{ EndStreams() }); ok {
		s.http.RegisterOnShutdown(h.EndStreams)
	}
}

// secure sets up TLS with the certificate of the files, or the one given in its place.
func (s *Server) secure(c ListenConfig) error {
	cert, err := loadCertificate(c.CertFile, c.KeyFile, c.Logger)
	if err != nil {
		return err
	}
	s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: cert.get}
	if c.Certificate != nil {
		s.http.TLSConfig.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.Certificate(), nil }
	} else if h, ok := c.Handler.(*Handler); ok {
		h.certificate.Store(cert) // /ready watches it
	}
	return nil
}

func (s *Server) serveLocal(c ListenConfig) {
	if c.Local == "" {
		return
	}
	socket, err := listenLocal(c.Local)
	if err != nil {
		c.Logger.Warn("commands on this machine need a token", "error", err)
		return
	}
	s.serving.Go(func() {
		if err := s.http.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
			c.Logger.Error("the API stopped listening", "addr", c.Local, "error", err)
		}
	})
}

func listenOn(addr netip.AddrPort, secure bool) (net.Listener, error) {
	if !secure && !addr.Addr().Unmap().IsLoopback() {
		return nil, fmt.Errorf("listening for the API on %s: plain HTTP is for loopback addresses; configure a certificate", addr)
	}
	// By family, so that 0.0.0.0 and [::] can both be listened on.
	network := "tcp6"
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	socket, err := net.Listen(network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("listening for the API on %s: %w", addr, err)
	}
	return socket, nil
}

// Close stops accepting, lets running requests end until ctx is done, then cuts
// them.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("ending requests of the API: %w", err), s.http.Close())
	}
	s.serving.Wait()
	return err
}

// certificate is read again when its files change: at a handshake, and not more
// often than every certPeriod.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex // guards what follows; taken by every handshake
	current *tls.Certificate
	stamp   [2]fileStamp // of the files that current was read from
	looked  time.Time
	fault   error // why the files as they are now are not used
}

// fileStamp changes when a file is replaced or written.
type fileStamp struct {
	written time.Time
	size    int64
}

// certPeriod is how long a new certificate may wait to be noticed.
const certPeriod = 10 * time.Second

func loadCertificate(certFile, keyFile string, logger *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	stamp := c.stamps()
	if err := c.read(stamp); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

func (c *certificate) stamps() (s [2]fileStamp) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			s[i] = fileStamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

func (c *certificate) read(stamp [2]fileStamp) error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("reading the API's certificate: %w", err)
	}
	c.current, c.stamp = &pair, stamp
	return nil
}

// get gives the certificate for a handshake. Where new files do not fit
// together, the one in use stays.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.current, nil
}

// look reads the files again where it is time and they changed. Called with mu held.
func (c *certificate) look() {
	now := time.Now()
	if now.Sub(c.looked) < certPeriod {
		return
	}
	c.looked, c.fault = now, nil
	if stamp := c.stamps(); stamp != c.stamp {
		if c.fault = c.read(stamp); c.fault != nil {
			c.logger.Error("the API goes on with its old certificate", "error", c.fault)
		}
	}
}

// state is when the certificate in use ends, and why newer files are not used.
func (c *certificate) state() (end time.Time, fault error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.current.Leaf.NotAfter, c.fault
}
