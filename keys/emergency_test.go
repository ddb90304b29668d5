package keys

import (
	"strings"
	"testing"
)

// TestRingWithAnEmergencyIsReadOnlyInItsOneForm: version 2 where one waits, 1 otherwise.
func TestRingWithAnEmergencyIsReadOnlyInItsOneForm(t *testing.T) {
	r, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "s1"), testMaterial(2, Ed25519, "s2")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	calm := string(r.Append(nil))
	for _, a := range []Algorithm{Ed25519, RSA2048} {
		if r, err = r.Emergency(a, 0, FateRevoke, someTime); err != nil {
			t.Fatal(err)
		}
	}
	urgent := string(r.Append(nil))
	if calm[0] != ringVersion || urgent[0] != urgentVersion {
		t.Fatalf("versions %d and %d", calm[0], urgent[0])
	}
	again, err := DecodeRing(urgent, payloads(r))
	if err != nil || again.Urgent[RSA2048] != (Urgent{Key: 1, Old: FateRevoke}) || again.Urgent[Ed25519] != (Urgent{Key: 2, Old: FateRevoke}) {
		t.Fatalf("%+v, %v", again.Urgent, err)
	}
	body := urgent[1 : len(urgent)-11] // without slots and the list of two
	for what, c := range map[string]struct{ encoded, says string }{
		"none":               {"\x02" + body + "\x00\x00\x00", "version 1"},
		"three":              {"\x02" + body + "\x00\x00\x03", "3 items"},
		"behind version 1":   {"\x01" + urgent[1:], "too many"},
		"no such fate":       {"\x02" + body + "\x00\x00\x01\x01\x04\x00\x01", "fate 4"},
		"no such flag":       {"\x02" + body + "\x00\x00\x01\x01\x01\x08\x01", "flags"},
		"no such algorithm":  {"\x02" + body + "\x00\x00\x01\x07\x01\x00\x01", "not active"},
		"another key":        {"\x02" + body + "\x00\x00\x01\x01\x01\x00\x02", "not active"},
		"out of order":       {"\x02" + body + "\x00\x00\x02\x02\x01\x00\x02\x01\x01\x00\x01", "order"},
		"twice":              {"\x02" + body + "\x00\x00\x02\x01\x01\x00\x01\x01\x01\x00\x01", "order"},
		"part of a rotation": {"\x02" + body + "\x07\x00\x00\x01", "too many"},
		"slots handed out":   {"\x02" + body + "\x00\x01\x02k1\x02\x00", "without"},
		"cut short":          {urgent[:len(urgent)-1], "cut short"},
	} {
		if _, err := DecodeRing(c.encoded, payloads(r)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", what, err, c.says)
		}
	}
}

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
