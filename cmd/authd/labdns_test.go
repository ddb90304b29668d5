package main_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// A relay stands at port 53 of an address, passes DNS messages on to where the
// server really listens, and notes every question: an exact count of what
// reaches a server, whatever the server or the resolver would log.

// asked is one question that reached a server.
type asked struct {
	server string // the relay's name
	tcp    bool
	name   string
	qtype  uint16
}

func (a asked) String() string {
	return fmt.Sprintf("%s ← %s %s", a.server, a.name, dns.TypeToString[a.qtype])
}

// backend is where a relay passes messages on to; it can be changed meanwhile.
type backend struct{ at atomic.Pointer[string] }

func newBackend(at string) *backend {
	b := new(backend)
	b.set(at)
	return b
}

func (b *backend) set(at string) { b.at.Store(&at) }
func (b *backend) get() string   { return *b.at.Load() }

// ledger collects what relays saw.
type ledger struct {
	mu   sync.Mutex // guards what follows; the relays' goroutines take it
	seen []asked
	last time.Time
}

func (g *ledger) note(server string, tcp bool, message []byte) {
	a := asked{server: server, tcp: tcp, name: "?"}
	var m dns.Msg
	if err := m.Unpack(message); err == nil && len(m.Question) == 1 {
		a.name, a.qtype = strings.ToLower(m.Question[0].Name), m.Question[0].Qtype
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, a)
	g.last = time.Now()
}

// all is what was seen since the last forget.
func (g *ledger) all() []asked {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]asked(nil), g.seen...)
}

func (g *ledger) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = nil
}

// settle waits until nothing was seen for a while, at most 5 s: resolvers go on
// asking in the background after they have answered.
func (g *ledger) settle(quiet time.Duration) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(quiet / 10) {
		g.mu.Lock()
		still := time.Since(g.last) > quiet
		g.mu.Unlock()
		if still {
			return
		}
	}
}

// relay starts a relay at port 53 of the addresses to a server.
func (l *lab) relay(g *ledger, name string, to *backend, addresses ...string) {
	l.Helper()
	for _, address := range addresses {
		if strings.Contains(address, ":") { // of IPv6, lo has only what it was given
			l.run("ip", "-6", "addr", "replace", address+"/128", "dev", "lo", "nodad")
		}
		at := net.JoinHostPort(address, "53")
		pc, err := net.ListenPacket("udp", at)
		if err != nil {
			l.Fatalf("relay %s: %v", name, err)
		}
		ln, err := net.Listen("tcp", at)
		if err != nil {
			l.Fatalf("relay %s: %v", name, err)
		}
		l.Cleanup(func() { pc.Close(); ln.Close() })
		go relayDatagrams(g, name, to, pc)
		go relayStreams(g, name, to, ln)
	}
}

func relayDatagrams(g *ledger, name string, to *backend, pc net.PacketConn) {
	buf := make([]byte, 65535)
	for {
		n, from, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		message := append([]byte(nil), buf[:n]...)
		g.note(name, false, message)
		go func() {
			c, err := net.Dial("udp", to.get())
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(3 * time.Second))
			c.Write(message)
			reply := make([]byte, 65535)
			if n, err := c.Read(reply); err == nil {
				pc.WriteTo(reply[:n], from)
			}
		}()
	}
}

func relayStreams(g *ledger, name string, to *backend, ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			s, err := net.Dial("tcp", to.get())
			if err != nil {
				return
			}
			defer s.Close()
			go io.Copy(c, s)
			for {
				frame := make([]byte, 2)
				if _, err := io.ReadFull(c, frame); err != nil {
					return
				}
				message := make([]byte, binary.BigEndian.Uint16(frame))
				if _, err := io.ReadFull(c, message); err != nil {
					return
				}
				g.note(name, true, message)
				if _, err := s.Write(append(frame, message...)); err != nil {
					return
				}
			}
		}()
	}
}

// knot starts a Knot with zones (apex to master file text) at an address and
// port, and waits until it answers for all of them.
func (l *lab) knot(name, at string, zones map[string]string) *process {
	l.Helper()
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		l.Fatal(err)
	}
	dir := filepath.Join(l.dir, name)
	var conf strings.Builder
	fmt.Fprintf(&conf, "server:\n  rundir: %s\n  listen: %s@%s\n  udp-workers: 1\n  tcp-workers: 1\n  background-workers: 1\n", dir, host, port)
	fmt.Fprintf(&conf, "database:\n  storage: %s\nlog:\n  - target: stderr\n    any: warning\n", dir)
	fmt.Fprintf(&conf, "template:\n  - id: default\n    storage: %s\n    zonefile-sync: -1\n    journal-content: none\nzone:\n", dir)
	i := 0
	for apex, text := range zones {
		file := fmt.Sprintf("%d.zone", i)
		i++
		l.write(filepath.Join(name, file), "$TTL 3600\n$ORIGIN "+apex+"\n"+text)
		fmt.Fprintf(&conf, "  - domain: %s\n    file: %s\n", apex, file)
	}
	p := l.start(name, exec.Command(l.program("knotd"), "-c", l.write(filepath.Join(name, "knot.conf"), conf.String())))
	for apex := range zones {
		l.eventually(15*time.Second, name+" answering for "+apex, func() error {
			if !p.running() {
				return fmt.Errorf("it ended: %w", errStop)
			}
			r, err := ask("udp", at, apex, dns.TypeSOA)
			if err == nil && (r.Rcode != dns.RcodeSuccess || len(r.Answer) == 0) {
				err = fmt.Errorf("it answers %s", dns.RcodeToString[r.Rcode])
			}
			return err
		})
	}
	return p
}

// soa is the SOA record of every zone of the lab's own.
const soa = "@ SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 300\n"

// resolverAddress is where the lab's unbound answers.
const resolverAddress = "192.0.2.100:53"

// unbound starts a resolver with an empty cache and Debian's defaults but for
// DNSSEC (the lab's zones are not signed), the root hints, and the built-in
// zone "test." (RFC 6761). Extra are further lines of its server clause.
func (l *lab) unbound(hints string, extra ...string) *process {
	l.Helper()
	dir, err := os.MkdirTemp(l.dir, "unbound-")
	if err != nil {
		l.Fatal(err)
	}
	// A copy is not confined to /etc/unbound by the distribution's AppArmor profile.
	binary := filepath.Join(l.dir, "unbound")
	if _, err := os.Stat(binary); err != nil {
		l.run("cp", l.program("unbound"), binary)
	}
	host, port, _ := net.SplitHostPort(resolverAddress)
	conf := fmt.Sprintf(`server:
  interface: %s@%s
  access-control: 0.0.0.0/0 allow
  access-control: ::0/0 allow
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  module-config: "iterator"
  local-zone: "test." nodefault
  root-hints: %q
  %s
remote-control:
  control-enable: no
`, host, port, dir, l.write(filepath.Join(filepath.Base(dir), "root.hints"), hints), strings.Join(extra, "\n  "))
	p := l.start("unbound", exec.Command(binary, "-d", "-c", l.write(filepath.Join(filepath.Base(dir), "unbound.conf"), conf)))
	l.eventually(15*time.Second, "unbound answering", func() error {
		if !p.running() {
			return fmt.Errorf("it ended: %w", errStop)
		}
		// A name that unbound answers itself (RFC 6761 section 6.3): no question leaves.
		_, err := ask("udp", resolverAddress, "localhost.", dns.TypeA)
		return err
	})
	return p
}

// ask asks one question without recursion desired being refused: RD is set, as
// dig does, and ignored by authoritative servers.
func ask(network, server, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, false)
	c := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 1232}
	r, _, err := c.Exchange(m, server)
	return r, err
}
