package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
)

func generate(t *testing.T, a Algorithm) *Pair {
	t.Helper()
	p, err := Generate(rand.Reader, a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPairSignsAndVerifiesAsAReceiverWould(t *testing.T) {
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		p := generate(t, a)
		if err := p.Check(); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestCheckFailsWhereHalvesDoNotMatch(t *testing.T) {
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		p, other := generate(t, a), generate(t, a)
		p.payload = other.payload
		if err := p.Check(); err == nil {
			t.Errorf("%s: a pair with another's public half passes", a)
		}
	}
}

func TestRestoreGivesTheSameKey(t *testing.T) {
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		p := generate(t, a)
		compact := p.Compact()
		again, err := Restore(p.Payload(), compact)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.PKCS8(), p.PKCS8()) {
			t.Errorf("%s: restored key differs", a)
		}
		if again.Seed() != p.Seed() || (p.Seed() == "") != (a == RSA2048) {
			t.Errorf("%s: seed %q, restored %q", a, p.Seed(), again.Seed())
		}
		if want := map[Algorithm]int{RSA2048: 128, Ed25519: 32}[a]; len(compact) != want {
			t.Errorf("%s: compact form has %d octets, want %d", a, len(compact), want)
		}
		if _, err := Restore(generate(t, a).Payload(), compact); err == nil {
			t.Errorf("%s: restored with another key's public half", a)
		}
		for _, broken := range [][]byte{nil, {0}, {1}, compact[1:], append(bytes.Clone(compact), 0)} {
			if _, err := Restore(p.Payload(), broken); err == nil {
				t.Errorf("%s: restored from a compact form of %d octets", a, len(broken))
			}
		}
	}
}

func TestPEMRoundTrip(t *testing.T) {
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		p := generate(t, a)
		texts := [][]byte{p.PKCS8(), append(p.PKCS8(), " \n\n"...)}
		if a == RSA2048 {
			texts = append(texts, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(p.reveal().rsa)}))
		}
		for _, text := range texts {
			again, err := ParsePEM(text)
			if err != nil {
				t.Fatal(err)
			}
			if again.Payload() != p.Payload() || !bytes.Equal(again.Compact(), p.Compact()) {
				t.Errorf("%s: PEM gives another key", a)
			}
		}
	}
}

func TestImportedKeyOf4096BitsSigns(t *testing.T) {
	p := pairOfBits(t, 4096)
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	if p.Algorithm() != RSA2048 || p.public.rsa.N.BitLen() != 4096 {
		t.Errorf("%s of %d bits", p.Algorithm(), p.public.rsa.N.BitLen())
	}
	again, err := Restore(p.Payload(), p.Compact())
	if err != nil {
		t.Fatal(err)
	}
	if again.Payload() != p.Payload() {
		t.Error("restored key differs")
	}
}

func pairOfBits(t *testing.T, bits int) *Pair {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePEM(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// pkcs1 encodes numbers that crypto/x509 would refuse to encode.
func pkcs1(t *testing.T, n, e, d, p, q *big.Int) []byte {
	t.Helper()
	one := big.NewInt(1)
	mod := func(x, m *big.Int) *big.Int {
		if m.Cmp(one) == 0 {
			return one
		}
		return new(big.Int).Mod(x, new(big.Int).Sub(m, one))
	}
	inverse := new(big.Int).ModInverse(q, p)
	if inverse == nil {
		inverse = one
	}
	der, err := asn1.Marshal(struct {
		Version                   int
		N, E, D, P, Q, DP, DQ, QI *big.Int
	}{0, n, e, d, p, q, mod(d, p), mod(d, q), inverse})
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der})
}

// fromPrimes is a key of chosen primes, valid but for what is wrong with them.
func fromPrimes(t *testing.T, p, q *big.Int) []byte {
	t.Helper()
	e, one := big.NewInt(65537), big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	d := new(big.Int).ModInverse(e, phi)
	if d == nil {
		d = one
	}
	return pkcs1(t, new(big.Int).Mul(p, q), e, d, p, q)
}

func prime(t *testing.T, bits int) *big.Int {
	t.Helper()
	p, err := rand.Prime(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// nextPrime is the first prime past n that a public exponent of 65537 fits.
func nextPrime(n *big.Int) *big.Int {
	p := new(big.Int).SetBit(n, 0, 1)
	for p.Add(p, big.NewInt(2)); !p.ProbablyPrime(10); {
		p.Add(p, big.NewInt(2))
	}
	return p
}

// rocaPrime is a prime as the defective generator made them: a power of 65537
// modulo the product of small primes.
func rocaPrime(t *testing.T, bits int) *big.Int {
	t.Helper()
	product := big.NewInt(2)
	for _, p := range rocaPrimes {
		product.Mul(product, big.NewInt(p))
	}
	p := new(big.Int).Exp(big.NewInt(65537), prime(t, 40), product)
	top := new(big.Int).Lsh(big.NewInt(3), uint(bits-2)) // two such make a modulus of twice the bits
	top.Add(top, new(big.Int).Lsh(prime(t, 256), uint(bits-512)))
	p.Add(p, top.Sub(top, new(big.Int).Mod(top, product)))
	for !p.ProbablyPrime(5) {
		p.Add(p, product)
	}
	return p
}

func TestWeakOrForeignPrivateKeysAreRefused(t *testing.T) {
	sound := generate(t, RSA2048).reveal().rsa
	other := generate(t, RSA2048).reveal().rsa
	p, q := sound.Primes[0], sound.Primes[1]
	n, e, d := sound.N, big.NewInt(65537), sound.D
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	good := pkcs1(t, n, e, d, p, q)
	composite := new(big.Int).Mul(prime(t, 513), prime(t, 512))
	for name, test := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":          {nil, "no PEM block"},
		"no PEM":           {[]byte("MIIEvQ"), "no PEM block"},
		"oversize":         {bytes.Repeat([]byte("a"), maxPEM+1), "at most 16384"},
		"two keys":         {append(bytes.Clone(good), good...), "one key alone"},
		"public key":       {block("PUBLIC KEY", []byte{1}), `PEM block is "PUBLIC KEY"`},
		"openssh":          {block("OPENSSH PRIVATE KEY", []byte{1}), `PEM block is "OPENSSH`},
		"encrypted PKCS 8": {block("ENCRYPTED PRIVATE KEY", []byte{1}), "decrypt it first"},
		"encrypted PKCS 1": {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY",
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte{1}}), "decrypt it first"},
		"elliptic curve":  {block("PRIVATE KEY", ecDER), "algorithm 1.2.840.10045.2.1, want RSA or Ed25519"},
		"garbage PKCS 8":  {block("PRIVATE KEY", []byte{1, 2, 3}), "PKCS #8"},
		"garbage PKCS 1":  {block("RSA PRIVATE KEY", []byte{0x30, 0}), "PKCS #1"},
		"1024 bits":       {fromPrimes(t, prime(t, 512), prime(t, 512)), "1024 bits, at least 2048"},
		"2047 bits":       {pkcs1(t, new(big.Int).SetBit(new(big.Int), 2046, 1), e, d, p, q), "2047 bits, at least 2048"},
		"4097 bits":       {pkcs1(t, new(big.Int).SetBit(new(big.Int), 4096, 1), e, d, p, q), "4097 bits, at most 4096"},
		"exponent 3":      {pkcs1(t, n, big.NewInt(3), d, p, q), "exponent 3, want an odd number from 65537"},
		"exponent even":   {pkcs1(t, n, big.NewInt(65538), d, p, q), "exponent 65538, want an odd number"},
		"exponent huge":   {pkcs1(t, n, new(big.Int).Lsh(e, 40), d, p, q), "want an odd number from 65537 to 2147483647"},
		"exponent minus":  {pkcs1(t, n, big.NewInt(-65537), d, p, q), "exponent -65537"},
		"modulus minus":   {pkcs1(t, new(big.Int).Neg(n), e, d, p, q), "rsa modulus of 2048 bits"},
		"even modulus":    {pkcs1(t, new(big.Int).SetBit(n, 0, 0), e, d, p, q), "modulus is even"},
		"small factor":    {pkcs1(t, new(big.Int).Mul(big.NewInt(1999), prime(t, 2040)), e, d, p, q), "divisible by 1999"},
		"primes equal":    {fromPrimes(t, p, p), "too close together"},
		"primes close":    {fromPrimes(t, p, nextPrime(p)), "too close together"},
		"other primes":    {pkcs1(t, n, e, d, other.Primes[0], other.Primes[1]), "do not multiply to the modulus"},
		"other exponent":  {pkcs1(t, n, e, other.D, p, q), "private exponent belongs to another key"},
		"prime and 1":     {pkcs1(t, n, e, d, n, big.NewInt(1)), "not prime"},
		"composite prime": {pkcs1(t, new(big.Int).Mul(composite, p), e, d, composite, p), "not prime"},
		"primes minus":    {pkcs1(t, n, e, d, new(big.Int).Neg(p), new(big.Int).Neg(q)), "do not multiply"},
		"infineon":        {fromPrimes(t, rocaPrime(t, 1024), rocaPrime(t, 1024)), "ROCA"},
		"short ed25519":   {block("PRIVATE KEY", shortEd25519(t)), "ed25519 seed of 31 octets"},
		"trailing octets": {block("PRIVATE KEY", append(bytes.Clone(ecDER), 0)), "1 octets too many"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePEM(test.text)
			if err == nil {
				t.Fatal("it was read")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("refused with %q, want %q", err, test.want)
			}
		})
	}
	if _, err := ParsePEM(good); err != nil {
		t.Errorf("the sound key was refused: %v", err)
	}
}

func shortEd25519(t *testing.T) []byte {
	t.Helper()
	seed, err := asn1.Marshal(make([]byte, 31))
	if err != nil {
		t.Fatal(err)
	}
	der, err := asn1.Marshal(struct {
		Version    int
		Algorithm  struct{ OID asn1.ObjectIdentifier }
		PrivateKey []byte
	}{0, struct{ OID asn1.ObjectIdentifier }{oidEd25519}, seed})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// holder hides a pair where fmt cannot call its methods.
type holder struct {
	Named  *Pair
	Value  Pair
	hidden Pair
	keeper Keeper
}

func TestPrivateHalvesNeverPrint(t *testing.T) {
	var wrapKey [wrapKeySize]byte
	if _, err := rand.Read(wrapKey[:]); err != nil {
		t.Fatal(err)
	}
	keeper := NewMemoryKeeper(wrapKey)
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		p := generate(t, a)
		var secrets []string
		forms := [][]byte{p.Compact(), wrapKey[:]}
		if a == RSA2048 {
			forms = append(forms, p.reveal().rsa.D.Bytes(), p.reveal().rsa.Primes[1].Bytes())
		}
		for _, b := range forms {
			list := fmt.Sprint(b)
			secrets = append(secrets, hex.EncodeToString(b), new(big.Int).SetBytes(b).String(), list[1:len(list)-1],
				base64.StdEncoding.EncodeToString(b)[:40], strings.Trim(fmt.Sprintf("%#v", b), "[]byte{}")[:40], string(b))
		}
		var out bytes.Buffer
		for _, value := range []any{p, *p, holder{p, *p, *p, keeper}, &holder{p, *p, *p, keeper}, []*Pair{p}, map[string]Pair{"p": *p}, keeper} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p"} {
				fmt.Fprintf(&out, verb+"\n", value)
			}
			for _, logger := range []*slog.Logger{slog.New(slog.NewTextHandler(&out, nil)), slog.New(slog.NewJSONHandler(&out, nil))} {
				logger.Info("a pair", "pair", value)
			}
			text, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			out.Write(text)
		}
		if !strings.Contains(out.String(), p.Payload()) {
			t.Errorf("%s: not even the public half is printed", a)
		}
		for _, secret := range secrets {
			if strings.Contains(out.String(), secret) || strings.Contains(out.String(), strings.ToUpper(secret)) {
				t.Errorf("%s: the private half is printed: %.20q…", a, secret)
			}
		}
	}
}

func TestAlgorithmsAreNamedAsInTheAPI(t *testing.T) {
	for _, a := range []Algorithm{RSA2048, Ed25519} {
		got, err := ParseAlgorithm(a.String())
		if err != nil || got != a {
			t.Errorf("%s is read as %s, %v", a, got, err)
		}
	}
	for _, text := range []string{"", "rsa", "RSA2048", "rsa1024", "ed448"} {
		if a, err := ParseAlgorithm(text); err == nil {
			t.Errorf("%q is read as %s", text, a)
		}
	}
	if _, err := Generate(rand.Reader, 7); err == nil {
		t.Error("algorithm 7 is generated")
	}
}

func TestEd25519IsMadeFromTheRandomSourceGiven(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	p, err := Generate(bytes.NewReader(seed), Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.Compact(), seed) {
		t.Error("the seed is another")
	}
	if _, err := Generate(bytes.NewReader(seed[1:]), Ed25519); err == nil {
		t.Error("a source that ends early gives a key")
	}
}

// TestPairOfAnotherNodeIsAdmittedOnlyWhole: what no mill of ours makes is refused,
// even where its halves match.
func TestPairOfAnotherNodeIsAdmittedOnlyWhole(t *testing.T) {
	good, other := generate(t, RSA2048), generate(t, RSA2048)
	if p, err := Admit(good.Payload(), good.Compact()); err != nil || !bytes.Equal(p.Compact(), good.Compact()) {
		t.Fatal(err)
	}
	of := func(p, q *big.Int) (string, []byte) {
		public := Public{Algorithm: RSA2048, rsa: &rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537}}
		return public.Payload(), p.Bytes()
	}
	prime := func(bits int) *big.Int {
		p, err := rand.Prime(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := good.reveal().rsa.Primes[0]
	near := new(big.Int).Add(p, big.NewInt(2))
	for !near.ProbablyPrime(0) {
		near.Add(near, big.NewInt(2))
	}
	type half struct {
		payload string
		compact []byte
	}
	joinHalf := func(payload string, compact []byte) half { return half{payload, compact} }
	ed := generate(t, Ed25519)
	for name, h := range map[string]half{
		"halves that do not match": {good.Payload(), other.Compact()},
		"primes close together":    joinHalf(of(p, near)),
		"a longer key":             joinHalf(of(prime(1100), prime(1100))),
		"a shorter key":            joinHalf(of(prime(900), prime(900))),
		"three primes":             joinHalf(of(p, new(big.Int).Mul(prime(512), prime(512)))),
		"Ed25519":                  {ed.Payload(), ed.Compact()},
		"no private half":          {good.Payload(), nil},
		"another form":             {good.Payload() + ";", good.Compact()},
	} {
		if _, err := Admit(h.payload, h.compact); err == nil {
			t.Errorf("%s: admitted", name)
		}
	}
}

func TestKeysOfManyPrimesAndHugeExponentsAreRefused(t *testing.T) {
	var key pkcs1Key
	block, _ := pem.Decode(fromPrimes(t, big.NewInt(65539), big.NewInt(65543)))
	if err := unmarshalAll(block.Bytes, &key); err != nil {
		t.Fatal(err)
	}
	key.Version = 1
	der, err := asn1.Marshal(struct {
		Version                   int
		N, E, D, P, Q, DP, DQ, QI *big.Int
	}{1, key.N, key.E, key.D, key.P, key.Q, key.DP, key.DQ, key.Coefficient})
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der})
	if _, err := ParsePEM(text); err == nil || !strings.Contains(err.Error(), "more than two primes") {
		t.Errorf("%v", err)
	}
	n := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 2048), big.NewInt(1))
	if err := checkRSAPublic(n, big.NewInt(maxRSAExponent+2)); err == nil || !strings.Contains(err.Error(), "exponent") {
		t.Errorf("%v", err)
	}
}
