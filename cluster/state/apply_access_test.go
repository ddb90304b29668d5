package state

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func TestTokenKeepsItsScope(t *testing.T) {
	w := newWorld(t)
	access := AccessToken{ID: "t1", Hash: [32]byte{1}, Scope: ScopeRead}
	w.must(AddAccessToken{access})
	if r := w.must(AddAccessToken{access}); r.Changed {
		t.Error("the same token again is a change")
	}
	access.Scope = ScopeAdmin
	w.refuse(AddAccessToken{access}, Conflict, "id", "already")
}

func TestTokensAreBounded(t *testing.T) {
	w := newWorld(t)
	token := func(i uint64) AccessToken {
		a := AccessToken{ID: fmt.Sprintf("t%d", i), Scope: ScopeRead}
		binary.BigEndian.PutUint64(a.Hash[:], i+1)
		return a
	}
	a := w.m.Applier()
	for i := a.w.access.Len(); i < maxAccessTokens-1; i++ {
		one := token(uint64(i))
		a.w.setAccess(&one)
		a.w.accessHash.Set(string(one.Hash[:]), one.ID)
	}
	w.m, _ = a.Machine()
	w.must(AddAccessToken{token(maxAccessTokens)})
	w.refuse(AddAccessToken{token(maxAccessTokens + 1)}, Invalid, "id", "at most 100000")
}
