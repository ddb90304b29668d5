package probe

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"authd/zone"
)

// world is a small Internet on loopback: a resolver and the parent's servers,
// all on one port.
type world struct {
	t        *testing.T
	port     uint16
	resolver string // its address
}

// handler answers the one question of a message.
type handler func(m *dns.Msg, q dns.Question, tcp bool)

// start serves each address with its handler, on the same port over UDP and TCP.
func start(t *testing.T, handlers map[string]handler) *world {
	t.Helper()
	for range 20 {
		if port, ok := tryStart(t, handlers); ok {
			return &world{t: t, port: port, resolver: "127.0.0.1"}
		}
	}
	t.Fatal("no port is free on all addresses")
	return nil
}

func tryStart(t *testing.T, handlers map[string]handler) (uint16, bool) {
	var port uint16
	var servers []*dns.Server
	for address, h := range handlers {
		serve := dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(r)
			_, tcp := w.RemoteAddr().(*net.TCPAddr)
			h(m, r.Question[0], tcp)
			if m.Rcode != mute {
				w.WriteMsg(m)
			}
		})
		packets, err := net.ListenPacket("udp", fmt.Sprintf("%s:%d", address, port))
		if err != nil {
			break
		}
		servers = append(servers, &dns.Server{PacketConn: packets, Handler: serve})
		port = packets.LocalAddr().(*net.UDPAddr).AddrPort().Port()
		stream, err := net.Listen("tcp", fmt.Sprintf("%s:%d", address, port))
		if err != nil {
			break
		}
		servers = append(servers, &dns.Server{Listener: stream, Handler: serve})
	}
	if len(servers) != 2*len(handlers) {
		for _, s := range servers {
			if s.PacketConn != nil {
				s.PacketConn.Close()
			} else {
				s.Listener.Close()
			}
		}
		return 0, false
	}
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go s.ActivateAndServe()
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	return port, true
}

const mute = 4095 // a code that no handler sends: no answer at all

func (w *world) ask(domain string) (Delegation, error) {
	w.t.Helper()
	p, err := New(Config{
		Resolvers:  []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(w.resolver), w.port)},
		Timeout:    300 * time.Millisecond,
		ServerPort: w.port,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	name, err := zone.ParseName(domain)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Ask(w.t.Context(), name)
}

func rr(text string) dns.RR {
	record, err := dns.NewRR(text)
	if err != nil {
		panic(err)
	}
	return record
}

const soa = " 300 IN SOA ns.customer.test. mail.customer.test. 1 2 3 4 5"

// resolver knows customer.test with the servers given as name=address.
func resolver(servers ...string) handler {
	return func(m *dns.Msg, q dns.Question, tcp bool) {
		m.RecursionAvailable = true
		name := strings.ToLower(q.Name)
		switch {
		case name == "customer.test." && q.Qtype == dns.TypeSOA:
			m.Answer = append(m.Answer, rr("customer.test."+soa))
		case name == "customer.test." && q.Qtype == dns.TypeNS:
			for _, s := range servers {
				host, _, _ := strings.Cut(s, "=")
				m.Answer = append(m.Answer, rr("customer.test. 300 IN NS "+host))
			}
		case dns.IsSubDomain("customer.test.", name):
			m.Ns = append(m.Ns, rr("customer.test."+soa))
		default:
			for _, s := range servers {
				host, address, _ := strings.Cut(s, "=")
				if name == host && q.Qtype == dns.TypeA && address != "" {
					m.Answer = append(m.Answer, rr(host+" 300 IN A "+address))
				}
			}
		}
	}
}

// referral delegates send.customer.test.
func referral(targets ...string) handler {
	return func(m *dns.Msg, q dns.Question, tcp bool) {
		for _, target := range targets {
			m.Ns = append(m.Ns, rr("send.customer.test. 300 IN NS "+target))
		}
	}
}

func negative(rcode int) handler {
	return func(m *dns.Msg, q dns.Question, tcp bool) {
		m.Rcode, m.Authoritative = rcode, true
		m.Ns = append(m.Ns, rr("customer.test."+soa))
	}
}

func names(d Delegation) string {
	var all []string
	for _, n := range d.NS {
		all = append(all, n.String())
	}
	return strings.Join(all, " ")
}

func TestReferralGivesTheDelegation(t *testing.T) {
	var recursive atomic.Bool
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) {
			recursive.Store(m.RecursionDesired)
			referral("T.NS1.p-dns.test.", "t.ns2.p-dns.test.")(m, q, tcp)
		},
	})
	d, err := w.ask("send.customer.test")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := names(d), "t.ns1.p-dns.test. t.ns2.p-dns.test."; got != want {
		t.Errorf("NS are %q, want %q", got, want)
	}
	if d.Parent.String() != "customer.test." {
		t.Errorf("parent is %s, want customer.test.", d.Parent)
	}
	if want := []string{"a.dns.test./127.0.0.2"}; !slices.Equal(d.Servers, want) {
		t.Errorf("servers are %v, want %v", d.Servers, want)
	}
	if recursive.Load() {
		t.Error("the parent was asked with recursion")
	}
}

func TestParentFoundAboveMissingLevels(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) {
			m.Ns = append(m.Ns, rr("a.b.c.customer.test. 300 IN NS t.ns1.p-dns.test."))
		},
	})
	d, err := w.ask("a.b.c.customer.test")
	if err != nil {
		t.Fatal(err)
	}
	if d.Parent.String() != "customer.test." || names(d) != "t.ns1.p-dns.test." {
		t.Errorf("parent %s, NS %q", d.Parent, names(d))
	}
}

func TestServerOfParentAndChildAnswersWithAuthority(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) {
			m.Authoritative = true
			m.Answer = append(m.Answer, rr("send.customer.test. 300 IN NS t.ns1.p-dns.test."))
		},
	})
	d, err := w.ask("send.customer.test")
	if err != nil || names(d) != "t.ns1.p-dns.test." {
		t.Errorf("NS %q, error %v", names(d), err)
	}
}

func TestServersThatDisagreeAreUnited(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2", "b.dns.test.=127.0.0.3"),
		"127.0.0.2": referral("t.ns1.p-dns.test.", "other.test."),
		"127.0.0.3": referral("t.ns1.p-dns.test.", "t.ns2.p-dns.test."),
	})
	d, err := w.ask("send.customer.test")
	if err != nil {
		t.Fatal(err)
	}
	if got := names(d); len(d.NS) != 3 || len(d.Servers) != 2 {
		t.Errorf("NS %q from %v, want the union of both", got, d.Servers)
	}
}

func TestCleanNegativeIsAnEmptySet(t *testing.T) {
	for name, rcode := range map[string]int{"nodata": dns.RcodeSuccess, "nxdomain": dns.RcodeNameError} {
		t.Run(name, func(t *testing.T) {
			w := start(t, map[string]handler{
				"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
				"127.0.0.2": negative(rcode),
			})
			d, err := w.ask("send.customer.test")
			if err != nil {
				t.Fatal(err)
			}
			if len(d.NS) != 0 || len(d.Servers) != 1 {
				t.Errorf("NS %q from %v, want none from one server", names(d), d.Servers)
			}
		})
	}
}

func TestTruncatedReferralIsReadOverTCP(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) {
			if m.Truncated = !tcp; tcp {
				referral("t.ns1.p-dns.test.")(m, q, tcp)
			}
		},
	})
	d, err := w.ask("send.customer.test")
	if err != nil || names(d) != "t.ns1.p-dns.test." {
		t.Errorf("NS %q, error %v", names(d), err)
	}
}

func TestServerSilentOverUDPIsReadOverTCP(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2"),
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) {
			if tcp {
				referral("t.ns1.p-dns.test.")(m, q, tcp)
			} else {
				m.Rcode = mute
			}
		},
	})
	d, err := w.ask("send.customer.test")
	if err != nil || names(d) != "t.ns1.p-dns.test." {
		t.Errorf("NS %q, error %v", names(d), err)
	}
}

func TestOneServerThatAnswersIsEnough(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": resolver("a.dns.test.=127.0.0.2", "b.dns.test.=127.0.0.3", "nowhere.dns.test.="),
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) { m.Rcode = dns.RcodeRefused },
		"127.0.0.3": referral("t.ns1.p-dns.test."),
	})
	d, err := w.ask("send.customer.test")
	if err != nil || names(d) != "t.ns1.p-dns.test." || len(d.Servers) != 1 {
		t.Errorf("NS %q from %v, error %v", names(d), d.Servers, err)
	}
}

func TestCouldNotAskIsAnError(t *testing.T) {
	answers := map[string]handler{
		"refused":       func(m *dns.Msg, q dns.Question, tcp bool) { m.Rcode = dns.RcodeRefused },
		"servfail":      func(m *dns.Msg, q dns.Question, tcp bool) { m.Rcode = dns.RcodeServerFailure },
		"silent":        func(m *dns.Msg, q dns.Question, tcp bool) { m.Rcode = mute },
		"no authority":  func(m *dns.Msg, q dns.Question, tcp bool) {},
		"always cut":    func(m *dns.Msg, q dns.Question, tcp bool) { m.Truncated = true },
		"other answer":  func(m *dns.Msg, q dns.Question, tcp bool) { m.Question[0].Name = "x.test." },
		"refers upward": func(m *dns.Msg, q dns.Question, tcp bool) { m.Ns = append(m.Ns, rr(". 300 IN NS a.root.test.")) },
	}
	for name, h := range answers {
		t.Run(name, func(t *testing.T) {
			w := start(t, map[string]handler{"127.0.0.1": resolver("a.dns.test.=127.0.0.2"), "127.0.0.2": h})
			if d, err := w.ask("send.customer.test"); err == nil {
				t.Errorf("got %v, want an error", d)
			} else if !strings.Contains(err.Error(), "a.dns.test./127.0.0.2") {
				t.Errorf("error %q does not name the server", err)
			}
		})
	}
}

func TestResolverTroubleIsAnError(t *testing.T) {
	fails := map[string]handler{
		"servfail":   func(m *dns.Msg, q dns.Question, tcp bool) { m.Rcode = dns.RcodeServerFailure },
		"silent":     func(m *dns.Msg, q dns.Question, tcp bool) { m.Rcode = mute },
		"empty":      func(m *dns.Msg, q dns.Question, tcp bool) {},
		"no servers": resolver(),
		"no address": resolver("a.dns.test.="),
	}
	for name, h := range fails {
		t.Run(name, func(t *testing.T) {
			w := start(t, map[string]handler{"127.0.0.1": h})
			if d, err := w.ask("send.customer.test"); err == nil {
				t.Errorf("got %v, want an error", d)
			}
		})
	}
}

func TestHostileParentCostsABoundedNumberOfQuestions(t *testing.T) {
	var asked atomic.Int64
	var many []string
	for i := range 200 {
		many = append(many, fmt.Sprintf("s%d.dns.test.=127.0.0.2", i))
	}
	know := resolver(many...)
	w := start(t, map[string]handler{
		"127.0.0.1": func(m *dns.Msg, q dns.Question, tcp bool) {
			asked.Add(1)
			if know(m, q, tcp); q.Qtype == dns.TypeNS && !tcp {
				m.Truncate(dns.MinMsgSize)
			}
		},
		"127.0.0.2": func(m *dns.Msg, q dns.Question, tcp bool) {
			asked.Add(1)
			referral("t.ns1.p-dns.test.")(m, q, tcp)
		},
	})
	d, err := w.ask("send.customer.test")
	if err != nil || len(d.Servers) != maxServers {
		t.Errorf("%d servers asked, want %d; error %v", len(d.Servers), maxServers, err)
	}
	if got, most := asked.Load(), int64(3+3*maxServers); got > most {
		t.Errorf("%d questions, want at most %d", got, most)
	}
}

func TestDeadlineOfTheCallerHolds(t *testing.T) {
	w := start(t, map[string]handler{
		"127.0.0.1": func(m *dns.Msg, q dns.Question, tcp bool) { m.Rcode = mute },
	})
	began := time.Now()
	if _, err := w.ask("a.b.c.d.e.f.g.h.customer.test"); err == nil {
		t.Error("got an answer from nobody")
	}
	if took, most := time.Since(began), totalTimeouts*300*time.Millisecond+time.Second; took > most {
		t.Errorf("took %s, want at most %s", took, most)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for name, c := range map[string]Config{
		"negative timeout": {Timeout: -1},
		"endless timeout":  {Timeout: time.Hour},
		"no port":          {Resolvers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), 0)}},
		"no address":       {Resolvers: []netip.AddrPort{{}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(c); err == nil {
				t.Error("accepted")
			}
		})
	}
}
