//go:build !linux || portable

package zone

import (
	"errors"
	"net"
	"net/netip"
	"time"
)

// querySize is how much of a datagram is looked at.
const querySize = 2048

// sharesPorts says that every worker can have a socket of its own.
const sharesPorts = false

// udpWorker is the fallback for systems other than Linux, enough to try authd
// there: one datagram a system call, one socket an address, and no word from the kernel about which of a
// wildcard's addresses was asked, so that the system chooses where a reply comes
// from.
type udpWorker struct {
	server    *Server
	conn      *net.UDPConn
	responder *Responder
	counters  *counters
}

func listenUDP(address netip.AddrPort) (*net.UDPConn, error) {
	return net.ListenUDP(network("udp", address), net.UDPAddrFromAddrPort(address))
}

func (s *Server) newUDPWorker(conn *net.UDPConn, address netip.AddrPort) (*udpWorker, error) {
	return &udpWorker{server: s, conn: conn, responder: s.responder(), counters: s.count("udp", address)}, nil
}

func (w *udpWorker) stop() { w.conn.SetReadDeadline(time.Unix(1, 0)) }

func (w *udpWorker) shut() {}

func (w *udpWorker) run() {
	defer w.conn.Close()
	query, reply := make([]byte, querySize), make([]byte, 0, MaxUDP)
	for {
		if w.server.park() && w.server.closing.Load() {
			return
		}
		n, from, err := w.conn.ReadFromUDPAddrPort(query)
		switch {
		case err == nil:
		case w.server.closing.Load() || errors.Is(err, net.ErrClosed):
			return
		default:
			continue // of one datagram: too long for us, or its sender is gone
		}
		began := time.Now()
		w.responder.begin(began)
		source := sourceOf(from.Addr(), false)
		if reflector(from.Port()) {
			w.responder.tally[slotDropped]++
		} else if out := w.responder.reply(reply, query[:n], &source); len(out) > 0 {
			w.conn.WriteToUDPAddrPort(out, from)
		}
		w.counters.took(1, time.Since(began))
		w.counters.take(&w.responder.tally)
	}
}

func listenTCP(address netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP(network("tcp", address), net.TCPAddrFromAddrPort(address))
}
