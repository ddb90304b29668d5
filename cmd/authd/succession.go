package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// succession is how a node's process gets a successor: at SIGHUP, which is an
// upgrade or a restart without a gap, and when the node is fenced off, which only
// a new process ends.
type succession struct {
	config string         // the node's file, for the successor's command line
	ask    *os.File       // asks whoever started us; nil: we start it ourselves
	hangup chan os.Signal // SIGHUP, from the beginning: it must not end us

	listener *net.UnixListener
	lock     *os.File
	from     *predecessor  // until we serve; nil: a first start
	to       *net.UnixConn // the successor that serves

	released  atomic.Bool   // log, link and API are given up
	lost      chan struct{} // a successor ended before it served
	underWay  atomic.Bool   // a successor is being started
	succeeded chan struct{} // closed when a successor serves
	waiting   sync.WaitGroup
}

const (
	successorPause    = time.Second // before another is started, doubled up to
	successorPauseMax = time.Minute
)

func newSuccession(config string, askFD int) *succession {
	s := &succession{config: config, hangup: make(chan os.Signal, 1), lost: make(chan struct{}, 1), succeeded: make(chan struct{})}
	signal.Notify(s.hangup, syscall.SIGHUP)
	if askFD > 0 {
		unix.CloseOnExec(askFD)
		s.ask = os.NewFile(uintptr(askFD), "supervisor")
	}
	return s
}

// Close gives up the directory, and tells a successor that nothing is answered from
// here any more.
func (s *succession) Close() error {
	signal.Stop(s.hangup)
	var errs []error
	if s.from != nil && s.from.sockets != nil {
		errs = append(errs, s.from.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	if s.to != nil {
		errs = append(errs, s.to.Close())
	}
	return errors.Join(errs...)
}

// claim makes the data directory this process's own: taken over from the one
// that runs the node where that is wanted, else by its lock.
func (s *server) claim(ctx context.Context) error {
	var err error
	if s.takeOver {
		if s.next.from, err = takeOver(ctx, s.config.DataDir); err != nil {
			return err
		}
	}
	if from := s.next.from; from != nil {
		s.logger.Info("taking over", "from", from.pid, "sockets", len(from.sockets))
		s.next.lock, from.lock = from.lock, nil
		return nil
	}
	if s.next.lock, err = lockData(s.config.DataDir); err != nil {
		return err
	}
	s.sign()
	return nil
}

// sign writes down which process the node is, for people and supervisors. A node
// answers without it, on a full disk too.
func (s *server) sign() {
	if err := errors.Join(signLock(s.next.lock), s.writePID()); err != nil {
		s.logger.Error("writing down which process this node is", "error", err)
	}
}

// installed ends a take-over: this process answers, its predecessor may end.
func (s *server) installed(ctx context.Context) {
	from := s.next.from
	if from == nil {
		return
	}
	from.sockets = nil // zone.Listen closed them
	// Before the predecessor may end: it takes its own name away where ours is not
	// there yet, and would take ours if that came between its look and its deed.
	s.sign()
	err := from.serving()
	if err != nil {
		// It ended by itself, or is stuck: both ways we serve.
		s.logger.Warn("predecessor not told that it may end", "pid", from.pid, "error", err)
	}
	s.tasks.Go(func() {
		if from.await(ctx) {
			s.dns.Load().Own()
		}
	})
}

// succeed starts what brings a successor and what lets it take over; both end
// with ctx.
func (s *server) succeed(ctx context.Context) error {
	var err error
	if s.next.listener, err = listenSuccessor(s.config.DataDir); err != nil {
		return err
	}
	s.next.waiting.Go(func() { s.takeSuccessors(ctx) })
	s.next.waiting.Go(func() { s.wantSuccessors(ctx) })
	context.AfterFunc(ctx, func() { s.next.listener.Close() })
	return nil
}

// takeSuccessors hands over to whoever asks, one at a time, until one serves.
func (s *server) takeSuccessors(ctx context.Context) {
	for {
		conn, err := s.next.listener.AcceptUnix()
		if err != nil {
			return // closed
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		err = s.handOver(conn)
		stop()
		if err == nil {
			// Left open: that it closes tells the successor that nothing is answered
			// from here any more.
			s.next.to = conn
			close(s.next.succeeded)
			return
		}
		conn.Close()
		if ctx.Err() != nil {
			return
		}
		s.logger.Error("a successor did not take over: this process goes on answering", "error", err)
		select {
		case s.next.lost <- struct{}{}:
		default:
		}
	}
}

// handOver gives the node to a successor and returns once that one serves.
func (s *server) handOver(conn *net.UnixConn) error {
	conn.SetReadDeadline(time.Now().Add(drainTime))
	m, file, err := receiveHand(conn)
	if err != nil {
		return err
	}
	if file != nil {
		file.Close()
	}
	if m.Kind != handTakeOver || m.Version != handVersion {
		reason := fmt.Sprintf("hand-over %q of version %d is not spoken here: stop this process and start the other", m.Kind, m.Version)
		return errors.Join(errors.New(reason), sendHand(conn, handMessage{Kind: handRefused, PID: os.Getpid(), Reason: reason}, nil))
	}
	s.logger.Info("handing over", "to", m.PID)
	sockets, err := s.dns.Load().Sockets()
	if err != nil {
		return err
	}
	for _, socket := range sockets {
		err = errors.Join(err, sendHand(conn, handMessage{Kind: handSocket, TCP: socket.TCP, Address: socket.Address}, socket.File), socket.File.Close())
	}
	if err == nil {
		err = sendHand(conn, handMessage{Kind: handLock}, s.next.lock)
	}
	if err != nil {
		return err
	}
	if err := s.release(); err != nil {
		s.logger.Warn("letting go of the node", "error", err)
	}
	if err := sendHand(conn, handMessage{Kind: handReleased, PID: os.Getpid()}, nil); err != nil {
		return err
	}
	if m, err = s.awaitServing(conn); err != nil {
		return fmt.Errorf("before it served: %w", err)
	}
	if m.Kind != handServing {
		return fmt.Errorf("it said %q before it served", m.Kind)
	}
	// systemd follows the successor from now on (sd_notify(3)).
	if err := notify(fmt.Sprintf("MAINPID=%d", m.PID)); err != nil {
		s.logger.Warn("service manager not told", "error", err)
	}
	s.logger.Info("handed over", "to", m.PID)
	return nil
}

// awaitServing waits for a successor to serve, and does not read the sockets from
// when it is ready. One that then takes too long answers beside us.
func (s *server) awaitServing(conn *net.UnixConn) (m handMessage, err error) {
	conn.SetReadDeadline(time.Time{}) // a large state takes its time; should it end, so does the connection
	if m, _, err = receiveHand(conn); err != nil || m.Kind != handReady {
		return m, err
	}
	dns := s.dns.Load()
	ctx, cancel := context.WithTimeout(context.Background(), pauseTime)
	defer cancel()
	if err := dns.Pause(ctx); err != nil {
		s.logger.Warn("handing over", "error", err)
	}
	err = sendHand(conn, handMessage{Kind: handPaused, PID: os.Getpid()}, nil)
	if err == nil {
		conn.SetReadDeadline(time.Now().Add(pauseTime))
		m, _, err = receiveHand(conn)
	}
	if err == nil && m.Kind == handServing {
		return m, nil
	}
	dns.Resume()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		conn.SetReadDeadline(time.Time{})
		m, _, err = receiveHand(conn)
	}
	return m, err
}

// wantSuccessors asks for a successor at SIGHUP, and again and again while only
// one can help: the node is fenced off, or one let go of it and died.
func (s *server) wantSuccessors(ctx context.Context) {
	fenced := s.node.Fenced()
	pause := successorPause
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.next.succeeded:
			return
		case <-s.next.hangup:
			pause = successorPause
		case <-fenced:
			fenced = nil
		case <-s.next.lost:
			if !s.needsSuccessor() {
				continue
			}
			again = time.After(pause)
			continue
		case <-again:
		}
		if err := s.startSuccessor(); err != nil {
			s.logger.Error("asking for a successor", "error", err)
		}
		again = nil
		if s.needsSuccessor() {
			again = time.After(pause)
			pause = min(2*pause, successorPauseMax)
		}
	}
}

func (s *server) needsSuccessor() bool {
	select {
	case <-s.node.Fenced():
		return true
	default:
		return s.next.released.Load()
	}
}

// startSuccessor starts this program anew, or asks the supervisor to. It does
// nothing while a successor is on its way.
func (s *server) startSuccessor() error {
	if s.next.ask != nil {
		_, err := s.next.ask.Write([]byte{'\n'})
		return err
	}
	if !s.next.underWay.CompareAndSwap(false, true) {
		return nil
	}
	// The path, not the file that runs: an upgrade has put another one there.
	program, err := os.Executable()
	if err != nil {
		s.next.underWay.Store(false)
		return err
	}
	c := exec.Command(program, "serve", "--take-over", "--config", s.next.config)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		s.next.underWay.Store(false)
		return err
	}
	s.logger.Info("successor started", "pid", c.Process.Pid)
	go func() {
		// Its end after it took over is not seen here: this process is gone by then.
		err := c.Wait()
		s.next.underWay.Store(false)
		s.logger.Error("the successor ended", "pid", c.Process.Pid, "error", err)
		select {
		case s.next.lost <- struct{}{}:
		default:
		}
	}()
	return nil
}

// release gives up all of the node but DNS: leadership goes first, so that the
// cluster writes on; then running requests end, and log and link close.
func (s *server) release() error {
	if s.next.released.Swap(true) {
		return nil
	}
	ctx := context.Background() // the one that ended is why we stop
	var errs []error
	if s.node != nil && s.node.Leader() == s.config.ID {
		bounded, cancel := context.WithTimeout(ctx, transferTime)
		if err := s.node.TransferLeader(bounded, ""); err != nil {
			s.logger.Info("leadership not handed over", "error", err)
		}
		cancel()
	}
	s.halt()
	s.tasks.Wait()
	if s.api != nil {
		drain, cancel := context.WithTimeout(ctx, drainTime)
		errs = append(errs, s.api.Close(drain))
		cancel()
	}
	if s.node != nil {
		s.node.SetServing(false)
		closing, cancel := context.WithTimeout(ctx, closeTime)
		errs = append(errs, s.node.Close(closing))
		cancel()
	}
	return errors.Join(errs...)
}
