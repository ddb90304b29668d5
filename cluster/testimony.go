package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

const (
	// gatherTime is how long nodes are waited for.
	gatherTime = 5 * time.Second
	// maxTold bounds the keys of one call, and maxSigners the signers told of one key.
	maxTold, maxSigners = 256, 64
)

// keyAsk is a key that nodes are asked about.
type keyAsk struct {
	Token   state.Token `cbor:"1,keyasint"`
	Key     uint32      `cbor:"2,keyasint"`
	Name    uint64      `cbor:"3,keyasint"` // zone.NameHash of where it is answered
	Drained int64       `cbor:"4,keyasint"` // since when it signs no more; 0: it signs
	Hold    int64       `cbor:"5,keyasint"` // the policy's SignerHold, in seconds
	Later   []uint32    `cbor:"6,keyasint"` // keys of its algorithm that came after it
}

type evidenceAsk struct {
	Index uint64   `cbor:"1,keyasint"` // to have been applied before the answer
	Keys  []keyAsk `cbor:"2,keyasint"`
	// Now is the time, in seconds since 1970, where the one who asks leads and most
	// nodes agree with its clock; 0 otherwise.
	Now int64 `cbor:"3,keyasint,omitempty"`
}

type evidenceReply struct {
	Keys []keyTold `cbor:"1,keyasint"`
}

// keyTold is what one node knows of a key.
type keyTold struct {
	Since     int64             `cbor:"1,keyasint"` // its count of queries is whole since
	Last      int64             `cbor:"2,keyasint"` // last query; 0: none
	Day       int64             `cbor:"3,keyasint"`
	Days      [AskedDays]uint32 `cbor:"4,keyasint"`
	HandedOut int64             `cbor:"5,keyasint"` // last handing out, or when one may have been lost
	Signers   []SignerSeen      `cbor:"6,keyasint"`
	Unsure    bool              `cbor:"7,keyasint"` // signers may be missing
}

// SignerSeen is when a signer, by the id of its access token, last fetched a key
// and a later one of the same domain; 0: never. Who fetched the later one first, as
// before a rollback, is on the key.
type SignerSeen struct {
	ID    string `cbor:"1,keyasint"`
	At    int64  `cbor:"2,keyasint"`
	Later int64  `cbor:"3,keyasint"`
}

// tell says what this node knows of keys.
func (n *Node) tell(ctx context.Context, a evidenceAsk) (evidenceReply, error) {
	if err := n.WaitApplied(ctx, a.Index); err != nil {
		return evidenceReply{}, err
	}
	if err := n.waitAlone(ctx); err != nil {
		return evidenceReply{}, err
	}
	now := n.evidence.now()
	if a.Now != 0 {
		n.evidence.isNow(a.Now)
		now = a.Now
	}
	var r evidenceReply
	for _, k := range a.Keys[:min(len(a.Keys), maxTold)] {
		r.Keys = append(r.Keys, n.evidence.of(k, now))
	}
	return r, nil
}

// of is what is known of one key.
func (e *evidence) of(k keyAsk, now int64) keyTold {
	e.mu.Lock()
	defer e.mu.Unlock()
	a := e.asked[k.Name].on(now / secondsOfDay)
	t := keyTold{Since: e.since, Last: a.Last, Day: a.Day, Days: a.Days}
	for _, g := range e.gaps {
		// At From the node had applied all that the machine held of the time before.
		if k.Drained != 0 && g.From <= k.Drained && k.Drained <= g.Until+int64(clockApart/time.Second) {
			t.HandedOut = max(t.HandedOut, g.Until)
		}
		t.Unsure = t.Unsure || g.Until >= now-k.Hold
	}
	for _, h := range e.handed.of(k.Token)[k.Token] {
		if h.Key != k.Key && !slices.Contains(k.Later, h.Key) {
			continue // an earlier one, or one of another algorithm
		}
		i := slices.IndexFunc(t.Signers, func(s SignerSeen) bool { return s.ID == h.Signer })
		if i < 0 {
			if len(t.Signers) == maxSigners {
				t.Unsure = true
				continue
			}
			i, t.Signers = len(t.Signers), append(t.Signers, SignerSeen{ID: h.Signer})
		}
		if h.Key == k.Key {
			t.HandedOut = max(t.HandedOut, h.At)
			t.Signers[i].At = max(t.Signers[i].At, h.At)
		} else {
			t.Signers[i].Later = max(t.Signers[i].Later, h.At)
		}
	}
	return t
}

// KeyUse is what all nodes know of one key.
type KeyUse struct {
	Missing   []string // nodes that did not say; empty: all said
	Since     int64    // the counts of all that said are whole since
	LastAsked int64    // 0: never
	Day       int64    // days since 1970, of Days[0]
	Days      [AskedDays]uint32
	HandedOut int64 // 0: never; or when a hand-out may have been lost
	Signers   []SignerSeen
	Unsure    bool // signers may be missing
}

// Evidence is what a revocation may rest on.
func (u *KeyUse) Evidence(hold, now int64) keys.Evidence {
	e := keys.Evidence{
		Complete: len(u.Missing) == 0, AskedAt: max(u.LastAsked, u.Since), HandedOutAt: u.HandedOut,
	}
	e.Switched = e.Complete && !u.Unsure && len(u.OnOld(hold, now)) == 0
	return e
}

// OnOld are the signers that fetched the key within a time and no later one since.
func (u *KeyUse) OnOld(hold, now int64) []string {
	var on []string
	for _, s := range u.Signers {
		if s.At >= now-hold && s.At > s.Later {
			on = append(on, s.ID)
		}
	}
	return on
}

func (u *KeyUse) add(t keyTold) {
	u.Since, u.LastAsked = max(u.Since, t.Since), max(u.LastAsked, t.Last)
	u.HandedOut, u.Unsure = max(u.HandedOut, t.HandedOut), u.Unsure || t.Unsure
	a := asked{Day: u.Day, Days: u.Days}.on(t.Day)
	b := asked{Day: t.Day, Days: t.Days}.on(a.Day)
	for i := range a.Days {
		a.Days[i] = uint32(min(uint64(a.Days[i])+uint64(b.Days[i]), 1<<32-1))
	}
	u.Day, u.Days = a.Day, a.Days
	for _, s := range t.Signers {
		i := slices.IndexFunc(u.Signers, func(have SignerSeen) bool { return have.ID == s.ID })
		if i < 0 {
			u.Signers = append(u.Signers, s)
			continue
		}
		u.Signers[i].At, u.Signers[i].Later = max(u.Signers[i].At, s.At), max(u.Signers[i].Later, s.Later)
	}
}

// KeyUse asks every serving node about the keys of a domain that signed ever, by
// key ID. Nodes that do not answer within a few seconds are named.
func (n *Node) KeyUse(ctx context.Context, t state.Token, ids ...uint32) map[uint32]KeyUse {
	m := n.Machine()
	d, ok := m.Domain(t)
	if !ok {
		return nil
	}
	ring := d.Ring()
	var asks []keyAsk
	for _, id := range ids {
		if k, ok := ring.ByID(id); ok && len(asks) < maxTold {
			asks = append(asks, askOf(m, d, ring, k))
		}
	}
	uses := make(map[uint32]KeyUse)
	for i, u := range n.gather(ctx, evidenceAsk{Index: m.Index(), Keys: asks}) {
		uses[asks[i].Key] = u
	}
	return uses
}

// askOf is how nodes are asked about a key.
func askOf(m state.Machine, d *state.Domain, ring keys.Ring, k keys.Key) keyAsk {
	name, err := d.KeyName(k)
	if err != nil {
		panic("a key without a name: " + err.Error())
	}
	ask := keyAsk{Token: d.Token, Key: k.ID, Name: zone.NameHash(name), Drained: k.DrainedAt}
	for i := range ring.Keys {
		if o := &ring.Keys[i]; o.ID > k.ID && o.Algorithm == k.Algorithm {
			ask.Later = append(ask.Later, o.ID)
		}
	}
	if pool, ok := m.Pool(d.Pool); ok {
		ask.Hold = pool.Policy.Hold(m.Time())
	}
	return ask
}

// gather asks every serving node about keys.
func (n *Node) gather(ctx context.Context, ask evidenceAsk) []KeyUse {
	ctx, cancel := context.WithTimeout(ctx, gatherTime)
	defer cancel()
	uses := make([]KeyUse, len(ask.Keys))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, m := range n.servingSet() {
		wg.Go(func() {
			var r evidenceReply
			var err error
			if m.ID == n.c.ID {
				r, err = n.tell(ctx, ask)
			} else {
				err = n.peers.callMember(ctx, m, callEvidence, ask, &r)
			}
			mu.Lock()
			defer mu.Unlock()
			for i := range uses {
				if err != nil || len(r.Keys) != len(uses) {
					uses[i].Missing = append(uses[i].Missing, m.ID)
				} else {
					uses[i].add(r.Keys[i])
				}
			}
		})
	}
	wg.Wait()
	for i := range uses {
		slices.Sort(uses[i].Missing)
		slices.SortFunc(uses[i].Signers, func(a, b SignerSeen) int { return strings.Compare(a.ID, b.ID) })
	}
	return uses
}

// servingSet are the members that may be answering: every one, because one that
// is cut off may be, but those that an operator stated to be off. It is never
// empty: with nobody to ask nothing would be proven.
func (n *Node) servingSet() []Member {
	m, all := n.fsm.current(), n.members()
	if len(m.OffNodes()) == 0 {
		return all
	}
	serving := slices.DeleteFunc(slices.Clone(all), func(member Member) bool {
		_, off := m.Off(member.ID)
		return off
	})
	if len(serving) == 0 {
		return all
	}
	return serving
}

// offProblem says, on a node that an operator took out of the serving set, that it
// may not be sent traffic: changes do not wait for it.
func (n *Node) offProblem() string {
	o, off := n.fsm.current().Off(n.c.ID)
	if !off {
		return ""
	}
	return fmt.Sprintf("an operator took this node out of the serving set at %s, stating %q: no change waits for it; send it nothing before authd operator raft set-serving %s --on",
		time.Unix(o.Since, 0).UTC().Format(time.RFC3339), o.Statement, n.c.ID)
}
