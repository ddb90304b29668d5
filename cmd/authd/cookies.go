package main

import (
	"context"
	"time"

	"authd/zone"
)

// cookiePoll is how soon a node takes up secrets that were committed. Cookies made
// with them elsewhere count as old until then, and are answered.
const cookiePoll = time.Second

// followCookies gives the DNS server the cluster's cookie secrets, at once and
// whenever they change, until ctx is done.
func (s *server) followCookies(ctx context.Context, dns *zone.Server) {
	give := func(had zone.CookieSecrets) zone.CookieSecrets {
		now := s.node.Machine().CookieSecrets().Served()
		if now != had {
			dns.SetCookieSecrets(now)
		}
		return now
	}
	had := give(zone.CookieSecrets{})
	s.tasks.Go(func() {
		tick := time.NewTicker(cookiePoll)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				had = give(had)
			}
		}
	})
}
