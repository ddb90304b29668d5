package cluster

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
)

// shadow is a listener that answers from a tree of its own: what a node's would be
// were it another process, or an index that was not told.
type shadow struct {
	t    testing.TB
	tree *zone.Tree
}

func newShadow(t testing.TB, of *Node) *shadow {
	t.Helper()
	s := &shadow{t: t, tree: of.Machine().Tree()}
	server, err := zone.Listen(zone.ServerConfig{
		Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Workers: 1, Tree: s.tree, Logger: slog.New(slog.DiscardHandler),
	})
	must(t, err)
	t.Cleanup(func() { server.Close(within(t, confirmTime)) })
	of.AnswersAt(server.Addresses()[0])
	return s
}

// follow makes it answer from a machine.
func (s *shadow) follow(m state.Machine) { s.tree.Take(m.Tree()) }

// TestListenerThatAnswersWhatWasBeforeHoldsWaitServed, whatever was changed: its
// node has applied and confirmed the index each time.
func TestListenerThatAnswersWhatWasBeforeHoldsWaitServed(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	apex := parseName(t, "p-dns.test.")
	ctx := within(t, changeTime)
	delegated := claim(t, leader, "send.customer.test.")
	cname := c.claim(leader, "customer-2.test")
	gone := claim(t, leader, "send-2.customer.test.")
	// Their first keys are confirmed, so that nothing changes but what the test does.
	for _, n := range c.nodes {
		c.answers(n)
	}
	for _, token := range []state.Token{delegated, cname, gone} {
		c.waitRing("confirmation", leader, token, func(r keys.Ring) bool {
			_, ok := r.Standby(keys.RSA2048)
			return !ok || confirmed(r)
		})
	}
	stale := c.follower()
	c.waitAll(leader.Machine().Index())
	s := newShadow(t, stale)

	www := zone.RRset{Owner: parseName(t, "www.p-dns.test."), Type: zone.TypeA, TTL: 300, Data: [][]byte{{192, 0, 2, 1}}}
	extra := zone.RRset{Owner: parseName(t, "www.send.customer.test."), Type: zone.TypeA, TTL: 300, Data: [][]byte{{192, 0, 2, 2}}}
	pool, _ := leader.Machine().Pool("default")
	spec := pool.PoolSpec
	spec.SPF = []string{"ip4:198.51.100.0/24"}
	policy := "v=DMARC1; p=none"
	selector := func(token state.Token) string {
		k, _ := ring(t, leader, token).Active(keys.RSA2048)
		return k.Selector
	}
	for _, change := range []struct {
		what    string
		command state.Command
	}{
		{"a record of a platform zone", state.PutRecord{Apex: apex, Set: www}},
		{"its removal", state.PutRecord{Apex: apex, Set: zone.RRset{Owner: www.Owner, Type: www.Type}}},
		{"a contact", state.PutPlatform{Apex: apex, Contact: parseName(t, "dns.p-dns.test.")}},
		{"a name server's address", state.PutNameServer{Label: "ns1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.55")}}},
		{"a name server", state.PutNameServer{Label: "ns3", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.56")}}},
		{"its end", state.DropNameServer{Label: "ns3"}},
		{"a pool", state.PutPool{ID: "default", Spec: spec}},
		{"a record of a domain", state.PutDomainRecord{Token: delegated, Set: extra}},
		{"the removal of that", state.PutDomainRecord{Token: delegated, Set: zone.RRset{Owner: extra.Owner, Type: extra.Type}}},
		{"records of a domain", state.SetDomainRecords{Token: delegated, Sets: []zone.RRset{extra}, Replace: true}},
		{"a policy", state.PatchDomain{Token: delegated, DMARC: &policy}},
		{"a key that is revoked", state.RevokeKey{Token: delegated, Selector: selector(delegated), Force: true}},
		{"a key in a slot that is revoked", state.RevokeKey{Token: cname, Selector: selector(cname), Force: true}},
		{"the end of a domain", state.LeaveDomain{Token: gone, Now: true}},
		{"the end of targets", state.LeaveDomain{Token: cname, Now: true}},
	} {
		before := leader.Machine()
		results, index, err := leader.Propose(ctx, Actor{ID: "test", Reason: "test"}, change.command)
		must(t, err)
		if results[0].Refusal != nil {
			t.Fatalf("%s: %v", change.what, results[0].Refusal)
		}
		questions := state.Shown(before, leader.Machine(), change.command, results[0])
		if len(questions) == 0 {
			t.Errorf("%s: nothing to ask", change.what)
			continue
		}
		must(t, stale.WaitApplied(ctx, index))
		eventually(t, change.what+" is waited for", func() bool { // on a busy machine some do not answer in time
			err := leader.WaitServed(within(t, 100*time.Millisecond), index, questions...)
			if err == nil {
				t.Fatalf("%s, %v: confirmed by a listener that answers what was before", change.what, questions)
			}
			said := err.Error()
			return strings.Contains(said, stale.c.ID+" (") && strings.Contains(said, "answers otherwise to") && !strings.Contains(said, leader.c.ID)
		})
		s.follow(leader.Machine())
		if err := leader.WaitServed(ctx, index, questions...); err != nil {
			t.Errorf("%s: %v", change.what, err)
		}
	}
}

// TestNameThatChangesAllTheTimeIsSeen: no node need be asked at the same moment.
func TestNameThatChangesAllTheTimeIsSeen(t *testing.T) {
	c := newTestCluster(t, 3)
	c.startAll()
	leader := c.leader()
	seed(t, leader)
	for _, n := range c.nodes {
		c.answers(n)
	}
	apex, ctx := parseName(t, "p-dns.test."), within(t, changeTime)
	change := func(i int) (index uint64, q []zone.Question) {
		before := leader.Machine()
		set := zone.RRset{Owner: parseName(t, "www.p-dns.test."), Type: zone.TypeTXT, TTL: 300, Data: [][]byte{fmt.Appendf([]byte{4}, "%04d", i)}}
		command := state.PutRecord{Apex: apex, Set: set}
		results, index, err := leader.Propose(ctx, Actor{ID: "test"}, command)
		if err != nil || results[0].Refusal != nil {
			t.Error(err, results)
		}
		return index, state.Shown(before, leader.Machine(), command, results[0])
	}
	index, questions := change(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 1; i < 10000; i++ {
			select {
			case <-stop:
				return
			default:
				change(i)
			}
		}
	}()
	for range 20 {
		must(t, leader.WaitServed(ctx, index, questions...))
	}
	close(stop)
	<-stopped
}

// BenchmarkServedOnAllThree is what ?wait=served adds to a write: the confirmation
// of the index alone, and with the listeners of all three asked.
//
//	go test ./cluster -run '^$' -bench Served -benchtime 300x
func BenchmarkServedOnAllThree(b *testing.B) {
	c := newTestCluster(b, 3)
	c.tuning = defaultTuning()
	c.tuning.patience = 20 * time.Second
	c.startAll()
	leader := c.leader()
	seed(b, leader)
	for _, n := range c.nodes {
		c.answers(n)
	}
	apex, i := parseName(b, "p-dns.test."), 0
	for _, asked := range []bool{false, true} {
		b.Run(fmt.Sprintf("listeners-%t", asked), func(b *testing.B) {
			var took []time.Duration
			used := processorTime()
			for b.Loop() {
				i++
				set := zone.RRset{Owner: parseName(b, fmt.Sprintf("n%d.p-dns.test.", i%100)), Type: zone.TypeTXT, TTL: 300, Data: [][]byte{fmt.Appendf([]byte{6}, "%06d", i)}}
				command := state.PutRecord{Apex: apex, Set: set}
				began, before := time.Now(), leader.Machine()
				results, index, err := leader.Propose(b.Context(), Actor{ID: "test"}, command)
				must(b, err)
				var questions []zone.Question
				if asked {
					questions = state.Shown(before, leader.Machine(), command, results[0])
				}
				must(b, leader.WaitServed(b.Context(), index, questions...))
				took = append(took, time.Since(began))
			}
			b.ReportMetric(float64((processorTime()-used).Microseconds())/float64(b.N), "cpu-us/op")
			slices.Sort(took)
			b.ReportMetric(milliseconds(took[len(took)/2]), "p50-ms")
			b.ReportMetric(milliseconds(took[len(took)*99/100]), "p99-ms")
		})
	}
}
