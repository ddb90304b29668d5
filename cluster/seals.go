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
	if why := unheld(s.node.Machine(), s.node.c.Keeper); why != "" {
		return why + "; signers that ask this node get no key"
	}
	next, found, why := openOne(s.node.Machine(), s.node.c.Keeper, s.next, sealsWalk)
	s.next = next
	switch {
	case why != "":
		return why + ": is keys.kek_file that of this cluster? Signers that ask this node get no key"
	case !found && next != (state.Token{}):
		return s.problem // nothing to try it on was found this time
	}
	return ""
}

// unheld says which version of the key-encryption key a machine needs that a keeper
// does not hold; empty: none.
func unheld(m state.Machine, k keys.Keeper) string {
	under, held := m.SealedUnder(), k.Versions()
	for _, v := range slices.Sorted(maps.Keys(under)) {
		if under[v] > 0 && !slices.Contains(held, v) {
			return fmt.Sprintf("%d private halves are sealed under version %d of the key-encryption key, and keys.kek_file of this node holds %d: copy that version there from a node that has it", under[v], v, held)
		}
	}
	return ""
}

// openOne opens one private half of a machine, of the first claim from a token on
// that has any, and says where to go on: after it, or with it where it does not open.
func openOne(m state.Machine, k keys.Keeper, from state.Token, walk int) (next state.Token, found bool, why string) {
	walked := 0
	for d := range m.Domains(from) {
		if walked++; walked > walk {
			return d.Token, false, ""
		}
		for _, key := range d.Ring().Keys {
			if len(key.Sealed) == 0 {
				continue
			}
			compact, err := k.Open(keys.Binding{Token: d.Token.String(), Selector: key.Selector, KeyID: key.ID}, key.Sealed)
			clear(compact)
			if err != nil {
				return d.Token, true, fmt.Sprintf("the key of selector %q of %s cannot be opened: %v", key.Selector, d.Name, err)
			}
			return d.Token.Next(), true, ""
		}
	}
	return state.Token{}, false, ""
}

// opens says why a node with this keeper could give a machine's keys to no signer;
// empty: it can.
func opens(m state.Machine, k keys.Keeper) string {
	if why := unheld(m, k); why != "" {
		return why
	}
	if _, _, why := openOne(m, k, state.Token{}, m.DomainCount()); why != "" {
		return why + ": the snapshot is sealed under another key-encryption key; prepare the cluster with that one, as DIR/kek before authd operator init"
	}
	return ""
}
