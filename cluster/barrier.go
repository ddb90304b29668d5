package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// barrier is the proof that every serving node answers with a change: each says
// over the node link that its machine has applied, published and marked it, and
// its own DNS listener, asked over TCP, answers it. A node that cannot be asked
// holds what it has to prove without limit.
type barrier struct {
	node *Node

	// mu guards waits.
	mu    sync.Mutex
	waits map[barrierKey]BarrierWait
}

type barrierKey struct {
	token state.Token
	key   uint32
	node  string
}

// BarrierWait is a key's record that a node has not been seen to answer.
type BarrierWait struct {
	Token state.Token `cbor:"1,keyasint"`
	Key   uint32      `cbor:"2,keyasint"`
	Node  string      `cbor:"3,keyasint"`
	Since int64       `cbor:"4,keyasint"` // seconds since 1970
	Why   string      `cbor:"5,keyasint"`
}

// AnswersAt tells the node at which address its DNS listener can be asked, by itself and
// by other nodes. A wildcard stands for the host of the node link, the zero address for
// no listener. Call it before SetServing.
func (n *Node) AnswersAt(address netip.AddrPort) { n.answers.Store(&address) }

// answersAt is where this node answers; empty where it does not.
func (n *Node) answersAt() string {
	if a := n.answers.Load(); a != nil && a.IsValid() {
		return a.String()
	}
	return ""
}

// pass asks every serving node about standbys that were published by an index,
// and returns those that all of them answer.
func (b *barrier) pass(ctx context.Context, c confirmation) []state.Task {
	m := b.node.Machine()
	questions, tasks := b.questions(m, c.tasks)
	held := make([]map[string]string, len(tasks)) // why, by node
	for i := range held {
		held[i] = make(map[string]string)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, member := range b.node.servingSet() {
		wg.Go(func() {
			for i, why := range b.ask(ctx, member, c.index, questions) {
				if why != "" {
					mu.Lock()
					held[i][member.ID] = why
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	var passed []state.Task
	for i, t := range tasks {
		if len(held[i]) == 0 {
			passed = append(passed, t)
		}
	}
	b.note(tasks, held)
	return passed
}

// question is a record that a listener should answer. Without a name nobody answers it
// yet, the domain not being proven: then the index alone counts.
type question struct {
	name zone.Name
	text string
}

func (b *barrier) questions(m state.Machine, tasks []state.Task) (list []question, of []state.Task) {
	for _, t := range tasks {
		d, ok := m.Domain(t.Token)
		if !ok {
			continue
		}
		k, ok := d.Ring().ByID(t.Step.Key)
		if !ok || k.Stage != keys.Standby {
			continue
		}
		q := question{text: k.Payload}
		if name, err := d.KeyName(k); err == nil && (d.Mode == zone.CNAME || d.ProvenAt != 0) {
			q.name = name
		}
		list, of = append(list, q), append(of, t)
	}
	return list, of
}

// ask says for each question why a node has not been seen to answer it; empty
// where it has.
func (b *barrier) ask(ctx context.Context, member Member, index uint64, questions []question) []string {
	whys := make([]string, len(questions))
	all := func(err error) []string {
		for i := range whys {
			whys[i] = err.Error()
		}
		return whys
	}
	r, err := b.node.askConfirm(ctx, member, index)
	switch {
	case err != nil:
		return all(fmt.Errorf("it cannot be asked: %w", err))
	case r.Applied < index:
		return all(fmt.Errorf("it is at index %d of %d", r.Applied, index))
	case r.Answers == "":
		return whys // its listeners are closed, and open only once it is as far as its peers
	}
	address, err := netip.ParseAddrPort(r.Answers)
	if err != nil {
		return all(errors.New("it says that it answers at no address"))
	}
	var names []zone.Name
	var of []int
	for i, q := range questions {
		if q.name != "" {
			names, of = append(names, q.name), append(of, i)
		}
	}
	if len(names) == 0 {
		return whys
	}
	told, err := b.node.tuning.ask(ctx, reached(address, member.Address), names)
	if err != nil {
		return all(err)
	}
	for j, t := range told {
		switch {
		case t.Problem != "":
			whys[of[j]] = fmt.Sprintf("%s answers %s", address, t.Problem)
		case t.Text != questions[of[j]].text:
			whys[of[j]] = fmt.Sprintf("%s answers another record", address)
		}
	}
	return whys
}

// reached is how a listener is reached: a wildcard has the host of the node link.
func reached(listener netip.AddrPort, link string) string {
	if host, _, err := net.SplitHostPort(link); err == nil && host != "" && listener.Addr().IsUnspecified() {
		return net.JoinHostPort(host, strconv.Itoa(int(listener.Port())))
	}
	return listener.String()
}

// note keeps what was asked for and not seen, and since when.
func (b *barrier) note(tasks []state.Task, held []map[string]string) {
	now := b.node.c.Now().Unix()
	m, all, serving := b.node.Machine(), b.node.members(), b.node.servingSet()
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, t := range tasks {
		for _, member := range all {
			key := barrierKey{t.Token, t.Step.Key, member.ID}
			why, waits := held[i][member.ID]
			if !waits {
				delete(b.waits, key)
				continue
			}
			w, ok := b.waits[key]
			if !ok {
				w = BarrierWait{Token: t.Token, Key: t.Step.Key, Node: member.ID, Since: now}
			}
			w.Why = why
			b.waits[key] = w
		}
	}
	for key := range b.waits { // drop what is no longer waited for
		if d, ok := m.Domain(key.token); ok && contains(serving, key.node) {
			if k, ok := d.Ring().ByID(key.key); ok && k.Stage == keys.Standby && k.ConfirmedAt == 0 {
				continue
			}
		}
		delete(b.waits, key)
	}
}

// waiting lists what is waited for: of one claim, or (the zero token) all.
func (b *barrier) waiting(t state.Token) []BarrierWait {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []BarrierWait
	for key, w := range b.waits {
		if t == (state.Token{}) || key.token == t {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b BarrierWait) int {
		return cmp.Or(slices.Compare(a.Token[:], b.Token[:]), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Node, b.Node))
	})
	return list
}

// said describes what is waited for, for Health.
func (b *barrier) said() string {
	list := b.waiting(state.Token{})
	if len(list) == 0 {
		return ""
	}
	first := slices.MinFunc(list, func(a, b BarrierWait) int { return cmp.Compare(a.Since, b.Since) })
	return fmt.Sprintf("%d standby keys wait: for %s since %s: %s", len(list), first.Node, time.Unix(first.Since, 0).UTC().Format(time.RFC3339), first.Why)
}

type waitingAsk struct {
	Token state.Token `cbor:"1,keyasint"`
}

// Waiting asks the leader which nodes a claim's standbys wait for; nothing where
// there is no leader to ask.
func (n *Node) Waiting(ctx context.Context, t state.Token) []BarrierWait {
	if n.leads() {
		return n.barrier.waiting(t)
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var list []BarrierWait
	if leader := n.Leader(); leader == "" || leader == n.c.ID || n.peers.call(ctx, leader, callWaiting, waitingAsk{t}, &list) != nil {
		return nil
	}
	return list
}

// BarrierWaits are all that this node waits for as the leader, for metrics.
func (n *Node) BarrierWaits() []BarrierWait {
	if !n.leads() {
		return nil
	}
	return n.barrier.waiting(state.Token{})
}
