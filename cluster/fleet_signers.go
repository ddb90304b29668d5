package cluster

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

const (
	// maxHandedTold bounds the hand-outs of one reply, some 30 octets each.
	maxHandedTold = 1 << 16
	// handedAim is how many are to be in memory at a time.
	handedAim = 4096
	// handedFirst is how many shares are asked for at first; then as many as have
	// about handedAim hand-outs.
	handedFirst = 8
	// givenOn is longer than a key can be fetched by its selector after its successor
	// signs, with what clocks may be apart, in seconds.
	givenOn = 20 * 60
	// walkTime bounds a walk over all hand-outs. Another begins walkRest, and
	// walkShare times as long as it took, after it at the earliest.
	walkTime  = time.Minute
	walkRest  = 2 * time.Second
	walkShare = 20
)

// handedAsk asks for the hand-outs of the claims in a range of shares.
type handedAsk struct {
	Index uint64 `cbor:"1,keyasint"` // to have been applied before the answer
	First int    `cbor:"2,keyasint"`
	Until int    `cbor:"3,keyasint"` // the share behind the last
	Since int64  `cbor:"4,keyasint"` // earlier ones do not matter
}

type handedReply struct {
	Signers []string     `cbor:"1,keyasint"`
	Rows    []handedTold `cbor:"2,keyasint"`
	Unsure  int64        `cbor:"3,keyasint"` // there may have been more until then
}

// handedTold is when a signer, by its place in the list, last got a key.
type handedTold struct {
	_      struct{} `cbor:",toarray"`
	Token  state.Token
	Signer int
	Key    uint32
	At     int64
}

// tellHanded says whom this node gave keys to.
func (n *Node) tellHanded(ctx context.Context, a handedAsk) (handedReply, error) {
	if err := n.WaitApplied(ctx, a.Index); err != nil {
		return handedReply{}, err
	}
	if err := n.waitAlone(ctx); err != nil {
		return handedReply{}, err
	}
	var r handedReply
	place := make(map[string]int)
	for share := max(a.First, 0); share < min(a.Until, handedShares); share++ {
		n.evidence.tellShare(share, a.Since, place, &r)
	}
	r.Signers = make([]string, len(place))
	for id, i := range place {
		r.Signers[i] = id
	}
	return r, nil
}

func (e *evidence) tellShare(share int, since int64, place map[string]int, r *handedReply) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, g := range e.gaps {
		r.Unsure = max(r.Unsure, g.Until)
	}
	for token, list := range e.handed[share] {
		for _, h := range list {
			if h.At < since {
				continue
			}
			if len(r.Rows) >= maxHandedTold {
				r.Unsure = math.MaxInt64
				return
			}
			i, ok := place[h.Signer]
			if !ok {
				i = len(place)
				place[h.Signer] = i
			}
			r.Rows = append(r.Rows, handedTold{Token: token, Signer: i, Key: h.Key, At: h.At})
		}
	}
}

// FleetSigners is who signs with keys that a rotation replaces.
type FleetSigners struct {
	At    time.Time
	OnOld []string // access tokens, in order
	// Unheard are nodes that did not say, or do not know, whom they gave keys to.
	Unheard []string
}

// signersWalk is what is known of one rotation's signers, as of the last walk.
type signersWalk struct {
	running chan struct{} // closed at the end of the walk that is under way; nil: none
	known   bool
	last    FleetSigners
	next    time.Time // the earliest that another walk begins
}

// fleetSigners are walks by rotation.
type fleetSigners struct {
	mu    sync.Mutex // guards walks and what they hold
	walks map[state.Token]*signersWalk
}

// FleetSigners says who is still on the old keys of a rotation. It walks what the
// nodes handed out, not the domains, and no more often than that costs a twentieth
// of the time; meanwhile it says what was known last. False: nothing is known yet.
func (n *Node) FleetSigners(ctx context.Context, id state.Token) (FleetSigners, bool) {
	s := &n.signers
	s.mu.Lock()
	m := n.Machine()
	maps.DeleteFunc(s.walks, func(id state.Token, _ *signersWalk) bool { _, kept := m.Rotation(id); return !kept })
	r, ok := m.Rotation(id)
	if !ok {
		s.mu.Unlock()
		return FleetSigners{}, false
	}
	w := s.walks[id]
	if w == nil {
		w = &signersWalk{}
		if s.walks == nil {
			s.walks = make(map[state.Token]*signersWalk)
		}
		s.walks[id] = w
	}
	if w.running == nil && !time.Now().Before(w.next) {
		w.running = make(chan struct{})
		go n.walkSigners(w, m, r) // bounded by walkTime; a node that closes waits for none
	}
	running := w.running
	s.mu.Unlock()
	if running != nil {
		select {
		case <-running:
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.last, w.known
}

func (n *Node) walkSigners(w *signersWalk, m state.Machine, r *state.Rotation) {
	ctx, cancel := context.WithTimeout(n.ctx, walkTime)
	defer cancel()
	began := time.Now()
	found := n.signersOn(ctx, m, r)
	n.signers.mu.Lock()
	defer n.signers.mu.Unlock()
	close(w.running)
	w.running, w.last, w.known = nil, found, true
	w.next = time.Now().Add(max(walkRest, walkShare*time.Since(began)))
}

// signersOn asks all nodes for what they handed out, some claims at a time.
func (n *Node) signersOn(ctx context.Context, m state.Machine, r *state.Rotation) FleetSigners {
	now := n.c.Now()
	s := signerSearch{m: m, r: r, now: now.Unix(), on: make(map[string]bool), unheard: make(map[string]bool)}
	for first, step := 0, handedFirst; first < handedShares && ctx.Err() == nil; {
		until := min(first+step, handedShares)
		rows := 0
		ask := handedAsk{m.Index(), first, until, s.now - longestHold(m)}
		for token, by := range n.gatherHanded(ctx, ask, max(ask.Since, r.Oldest), s.unheard) {
			s.weigh(token, by)
			rows += len(by)
		}
		first, step = until, max(1, min(4*step, step*handedAim/max(rows, 1)))
	}
	if ctx.Err() != nil {
		s.unheard[n.c.ID] = true // there was no time to ask for all
	}
	return FleetSigners{At: now, OnOld: slices.Sorted(maps.Keys(s.on)), Unheard: slices.Sorted(maps.Keys(s.unheard))}
}

// longestHold is for how long, in seconds, any signer may use what it fetched.
func longestHold(m state.Machine) int64 {
	hold := keys.DefaultPolicy().Hold(m.Time())
	for p := range m.Pools() {
		hold = max(hold, p.Policy.Hold(m.Time()))
	}
	return hold
}

// gatherHanded is what all nodes handed out of the claims in a range, by signer.
// What a node lost before a time does not matter.
func (n *Node) gatherHanded(ctx context.Context, ask handedAsk, matters int64, unheard map[string]bool) map[state.Token]map[string][]handed {
	ctx, cancel := context.WithTimeout(ctx, gatherTime)
	defer cancel()
	all := make(map[state.Token]map[string][]handed)
	var mu sync.Mutex // guards all and unheard
	var wg sync.WaitGroup
	for _, m := range n.servingSet() {
		wg.Go(func() {
			var r handedReply
			var err error
			if m.ID == n.c.ID {
				r, err = n.tellHanded(ctx, ask)
			} else {
				err = n.peers.callMember(ctx, m, callHanded, ask, &r)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil || r.Unsure > matters {
				unheard[m.ID] = true
			}
			for _, row := range r.Rows {
				if row.Signer < 0 || row.Signer >= len(r.Signers) {
					unheard[m.ID] = true
					continue
				}
				if all[row.Token] == nil {
					all[row.Token] = make(map[string][]handed)
				}
				id := r.Signers[row.Signer]
				all[row.Token][id] = append(all[row.Token][id], handed{id, row.Key, row.At})
			}
		})
	}
	wg.Wait()
	return all
}

// signerSearch looks for signers that are on the old key of any claim.
type signerSearch struct {
	m       state.Machine
	r       *state.Rotation
	now     int64
	on      map[string]bool
	unheard map[string]bool
}

// weigh looks at what signers got of one claim. A ring is looked into only for a
// signer of whom nothing is known yet.
func (s *signerSearch) weigh(t state.Token, by map[string][]handed) {
	maps.DeleteFunc(by, func(id string, list []handed) bool { return s.on[id] || s.fetchedSince(list) })
	d, ok := s.m.Domain(t)
	if len(by) == 0 || !ok {
		return
	}
	ring := d.Ring()
	for _, old := range s.m.Replaced(s.r, d, ring) {
		ask := askOf(s.m, d, ring, old)
		for id, list := range by {
			if onOld(list, ask, s.now) {
				s.on[id] = true
			}
		}
	}
}

// fetchedSince says whether a signer fetched a key when every domain had switched
// and no key before was given any more.
func (s *signerSearch) fetchedSince(list []handed) bool {
	return s.r.State == state.RotationDone && slices.ContainsFunc(list, func(h handed) bool { return h.At > s.r.EndedAt+givenOn })
}

// onOld says whether a signer has an old key and no later one since, as
// KeyUse.OnOld does.
func onOld(list []handed, old keyAsk, now int64) bool {
	var at, later int64
	for _, h := range list {
		if h.Key == old.Key {
			at = max(at, h.At)
		} else if slices.Contains(old.Later, h.Key) {
			later = max(later, h.At)
		}
	}
	return at >= now-old.Hold && at > later
}
