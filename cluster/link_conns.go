package cluster

import (
	"errors"
	"fmt"
	"net"
	"os"
)

// track counts a connection in, within the bound for one peer.
func (l *link) track(c net.Conn, p peerConn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx.Err() != nil || l.raftClosed && p.protocol == protocolRaft {
		return net.ErrClosed
	}
	n := 0
	for _, other := range l.open {
		if other.peer == p.peer {
			n++
		}
	}
	if n >= maxPerPeer {
		return fmt.Errorf("node %q has %d connections already", p.peer, n)
	}
	l.open[c] = p
	return nil
}

// hears says whether a peer has connections of Raft to this node. A process that
// leads has, and all of them end with it.
func (l *link) hears(peer string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		if c.peer == peer && c.incoming && c.protocol == protocolRaft {
			return true
		}
	}
	return false
}

// note counts an error of a connection that is not only slow.
func (l *link) note(err error) {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		l.broken.Add(1)
	}
}

func (l *link) forget(c net.Conn) {
	l.mu.Lock()
	delete(l.open, c)
	l.mu.Unlock()
	c.Close()
}

// trackedConn leaves the count when it is closed.
type trackedConn struct {
	net.Conn
	link *link
	peer string
}

// Read implements net.Conn.
func (c *trackedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.link.note(err)
	return n, err
}

// Write implements net.Conn.
func (c *trackedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.link.note(err)
	return n, err
}

func (c *trackedConn) Close() error {
	c.link.forget(c.Conn)
	return nil
}
