package keys

import "maps"

// TakeOver is the ring of a backup as it takes the place of another of the same claim,
// the zero Ring where there is none. Until then the names answer what the other says,
// which no barrier of the backup's knew: a standby that the other does not publish in the
// same way is to be confirmed anew and waits for the caches, and the way back is closed to
// a key that the other had revoked.
func (r Ring) TakeOver(now Ring, at int64) Ring {
	next := r.clone()
	if r.Mode == Slots {
		for slot, until := range now.Freed {
			next.Freed[slot] = max(next.Freed[slot], until)
		}
		maps.Copy(next.Handed, now.Handed)
		for i := range now.Keys {
			k := &now.Keys[i]
			if r.publishes(k) {
				continue
			}
			next.Freed[k.Selector] = max(next.Freed[k.Selector], at+k.ttl()+TTLStretch)
			if k.ActivatedAt != 0 && k.Stage != Revoked {
				next.Handed[k.Selector] = -at
			}
		}
	}
	for i := range next.Keys {
		k := &next.Keys[i]
		if before, _ := now.ByID(k.ID); k.Stage == Standby && (!now.publishes(k) || before.ConfirmedAt != k.ConfirmedAt) {
			k.ConfirmedAt, k.Gap = 0, max(k.Gap, next.gap(k.Selector))
		}
	}
	for a, id := range r.RolledFrom {
		if k, ok := r.ByID(id); !ok || !now.publishes(&k) {
			delete(next.RolledFrom, a)
		}
	}
	return next
}

// publishes says whether a ring answers a key's record, as that key's.
func (r Ring) publishes(k *Key) bool {
	own, ok := r.ByID(k.ID)
	return ok && k.Payload != "" && own.Selector == k.Selector && own.Payload == k.Payload
}
