package state

import (
	"crypto/sha256"
	"encoding/binary"
)

// Once makes a command happen at most once within onceFor, however often it is
// proposed: it is what an Idempotency-Key becomes. The zero value asks for nothing.
type Once struct {
	_ struct{} `cbor:",toarray"`
	// Key is a hash of the caller and the key they chose.
	Key [16]byte
	// Request is a hash of what was asked: another one with the same key is refused.
	Request [16]byte
}

// OnceField is what a refusal of another request with a known key names.
const OnceField = "Idempotency-Key"

// MakeOnce is the Once of a request: the id of the caller's token, the key that
// they chose, and what they asked for.
func MakeOnce(caller, key string, request ...[]byte) Once {
	var o Once
	o.Key = hash16(caller + "\x00" + key)
	h := sha256.New()
	for _, part := range request {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		h.Write(size[:])
		h.Write(part)
	}
	copy(o.Request[:], h.Sum(nil))
	return o
}

// At is the Once of the i-th command of a request.
func (o Once) At(i int) Once {
	if i > 0 && o.asked() {
		o.Key = hash16(string(o.Key[:]) + itoa(i))
	}
	return o
}

func (o Once) asked() bool { return o != Once{} }

// onceDrop is how many expired results a change drops: more than the one that it can
// add, and few enough to cost it nothing.
const onceDrop = 8

// results are what commands with a key came to, bounded by onceFor and maxOnce.
// Only what was done is kept: a refusal changed nothing, so it is decided anew.
type results struct {
	last  uint64 // number of the newest
	sums  sums
	byKey table[string, onceResult]
	order table[uint64, string] // by number, which is by time too
}

// onceResult is pointer-free: there are many.
type onceResult struct {
	request [16]byte
	token   Token
	index   uint64
	at      int64
	number  uint64
	changed bool
}

func (r *results) fork(o *owner) results {
	return results{last: r.last, sums: r.sums, byKey: r.byKey.fork(o), order: r.order.fork(o)}
}

func (r *results) add(key string, v onceResult) {
	r.last++
	v.number = r.last
	if old, ok := r.byKey.Set(key, v); ok {
		r.sums.drop(old.sum(key))
	}
	r.sums.add(v.sum(key))
	r.order.Set(r.last, key)
}

// drop takes away the oldest.
func (r *results) drop() {
	if _, key, ok := r.order.PopMin(); ok {
		if old, ok := r.byKey.Delete(key); ok {
			r.sums.drop(old.sum(key))
		}
	}
}

// trim takes away what expired, a few at a time, and what is too much.
func (r *results) trim(now int64) {
	for range onceDrop {
		_, key, ok := r.order.Min()
		if !ok {
			return
		}
		if v, _ := r.byKey.Get(key); v.at+onceFor > now && r.order.Len() <= maxOnce {
			return
		}
		r.drop()
	}
}

// Once finds what a request came to, where it was made with the same key less
// than onceFor ago. A refusal means that the key was another request's.
func (m Machine) Once(o Once) (Result, bool) { return m.tables().once(o) }

func (t *tables) once(o Once) (Result, bool) {
	if !o.asked() {
		return Result{}, false
	}
	v, ok := t.results.byKey.Get(string(o.Key[:]))
	if !ok || v.at+onceFor <= t.time {
		return Result{}, false
	}
	if v.request != o.Request {
		return Result{Refusal: invalid(OnceField, "this key was used for another request less than an hour ago: send a new key with a new request")}, true
	}
	return Result{Token: v.token, Changed: v.changed, First: v.index}, true
}

// remember keeps what a command with a key came to.
func (w *writer) remember(o Once, r Result) {
	if r.Changed || o.asked() {
		w.results.trim(w.time)
	}
	if !o.asked() {
		return
	}
	key := string(o.Key[:])
	if expired, ok := w.results.byKey.Get(key); ok { // and not trimmed yet
		w.results.order.Delete(expired.number)
	}
	w.results.add(key, onceResult{request: o.Request, token: r.Token, index: w.index, at: w.time, changed: r.Changed})
	for w.results.order.Len() > maxOnce {
		w.results.drop()
	}
}
