package keys

import (
	"math/rand"
	"strings"
	"testing"
	"time"
)

func TestMintedSelectorsCarryTheirMonth(t *testing.T) {
	at := time.Date(2026, 11, 30, 23, 0, 0, 0, time.FixedZone("west", -2*3600)) // December in UTC
	random := rand.New(rand.NewSource(1))
	seen := map[string]bool{}
	for range 1000 {
		selector, err := MintSelector(random, at)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckSelector(selector); err != nil {
			t.Fatal(err)
		}
		if month, ok := mintedMonth(selector); !ok || month != 2026*12+11 {
			t.Fatalf("%q is of month %d, %v", selector, month, ok)
		}
		seen[selector] = true
	}
	if len(seen) < 999 {
		t.Errorf("%d of 1000 selectors differ", len(seen))
	}
	if _, err := MintSelector(strings.NewReader("abc"), at); err == nil {
		t.Error("a random source that ends early gives a selector")
	}
	for _, selector := range []string{"s1", "2613-abcdef", "2600-abcdef", "2611-abcde1", "2611_abcdef", "26x1-abcdef"} {
		if _, ok := mintedMonth(selector); ok {
			t.Errorf("%q passes for minted", selector)
		}
	}
}
