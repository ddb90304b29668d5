package state

import (
	"bytes"
	"testing"

	"authd/zone"
)

func TestNamesWithLongLabelsAreNotWellFormed(t *testing.T) {
	for length, want := range map[int]bool{1: true, 63: true, 64: false, 100: false} {
		n := zone.Name(append(append([]byte{byte(length)}, bytes.Repeat([]byte{'a'}, length)...), 0))
		if got := wellFormed(n); got != want {
			t.Errorf("a label of %d: %v", length, got)
		}
	}
}
