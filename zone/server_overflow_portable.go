//go:build !linux || portable

package zone

import "net"

// overflowed is what no other system tells of a single socket.
func overflowed(*net.UDPConn) uint64 { return 0 }
