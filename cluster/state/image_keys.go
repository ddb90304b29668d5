package state

import (
	"encoding/binary"
	"fmt"
)

// keyShardHead is the number in front of a shard.
const keyShardHead = 4

// keyIndex writes the index of public keys as it is in memory.
func (i *imageWriter) keyIndex(x *keyIndex) {
	i.begin(sectionKeyIndex)
	x.shards.Scan(func(number uint32, shard string) bool {
		return shard == "" || i.item(append(binary.BigEndian.AppendUint32(make([]byte, 0, keyShardHead+len(shard)), number), shard...))
	})
	i.begin(sectionKeyShared)
	x.shared.Scan(func(key string, _ struct{}) bool { return i.item([]byte(key)) })
}

// readKeyShard reads a shard of the index; where answers are made anew, the index
// is as well.
func (r *imageReader) readKeyShard(w *writer, item string) error {
	if len(item) < keyShardHead+keyEntrySize || (len(item)-keyShardHead)%keyEntrySize != 0 {
		return errDamaged
	}
	number, shard := binary.BigEndian.Uint32([]byte(item)), item[keyShardHead:]
	if number >= fanSize {
		return errDamaged
	}
	last := ""
	for rest := shard; rest != ""; rest = rest[keyEntrySize:] {
		if rest[:keyRestSize] <= last || uint32(rest[0])>>(8-keyRestOver) != number%(1<<keyRestOver) {
			return errDamaged
		}
		last = rest[:keyRestSize]
		r.keys--
	}
	if r.anew {
		return nil
	}
	twice := w.keys.shards.Get(number) != ""
	w.keys.shards.Set(number, string([]byte(shard))) // or it would keep the whole frame
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
	shard := w.keys.shards.Get(h.shard())
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
