package keys

import (
	"strings"
	"testing"
)

// TestEmergencyIsRefusedForWhatIsNoKeyOfTheDomain and changes nothing then.
func TestEmergencyIsRefusedForWhatIsNoKeyOfTheDomain(t *testing.T) {
	r, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1"), testMaterial(2, Ed25519, "s2")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		from uint32
		old  Fate
		at   int64
		says string
	}{
		"no such key":      {9, FateDrain, someTime, "no such key"},
		"of the other":     {2, FateDrain, someTime, "no such key"},
		"no such fate":     {1, 0, someTime, "fate 0"},
		"a time before us": {1, FateDrain, 0, "1970"},
	} {
		if _, err := r.Emergency(RSA2048, c.from, c.old, c.at); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", what, err, c.says)
		}
	}
}
