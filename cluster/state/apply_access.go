package state

import (
	"net/netip"
	"slices"
	"strings"
)

// addAccessToken adds an API credential.
func (w *writer) addAccessToken(c AddAccessToken) Result {
	a := c.Access
	if r := checkID("id", a.ID); r != nil {
		return refused(r)
	}
	if r := w.checkScope(a.Scope); r != nil {
		return refused(r)
	}
	if r := checkTitle("note", a.Note); r != nil {
		return refused(r)
	}
	if r := checkSubnets(a.Subnets); r != nil {
		return refused(r)
	}
	switch {
	case a.Hash == [32]byte{}:
		return refused(invalid("id", "token %s has no hash", quote(a.ID)))
	case a.ExpiresAt < 0 || a.ExpiresAt != 0 && a.ExpiresAt <= w.time:
		return refused(invalid("expires_at", "token %s would have expired already", quote(a.ID)))
	}
	if old, ok := w.access.Get(a.ID); ok {
		if old.Hash == a.Hash && old.Scope == a.Scope {
			return same
		}
		return refused(conflict("id", nil, "there is a token %s already", quote(a.ID)))
	}
	if _, ok := w.accessHash.Get(string(a.Hash[:])); ok {
		return refused(conflict("id", nil, "token %s has the text of another token", quote(a.ID)))
	}
	if w.access.Len() >= maxAccessTokens {
		return refused(invalid("id", "%d tokens already: at most %d", w.access.Len(), maxAccessTokens))
	}
	a.CreatedAt = w.time
	a.Subnets = slices.Clone(a.Subnets)
	w.setAccess(&a)
	w.accessHash.Set(string(a.Hash[:]), a.ID)
	return done
}

// tenantScope begins the scope of a tenant's own token.
const tenantScope = "tenant:"

// checkScope refuses scopes that nothing gives a meaning to.
func (t *tables) checkScope(s Scope) *Refusal {
	switch s {
	case ScopeAdmin, ScopeSigner, ScopeRead:
		return nil
	}
	if !strings.HasPrefix(string(s), tenantScope) {
		return invalid("scope", "%s: want admin, signer, read or tenant:ID", quote(string(s)))
	}
	if _, ok := t.tenants.Get(s.tenant()); !ok {
		return invalid("scope", "%s: no tenant %s", quote(string(s)), quote(s.tenant()))
	}
	return nil
}

// tenant is whose a scope is; empty: no tenant's.
func (s Scope) tenant() string {
	id, ok := strings.CutPrefix(string(s), tenantScope)
	if !ok {
		return ""
	}
	return id
}

func checkSubnets(subnets []netip.Prefix) *Refusal {
	if len(subnets) > maxSubnets {
		return invalid("subnets", "%d subnets: at most %d", len(subnets), maxSubnets)
	}
	for i, p := range subnets {
		if !p.IsValid() || p != p.Masked() {
			return invalid(element("subnets", i), "%s: want a prefix without bits behind its length", quote(p.String()))
		}
	}
	return nil
}

// dropAccessToken revokes an API credential.
func (w *writer) dropAccessToken(c DropAccessToken) Result {
	a, ok := w.access.Get(c.ID)
	if !ok {
		return refused(notFound("id", "no token %s", quote(c.ID)))
	}
	w.about.tenant = a.Scope.tenant()
	w.dropAccess(c.ID)
	w.accessHash.Delete(string(a.Hash[:]))
	return done
}
