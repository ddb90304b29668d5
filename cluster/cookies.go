package cluster

import (
	"io"

	"authd/cluster/state"
)

// cookieSecret proposes a new secret for DNS cookies where there is none or the
// current one is due, and says whether it did.
func (r *rotator) cookieSecret(m state.Machine) bool {
	due := m.CookieSecrets().DueAt()
	if r.node.c.Now().Unix() < due {
		return false
	}
	var c state.SetCookieSecret
	if _, err := io.ReadFull(r.node.c.Random, c.Secret[:]); err != nil {
		r.node.logger.Error("drawing a secret for DNS cookies", "error", err)
		return false
	}
	results := r.send([]state.Command{c})
	return len(results) == 1 && results[0].Changed
}
