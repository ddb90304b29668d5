package state

import (
	"testing"
)

func TestKeyOfARequestIsOfItsCallerAndOfAllItsParts(t *testing.T) {
	one := MakeOnce("ab", "c", []byte("xy"), []byte("z"))
	for name, other := range map[string]Once{
		"another caller":   MakeOnce("a", "bc", []byte("xy"), []byte("z")),
		"another key":      MakeOnce("ab", "d", []byte("xy"), []byte("z")),
		"the next command": one.At(1), "the one behind it": one.At(2),
	} {
		if other.Key == one.Key {
			t.Errorf("%s has the same key", name)
		}
	}
	if one.At(1).Key == one.At(2).Key || one.At(0) != one {
		t.Error("commands of one request are not told apart")
	}
	if MakeOnce("ab", "c", []byte("x"), []byte("yz")).Request == one.Request {
		t.Error("parts that are cut elsewhere are the same request")
	}
}
