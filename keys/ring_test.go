package keys

import (
	"crypto/rand"
	"reflect"
	"testing"
)

func sealedMaterial(id uint32, a Algorithm, selector string) Material {
	return Material{Algorithm: a, Selector: selector, Sealed: []byte("sealed half"), ID: id,
		Payload: RevokedPayload(a) + "key" + selector + string('0'+rune(id%10))}
}

func TestPairSignsAndVerifiesAsAReceiverWould(t *testing.T) {
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		p, err := Generate(rand.Reader, a)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		again, err := Restore(p.Payload(), p.Compact())
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Check(); err != nil {
			t.Errorf("%s restored: %v", a, err)
		}
		fromPEM, err := ParsePEM(p.PKCS8())
		if err != nil {
			t.Fatal(err)
		}
		if fromPEM.Payload() != p.Payload() {
			t.Errorf("%s: PEM gives another key", a)
		}
	}
}

func TestEncodedRingDecodesToTheSameRing(t *testing.T) {
	for _, mode := range []RingMode{Minted, Slots} {
		names := [3]string{"2611-aaaaaa", "2611-bbbbbb", "2611-cccccc"}
		if mode == Slots {
			names = [3]string{}
		}
		r, err := Start(mode, -7, 1_800_000_000,
			[]Material{sealedMaterial(1, RSA2048, names[0]), sealedMaterial(2, Ed25519, names[1])},
			[]Material{sealedMaterial(3, RSA2048, names[2])})
		if err != nil {
			t.Fatal(err)
		}
		b := r.Append(nil)
		again, err := DecodeRing(string(b), func(selector string) string {
			k, _ := r.BySelector(selector)
			return k.Payload
		})
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(r, again) {
			t.Errorf("%s: %+v became %+v", mode, r, again)
		}
	}
}
