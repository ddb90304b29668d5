package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// The two protocols of the node link, told apart by ALPN (RFC 7301).
const (
	protocolRaft = "authd-raft/1"
	protocolCall = "authd-node/1"
)

const (
	// handshakeTime is how long a connection may take to say who it is.
	handshakeTime = 3 * time.Second
	// maxStrangers bounds connections that have not yet said who they are. The oldest
	// makes room for another: a member says it in some milliseconds, and is kept away
	// only by somebody who opens this many connections in that time.
	maxStrangers = 64
	// maxPerPeer bounds the connections of one peer: Raft keeps three, and opens
	// more for votes and snapshots; calls use one.
	maxPerPeer = 24
)

// link is the node link: one TLS listener for Raft and for calls between nodes,
// and the dialer to the others. Both ends show certificates of the cluster's CA,
// and each end's name must be a member's.
type link struct {
	tls    *tls.Config
	logger *slog.Logger
	// member says whether a node may connect.
	member func(id string) bool
	// memberAt is the member that is reached at an address, empty where unknown.
	memberAt func(address string) string
	// meets is told of every node that takes part in Raft.
	meets func(id string)
	// own is this node's incarnation. outdated is told of a peer of an earlier one,
	// superseded of a member of a later one.
	own                  func() incarnation
	outdated, superseded func(why error)
	// stranger says whether a peer is surely no member, and removed is told of a peer
	// that says so of this node.
	stranger func(id string) bool
	removed  func(why error)
	// refused counts connections and messages that were turned away.
	refused atomic.Uint64
	seldom  seldom
	// broken counts connections that turned out to have ended when they were used.
	broken atomic.Uint64
	// serve handles a connection of calls until it ends.
	serve func(ctx context.Context, peer string, c net.Conn)

	// roots are the CAs trusted now; nil: those of tls.
	roots func() *x509.CertPool
	// authority is the certificate of the CA that issues, which nodes that join pin;
	// admit answers their request.
	authority func() []byte
	admit     func(ctx context.Context, c net.Conn)

	network   network
	patience  time.Duration // handshakeTime; tests set it shorter
	listener  net.Listener
	advertise net.Addr
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	raft      chan net.Conn
	joins     chan struct{}

	// mu guards what follows.
	mu         sync.Mutex
	open       map[net.Conn]peerConn
	raftClosed bool
	strangers  []net.Conn // oldest first
}

type peerConn struct {
	peer     string
	protocol string
	incoming bool
}

// newLink checks the TLS configuration.
func newLink(c *tls.Config, logger *slog.Logger) (*link, error) {
	if c.RootCAs == nil {
		return nil, errors.New("TLS: RootCAs is not set; it must hold the cluster's own CA")
	}
	if len(c.Certificates) == 0 && (c.GetCertificate == nil || c.GetClientCertificate == nil) {
		return nil, errors.New("TLS: no certificate of this node")
	}
	t := c.Clone()
	t.MinVersion = tls.VersionTLS13
	t.ClientAuth = tls.RequireAndVerifyClientCert
	if t.ClientCAs == nil {
		t.ClientCAs = t.RootCAs
	}
	t.InsecureSkipVerify = false
	// The name is checked at every connection; a resumed one would skip the chain.
	t.SessionTicketsDisabled = true
	t.ClientSessionCache = nil
	ctx, cancel := context.WithCancel(context.Background())
	return &link{
		tls: t, logger: logger, network: tcp{},
		ctx: ctx, cancel: cancel, patience: handshakeTime,
		own:      func() incarnation { return incarnation{} },
		stranger: func(string) bool { return false },
		removed:  func(error) {},
		raft:     make(chan net.Conn),
		joins:    make(chan struct{}, maxJoins),
		open:     make(map[net.Conn]peerConn),
	}, nil
}

// listen binds the listener; accept starts taking connections.
func (l *link) listen(bind, advertise string) error {
	listener, err := l.network.Listen(l.ctx, bind)
	if err != nil {
		return fmt.Errorf("listening for nodes: %w", err)
	}
	l.listener = listener
	l.advertise = address(advertise)
	if advertise == "" {
		l.advertise = listener.Addr()
	}
	return nil
}

func (l *link) accept() {
	l.wg.Add(1)
	go func() {
		defer l.wg.Done()
		for {
			c, err := l.listener.Accept()
			if l.ctx.Err() != nil {
				return
			}
			if err != nil {
				l.logger.Warn("accepting node connection", "error", err)
				select {
				case <-time.After(100 * time.Millisecond): // out of descriptors, most likely
				case <-l.ctx.Done():
				}
				continue
			}
			l.meet(c)
			l.wg.Add(1)
			go l.welcome(c)
		}
	}()
}

// meet counts a stranger in, for whom the oldest may have to go.
func (l *link) meet(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strangers = append(l.strangers, c)
	if len(l.strangers) > maxStrangers {
		l.strangers[0].Close()
		l.strangers = slices.Delete(l.strangers, 0, 1)
	}
}

// met counts out who is none any more.
func (l *link) met(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.strangers = slices.DeleteFunc(l.strangers, func(s net.Conn) bool { return s == c })
}

// welcome finds out who connects, and what for.
func (l *link) welcome(c net.Conn) {
	defer l.wg.Done()
	server := tls.Server(c, l.serverConfig())
	peer, err := l.handshake(server, false)
	l.met(c)
	if err != nil {
		l.refuse("node connection refused", hostOf(c), "from", c.RemoteAddr().String(), "error", err)
		c.Close()
		return
	}
	protocol := server.ConnectionState().NegotiatedProtocol
	if protocol == protocolJoin {
		l.welcomeJoin(server)
		return
	}
	if err := l.track(server, peerConn{peer, protocol, true}); err != nil {
		l.refuse("node connection refused", peer, "from", c.RemoteAddr().String(), "node", peer, "error", err)
		c.Close()
		return
	}
	if protocol == protocolCall {
		defer l.forget(server)
		l.serve(l.ctx, peer, server)
		return
	}
	l.meets(peer)
	select {
	case l.raft <- &trackedConn{Conn: server, link: l, peer: peer}:
	case <-l.ctx.Done():
		l.forget(server)
	}
}

// refuse counts what was turned away, and logs it once a minute for each peer.
func (l *link) refuse(what, peer string, about ...any) {
	l.refused.Add(1)
	left, ok := l.seldom.says(what + " " + peer)
	if !ok {
		return
	}
	if left > 0 {
		about = append(about, "unsaid", left)
	}
	l.logger.Warn(what, about...)
}

// hostOf is the other end without its port, which is another each time.
func hostOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return c.RemoteAddr().String()
	}
	return host
}

// welcomeJoin answers a node that has no certificate yet.
func (l *link) welcomeJoin(c net.Conn) {
	select {
	case l.joins <- struct{}{}:
		defer func() { <-l.joins }()
		stop := context.AfterFunc(l.ctx, func() { c.Close() })
		defer stop()
		l.admit(l.ctx, c)
	default:
		c.Close() // it tries again
	}
}

// config is the TLS configuration with the CAs trusted now.
func (l *link) config() *tls.Config {
	t := l.tls.Clone()
	if l.roots != nil {
		t.RootCAs = l.roots()
		t.ClientCAs = t.RootCAs
	}
	return t
}

func (l *link) serverConfig() *tls.Config {
	t := l.config()
	t.NextProtos = []string{protocolRaft, protocolCall}
	t.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != protocolJoin || l.admit == nil {
			return nil, nil
		}
		return l.joinConfig(t, hello)
	}
	return t
}

// joinConfig asks for no certificate and shows the CA's behind our own.
func (l *link) joinConfig(t *tls.Config, hello *tls.ClientHelloInfo) (*tls.Config, error) {
	j := t.Clone()
	j.GetConfigForClient = nil
	j.ClientAuth = tls.NoClientCert
	j.NextProtos = []string{protocolJoin}
	ca := l.authority()
	if len(ca) == 0 {
		return nil, errNoAuthority
	}
	var own tls.Certificate
	if t.GetCertificate != nil {
		pair, err := t.GetCertificate(hello)
		if err != nil {
			return nil, err
		}
		own = *pair
	} else {
		own = t.Certificates[0]
	}
	own.Certificate = [][]byte{own.Certificate[0], ca}
	j.GetCertificate, j.Certificates = nil, []tls.Certificate{own}
	return j, nil
}

// handshake says whose certificate the other end has shown.
func (l *link) handshake(c *tls.Conn, client bool) (peer string, err error) {
	ctx, cancel := context.WithTimeout(l.ctx, l.patience)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return "", err
	}
	state := c.ConnectionState()
	if state.NegotiatedProtocol == protocolJoin && len(state.PeerCertificates) == 0 {
		return "", nil // nobody yet
	}
	if p := state.NegotiatedProtocol; p != protocolRaft && p != protocolCall {
		return "", fmt.Errorf("protocol %q is not one of the node link", p)
	}
	peer = nodeName(state.PeerCertificates[0])
	if peer == "" {
		return "", errors.New("certificate has no name")
	}
	theirs, err := l.hello(ctx, c, peer, client)
	if err != nil {
		return "", err
	}
	if err := l.matches(peer, theirs); err != nil {
		return "", err
	}
	if !l.member(peer) {
		return "", fmt.Errorf("node %q is not a member of this cluster", peer)
	}
	return peer, nil
}

// nodeName is the node that a certificate is for: its first DNS name.
func nodeName(c *x509.Certificate) string {
	if len(c.DNSNames) == 0 {
		return ""
	}
	return c.DNSNames[0]
}

// dial connects to a node. id may be empty where only the address is known: then
// any member may answer there.
func (l *link) dial(ctx context.Context, id, target, protocol string) (net.Conn, error) {
	if id == "" {
		id = l.memberAt(target)
	}
	t := l.config()
	t.NextProtos = []string{protocol}
	t.ServerName = id
	if id == "" {
		t.InsecureSkipVerify = true // the name alone: the chain is checked here
		t.VerifyConnection = func(s tls.ConnectionState) error { return verifyChain(s, t.RootCAs) }
	}
	c, err := l.network.Dial(ctx, target)
	if err != nil {
		return nil, err
	}
	client := tls.Client(c, t)
	peer, err := l.handshake(client, true)
	if err == nil && id != "" && peer != id {
		err = fmt.Errorf("the certificate is node %q's", peer)
	}
	if err == nil {
		err = l.track(client, peerConn{peer, protocol, false})
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connecting to node %q at %s: %w", id, target, err)
	}
	if protocol == protocolRaft {
		l.meets(peer)
	}
	return &trackedConn{Conn: client, link: l, peer: peer}, nil
}

func verifyChain(s tls.ConnectionState, roots *x509.CertPool) error {
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
	return err
}

// closeRaft ends Raft's part of the link, for good.
func (l *link) closeRaft() {
	l.mu.Lock()
	l.raftClosed = true
	l.mu.Unlock()
	l.end(func(p peerConn) bool { return p.protocol == protocolRaft })
}

// disconnect ends all connections of a peer that is no member any more.
func (l *link) disconnect(peer string) {
	l.end(func(p peerConn) bool { return p.peer == peer })
}

// end closes those connections that are now open.
func (l *link) end(those func(peerConn) bool) {
	var gone []net.Conn
	l.mu.Lock()
	for c, p := range l.open {
		if those(p) {
			gone = append(gone, c)
		}
	}
	l.mu.Unlock()
	for _, c := range gone {
		l.forget(c)
	}
}

// Close ends everything and waits for it.
func (l *link) Close() error {
	l.cancel()
	var err error
	if l.listener != nil {
		err = l.listener.Close()
	}
	l.end(func(peerConn) bool { return true })
	l.wg.Wait()
	return err
}

// raftStreams is Raft's stream layer over the link.
type raftStreams struct{ *link }

// Accept implements net.Listener.
func (s raftStreams) Accept() (net.Conn, error) {
	select {
	case c := <-s.raft:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener: what peers dial.
func (s raftStreams) Addr() net.Addr { return s.advertise }

// Close implements net.Listener.
func (s raftStreams) Close() error {
	s.closeRaft()
	return nil
}

// Dial implements raft.StreamLayer.
func (s raftStreams) Dial(target raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	return s.dial(ctx, "", string(target), protocolRaft)
}
