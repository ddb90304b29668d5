package state

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"authd/keys"
	"authd/zone"
)

// start is when the tests' clusters begin: 2026-01-01.
const start = 1767225600

// world is a machine under test with the clock of its proposer.
type world struct {
	t     testing.TB
	m     Machine
	at    int64
	index uint64
	who   Entry // actor and reason of the next commands
	// logged, where not nil, gets every batch as the log has it.
	logged func([]byte)
}

// newWorld has platform zones p-dns.test and p-dns.example, ns1 and ns2, the
// pool "default" and the tenants acme and zeta.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, m: Empty(), at: start, who: Entry{Actor: "admin-1"}}
	for _, c := range founding() {
		w.must(c)
	}
	return w
}

func founding() []Command {
	return []Command{
		SetSettings{Settings{ClusterID: "test"}},
		PutPlatform{Apex: name("p-dns.test"), Contact: name("hostmaster.p-dns.test")},
		PutPlatform{Apex: name("p-dns.example"), Contact: name("hostmaster.p-dns.test")},
		PutNameServer{Label: "ns1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")}},
		PutNameServer{Label: "ns2", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.53")}},
		PutPool{ID: "default", Spec: spec()},
		AddTenant{ID: "acme", Name: "Acme"},
		AddTenant{ID: "zeta", Name: "Zeta"},
	}
}

func spec() PoolSpec {
	return PoolSpec{
		SPF: []string{"ip4:192.0.2.0/24"}, SPFAll: "~all",
		MX:     []zone.MX{{Preference: 10, Host: name("mx1.p-dns.test")}},
		ClickA: []netip.Addr{netip.MustParseAddr("192.0.2.80")},
		Policy: keys.DefaultPolicy(),
	}
}

func name(text string) zone.Name {
	n, err := zone.ParseName(text)
	if err != nil {
		panic(err)
	}
	return n
}

// tok makes a token from a number.
func tok(n uint64) (t Token) {
	binary.BigEndian.PutUint64(t[:8], n*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(t[8:], n)
	return t
}

// material is key material of production form; it signs nothing.
func material(id uint32, selector, seed string) keys.Material {
	return keys.Material{
		Algorithm: keys.RSA2048, Selector: selector, ID: id,
		Payload: "v=DKIM1; k=rsa; p=" + seed, Sealed: []byte("sealed half of " + seed),
	}
}

// claimOf is a claim with an active key and a standby.
func claimOf(t Token, domain string, mode zone.Mode, tenant string) AddDomain {
	c := AddDomain{Token: t, Name: name(domain), Mode: mode, Tenant: tenant, Pool: "default", Registrable: registrable(name(domain))}
	active, standby := "2601-aaaaaa", "2601-bbbbbb"
	if mode == zone.CNAME {
		active, standby = "", ""
	}
	c.Active = []keys.Material{material(1, active, "AAAA"+t.String())}
	c.Standby = []keys.Material{material(2, standby, "BBBB"+t.String())}
	return c
}

// registrable takes the last two labels, which is true of the tests' names.
func registrable(n zone.Name) zone.Name {
	for n.Labels() > 2 {
		n = n.Parent()
	}
	return n
}

// do applies one command.
func (w *world) do(c Command) Result {
	w.t.Helper()
	e := w.who
	e.At, e.Command = w.at, c
	data, err := EncodeBatch([]Entry{e})
	if err != nil {
		w.t.Fatalf("encoding %T: %v", c, err)
	}
	entries, err := DecodeBatch(data)
	if err != nil {
		w.t.Fatalf("decoding %T: %v", c, err)
	}
	if w.logged != nil {
		w.logged(data)
	}
	before := image(w.t, w.m)
	w.index++
	next, results, delta := w.m.Apply(w.index, entries)
	if !bytes.Equal(before, image(w.t, w.m)) {
		w.t.Fatalf("applying %T changed the machine it was applied to", c)
	}
	if results[0].Refusal != nil {
		if after := image(w.t, withIndex(next, w.m)); !bytes.Equal(before, after) {
			w.t.Fatalf("%T was refused (%s) and left a trace", c, results[0].Refusal.Message)
		}
		if len(delta.domains)+len(delta.pools)+len(delta.platforms) != 0 {
			w.t.Fatalf("%T was refused (%s) and published something", c, results[0].Refusal.Message)
		}
	}
	w.m = next
	return results[0]
}

// withIndex gives m the index and time of another machine.
func withIndex(m, other Machine) Machine {
	t := *m.tables()
	t.index, t.time = other.Index(), other.Time()
	return Machine{t: &t}
}

// must applies a command that is not refused.
func (w *world) must(c Command) Result {
	w.t.Helper()
	r := w.do(c)
	if r.Refusal != nil {
		w.t.Fatalf("%T refused: %s: %s", c, r.Refusal.Field, r.Refusal.Message)
	}
	return r
}

// refuse applies a command that is refused in a given way.
func (w *world) refuse(c Command, kind RefusalKind, field string, words ...string) *Refusal {
	w.t.Helper()
	r := w.do(c).Refusal
	if r == nil {
		w.t.Fatalf("%T was not refused", c)
	}
	if r.Kind != kind || r.Field != field {
		w.t.Fatalf("%T refused with kind %d at %q, want kind %d at %q: %s", c, r.Kind, r.Field, kind, field, r.Message)
	}
	for _, word := range words {
		if !strings.Contains(r.Message, word) {
			w.t.Fatalf("%T refused with %q, which does not say %q", c, r.Message, word)
		}
	}
	if len(r.Message) > 600 {
		w.t.Fatalf("%T refused with %d octets of words", c, len(r.Message))
	}
	return r
}

func (w *world) domain(t Token) *Domain {
	w.t.Helper()
	d, ok := w.m.Domain(t)
	if !ok {
		w.t.Fatalf("no claim %s", t)
	}
	return d
}

// failer is what an ordinary test and a property have in common.
type failer interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

func image(t failer, m Machine) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.WriteImage(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// served finds an RRset among those of a claim.
func (w *world) served(t Token, owner string, typ zone.Type) (zone.RRset, bool) {
	w.t.Helper()
	for _, s := range w.m.Served(w.domain(t)) {
		if s.Owner == name(owner) && s.Type == typ {
			return s, true
		}
	}
	return zone.RRset{}, false
}

func rrset(owner string, typ zone.Type, ttl uint32, values ...string) zone.RRset {
	s, err := zone.ParseRRset(name(owner), typ, ttl, values)
	if err != nil {
		panic(err)
	}
	return s
}

func (w *world) later(seconds int64) { w.at += seconds }

const day = 24 * 3600

// text shows a refusal in a failure.
func (r Result) text() string {
	if r.Refusal == nil {
		return fmt.Sprintf("done, changed %v", r.Changed)
	}
	return r.Refusal.Message
}

// Due lists at most limit tasks from the earliest on, and the rest of the last claim's.
func (m Machine) Due(limit int, at int64) []Task { return m.DueAfter(Task{}, limit, at) }
