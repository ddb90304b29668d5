package zone

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// streamBuffer is what both kernel buffers of a connection are set to; the kernel
	// takes twice that. By default a client that does not read could fill megabytes, and
	// there may be thousands of such. A resolver a tenth of a second away still gets a
	// thousand answers a second through it.
	streamBuffer = 64 << 10

	// drainAccept is how long a closing listener takes connections that were
	// established before it closed; what is left then is reset by the kernel.
	drainAccept = 20 * time.Millisecond
	// lastAccepts is how often that is repeated because more came meanwhile.
	lastAccepts = 50
	// acceptPause follows an accept that failed, mostly for want of descriptors.
	acceptPause = 50 * time.Millisecond
)

// tcpListener accepts connections of one address.
type tcpListener struct {
	server   *Server
	listener *net.TCPListener
	counters *counters
}

func (s *Server) openTCP(address netip.AddrPort) (*tcpListener, error) {
	l, err := adoptOr(s.config.inherited(true, address), 0, adoptTCP, func() (*net.TCPListener, error) { return listenTCP(address) })
	if err != nil {
		return nil, err
	}
	if err := boundBuffers(l); err != nil {
		l.Close()
		return nil, err
	}
	return &tcpListener{server: s, listener: l, counters: s.count("tcp", address)}, nil
}

// boundBuffers bounds the kernel's buffers of a listener's connections, which inherit
// its settings.
func boundBuffers(l *net.TCPListener) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(
			os.NewSyscallError("setsockopt SO_SNDBUF", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, streamBuffer)),
			os.NewSyscallError("setsockopt SO_RCVBUF", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, streamBuffer)))
	})
	return errors.Join(err, failed)
}

func (l *tcpListener) port() uint16 {
	return l.listener.Addr().(*net.TCPAddr).AddrPort().Port()
}

func (l *tcpListener) stop() { l.listener.SetDeadline(time.Now().Add(drainAccept)) }

// pending says whether a connection waits to be accepted.
func (l *tcpListener) pending() (waits bool) {
	raw, err := l.listener.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		waits = err == nil && n > 0
	})
	return waits
}

func (l *tcpListener) run() {
	defer l.listener.Close()
	for again := 0; ; {
		if l.server.park() {
			if l.server.closing.Load() {
				return // a successor takes those that wait
			}
			continue
		}
		conn, err := l.listener.AcceptTCP()
		switch {
		case err == nil:
			l.server.admit(conn, l.counters)
		case errors.Is(err, net.ErrClosed):
			return
		case l.server.pause.Load() != nil: // park
		case l.server.closing.Load():
			// Those established at the last moment; past that the kernel resets them.
			if again++; again > lastAccepts || l.server.shared.Load() || !l.pending() {
				return
			}
			l.stop()
		default:
			l.server.config.Logger.Error("accepting DNS connection", "address", l.listener.Addr().String(), "error", err)
			select {
			case <-time.After(acceptPause):
			case <-l.server.stopped:
			}
		}
	}
}
