package zone

import (
	"context"
	"log/slog"
	"net/netip"
)

// ServerConfig is what Listen needs.
type ServerConfig struct {
	// Listen are the addresses to answer on, UDP and TCP. A wildcard address
	// replies from the address asked. Required.
	Listen []netip.AddrPort
	// Workers is the number of UDP readers an address; 0 means one a core.
	Workers int
	// Tree is what is answered. Required.
	Tree *Tree
	// NSID identifies this node to those who ask (RFC 5001); empty: not sent.
	NSID string
	// Logger takes what an operator must know; queries are not logged. Required.
	Logger *slog.Logger
}

// Server answers queries from sockets.
type Server struct{ serverState }

type serverState struct{}

// Listen opens the sockets and starts answering. The error names the address.
func Listen(c ServerConfig) (*Server, error) { panic("todo") }

// Close stops answering: it stops accepting, lets running TCP exchanges end
// until ctx is done, and releases the sockets.
func (s *Server) Close(ctx context.Context) error { panic("todo") }

// Stats are counters since the start, merged over the workers when read.
type Stats struct {
	Queries   map[string]uint64 // by "proto/family/type-group"
	Responses map[string]uint64 // by rcode mnemonic
	Outcomes  map[string]uint64 // by Outcome
	Dropped   uint64            // datagrams that got no reply
	Truncated uint64
}

// Stats reads the counters.
func (s *Server) Stats() Stats { panic("todo") }
