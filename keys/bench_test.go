package keys

import "testing"

// BenchmarkDecodeRing: the cost of looking at one domain's keys.
func BenchmarkDecodeRing(b *testing.B) {
	r, err := Start(Minted, 0, someTime, []Material{testMaterial(1, RSA2048, "2611-aaaaaa")}, []Material{testMaterial(2, RSA2048, "2611-bbbbbb")})
	if err != nil {
		b.Fatal(err)
	}
	encoded, payload := string(r.Append(nil)), "v=DKIM1; k=rsa; p=key"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeRing(encoded, func(string) string { return payload }); err != nil {
			b.Fatal(err)
		}
	}
}
