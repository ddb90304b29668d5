package keys

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
)

// RFC 8463 appendix A.1 and A.2: the example key and its record.
const (
	rfc8463Seed   = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
	rfc8463Record = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
)

func TestRFC8463ExampleKey(t *testing.T) {
	seed, err := base64.StdEncoding.DecodeString(rfc8463Seed)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Generate(bytes.NewReader(seed), Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if p.Payload() != rfc8463Record {
		t.Errorf("record %q, want %q", p.Payload(), rfc8463Record)
	}
	if p.Seed() != rfc8463Seed {
		t.Errorf("seed %q, want %q", p.Seed(), rfc8463Seed)
	}
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	public, err := parsePayload(rfc8463Record)
	if err != nil {
		t.Fatal(err)
	}
	if public.Payload() != rfc8463Record || public.Algorithm != Ed25519 || len(public.ed) != 32 {
		t.Errorf("%+v", public)
	}
}

// RFC 8032 section 5.1.3: what decodes to no point is no key; section 5.1.7 and
// common sense: a point of small order verifies anybody's signature.
func TestRFC8463UnsoundPointsAreRefused(t *testing.T) {
	for encoded, want := range map[string]string{
		// The eight points of small order, signs of x left out.
		"0100000000000000000000000000000000000000000000000000000000000000": "small order",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": "small order",
		"0000000000000000000000000000000000000000000000000000000000000000": "small order",
		"0000000000000000000000000000000000000000000000000000000000000080": "small order",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05": "small order",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a": "small order",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa": "small order",
		// p and p+1: the same as 0 and 1, in a longer form.
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": "shortest form",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f": "shortest form",
		// y = 2 is on no curve point.
		"0200000000000000000000000000000000000000000000000000000000000000": "not a point",
	} {
		data, err := hex.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		_, err = parsePayload(RevokedPayload(Ed25519) + base64.StdEncoding.EncodeToString(data))
		if err == nil {
			t.Errorf("%s is read", encoded)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", encoded, err, want)
		}
	}
}
