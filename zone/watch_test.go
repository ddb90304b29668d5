package zone

import (
	"sync"
	"testing"
)

// counted is what a Watch hands over in two rounds.
func counted(w *Watch) (sum map[uint64]uint64, lost uint64) {
	sum = make(map[uint64]uint64)
	for range 2 {
		lost += w.Take(func(hash, count uint64) { sum[hash] += count })
	}
	return sum, lost
}

func TestOnlyQueriesForWatchedKeysAreCounted(t *testing.T) {
	p := delegatedPlan(t, "send.customer.test", testToken)
	active := p.Keys[0]
	old := KeyRecord{Owner: name(t, "old._domainkey.send.customer.test."), TTL: TTLKey, Payload: "v=DKIM1; p=", Watched: true}
	p.Keys = append(p.Keys, old)
	w := NewWatch()
	r := NewResponder(testTree(t, p), "")
	r.watch = &w.shards[0]
	out := make([]byte, 0, MaxUDP)
	for _, q := range []struct {
		name  string
		qtype uint16
	}{
		{old.Owner.String(), 16}, {"OLD._domainkey.Send.Customer.TEST.", 16}, {old.Owner.String(), 16},
		{old.Owner.String(), 1}, {active.Owner.String(), 16}, {"x.old._domainkey.send.customer.test.", 16}, {"send.customer.test.", 16},
	} {
		message := ask(t, q.name, q.qtype)
		r.Reply(out, message, false)
	}
	got, lost := counted(w)
	if len(got) != 1 || got[NameHash(old.Owner)] != 3 || lost != 0 {
		t.Errorf("counted %v, lost %d; want 3 for %s alone", got, lost, old.Owner)
	}
	message := ask(t, old.Owner.String(), 16)
	if n := testing.AllocsPerRun(100, func() { r.Reply(out, message, false) }); n != 0 {
		t.Errorf("a counted query allocates %v times", n)
	}
}

func TestWatchCountsFromManyWorkersAndSaysWhatItLost(t *testing.T) {
	w := NewWatch()
	var wg sync.WaitGroup
	const workers, names = 4, 100
	for range workers {
		wg.Go(func() {
			for i := range uint64(names) {
				w.shards[0].note(hashMul * (i + 1))
			}
		})
	}
	wg.Wait()
	got, lost := counted(w)
	var sum uint64
	for _, n := range got {
		sum += n
	}
	if sum != workers*names || lost != 0 {
		t.Fatalf("counted %d, lost %d; want %d", sum, lost, workers*names)
	}

	// More names than a table takes: what finds no room is told, and the next has more.
	const many = 20 * leastWatch
	for round := range 8 {
		for i := range uint64(many) {
			w.shards[0].note(hashMul * (i + 1))
		}
		got, lost = counted(w)
		sum = 0
		for _, n := range got {
			sum += n
		}
		if sum+lost != many {
			t.Fatalf("round %d: counted %d and lost %d of %d", round, sum, lost, many)
		}
	}
	if lost != 0 {
		t.Errorf("the table did not grow: %d lost", lost)
	}
	for range 20 {
		counted(w)
		w.shards[0].note(1)
	}
	if size := len(w.shards[0].table.Load().entries); size != leastWatch {
		t.Errorf("a quiet table keeps %d entries", size)
	}
}
