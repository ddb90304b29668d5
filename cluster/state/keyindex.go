package state

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"authd/keys"
)

// keyIndex finds the claims that publish a public key, of all keys that DNS answers
// with: some three million for a million claims. An entry is 13 octets in the sorted
// string of its shard, half of what a tree would take: 7 octets of the key's hash less
// the shard's number, and the first 8 of the token, which no other claim shares
// (checkToken). A hit is checked against the key itself. With three million keys a
// shard has a dozen.
//
// Claims of one tenant may share a key, and a platform that moves in may have given all
// its customers the same. Then the shard names the first in order of token, and a tree
// has the others, since each change copies the shard.
type keyIndex struct {
	shards fan[string]
	shared table[string, struct{}] // hash and the beginning of a token
}

const (
	keyHashSize  = 7
	keyRestAt    = fanBits * fanDepth / 8 // the octets before are the shard's number
	keyRestSize  = keyHashSize - keyRestAt
	keyRestOver  = fanBits * fanDepth % 8 // first bits of the rest that the number has too
	tokenStart   = 8                      // octets of a token that tell it apart
	keyEntrySize = keyRestSize + tokenStart
	// maxKeyHolders bounds the claims that are looked at for one hash. Different keys
	// with one hash do not happen by chance; see checkForeign.
	maxKeyHolders = 64
)

type keyHash [keyHashSize]byte

// hashOfKey takes the payload in the form that all of ours have.
func hashOfKey(payload string) (h keyHash) {
	sum := sha256.Sum256([]byte(payload))
	copy(h[:], sum[:])
	return h
}

func (h keyHash) shard() uint32 { return binary.BigEndian.Uint32(h[:]) / (1 << 32 / fanSize) }
func (h keyHash) rest() string  { return string(h[keyRestAt:]) }

// start is the beginning of a token, as the index holds it.
func (t Token) start() string { return string(t[:tokenStart]) }

func (x *keyIndex) fork(o *owner) keyIndex {
	return keyIndex{shards: x.shards.fork(o), shared: x.shared.fork(o)}
}

// at is where an entry of a hash is in its shard, or would be.
func (h keyHash) at(shard string) (offset int, found bool) {
	rest := h.rest()
	low, high := 0, len(shard)/keyEntrySize
	for low < high {
		mid := (low + high) / 2
		if shard[mid*keyEntrySize:][:keyRestSize] < rest {
			low = mid + 1
		} else {
			high = mid
		}
	}
	offset = low * keyEntrySize
	return offset, strings.HasPrefix(shard[offset:], rest)
}

// add notes that a claim has a key; it must not have been added.
func (x *keyIndex) add(h keyHash, t Token) {
	shard := x.shards.Get(h.shard())
	offset, found := h.at(shard)
	first, rest := t.start(), shard[offset:]
	if found {
		had := rest[keyRestSize:keyEntrySize]
		rest = rest[keyEntrySize:]
		other := max(had, first)
		first = min(had, first)
		x.shared.Set(string(h[:])+other, struct{}{})
		if first == had {
			return
		}
	}
	x.shards.Set(h.shard(), shard[:offset]+h.rest()+first+rest)
}

// drop forgets that a claim has a key; it must have been added.
func (x *keyIndex) drop(h keyHash, t Token) {
	if _, ok := x.shared.Delete(string(h[:]) + t.start()); ok {
		return
	}
	shard := x.shards.Get(h.shard())
	offset, found := h.at(shard)
	if !found || shard[offset+keyRestSize:][:tokenStart] != t.start() {
		panic("the index of public keys does not know one of claim " + t.String() + ": this is a defect: stop this node and report it")
	}
	entry, next := "", ""
	x.shared.Ascend(string(h[:]), func(key string, _ struct{}) bool {
		if strings.HasPrefix(key, string(h[:])) {
			next = key
		}
		return false
	})
	if next != "" {
		x.shared.Delete(next)
		entry = h.rest() + next[keyHashSize:]
	}
	x.shards.Set(h.shard(), shard[:offset]+entry+shard[offset+keyEntrySize:])
}

// holders lists the claims that have a key of this hash, in order of token and at
// most a bounded number.
func (t *tables) holders(h keyHash) (list []Token) {
	shard := t.keys.shards.Get(h.shard())
	offset, found := h.at(shard)
	if !found {
		return nil
	}
	list = append(list, t.startingWith(shard[offset+keyRestSize:][:tokenStart]))
	t.keys.shared.Ascend(string(h[:]), func(key string, _ struct{}) bool {
		if !strings.HasPrefix(key, string(h[:])) || len(list) == maxKeyHolders {
			return false
		}
		list = append(list, t.startingWith(key[keyHashSize:]))
		return true
	})
	return list
}

// Publishes says whether a claim has a public key, given in the form that ours have.
func (m Machine) Publishes(payload string) bool {
	t := m.tables()
	for _, token := range t.holders(hashOfKey(payload)) {
		if d, ok := t.find(token); ok && sharesKey(d, keys.Key{Payload: payload}) {
			return true
		}
	}
	return false
}

// startingWith is the token of the claim whose token begins so; the zero one
// where there is none.
func (t *tables) startingWith(start string) (token Token) {
	t.domains.Ascend(start, func(key string, _ record) bool {
		if strings.HasPrefix(key, start) {
			token = tokenOf(key)
		}
		return false
	})
	return token
}
