// Package probe asks the servers of a customer's parent zone what they say of a
// domain: whether the delegation carries the token that proves a claim. It only
// asks; what the answer means is decided by cluster/state.
package probe

import (
	"context"
	"net/netip"
	"time"

	"authd/zone"
)

// Config is what New needs.
type Config struct {
	// Resolvers find the parent's servers, each host:port. Empty: those of
	// /etc/resolv.conf.
	Resolvers []netip.AddrPort
	// Timeout bounds one question; 0 means 2 s.
	Timeout time.Duration
	// ServerPort is the port on which the parent's servers are asked; 0 means 53.
	ServerPort uint16
}

// Prober asks. It is safe for concurrent use.
type Prober struct{ config Config }

// New checks the configuration.
func New(c Config) (*Prober, error) { panic("todo") }

// Delegation is what the parent's servers say of a name.
type Delegation struct {
	Parent  zone.Name   // the zone cut above the name
	Servers []string    // the servers asked, "name/address"
	NS      []zone.Name // the union of the NS targets they gave
}

// Ask finds the zone above domain through the resolvers and asks every one of
// its servers, without recursion, for the domain's NS set. It fails only where
// nobody could be asked ("could not ask" is never "not delegated"); a parent
// that answers without a delegation gives an empty NS.
func (p *Prober) Ask(ctx context.Context, domain zone.Name) (Delegation, error) { panic("todo") }
