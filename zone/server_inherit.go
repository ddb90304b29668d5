package zone

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is an open DNS socket on its way from a process to its successor. Both
// hold the same socket then, not two of one port: what has arrived and waits in it
// is answered by whichever reads it, so nothing is lost when the first one closes.
// With SO_REUSEPORT alone the queue of a closing socket is.
type Socket struct {
	// TCP: it listens for connections. Else it takes datagrams.
	TCP bool
	// Address is what it answers on.
	Address netip.AddrPort
	// File is the descriptor, from Sockets or os.NewFile. On any other Fd would make
	// the socket block, for all who share it.
	File *os.File
}

// Sockets are all sockets of the server, for a successor. The caller closes them;
// the server goes on.
func (s *Server) Sockets() (all []Socket, err error) {
	s.shared.Store(true)
	add := func(conn syscall.Conn, tcp bool, address netip.AddrPort) {
		if err != nil {
			return
		}
		var fd int
		if fd, err = duplicate(conn); err == nil {
			all = append(all, Socket{TCP: tcp, Address: address, File: os.NewFile(uintptr(fd), address.String())})
		}
	}
	for _, w := range s.workers {
		add(w.socket, false, w.socket.address)
	}
	for _, l := range s.listeners {
		add(l.listener, true, addressOf(l.listener.Addr()))
	}
	if err != nil {
		closeSockets(all)
		return nil, fmt.Errorf("duplicating DNS sockets: %w", err)
	}
	return all, nil
}

// Own tells the server that the predecessor whose sockets it inherited has ended. Until
// then Close does not shut the sockets, since that would shut them for both.
func (s *Server) Own() { s.shared.Store(false) }

// pause is a time in which nothing is taken from the sockets.
type pause struct {
	parked sync.WaitGroup // readers that have not stopped yet
	over   chan struct{}
}

// Pause stops reading the sockets, and returns once all that was read is answered or
// ctx is done. What comes meanwhile waits in them for a successor, or for Resume.
// Established connections go on. Close ends a pause without another look at the
// sockets.
func (s *Server) Pause(ctx context.Context) error {
	p := &pause{over: make(chan struct{})}
	p.parked.Add(len(s.workers) + len(s.listeners))
	if !s.pause.CompareAndSwap(nil, p) {
		return errors.New("the server is paused already")
	}
	for _, w := range s.workers {
		w.stir()
	}
	for _, l := range s.listeners {
		l.listener.SetDeadline(time.Unix(1, 0))
	}
	parked := make(chan struct{})
	go func() {
		p.parked.Wait()
		close(parked)
	}()
	select {
	case <-parked:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pausing DNS: %w", ctx.Err())
	}
}

// Resume ends a pause.
func (s *Server) Resume() {
	p := s.pause.Swap(nil)
	if p == nil {
		return
	}
	for _, l := range s.listeners {
		l.listener.SetDeadline(time.Time{})
	}
	close(p.over)
}

// park holds a reader of a socket while the server is paused, and says whether it was.
func (s *Server) park() bool {
	p := s.pause.Load()
	if p == nil {
		return false
	}
	p.parked.Done()
	select {
	case <-p.over:
	case <-s.stopped:
	}
	return true
}

func addressOf(a net.Addr) netip.AddrPort {
	var at netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		at = a.AddrPort()
	case *net.TCPAddr:
		at = a.AddrPort()
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// duplicate makes another descriptor of a socket. net's own File method would
// give one that makes the socket block when it is used.
func duplicate(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(from uintptr) { fd, failed = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}

func closeSockets(all []Socket) {
	for _, s := range all {
		s.File.Close()
	}
}

// inherited gives the sockets of one address that a predecessor had; port 0 takes
// the port that it has.
func (c *ServerConfig) inherited(tcp bool, address netip.AddrPort) []*os.File {
	var files []*os.File
	for _, s := range c.Inherited {
		if s.TCP == tcp && s.Address.Addr() == address.Addr() && (address.Port() == 0 || s.Address.Port() == address.Port()) {
			files = append(files, s.File)
		}
	}
	return files
}

func adoptUDP(file *os.File) (*udpSocket, error) {
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("taking over socket: %w", err)
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("taking over socket: it is %s, not UDP", conn.LocalAddr().Network())
	}
	return takeUDP(udp)
}

func adoptTCP(file *os.File) (*net.TCPListener, error) {
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("taking over listener: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("taking over listener: it is %s, not TCP", l.Addr().Network())
	}
	return tcp, nil
}
