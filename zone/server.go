package zone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ServerConfig is what Listen needs.
type ServerConfig struct {
	// Listen are the addresses to answer on, UDP and TCP. A wildcard address
	// replies from the address asked; [::] is IPv6 alone, list 0.0.0.0 beside it
	// for IPv4. Port 0 takes a free one, the same for UDP and TCP. Required.
	Listen []netip.AddrPort
	// Processors is how many the process may use; 0 means GOMAXPROCS.
	Processors int
	// Workers is the number of UDP readers an address; 0 means one a processor.
	Workers int
	// Tree is what is answered. Required.
	Tree *Tree
	// NSID identifies this node to those who ask (RFC 5001), at most MaxNSID
	// octets; empty: not sent.
	NSID string
	// Watch counts queries for keys that sign no more; nil: nobody counts.
	Watch *Watch
	// RateLimit bounds what one source gets; the zero value is the defaults.
	RateLimit RateLimit
	// Census counts queries of single domains while somebody asks for it; nil: never.
	Census *Census
	// Inherited are sockets of a predecessor (Sockets), read in place of new ones where
	// their address is in Listen. Listen closes these files, also where it fails.
	Inherited []Socket
	// Logger takes what an operator must know; queries are not logged. Required.
	Logger *slog.Logger
}

func (c *ServerConfig) check() error {
	switch {
	case len(c.Listen) == 0:
		return errors.New("no address to answer on in Listen")
	case c.Workers < 0 || c.Workers > MaxWorkers:
		return fmt.Errorf("%d Workers are not between 0 and %d", c.Workers, MaxWorkers)
	case c.Tree == nil:
		return errors.New("no Tree to answer from")
	case len(c.NSID) > MaxNSID:
		return fmt.Errorf("%d octets of NSID, at most %d fit", len(c.NSID), MaxNSID)
	case c.Logger == nil:
		return errors.New("no Logger to tell the operator with")
	}
	if err := c.RateLimit.Check(); err != nil {
		return fmt.Errorf("RateLimit: %w", err)
	}
	return nil
}

const (
	// MaxWorkers bounds the sockets an address: more readers than cores only
	// share the same work.
	MaxWorkers = 256
	// drainLast is how long a socket that was shut is still read: the kernel may have been
	// putting datagrams into it, and on a busy machine they came 20 ms later.
	drainLast = 100 * time.Millisecond
	// portTries is how often a free port is looked for that is free for both
	// UDP and TCP.
	portTries = 16
)

// limits are the bounds of TCP (RFC 7766 section 6.2), apart so that tests
// need not wait for them.
type limits struct {
	connections int           // open at once, all addresses together
	prefix      int           // of them from one /24 or /56
	queries     int           // a connection
	message     time.Duration // from the first octet of a message to its last
	stall       time.Duration // how long a new connection and a new message are not taken for abuse
	idle        time.Duration // between messages
	write       time.Duration // for a reader to take what it asked for
	last        time.Duration // drainLast; tests set it shorter
	turns       int           // connections that are answered at the same time; 0: turnsEach a processor
}

func defaultLimits() limits {
	return limits{connections: 4096, prefix: 64, queries: 4096, message: 2 * time.Second, stall: 250 * time.Millisecond, idle: 10 * time.Second, write: 2 * time.Second, last: drainLast}
}

const turnsEach = 2

// Server answers queries from sockets. Per address it has one UDP socket for
// each worker and one TCP listener, all with SO_REUSEPORT. A successor is given
// these very sockets (Socket).
type Server struct {
	config    ServerConfig
	limits    limits
	addresses []netip.AddrPort
	workers   []*udpWorker
	listeners []*tcpListener
	counters  []*counters
	// turns bounds how many connections are answered at once. Otherwise thousands that all
	// have questions would keep everything else in the process, Raft and the API, waiting
	// for a processor.
	turns chan struct{}
	guard *guard
	made  atomic.Uint32 // responders
	// responders (*Responder) are for the connections whose turn it is; outs (*[]byte)
	// hold replies until they are written, however slowly their reader takes them.
	responders, outs sync.Pool

	shared  atomic.Bool // another process has the sockets too
	pause   atomic.Pointer[pause]
	closing atomic.Bool
	ending  atomic.Bool   // of a closing server: nothing more is waited for
	stopped chan struct{} // closed when closing is set
	running sync.WaitGroup

	// mu guards what follows. Accepting and closing take it, answering does not.
	mu       sync.Mutex
	conns    map[*tcpConn]struct{}
	prefixes map[uint64]map[*tcpConn]struct{} // the same by the source's prefix
	accepted uint64
	evicted  uint64
	refused  uint64
}

// Listen opens the sockets and starts answering. The error names the address.
func Listen(c ServerConfig) (*Server, error) { return listen(c, defaultLimits()) }

func listen(c ServerConfig, l limits) (*Server, error) {
	defer closeSockets(c.Inherited) // what is used of them was duplicated
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("checking DNS server configuration: %w", err)
	}
	if c.Processors == 0 {
		c.Processors = runtime.GOMAXPROCS(0)
	}
	if c.Workers == 0 {
		c.Workers = min(c.Processors, MaxWorkers)
	}
	if l.turns == 0 {
		l.turns = turnsEach * c.Processors
	}
	if !sharesPorts {
		c.Workers = 1
	}
	s := newServer(c, l)
	s.shared.Store(len(c.Inherited) > 0)
	for _, address := range c.Listen {
		if err := s.open(address); err != nil {
			s.release()
			return nil, fmt.Errorf("opening DNS on %s: %w", address, err)
		}
	}
	for _, w := range s.workers {
		s.running.Go(w.run)
	}
	for _, l := range s.listeners {
		s.running.Go(l.run)
	}
	return s, nil
}

// newServer makes a server without sockets.
func newServer(c ServerConfig, l limits) *Server {
	s := &Server{
		config: c, limits: l, stopped: make(chan struct{}), turns: make(chan struct{}, l.turns),
		conns: map[*tcpConn]struct{}{}, prefixes: map[uint64]map[*tcpConn]struct{}{},
		guard: &guard{limiter: newLimiter(c.RateLimit), started: time.Now(), keepalive: uint16(l.idle / (time.Second / 10)), census: c.Census},
	}
	s.responders.New = func() any { return s.responder() }
	s.outs.New = func() any {
		out := make([]byte, 0, 2*flushAt) // grows for a reply that needs more
		return &out
	}
	return s
}

// responder makes the responder of a worker.
func (s *Server) responder() *Responder {
	r := newResponder(s.config.Tree, s.config.NSID, s.guard)
	if s.config.Watch != nil {
		r.watch = &s.config.Watch.shards[s.made.Add(1)%watchShards]
	}
	return r
}

// SetCookieSecrets sets what server cookies are made and recognised with, from
// the next batch on. Until the first call there are no cookies. It may be called
// at any time, from any goroutine.
func (s *Server) SetCookieSecrets(c CookieSecrets) { s.guard.secrets.Store(&c) }

// Addresses are the addresses answered on, in the order of ServerConfig.Listen,
// with the ports that were taken for port 0.
func (s *Server) Addresses() []netip.AddrPort { return s.addresses }

// open opens the sockets of one address.
func (s *Server) open(address netip.AddrPort) error {
	if !address.IsValid() {
		return errors.New("not an address")
	}
	address = netip.AddrPortFrom(address.Addr().Unmap(), address.Port())
	for try := 1; ; try++ {
		workers, listener, err := s.openOnce(address)
		if err == nil {
			s.workers = append(s.workers, workers...)
			s.listeners = append(s.listeners, listener)
			s.addresses = append(s.addresses, netip.AddrPortFrom(address.Addr(), listener.port()))
			return nil
		}
		// A port that is free for UDP may be taken for TCP.
		if address.Port() != 0 || try == portTries || !errors.Is(err, syscall.EADDRINUSE) {
			return err
		}
	}
}

func (s *Server) openOnce(address netip.AddrPort) (workers []*udpWorker, listener *tcpListener, err error) {
	defer func() {
		if err != nil {
			for _, w := range workers {
				w.close()
			}
		}
	}()
	// All that were inherited are read: the kernel spreads datagrams over them.
	files := s.config.inherited(false, address)
	for i := range max(s.config.Workers, len(files)) {
		socket, err := adoptOr(files, i, adoptUDP, func() (*udpSocket, error) { return listenUDP(address) })
		if err != nil {
			return workers, nil, err
		}
		w, err := s.newUDPWorker(socket, address)
		if err != nil {
			socket.Close()
			return workers, nil, err
		}
		workers = append(workers, w)
		address = netip.AddrPortFrom(address.Addr(), socket.address.Port())
	}
	listener, err = s.openTCP(address)
	return workers, listener, err
}

// adoptOr takes the inherited socket number i where there is one, else a new one.
func adoptOr[S any](files []*os.File, i int, adopt func(*os.File) (S, error), open func() (S, error)) (S, error) {
	if i < len(files) {
		return adopt(files[i])
	}
	return open()
}

// count makes the counters of one socket.
func (s *Server) count(proto string, address netip.AddrPort) *counters {
	c := &counters{proto: proto, family: "ipv6"}
	if address.Addr().Is4() {
		c.family = "ipv4"
	}
	s.counters = append(s.counters, c)
	return c
}

// Close stops answering: the kernel refuses what comes from then on, unless a
// successor reads it. It answers the datagrams and connections that had arrived, lets
// running TCP exchanges end until ctx is done, and releases the sockets. The error is
// that of ctx where exchanges were cut off. It may be called more than once.
func (s *Server) Close(ctx context.Context) error {
	if s.closing.CompareAndSwap(false, true) {
		close(s.stopped)
		if !s.shared.Load() {
			for _, w := range s.workers {
				w.shut() // all, before the first stops reading
			}
			time.Sleep(s.limits.last)
		}
		s.ending.Store(true)
		for _, w := range s.workers {
			w.stir()
		}
		for _, l := range s.listeners {
			l.stop()
		}
		s.closeIdle()
	}
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.release()
	<-done // all sockets are closed: nothing can wait any more
	return fmt.Errorf("draining DNS connections: %w", ctx.Err())
}

func network(proto string, address netip.AddrPort) string {
	if address.Addr().Is4() {
		return proto + "4"
	}
	return proto + "6"
}

// reflector says that what comes from a source port can only be forged: no port, echo
// or chargen, which would answer our answers.
func reflector(port uint16) bool { return port == 0 || port == 7 || port == 19 }

// release closes every socket at once.
func (s *Server) release() {
	for _, w := range s.workers {
		w.close()
	}
	for _, l := range s.listeners {
		l.listener.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.conn.Close()
	}
}
