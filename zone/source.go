package zone

import (
	"encoding/binary"
	"net/netip"
)

// source is the address that a query came from: cookies are bound to it, and limits
// count it.
type source struct {
	address [16]byte
	length  int  // octets of address: 4 or 16; 0 where it is not known
	tcp     bool // the address is not forged, and length is no matter
}

// Lengths of the prefixes that are taken for one client: what one network gets
// of IPv4, and what one site gets of IPv6 (RFC 6177).
const (
	prefixBits4 = 24
	prefixBits6 = 56
)

func sourceOf(a netip.Addr, tcp bool) source {
	s := source{tcp: tcp}
	if a = a.Unmap(); a.Is4() {
		four := a.As4()
		s.length = copy(s.address[:], four[:])
	} else if a.Is6() {
		s.address = a.As16()
		s.length = len(s.address)
	}
	return s
}

func (s *source) addr() netip.Addr {
	if s.length == 4 {
		return netip.AddrFrom4([4]byte(s.address[:4]))
	}
	return netip.AddrFrom16(s.address)
}

// prefix is a number for the source's prefix; the two families never share one.
func (s *source) prefix() uint64 {
	if s.length == 4 {
		return uint64(binary.BigEndian.Uint32(s.address[:])) >> (32 - prefixBits4)
	}
	return binary.BigEndian.Uint64(s.address[:])>>(64-prefixBits6) | 1<<63
}
