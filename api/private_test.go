package api

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"authd/cluster"
	"authd/keys"
	"authd/keys/keystest"
)

// TestSecretsAreNeverPrintedNorLogged: every type that holds a private half, a
// key-encryption key or the text of a token, whatever it is printed with. Bodies
// of requests and replies carry theirs in JSON, since that is how they travel.
func TestSecretsAreNeverPrintedNorLogged(t *testing.T) {
	pair := keystest.Pair(0)
	wrap := [32]byte{}
	_, _ = rand.Read(wrap[:])
	file := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(file, []byte("1 "+base64.StdEncoding.EncodeToString(wrap[:])+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := keys.OpenKeeper(file)
	if err != nil {
		t.Fatal(err)
	}
	join := cluster.JoinToken{ID: "node-4", Secret: [20]byte(wrap[:20])}
	pem := PrivateText(pair.PKCS8())
	secret := PrivateText("authd_" + base64.RawURLEncoding.EncodeToString(wrap[:]))
	for name, c := range map[string]struct {
		value   any
		travels bool
	}{
		"a pair":             {pair, false},
		"a pair by value":    {*pair, false},
		"pairs":              {map[string]*keys.Pair{"k1": pair}, false},
		"a keeper in memory": {keys.NewMemoryKeeper(wrap), false},
		"a keeper of a file": {opened, false},
		"a join token":       {join, false},
		"join tokens":        {[]cluster.JoinToken{join}, false},
		"a secret":           {secret, true},
		"a claim's key":      {NewDomain{Keys: []NewKey{{PrivateKey: pem}}}, true},
		"a key to bring":     {BroughtKey{PrivateKey: pem}, true},
		"an import":          {ImportItem{NewDomain: NewDomain{Keys: []NewKey{{PrivateKey: pem}}}}, true},
		"a signing document": {Secret{Data: Signing{Key: pem, Selectors: []SigningKey{{Key: pem}}}}, true},
		"a key's document":   {KeyDocument{SigningKey: SigningKey{Key: pem}}, true},
		"a key on its way":   {released{SigningKey{Key: pem}, pem}, true},
		"a CA":               {NewAuthority{Key: pem}, true},
		"a token":            {MadeToken{Token: secret}, true},
		"an invitation":      {MadeInvitation{Token: PrivateText(join.Text())}, true},
	} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			fmt.Fprintf(&out, verb+"\n", c.value)
		}
		slog.New(slog.NewTextHandler(&out, nil)).With("with", c.value).Info("it", "value", c.value, slog.Group("in", "value", c.value))
		fmt.Fprintln(&out, fmt.Errorf("with %v: %w", c.value, fmt.Errorf("about %s", c.value)))
		if text, err := json.Marshal(c.value); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !c.travels {
			slog.New(slog.NewJSONHandler(&out, nil)).With("with", c.value).Info("it", "value", c.value)
			out.Write(text)
		} else if held := bytes.Contains(text, []byte("PRIVATE KEY")) || bytes.Contains(text, []byte("authd_")); !held {
			t.Errorf("%s does not travel: %.80s", name, text)
		}
		for _, secret := range append(forms(pair.Compact()), append(forms(wrap[:20]), string(pem[60:100]), string(secret[10:40]))...) {
			if strings.Contains(out.String(), secret) || strings.Contains(strings.ToLower(out.String()), hex.EncodeToString([]byte(secret))) {
				t.Errorf("%s shows its secret as %.20q…", name, secret)
			}
		}
	}
}

// forms are the ways in which octets may be printed.
func forms(b []byte) []string {
	list := fmt.Sprint(b)
	return []string{
		string(b), hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), new(big.Int).SetBytes(b).String(), list[1 : len(list)-1],
		base64.StdEncoding.EncodeToString(b)[:20], strings.Trim(fmt.Sprintf("%#v", b), "[]byte{}")[:40],
	}
}
