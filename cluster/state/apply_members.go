package state

import (
	"crypto/subtle"
	"slices"
	"strings"
)

// Authority is the cluster's own CA: its certificate, and its key sealed under the
// key-encryption key. Whoever holds that one can issue certificates of nodes, which is
// what lets nodes renew theirs and others join without the operator's machine; the
// log, snapshots and backups alone are of no use for it.
type Authority struct {
	Certificate []byte `cbor:"1,keyasint"` // DER
	Sealed      []byte `cbor:"2,keyasint"`
}

// Invitation is leave for a node to join once, or, where it is a member, to get a
// new certificate once.
type Invitation struct {
	ID      string `cbor:"1,keyasint"` // of the node
	Address string `cbor:"2,keyasint"` // of its node link
	Voter   bool   `cbor:"3,keyasint"` // it shall vote once it has caught up
	// Hash is the SHA-256 of the join token's secret.
	Hash      [32]byte `cbor:"4,keyasint"`
	ExpiresAt int64    `cbor:"5,keyasint"`
	// AdmittedAt is when the token was used; 0: not yet.
	AdmittedAt int64 `cbor:"6,keyasint"`
}

const (
	// maxInvitations bounds what is open at once: a cluster has a handful of nodes.
	maxInvitations = 64
	// MaxInvitationLife bounds how long a join token is good, in seconds.
	MaxInvitationLife = 7 * 24 * 3600
	// maxAuthority bounds each part of an authority; P-256 takes some hundred octets.
	maxAuthority = 8 << 10
	maxNodeID    = 63
	maxAddress   = 300
)

// Authority is the cluster's CA; its Certificate is empty where there is none.
func (m Machine) Authority() Authority { return m.tables().authority }

// Invitations are the invitations of nodes, by the node's id. READ-ONLY.
func (m Machine) Invitations() []Invitation { return m.tables().invitations }

// Invited finds a node's invitation.
func (m Machine) Invited(id string) (Invitation, bool) { return m.tables().invited(id) }

func (t *tables) invited(id string) (Invitation, bool) {
	at, found := t.invitationAt(id)
	if !found {
		return Invitation{}, false
	}
	return t.invitations[at], true
}

func (t *tables) invitationAt(id string) (int, bool) {
	return slices.BinarySearchFunc(t.invitations, id, func(i Invitation, id string) int { return strings.Compare(i.ID, id) })
}

// Good says whether an invitation is open, at a time, to somebody who shows its secret.
func (i Invitation) Good(hash [32]byte, at int64) bool {
	return subtle.ConstantTimeCompare(i.Hash[:], hash[:]) == 1 && i.AdmittedAt == 0 && at < i.ExpiresAt
}

func (w *writer) setAuthority(c SetAuthority) Result {
	a := c.Authority
	for _, part := range []struct {
		field string
		text  []byte
	}{{"certificate", a.Certificate}, {"sealed", a.Sealed}} {
		if len(part.text) == 0 || len(part.text) > maxAuthority {
			return refused(invalid(part.field, "%d octets are not between 1 and %d", len(part.text), maxAuthority))
		}
	}
	if slices.Equal(a.Certificate, w.authority.Certificate) && slices.Equal(a.Sealed, w.authority.Sealed) {
		return same
	}
	w.authority = a
	return done
}

// inviteNode opens an invitation; one to the same node before is void.
func (w *writer) inviteNode(c InviteNode) Result {
	i := c.Invitation
	if r := soundNode(i.ID, i.Address); r != nil {
		return refused(r)
	}
	switch {
	case i.Hash == [32]byte{}:
		return refused(invalid("hash", "the invitation of %s has no token", quote(i.ID)))
	case i.AdmittedAt != 0:
		return refused(invalid("admitted_at", "the invitation of %s is used already", quote(i.ID)))
	case i.ExpiresAt <= w.time || i.ExpiresAt > w.time+MaxInvitationLife:
		return refused(invalid("expires_at", "a join token is good for 1 to %d seconds, not %d", MaxInvitationLife, i.ExpiresAt-w.time))
	case len(w.authority.Certificate) == 0:
		return refused(invalid("", "the cluster has no CA to issue certificates with: set one first (authd operator raft set-authority)"))
	}
	var open []Invitation
	for _, other := range w.invitations {
		if other.ID == i.ID && other.Hash == i.Hash {
			return same
		}
		// Those that were used stay until the node votes, or is settled otherwise.
		if other.ID != i.ID && (other.AdmittedAt != 0 || other.ExpiresAt > w.time) {
			open = append(open, other)
		}
	}
	if len(open) >= maxInvitations {
		return refused(invalid("id", "%d nodes are invited already: at most %d", len(open), maxInvitations))
	}
	w.keepInvitations(append(open, i))
	return done
}

// keepInvitations never changes a slice that another machine may hold.
func (w *writer) keepInvitations(all []Invitation) {
	slices.SortFunc(all, func(a, b Invitation) int { return strings.Compare(a.ID, b.ID) })
	w.invitations = all
}

// admitNode uses an invitation up.
func (w *writer) admitNode(c AdmitNode) Result {
	at, found := w.invitationAt(c.ID)
	if !found {
		return refused(notFound("id", "%s is not invited: ask for a join token for it", quote(c.ID)))
	}
	i := w.invitations[at]
	switch {
	case subtle.ConstantTimeCompare(i.Hash[:], c.Hash[:]) == 0:
		return refused(notFound("token", "this is not the join token of %s", quote(c.ID)))
	case i.AdmittedAt != 0:
		return refused(conflict("token", nil, "the join token of %s was used before: a token is good once, ask for another", quote(c.ID)))
	case w.time >= i.ExpiresAt:
		return refused(conflict("token", nil, "the join token of %s has expired: ask for another", quote(c.ID)))
	}
	i.AdmittedAt = max(w.time, 1)
	all := slices.Clone(w.invitations)
	all[at] = i
	w.keepInvitations(all)
	return done
}

// settleNode ends an invitation: the node votes, was removed, or is not awaited
// any more.
func (w *writer) settleNode(c SettleNode) Result {
	at, found := w.invitationAt(c.ID)
	if !found {
		return same
	}
	w.keepInvitations(slices.Delete(slices.Clone(w.invitations), at, at+1))
	return done
}

func soundNode(id, address string) *Refusal {
	if id == "" || len(id) > maxNodeID {
		return invalid("id", "%s must have 1 to %d characters", quote(id), maxNodeID)
	}
	for i := range len(id) {
		b := id[i]
		if ('a' > b || b > 'z') && ('0' > b || b > '9') && (b != '-' || i == 0 || i == len(id)-1) {
			return invalid("id", "%s may only have a to z, 0 to 9 and, inside, hyphens", quote(id))
		}
	}
	if address == "" || len(address) > maxAddress || !oneWord(address) {
		return invalid("address", "%s is not the host:port of a node link", quote(address))
	}
	return nil
}

func oneWord(text string) bool {
	for i := range len(text) {
		if text[i] <= ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// soundInvitations says whether what an image holds could have been applied.
func soundInvitations(all []Invitation) bool {
	for i, v := range all {
		if soundNode(v.ID, v.Address) != nil || v.Hash == [32]byte{} || i > 0 && all[i-1].ID >= v.ID {
			return false
		}
	}
	return len(all) <= maxInvitations
}

// image is what an image holds: nothing where there is none.
func (a Authority) image() *Authority {
	if len(a.Certificate) == 0 {
		return nil
	}
	return &a
}
