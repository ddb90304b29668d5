package state

import (
	"encoding/binary"
	"fmt"
)

// keyIndex writes the index of public keys as it is in memory.
func (i *imageWriter) keyIndex(x *keyIndex) {
	i.begin(sectionKeyIndex)
	x.shards.Scan(func(number uint32, shard string) bool {
		return i.item(append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(shard)), uint16(number)), shard...))
	})
	i.begin(sectionKeyShared)
	x.shared.Scan(func(key string, _ struct{}) bool { return i.item([]byte(key)) })
}

// readKeyShard reads a shard of the index; where answers are made anew, the index
// is as well.
func (r *imageReader) readKeyShard(w *writer, item string) error {
	if len(item) < 2+keyEntrySize || (len(item)-2)%keyEntrySize != 0 {
		return errDamaged
	}
	number, shard := uint32(binary.BigEndian.Uint16([]byte(item[:2]))), item[2:]
	last := ""
	for rest := shard; rest != ""; rest = rest[keyEntrySize:] {
		if rest[:keyRestSize] <= last {
			return errDamaged
		}
		last = rest[:keyRestSize]
		r.keys--
	}
	if r.anew {
		return nil
	}
	_, twice := w.keys.shards.Set(number, string([]byte(shard))) // or it would keep the whole frame
	return damagedIf(twice)
}

func (r *imageReader) readKeyShared(w *writer, item string) error {
	r.keys--
	if len(item) != keyHashSize+tokenStart {
		return errDamaged
	}
	if r.anew {
		return nil
	}
	h := keyHash([]byte(item[:keyHashSize]))
	shard, _ := w.keys.shards.Get(h.shard())
	offset, found := h.at(shard)
	if !found || shard[offset+keyRestSize:][:tokenStart] >= item[keyHashSize:] {
		return errDamaged // the shard names the first of those that share a key
	}
	_, twice := w.keys.shared.Set(string([]byte(item)), struct{}{})
	return damagedIf(twice)
}

// checkKeys says whether the index had as many keys as the claims.
func (r *imageReader) checkKeys() error {
	if !r.anew && r.keys != 0 {
		return fmt.Errorf("the index of public keys does not fit the claims: %w", errDamaged)
	}
	return nil
}
