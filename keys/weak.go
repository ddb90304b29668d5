package keys

import (
	"errors"
	"fmt"
	"math/big"
)

// smallFactorBound is up to where a modulus is divided by every prime: broken
// generators leave small factors, and the trial costs microseconds.
const smallFactorBound = 2000

// checkRSAPublic refuses public halves that are known to be weak.
func checkRSAPublic(n, e *big.Int) error {
	if n.Sign() <= 0 || n.BitLen() < minRSABits {
		return fmt.Errorf("rsa modulus of %d bits, at least %d wanted", n.BitLen(), minRSABits)
	}
	if n.BitLen() > maxRSABits {
		return fmt.Errorf("rsa modulus of %d bits, at most %d wanted", n.BitLen(), maxRSABits)
	}
	if e.Cmp(big.NewInt(minRSAExponent)) < 0 || e.Cmp(big.NewInt(maxRSAExponent)) > 0 || e.Bit(0) == 0 {
		return fmt.Errorf("rsa public exponent %s, want an odd number from %d to %d", clip(e.String()), minRSAExponent, maxRSAExponent)
	}
	if n.Bit(0) == 0 {
		return errors.New("rsa modulus is even")
	}
	if f := smallFactor(n); f != 0 {
		return fmt.Errorf("rsa modulus is divisible by %d", f)
	}
	if rocaShaped(n) {
		return errors.New("rsa modulus has the shape of the ROCA defect (CVE-2017-15361): make a new key")
	}
	return nil
}

// smallFactor finds an odd divisor below the bound; 0 where there is none.
func smallFactor(n *big.Int) uint64 {
	var rest, divisor big.Int
	for f := uint64(3); f < smallFactorBound; {
		// One long division serves as many divisors as fit a word. Composite
		// odd numbers are tried too: simpler than a table of primes, and they
		// never divide where their factors did not.
		first, product := f, uint64(1)
		for f < smallFactorBound && product < 1<<52 {
			product *= f
			f += 2
		}
		left := rest.Mod(n, divisor.SetUint64(product)).Uint64()
		for ; first < f; first += 2 {
			if left%first == 0 {
				return first
			}
		}
	}
	return 0
}

// rocaPrimes are the primes whose residues tell Infineon's broken generator
// apart: it makes moduli that are powers of 65537 modulo each of them (Nemec et
// al., The Return of Coppersmith's Attack, 2017). A sound modulus passes all
// with a chance below 2^-27.
var rocaPrimes = [...]int64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73,
	79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

func rocaShaped(n *big.Int) bool {
	var rest big.Int
	for _, p := range rocaPrimes {
		if !powerOf65537(rest.Mod(n, big.NewInt(p)).Int64(), p) {
			return false
		}
	}
	return true
}

func powerOf65537(residue, p int64) bool {
	power := int64(1)
	for range p { // the powers repeat after at most p-1
		if power == residue {
			return true
		}
		power = power * (65537 % p) % p
	}
	return false
}

// checkRSAPrivate refuses halves that do not match and primes that are not, or
// that lie so close together that Fermat's method finds them.
func checkRSAPrivate(n, p, q *big.Int, isPrime func(*big.Int) bool) error {
	if p.Sign() <= 0 || q.Sign() <= 0 || new(big.Int).Mul(p, q).Cmp(n) != 0 {
		return errors.New("rsa halves do not match: the primes do not multiply to the modulus")
	}
	// FIPS 186-5 appendix A.1.3 step 5.4: |p - q| > 2^(bits/2 - 100).
	gap := new(big.Int).Sub(p, q)
	if gap.CmpAbs(new(big.Int).Lsh(big.NewInt(1), uint(n.BitLen()/2-100))) <= 0 {
		return errors.New("rsa primes are too close together, so that the key is easily factored: make a new key")
	}
	for _, prime := range []*big.Int{p, q} {
		if !isPrime(prime) {
			return errors.New("rsa prime is not prime")
		}
	}
	return nil
}

// strangersPrime tests a number that anybody may have chosen for primality.
func strangersPrime(p *big.Int) bool { return p.ProbablyPrime(4) }

// ownPrime tests a number from a mill of ours, in a twentieth of the time: Fermat's test
// to the base 2 finds what a broken mill makes, if not what an attacker constructs.
func ownPrime(p *big.Int) bool {
	return new(big.Int).Exp(big.NewInt(2), new(big.Int).Sub(p, big.NewInt(1)), p).Cmp(big.NewInt(1)) == 0
}

// checkPoint refuses what is no point of the curve (RFC 8032 section 5.1.3) and
// the points of small order, under which anybody can sign.
func checkPoint(key []byte) error {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	little := make([]byte, len(key))
	for i, b := range key {
		little[len(key)-1-i] = b
	}
	little[0] &= 0x7f // the sign of x
	y := new(big.Int).SetBytes(little)
	if y.Cmp(p) >= 0 {
		return errors.New("ed25519 key is not in its shortest form")
	}
	// x² = (y² - 1) / (d·y² + 1), with d = -121665/121666.
	one := big.NewInt(1)
	d := new(big.Int).ModInverse(big.NewInt(121666), p)
	d.Mul(d, big.NewInt(-121665)).Mod(d, p)
	yy := new(big.Int).Mul(y, y)
	u := new(big.Int).Sub(yy, one)
	u.Mod(u, p)
	v := new(big.Int).Mul(d, yy)
	v.Add(v, one).Mod(v, p)
	xx := new(big.Int).Mul(u, v.ModInverse(v, p))
	xx.Mod(xx, p)
	if big.Jacobi(xx, p) < 0 {
		return errors.New("ed25519 key is not a point of the curve")
	}
	if smallOrder(d, xx, yy, p) {
		return errors.New("ed25519 key has small order")
	}
	return nil
}

// smallOrder says whether eight times a point is the neutral element, given the
// squares of its coordinates: three doublings, each of which needs squares only.
func smallOrder(d, xx, yy, p *big.Int) bool {
	one := big.NewInt(1)
	for range 3 {
		if yy.Cmp(one) == 0 && xx.Sign() == 0 {
			return true // order 1 or 2
		}
		// On -x² + y² = 1 + d·x²·y²: x' = 2xy/(1+dx²y²), y' = (y²+x²)/(1-dx²y²).
		product := new(big.Int).Mul(xx, yy)
		product.Mod(product, p)
		term := new(big.Int).Mul(d, product)
		plus := new(big.Int).Add(one, term)
		minus := new(big.Int).Sub(one, term)
		plus.ModInverse(plus.Mod(plus, p), p)
		minus.ModInverse(minus.Mod(minus, p), p)
		sum := new(big.Int).Add(xx, yy)
		nextX := new(big.Int).Mul(product, big.NewInt(4))
		nextX.Mul(nextX, plus).Mul(nextX, plus).Mod(nextX, p)
		nextY := sum.Mul(sum, minus)
		nextY.Mul(nextY, nextY).Mod(nextY, p)
		xx, yy = nextX, nextY
	}
	return yy.Cmp(one) == 0 && xx.Sign() == 0
}
