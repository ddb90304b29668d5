package zone

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestCensusCountsQueriesForTheNamesAskedForAndBelow(t *testing.T) {
	r := guarded(t, RateLimit{})
	r.guard.census = new(Census)
	at := func(after time.Duration) { r.begin(testEpoch.Add(after)) }
	query := func(qname string, qtype uint16) { r.reply(nil, ask(t, qname, qtype, edns(1232)), udpFrom("192.0.2.1")) }
	query("key.p-dns.test.", dns.TypeTXT) // nobody asked yet
	c := r.guard.census
	if err := c.Start("a", []Name{name(t, "key.p-dns.test"), name(t, "elsewhere.test")}, testEpoch, testEpoch.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	at(time.Second)
	query("key.p-dns.test.", dns.TypeTXT)
	query("KEY.p-dns.test.", dns.TypeTXT)
	query("below.key.p-dns.test.", dns.TypeA)
	query("elsewhere.test.", dns.TypeMX)
	query("short.p-dns.test.", dns.TypeTXT) // another's
	query("xkey.p-dns.test.", dns.TypeTXT)  // no label of its own
	query("p-dns.test.", dns.TypeSOA)       // above
	at(time.Minute)
	query("key.p-dns.test.", dns.TypeTXT) // it has ended
	got, ok := c.Read("a")
	want := []Count{{"A", "NoName", 1}, {"MX", "Refused", 1}, {"TXT", "Found", 2}}
	if !ok || !slices.Equal(got.Counts, want) || !got.Until.Equal(testEpoch.Add(time.Minute)) {
		t.Errorf("%+v, want %v", got, want)
	}
	if !c.Stop("a") || c.Stop("a") {
		t.Error("it was not there once")
	}
	if _, ok := c.Read("a"); ok || c.open.Load() != nil {
		t.Error("it is still there")
	}
}

func TestCensusIsBounded(t *testing.T) {
	c := new(Census)
	for i := range MaxCensus {
		if err := c.Start(fmt.Sprint(i), nil, testEpoch, testEpoch.Add(time.Duration(i+1)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Start("more", nil, testEpoch, testEpoch.Add(time.Hour)); err != ErrCensusFull {
		t.Errorf("one more: %v", err)
	}
	if err := c.Start("3", nil, testEpoch, testEpoch.Add(time.Hour)); err != nil {
		t.Errorf("one of them anew: %v", err)
	}
	if err := c.Start("more", nil, testEpoch.Add(time.Minute), testEpoch.Add(time.Hour)); err != nil {
		t.Errorf("when one ended: %v", err)
	}
	if _, ok := c.Read("0"); ok {
		t.Error("the one that ended is still there")
	}
}

func TestCensusAllocatesNothing(t *testing.T) {
	r := guarded(t, RateLimit{})
	r.guard.census = new(Census)
	if err := r.guard.census.Start("a", []Name{name(t, "key.p-dns.test")}, testEpoch, testEpoch.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	message, buffer, from := ask(t, "a.b.c.d.key.p-dns.test.", dns.TypeTXT, edns(1232)), make([]byte, 0, MaxUDP), udpFrom("192.0.2.1")
	if n := testing.AllocsPerRun(1000, func() {
		r.begin(testEpoch)
		r.reply(buffer, message, from)
	}); n != 0 {
		t.Errorf("%v allocations a query", n)
	}
	if got, _ := r.guard.census.Read("a"); len(got.Counts) != 1 || got.Counts[0].Queries < 1000 {
		t.Errorf("%+v", got)
	}
}

// One domain's count ends at its own time, while another's goes on; and nobody
// looks at names once the last has ended.
func TestEachCensusEndsAtItsOwnTime(t *testing.T) {
	r := guarded(t, RateLimit{})
	r.guard.census = new(Census)
	c := r.guard.census
	for id, c := range map[string]struct {
		name string
		life time.Duration
	}{"short": {"key.p-dns.test", time.Minute}, "long": {"short.p-dns.test", time.Hour}} {
		if err := r.guard.census.Start(id, []Name{name(t, c.name)}, testEpoch, testEpoch.Add(c.life)); err != nil {
			t.Fatal(err)
		}
	}
	for _, after := range []time.Duration{time.Minute - time.Second, time.Minute, time.Hour - time.Second, time.Hour} {
		r.begin(testEpoch.Add(after))
		if (r.census == nil) != (after == time.Hour) {
			t.Errorf("%s on: looked at names: %v", after, r.census != nil)
		}
		r.reply(nil, ask(t, "key.p-dns.test.", dns.TypeTXT), udpFrom("192.0.2.1"))
		r.reply(nil, ask(t, "short.p-dns.test.", dns.TypeTXT), udpFrom("192.0.2.1"))
	}
	for id, want := range map[string]uint64{"short": 1, "long": 3} {
		if got, ok := c.Read(id); !ok || len(got.Counts) != 1 || got.Counts[0].Queries != want {
			t.Errorf("%s: %+v, want %d", id, got.Counts, want)
		}
	}
}
