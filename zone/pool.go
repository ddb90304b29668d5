package zone

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Pool is what RenderPool makes of a PoolPlan: the RRsets that its domains share,
// ready to copy. Immutable.
type Pool struct {
	number     uint32
	serial     uint32
	mx         records
	spf        records
	clickA     records
	clickAAAA  records
	clickCNAME records
	policy     records
	includes   []RRset
}

// RenderPool checks a pool's plan and makes the answers its domains share.
func RenderPool(p PoolPlan) (*Pool, error) {
	if p.Form != Form {
		return nil, fmt.Errorf("rendering pool %s: form %d, this release knows %d", quote(p.ID), p.Form, Form)
	}
	out := &Pool{number: p.Number, serial: p.Serial}
	for _, step := range []func(*PoolPlan) error{out.renderSPF, out.renderMX, out.renderClick, out.renderPolicy} {
		if err := step(&p); err != nil {
			return nil, fmt.Errorf("rendering pool %s: %w", quote(p.ID), err)
		}
	}
	return out, nil
}

// Includes are the RRsets that the pool needs in the platform zone of its
// IncludeBase: parts of an SPF record too long for one.
func (p *Pool) Includes() []RRset { return p.includes }

// maxIncludes is how many look-ups an SPF record may cost a receiver (RFC 7208
// section 4.6.4); all of them may go into includes, as nothing else costs one.
const maxIncludes = 10

func (p *Pool) renderSPF(plan *PoolPlan) error {
	if len(plan.SPF) == 0 && plan.SPFAll == "" {
		return nil // a pool without SPF: nothing is published
	}
	if plan.SPFAll != "~all" && plan.SPFAll != "-all" {
		return fmt.Errorf(`spf_all %s: "~all" or "-all"`, quote(plan.SPFAll))
	}
	for _, m := range plan.SPF {
		if err := checkMechanism(m); err != nil {
			return err
		}
	}
	text := spfText(plan.SPF, plan.SPFAll)
	if len(text) > SPFLimit {
		if plan.IncludeBase == "" {
			return fmt.Errorf("spf: %d octets, and without a platform zone it cannot be split", len(text))
		}
		var err error
		if text, err = p.splitSPF(plan); err != nil {
			return err
		}
	}
	p.spf = textRecords(TTLMail, text)
	return nil
}

// checkMechanism takes literal addresses only: they cost the receiver no look-up.
func checkMechanism(m string) error {
	family, text, _ := strings.Cut(m, ":")
	address, prefix, hasPrefix := strings.Cut(text, "/")
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Zone() != "" || (family != "ip4" || !ip.Is4()) && (family != "ip6" || !ip.Is6() || ip.Is4In6()) {
		return fmt.Errorf("spf mechanism %s: only literal addresses, ip4:192.0.2.0/24 or ip6:2001:db8::/32", quote(m))
	}
	if !hasPrefix {
		return nil
	}
	bits, err := strconv.Atoi(prefix)
	if err != nil || bits < 1 || bits > ip.BitLen() || strconv.Itoa(bits) != prefix {
		return fmt.Errorf("spf mechanism %s: prefix length 1 to %d", quote(m), ip.BitLen())
	}
	return nil
}

func spfText(mechanisms []string, all string) string {
	return strings.Join(append(append([]string{"v=spf1"}, mechanisms...), all), " ")
}

// splitSPF publishes the mechanisms in parts. A part ends in -all, because an
// include matches only what passes (RFC 7208 section 5.2).
func (p *Pool) splitSPF(plan *PoolPlan) (string, error) {
	var includes []string
	for rest := plan.SPF; len(rest) > 0; {
		n := len(rest)
		for len(spfText(rest[:n], "-all")) > SPFLimit {
			n--
		}
		owner, err := plan.IncludeBase.Child(strconv.Itoa(len(includes) + 1))
		if err != nil {
			return "", err
		}
		p.includes = append(p.includes, TextRRset(owner, TTLMail, spfText(rest[:n], "-all")))
		includes = append(includes, "include:"+owner.Host())
		rest = rest[n:]
	}
	text := spfText(includes, plan.SPFAll)
	if len(includes) > maxIncludes || len(text) > SPFLimit {
		return "", fmt.Errorf("spf: %d mechanisms need %d includes, receivers follow %d (RFC 7208 section 4.6.4): merge address ranges",
			len(plan.SPF), len(includes), maxIncludes)
	}
	return text, nil
}

func (p *Pool) renderMX(plan *PoolPlan) error {
	var data [][]byte
	for _, mx := range plan.MX {
		if n, ok := nameIn([]byte(mx.Host)); !ok || n != mx.Host {
			return fmt.Errorf("mx: host %q is no name", mx.Host)
		}
		if mx.Host == Root && len(plan.MX) > 1 {
			return fmt.Errorf("mx: a null MX stands alone (RFC 7505 section 3)")
		}
		data = append(data, append([]byte{byte(mx.Preference >> 8), byte(mx.Preference)}, mx.Host...))
	}
	if len(data) > maxRecords {
		return fmt.Errorf("mx: %d hosts, at most %d", len(data), maxRecords)
	}
	p.mx = wireRecords(TypeMX, TTLMail, sortData(data))
	return nil
}

func (p *Pool) renderClick(plan *PoolPlan) error {
	if plan.ClickCNAME != "" {
		if len(plan.ClickA) > 0 {
			return fmt.Errorf("click: addresses beside a CNAME; give one of the two (RFC 1034 section 3.6.2)")
		}
		if n, ok := nameIn([]byte(plan.ClickCNAME)); !ok || n != plan.ClickCNAME || n == Root {
			return fmt.Errorf("click: CNAME %q is no name of a host", plan.ClickCNAME)
		}
		p.clickCNAME = wireRecords(TypeCNAME, TTLClick, [][]byte{[]byte(plan.ClickCNAME)})
		return nil
	}
	var err error
	p.clickA, p.clickAAAA, err = addressRecords(TTLClick, plan.ClickA)
	if err != nil {
		return fmt.Errorf("click: %w", err)
	}
	return nil
}

func (p *Pool) renderPolicy(plan *PoolPlan) error {
	if plan.DMARC == "" {
		return nil
	}
	if err := checkPolicy(plan.DMARC); err != nil {
		return err
	}
	p.policy = textRecords(TTLPolicy, plan.DMARC)
	return nil
}

func textRecords(ttl uint32, text string) records {
	return wireRecords(TypeTXT, ttl, [][]byte{textData(text)})
}

// addressData sorts addresses into the RDATA of A and AAAA records.
func addressData(addresses []netip.Addr) (four, six [][]byte, err error) {
	for _, a := range addresses {
		switch {
		case a.Is4():
			four = append(four, a.AsSlice())
		case a.Is6() && !a.Is4In6() && a.Zone() == "":
			six = append(six, a.AsSlice())
		default:
			return nil, nil, fmt.Errorf("address %q: neither IPv4 nor plain IPv6", a)
		}
	}
	if len(addresses) > maxRecords {
		return nil, nil, fmt.Errorf("%d addresses, at most %d", len(addresses), maxRecords)
	}
	return sortData(four), sortData(six), nil
}

func addressRecords(ttl uint32, addresses []netip.Addr) (a, aaaa records, err error) {
	four, six, err := addressData(addresses)
	if err != nil {
		return records{}, records{}, err
	}
	return wireRecords(TypeA, ttl, four), wireRecords(TypeAAAA, ttl, six), nil
}
