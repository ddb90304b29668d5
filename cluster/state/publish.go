package state

import (
	"authd/zone"
)

// Delta is what one or several Apply calls changed, for Publish. It says where
// to look, not what is there: that is in the machines before and after.
type Delta struct {
	domains   map[Token]struct{}
	pools     map[uint32]string // number to id
	platforms map[uint32]bool   // true: more than the serial
	check     bool              // a CheckState was among the commands
}

// Checks says whether nodes compare their machines at this place in the log.
func (d Delta) Checks() bool { return d.check }

func (d *Delta) domain(t Token) {
	if d.domains == nil {
		d.domains = make(map[Token]struct{})
	}
	d.domains[t] = struct{}{}
}

func (d *Delta) pool(number uint32, id string) {
	if d.pools == nil {
		d.pools = make(map[uint32]string)
	}
	d.pools[number] = id
}

func (d *Delta) platform(number uint32) {
	if d.platforms == nil {
		d.platforms = make(map[uint32]bool)
	}
	d.platforms[number] = true
}

func (d *Delta) serial(number uint32) {
	if d.platforms == nil {
		d.platforms = make(map[uint32]bool)
	}
	if !d.platforms[number] {
		d.platforms[number] = false // the serial alone, unless more has changed
	}
}

// Merge adds what another delta changed.
func (d *Delta) Merge(other Delta) {
	if d.domains == nil {
		d.domains, other.domains = other.domains, nil
	}
	for t := range other.domains {
		d.domain(t)
	}
	for number, id := range other.pools {
		d.pool(number, id)
	}
	for number, all := range other.platforms {
		if all {
			d.platform(number)
		} else {
			d.serial(number)
		}
	}
}

// Publish carries a delta from old to m into the index that queries read. The
// caller commits the editor.
func (m Machine) Publish(e *zone.Editor, old Machine, d Delta) {
	was, is := old.tables(), m.tables()
	// Shared answers are added before the branches that name them, and removed after.
	for number, id := range d.pools {
		if p, ok := is.pools.Get(id); ok && p.Number == number {
			e.SetPool(number, p.answers)
		}
	}
	for number, all := range d.platforms {
		if p, ok := is.platforms.Get(number); ok {
			if all {
				e.SetPlatform(number, p.answers)
			}
			e.SetSerial(number, p.Serial)
		}
	}
	for token := range d.domains {
		before, _ := was.domains.Get(token.key())
		after, _ := is.domains.Get(token.key())
		if before.branch != after.branch {
			e.Put(before.branch, after.branch)
		}
	}
	for number := range d.platforms {
		if _, ok := is.platforms.Get(number); !ok {
			e.SetPlatform(number, nil)
		}
	}
	for number, id := range d.pools {
		if p, ok := is.pools.Get(id); !ok || p.Number != number {
			e.SetPool(number, nil)
		}
	}
}

// Tree is an index of the whole machine.
func (m Machine) Tree() *zone.Tree {
	tree := zone.NewTree()
	e := tree.Edit()
	m.PublishAll(e)
	e.Commit()
	return tree
}

// PublishAll fills an empty index. The caller commits the editor.
func (m Machine) PublishAll(e *zone.Editor) {
	t := m.tables()
	t.pools.Scan(func(_ string, p *poolEntry) bool {
		e.SetPool(p.Number, p.answers)
		return true
	})
	t.platforms.Scan(func(number uint32, p *platformEntry) bool {
		e.SetPlatform(number, p.answers)
		e.SetSerial(number, p.Serial)
		return true
	})
	branches := make([]zone.Branch, 0, t.domains.Len())
	t.domains.Scan(func(_ string, r record) bool {
		branches = append(branches, r.branch)
		return true
	})
	e.Fill(branches)
}
