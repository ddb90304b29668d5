// Package probe asks the servers of a customer's parent zone what they say of a
// domain: whether the delegation carries the token that proves a claim. It only
// asks; what the answer means is decided by cluster/state.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"authd/zone"
)

// Config is what New needs.
type Config struct {
	// Resolvers find the parent's servers, each host:port. Empty: those of
	// /etc/resolv.conf.
	Resolvers []netip.AddrPort
	// Timeout bounds one question; 0 means 2 s.
	Timeout time.Duration
	// ServerPort is the port on which the parent's servers are asked; 0 means 53.
	ServerPort uint16
}

// Bounds of one Ask. What a parent's operator publishes decides how much we
// ask, and anybody may be a parent.
const (
	defaultTimeout = 2 * time.Second
	maxTimeout     = 10 * time.Second
	totalTimeouts  = 8 // an Ask takes at most so many times the timeout
	maxResolvers   = 3 // as resolv.conf(5)
	maxServers     = 13
	maxAddresses   = 4 // a server
	maxNS          = 32
	parallel       = 8
	maxCauses      = 4 // told of in one error
	dnsPort        = 53
	resolvConf     = "/etc/resolv.conf"
)

// Prober asks. It is safe for concurrent use.
type Prober struct{ config Config }

// New checks the configuration.
func New(c Config) (*Prober, error) {
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Timeout < 0 || c.Timeout > maxTimeout {
		return nil, fmt.Errorf("checking prober configuration: Timeout %s is not between 0 and %s", c.Timeout, maxTimeout)
	}
	if c.ServerPort == 0 {
		c.ServerPort = dnsPort
	}
	if len(c.Resolvers) == 0 {
		var err error
		if c.Resolvers, err = systemResolvers(); err != nil {
			return nil, fmt.Errorf("no Resolvers given, reading those of the system: %w", err)
		}
	}
	for _, r := range c.Resolvers {
		if !r.IsValid() || r.Port() == 0 {
			return nil, fmt.Errorf("checking prober configuration: %s in Resolvers is not an address with a port", r)
		}
	}
	c.Resolvers = slices.Clone(c.Resolvers[:min(len(c.Resolvers), maxResolvers)])
	return &Prober{config: c}, nil
}

func systemResolvers() ([]netip.AddrPort, error) {
	file, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return nil, err
	}
	var resolvers []netip.AddrPort
	for _, text := range file.Servers {
		if addr, err := netip.ParseAddr(text); err == nil {
			resolvers = append(resolvers, netip.AddrPortFrom(addr, dnsPort))
		}
	}
	if len(resolvers) == 0 {
		return nil, fmt.Errorf("%s names no server", resolvConf)
	}
	return resolvers, nil
}

// Delegation is what the parent's servers say of a name.
type Delegation struct {
	Parent  zone.Name   // the zone cut above the name
	Servers []string    // the servers that answered, "name/address"
	NS      []zone.Name // the union of the NS targets they gave, sorted
}

// Ask finds the zone above domain through the resolvers and asks every one of
// its servers, without recursion, for the domain's NS set. It fails only where
// nobody could be asked ("could not ask" is never "not delegated"); a parent
// that answers without a delegation gives an empty NS.
func (p *Prober) Ask(ctx context.Context, domain zone.Name) (Delegation, error) {
	if domain == "" || domain == zone.Root {
		return Delegation{}, errors.New("probing delegation: the root has no parent")
	}
	ctx, cancel := context.WithTimeout(ctx, totalTimeouts*p.config.Timeout)
	defer cancel()
	parent, err := p.parent(ctx, domain)
	if err != nil {
		return Delegation{}, fmt.Errorf("finding the zone above %s: %w", domain, err)
	}
	servers, err := p.servers(ctx, parent)
	if err != nil {
		return Delegation{}, fmt.Errorf("finding the servers of %s: %w", parent, err)
	}
	replies := make([]reply, len(servers))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, s := range servers {
		group.Go(func() error {
			replies[i] = p.askServer(ctx, s, parent, domain)
			return nil
		})
	}
	group.Wait()
	return merge(parent, domain, servers, replies)
}

// merge makes one delegation of the replies: clean ones count, others only where
// there is no clean one.
func merge(parent, domain zone.Name, servers []server, replies []reply) (Delegation, error) {
	d := Delegation{Parent: parent}
	var causes []error
	for i, r := range replies {
		if r.err != nil {
			causes = append(causes, fmt.Errorf("%s: %w", servers[i], r.err))
			continue
		}
		d.Servers = append(d.Servers, servers[i].String())
		d.NS = append(d.NS, r.ns...)
	}
	if len(d.Servers) == 0 {
		return Delegation{}, fmt.Errorf("asking the servers of %s for %s NS: %w", parent, domain, join(causes))
	}
	slices.Sort(d.NS)
	d.NS = slices.Compact(d.NS)
	return d, nil
}

// parent finds the zone that the name above domain lies in: a resolver says so
// with the owner of the SOA record, as the answer at an apex and beside a
// negative answer elsewhere (RFC 2308 section 3).
func (p *Prober) parent(ctx context.Context, domain zone.Name) (zone.Name, error) {
	for at := domain.Parent(); ; at = at.Parent() {
		m, err := p.resolve(ctx, at, dns.TypeSOA)
		if err != nil {
			return "", err
		}
		for _, rr := range slices.Concat(m.Answer, m.Ns) {
			if rr.Header().Rrtype != dns.TypeSOA {
				continue
			}
			// After a CNAME the SOA is of somebody else's zone.
			if owner, err := zone.ParseName(rr.Header().Name); err == nil && at.In(owner) {
				return owner, nil
			}
		}
		if at == zone.Root {
			return "", errors.New("the resolver names no zone, not even the root")
		}
	}
}

// server is one address of one of the parent's servers.
type server struct {
	name    zone.Name
	address netip.Addr
}

func (s server) String() string { return s.name.String() + "/" + s.address.String() }

// servers are the addresses of the servers of a zone. Names without addresses
// are passed over while there are others.
func (p *Prober) servers(ctx context.Context, apex zone.Name) ([]server, error) {
	m, err := p.resolve(ctx, apex, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	names := targets(m.Answer, apex)
	if len(names) == 0 {
		return nil, errors.New("the resolver knows no NS records")
	}
	names = names[:min(len(names), maxServers)]
	found := make([][]server, len(names))
	causes := make([]error, len(names))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, name := range names {
		group.Go(func() error {
			found[i], causes[i] = p.addresses(ctx, name)
			return nil
		})
	}
	group.Wait()
	all := slices.Concat(found...)
	if len(all) == 0 {
		return nil, fmt.Errorf("no address for %d names: %w", len(names), join(causes))
	}
	return all, nil
}

// addresses asks for both families; one family failing is no matter where the
// other has an address.
func (p *Prober) addresses(ctx context.Context, name zone.Name) ([]server, error) {
	var found []server
	var causes []error
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		m, err := p.resolve(ctx, name, t)
		if err != nil {
			causes = append(causes, err)
			continue
		}
		for _, rr := range m.Answer {
			var address netip.Addr
			switch rr := rr.(type) {
			case *dns.A:
				address, _ = netip.AddrFromSlice(rr.A.To4())
			case *dns.AAAA:
				address, _ = netip.AddrFromSlice(rr.AAAA.To16())
			}
			if address.IsValid() && len(found) < maxAddresses {
				found = append(found, server{name, address})
			}
		}
	}
	return found, join(causes)
}

// resolve asks the resolvers in turn. An answer is NOERROR or NXDOMAIN.
func (p *Prober) resolve(ctx context.Context, name zone.Name, t uint16) (*dns.Msg, error) {
	var causes []error
	for _, resolver := range p.config.Resolvers {
		m, err := p.exchange(ctx, resolver, name, t, true)
		if err == nil && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
			err = fmt.Errorf("resolver %s answers %s", resolver, rcodeText(m.Rcode))
		}
		if err == nil {
			return m, nil
		}
		causes = append(causes, err)
	}
	return nil, fmt.Errorf("resolving %s %s: %w", name, dns.TypeToString[t], join(causes))
}

// reply is what one server says: targets, none for a clean negative, or why it
// says nothing that counts.
type reply struct {
	ns  []zone.Name
	err error
}

func addrPort(s server, port uint16) netip.AddrPort { return netip.AddrPortFrom(s.address, port) }

func (p *Prober) askServer(ctx context.Context, s server, parent, domain zone.Name) reply {
	m, err := p.exchange(ctx, addrPort(s, p.config.ServerPort), domain, dns.TypeNS, false)
	if err != nil {
		return reply{err: err}
	}
	return read(m, parent, domain)
}

// read takes the NS set from the answer, where the server is an authority for
// the child too, or from a referral (RFC 1034 section 4.3.2 step 3b).
func read(m *dns.Msg, parent, domain zone.Name) reply {
	if m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return reply{err: fmt.Errorf("answers %s", rcodeText(m.Rcode))}
	}
	if ns := targets(slices.Concat(m.Answer, m.Ns), domain); len(ns) > 0 {
		return reply{ns: ns}
	}
	if m.Authoritative {
		return reply{} // the zone is its own and holds no delegation
	}
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeNS {
			return reply{err: fmt.Errorf("refers to %s instead of answering for %s", strings.ToLower(rr.Header().Name), parent)}
		}
	}
	return reply{err: fmt.Errorf("is no authority for %s", parent)}
}

// targets are the targets of the NS records of one owner.
func targets(records []dns.RR, owner zone.Name) []zone.Name {
	var names []zone.Name
	for _, rr := range records {
		ns, ok := rr.(*dns.NS)
		if !ok || len(names) == maxNS {
			continue
		}
		if at, err := zone.ParseName(ns.Hdr.Name); err != nil || at != owner {
			continue
		}
		if name, err := zone.ParseName(ns.Ns); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// exchange asks one question: over UDP, and over TCP where the answer was cut
// off or did not come.
func (p *Prober) exchange(ctx context.Context, to netip.AddrPort, name zone.Name, t uint16, recurse bool) (*dns.Msg, error) {
	question := new(dns.Msg)
	question.SetQuestion(name.String(), t)
	question.RecursionDesired = recurse
	question.SetEdns0(zone.MaxUDP, false)
	var causes []error
	for _, proto := range []string{"udp", "tcp"} {
		client := dns.Client{Net: proto, Timeout: p.config.Timeout}
		m, _, err := client.ExchangeContext(ctx, question, to.String())
		if err == nil {
			err = matches(m, question)
		}
		if err == nil && m.Truncated {
			err = errors.New("answer cut off")
		}
		if err == nil {
			return m, nil
		}
		causes = append(causes, fmt.Errorf("%s: %w", proto, err))
	}
	return nil, fmt.Errorf("asking %s for %s %s: %w", to, name, dns.TypeToString[t], join(causes))
}

// join tells the first causes; the rest are like them.
func join(causes []error) error {
	var told []error
	for _, err := range causes {
		if err != nil && len(told) < maxCauses {
			told = append(told, err)
		}
	}
	return errors.Join(told...)
}

// matches checks that a message replies to the question; the client has checked
// the id. An error may come without the question (RFC 1035 section 4.1.1).
func matches(m, question *dns.Msg) error {
	switch {
	case !m.Response:
		return errors.New("got a query for an answer")
	case len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess:
		return nil
	case len(m.Question) != 1:
		return fmt.Errorf("got an answer to %d questions", len(m.Question))
	}
	got, asked := m.Question[0], question.Question[0]
	if got.Qtype != asked.Qtype || got.Qclass != asked.Qclass || !strings.EqualFold(got.Name, asked.Name) {
		return errors.New("got an answer to another question")
	}
	return nil
}

// rcodeText names a response code.
func rcodeText(rcode int) string {
	if text, ok := dns.RcodeToString[rcode]; ok {
		return text
	}
	return fmt.Sprintf("RCODE%d", rcode)
}
