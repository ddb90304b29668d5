package cluster

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadAfter is how long unacknowledged data may be under way before a connection
// counts as dead.
const deadAfter = 15 * time.Second

// address is a net.Addr of what peers dial.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// network is what the node link runs over: TCP, except in tests of virtual time.
type network interface {
	Listen(ctx context.Context, address string) (net.Listener, error)
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// tcp finds out soon when the other end is gone without a word.
type tcp struct{}

// Listen implements network.
func (tcp) Listen(ctx context.Context, address string) (net.Listener, error) {
	config := net.ListenConfig{Control: control}
	return config.Listen(ctx, "tcp", address)
}

// Dial implements network.
func (tcp) Dial(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{
		Control:         control,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 3},
	}
	return dialer.DialContext(ctx, "tcp", address)
}

func control(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	})
	return errors.Join(err, failed)
}
