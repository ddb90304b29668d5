package state

import (
	"bytes"
	"io"
	"maps"
	"runtime"
	"slices"
	"sync"

	"authd/keys"
	"authd/zone"
)

// Succession is a backup that is to take the place of a machine, which goes on
// meanwhile. Nearly all there is to do is done of the machine as it was when the
// succession began, and only what changed since is left for the end. What comes of it
// depends on both machines: it has to begin at the same index on all nodes.
type Succession struct {
	from Machine    // as it was when it began
	next Machine    // what would take its place
	at   int64      // when that is, or later
	tree *zone.Tree // of next; nil: none was asked for
}

// LoadSuccession reads the image of a backup (see LoadImage) that is to take the place
// of a machine, by a time. An index of it costs some time, and can be had.
func LoadSuccession(r io.Reader, from Machine, by int64, index bool) (*Succession, error) {
	m, err := LoadImage(r, from)
	if err != nil {
		return nil, err
	}
	w := &writer{tables: m.tables().fork()}
	s := &Succession{from: from, at: max(by, m.Time(), from.Time())}
	was := from.tables()
	w.follow(new(tables), was, s.at)
	w.takeOver(w.differ(was), was, s.at)
	s.next = Machine{t: w.tables}
	if index {
		s.tree = s.next.Tree()
	}
	return s, nil
}

// Succeed ends it: it gives the machine that takes the place of now, and its index where
// that was asked for. Counters are raised past those that now has shown, because a zone's
// serial must not go back (RFC 1982).
func (s *Succession) Succeed(now Machine) (Machine, *zone.Tree) {
	w := &writer{tables: s.next.tables().fork()}
	since, was := s.from.tables(), now.tables()
	w.follow(since, was, s.at)
	w.takeOver(w.changed(since, was), was, s.at)
	next := Machine{t: w.tables}
	if s.tree != nil {
		e := s.tree.Edit()
		next.Publish(e, s.next, w.delta)
		e.Commit()
	}
	return next, s.tree
}

// follow has all but the claims follow what was changed since a machine.
func (w *writer) follow(since, was *tables, at int64) {
	w.pass(since, was)
	w.buryWith(since, was)
	w.epoch = was.epoch
	// Nodes trust the CA of the cluster that they are in, not the backup's.
	if len(was.authority.Certificate) > 0 {
		w.authority, w.invitations = was.authority, was.invitations
	}
	// Nor does a backup know which of the nodes of today are off.
	w.off = was.off
	// Signers go by what they were told before.
	for _, p := range w.pools.values() {
		if before, ok := was.pools.Get(p.ID); ok {
			next := *p
			next.Policy = p.Policy.After(before.Policy, at)
			w.pools.Set(p.ID, &next)
		}
	}
}

// pass raises the counters of zones that have shown as much since a machine, or more.
func (w *writer) pass(since, was *tables) {
	behind := uint32(0) // of all pools, each of which its domains' serials contain
	was.pools.Scan(func(id string, p *poolEntry) bool {
		if before, ok := since.pools.Get(id); ok && before.Number == p.Number && int32(p.Serial-before.Serial) > 0 {
			behind = max(behind, p.Serial-before.Serial)
		}
		return true
	})
	raise := make(map[string]uint32)
	if behind > 0 {
		for _, p := range w.pools.values() {
			raise[p.ID] = behind
		}
	}
	was.domains.since(&since.domains, func(token string, r record) {
		if before, _ := since.domains.Get(token); before == r {
			return
		}
		shown := was.domain(r)
		if shown.Mode != zone.Delegated {
			return
		}
		for _, d := range w.claimsTo(shown.Name) {
			// 0 or more in the arithmetic of RFC 1982: shown is not older.
			if ahead := int32(was.zoneSerial(shown) - w.zoneSerial(d) - behind); d.Mode == zone.Delegated && ahead >= 0 {
				raise[d.Pool] = max(raise[d.Pool], behind+uint32(ahead)+1)
			}
		}
	})
	for _, id := range slices.Sorted(maps.Keys(raise)) {
		w.raisePool(id, raise[id])
	}
	for _, p := range w.platforms.values() {
		if shown, ok := was.platformAt(p.Apex); ok && int32(shown.Serial-p.Serial) >= 0 {
			next := *p
			next.Serial = shown.Serial + 1
			w.platforms.Set(p.Number, &next)
			w.delta.serial(p.Number)
		}
	}
}

// raisePool raises the counter of a pool.
func (w *writer) raisePool(id string, by uint32) {
	p, _ := w.pools.Get(id)
	next := *p
	next.Serial += by
	base, _ := w.firstPlatform()
	answers, r := renderPool(&next.Pool, base.Apex)
	if r != nil {
		panic("pool " + id + " was rendered, and is not with another serial: " + r.Error())
	}
	next.answers = answers
	w.pools.Set(id, &next)
	w.delta.pool(p.Number, id)
}

// buryWith keeps burned what was given up since a machine, but for what the backup brings
// back to whom it belonged.
func (w *writer) buryWith(since, was *tables) {
	was.gone.since(&since.gone, func(v [16]byte) {
		if _, back := w.domains.Get(Token(v).key()); !back {
			w.bury(Token(v))
		}
	})
	var held map[[16]byte]bool // names that are bound in the backup
	was.goneBound.since(&since.goneBound, func(v [16]byte) {
		if held == nil {
			held = w.boundHashes()
		}
		if !held[v] {
			w.buryHash(v)
		}
	})
}

// boundHashes are the names that are bound to claims, as the tombstones have them.
func (t *tables) boundHashes() map[[16]byte]bool {
	held := make(map[[16]byte]bool)
	t.bound.pairs.Scan(func(pair string, _ struct{}) bool {
		d, _ := t.find(tokenIn(pair))
		for _, n := range d.boundNames() {
			held[hash16(string(n))] = true
		}
		return true
	})
	return held
}

// differ lists the claims that another machine has not, or not just so.
func (t *tables) differ(was *tables) (list []Token) {
	t.domains.Scan(func(token string, r record) bool {
		if before, ok := was.domains.Get(token); !ok || before != r {
			list = append(list, tokenOf(token))
		}
		return true
	})
	return list
}

// changed lists the claims that another machine has not just so, and had not just so
// before. Where policies changed, so have claims that were to move from pool to pool.
func (t *tables) changed(since, was *tables) []Token {
	found := make(map[Token]struct{})
	look := func(token string, _ record) {
		before, _ := since.domains.Get(token)
		shown, _ := was.domains.Get(token)
		if own, ok := t.domains.Get(token); ok && shown != before && shown != own {
			found[tokenOf(token)] = struct{}{}
		}
	}
	was.domains.since(&since.domains, look)
	since.domains.since(&was.domains, look)
	if policiesDiffer(since, was) {
		for _, token := range t.differ(was) {
			if shown, ok := was.find(token); ok {
				if own, _ := t.find(token); own.Pool != shown.Pool {
					found[token] = struct{}{}
				}
			}
		}
	}
	// In order, as all that is applied: each node writes the same in the same order.
	return slices.SortedFunc(maps.Keys(found), func(a, b Token) int { return bytes.Compare(a[:], b[:]) })
}

// policiesDiffer says whether a policy tells signers otherwise than before.
func policiesDiffer(since, was *tables) (differ bool) {
	was.pools.Scan(func(id string, p *poolEntry) bool {
		before, ok := since.pools.Get(id)
		differ = ok && (p.Policy.SignerHold != before.Policy.SignerHold || p.Policy.Before != before.Policy.Before)
		return !differ
	})
	return differ
}

// takeOverStep is how many claims a core takes over at a time.
const takeOverStep = 1024

// takeOver has the barrier ask again for keys of a backup that what it replaces did not
// publish, and keeps the holds that signers were told. Claims that are as they were are
// left alone, so that going back a little in the same cluster costs what changed.
func (w *writer) takeOver(list []Token, was *tables, at int64) {
	own := w.tables // what all cores read, while claims are stored in a fork of it
	w.tables = own.fork()
	for len(list) > 0 {
		var all sync.WaitGroup
		parts := make([][]takenOver, min(runtime.GOMAXPROCS(0), (len(list)+takeOverStep-1)/takeOverStep))
		for i := range parts {
			mine := list[:min(takeOverStep, len(list))]
			list = list[len(mine):]
			all.Go(func() { parts[i] = own.takenOver(mine, was, at) })
		}
		all.Wait()
		for _, part := range parts {
			for _, c := range part {
				w.put(c.old, c.next, c.ring)
			}
		}
	}
}

// takenOver is a claim of a backup before and after.
type takenOver struct {
	old, next *Domain
	ring      keys.Ring
}

func (t *tables) takenOver(list []Token, was *tables, at int64) (out []takenOver) {
	for _, token := range list {
		old, _ := t.find(token)
		ring := old.Ring()
		if shown, ok := was.find(token); ok {
			ring = ring.TakeOver(shown.Ring(), at).Moved(was.policy(shown), t.policy(old), at)
		} else {
			ring = ring.TakeOver(keys.Ring{}, at)
		}
		attachment := ring.Append(make([]byte, 0, usualRing))
		if bytes.Equal(attachment, []byte(old.Branch.Attachment())) {
			continue
		}
		d := *old
		d.Branch = old.Branch.With(d.Serial, attachment)
		out = append(out, takenOver{old, &d, ring})
	}
	return out
}
