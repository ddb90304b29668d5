//go:build !portable

package zone

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batchSize is how many datagrams one system call receives or sends. Past 64
	// there is nothing to gain (bench: the call is some percent of the work) and
	// the first of a batch waits for the last.
	batchSize = 64
	// querySize is how much of a datagram is looked at; a longer one is cut off
	// and gets the FORMERR of a cut-off message.
	querySize = 2048
	// bufferSize is asked for both socket buffers: at 500,000 queries a second
	// some 20 ms of them.
	bufferSize = 4 << 20
	// receiveTries is how often an error of the socket itself is passed over
	// before waiting for the next datagram.
	receiveTries = 3
	// pollPause is how long a worker sleeps where it cannot wait for its socket, the
	// kernel being short of memory.
	pollPause = time.Millisecond
	// drainBatches bounds what a closing socket still answers: more than its buffer
	// holds, since a successor may read it too and let it never be empty.
	drainBatches = 1024

	// sharesPorts says that every worker can have a socket of its own.
	sharesPorts = true

	controlWords = 6 // 48 octets: a header and in6_pktinfo
)

// mmsghdr is struct mmsghdr of recvmmsg(2); Go pads it as C does.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// udpSocket is a socket that the runtime's poller does not know: a worker waits for
// it in the kernel. All reading and writing asks not to block.
type udpSocket struct {
	*os.File
	address netip.AddrPort
}

// takeUDP makes a socket of conn, which it closes.
func takeUDP(conn *net.UDPConn) (*udpSocket, error) {
	defer conn.Close()
	fd, err := duplicate(conn)
	if err != nil {
		return nil, err
	}
	// os.NewFile leaves a socket that is not non-blocking out of the poller.
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &udpSocket{File: os.NewFile(uintptr(fd), "udp"), address: addressOf(conn.LocalAddr())}, nil
}

// udpWorker reads one socket and answers, on a thread of its own. Its memory is laid
// out once; a round receives a batch, answers it and sends what there is to send.
type udpWorker struct {
	server    *Server
	socket    *udpSocket
	raw       syscall.RawConn
	wake      *os.File // an eventfd: ends a wait
	polled    [2]unix.PollFd
	responder *Responder
	counters  *counters
	wildcard  bool
	received  int // messages of the last round, whose headers must be set again

	in, out         [batchSize]mmsghdr
	inData, outData [batchSize]unix.Iovec
	from            [batchSize]unix.RawSockaddrInet6 // room for IPv4 too
	control         [batchSize][controlWords]uint64
	messages        [batchSize][]byte // those of the batch, in queries
	queries         *[batchSize][querySize]byte
	replies         *[batchSize][MaxUDP]byte
}

func (s *Server) newUDPWorker(socket *udpSocket, address netip.AddrPort) (*udpWorker, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	w := &udpWorker{
		server: s, socket: socket, raw: raw, wake: os.NewFile(uintptr(wake), "wake"),
		responder: s.responder(),
		counters:  s.count("udp", address),
		wildcard:  address.Addr().IsUnspecified(),
		received:  batchSize,
		queries:   new([batchSize][querySize]byte),
		replies:   new([batchSize][MaxUDP]byte),
	}
	for i := range batchSize {
		w.inData[i].Base = &w.queries[i][0]
		w.inData[i].SetLen(querySize)
		w.in[i].header.Name = (*byte)(unsafe.Pointer(&w.from[i]))
		w.in[i].header.Iov = &w.inData[i]
		w.in[i].header.SetIovlen(1)
		if w.wildcard {
			w.in[i].header.Control = (*byte)(unsafe.Pointer(&w.control[i]))
		}
		w.out[i].header.Iov = &w.outData[i]
		w.out[i].header.SetIovlen(1)
	}
	return w, nil
}

// stir ends the worker's wait, so that it looks at what the server wants of it.
func (w *udpWorker) stir() { w.wake.Write([]byte{7: 1}) } // the sum may have any octet order

func (w *udpWorker) close() {
	w.socket.Close()
	w.wake.Close()
}

// shut lets nothing more into the socket: the kernel refuses what comes, as if it
// were closed, and what came before can still be answered. Otherwise a datagram that
// came between the last read and closing would be lost silently. A socket that is
// connected to itself receives from nobody else, and can still send to anybody.
func (w *udpWorker) shut() {
	w.raw.Control(func(fd uintptr) {
		own, err := unix.Getsockname(int(fd))
		if err != nil {
			return // the window stays, small as it is
		}
		switch a := own.(type) {
		case *unix.SockaddrInet4:
			if a.Addr == [4]byte{} {
				a.Addr = [4]byte{127, 0, 0, 1}
			}
		case *unix.SockaddrInet6:
			if a.Addr == [16]byte{} {
				a.Addr[15] = 1
			}
		}
		unix.Connect(int(fd), own)
	})
}

// run answers until the server ends, not only until it closes: what was on its way into
// a socket that was just shut has time to arrive. The worker has a thread of its own
// and waits in the kernel, which wakes it at once and schedules it first (hurry). Behind
// the runtime's poller an answer could wait 10 ms for a goroutine that computes.
func (w *udpWorker) run() {
	runtime.LockOSThread()
	hurry()
	defer w.close()
	w.raw.Control(func(fd uintptr) {
		raw, err := w.wake.SyscallConn()
		if err != nil {
			return // closed already
		}
		raw.Control(func(wake uintptr) { w.serve(fd, wake) })
	})
}

func (w *udpWorker) serve(fd, wake uintptr) {
	w.polled = [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	for s := w.server; ; {
		switch {
		case s.park():
			if s.closing.Load() {
				return // a successor answers what is there
			}
		case s.ending.Load():
			for i := 0; i < drainBatches && w.round(fd); i++ {
			}
			return
		case !w.round(fd):
			w.wait()
		}
	}
}

// wait waits for a datagram or for stir.
func (w *udpWorker) wait() {
	n, err := unix.Poll(w.polled[:], -1)
	switch {
	case err != nil && err != unix.EINTR:
		time.Sleep(pollPause)
	case n > 0 && w.polled[1].Revents != 0:
		var sum [8]byte
		w.wake.Read(sum[:])
	}
}

// round answers one batch; false when there is nothing to read.
func (w *udpWorker) round(fd uintptr) bool {
	n := w.receive(fd)
	if n == 0 {
		return false
	}
	// Two looks at the clock a batch: all its messages have the same time.
	began := time.Now()
	w.responder.begin(began)
	w.send(fd, w.answer(n))
	w.counters.took(n, time.Since(began))
	w.counters.take(&w.responder.tally)
	return true
}

// receive reads up to a batch without waiting. RawSyscall6 keeps the scheduler
// out of it: the call never blocks, and handing the processor over and back
// would cost more than it.
func (w *udpWorker) receive(fd uintptr) int {
	for i := range w.received {
		w.in[i].header.Namelen = unix.SizeofSockaddrInet6
		if w.wildcard {
			w.in[i].header.SetControllen(controlWords * 8)
		}
	}
	w.received = 0
	for range receiveTries {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&w.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		if errno == 0 {
			w.received = int(n)
			return w.received
		}
		if errno == unix.EAGAIN {
			break
		}
	}
	return 0
}

// answer makes the replies to the first n messages and returns their number.
func (w *udpWorker) answer(n int) int {
	ready := 0
	var from source
	for i := range n {
		w.messages[i] = w.queries[i][:w.in[i].length]
	}
	w.responder.Expect(w.messages[:n])
	for i := range n {
		if !w.wanted(i) {
			w.responder.tally[slotDropped]++
			continue
		}
		w.source(i, &from)
		w.responder.Expected(i)
		reply := w.responder.reply(w.replies[ready][:0], w.messages[i], &from)
		if len(reply) == 0 {
			continue
		}
		w.outData[ready].Base = &reply[0]
		w.outData[ready].SetLen(len(reply))
		h := &w.out[ready].header
		h.Name, h.Namelen = w.in[i].header.Name, w.in[i].header.Namelen
		h.Control = nil
		h.SetControllen(0)
		if w.wildcard && w.returnFrom(i) {
			h.Control = w.in[i].header.Control
			h.Controllen = w.in[i].header.Controllen
		}
		ready++
	}
	return ready
}

// wanted judges a datagram by its source's port, before its octets are looked at.
func (w *udpWorker) wanted(i int) bool {
	// The port is at the same place in both families, in network order.
	return !reflector(binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&w.from[i].Port))[:]))
}

// source reads the address that message i came from.
func (w *udpWorker) source(i int, from *source) {
	if w.from[i].Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&w.from[i]))
		from.length = copy(from.address[:], four.Addr[:])
		return
	}
	from.address = w.from[i].Addr
	from.length = len(from.address)
}

// returnFrom turns the packet information of message i into that of its reply:
// from the address asked, by whatever interface leads back. False where there
// is none.
func (w *udpWorker) returnFrom(i int) bool {
	h := &w.in[i].header
	c := (*unix.Cmsghdr)(unsafe.Pointer(h.Control))
	data := unsafe.Add(unsafe.Pointer(c), unix.CmsgLen(0))
	switch {
	case int(h.Controllen) >= unix.CmsgLen(unix.SizeofInet4Pktinfo) && c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO:
		(*unix.Inet4Pktinfo)(data).Ifindex = 0
		return true
	case int(h.Controllen) >= unix.CmsgLen(unix.SizeofInet6Pktinfo) && c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO:
		info := (*unix.Inet6Pktinfo)(data)
		if !netip.AddrFrom16(info.Addr).IsLinkLocalUnicast() {
			info.Ifindex = 0
		}
		return true
	}
	return false
}

// send sends the first n replies. One that the kernel refuses is dropped: its
// sender asks again.
func (w *udpWorker) send(fd uintptr, n int) {
	for at := 0; at < n; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&w.out[at])), uintptr(n-at), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0 || sent == 0:
			w.responder.tally[slotDropped]++
			at++
		default:
			at += int(sent)
		}
	}
}

func listenUDP(address netip.AddrPort) (*udpSocket, error) {
	lc := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		return control(c, func(fd int) error { return setUDP(fd, network == "udp4", address.Addr().IsUnspecified()) })
	}}
	conn, err := lc.ListenPacket(context.Background(), network("udp", address), address.String())
	if err != nil {
		return nil, err
	}
	return takeUDP(conn.(*net.UDPConn))
}

func listenTCP(address netip.AddrPort) (*net.TCPListener, error) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		return control(c, setReusePort)
	}}
	lc.SetMultipathTCP(false) // nothing to gain for one question, and one kernel path less to trust
	l, err := lc.Listen(context.Background(), network("tcp", address), address.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

func control(c syscall.RawConn, set func(fd int) error) (err error) {
	if e := c.Control(func(fd uintptr) { err = set(int(fd)) }); e != nil {
		return e
	}
	return err
}

func setReusePort(fd int) error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
}

func setUDP(fd int, ipv4, wildcard bool) error {
	if err := setReusePort(fd); err != nil {
		return err
	}
	// Past net.core.rmem_max only a privileged process gets what it asks for;
	// any other serves with less.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bufferSize)

	// OMIT ignores forged "packet too big" messages, which would have our answers
	// cut into fragments that can be replaced (RFC 9715 section 3.1).
	if ipv4 {
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
	} else {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_OMIT)
	}
	switch {
	case !wildcard:
		return nil
	case ipv4:
		return os.NewSyscallError("setsockopt IP_PKTINFO", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
	}
	return os.NewSyscallError("setsockopt IPV6_RECVPKTINFO", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1))
}
