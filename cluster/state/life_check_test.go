package state

import (
	"slices"
	"strings"

	"authd/keys"
	"authd/zone"
)

// observe lets every cache ask its node for every name.
func (l *life) observe() {
	for _, n := range l.nodes {
		if !n.up {
			continue
		}
		m := l.at(n.applied)
		for d := range m.Domains(Token{}) {
			if active, ok := d.Ring().Active(keys.RSA2048); ok {
				n.said[lifeKey{d.Token, active.ID}] = l.now
			}
			if n.drawn[d.Token] == d && len(l.names[d.Token]) == n.known(d.Token, l) {
				continue
			}
			n.drawn[d.Token] = d
			l.draw(n, m, d)
		}
	}
}

// known counts the names of a claim that the node's cache has.
func (n *lifeNode) known(t Token, l *life) (count int) {
	for _, name := range l.names[t] {
		if n.cache[name] != nil {
			count++
		}
	}
	return count
}

// draw fills a cache from what a node answers now.
func (l *life) draw(n *lifeNode, m Machine, d *Domain) {
	answers := map[zone.Name]remembered{}
	for _, set := range m.Served(d) {
		if set.Type != zone.TypeTXT || !strings.Contains(set.Owner.String(), "_domainkey") && !strings.Contains(set.Owner.String(), ".dkim.") {
			continue
		}
		answers[set.Owner] = remembered{value: string(set.Data[0]), ttl: int64(set.TTL)}
		if !slices.Contains(l.names[d.Token], set.Owner) {
			l.names[d.Token] = append(l.names[d.Token], set.Owner)
		}
	}
	for _, name := range l.names[d.Token] {
		now, ok := answers[name]
		if !ok {
			now = remembered{ttl: keys.TTLNegative} // absence
		}
		r := n.cache[name]
		if r == nil {
			// A name is asked for before it is there, too.
			r = &remembered{ttl: keys.TTLNegative}
			n.cache[name] = r
		}
		if r.value != now.value || r.ttl != now.ttl {
			r.old = append(r.old, aged{r.value, l.now + r.ttl})
			r.value, r.ttl = now.value, now.ttl
		}
	}
}

// check holds the model to what is promised.
func (l *life) check() {
	for _, reader := range l.nodes {
		if !reader.up {
			continue
		}
		for d := range l.at(reader.applied).Domains(Token{}) {
			l.checkSignature(reader, d)
		}
	}
	for d := range l.last().Domains(Token{}) {
		l.checkRing(d)
	}
}

// checkSignature verifies what the reader's signers sign now through every cache.
func (l *life) checkSignature(reader *lifeNode, d *Domain) {
	active, ok := d.Ring().Active(keys.RSA2048)
	if !ok {
		l.t.Fatalf("%s: node %d says no key that signs", d.Name, reader.id)
	}
	if l.requested[lifeKey{d.Token, active.ID}] {
		return
	}
	name, err := d.KeyName(active)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, n := range l.nodes {
		r := n.cache[name]
		if r == nil {
			l.t.Fatalf("%s: nobody at node %d ever asked for %s", d.Name, n.id, name)
		}
		l.counts.checks++
		if n.up && !strings.Contains(r.value, active.Payload) {
			l.t.Fatalf("%s signs with %s by node %d, and node %d answers %.40q", d.Name, name, reader.id, n.id, r.value)
		}
		for _, a := range r.old {
			if a.until > l.now && !strings.Contains(a.value, active.Payload) {
				l.t.Fatalf("%s signs with %s by node %d, and a cache at node %d may say %.40q for %d s more", d.Name, name, reader.id, n.id, a.value, a.until-l.now)
			}
		}
	}
}

// checkRing holds a ring to its slots and its floor.
func (l *life) checkRing(d *Domain) {
	ring := d.Ring()
	taken := map[uint8]bool{}
	policy := l.last().policyOf(d)
	for _, k := range ring.Keys {
		if ring.Mode == keys.Slots {
			if k.Slot < 1 || k.Slot > 3 || taken[k.Slot] {
				l.t.Fatalf("%s: slot %d is taken twice or none", d.Name, k.Slot)
			}
			taken[k.Slot] = true
			l.counts.slots++
		}
		if k.Stage != keys.Revoked || l.requested[lifeKey{d.Token, k.ID}] {
			continue
		}
		floor := int64((policy.SignerHold + policy.DrainFloor).Seconds()) - keys.ClockMargin
		for _, n := range l.nodes {
			if said, ok := n.said[lifeKey{d.Token, k.ID}]; ok && k.RevokedAt-said < floor {
				l.t.Fatalf("%s: key %s was revoked %d s after node %d last gave it to a signer, want %d", d.Name, k.Selector, k.RevokedAt-said, n.id, floor)
			}
		}
	}
}

// forget drops machines that no node has to answer from.
func (l *life) forget() {
	least := l.last().Index()
	for _, n := range l.nodes {
		least = min(least, n.applied, n.synced)
	}
	l.log = slices.Clone(l.log[least-l.base:])
	l.base = least
}
