package zone

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// scenario is one file of testdata/answers: a plan and what is asked of it. The
// format is described in testdata/answers/README.md.
type scenario struct {
	platforms []*PlatformPlan
	servers   []NameServer
	pools     []*PoolPlan
	domains   []*Plan
	tenants   []string
	questions []scenarioQuestion
}

// scenarioQuestion is one question with the reply expected.
type scenarioQuestion struct {
	line    int
	name    string
	qtype   Type
	ways    []string // "udp", "udp512", "tcp"
	replies []string // lines as printReply makes them
}

var tokenMacro, runMacro = regexp.MustCompile(`\{([a-z]+)\}`), regexp.MustCompile(`\{(.)\*(\d+)\}`)

// tokenOf is the token that {label} stands for.
func tokenOf(label string) string { return (label + strings.Repeat("2", tokenLength))[:tokenLength] }

func expand(text string) string {
	text = tokenMacro.ReplaceAllStringFunc(text, func(m string) string { return tokenOf(m[1 : len(m)-1]) })
	return runMacro.ReplaceAllStringFunc(text, func(m string) string {
		n, _ := strconv.Atoi(m[3 : len(m)-1])
		return strings.Repeat(m[1:2], n)
	})
}

var tokenText = regexp.MustCompile(`\b([a-z]{1,12})2{14,25}\b`)

// contract is the reverse of expand.
func contract(text string) string {
	text = tokenText.ReplaceAllStringFunc(text, func(m string) string {
		if len(m) != tokenLength {
			return m
		}
		return "{" + strings.TrimRight(m, "2") + "}"
	})
	var b strings.Builder
	for i := 0; i < len(text); {
		n := 1
		for i+n < len(text) && text[i+n] == text[i] {
			n++
		}
		if n >= 40 {
			fmt.Fprintf(&b, "{%c*%d}", text[i], n)
		} else {
			b.WriteString(text[i : i+n])
		}
		i += n
	}
	return b.String()
}

// parseScenario reads a file. A mistake in it is the test's failure.
func parseScenario(t *testing.T, text string) *scenario {
	t.Helper()
	s := new(scenario)
	var sub func(fields []string, rest string)
	for i, line := range strings.Split(text, "\n") {
		if line = expand(line); strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "  ") && len(s.questions) > 0:
			q := &s.questions[len(s.questions)-1]
			q.replies = append(q.replies, strings.TrimSpace(line))
		case strings.HasPrefix(line, "  ") && sub != nil:
			sub(fields, strings.TrimSpace(line))
		case fields[0] == "query":
			s.questions = append(s.questions, parseQuestion(t, i+1, fields[1:]))
		case fields[0] == "reply" && len(s.questions) > 0:
			q := &s.questions[len(s.questions)-1]
			q.replies = append(q.replies, strings.Join(fields, " "))
		case fields[0] == "nameserver":
			s.servers = append(s.servers, NameServer{fields[1], parseAddresses(t, fields[2:])})
		case fields[0] == "platform":
			sub = s.platform(t, fields[1:])
		case fields[0] == "pool":
			sub = s.pool(t, fields[1:])
		case fields[0] == "delegated":
			sub = s.delegated(t, fields[1:])
		case fields[0] == "cname":
			sub = s.cname(t, fields[1:])
		default:
			t.Fatalf("line %d: %q is no directive", i+1, line)
		}
	}
	return s
}

func parseQuestion(t *testing.T, line int, fields []string) scenarioQuestion {
	typ, err := ParseType(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	ways := fields[2:]
	if len(ways) == 0 {
		ways = []string{"udp", "tcp"}
	}
	return scenarioQuestion{line: line, name: fields[0], qtype: typ, ways: ways}
}

func parseAddresses(t *testing.T, fields []string) (list []netip.Addr) {
	for _, f := range fields {
		a, err := netip.ParseAddr(f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

// options reads key=value fields over defaults, and lone words as "yes".
func options(fields []string, defaults ...string) map[string]string {
	o := make(map[string]string)
	for _, f := range append(defaults, fields...) {
		if key, value, ok := strings.Cut(f, "="); ok {
			o[key] = value
		} else {
			o[f] = "yes"
		}
	}
	return o
}

func parseNumber(t *testing.T, text string) uint32 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// parseRecord adds a line "owner TTL TYPE value" to records, owner relative to apex.
func parseRecord(t *testing.T, apex Name, sets []RRset, fields []string, line string) []RRset {
	t.Helper()
	owner := apex
	if fields[0] != "@" {
		owner = name(t, fields[0]+"."+apex.String())
	}
	typ, err := ParseType(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	_, value, _ := strings.Cut(line, " "+fields[2]+" ")
	var values []string
	at := slices.IndexFunc(sets, func(s RRset) bool { return s.Owner == owner && s.Type == typ })
	if at >= 0 {
		values = sets[at].Values()
		sets = slices.Delete(sets, at, at+1)
	}
	s, err := ParseRRset(owner, typ, parseNumber(t, fields[1]), append(values, strings.TrimSpace(value)))
	if err != nil {
		t.Fatal(err)
	}
	return append(sets, s)
}

func (s *scenario) platform(t *testing.T, fields []string) func([]string, string) {
	o := options(fields[1:], "serial=7", "contact=hostmaster."+fields[0])
	p := &PlatformPlan{Form: Form, Number: uint32(len(s.platforms) + 1), Apex: name(t, fields[0]),
		Contact: name(t, o["contact"]), Serial: parseNumber(t, o["serial"]), Servers: s.servers, Reports: map[Name][]uint32{}}
	for _, ns := range s.servers {
		p.NS = append(p.NS, name(t, ns.Label+"."+fields[0]))
	}
	s.platforms = append(s.platforms, p)
	return func(fields []string, line string) {
		if fields[0] == "reports" {
			for _, pool := range fields[2:] {
				host := name(t, fields[1])
				p.Reports[host] = append(p.Reports[host], parseNumber(t, pool))
			}
			return
		}
		p.Records = parseRecord(t, p.Apex, p.Records, fields, line)
	}
}

func (s *scenario) pool(t *testing.T, fields []string) func([]string, string) {
	o := options(fields[1:], "serial=100")
	p := &PoolPlan{Form: Form, Number: uint32(len(s.pools) + 1), ID: fields[0], Serial: parseNumber(t, o["serial"])}
	p.IncludeBase = name(t, fields[0]+".spf."+s.platforms[0].Apex.String())
	s.pools = append(s.pools, p)
	return func(fields []string, line string) {
		switch fields[0] {
		case "spf":
			for _, m := range fields[1:] {
				if strings.HasSuffix(m, "all") {
					p.SPFAll = m
				} else {
					p.SPF = append(p.SPF, m)
				}
			}
		case "mx":
			p.MX = append(p.MX, MX{uint16(parseNumber(t, fields[1])), name(t, fields[2])})
		case "click":
			if a, err := netip.ParseAddr(fields[1]); err == nil {
				p.ClickA = append(p.ClickA, a)
				p.ClickA = append(p.ClickA, parseAddresses(t, fields[2:])...)
			} else {
				p.ClickCNAME = name(t, fields[1])
			}
		case "dmarc":
			p.DMARC = strings.TrimPrefix(line, "dmarc ")
		default:
			t.Fatalf("%q is nothing that a pool has", line)
		}
	}
}

// plan starts a domain.
func (s *scenario) plan(t *testing.T, mode Mode, o map[string]string) *Plan {
	if !slices.Contains(s.tenants, o["tenant"]) {
		s.tenants = append(s.tenants, o["tenant"])
	}
	p := &Plan{Form: Form, Mode: mode, Serial: parseNumber(t, o["serial"]),
		Tenant: uint32(slices.Index(s.tenants, o["tenant"]) + 1)}
	for _, pool := range s.pools {
		if pool.ID == o["pool"] || o["pool"] == "" {
			p.Pool = pool.Number
			break
		}
	}
	s.domains = append(s.domains, p)
	return p
}

func (s *scenario) delegated(t *testing.T, fields []string) func([]string, string) {
	o := options(fields[1:], "tenant=acme", "serial=5", "token="+tokenOf("acme"))
	p := s.plan(t, Delegated, o)
	p.Zone, p.Proven = name(t, fields[0]), o["unproven"] == ""
	for i, ns := range s.servers[:min(len(s.servers), maxServers)] {
		z := s.platforms[i%len(s.platforms)]
		p.Servers = append(p.Servers, ServerName{name(t, o["token"]+"."+ns.Label+"."+z.Apex.String()), z.Number, ns.Label})
	}
	return func(fields []string, line string) {
		switch fields[0] {
		case "key":
			_, payload, _ := strings.Cut(line, fields[2]+" ")
			p.Keys = append(p.Keys, KeyRecord{Owner: name(t, fields[1]+"._domainkey."+p.Zone.String()), TTL: parseNumber(t, fields[2]), Payload: payload})
		case "dmarc":
			p.DMARC = strings.TrimPrefix(line, "dmarc ")
		case "report":
			p.Reports = append(p.Reports, Target{name(t, fields[1]), 1})
		default:
			p.Records = parseRecord(t, p.Zone, p.Records, fields, line)
		}
	}
}

func (s *scenario) cname(t *testing.T, fields []string) func([]string, string) {
	o := options(fields, "tenant=blog", "serial=5", "token="+tokenOf("blog"))
	p := s.plan(t, CNAME, o)
	apex := s.platforms[0].Apex.String()
	for _, slot := range []string{"k1", "k2", "k3"} {
		target := Target{name(t, slot+"."+o["token"]+".dkim."+apex), 1}
		p.Targets.Keys = append(p.Targets.Keys, target)
		p.Keys = append(p.Keys, KeyRecord{Owner: target.Name, TTL: TTLKeyShort, Payload: "v=DKIM1; p="})
	}
	p.Targets.Bounce = Target{name(t, o["token"]+".bounce."+apex), 1}
	p.Targets.Click = Target{name(t, o["token"]+".click."+apex), 1}
	p.Targets.DMARC = Target{name(t, o["token"]+".dmarc."+apex), 1}
	return func(fields []string, line string) {
		slot := -1
		if len(fields[0]) > 0 && len(fields) > 1 {
			slot = slices.Index([]string{"k1", "k2", "k3"}, fields[1])
		}
		switch fields[0] {
		case "key":
			_, payload, _ := strings.Cut(line, fields[2]+" ")
			p.Keys[slot].TTL, p.Keys[slot].Payload = parseNumber(t, fields[2]), payload
		case "bound":
			target := Target{name(t, fields[2]), 1}
			switch fields[1] {
			case "bounce":
				p.Targets.Bounce = target
			case "click":
				p.Targets.Click = target
			case "dmarc":
				p.Targets.DMARC = target
			default:
				p.Targets.Keys[slot], p.Keys[slot].Owner = target, target.Name
			}
		case "dmarc":
			p.DMARC = strings.TrimPrefix(line, "dmarc ")
		case "report":
			p.Reports = append(p.Reports, Target{name(t, fields[1]), 1})
		default:
			t.Fatalf("%q is nothing that a domain in CNAME mode has", line)
		}
	}
}

// tree builds what the scenario describes.
func (s *scenario) tree(t *testing.T) *Tree {
	t.Helper()
	tree := NewTree()
	e := tree.Edit()
	for _, p := range s.pools {
		pool := mustRenderPool(t, *p)
		e.SetPool(p.Number, pool)
		s.platforms[0].Includes = append(s.platforms[0].Includes, pool.Includes()...)
	}
	for _, p := range s.platforms {
		e.SetPlatform(p.Number, mustRenderPlatform(t, *p))
	}
	for _, p := range s.domains {
		e.Put("", mustRender(t, *p))
	}
	e.Commit()
	return tree
}
