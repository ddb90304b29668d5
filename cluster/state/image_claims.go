package state

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"authd/keys"
	"authd/zone"
)

// claims is one frame of claims, decoded.
type claims struct {
	list []record
	err  error
}

// claimed collects what the indexes hold of the claims that one core decoded: a list of
// pairs for each index, which is sorted before it goes into its table, and counts.
type claimed struct {
	claimNames[[]string]
	due, pending []string

	uses   []claimUse // where answers are made anew; else the image has the index of keys
	keys   int        // public keys in DNS
	sealed map[uint16]int
	sum    Sum // of the records

	servers, pools, slots map[string]int
	platforms             map[uint32]int
	tenants, octets       map[string]int // as Tenant.Domains and Tenant.Octets
}

type claimUse struct {
	token Token
	use   keyUse
}

// job is one frame that a decoder works on.
type job struct {
	frame frame
	out   chan claims
}

// domains reads the claims, and gives what indexes hold of them and the first frame that
// is none of them. Frames are decoded on all cores, a bounded number at a time.
func (r *imageReader) domains(w *writer, f frame) (*claimed, frame, error) {
	workers := runtime.GOMAXPROCS(0)
	jobs := make(chan job)
	order := make(chan job, 2*workers)
	r.spare = make(chan []byte, 4*workers)
	var failed error
	var all sync.WaitGroup
	decoders := make([]claimDecoder, workers)
	for i := range decoders {
		d := &decoders[i]
		*d = claimDecoder{tables: w.tables, near: r.near, anew: r.anew, claimed: newClaimed()}
		all.Go(func() {
			for j := range jobs {
				j.out <- d.frame(j.frame)
			}
		})
	}
	all.Go(func() {
		defer close(order)
		defer close(jobs)
		f, failed = r.send(f, order, jobs)
	})
	var err error
	var list [][]record
	last := ""
	for j := range order {
		batch := <-j.out
		select {
		case r.spare <- j.frame.body:
		default:
		}
		if err == nil {
			err = batch.err
		}
		for _, c := range batch.list {
			if err != nil {
				break
			}
			key := c.meta[:len(Token{})]
			if token := tokenOf(key); key <= last || strings.HasPrefix(last, key[:tokenStart]) || w.gone.has(token) {
				err = fmt.Errorf("claim %s: %w", token, errDamaged)
			}
			last = key
		}
		if err == nil {
			list = append(list, batch.list)
		}
	}
	all.Wait()
	if failed != nil {
		err = failed
	}
	if err != nil {
		return nil, f, err
	}
	sum := &decoders[0].claimed
	for i := range decoders[1:] {
		sum.merge(&decoders[1+i].claimed)
	}
	w.loadDomains(list, sum.sum)
	r.keys = sum.keys
	return sum, f, nil
}

// send hands the frames of claims to the decoders, and to the goroutine that stores
// them in the same order.
func (r *imageReader) send(f frame, order, jobs chan<- job) (next frame, err error) {
	for f.section == sectionDomains {
		j := job{f, make(chan claims, 1)}
		order <- j
		jobs <- j
		if f, err = r.next(); err != nil {
			return f, err
		}
	}
	return f, nil
}

// claimDecoder decodes claims, one core's share of them.
type claimDecoder struct {
	tables    *tables
	near      *tables
	anew      bool
	inspector zone.Inspector
	claimed

	// Of the claim being decoded.
	domain Domain
	meta   []byte
	held   keys.Ring
}

func (c *claimDecoder) frame(f frame) (out claims) {
	for rest := f.body; len(rest) > 0; {
		var meta, branch []byte
		if meta, rest, out.err = cutText(rest); out.err == nil {
			branch, rest, out.err = cutText(rest)
		}
		if out.err != nil {
			return out
		}
		r, err := c.claim(meta, branch)
		if err != nil {
			out.err = err
			return out
		}
		out.list = append(out.list, r)
	}
	return out
}

// cutText takes a text with its length in front off a frame.
func cutText(b []byte) (text, rest []byte, err error) {
	r := decoder{s: string(b[:min(len(b), 10)])}
	before := len(r.s)
	size := r.uvarint()
	b = b[before-len(r.s):]
	if r.err != nil || size > uint64(len(b)) {
		return nil, nil, errDamaged
	}
	return b[:size], b[size:], nil
}

// claim decodes one claim and adds it to what the indexes hold.
func (c *claimDecoder) claim(meta, branch []byte) (record, error) {
	r := c.own(meta, branch)
	d := &c.domain
	*d = Domain{}
	if err := d.decode(r.meta, c.tables); err != nil {
		return r, err
	}
	if c.meta = appendMeta(c.meta[:0], d); !d.sound() || string(c.meta) != r.meta {
		return r, fmt.Errorf("claim %s: %w", d.Token, errDamaged)
	}
	if err := c.inspector.Check(r.branch); err != nil {
		return r, fmt.Errorf("claim %s: %w", d.Token, err)
	}
	d.Branch = r.branch
	ring, err := c.ring(d)
	if err != nil {
		return r, fmt.Errorf("claim %s: %w", d.Token, err)
	}
	if c.anew {
		branch, err := c.tables.render(d, ring)
		if err != nil {
			return r, fmt.Errorf("claim %s: %w", d.Token, err)
		}
		if r.branch != branch { // else it may be shared
			r.branch = branch
		}
	} else if !c.tables.carries(d) {
		return r, fmt.Errorf("claim %s: its answers are another's: %w", d.Token, errDamaged)
	}
	c.add(d)
	c.octets[d.Tenant] += r.unusual()
	c.sum += r.sum()
	return r, c.learn(d.Token, ring, c.anew)
}

// own is the claim in memory of its own, since the frame's is used again; or, where it
// is the same, in that of the machine nearby: a node that takes over a later state of
// its own cluster has most of it already.
func (c *claimDecoder) own(meta, branch []byte) (r record) {
	if c.near != nil && len(meta) >= len(Token{}) {
		r, _ = c.near.domains.Get(string(meta[:len(Token{})]))
	}
	if r.meta != string(meta) {
		r.meta = string(meta)
	}
	if string(r.branch) != string(branch) {
		r.branch = zone.Branch(branch)
	}
	return r
}

// ring decodes a claim's keys. Their payloads are only looked for where they are
// needed: nothing else is learnt from them.
func (c *claimDecoder) ring(d *Domain) (keys.Ring, error) {
	payload := d.payload
	if !c.anew {
		payload = func(string) string { return "not looked for" }
	}
	ring, err := c.held.DecodeAgain(d.Branch.Attachment(), payload)
	if c.held = ring; err != nil {
		return ring, err
	}
	if ring.Mode != d.ringMode() {
		return ring, errDamaged
	}
	return ring, nil
}

// carries says whether a branch is one of the claim's: its tenant's, its pool's.
func (t *tables) carries(d *Domain) bool {
	tenant, ok := t.tenants.Get(d.Tenant)
	if !ok || tenant.Number != d.Branch.Tenant() {
		return false
	}
	pool, ok := t.pools.Get(d.Pool)
	return ok && pool.Number == d.Branch.Pool() && d.Serial == d.Branch.Serial()
}

// learn adds what the indexes hold of a ring.
func (s *claimed) learn(t Token, ring keys.Ring, anew bool) error {
	if anew {
		if sharesWithin(ring) {
			return fmt.Errorf("claim %s: %w", t, errDamaged)
		}
		s.uses = append(s.uses, claimUse{t, useOf(ring, keys.Ring{})})
		return nil
	}
	for i := range ring.Keys {
		k := &ring.Keys[i]
		if k.Payload != "" {
			s.keys++
		}
		if len(k.Sealed) > 0 {
			s.sealed[keys.SealedVersion(k.Sealed)]++
		}
	}
	return nil
}

// add adds a claim as link and put do.
func (s *claimed) add(d *Domain) {
	s.each(d, func(list *[]string, n zone.Name) { *list = append(*list, pairOf(n, d.Token)) })
	// Its place in the queue as it was, too, which a policy that changed since
	// might put elsewhere.
	if at := d.wakeAt(); at != 0 {
		s.due = append(s.due, dueKey(at, d.Token))
	}
	if until := d.waitsUntil(); until != 0 {
		s.pending = append(s.pending, dueKey(until, d.Token))
	}
	s.pools[d.Pool]++
	s.tenants[d.Tenant]++
	if d.Mode == zone.CNAME {
		s.slots[d.Pool]++
	}
	for _, server := range d.Servers {
		s.servers[server.Server]++
	}
	held := *d
	held.Reports = nil // see count
	for _, number := range held.platformNumbers() {
		s.platforms[number]++
	}
}

func newClaimed() claimed {
	return claimed{
		sealed: make(map[uint16]int), platforms: make(map[uint32]int),
		servers: make(map[string]int), pools: make(map[string]int), slots: make(map[string]int), tenants: make(map[string]int),
		octets: make(map[string]int),
	}
}

// merge adds what another core decoded.
func (s *claimed) merge(o *claimed) {
	for i, more := range o.kinds() {
		list := s.kinds()[i]
		*list = append(*list, *more...)
	}
	s.due, s.pending, s.uses = append(s.due, o.due...), append(s.pending, o.pending...), append(s.uses, o.uses...)
	s.keys, s.sum = s.keys+o.keys, s.sum+o.sum
	addCounts(s.sealed, o.sealed)
	addCounts(s.servers, o.servers)
	addCounts(s.pools, o.pools)
	addCounts(s.slots, o.slots)
	addCounts(s.platforms, o.platforms)
	addCounts(s.tenants, o.tenants)
	addCounts(s.octets, o.octets)
}

func addCounts[K comparable](to, from map[K]int) {
	for k, n := range from {
		to[k] += n
	}
}

// indexAll begins to fill the indexes of claims. What is no claim may be read meanwhile.
func (w *writer) indexAll(s *claimed) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	for i, list := range s.kinds() {
		all.Go(func() { fillSorted(&w.kinds()[i].pairs, *list) })
	}
	all.Go(func() { fillSorted(&w.due, s.due) })
	all.Go(func() { fillSorted(&w.pending, s.pending) })
	return all
}

// fillSorted sets keys in order, each copied to memory of its own: where they were
// decoded they lie between garbage, whose pages they would keep.
func fillSorted(t *table[string, struct{}], list []string) {
	slices.Sort(list)
	t.fill(func(yield func(string, struct{}) bool) {
		for _, key := range slices.Compact(list) {
			yield(strings.Clone(key), struct{}{})
		}
	})
}

// countAll is count for all claims of an image, and learns their keys where it is to.
func (w *writer) countAll(s *claimed) {
	for _, u := range s.uses {
		w.learnKeys(u.token, u.use)
	}
	for version, n := range s.sealed {
		w.countSealed([]uint16{version}, n)
	}
	for id, n := range s.pools {
		if e, ok := w.pools.Get(id); ok {
			next := *e
			next.domains, next.slots = next.domains+n, next.slots+s.slots[id]
			w.pools.Set(id, &next)
		}
	}
	for id, n := range s.tenants {
		w.countTenant(id, n, s.octets[id])
	}
	for label, n := range s.servers {
		if e, ok := w.servers.Get(label); ok {
			next := *e
			next.domains += n
			w.servers.Set(label, &next)
		}
	}
	for number, n := range s.platforms {
		if e, ok := w.platforms.Get(number); ok {
			next := *e
			next.domains += n
			w.platforms.Set(number, &next)
		}
	}
}

// sound says whether a decoded domain holds values that the machine can have.
func (d *Domain) sound() bool {
	ok := wellFormed(d.Name) && (d.Registrable == "" || wellFormed(d.Registrable)) &&
		(d.Mode == zone.Delegated || d.Mode == zone.CNAME) && d.State >= Pending && d.State <= Leaving &&
		len(d.Algorithms) > 0
	for _, n := range d.SignsFor {
		ok = ok && wellFormed(n)
	}
	ok = ok && soundRecords(d.Records)
	for _, t := range d.Targets.Keys {
		ok = ok && wellFormed(t.Name)
	}
	for _, t := range []zone.Target{d.Targets.Bounce, d.Targets.Click, d.Targets.DMARC} {
		ok = ok && (wellFormed(t.Name) || d.Mode == zone.Delegated && t.Name == "")
	}
	for _, t := range d.Reports {
		ok = ok && wellFormed(t.Name)
	}
	return ok
}
