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
	claimed
	err error
}

// claimed collects what the indexes hold of some claims: a list of pairs for each
// index, which is sorted before it goes into its table, and counts.
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

// domains reads the claims, and gives the first frame that is none of them.
// Frames are decoded on all cores, a bounded number at a time, and stored in order.
func (r *imageReader) domains(w *writer, f frame) (frame, error) {
	workers := runtime.GOMAXPROCS(0)
	jobs := make(chan job)
	order := make(chan job, 2*workers)
	r.spare = make(chan []byte, 4*workers)
	// Decoders read what is shared while claims are stored in a fork of it.
	shared := w.tables
	w.tables = shared.fork()
	var failed error
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			d := claimDecoder{tables: shared, near: r.near, anew: r.anew}
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
	var sum claimed
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
			w.loadDomains(batch.list, batch.sum)
			sum.merge(&batch.claimed)
		}
	}
	all.Wait()
	if failed != nil {
		return f, failed
	}
	if err == nil {
		w.indexAll(&sum)
	}
	r.keys = sum.keys
	return f, err
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
	domain    Domain // the one being decoded
	meta      []byte
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
		r, err := c.claim(meta, branch, &out.claimed)
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
func (c *claimDecoder) claim(meta, branch []byte, sum *claimed) (record, error) {
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
		if r.branch, err = c.tables.render(d, ring); err != nil {
			return r, fmt.Errorf("claim %s: %w", d.Token, err)
		}
	} else if !c.tables.carries(d) {
		return r, fmt.Errorf("claim %s: its answers are another's: %w", d.Token, errDamaged)
	}
	sum.add(d)
	sum.octets[d.Tenant] += r.unusual()
	sum.sum += r.sum()
	return r, sum.learn(d.Token, ring, c.anew)
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
	ring, err := keys.DecodeRing(d.Branch.Attachment(), payload)
	if err != nil {
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
	if s.sealed == nil {
		s.sealed = make(map[uint16]int)
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
	if s.pools == nil {
		s.pools, s.slots, s.servers = make(map[string]int), make(map[string]int), make(map[string]int)
		s.platforms = make(map[uint32]int)
		s.tenants, s.octets = make(map[string]int), make(map[string]int)
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

// merge adds what another frame held.
func (s *claimed) merge(o *claimed) {
	for i, more := range o.kinds() {
		list := s.kinds()[i]
		*list = append(*list, *more...)
	}
	s.due, s.pending, s.uses = append(s.due, o.due...), append(s.pending, o.pending...), append(s.uses, o.uses...)
	s.keys += o.keys
	if s.sealed == nil {
		s.sealed = make(map[uint16]int)
	}
	addCounts(s.sealed, o.sealed)
	if s.pools == nil {
		s.servers, s.pools, s.slots, s.platforms, s.tenants, s.octets = o.servers, o.pools, o.slots, o.platforms, o.tenants, o.octets
		return
	}
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

// indexAll fills the indexes and counts of claims.
func (w *writer) indexAll(s *claimed) {
	var all sync.WaitGroup
	for i, list := range s.kinds() {
		all.Go(func() { fillSorted(&w.kinds()[i].pairs, *list) })
	}
	all.Go(func() { fillSorted(&w.due, s.due) })
	all.Go(func() { fillSorted(&w.pending, s.pending) })
	all.Wait()
	for _, u := range s.uses {
		w.learnKeys(u.token, u.use)
	}
	for version, n := range s.sealed {
		w.countSealed([]uint16{version}, n)
	}
	w.countAll(s)
}

// fillSorted sets keys in order, each copied to memory of its own: where they were
// decoded they lie between garbage, whose pages they would keep.
func fillSorted(t *table[string, struct{}], list []string) {
	slices.Sort(list)
	for _, key := range list {
		t.Set(strings.Clone(key), struct{}{})
	}
}

// countAll is count for all claims of an image.
func (w *writer) countAll(s *claimed) {
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
