package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"authd/zone"
)

// A node's process and its successor speak over a Unix socket in the data
// directory. The successor asks; the one that runs gives it the very sockets that
// DNS comes in by and the lock on the directory, leaves Raft and closes its
// stores, says so, and goes on answering. The successor builds its state from the
// disk and says that it is ready; the first stops reading the sockets and says so;
// the successor begins to answer from the same ones, and says so; then the first ends.
// What comes in between waits in the sockets, so no query is lost, and no answer is
// older than the one before it. Should the successor fail, the first goes on answering
// and asks for another.

// handMessage is one packet between the two.
type handMessage struct {
	Kind    string         `json:"kind"`
	Version int            `json:"version,omitempty"` // of handTakeOver
	PID     int            `json:"pid,omitempty"`     // of the sender
	TCP     bool           `json:"tcp,omitempty"`     // of handSocket, which carries a descriptor
	Address netip.AddrPort `json:"address,omitzero"`
	Reason  string         `json:"reason,omitempty"` // of handRefused
}

// The kinds, in the order in which they are said. Spoken between releases: never
// give one another meaning.
const (
	handTakeOver = "take-over" // successor: let go
	handRefused  = "refused"   // predecessor: no, and why
	handSocket   = "socket"    // predecessor: with a DNS socket
	handLock     = "lock"      // predecessor: with the locked file of the directory
	handReleased = "released"  // predecessor: log and link are free
	handReady    = "ready"     // successor: stop reading the sockets
	handPaused   = "paused"    // predecessor: done; they are yours
	handServing  = "serving"   // successor: end
)

const (
	handVersion = 1
	handOctets  = 4096
	handPackets = 4096 // more sockets than a node can have
	// handPatience is how long a predecessor may take to hand over leadership, end
	// running requests and close its stores.
	handPatience = transferTime + drainTime + closeTime + 5*time.Second

	// pauseTime is how long the sockets may be without a reader: it is some
	// milliseconds, and queries wait in them.
	pauseTime = time.Second
	// handRoom is the least that a log needs to begin.
	handRoom = 4 << 20

	lockFile   = "lock"
	lockOctets = 16
	handFile   = "successor"
)

// handAddress is the address of a directory's socket, by way of an open
// descriptor where the path does not fit into one (108 octets, unix(7)).
func handAddress(dir string) (address *net.UnixAddr, done func(), err error) {
	const room = 100
	path := filepath.Join(dir, handFile)
	if len(path) <= room {
		return &net.UnixAddr{Name: path, Net: "unixpacket"}, func() {}, nil
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	name := fmt.Sprintf("/proc/self/fd/%d/%s", fd, handFile)
	return &net.UnixAddr{Name: name, Net: "unixpacket"}, func() { unix.Close(fd) }, nil
}

// lockData keeps two processes out of one data directory.
func lockData(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking data directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_ = signLock(f) // for people; a full disk is no reason not to start
		return f, nil
	}
	defer f.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("locking data directory: %w", err)
	}
	holder := "another process"
	text := make([]byte, lockOctets)
	n, _ := f.ReadAt(text, 0) // what it says is only for people
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text[:n]))); err == nil {
		holder = "process " + strconv.Itoa(pid)
	}
	return nil, fmt.Errorf("%s is in use by %s: stop it first, or, once it is ready, take over from it with --take-over (SIGHUP to it does that too)", dir, holder)
}

// signLock writes into the lock who holds it, always over the same octets: a file
// that was cut could not be written again where the disk has become full.
func signLock(f *os.File) error {
	if _, err := fmt.Fprintf(io.NewOffsetWriter(f, 0), "%-*d\n", lockOctets-1, os.Getpid()); err != nil {
		return fmt.Errorf("signing the lock on the data directory: %w", err)
	}
	return nil
}

// predecessor is a process that handed its node over and waits for us to serve.
type predecessor struct {
	conn    *net.UnixConn
	pid     int
	lock    *os.File
	sockets []zone.Socket
	ended   chan struct{} // closed once it answers no more
}

// takeOver asks the process that runs the node in a directory to let go; nil
// where there is none.
func takeOver(ctx context.Context, dir string) (*predecessor, error) {
	address, done, err := handAddress(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("taking over: %w", err)
	}
	defer done()
	conn, err := net.DialUnix(address.Net, nil, address)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("taking over: %w", err)
	}
	// Before the one that runs lets go: a successor without room is fenced off at once.
	if free, err := freeRoom(dir); err == nil && free < handRoom {
		conn.Close()
		return nil, fmt.Errorf("taking over: %d octets are free on the disk of %s, %d are needed: make room, then it is tried again", free, dir, handRoom)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p := &predecessor{conn: conn, ended: make(chan struct{})}
	if err := p.receive(); err != nil {
		p.Close()
		return nil, fmt.Errorf("taking over: %w", err)
	}
	return p, nil
}

// freeRoom is the octets that are free where a directory is.
func freeRoom(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return fs.Bavail * uint64(fs.Bsize), nil
}

// receive asks, and takes what comes until the node is free.
func (p *predecessor) receive() error {
	if err := sendHand(p.conn, handMessage{Kind: handTakeOver, Version: handVersion, PID: os.Getpid()}, nil); err != nil {
		return err
	}
	p.conn.SetReadDeadline(time.Now().Add(handPatience))
	for range handPackets {
		m, file, err := receiveHand(p.conn)
		if err != nil {
			return fmt.Errorf("the process that runs did not let go: %w", err)
		}
		switch {
		case m.Kind == handSocket && file != nil:
			p.sockets = append(p.sockets, zone.Socket{TCP: m.TCP, Address: m.Address, File: file})
			continue
		case m.Kind == handLock && file != nil && p.lock == nil:
			p.lock = file
			continue
		case file != nil:
			file.Close()
		}
		switch m.Kind {
		case handRefused:
			return fmt.Errorf("process %d refuses: %s", m.PID, m.Reason)
		case handReleased:
			if p.lock == nil {
				return fmt.Errorf("process %d did not hand over the lock on the data directory", m.PID)
			}
			p.pid = m.PID
			return nil
		}
	}
	return errors.New("the process that runs does not come to an end")
}

// ready has the predecessor stop reading, so that no answer is older than one that we
// gave before it.
func (p *predecessor) ready() error {
	if err := sendHand(p.conn, handMessage{Kind: handReady, PID: os.Getpid()}, nil); err != nil {
		return err
	}
	p.conn.SetReadDeadline(time.Now().Add(2 * pauseTime))
	m, file, err := receiveHand(p.conn)
	if file != nil {
		file.Close()
	}
	if err == nil && m.Kind != handPaused {
		err = fmt.Errorf("it said %q", m.Kind)
	}
	return err
}

// serving tells the predecessor that it may end.
func (p *predecessor) serving() error {
	return sendHand(p.conn, handMessage{Kind: handServing, PID: os.Getpid()}, nil)
}

// await returns when the predecessor has ended, which closes its end of the
// connection, or ctx is done: false.
func (p *predecessor) await(ctx context.Context) bool {
	stop := context.AfterFunc(ctx, func() { p.conn.Close() })
	defer stop()
	p.conn.SetReadDeadline(time.Time{})
	for {
		if _, err := p.conn.Read(make([]byte, handOctets)); err != nil {
			break
		}
	}
	p.conn.Close()
	if ctx.Err() != nil {
		return false
	}
	close(p.ended)
	return true
}

// Close gives up what was not used. The predecessor, where it was not told
// otherwise, goes on answering.
func (p *predecessor) Close() error {
	for _, s := range p.sockets {
		s.File.Close()
	}
	p.sockets = nil
	if p.lock != nil {
		p.lock.Close()
	}
	return p.conn.Close()
}

// listenSuccessor takes successors in.
func listenSuccessor(dir string) (*net.UnixListener, error) {
	address, done, err := handAddress(dir)
	if err != nil {
		return nil, fmt.Errorf("listening for a successor: %w", err)
	}
	defer done()
	// What is there is of a process that ended, or of the one we took over from: the
	// directory is ours.
	if err := os.Remove(filepath.Join(dir, handFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listening for a successor: %w", err)
	}
	l, err := net.ListenUnix(address.Net, address)
	if err != nil {
		return nil, fmt.Errorf("listening for a successor: %w", err)
	}
	// By the time this one closes, the name is the successor's.
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(filepath.Join(dir, handFile), 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listening for a successor: %w", err)
	}
	return l, nil
}

func sendHand(c *net.UnixConn, m handMessage, file *os.File) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		raw, err := file.SyscallConn() // Fd would make the socket block
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { rights = unix.UnixRights(int(fd)) }); err != nil {
			return err
		}
	}
	c.SetWriteDeadline(time.Now().Add(drainTime))
	_, _, err = c.WriteMsgUnix(text, rights, nil)
	return err
}

// receiveHand reads one packet, and the descriptor that it carries.
func receiveHand(c *net.UnixConn) (m handMessage, file *os.File, err error) {
	text, rights := make([]byte, handOctets), make([]byte, unix.CmsgSpace(4))
	n, k, _, _, err := c.ReadMsgUnix(text, rights)
	if err != nil {
		return m, nil, err
	}
	if file, err = descriptor(rights[:k]); err != nil {
		return m, nil, err
	}
	if err := json.Unmarshal(text[:n], &m); err != nil {
		if file != nil {
			file.Close()
		}
		return m, nil, fmt.Errorf("reading hand-over: %w", err)
	}
	return m, file, nil
}

func descriptor(rights []byte) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("reading hand-over: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil || len(fds) == 0 {
			continue
		}
		return os.NewFile(uintptr(fds[0]), "handed over"), nil
	}
	return nil, nil
}
