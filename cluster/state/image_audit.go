package state

import (
	"errors"
	"fmt"
)

// imageAudit is where the chain of changes stands: Seq and Head are of the last
// one, Base is the hash of the last one that is not in the image.
type imageAudit struct {
	Seq  uint64    `cbor:"1,keyasint"`
	Head AuditHash `cbor:"2,keyasint"`
	Base AuditHash `cbor:"3,keyasint"`
}

// imageOnce is one result of a request with a key.
type imageOnce struct {
	Key     [16]byte `cbor:"1,keyasint"`
	Request [16]byte `cbor:"2,keyasint"`
	Token   Token    `cbor:"3,keyasint"`
	Index   uint64   `cbor:"4,keyasint"`
	At      int64    `cbor:"5,keyasint"`
	Changed bool     `cbor:"6,keyasint"`
}

func (a *audit) image() *imageAudit {
	if a.seq == 0 {
		return nil
	}
	return &imageAudit{a.seq, a.head, a.base}
}

// audit writes changes without their hashes, which follow from the base, and
// results in order of age.
func (i *imageWriter) audit(t *tables) {
	i.begin(sectionAudit)
	t.audit.entries.Scan(func(_ uint64, stored string) bool { return i.item([]byte(stored[len(AuditHash{}):])) })
	i.begin(sectionOnce)
	t.results.order.Scan(func(_ uint64, key string) bool {
		v, _ := t.results.byKey.Get(key)
		return i.object(imageOnce{[16]byte(tokenOf(key)), v.request, v.token, v.index, v.at, v.changed})
	})
}

// history reads the sections behind the domains.
func (r *imageReader) history(w *writer, f frame) error {
	said := imageAudit{}
	if w.imaged != nil {
		said = *w.imaged
	}
	w.audit.head, w.audit.base = said.Base, said.Base
	var window []string
	for f.section != sectionEnd {
		err := f.items(func(item string) error {
			switch f.section {
			case sectionAudit:
				if len(window) == MaxAudit {
					return errDamaged
				}
				window = append(window, item)
				return nil
			case sectionOnce:
				return object(item, w.readOnce)
			case sectionRotations:
				return object(item, w.readRotation)
			case sectionKeyIndex:
				return r.readKeyShard(w, item)
			case sectionKeyShared:
				return r.readKeyShared(w, item)
			}
			return errors.New("unknown: this image is of a newer release: upgrade this node")
		})
		if err != nil {
			return fmt.Errorf("section %d: %w", f.section, err)
		}
		if f, err = r.next(); err != nil {
			return err
		}
	}
	if err := r.checkKeys(); err != nil {
		return err
	}
	return w.readWindow(said, window)
}

// readWindow puts the changes into the chain again, which must come to the head
// that the image says.
func (w *writer) readWindow(said imageAudit, window []string) error {
	if uint64(len(window)) > said.Seq {
		return fmt.Errorf("changes: %w", errDamaged)
	}
	w.audit.seq = said.Seq - uint64(len(window))
	for _, canonical := range window {
		e, err := readAudit(canonical)
		if err != nil || e.Seq != w.audit.seq+1 {
			return fmt.Errorf("change %d: %w", w.audit.seq+1, errDamaged)
		}
		w.audit.push(canonical) // a copy: it would keep the whole frame
	}
	if w.audit.head != said.Head || w.audit.base != said.Base {
		return fmt.Errorf("changes: the chain of hashes does not end where the image says: %w", errDamaged)
	}
	return nil
}

func (w *writer) readRotation(r Rotation) bool {
	_, twice := w.rotations.Set(r.Number, &r)
	return !twice && r.Number > 0 && r.Number <= w.rotationNumber && w.rotations.Len() <= MaxRotations &&
		r.State >= RotationRunning && r.State <= RotationAborted && len(r.Canary) > 0
}

func (w *writer) readOnce(v imageOnce) bool {
	key := string(v.Key[:])
	_, twice := w.results.byKey.Get(key)
	w.results.add(key, onceResult{request: v.Request, token: v.Token, index: v.Index, at: v.At, changed: v.Changed})
	return !twice && v.At >= 0 && w.results.order.Len() <= maxOnce
}
