package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"authd/cluster/state"
)

// access is the set of scopes that may enter a route. Admin may enter all.
type access uint8

const (
	adminOnly   access = 0
	reader      access = 1 << iota // scope read
	tenant                         // scope tenant:<id>; handlers check whose things
	signer                         // scope signer
	anyone                         // no token asked for
	conditional                    // If-Match is honoured; no scope
)

func (need access) allows(who identity) bool {
	switch {
	case need&anyone != 0, who.admin():
		return true
	case who.tenant != "":
		return need&tenant != 0
	case who.scope == state.ScopeRead:
		return need&reader != 0
	case who.scope == state.ScopeSigner:
		return need&signer != 0
	}
	return false
}

// identity is who makes a request, as its token says.
type identity struct {
	id     string
	scope  state.Scope
	tenant string // of scope tenant:<id>
	source string // client address
}

func (i identity) admin() bool { return i.scope == state.ScopeAdmin }

// sees says whether this identity may know of a tenant's things.
func (i identity) sees(tenant string) bool { return i.tenant == "" || i.tenant == tenant }

const tenantScope = "tenant:"

// maxSecret is longer than any token we make; longer ones are not hashed.
const maxSecret = 256

// identify says who makes a request, or gives the one 401 there is. The hash of
// 256 random bits can be looked up: how long that takes says nothing about the
// bits. An expired token, one used from elsewhere and an unknown one look alike.
// A node that has no state yet cannot tell, and says that instead.
func identify(m state.Machine, r *http.Request, at time.Time) (identity, *Problem) {
	address := clientAddress(r)
	hash := sha256.Sum256([]byte(secret(r)))
	access, ok := m.AccessByHash(hash)
	if !ok {
		access = &state.AccessToken{} // compared all the same
	}
	same := subtle.ConstantTimeCompare(access.Hash[:], hash[:]) == 1
	if local(r) && secret(r) == "" {
		return identity{id: localID, scope: state.ScopeAdmin, source: localID}, nil
	}
	if unfounded(m) {
		return identity{}, problem(http.StatusServiceUnavailable, codeNoLeader, "",
			"this node has no state yet, so it knows no token: it waits until a majority of the founding nodes is up, or until it is added (operator raft add-peer); /ready says what it waits for").
			with("Retry-After", "1")
	}
	if !usable(access, address, at) || !same || !ok {
		return identity{}, problem(http.StatusUnauthorized, codeUnauthorized, "Authorization",
			"send a token that is valid here and now: Authorization: Bearer authd_…").
			with("WWW-Authenticate", `Bearer realm="authd"`)
	}
	who := identity{id: access.ID, scope: access.Scope, source: address.String()}
	if id, of := strings.CutPrefix(string(access.Scope), tenantScope); of {
		who.tenant = id
	}
	return who, nil
}

// unfounded says whether the machine has no token at all yet: the first comes when the
// cluster is founded.
func unfounded(m state.Machine) bool {
	for range m.AccessTokens() {
		return false
	}
	return true
}

// secret is the token of a request, from Authorization or, as Vault's clients
// send it, X-Vault-Token; empty where there is none or it cannot be one.
func secret(r *http.Request) string {
	text := r.Header.Get("X-Vault-Token")
	if given := r.Header.Get("Authorization"); given != "" {
		scheme, rest, _ := strings.Cut(given, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return ""
		}
		text = strings.TrimSpace(rest)
	}
	if len(text) > maxSecret {
		return ""
	}
	return text
}

// usable says whether a token is valid at a time and from an address.
func usable(t *state.AccessToken, from netip.Addr, at time.Time) bool {
	if t.ExpiresAt != 0 && at.Unix() >= t.ExpiresAt {
		return false
	}
	for _, subnet := range t.Subnets {
		if subnet.Contains(from) {
			return true
		}
	}
	return len(t.Subnets) == 0
}

// clientAddress is the address of the connection. Forwarding headers can be
// written by anybody and are not read.
func clientAddress(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
