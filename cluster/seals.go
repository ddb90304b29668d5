package cluster

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"authd/cluster/state"
	"authd/keys"
)

const (
	// sealsEvery is how often the key-encryption key is tried at most.
	sealsEvery = 10 * time.Second
	// sealsWalk is how many claims are looked through for a half to try it on.
	sealsWalk = 256
)

// seals tries whether this node can open private halves: the file may have been
// exchanged for another cluster's, or lack the version that the others seal under.
// Each time it is another claim's half, so that in time one that was damaged shows.
type seals struct {
	node *Node

	mu      sync.Mutex // guards what follows
	tried   time.Time
	next    state.Token
	problem string
}

// problemNow is what is wrong, of the last sealsEvery; empty: nothing.
func (s *seals) problemNow() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.node.c.Now(); s.tried.IsZero() || now.Sub(s.tried).Abs() >= sealsEvery {
		s.tried = now
		s.problem = s.try()
	}
	return s.problem
}

func (s *seals) try() string {
	m, held := s.node.Machine(), s.node.c.Keeper.Versions()
	under := m.SealedUnder()
	for _, v := range slices.Sorted(maps.Keys(under)) {
		if !slices.Contains(held, v) {
			return fmt.Sprintf("%d private halves are sealed under version %d of the key-encryption key, and keys.kek_file of this node holds %d: copy that version there from another node; signers that ask this one get no key", under[v], v, held)
		}
	}
	walked := 0
	for d := range m.Domains(s.next) {
		if walked++; walked > sealsWalk {
			s.next = d.Token
			return s.problem // nothing to try it on was found this time
		}
		for _, k := range d.Ring().Keys {
			if len(k.Sealed) == 0 {
				continue
			}
			s.next = d.Token.Next()
			compact, err := s.node.c.Keeper.Open(keys.Binding{Token: d.Token.String(), Selector: k.Selector, KeyID: k.ID}, k.Sealed)
			clear(compact)
			if err != nil {
				s.next = d.Token // again, until it opens
				return fmt.Sprintf("the key of selector %q of %s cannot be opened: %v: is keys.kek_file that of this cluster? Signers that ask this node get no key", k.Selector, d.Name, err)
			}
			return ""
		}
	}
	s.next = state.Token{}
	return ""
}
