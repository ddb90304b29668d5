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
	socket    *udpSocket
	responder *Responder
	counters  *counters
}

// udpSocket is a socket with the address it has.
type udpSocket struct {
	*net.UDPConn
	address netip.AddrPort
}

func takeUDP(conn *net.UDPConn) (*udpSocket, error) {
	return &udpSocket{UDPConn: conn, address: addressOf(conn.LocalAddr())}, nil
}

func listenUDP(address netip.AddrPort) (*udpSocket, error) {
	conn, err := net.ListenUDP(network("udp", address), net.UDPAddrFromAddrPort(address))
	if err != nil {
		return nil, err
	}
	return takeUDP(conn)
}

func (s *Server) newUDPWorker(socket *udpSocket, address netip.AddrPort) (*udpWorker, error) {
	return &udpWorker{server: s, socket: socket, responder: s.responder(), counters: s.count("udp", address)}, nil
}

// stir ends the worker's wait, so that it looks at what the server wants of it.
func (w *udpWorker) stir() { w.socket.SetReadDeadline(time.Unix(1, 0)) }

func (w *udpWorker) close() { w.socket.Close() }

func (w *udpWorker) shut() {}

func (w *udpWorker) run() {
	defer w.close()
	query, reply := make([]byte, querySize), make([]byte, 0, MaxUDP)
	for {
		if w.server.park() {
			if w.server.closing.Load() {
				return
			}
			w.socket.SetReadDeadline(time.Time{})
		}
		n, from, err := w.socket.ReadFromUDPAddrPort(query)
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
			w.socket.WriteToUDPAddrPort(out, from)
		}
		w.counters.took(1, time.Since(began))
		w.counters.take(&w.responder.tally)
	}
}

func listenTCP(address netip.AddrPort) (*net.TCPListener, error) {
	return net.ListenTCP(network("tcp", address), net.TCPAddrFromAddrPort(address))
}
