package cluster

import (
	"bytes"
	"slices"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

// A rotation of the key-encryption key is a version that the machine holds and a
// count of the private halves that are not sealed under it yet. Both outlive any
// leader, so that it goes on by itself until none is left.

const (
	// wrapWalk is how many claims one look at the machine covers, at some
	// microseconds each.
	wrapWalk = 5000
	// wrapPause is the rest after a batch that was not taken.
	wrapPause = time.Second
	// oldPart is how much of a sealed half tells it apart: version and nonce.
	oldPart = 14
)

// wrapVersion is what this node seals private halves under. A version that was
// only added to a node's file is not used before the cluster is told to: other
// nodes may not hold it. Where none was ever chosen it is the one in use.
func (n *Node) wrapVersion() uint16 {
	m := n.Machine()
	if v := m.WrapVersion(); v != 0 {
		return v
	}
	used, most := uint16(0), 0
	for v, count := range m.SealedUnder() {
		if count > most || count == most && v > used {
			used, most = v, count
		}
	}
	held := n.c.Keeper.Versions()
	if !slices.Contains(held, used) {
		return held[len(held)-1]
	}
	return used
}

// runWrap seals anew, on the leader, what is not under the chosen version.
func (r *rotator) runWrap() {
	var from state.Token
	for {
		changed := r.node.fsm.next()
		if m := r.node.Machine(); r.node.leads() && m.ToRewrap() > 0 {
			next, ok := r.wrapSome(m, from)
			if from = next; !ok && !r.sleep(wrapPause) {
				return
			}
			continue
		}
		from = state.Token{}
		select {
		case <-changed:
			if !r.sleep(minPause) {
				return
			}
		case <-time.After(r.node.tuning.rotate):
		case <-r.node.ctx.Done():
			return
		}
	}
}

// wrapSome proposes the next batch, and says where to go on and whether that went
// well. At the end it begins anew: what changed meanwhile is behind it.
func (r *rotator) wrapSome(m state.Machine, from state.Token) (next state.Token, ok bool) {
	var c state.Rewrap
	if from == (state.Token{}) {
		c.Halves = r.rewrappedAuthority(m)
	}
	walked := 0
	for d := range m.Domains(from) {
		if walked == wrapWalk || len(c.Halves) > state.MaxRewrap-2*keys.MaxKeys {
			next = d.Token
			break
		}
		walked++
		c.Halves = append(c.Halves, r.rewrapped(m.WrapVersion(), d)...)
	}
	if len(c.Halves) == 0 {
		return next, next != (state.Token{})
	}
	results := r.send([]state.Command{c})
	if len(results) != 1 || results[0].Refusal != nil {
		return from, false
	}
	return next, true
}

// rewrapped seals the halves of a claim anew that are under another version.
func (r *rotator) rewrapped(version uint16, d *state.Domain) (halves []state.SealedHalf) {
	for _, k := range d.Ring().Keys {
		if len(k.Sealed) <= oldPart || keys.SealedVersion(k.Sealed) == version {
			continue
		}
		b := keys.Binding{Token: d.Token.String(), Selector: k.Selector, KeyID: k.ID}
		sealed, err := r.resealed(version, b, k.Sealed)
		if err != nil {
			r.node.logger.Error("sealing a private half anew", "domain", d.Name.String(), "error", err)
			continue
		}
		halves = append(halves, state.SealedHalf{Token: d.Token, Key: k.ID, Old: bytes.Clone(k.Sealed[:oldPart]), Sealed: sealed})
	}
	return halves
}

// rewrappedAuthority seals the key of the cluster's CA anew, where that is due.
func (r *rotator) rewrappedAuthority(m state.Machine) []state.SealedHalf {
	a := m.Authority()
	if len(a.Sealed) <= oldPart || keys.SealedVersion(a.Sealed) == m.WrapVersion() {
		return nil
	}
	sealed, err := r.resealed(m.WrapVersion(), authorityBinding(), a.Sealed)
	if err != nil {
		r.node.logger.Error("sealing the key of the cluster's CA anew", "error", err)
		return nil
	}
	return []state.SealedHalf{{Old: bytes.Clone(a.Sealed[:oldPart]), Sealed: sealed}}
}

func (r *rotator) resealed(version uint16, b keys.Binding, sealed []byte) ([]byte, error) {
	compact, err := r.node.c.Keeper.Open(b, sealed)
	if err != nil {
		return nil, err
	}
	defer clear(compact)
	return r.node.c.Keeper.SealUnder(r.node.c.Random, version, b, compact)
}
