package state

import (
	"bytes"
	"testing"

	"authd/zone"
)

// under is a sealed half of test material under a version.
func under(version uint16, sealed []byte) []byte {
	return append([]byte{byte(version >> 8), byte(version)}, sealed[2:]...)
}

func TestPrivateHalvesAreReplacedOnlyAsTheyWereSeen(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	had := w.domain(tok(1)).Ring().Keys[0].Sealed
	half := func(version uint16, old []byte) Rewrap {
		return Rewrap{[]SealedHalf{{Token: tok(1), Key: 1, Old: old, Sealed: under(version, had)}}}
	}
	unchanged := func(what string, c Rewrap) {
		t.Helper()
		if r := w.do(c); r.Refusal != nil || r.Changed {
			t.Errorf("%s: %+v", what, r)
		}
	}
	unchanged("before a version is chosen", half(2, had[:14]))
	w.must(SetWrap{2})
	if left := w.m.ToRewrap(); left != 2 {
		t.Errorf("%d left", left)
	}
	serial := w.domain(tok(1)).Serial
	unchanged("another half was seen", half(2, bytes.Repeat([]byte{9}, 14)))
	unchanged("nothing was seen", half(2, nil))
	unchanged("another version", half(3, had[:14]))
	unchanged("a key that is gone", Rewrap{[]SealedHalf{{tok(1), 9, had[:14], under(2, had)}}})
	unchanged("a claim that is gone", Rewrap{[]SealedHalf{{tok(9), 1, had[:14], under(2, had)}}})
	unchanged("another length", Rewrap{[]SealedHalf{{tok(1), 1, had[:14], under(2, append(bytes.Clone(had), 0))}}})
	w.must(half(2, had[:14]))
	unchanged("it was replaced already", half(2, had[:14]))
	if got := w.domain(tok(1)).Ring().Keys[0].Sealed; !bytes.Equal(got, under(2, had)) || w.m.ToRewrap() != 1 || w.m.SealedUnder()[2] != 1 {
		t.Errorf("%q, %d left, %v", got, w.m.ToRewrap(), w.m.SealedUnder())
	}
	if now := w.domain(tok(1)).Serial; now != serial {
		t.Errorf("the zone's serial rose from %d to %d though DNS answers the same", serial, now)
	}
	w.refuse(SetWrap{0}, Invalid, "version")
	w.refuse(Rewrap{make([]SealedHalf, MaxRewrap+1)}, Invalid, "halves")
	w.checkIndexes()
}

// TestSealedHalvesOfRevokedKeysAreNowhere: neither in the branch, nor in the image,
// nor among the counts.
func TestSealedHalvesOfRevokedKeysAreNowhere(t *testing.T) {
	w := newWorld(t)
	w.must(claimOf(tok(1), "send.customer.test", zone.Delegated, "acme"))
	w.later(1)
	sealed := w.domain(tok(1)).Ring().Keys[0].Sealed
	if !bytes.Contains(image(t, w.m), sealed) {
		t.Fatal("the half is not in the image while the key signs")
	}
	w.must(RevokeKey{Token: tok(1), Selector: "2601-aaaaaa", Force: true})
	if bytes.Contains([]byte(w.domain(tok(1)).Branch), sealed) || bytes.Contains(image(t, w.m), sealed) {
		t.Error("the half of a revoked key is still there")
	}
	standby := w.domain(tok(1)).Ring().Keys[1].Sealed
	w.who.Reason = "gone"
	w.must(LeaveDomain{Token: tok(1), Now: true})
	if bytes.Contains(image(t, w.m), standby) || len(w.m.SealedUnder()) > 0 {
		t.Errorf("the half of a domain that is gone is still there: %v", w.m.SealedUnder())
	}
}

// TestKeyOfTheCAIsSealedAnewAsItWasSeen: it counts among what is left under the old
// version, and a CA that was set meanwhile stays.
func TestKeyOfTheCAIsSealedAnewAsItWasSeen(t *testing.T) {
	w := newWorld(t)
	had := under(1, []byte("..a nonce of 12 and the key"))
	w.must(SetAuthority{Authority{[]byte("certificate"), had}})
	w.must(SetWrap{2})
	if w.m.ToRewrap() != 1 || w.m.SealedUnder()[1] != 1 {
		t.Fatalf("%d left, %v", w.m.ToRewrap(), w.m.SealedUnder())
	}
	seen := Rewrap{[]SealedHalf{{Old: had[:14], Sealed: under(2, had)}}}
	other := under(1, []byte("..another nonce and another"))
	w.must(SetAuthority{Authority{[]byte("another CA"), other}})
	if r := w.do(seen); r.Changed || !bytes.Equal(w.m.Authority().Sealed, other) {
		t.Fatal("the key of a CA that is gone took the place of another's")
	}
	w.must(SetAuthority{Authority{[]byte("certificate"), had}})
	w.must(seen)
	if a := w.m.Authority(); !bytes.Equal(a.Sealed, under(2, had)) || string(a.Certificate) != "certificate" || w.m.ToRewrap() != 0 {
		t.Errorf("%q, %d left", a, w.m.ToRewrap())
	}
}
