package state

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"authd/keys"
	"authd/zone"
)

// generator draws commands that are often allowed, and often nearly so.
type generator struct {
	t    *rapid.T
	at   int64
	next uint64 // for tokens and texts
}

func (g *generator) pick(what string, from ...string) string {
	return rapid.SampledFrom(from).Draw(g.t, what)
}

func (g *generator) flag(what string, oneIn int) bool {
	return rapid.IntRange(1, oneIn).Draw(g.t, what) == 1
}

func (g *generator) entry(m Machine) Entry {
	g.at += rapid.SampledFrom([]int64{0, 1, 1, 60, 3600, day, 3 * day}).Draw(g.t, "later")
	e := Entry{At: g.at, Actor: "admin-1", Command: g.command(m)}
	if g.flag("tenant's own", 4) {
		e.Actor = g.pick("actor", "a1", "a2", "a3")
	}
	if g.flag("late", 20) {
		e.At -= 500 // a leader's clock may be behind its predecessor's
	}
	if !g.flag("no reason", 4) {
		e.Reason = "drawn"
	}
	if g.flag("key", 8) {
		e.Once = MakeOnce("admin-1", g.pick("which", "a", "b", "c", "d", "e"), []byte(g.pick("what", "x", "y")))
	}
	return e
}

func (g *generator) command(m Machine) Command {
	if m.Rescheduling() && g.flag("reschedule", 3) {
		return Reschedule{}
	}
	switch n := rapid.IntRange(0, 99).Draw(g.t, "command"); {
	case n < 22:
		return g.addDomain(m)
	case n < 37:
		return g.task(m)
	case n < 47:
		return g.prove(m)
	case n < 53:
		return LeaveDomain{Token: g.token(m), Now: g.flag("now", 2)}
	case n < 58:
		return g.restore(m)
	case n < 60:
		return ExpireDomain{Token: g.token(m)}
	case n < 67:
		return g.patch(m)
	case n < 72:
		return g.domainRecord(m)
	case n < 74:
		return g.domainRecords(m)
	case n < 79:
		return g.step(m)
	case n < 85:
		if g.flag("wrap", 8) {
			return g.rewrap(m)
		}
		if g.flag("reads", 8) {
			return SetReads{Node: g.pick("node", "node-1", "node-2"), Seq: uint64(rapid.IntRange(0, 9).Draw(g.t, "seq")), Head: AuditHash{1}, Repeats: 3}
		}
		if g.flag("bring", 4) {
			return g.bring(m)
		}
		switch rapid.IntRange(0, 5).Draw(g.t, "urgent") {
		case 0, 1:
			return g.emergency(m)
		case 2, 3:
			return g.rotation(m)
		}
		return RevokeKey{Token: g.token(m), Selector: g.selector(), Force: g.flag("force", 2)}
	default:
		return g.shared()
	}
}

// shared draws the commands that are not about a claim.
func (g *generator) shared() Command {
	apex := name(g.pick("zone", "p-dns.test", "p-dns.example", "third.test", "customer.test"))
	tenant := g.pick("tenant", "acme", "zeta", "third", "fourth")
	pool := g.pick("pool", "default", "second", "third")
	server := g.pick("server", "ns1", "ns2", "ns3", "ns10", "mx1")
	g.next++
	switch rapid.IntRange(0, 18).Draw(g.t, "shared") {
	case 0:
		return SetSettings{Settings{ClusterID: "test", VerificationOff: g.flag("off", 3)}}
	case 1:
		return PutPlatform{apex, name(g.pick("contact", "a.p-dns.test", "b.p-dns.test"))}
	case 2:
		return DropPlatform{apex}
	case 3, 4, 5:
		owner := g.pick("owner", "www", "a.b", "b", "x.old", "s1.old", "old", "ns1", "k.dkim", "*")
		return PutRecord{apex, g.rrset(owner + "." + apex.Host())}
	case 6:
		return PutNameServer{server, []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(g.next)})}}
	case 7:
		return DropNameServer{server}
	case 8, 9:
		return PutPool{pool, g.spec()}
	case 10:
		return DropPool{pool}
	case 11:
		if g.flag("suspend", 2) {
			return SuspendTenant{tenant, g.flag("suspended", 2)}
		}
		if g.flag("limit", 2) {
			c := LimitTenant{ID: tenant}
			if g.flag("domains", 2) {
				c.MaxDomains = new(uint32(rapid.IntRange(0, 3).Draw(g.t, "most domains")))
			} else {
				c.MaxOctets = new(rapid.SampledFrom([]uint32{0, 1, 5000}).Draw(g.t, "most octets"))
			}
			return c
		}
		return AddTenant{ID: tenant, Name: tenant}
	case 16:
		return CheckState{}
	case 18:
		return g.member()
	case 17:
		return SetAuthority{Authority{[]byte{1}, []byte{byte(rapid.IntRange(0, 3).Draw(g.t, "sealed"))}}}
	case 15:
		return Note{"node", "node-2", g.pick("note", "added", "removed", strings.Repeat("x", maxTitle+1))}
	case 13:
		return SetCookieSecret{zone.CookieSecret{byte(rapid.IntRange(0, 3).Draw(g.t, "secret"))}}
	case 12:
		scope := Scope(g.pick("scope", "admin", "signer", "read", "tenant:acme", "tenant:nobody", "root"))
		return AddAccessToken{AccessToken{ID: g.pick("id", "a1", "a2", "a3"), Hash: [32]byte{byte(g.next)}, Scope: scope}}
	}
	return DropAccessToken{g.pick("id", "a1", "a2", "a3")}
}

func (g *generator) spec() PoolSpec {
	s := spec()
	for range rapid.SampledFrom([]int{0, 1, 40}).Draw(g.t, "mechanisms") {
		g.next++
		s.SPF = append(s.SPF, fmt.Sprintf("ip4:198.%d.%d.0/24", g.next/256%256, g.next%256))
	}
	s.DMARC = g.policy()
	if g.flag("cname", 4) {
		s.ClickA, s.ClickCNAME = nil, name("edge.example")
	}
	switch rapid.IntRange(0, 3).Draw(g.t, "period") {
	case 0:
		s.Policy.Period = s.Policy.DrainCeiling // too fast for slots
	case 1:
		s.Policy.Period /= 2
	}
	if g.flag("both algorithms", 5) {
		s.Policy.Algorithms = append(s.Policy.Algorithms, keys.Ed25519)
	}
	return s
}

func (g *generator) policy() string {
	return g.pick("policy", "", "", "v=DMARC1; p=none", "v=DMARC1; p=reject; rua=mailto:x@in.p-dns.test",
		"v=DMARC1; p=none; rua=mailto:x@in.p-dns.example,mailto:y@in.p-dns.test", "v=DMARC1")
}

func (g *generator) rrset(owner string) zone.RRset {
	g.next++
	switch rapid.IntRange(0, 5).Draw(g.t, "type") {
	case 0:
		return zone.RRset{Owner: name(owner), Type: zone.TypeA}
	case 1:
		return rrset(owner, zone.TypeTXT, rapid.SampledFrom([]uint32{300, 3600}).Draw(g.t, "ttl"), fmt.Sprint("text ", g.next))
	case 2:
		return rrset(owner, zone.TypeNS, 300, "ns.elsewhere.test.")
	case 3:
		return rrset(owner, zone.TypeCNAME, 300, "elsewhere.test.")
	}
	return rrset(owner, zone.TypeA, 300, fmt.Sprintf("192.0.2.%d", g.next%256))
}

// token draws a claim's token, or one of nobody.
func (g *generator) token(m Machine) Token {
	if m.DomainCount() == 0 || g.flag("stranger", 15) {
		return tok(rapid.Uint64Range(0, g.next+1).Draw(g.t, "token"))
	}
	at := rapid.IntRange(0, m.DomainCount()-1).Draw(g.t, "claim")
	var token Token
	for d := range m.Domains(Token{}) {
		if token = d.Token; at == 0 {
			break
		}
		at--
	}
	return token
}

func (g *generator) addDomain(m Machine) Command {
	g.next++
	token := tok(g.next)
	if g.flag("old token", 12) {
		token = g.token(m)
	}
	domain := g.pick("domain", "customer.test", "send.customer.test", "x.send.customer.test", "y.x.send.customer.test",
		"mail.customer.test", "send.other.test", "a.send.other.test", "p-dns.test", "x.third.test")
	mode := rapid.SampledFrom([]zone.Mode{zone.Delegated, zone.CNAME}).Draw(g.t, "mode")
	c := claimOf(token, domain, mode, g.pick("tenant", "acme", "zeta", "third"))
	c.Pool = g.pick("pool", "default", "default", "second")
	c.DMARC = g.policy()
	c.Override = g.flag("override", 2)
	if g.flag("signs for", 4) {
		c.SignsFor = []zone.Name{name(g.pick("signs for", "customer.test", "other.test", "send.customer.test"))}
	}
	if pool, ok := m.Pool(c.Pool); ok && len(pool.Policy.Algorithms) == 2 {
		ed := keys.Material{Algorithm: keys.Ed25519, ID: 2, Payload: "v=DKIM1; k=ed25519; p=E" + token.String(), Sealed: []byte("sealed")}
		if mode == zone.Delegated {
			ed.Selector = "2601-eeeeee"
		}
		c.Active = append(c.Active, ed)
		c.Standby[0].ID = 3
	}
	if g.flag("no standby", 3) {
		c.Standby = nil
	}
	if g.flag("imported", 5) {
		c.Active[0].Imported, c.Active[0].Payload = true, "v=DKIM1; k=rsa; p="+g.pick("key", "SHARED1", "SHARED2")
	}
	if mode == zone.CNAME && g.flag("bound", 2) {
		c.Bound.Bounce = name(g.pick("bounce", "old", "x.old", "b.old", "www", "c") + ".p-dns.test")
		if g.flag("bound keys", 2) {
			prefix := g.pick("keys", "one", "two", "three")
			for i := range 3 {
				c.Bound.Keys = append(c.Bound.Keys, name(fmt.Sprintf("s%d.%s.p-dns.example", i, prefix)))
			}
		}
	}
	return c
}

func (g *generator) prove(m Machine) Command {
	c := ProveDomain{Token: g.token(m), Attested: g.flag("attested", 4)}
	if !g.flag("unseen", 10) {
		c.Seen = []Token{c.Token}
	}
	if g.flag("seen another", 6) {
		c.Seen = append(c.Seen, g.token(m))
	}
	if g.flag("gone", 4) {
		c.Gone = []Token{g.token(m)}
	}
	return c
}

// material is for the next key of a claim.
func (g *generator) material(ring keys.Ring, a keys.Algorithm) keys.Material {
	g.next++
	m := material(ring.NextID, "", fmt.Sprint("M", g.next))
	if a == keys.Ed25519 {
		m.Algorithm, m.Payload = a, fmt.Sprint("v=DKIM1; k=ed25519; p=M", g.next)
	}
	if ring.Mode == keys.Minted {
		m.Selector = mintSelector(g.at, uint32(g.next))
	}
	return m
}

func (g *generator) restore(m Machine) Command {
	c := RestoreDomain{Token: g.token(m)}
	if d, ok := m.Domain(c.Token); ok && !g.flag("no material", 4) {
		ring := d.Ring()
		for i, a := range ring.ReviveNeeds(d.Algorithms) {
			material := g.material(ring, a)
			material.ID += uint32(i)
			c.Active = append(c.Active, material)
		}
	}
	return c
}

func (g *generator) patch(m Machine) Command {
	c := PatchDomain{Token: g.token(m)}
	if g.flag("pool", 3) {
		pool := g.pick("to pool", "default", "second", "third")
		c.Pool = &pool
	}
	if g.flag("policy", 3) {
		policy := g.policy()
		c.DMARC = &policy
	}
	if g.flag("labels", 3) {
		labels := map[string]string{"a": g.pick("label", "1", "2")}
		c.Labels = &labels
	}
	if g.flag("signs", 4) {
		signs := []zone.Name{name(g.pick("signs for", "customer.test", "other.test"))}
		c.SignsFor = &signs
	}
	return c
}

func (g *generator) domainRecord(m Machine) Command {
	c := PutDomainRecord{Token: g.token(m), Admin: g.flag("admin", 2)}
	owner := g.pick("owner", "", "www.", "a.b.", "*.", "k._domainkey.", "bounce.")
	domain := "send.customer.test"
	if d, ok := m.Domain(c.Token); ok {
		domain = d.Name.Host()
	}
	if g.flag("deep", 8) {
		owner = strings.Repeat("x.", 90) // fills the domain with the names above it
	}
	c.Set = g.rrset(owner + domain)
	return c
}

func (g *generator) domainRecords(m Machine) Command {
	c := SetDomainRecords{Token: g.token(m), Replace: g.flag("replace", 2), Admin: g.flag("admin", 2)}
	for range rapid.IntRange(0, 4).Draw(g.t, "sets") {
		one := g.domainRecord(m).(PutDomainRecord).Set
		if d, ok := m.Domain(c.Token); ok && len(one.Data) > 0 && one.Owner.In(d.Name) {
			c.Sets = append(c.Sets, one)
		}
	}
	slices.SortFunc(c.Sets, compareRecords)
	return c
}

func (g *generator) selector() string {
	return g.pick("selector", "2601-aaaaaa", "2601-bbbbbb", "k1", "k2", "t2-k1", "nope")
}

func (g *generator) rewrap(m Machine) Command {
	version := uint16(rapid.IntRange(0, 3).Draw(g.t, "version"))
	if g.flag("choose", 2) {
		return SetWrap{version}
	}
	if a := m.Authority().Sealed; len(a) > 2 && g.flag("authority", 4) {
		return Rewrap{[]SealedHalf{{Old: a[:2], Sealed: under(version, a)}}}
	}
	h := SealedHalf{Token: g.token(m), Key: uint32(rapid.IntRange(1, 3).Draw(g.t, "half"))}
	if d, ok := m.Domain(h.Token); ok {
		if k, ok := d.Ring().ByID(h.Key); ok && len(k.Sealed) > 2 {
			h.Old, h.Sealed = k.Sealed[:2], under(version, k.Sealed)
		}
	}
	return Rewrap{[]SealedHalf{h}}
}

func (g *generator) bring(m Machine) Command {
	c := BringKey{Token: g.token(m)}
	place := keys.Place{ID: 3, Selector: "k3"}
	public := g.flag("public", 3)
	if d, ok := m.Domain(c.Token); ok {
		if p, err := d.Ring().PlaceBrought(keys.RSA2048, public, max(m.Time(), g.at)); err == nil {
			place = p
		}
	}
	if place.Selector == "" {
		place.Selector = g.pick("selector", "brought1", "brought2", "2601-aaaaaa")
	}
	// Few keys, so that claims of several tenants bring the same.
	c.Material = material(place.ID, place.Selector, g.pick("key", "AAAA", "BBBB", "CCCC", "DDDD"))
	c.Material.Imported = true
	if public {
		c.Material.PublicOnly, c.Material.Sealed, c.Material.ID = true, nil, 0
	}
	return c
}

func (g *generator) emergency(m Machine) Command {
	c := ReplaceKey{Token: g.token(m), Algorithm: keys.RSA2048, Old: keys.Fate(rapid.IntRange(0, 4).Draw(g.t, "fate")), Store: g.flag("store", 3)}
	if g.flag("from", 3) {
		c.From = g.selector()
	}
	return c
}

func (g *generator) rotation(m Machine) Command {
	if due := m.RotationsDue(g.at); len(due) > 0 && g.flag("advance", 2) {
		return AdvanceRotation{due[0]}
	}
	g.next++
	id := tok(1 << 40)
	for r := range m.Rotations() {
		if id = r.ID; g.flag("this", 3) {
			break
		}
	}
	if g.flag("control", 2) {
		return ControlRotation{id, uint8(rapid.IntRange(0, 4).Draw(g.t, "verb"))}
	}
	c := StartRotation{ID: tok(1<<40 + g.next), RotationSpec: RotationSpec{
		Emergency: g.flag("emergency", 2), Old: keys.Fate(rapid.IntRange(1, 3).Draw(g.t, "fate")), Total: uint32(m.DomainCount()),
	}}
	c.Store = c.Emergency && g.flag("store", 3)
	c.Drill = !c.Store && g.flag("drill", 4)
	switch g.pick("scope", "all", "tenant", "pool", "list") {
	case "all":
		c.Scope.All = true
	case "tenant":
		c.Scope.Tenant = g.pick("tenant", "acme", "zeta", "nobody")
	case "pool":
		c.Scope.Pool = g.pick("pool", "default", "second", "nowhere")
	case "list":
		c.Scope.Tokens = []Token{g.token(m)}
	}
	if g.flag("canary", 3) {
		c.Canary, c.Hold = []uint8{10, 50, 100}, int64(g.next%3*day)
	}
	return c
}

// task does what the rotator would do next, some days from now.
func (g *generator) task(m Machine) Command {
	tasks := m.Due(5, g.at)
	for len(tasks) == 0 {
		if g.at += 5 * day; g.at > start+3000*day || m.DomainCount() == 0 {
			return Reschedule{}
		}
		tasks = m.Due(5, g.at)
	}
	task := rapid.SampledFrom(tasks).Draw(g.t, "task")
	if task.Expire {
		return ExpireDomain{task.Token}
	}
	return g.stepKey(m, task.Token, task.Step)
}

// step draws one that hardly ever fits.
func (g *generator) step(m Machine) Command {
	kind := keys.StepKind(rapid.IntRange(0, 6).Draw(g.t, "kind"))
	c := g.stepKey(m, g.token(m), keys.Step{Kind: kind, Algorithm: keys.RSA2048, Key: rapid.Uint32Range(0, 4).Draw(g.t, "key")})
	c.Manual = g.flag("manual", 2)
	if g.flag("from", 3) {
		c.From = g.selector()
	}
	return c
}

func (g *generator) stepKey(m Machine, t Token, s keys.Step) StepKey {
	c := StepKey{Token: t, Step: s}
	if s.Kind == keys.StepRevoke && !g.flag("no evidence", 8) {
		c.Step.Evidence = &keys.Evidence{Complete: true, Switched: g.flag("switched", 2), AskedAt: g.at - rapid.Int64Range(0, 4*day).Draw(g.t, "asked")}
	}
	if s.Kind == keys.StepPublish {
		if d, ok := m.Domain(t); ok {
			material := g.material(d.Ring(), s.Algorithm)
			c.Material = &material
		}
	}
	return c
}

// member draws what is about nodes.
func (g *generator) member() Command {
	id, hash := g.pick("node", "node-1", "node-2", "Node 3"), [32]byte{byte(rapid.IntRange(0, 2).Draw(g.t, "hash"))}
	switch rapid.IntRange(0, 4).Draw(g.t, "member") {
	case 0:
		return AdmitNode{id, hash}
	case 1:
		return SettleNode{id}
	case 2:
		return SetServing{id, g.flag("serving", 2), g.pick("statement", "", "it is off")}
	}
	return InviteNode{Invitation{ID: id, Address: "192.0.2.1:7301", Voter: g.flag("voter", 2), Hash: hash, ExpiresAt: start + 3600}}
}
