package api

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// connections are the open ones of all sockets. Where there are too many, one without a
// request that showed a token makes room, so that clients without a token, however slow,
// keep nobody with one away.
type connections struct {
	limits  limits
	refused func(reason string)

	mu   sync.Mutex // guards what follows; taken when a connection opens or closes
	open map[*cappedConn]struct{}
	from map[netip.Addr]int
}

// capped closes connections beyond the limits as soon as they are accepted.
type capped struct {
	net.Listener
	*connections
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
		in := &cappedConn{Conn: c, all: l.connections, client: client}
		in.since.Store(time.Now().UnixNano())
		gone, full := l.enter(in)
		if full != "" {
			l.refused(full)
			c.Close()
			continue
		}
		if gone != nil {
			l.refused(refusedWaiting)
			gone.Conn.Close()
		}
		return in, nil
	}
}

// enter takes a connection in. It gives the one that must be closed for it, which is
// forgotten already, or says what there is too much of.
func (l *connections) enter(c *cappedConn) (gone *cappedConn, full string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !c.client.IsLoopback() && l.from[c.client] >= l.limits.PerAddress:
		if gone = l.longestWaiting(c.client); gone == nil {
			return nil, refusedAddress
		}
	case len(l.open) >= l.limits.Connections:
		if gone = l.longestWaiting(netip.Addr{}); gone == nil {
			return nil, refusedConnections
		}
	}
	if gone != nil {
		l.forget(gone)
	}
	l.open[c] = struct{}{}
	l.from[c.client]++
	return gone, ""
}

// longestWaiting is the connection, of one client or of all, that has been without a
// request that somebody vouched for since the earliest time; nil: none is.
func (l *connections) longestWaiting(client netip.Addr) (longest *cappedConn) {
	earliest := int64(0)
	for c := range l.open {
		since := c.since.Load()
		if since != 0 && (longest == nil || since < earliest) && (!client.IsValid() || c.client == client) {
			longest, earliest = c, since
		}
	}
	return longest
}

// forget counts a connection out, once. The caller holds mu.
func (l *connections) forget(c *cappedConn) {
	if _, open := l.open[c]; !open {
		return
	}
	delete(l.open, c)
	if l.from[c.client]--; l.from[c.client] == 0 {
		delete(l.from, c.client)
	}
}

type cappedConn struct {
	net.Conn
	all    *connections
	client netip.Addr
	// since is when it came, or ended its last request (Unix nanoseconds); 0 while
	// it has a request that a token was shown for.
	since atomic.Int64
}

// Close implements net.Conn.
func (c *cappedConn) Close() error {
	c.all.mu.Lock()
	c.all.forget(c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// below is the connection as it was accepted.
func below(c net.Conn) (*cappedConn, bool) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	in, ok := c.(*cappedConn)
	return in, ok
}

type connKey struct{}

// vouchable lets a request vouch for its connection.
func vouchable(ctx context.Context, c net.Conn) context.Context {
	if in, ok := below(c); ok {
		return context.WithValue(ctx, connKey{}, in)
	}
	return ctx
}

// vouch keeps the connection of a request until that ends, whatever others want.
func vouch(r *http.Request) {
	if in, ok := r.Context().Value(connKey{}).(*cappedConn); ok {
		in.since.Store(0)
	}
}

// noteIdle notes that a connection has no request any more.
func noteIdle(c net.Conn, state http.ConnState) {
	if in, ok := below(c); ok && state == http.StateIdle {
		in.since.Store(time.Now().UnixNano())
	}
}
