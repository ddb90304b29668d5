package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"authd/cluster/state"
	"authd/keys"
)

// NewToken draws a claim's token.
func (n *Node) NewToken() (state.Token, error) {
	var t state.Token
	if _, err := io.ReadFull(n.c.Random, t[:]); err != nil {
		return t, fmt.Errorf("drawing token: %w", err)
	}
	m := n.Machine()
	if _, used := m.Domain(t); used || m.Tombstoned(t) {
		return t, errors.New("drawing token: drew one that is in use; the source of entropy is broken")
	}
	return t, nil
}

// ClaimKeys makes the first keys of a new claim: an active one for each
// algorithm, waiting for the source, and a standby for each where the source has
// one ready. A standby that comes with the claim needs no ready time, because
// its name was never answered before.
func (n *Node) ClaimKeys(ctx context.Context, t state.Token, mode keys.RingMode, algorithms []keys.Algorithm) (active, standby []keys.Material, err error) {
	id := uint32(1) // keys.Start counts through active, then standby
	for _, a := range algorithms {
		p, err := n.c.Source.Take(ctx, a)
		if err != nil {
			return nil, nil, fmt.Errorf("taking a key of %s: %w", a, err)
		}
		m, err := n.seal(t, firstPlace(mode, id, a, 1), p)
		if err != nil {
			return nil, nil, err
		}
		active, id = append(active, m), id+1
	}
	for _, a := range algorithms {
		p, ok := n.c.Source.TryTake(a)
		if !ok {
			continue
		}
		m, err := n.seal(t, firstPlace(mode, id, a, 2), p)
		if err != nil {
			return nil, nil, err
		}
		standby, id = append(standby, m), id+1
	}
	return active, standby, nil
}

// firstPlace is where keys.Start puts a key of a new ring.
func firstPlace(mode keys.RingMode, id uint32, a keys.Algorithm, slot uint8) keys.Place {
	p := keys.Place{ID: id}
	if mode == keys.Slots {
		p.Selector = keys.SlotLabel(a, slot)
	}
	return p
}

// Materials makes sealed key material for a claim, a key of each algorithm, to be
// put into its ring by one command in that order: takes checked pairs from the
// source, mints selectors (in minted mode) and seals for the next places in the
// ring as it is now.
func (n *Node) Materials(ctx context.Context, t state.Token, algorithms []keys.Algorithm) ([]keys.Material, error) {
	d, ok := n.Machine().Domain(t)
	if !ok {
		return nil, fmt.Errorf("making keys: no claim %s", t)
	}
	ring := d.Ring()
	at := n.c.Now().Unix()
	list := make([]keys.Material, len(algorithms))
	for i, a := range algorithms {
		place, err := ring.Place(a, max(at, n.Machine().Time()))
		if err != nil {
			return nil, fmt.Errorf("finding a place for a key of %s: %w", a, err)
		}
		place.ID += uint32(i)
		p, err := n.c.Source.Take(ctx, a)
		if err != nil {
			return nil, fmt.Errorf("taking a key of %s: %w", a, err)
		}
		if list[i], err = n.seal(t, place, p); err != nil {
			return nil, err
		}
		list[i].Maker = cmp.Or(p.Maker(), n.c.ID)
	}
	return list, nil
}

// Import makes sealed key material from a pair that the operator brings with a
// new claim, as its id-th key counted from 1. In slots mode selector is the slot.
func (n *Node) Import(t state.Token, id uint32, selector string, p *keys.Pair) (keys.Material, error) {
	if err := p.Check(); err != nil {
		return keys.Material{}, fmt.Errorf("checking the key of selector %q: %w", selector, err)
	}
	m, err := n.seal(t, keys.Place{ID: id, Selector: selector}, p)
	m.Imported = true
	return m, err
}

// seal seals a pair for a place, minting its selector where the place has none.
// Pairs of a keys.Source were checked by signing already.
func (n *Node) seal(t state.Token, place keys.Place, p *keys.Pair) (keys.Material, error) {
	var err error
	if place.Selector == "" {
		if place.Selector, err = keys.MintSelector(n.c.Random, n.c.Now()); err != nil {
			return keys.Material{}, err
		}
	}
	sealed, err := n.c.Keeper.SealUnder(n.c.Random, n.wrapVersion(), keys.Binding{Token: t.String(), Selector: place.Selector, KeyID: place.ID}, p.Compact())
	if err != nil {
		return keys.Material{}, fmt.Errorf("sealing key %q: %w", place.Selector, err)
	}
	return keys.Material{
		Algorithm: p.Algorithm(), Selector: place.Selector, ID: place.ID,
		Sealed: sealed, Payload: p.Payload(),
	}, nil
}

// OpenKey opens the sealed half of a key for a signer.
func (n *Node) OpenKey(d *state.Domain, k keys.Key) (*keys.Pair, error) {
	if k.PublicOnly {
		return nil, fmt.Errorf("opening key %q: its private half is kept elsewhere", k.Selector)
	}
	compact, err := n.c.Keeper.Open(keys.Binding{Token: d.Token.String(), Selector: k.Selector, KeyID: k.ID}, k.Sealed)
	if err != nil {
		return nil, fmt.Errorf("opening key %q: %w", k.Selector, err)
	}
	p, err := keys.Restore(k.Payload, compact)
	if err != nil {
		return nil, fmt.Errorf("opening key %q: %w", k.Selector, err)
	}
	return p, nil
}
