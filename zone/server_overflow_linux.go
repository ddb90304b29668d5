//go:build !portable

package zone

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// overflowed is how many datagrams the kernel has dropped before a socket, for want of
// room in its buffer most of all, since it was opened. It is shared by all processes
// that hold the socket, and 0 for one that is closed.
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
