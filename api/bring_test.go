package api

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"net/http"
	"strings"
	"testing"

	"authd/cluster/state"
	"authd/keys"
	"authd/keys/keystest"
)

// foreignRSA is an RSA key of two primes as PKCS #1, sound or not.
type foreignRSA struct {
	Version                   int
	N, E, D, P, Q, DP, DQ, QI *big.Int
}

func ofPrimes(p, q *big.Int, e int64) foreignRSA {
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(big.NewInt(e), phi)
	if d == nil {
		d = one
	}
	return foreignRSA{N: new(big.Int).Mul(p, q), E: big.NewInt(e), D: d, P: p, Q: q, DP: one, DQ: one, QI: one}
}

func pemOf(t *testing.T, kind string, der []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func (k foreignRSA) pem(t *testing.T) string {
	t.Helper()
	der, err := asn1.Marshal(k)
	return pemOf(t, "RSA PRIVATE KEY", der, err)
}

func soundRSA(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// badKeys are keys that nobody should sign with, or that are none, each with a
// word of what is said about it.
func badKeys(t *testing.T) map[string][2]string {
	t.Helper()
	sound, other := soundRSA(t, 2048), soundRSA(t, 2048)
	p, q := sound.Primes[0], sound.Primes[1]
	whole := ofPrimes(p, q, 65537)
	mixed := whole
	mixed.D = other.D
	halves := whole
	halves.N = other.N
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	ecPEM := pemOf(t, "PRIVATE KEY", ecDER, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := x509.MarshalPKCS8PrivateKey(ed)
	shortDER := append([]byte(nil), edDER[:len(edDER)-1]...) // one octet of seed less, all lengths right
	shortDER[1]--
	shortDER[13]--
	shortDER[15]--
	publicDER, publicErr := x509.MarshalPKIXPublicKey(&sound.PublicKey)
	huge := new(big.Int).Lsh(new(big.Int).Mul(sound.N, other.N), 16384-4096)
	huge.SetBit(huge, 0, 1)
	next := new(big.Int).Add(p, big.NewInt(2))
	for !next.ProbablyPrime(4) {
		next.Add(next, big.NewInt(2))
	}
	composite := new(big.Int).Mul(soundRSA(t, 1024).Primes[0], soundRSA(t, 1024).Primes[1])
	return map[string][2]string{
		"RSA of 1024 bits":          {ofPrimes(soundRSA(t, 1024).Primes[0], soundRSA(t, 1024).Primes[1], 65537).pem(t), "1024 bits"},
		"RSA of 1536 bits":          {ofPrimes(soundRSA(t, 1536).Primes[0], soundRSA(t, 1536).Primes[1], 65537).pem(t), "1536 bits"},
		"RSA of 16384 bits":         {foreignRSA{N: huge, E: whole.E, D: whole.D, P: p, Q: q, DP: p, DQ: p, QI: p}.pem(t), "at most 4096"},
		"an encrypted key":          {pemOf(t, "ENCRYPTED PRIVATE KEY", edDER, err), "decrypt"},
		"a key encrypted as of old": {strings.Replace(whole.pem(t), "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n", 1), "decrypt"},
		"a public half":             {pemOf(t, "PUBLIC KEY", publicDER, publicErr), "PUBLIC KEY"},
		"primes of another modulus": {halves.pem(t), "do not match"},
		"an exponent of another":    {mixed.pem(t), "another key"},
		"e = 1":                     {ofPrimes(p, q, 1).pem(t), "exponent 1"},
		"e = 3":                     {ofPrimes(p, q, 3).pem(t), "exponent 3"},
		"an even e":                 {ofPrimes(p, q, 65538).pem(t), "exponent 65538"},
		"p = q":                     {ofPrimes(p, p, 65537).pem(t), "too close"},
		"primes side by side":       {ofPrimes(p, next, 65537).pem(t), "too close"},
		"a factor that is no prime": {ofPrimes(composite, p, 65537).pem(t), "not prime"},
		"a small factor":            {ofPrimes(big.NewInt(3), new(big.Int).Mul(p, q), 65537).pem(t), "divisible by 3"},
		"EC P-256":                  {ecPEM, "RSA or Ed25519"},
		"a short Ed25519 seed":      {pemOf(t, "PRIVATE KEY", shortDER, err), "31"},
		"two keys":                  {whole.pem(t) + whole.pem(t), "one key alone"},
		"text behind the key":       {whole.pem(t) + "garbage", "one key alone"},
		"no key":                    {"  \n", "want private_key"},
		"no PEM":                    {"MIIEvQ", "no PEM block"},
		"half of a key":             {whole.pem(t)[:400], "no PEM block"},
		"more than a key can be":    {strings.Repeat("A", 17<<10), ""},
	}
}

func TestBadKeysAreRefusedAndChangeNothing(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	foreignTenant := h.claim("globex", "send.other.example", "delegated")
	before := h.image()
	for name, c := range badKeys(t) {
		a := h.ask("POST", "/v1/domains/"+d.Token+"/keys", jsonText(t, map[string]string{"private_key": c[0]}))
		if a.Code != http.StatusUnprocessableEntity || a.problem.Field != "private_key" || !strings.Contains(a.problem.Detail, c[1]) {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
		if len(c[0]) > 100 && strings.Contains(a.Body.String(), c[0][60:90]) {
			t.Errorf("%s: the key is repeated: %s", name, a.Body)
		}
		if name == "a public half" || c[1] == "" {
			continue
		}
		// Nor do they pass for public halves.
		if a := h.ask("POST", "/v1/domains/"+d.Token+"/keys", jsonText(t, map[string]string{"public": c[0], "selector": "s"})); a.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s as a public half: %d %s", name, a.Code, a.Body)
		}
	}
	for name, c := range map[string]struct {
		body  map[string]string
		code  int
		field string
	}{
		"both halves":                 {map[string]string{"private_key": "x", "public": "x"}, 422, "private_key"},
		"a public half nowhere":       {map[string]string{"public": d.Keys[0].Public}, 422, "selector"},
		"a selector that is none":     {map[string]string{"public": d.Keys[0].Public, "selector": "No"}, 422, "selector"},
		"a revoked record":            {map[string]string{"public": "v=DKIM1; k=rsa; p=", "selector": "s"}, 422, "public"},
		"a key that the domain has":   {map[string]string{"public": d.Keys[0].Public, "selector": "s"}, 409, "key"},
		"a key that another's has":    {map[string]string{"public": foreignTenant.Keys[0].Public, "selector": "s"}, 409, "keys"},
		"a selector that is in use":   {map[string]string{"public": somePublic(), "selector": d.Keys[0].Selector}, 422, "key"},
		"an algorithm of other pools": {map[string]string{"public": mustEd(t), "selector": "s"}, 422, "key"},
	} {
		a := h.ask("POST", "/v1/domains/"+d.Token+"/keys", jsonText(t, c.body))
		if a.Code != c.code || a.problem.Field != c.field {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
	}
	if string(before) != string(h.image()) {
		t.Error("a refusal changed something")
	}
	if a := h.as("read", "POST", "/v1/domains/"+d.Token+"/keys", `{}`); a.Code != http.StatusForbidden {
		t.Errorf("a reader brings a key: %d", a.Code)
	}
}

func somePublic() string { return keystest.Pair(keystest.Count - 1).Payload() }

func mustEd(t *testing.T) string {
	t.Helper()
	p, err := keys.Generate(rand.Reader, keys.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return p.Payload()
}

// TestKeyBroughtLaterSignsAfterARotation: it becomes the standby, and after a rotation signers get
// the very key that was brought.
func TestKeyBroughtLaterSignsAfterARotation(t *testing.T) {
	for _, mode := range []string{"delegated", "cname"} {
		t.Run(mode, func(t *testing.T) {
			h := newHouse(t)
			d := h.claim("acme", "send.customer.example", mode)
			if mode == "delegated" {
				h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/attest", `{"reason":"x"}`)
			}
			mine := keystest.Pair(keystest.Count - 1)
			a := h.must(http.StatusCreated, "POST", "/v1/domains/"+d.Token+"/keys",
				jsonText(t, map[string]string{"private_key": string(mine.PKCS8()), "reason": "moving in"}))
			got := read[Domain](h, a)
			var key Key
			for _, k := range got.Keys {
				if k.Public == mine.Payload() {
					key = k
				}
			}
			if key.Stage != "standby" || !key.Imported || key.ReadyAt != nil {
				t.Fatalf("%+v", key)
			}
			h.confirm(d.Token)
			h.at += keys.TTLShort + keys.TTLStretch
			h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/rotate", "")
			doc := read[Secret](h, h.must(http.StatusOK, "GET", "/v1/dkim/"+got.Domain, ""))
			if doc.Data.Key != PrivateText(mine.PKCS8()) || doc.Data.Selector != key.Selector {
				t.Errorf("signers get %s", doc.Data.Selector)
			}
		})
	}
}

func TestPublicOnlyKeyIsPublishedAndNeverHandedOut(t *testing.T) {
	h := newHouse(t)
	d := h.claim("acme", "customer.example", "cname")
	der, err := x509.MarshalPKIXPublicKey(keystest.Pair(keystest.Count - 1).Signer().Public())
	text := pemOf(t, "PUBLIC KEY", der, err)
	got := read[Domain](h, h.must(http.StatusCreated, "POST", "/v1/domains/"+d.Token+"/keys", jsonText(t, map[string]string{"public": text})))
	if !strings.Contains(got.Suspended, "k3 is public-only") {
		t.Errorf("the domain page says %q", got.Suspended)
	}
	token, _ := state.ParseToken(d.Token)
	claim, _ := h.Machine().Domain(token)
	served := false
	for _, set := range h.Machine().Served(claim) {
		for _, data := range set.Data {
			served = served || strings.Contains(strings.ReplaceAll(string(data), "\xff", ""), somePublic()[60:120])
		}
	}
	if !served {
		t.Error("its record is not answered")
	}
	given := read[Secret](h, h.must(http.StatusOK, "GET", "/v1/dkim/customer.example", "")).Data.Selectors
	if len(given) != 1 || given[0].Selector == "k3" {
		t.Errorf("handed out: %+v", given)
	}
	after := read[Domain](h, h.must(http.StatusOK, "POST", "/v1/domains/"+d.Token+"/keys/k3/revoke", `{"reason":"done"}`))
	if after.Suspended != "" {
		t.Errorf("revoked, and still %q", after.Suspended)
	}
}

// TestBroughtKeyIsSealedAnewWhenAStepTookItsPlace: the first try was sealed for a
// key number that the rotator used meanwhile.
func TestBroughtKeyIsSealedAnewWhenAStepTookItsPlace(t *testing.T) {
	h := newHouse(t)
	d := h.live("acme", "send.customer.example")
	mine := keystest.Pair(keystest.Count - 1)
	token, _ := state.ParseToken(d.Token)
	claim, _ := h.Machine().Domain(token)
	h.between = state.BringKey{Token: token, Material: keys.Material{Algorithm: keys.RSA2048, Selector: "between", Payload: keystest.Pair(keystest.Count - 2).Payload(), PublicOnly: true, Imported: true}}
	h.must(http.StatusCreated, "POST", "/v1/domains/"+d.Token+"/keys", jsonText(t, map[string]string{"private_key": string(mine.PKCS8())}))
	now, _ := h.Machine().Domain(token)
	if len(now.Ring().Keys) != len(claim.Ring().Keys)+2 {
		t.Errorf("%d keys", len(now.Ring().Keys))
	}
}
