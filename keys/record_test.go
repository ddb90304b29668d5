package keys

import (
	"encoding/pem"
	"strings"
	"testing"
)

func TestKeyRecordsUpToTheBoundAreRead(t *testing.T) {
	record := generate(t, Ed25519).Payload() + "; n="
	for length, ok := range map[int]bool{maxPayload: true, maxPayload + 1: false} {
		if _, err := parsePayload(record + strings.Repeat("x", length-len(record))); (err == nil) != ok {
			t.Errorf("%d octets: %v", length, err)
		}
	}
}

func TestPublicHalvesAreRefusedWhereTheyAreNotOne(t *testing.T) {
	public := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}))
	for name, c := range map[string]struct{ text, says string }{
		"a private key":   {string(generate(t, Ed25519).PKCS8()), "it is a private key"},
		"two keys":        {public + public, "more text"},
		"too long":        {strings.Repeat("A", maxPEM+1), "octets, at most"},
		"another PEM":     {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})), "want PUBLIC KEY"},
		"nothing":         {" \n", "empty"},
		"neither of them": {"hello!", "neither"},
	} {
		if _, err := ParsePublic(c.text); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want …%s…", name, err, c.says)
		}
	}
}
