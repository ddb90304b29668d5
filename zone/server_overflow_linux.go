//go:build !portable

package zone

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// overflowed is how many datagrams the kernel has dropped at a socket since it was
// opened, mostly for want of room in its buffer: the same for all processes that hold
// the socket, and 0 for a closed one.
func overflowed(conn syscall.Conn) uint64 {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0
	}
	var info [unix.SK_MEMINFO_VARS]uint32
	length := uint32(unsafe.Sizeof(info))
	raw.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
		if errno != 0 {
			info = [unix.SK_MEMINFO_VARS]uint32{} // Linux before 4.12 has none
		}
	})
	return uint64(info[unix.SK_MEMINFO_DROPS])
}
