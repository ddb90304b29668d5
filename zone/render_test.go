package zone

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// wantRefusal checks that an error says why.
func wantRefusal(t *testing.T, what string, err error, reason string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), reason) {
		t.Errorf("%s: %v; want an error with %q", what, err, reason)
	}
}

func TestExtraRecordsThatAreRefused(t *testing.T) {
	long := strings.Repeat("x", 60)
	for _, c := range []struct {
		owner  string
		typ    Type
		values []string
		reason string
	}{
		{"customer.test", TypeA, []string{"192.0.2.1"}, "outside"},
		{"xsend.customer.test", TypeA, []string{"192.0.2.1"}, "outside"},
		{"send.customer.test", TypeNS, []string{"ns.test."}, "managed"},
		{"send.customer.test", TypeMX, []string{"10 mx.test."}, "managed"},
		{"send.customer.test", TypeCNAME, []string{"x.test."}, "apex"},
		{"send.customer.test", TypeDNAME, []string{"x.test."}, "apex"},
		{"send.customer.test", TypeDS, []string{"1 13 2 ABCD"}, "apex"},
		{"send.customer.test", TypeTXT, []string{"v=spf1 -all"}, "SPF"},
		{"send.customer.test", TypeTXT, []string{"V=SPF1"}, "SPF"},
		{"bounce.send.customer.test", TypeMX, []string{"10 mx.test."}, "managed"},
		{"bounce.send.customer.test", TypeTXT, []string{"x"}, "managed"},
		{"bounce.send.customer.test", TypeCNAME, []string{"x.test."}, "managed"},
		{"bounce.send.customer.test", TypeNS, []string{"x.test."}, "managed"},
		{"click.send.customer.test", TypeTXT, []string{"x"}, "managed"},
		{"click.send.customer.test", TypeA, []string{"192.0.2.1"}, "managed"},
		{"_dmarc.send.customer.test", TypeTXT, []string{"v=DMARC1; p=none"}, "managed"},
		{"_domainkey.send.customer.test", TypeNS, []string{"x.test."}, "managed"},
		{"other._domainkey.send.customer.test", TypeTXT, []string{"x"}, "managed"},
		{"*._domainkey.send.customer.test", TypeTXT, []string{"x"}, "managed"},
		{"*.send.customer.test", TypeNS, []string{"ns.test."}, "wildcard"},
		{"*.w.send.customer.test", TypeDNAME, []string{"x.test."}, "wildcard"},
		{"x.send.customer.test", TypeDS, []string{"1 13 2 ABCD"}, "cut"},
		{long + "." + long + "." + long + ".send.customer.test", TypeTXT, []string{"fits"}, ""},
	} {
		p := delegatedPlan(t, "send.customer.test", testToken)
		p.Records = []RRset{set(t, c.owner, c.typ, TTLMail, c.values...)}
		_, err := Render(p)
		if c.reason == "" {
			if err != nil {
				t.Errorf("%s %s: %v", c.owner, c.typ, err)
			}
			continue
		}
		wantRefusal(t, c.owner+" "+c.typ.String(), err, c.reason)
		if err != nil && !strings.Contains(err.Error(), name(t, c.owner).String()) {
			t.Errorf("%s %s: the error %q does not name the record", c.owner, c.typ, err)
		}
	}
}

func TestRecordsThatCannotBeTogether(t *testing.T) {
	const zone = ".send.customer.test"
	for what, c := range map[string]struct {
		sets   []RRset
		reason string
	}{
		"an address beside an alias":          {[]RRset{set(t, "a"+zone, TypeCNAME, 300, "x.test."), set(t, "a"+zone, TypeA, 300, "192.0.2.1")}, "CNAME"},
		"an alias beside a text":              {[]RRset{set(t, "a"+zone, TypeTXT, 300, "x"), set(t, "a"+zone, TypeCNAME, 300, "x.test.")}, "CNAME"},
		"a DNAME beside an alias":             {[]RRset{set(t, "a"+zone, TypeCNAME, 300, "x.test."), set(t, "a"+zone, TypeDNAME, 300, "x.test.")}, "CNAME"},
		"one type twice":                      {[]RRset{set(t, "a"+zone, TypeA, 300, "192.0.2.1"), set(t, "a"+zone, TypeA, 300, "192.0.2.2")}, "twice"},
		"a name below a DNAME":                {[]RRset{set(t, "a"+zone, TypeDNAME, 300, "x.test."), set(t, "b.a"+zone, TypeA, 300, "192.0.2.1")}, "hidden"},
		"a text below a cut":                  {[]RRset{set(t, "a"+zone, TypeNS, 300, "x.test."), set(t, "b.c.a"+zone, TypeTXT, 300, "x")}, "hidden"},
		"a text at a cut":                     {[]RRset{set(t, "a"+zone, TypeNS, 300, "x.test."), set(t, "a"+zone, TypeTXT, 300, "x")}, "hidden"},
		"a cut below a cut":                   {[]RRset{set(t, "a"+zone, TypeNS, 300, "x.test."), set(t, "b.a"+zone, TypeNS, 300, "x.test.")}, "hidden"},
		"a text at the apex with another TTL": {[]RRset{set(t, "send.customer.test", TypeTXT, 300, "x")}, "TTL 300"},
	} {
		p := delegatedPlan(t, "send.customer.test", testToken)
		p.Records = c.sets
		_, err := Render(p)
		wantRefusal(t, what, err, c.reason)
	}
	p := delegatedPlan(t, "send.customer.test", testToken)
	p.Records = []RRset{set(t, "a"+zone, TypeNS, 300, "ns.a"+zone), set(t, "ns.a"+zone, TypeA, 300, "192.0.2.1"),
		set(t, "ns.a"+zone, TypeAAAA, 300, "2001:db8::1"), set(t, "a"+zone, TypeDS, 300, "1 13 2 ABCD"), set(t, "a"+zone, TypeA, 300, "192.0.2.1")}
	if _, err := Render(p); err != nil {
		t.Errorf("a delegation with glue and DS: %v", err)
	}
}

// What no parser makes may still come from a command.
func TestRecordsThatNoParserMakesAreRefused(t *testing.T) {
	owner := name(t, "a.send.customer.test")
	for what, s := range map[string]RRset{
		"SOA":                     {owner, TypeSOA, 300, [][]byte{{0, 0}}},
		"ANY":                     {owner, TypeANY, 300, [][]byte{{1}}},
		"no data":                 {owner, TypeA, 300, nil},
		"an address of 3 octets":  {owner, TypeA, 300, [][]byte{{1, 2, 3}}},
		"an alias to no name":     {owner, TypeCNAME, 300, [][]byte{{3, 'a'}}},
		"an alias in upper case":  {owner, TypeCNAME, 300, [][]byte{{1, 'A', 0}}},
		"an alias with a tail":    {owner, TypeCNAME, 300, [][]byte{{1, 'a', 0, 0}}},
		"a pointer in a name":     {owner, TypeNS, 300, [][]byte{{0xc0, 0x0c}}},
		"a short MX":              {owner, TypeMX, 300, [][]byte{{1}}},
		"a text past its end":     {owner, TypeTXT, 300, [][]byte{{5, 'a'}}},
		"a text without a string": {owner, TypeTXT, 300, [][]byte{{}}},
		"data not sorted":         {owner, TypeA, 300, [][]byte{{2, 2, 2, 2}, {1, 1, 1, 1}}},
		"data twice":              {owner, TypeA, 300, [][]byte{{1, 1, 1, 1}, {1, 1, 1, 1}}},
		"TTL 0":                   {owner, TypeA, 0, [][]byte{{1, 1, 1, 1}}},
		"more than fits":          {owner, 65400, 300, [][]byte{make([]byte, maxRRset+1)}},
	} {
		p := delegatedPlan(t, "send.customer.test", testToken)
		p.Records = []RRset{s}
		if _, err := Render(p); err == nil {
			t.Errorf("%s was rendered", what)
		}
	}
}

func TestPlansThatAreRefused(t *testing.T) {
	for what, c := range map[string]struct {
		change func(p *Plan)
		reason string
	}{
		"an unknown form":        {func(p *Plan) { p.Form = 9 }, "form 9"},
		"an unknown mode":        {func(p *Plan) { p.Mode = 7 }, "mode 7"},
		"no zone":                {func(p *Plan) { p.Zone = "" }, "two labels"},
		"a top-level zone":       {func(p *Plan) { p.Zone = name(t, "test") }, "two labels"},
		"no servers":             {func(p *Plan) { p.Servers = nil }, "name servers"},
		"five servers":           {func(p *Plan) { p.Servers = append(p.Servers, p.Servers[0], p.Servers[0], p.Servers[0]) }, "1 to 4"},
		"a server twice":         {func(p *Plan) { p.Servers[1] = p.Servers[0] }, "twice"},
		"a server in the zone":   {func(p *Plan) { p.Servers[0].Name = name(t, "ns1.send.customer.test") }, "platform zone"},
		"a server without label": {func(p *Plan) { p.Servers[0].Server = "www" }, "ns1"},
		"targets of a zone":      {func(p *Plan) { p.Targets.Bounce = Target{name(t, "a.p.example"), 1} }, "no targets"},
		"a key elsewhere":        {func(p *Plan) { p.Keys[0].Owner = name(t, "a.send.customer.test") }, "directly below"},
		"a key two below":        {func(p *Plan) { p.Keys[0].Owner = name(t, "a.b._domainkey.send.customer.test") }, "directly below"},
		"a key twice":            {func(p *Plan) { p.Keys = append(p.Keys, p.Keys[0]) }, "twice"},
		"a key without payload":  {func(p *Plan) { p.Keys[0].Payload = "" }, "no payload"},
		"a key of TTL 1":         {func(p *Plan) { p.Keys[0].TTL = 1 }, "TTL 1"},
		"a policy of nothing":    {func(p *Plan) { p.DMARC = "p=none" }, "v=DMARC1"},
		"a policy with psd":      {func(p *Plan) { p.DMARC = "v=DMARC1; p=none; psd=n" }, "psd"},
		"a policy in two lines":  {func(p *Plan) { p.DMARC = "v=DMARC1;\np=none" }, "ASCII"},
		"a long policy":          {func(p *Plan) { p.DMARC = "v=DMARC1; " + strings.Repeat("x", 500) }, "at most"},
		"a report elsewhere":     {func(p *Plan) { p.Reports = []Target{{name(t, "a.p.example"), 1}} }, "_report._dmarc"},
	} {
		p := delegatedPlan(t, "send.customer.test", testToken)
		c.change(&p)
		_, err := Render(p)
		wantRefusal(t, what, err, c.reason)
	}
	for what, c := range map[string]struct {
		change func(p *Plan)
		reason string
	}{
		"a zone":                     {func(p *Plan) { p.Zone = name(t, "a.test") }, "neither zone"},
		"extra records":              {func(p *Plan) { p.Records = []RRset{set(t, "a.test", TypeA, 300, "192.0.2.1")} }, "extra records"},
		"a slot without target":      {func(p *Plan) { p.Targets.Keys[1] = Target{} }, "without a target"},
		"a target twice":             {func(p *Plan) { p.Targets.Bounce = p.Targets.Click }, "twice"},
		"a key at no target":         {func(p *Plan) { p.Keys[0].Owner = name(t, "k9."+testToken+".dkim.p.example") }, "not one of the targets"},
		"a key at the bounce target": {func(p *Plan) { p.Keys[0].Owner = p.Targets.Bounce.Name }, "not one of the targets"},
		"a policy without target":    {func(p *Plan) { p.DMARC, p.Targets.DMARC = "v=DMARC1; p=none", Target{} }, "without a target"},
	} {
		p := cnamePlan(t, testToken)
		c.change(&p)
		_, err := Render(p)
		wantRefusal(t, "CNAME mode, "+what, err, c.reason)
	}
}

func TestPoolsThatAreRefused(t *testing.T) {
	ranges := func(n int) (list []string) {
		for i := range n {
			list = append(list, "ip6:2001:db8:"+strings.Repeat("f", i%4+1)+"::"+string(rune('a'+i%6))+"/128")
		}
		return list
	}
	for what, c := range map[string]struct {
		change func(p *PoolPlan)
		reason string
	}{
		"an unknown form":           {func(p *PoolPlan) { p.Form = 2 }, "form 2"},
		"spf_all":                   {func(p *PoolPlan) { p.SPFAll = "?all" }, "?all"},
		"a look-up":                 {func(p *PoolPlan) { p.SPF = []string{"include:spf.test"} }, "literal"},
		"no address":                {func(p *PoolPlan) { p.SPF = []string{"ip4:192.0.2"} }, "literal"},
		"the other family":          {func(p *PoolPlan) { p.SPF = []string{"ip4:2001:db8::1"} }, "literal"},
		"a mapped address":          {func(p *PoolPlan) { p.SPF = []string{"ip6:::ffff:192.0.2.1"} }, "literal"},
		"a prefix of 33":            {func(p *PoolPlan) { p.SPF = []string{"ip4:192.0.2.0/33"} }, "1 to 32"},
		"a prefix of 0":             {func(p *PoolPlan) { p.SPF = []string{"ip4:192.0.2.0/0"} }, "1 to 32"},
		"a prefix of 024":           {func(p *PoolPlan) { p.SPF = []string{"ip4:192.0.2.0/024"} }, "1 to 32"},
		"a space in a mechanism":    {func(p *PoolPlan) { p.SPF = []string{"ip4:192.0.2.0/24 +all"} }, "1 to 32"},
		"more than ten includes":    {func(p *PoolPlan) { p.SPF = ranges(250) }, "includes"},
		"nowhere to split to":       {func(p *PoolPlan) { p.SPF, p.IncludeBase = ranges(40), "" }, "cannot be split"},
		"an exchanger without name": {func(p *PoolPlan) { p.MX[0].Host = "" }, "no name"},
		"a null MX among others":    {func(p *PoolPlan) { p.MX = append(p.MX, MX{0, Root}) }, "null MX"},
		"click twice":               {func(p *PoolPlan) { p.ClickCNAME = name(t, "edge.test") }, "one of the two"},
		"a mapped click address":    {func(p *PoolPlan) { p.ClickA = []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.1")} }, "neither"},
		"a policy":                  {func(p *PoolPlan) { p.DMARC = "none" }, "v=DMARC1"},
	} {
		p := testPool(t)
		c.change(&p)
		_, err := RenderPool(p)
		wantRefusal(t, what, err, c.reason)
	}
}

func TestPlatformZonesThatAreRefused(t *testing.T) {
	for what, c := range map[string]struct {
		change func(p *PlatformPlan)
		reason string
	}{
		"an unknown form":        {func(p *PlatformPlan) { p.Form = 2 }, "form 2"},
		"a top-level zone":       {func(p *PlatformPlan) { p.Apex = name(t, "example") }, "two labels"},
		"no contact":             {func(p *PlatformPlan) { p.Contact = "" }, "contact"},
		"a server of other name": {func(p *PlatformPlan) { p.Servers[0].Label = "dns1" }, "ns1"},
		"a server twice":         {func(p *PlatformPlan) { p.Servers[1].Label = "ns1" }, "once"},
		"an include elsewhere":   {func(p *PlatformPlan) { p.Includes = []RRset{set(t, "x.p.example", TypeTXT, 300, "x")} }, "not below"},
		"reports elsewhere":      {func(p *PlatformPlan) { p.Reports = map[Name][]uint32{name(t, "x.test"): {1}} }, "outside"},
	} {
		p := testPlatform(t)
		c.change(&p)
		_, err := RenderPlatform(p)
		wantRefusal(t, what, err, c.reason)
	}
	for owner, typ := range map[string]Type{
		"x.test": TypeTXT, "ns1.p.example": TypeTXT, "ns9.p.example": TypeTXT, "x.ns2.p.example": TypeTXT, "dkim.p.example": TypeTXT,
		"x.bounce.p.example": TypeTXT, "y.x.click.p.example": TypeTXT, "dmarc.p.example": TypeTXT, "spf.p.example": TypeTXT, "p.example": TypeNS,
		"p.EXAMPLE": TypeDNAME,
	} {
		p := testPlatform(t)
		value := "x"
		if typ == TypeNS || typ == TypeDNAME {
			value = "x.test."
		}
		p.Records = []RRset{set(t, owner, typ, 300, value)}
		if _, err := RenderPlatform(p); err == nil {
			t.Errorf("an operator's record at %s was taken", owner)
		}
	}
}

// Parts of an SPF record fit, nothing is lost, and the order is kept.
func TestALongSPFRecordIsSplit(t *testing.T) {
	p := testPool(t)
	p.SPF = nil
	for i := range 150 {
		p.SPF = append(p.SPF, "ip4:"+netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String())
	}
	pool := mustRenderPool(t, p)
	var all []string
	for _, s := range pool.Includes() {
		text := joinText(string(s.Data[0]))
		if len(text) > SPFLimit || !strings.HasSuffix(text, " -all") {
			t.Errorf("a part of %d octets: %s", len(text), text)
		}
		fields := strings.Fields(text)
		all = append(all, fields[1:len(fields)-1]...)
	}
	if strings.Join(all, " ") != strings.Join(p.SPF, " ") {
		t.Errorf("the parts have %d mechanisms, the pool %d", len(all), len(p.SPF))
	}
	if n := len(pool.Includes()); n < 2 || n > maxIncludes {
		t.Errorf("%d parts", n)
	}
	platform := testPlatform(t)
	platform.Includes = pool.Includes()
	mustRenderPlatform(t, platform)
}

func TestABranchKeepsWhatItWasMadeOf(t *testing.T) {
	p := cnamePlan(t, testToken)
	p.Attachment = []byte("sealed\x00halves")
	b := mustRender(t, p)
	if b.Attachment() != string(p.Attachment) {
		t.Errorf("attachment %q", b.Attachment())
	}
	if text, ok := b.Text(p.Keys[1].Owner); !ok || text != rsaPayload {
		t.Errorf("text of %s: %q, %v", p.Keys[1].Owner, text, ok)
	}
	if text, ok := b.Text(p.Targets.Bounce.Name); ok {
		t.Errorf("the pool's text %q is not the branch's", text)
	}
	if _, ok := b.Text(name(t, "elsewhere.test")); ok || Branch("").Attachment() != "" || Branch("").Anchors() != nil {
		t.Error("text, attachment or anchors of nothing")
	}
	unproven := delegatedPlan(t, "send.customer.test", testToken)
	unproven.Proven = false
	b = mustRender(t, unproven)
	if _, ok := b.Text(unproven.Keys[0].Owner); !ok {
		t.Error("the keys of a zone that is not proven are lost")
	}
	for _, a := range b.Anchors() {
		if a.In(unproven.Zone) {
			t.Errorf("a zone that is not proven is found under %s", a)
		}
	}
	if again := mustRender(t, unproven); again != b {
		t.Error("one plan gives two branches")
	}
}

// A domain in CNAME mode with three RSA keys and their sealed halves is the
// fleet's usual block: its size is what a million of them cost.
func TestABranchIsSmall(t *testing.T) {
	p := cnamePlan(t, testToken)
	p.Attachment = make([]byte, 560)
	if b := mustRender(t, p); len(b) > 2200 {
		t.Errorf("%d octets, at most 2200", len(b))
	}
	if n := len(mustRender(t, p).Anchors()); n != 3 {
		t.Errorf("%d anchors, want dkim, bounce and click", n)
	}
}

// What comes in a plan is bounded as what is read from text is.
func TestRRsetsOfAPlanAreBounded(t *testing.T) {
	owner := name(t, "a.send.customer.test")
	var many, large [][]byte
	for i := range maxRecords + 1 {
		many = append(many, []byte{192, 0, byte(i >> 8), byte(i)})
	}
	for i := range 3 {
		large = append(large, append([]byte{byte(i)}, make([]byte, maxRRset/2)...))
	}
	for what, c := range map[string]struct {
		set RRset
		ok  bool
	}{
		"as many as there may be": {RRset{owner, TypeA, 300, many[:maxRecords]}, true},
		"one more":                {RRset{owner, TypeA, 300, many}, false},
		"as large as it may be":   {RRset{owner, 65400, 300, [][]byte{large[0][:maxRRset/2], large[1][:maxRRset/2]}}, true},
		"larger":                  {RRset{owner, 65400, 300, large[:2]}, false},
	} {
		if err := checkRRset(c.set); (err == nil) != c.ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, signed := range []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM} {
		if err := checkType(Type(signed)); err == nil || !strings.Contains(err.Error(), "signer") {
			t.Errorf("%s: %v", Type(signed), err)
		}
	}
}

// Receivers follow ten includes, however short their names are.
func TestPoolsThatReceiversWouldNotReadAreRefused(t *testing.T) {
	p := PoolPlan{Form: Form, Number: 1, ID: "p", SPFAll: "~all", IncludeBase: name(t, "a.b")}
	for n := range 200 {
		p.SPF = append(p.SPF, fmt.Sprintf("ip6:2001:db8:1111:2222:3333:4444:5555:%x", 0x1000+n))
	}
	if _, err := RenderPool(p); err == nil || !strings.Contains(err.Error(), "receivers follow 10") {
		t.Errorf("%v", err)
	}
	p.SPF = p.SPF[:50]
	if pool, err := RenderPool(p); err != nil || len(pool.Includes()) < 2 {
		t.Errorf("%v", err)
	}
	for n := range maxRecords + 1 {
		p.MX = append(p.MX, MX{Preference: uint16(n), Host: name(t, "mx.p.example")})
	}
	if _, err := RenderPool(p); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("at most %d", maxRecords)) {
		t.Errorf("%v", err)
	}
}
