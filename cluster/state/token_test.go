package state

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTokenTextIsALabelAndReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var token Token
		copy(token[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "token"))
		text := token.String()
		if len(text) != TokenLength || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") != "" {
			t.Fatalf("token text %q", text)
		}
		back, err := ParseToken(text)
		if err != nil || back != token {
			t.Fatalf("%q reads as %v, %v", text, back, err)
		}
	})
}

func TestTokenRefusesAnythingElse(t *testing.T) {
	good := tok(7).String()
	for _, text := range []string{
		"", good[:25], good + "a", strings.ToUpper(good), good[:25] + "1", good[:25] + "=", good[:24] + "\n\n",
		strings.Repeat("a", 25) + "b", // an unused bit is set
		"ä" + good[2:],
	} {
		if token, err := ParseToken(text); err == nil {
			t.Errorf("%q reads as %v", text, token)
		}
	}
}

func TestTombstonesKeepTokensThatShareTheirFirstHalf(t *testing.T) {
	var g graves
	var list []Token
	for i := range byte(5) {
		v := Token{1, 2, 3}
		v[15] = 4 - i
		list = append(list, v)
	}
	for i, v := range list {
		if g.has(v) {
			t.Fatalf("token %d is there before it was added", i)
		}
		g.add(v)
		g.add(v)
	}
	if n := g.halves.Len() + g.whole.Len(); n != len(list) {
		t.Fatalf("%d tombstones, want %d", n, len(list))
	}
	var last Token
	g.each(func(v [16]byte) bool {
		if Token(v).key() < last.key() {
			t.Errorf("%x comes behind %x", v, last)
		}
		last = v
		return true
	})
	if g.has(Token{1, 2, 3, 4}) {
		t.Error("a token that was never used has a tombstone")
	}
}
