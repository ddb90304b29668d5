package keys

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// Sentences of RFC 6376, Errata included, about the key record.

// payloadOf is a sound key's p= value.
func payloadOf(t *testing.T) string {
	t.Helper()
	return strings.TrimPrefix(generate(t, RSA2048).Payload(), "v=DKIM1; k=rsa; p=")
}

// Section 3.6.1: "v= ... This tag MUST be the first tag in the record", "k= Key
// type (plain-text; OPTIONAL, default is 'rsa')", "n= Notes", unrecognised tags
// are ignored; section 3.2: white space around tags means nothing, "Tags with
// duplicate names MUST NOT occur".
func TestRFC6376KeyRecordTags(t *testing.T) {
	p := payloadOf(t)
	plain := "v=DKIM1; k=rsa; p=" + p
	for _, text := range []string{
		plain,
		plain + ";",
		"v=DKIM1;k=rsa;p=" + p,
		"p=" + p,
		"k=rsa; p=" + p,
		"v = DKIM1 ; p = " + p,
		"v=DKIM1; p=" + p[:100] + " \r\n\t" + p[100:],
		"v=DKIM1; n=made in spring; t=y:s; h=sha1:sha256; s=*; x-more=1; p=" + p,
		"v=DKIM1; s=tlsrpt:email; p=" + p,
	} {
		got, err := parsePayload(text)
		if err != nil {
			t.Errorf("%.60q: %v", text, err)
			continue
		}
		if got.Payload() != plain {
			t.Errorf("%.60q becomes %.60q", text, got.Payload())
		}
	}
	for text, want := range map[string]string{
		"":                                "no p= tag",
		"v=DKIM1; k=rsa":                  "no p= tag",
		"k=rsa; v=DKIM1; p=" + p:          "v= must be the first tag",
		"v=DKIM2; p=" + p:                 "want DKIM1",
		"v=DKIM1; p=" + p + "; p=" + p:    "tag p= twice",
		"v=DKIM1; k=dsa; p=" + p:          "k=dsa",
		"v=DKIM1; h=sha1; p=" + p:         "does not allow sha256",
		"v=DKIM1; s=tlsrpt; p=" + p:       "not for email",
		"v=DKIM1; p":                      "not tag=value",
		"v=DKIM1; p=%%%":                  "not base64",
		"v=DKIM1; p=" + p[:101]:           "not base64",
		"v=DKIM1; p=" + p[:100]:           "not an RSA public key",
		"v=DKIM1; k=ed25519; p=" + p:      "want 32",
		plain + strings.Repeat(" ", 2048): "at most 2048",
	} {
		_, err := parsePayload(text)
		if err == nil {
			t.Errorf("%.60q is read", text)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

// Section 3.6.1: "p= Public-key data ... An empty value means that this public
// key has been revoked."
func TestRFC6376EmptyPublicKeyIsRevoked(t *testing.T) {
	for _, text := range []string{RevokedPayload(RSA2048), RevokedPayload(Ed25519), "p=", "v=DKIM1; p= ;"} {
		if _, err := parsePayload(text); !errors.Is(err, errRevokedPayload) {
			t.Errorf("%q: %v, want revoked", text, err)
		}
	}
	if got, want := RevokedPayload(RSA2048), "v=DKIM1; k=rsa; p="; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := RevokedPayload(Ed25519), "v=DKIM1; k=ed25519; p="; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Erratum 3017 to section 3.6.1: the key is a SubjectPublicKeyInfo. The text says
// RSAPublicKey, and records of that form exist: both are read, one is written.
func TestRFC6376Erratum3017BothPublicKeyForms(t *testing.T) {
	p := generate(t, RSA2048)
	pkcs1 := base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(p.public.rsa))
	got, err := parsePayload("v=DKIM1; p=" + pkcs1)
	if err != nil {
		t.Fatal(err)
	}
	if got.Payload() != p.Payload() {
		t.Errorf("it becomes %.60q", got.Payload())
	}
}

// Section 3.3.3: "Signers MUST use RSA keys of at least 1024 bits"; RFC 8301
// section 3.2 says SHOULD 2048, verifiers up to 4096, and we hold to that.
func TestRFC6376KeySizes(t *testing.T) {
	for bits, ok := range map[int]bool{1024: false, 2048: true} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		public := Public{Algorithm: RSA2048, rsa: &key.PublicKey}
		if _, err := parsePayload(public.Payload()); (err == nil) != ok {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}

// Section 3.1: selector = sub-domain *( "." sub-domain ).
func TestRFC6376Selectors(t *testing.T) {
	for selector, ok := range map[string]bool{
		"s1": true, "2611-abc234": true, "march.2005": true, "under_score": true, strings.Repeat("a", 63): true,
		"": false, "S1": false, "a..b": false, ".a": false, "a.": false, "a b": false, "ü": false, "*": false,
		strings.Repeat("a", 64): false,
	} {
		if err := CheckSelector(selector); (err == nil) != ok {
			t.Errorf("%q: %v", selector, err)
		}
	}
}
