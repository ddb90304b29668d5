package state

import (
	"bytes"

	"authd/keys"
	"authd/zone"
)

// WithIndex is the machine at another index. A snapshot that Raft installs or
// restores is at the index Raft gave it, whatever its image says.
func (m Machine) WithIndex(index uint64) Machine {
	t := m.tables().fork()
	t.index = index
	return Machine{t: t}
}

// Epoch says how often the cluster was recovered from a single node. Nodes of
// different epochs have logs that went different ways.
func (m Machine) Epoch() uint32 { return m.tables().epoch }

// NextEpoch is the machine at the beginning of the next one.
func (m Machine) NextEpoch() Machine {
	t := m.tables().fork()
	t.epoch++
	return Machine{t: t}
}

// Replace carries m into the index that queries read in place of old, with which
// it need have nothing in common. The caller commits the editor.
func (m Machine) Replace(e *zone.Editor, old Machine) {
	was, is := old.tables(), m.tables()
	var d Delta
	for _, t := range []*tables{was, is} { // the new ids of numbers last
		t.pools.Scan(func(id string, p *poolEntry) bool {
			d.pool(p.Number, id)
			return true
		})
		t.platforms.Scan(func(number uint32, _ *platformEntry) bool {
			d.platform(number)
			return true
		})
	}
	if was.domains.Len() == 0 {
		m.Publish(e, old, d)
		m.fill(e)
		return
	}
	was.domains.Scan(func(token string, before record) bool {
		if after, _ := is.domains.Get(token); after.branch != before.branch {
			d.domain(tokenOf(token))
		}
		return true
	})
	is.domains.Scan(func(token string, _ record) bool {
		if _, ok := was.domains.Get(token); !ok {
			d.domain(tokenOf(token))
		}
		return true
	})
	m.Publish(e, old, d)
}

// Succeed is what to restore where a backup m takes the place of now: m with its
// counters raised past those that now has shown, because a zone's serial must not
// go back (RFC 1982).
func (m Machine) Succeed(now Machine) Machine {
	was, is := now.tables(), m.tables().fork()
	held := make(map[[16]byte]bool)  // names that are bound in the backup
	raise := make(map[string]uint32) // by pool, which all its domains' serials contain
	is.domains.Scan(func(_ string, r record) bool {
		d := is.domain(r)
		for _, n := range d.boundNames() {
			held[hash16(string(n))] = true
		}
		if d.Mode != zone.Delegated {
			return true
		}
		have := is.zoneSerial(d)
		for _, shown := range was.claimsTo(d.Name) {
			if shown.Mode != zone.Delegated {
				continue
			}
			// 0 or more in the arithmetic of RFC 1982: shown is not older.
			if ahead := int32(was.zoneSerial(shown) - have); ahead >= 0 {
				raise[d.Pool] = max(raise[d.Pool], uint32(ahead)+1)
			}
		}
		return true
	})
	for id, by := range raise {
		is.raisePool(id, by)
	}
	var platforms []*platformEntry
	is.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		if shown, ok := was.platformAt(p.Apex); ok && int32(shown.Serial-p.Serial) >= 0 {
			next := *p
			next.Serial = shown.Serial + 1
			platforms = append(platforms, &next)
		}
		return true
	})
	for _, p := range platforms {
		is.platforms.Set(p.Number, p)
	}
	// What was given up since stays burned, but for what the backup brings back to
	// whom it belonged.
	was.gone.each(func(v [16]byte) bool {
		if _, back := is.domains.Get(Token(v).key()); !back {
			is.bury(Token(v))
		}
		return true
	})
	was.goneBound.each(func(v [16]byte) bool {
		if !held[v] {
			is.buryHash(v)
		}
		return true
	})
	is.epoch = was.epoch
	// Nodes trust the CA of the cluster that they are in, not the backup's.
	if len(was.authority.Certificate) > 0 {
		is.authority, is.invitations = was.authority, was.invitations
	}
	// Nor does a backup know which of the nodes of today are off.
	is.off = was.off
	is.takeOver(was)
	return Machine{t: is}
}

// takeOver has the barrier ask again for keys of a backup that what it replaces did not
// publish, and keeps the holds that signers were told. Claims that are as they were are
// left alone, so that going back a little in the same cluster costs what changed.
func (t *tables) takeOver(was *tables) {
	at := max(t.time, was.time)
	var held []*poolEntry
	t.pools.Scan(func(id string, p *poolEntry) bool {
		if before, ok := was.pools.Get(id); ok {
			next := *p
			if next.Policy = p.Policy.After(before.Policy, at); next.Policy.Before != p.Policy.Before {
				held = append(held, &next)
			}
		}
		return true
	})
	for _, p := range held {
		t.pools.Set(p.ID, p)
	}
	var differ []Token
	t.domains.Scan(func(token string, r record) bool {
		if before, ok := was.domains.Get(token); !ok || before != r {
			differ = append(differ, tokenOf(token))
		}
		return true
	})
	w := writer{tables: t}
	for _, token := range differ {
		old, _ := t.find(token)
		ring := old.Ring()
		if shown, ok := was.find(token); ok {
			ring = ring.TakeOver(shown.Ring(), at).Moved(was.policy(shown), t.policy(old), at)
		} else {
			ring = ring.TakeOver(keys.Ring{}, at)
		}
		attachment := ring.Append(nil)
		if bytes.Equal(attachment, []byte(old.Branch.Attachment())) {
			continue
		}
		d := *old
		d.Branch = old.Branch.With(d.Serial, attachment)
		w.put(old, &d, ring)
	}
}

// raisePool raises the counter of a pool.
func (t *tables) raisePool(id string, by uint32) {
	p, _ := t.pools.Get(id)
	next := *p
	next.Serial += by
	base, _ := t.firstPlatform()
	answers, r := renderPool(&next.Pool, base.Apex)
	if r != nil {
		panic("pool " + id + " was rendered, and is not with another serial: " + r.Error())
	}
	next.answers = answers
	t.pools.Set(id, &next)
}
