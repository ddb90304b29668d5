package cluster

import (
	"fmt"
	"net"

	"github.com/hashicorp/raft"
)

// Who sends what. The library's transport decodes messages where no connection is
// in sight, and the library believes what their headers say: whose vote it is asked
// for, who leads. So the connections of each peer have a transport of their own:
// what comes out of it was sent by the node whose certificate opened them, and a
// header that names another is refused.

// sender is the transport of one peer's messages.
type sender struct {
	network *raft.NetworkTransport
	conns   chan net.Conn
}

// senderStreams gives a sender its peer's connections, and dials nobody.
type senderStreams struct {
	raftStreams
	conns chan net.Conn
}

// Accept implements net.Listener.
func (s senderStreams) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. The connections are closed with the link's.
func (s senderStreams) Close() error { return nil }

// outgoing is the stream layer of a transport that only sends.
type outgoing struct{ raftStreams }

// Accept implements net.Listener.
func (s outgoing) Accept() (net.Conn, error) {
	<-s.ctx.Done()
	return nil, net.ErrClosed
}

// takeIn gives every connection to its peer's sender, until the link ends.
func (t *transport) takeIn(s raftStreams) {
	for {
		c, err := s.Accept()
		if err != nil {
			return
		}
		from := t.senderOf(s, c.(*trackedConn).peer)
		if from == nil {
			c.Close()
			continue
		}
		select {
		case from.conns <- c:
		case <-t.stop:
			c.Close()
		}
	}
}

// senderOf is the transport of a peer's messages; nil once this one is closed. How
// many there are is bounded by how many members the cluster had.
func (t *transport) senderOf(s raftStreams, peer string) *sender {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case <-t.stop:
		return nil
	default:
	}
	from := t.senders[peer]
	if from == nil {
		from = &sender{conns: make(chan net.Conn)}
		from.network = newNetwork(senderStreams{s, from.conns}, raftLogger(s.logger))
		t.senders[peer] = from
		go t.vouch(s.link, peer, from.network.Consumer())
	}
	return from
}

// vouch passes on what a peer says in its own name. It ends with the transport.
func (t *transport) vouch(l *link, peer string, said <-chan raft.RPC) {
	for {
		select {
		case rpc := <-said:
			if err := l.speaksFor(peer, rpc); err != nil {
				l.refuse("message of Raft refused", peer, "node", peer, "error", err)
				rpc.Respond(nil, err)
				continue
			}
			select {
			case t.vouched <- rpc:
			case <-t.stop:
				return
			}
		case <-t.stop:
			return
		}
	}
}

// speaksFor is nil where the header of a message names the node that sent it, at
// an address that is no other member's.
func (l *link) speaksFor(peer string, rpc raft.RPC) error {
	message, ok := rpc.Command.(raft.WithRPCHeader)
	if !ok {
		return fmt.Errorf("message %T has no header", rpc.Command)
	}
	h := message.GetRPCHeader()
	if string(h.ID) != peer {
		return fmt.Errorf("a message of node %q came with the certificate of node %q", h.ID, peer)
	}
	if owner := l.memberAt(string(h.Addr)); owner != "" && owner != peer {
		return fmt.Errorf("node %q gives the address of node %q, %s, as its own: check link.advertise", peer, owner, h.Addr)
	}
	return nil
}
