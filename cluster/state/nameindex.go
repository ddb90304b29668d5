package state

import (
	"strings"

	"authd/zone"
)

// claimNames has one X for each kind of names that claims have: an index, or a list of
// pairs to be indexed.
type claimNames[X any] struct {
	claims  X // what they claim
	signs   X // the names of SignsFor
	owned   X // what the proven delegated ones claim
	bound   X // the owner names that an admin bound to their targets
	reports X // the report authorisation names that their branches hold
}

func (c *claimNames[X]) kinds() [5]*X {
	return [...]*X{&c.claims, &c.signs, &c.owned, &c.bound, &c.reports}
}

// each walks the names of a claim.
func (c *claimNames[X]) each(d *Domain, do func(*X, zone.Name)) {
	do(&c.claims, d.Name)
	for _, n := range d.SignsFor {
		do(&c.signs, n)
	}
	if d.owns() {
		do(&c.owned, d.Name)
	}
	for _, n := range d.boundNames() {
		do(&c.bound, n)
	}
	for _, t := range d.Reports {
		do(&c.reports, t.Name)
	}
}

// nameIndex is a set of pairs of a name and a claim, in canonical order of the
// names and then of tokens. A pair is one text: the reversed name, an octet 0
// and the token's 16. No reversed label begins with 0, so that the pairs of a
// name come before those of all names below it, and both are one range.
type nameIndex struct {
	pairs table[string, struct{}]
}

const (
	atName    = "\x00" // behind a reversed name: its own pairs
	belowName = "\x01" // at or before the pairs of all names below it
)

func (x *nameIndex) fork(o *owner) nameIndex { return nameIndex{x.pairs.fork(o)} }

func pairOf(n zone.Name, t Token) string {
	var room [300]byte
	return string(append(append(n.AppendReverse(room[:0]), atName...), t[:]...))
}

// nameIn is the reversed name of a pair, and tokenIn its claim.
func nameIn(pair string) string { return strings.TrimSuffix(pair[:len(pair)-len(Token{})], atName) }
func tokenIn(pair string) Token { return tokenOf(pair[len(pair)-len(Token{}):]) }

func (x *nameIndex) add(n zone.Name, t Token) {
	x.pairs.Set(pairOf(n, t), struct{}{})
}

func (x *nameIndex) drop(n zone.Name, t Token) {
	x.pairs.Delete(pairOf(n, t))
}

// at lists the claims of exactly a name, in order of token.
func (x *nameIndex) at(n zone.Name) (list []Token) {
	prefix := n.Reverse() + atName
	x.pairs.Ascend(prefix, func(pair string, _ struct{}) bool {
		if !strings.HasPrefix(pair, prefix) {
			return false
		}
		list = append(list, tokenIn(pair))
		return true
	})
	return list
}

// in gives the first claim to a name or one below it.
func (x *nameIndex) in(n zone.Name) []Token {
	return x.first(n.Reverse(), n.Reverse())
}

// first gives the claim of the first pair from a key on that has a prefix.
func (x *nameIndex) first(from, prefix string) (list []Token) {
	x.pairs.Ascend(from, func(pair string, _ struct{}) bool {
		if strings.HasPrefix(pair, prefix) {
			list = []Token{tokenIn(pair)}
		}
		return false
	})
	return list
}

// afterSubtree is the first key behind all pairs of a name and the names below
// it: the 0 that ends its last label becomes 1.
func afterSubtree(n zone.Name) string {
	reversed := n.Reverse()
	return reversed[:len(reversed)-1] + "\x01"
}
