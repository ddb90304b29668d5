package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"

	"authd/keys"
	"authd/zone"
)

// ReadImage reads what WriteImage wrote, in this or a released version. It
// fails on any damage; nothing of a damaged image is returned.
func ReadImage(r io.Reader) (Machine, error) {
	t, err := readImage(r)
	if err != nil {
		return Machine{}, fmt.Errorf("reading image: %w", err)
	}
	return Machine{machine{t}}, nil
}

func readImage(source io.Reader) (*tables, error) {
	r := &imageReader{r: bufio.NewReaderSize(source, 1<<20)}
	var head [len(imageMagic) + 2]byte
	if err := r.full(head[:]); err != nil {
		return nil, err
	}
	if string(head[:len(imageMagic)]) != imageMagic {
		return nil, errors.New("this is no image: its first line is another")
	}
	if v := binary.BigEndian.Uint16(head[len(imageMagic):]); v != imageVersion {
		return nil, fmt.Errorf("version %d, this release reads %d: upgrade this node", v, imageVersion)
	}
	w := &writer{tables: new(tables)}
	next, err := r.shared(w)
	if err != nil {
		return nil, err
	}
	if next, err = r.domains(w, next); err != nil {
		return nil, err
	}
	if err := r.history(w, next); err != nil {
		return nil, err
	}
	if _, err := r.r.ReadByte(); err != io.EOF {
		return nil, errors.New("octets behind the end")
	}
	return w.tables, nil
}

// imageReader reads frames and checks them.
type imageReader struct {
	r      *bufio.Reader
	total  uint32
	frames uint64
	last   byte
}

func (r *imageReader) full(b []byte) error {
	if _, err := io.ReadFull(r.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return errors.New("cut short")
		}
		return err
	}
	r.total = crc32.Update(r.total, castagnoli, b)
	return nil
}

// frame is one checked frame.
type frame struct {
	section byte
	body    string
}

// next reads one frame. Memory grows with what was read, never with what a
// length claims.
func (r *imageReader) next() (frame, error) {
	before := r.total
	var h [frameHeader]byte
	if err := r.full(h[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(h[1:])
	if size > frameLimit+binary.MaxVarintLen64 {
		return frame{}, fmt.Errorf("frame %d: %d octets, at most %d", r.frames, size, frameLimit)
	}
	body := make([]byte, 0, min(size, 2*frameAim))
	for len(body) < int(size) {
		start := len(body)
		body = append(body, make([]byte, min(int(size)-start, 2*frameAim))...)
		if err := r.full(body[start:]); err != nil {
			return frame{}, err
		}
	}
	crc := crc32.Update(crc32.Checksum(h[:5], castagnoli), castagnoli, body)
	if crc != binary.BigEndian.Uint32(h[5:]) {
		return frame{}, fmt.Errorf("frame %d: the checksum does not fit: damaged", r.frames)
	}
	f := frame{h[0], string(body)}
	if f.section < r.last {
		return frame{}, fmt.Errorf("frame %d: section %d behind section %d", r.frames, f.section, r.last)
	}
	r.last = f.section
	if f.section != sectionEnd {
		r.frames++
		return f, nil
	}
	if len(body) != 12 || binary.BigEndian.Uint64(body) != r.frames || binary.BigEndian.Uint32(body[8:]) != before {
		return frame{}, errors.New("the end does not fit what was read: damaged")
	}
	return f, nil
}

// items walks a frame's items.
func (f frame) items(each func(item string) error) error {
	r := decoder{s: f.body}
	for r.s != "" {
		item := r.text()
		if r.err != nil {
			return r.err
		}
		if err := each(item); err != nil {
			return err
		}
	}
	return nil
}

// shared reads every section before the domains and gives the first frame that
// it did not read.
func (r *imageReader) shared(w *writer) (frame, error) {
	for {
		f, err := r.next()
		if err != nil {
			return frame{}, err
		}
		if f.section >= sectionDomains {
			return f, w.renderShared()
		}
		if err := f.items(func(item string) error { return w.readShared(f.section, item) }); err != nil {
			return frame{}, fmt.Errorf("section %d: %w", f.section, err)
		}
	}
}

// readShared reads one object; none may be there twice.
func (w *writer) readShared(section byte, item string) error {
	switch section {
	case sectionMachine:
		return object(item, func(m imageMachine) bool {
			w.index, w.time, w.settings, w.sweeps = m.Index, m.Time, m.Settings, m.Sweeps
			w.platformNumber, w.poolNumber, w.tenantNumber = m.PlatformNumber, m.PoolNumber, m.TenantNumber
			if m.Cookies != nil {
				w.cookies = *m.Cookies
			}
			w.imaged = m.Audit
			w.rotationNumber = m.RotationNumber
			return true
		})
	case sectionPlatforms:
		return object(item, w.readPlatform)
	case sectionServers:
		return object(item, func(s imageServer) bool {
			_, twice := w.servers.Set(s.Label, &serverEntry{NameServer: NameServer(s)})
			return !twice && isServerLabel(s.Label) && soundAddresses(s.Addresses)
		})
	case sectionPools:
		return object(item, func(p imagePool) bool {
			_, twice := w.pools.Set(p.ID, &poolEntry{Pool: Pool{p.Number, p.ID, p.Serial, p.Spec}})
			_, again := w.poolIDs.Set(p.Number, p.ID)
			return !twice && !again && p.Number > 0 && p.Number <= w.poolNumber && p.Spec.sound()
		})
	case sectionTenants:
		return object(item, func(t imageTenant) bool {
			twice := w.setTenant(&tenantEntry{Tenant: Tenant(t)})
			return !twice && t.Number > 0 && t.Number <= w.tenantNumber
		})
	case sectionAccess:
		return object(item, func(a AccessToken) bool {
			twice := w.setAccess(&a)
			_, again := w.accessHash.Set(string(a.Hash[:]), a.ID)
			return !twice && !again
		})
	case sectionGone:
		return buryItem(&w.gone, w.bury, item)
	case sectionGoneBound:
		return buryItem(&w.goneBound, w.buryHash, item)
	}
	return fmt.Errorf("unknown: this image is of a newer release: upgrade this node")
}

func (w *writer) readPlatform(p imagePlatform) bool {
	if !wellFormed(p.Apex) || !wellFormed(p.Contact) || !soundRecords(p.Records) {
		return false
	}
	_, twice := w.platforms.Set(p.Number, &platformEntry{
		Platform: Platform(p), octets: rrsetsSize(p.Records),
	})
	return !twice && p.Number > 0 && p.Number <= w.platformNumber
}

// object decodes one object and hands it on; keep says whether it is sound.
func object[T any](item string, keep func(T) bool) error {
	var v T
	if err := decoding.Unmarshal([]byte(item), &v); err != nil {
		return err
	}
	return damagedIf(!keep(v))
}

// buryItem adds a tombstone.
func buryItem[V ~[16]byte](set *graves, bury func(V), item string) error {
	if len(item) != len(Token{}) || set.has(tokenOf(item)) {
		return errDamaged
	}
	bury(V(tokenOf(item)))
	return nil
}

func damagedIf(bad bool) error {
	if bad {
		return errDamaged
	}
	return nil
}

// sound says whether names and addresses are ones; what they may be, RenderPool
// says.
func (s *PoolSpec) sound() bool {
	ok := s.ClickCNAME == "" || wellFormed(s.ClickCNAME)
	for _, mx := range s.MX {
		ok = ok && wellFormed(mx.Host)
	}
	return ok && soundAddresses(s.ClickA)
}

func soundAddresses(list []netip.Addr) bool {
	return !slices.ContainsFunc(list, func(a netip.Addr) bool { return !a.IsValid() })
}

func soundRecords(list []zone.RRset) bool {
	return !slices.ContainsFunc(list, func(s zone.RRset) bool { return !wellFormed(s.Owner) })
}

// renderShared makes the answers of pools and platform zones.
func (w *writer) renderShared() error {
	base, ok := w.firstPlatform()
	if !ok && w.pools.Len() > 0 {
		return errors.New("pools without a platform zone")
	}
	var err error
	w.pools.Scan(func(_ string, p *poolEntry) bool {
		var r *Refusal
		if p.answers, r = renderPool(&p.Pool, base.Apex); r != nil {
			err = fmt.Errorf("pool %s: %w", quote(p.ID), r)
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	w.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		if p.answers, err = zone.RenderPlatform(w.platformPlan(&p.Platform)); err != nil {
			err = fmt.Errorf("platform zone %s: %w", quoteName(p.Apex), err)
		}
		return err == nil
	})
	return err
}

// claims is one frame of claims, decoded.
type claims struct {
	list []claim
	err  error
}

type claim struct {
	record
	domain *Domain
	use    keyUse
}

// job is one frame on its way through a decoder.
type job struct {
	frame frame
	out   chan claims
}

// domains reads the claims, and gives the first frame that is none of them.
// Frames are decoded and rendered on all cores, a bounded number at a time, and
// stored in order.
func (r *imageReader) domains(w *writer, f frame) (frame, error) {
	workers := runtime.GOMAXPROCS(0)
	jobs := make(chan job)
	order := make(chan job, 2*workers)
	// Decoders read what is shared while claims are stored in a fork of it.
	shared := w.tables
	w.tables = shared.fork()
	var failed error
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for j := range jobs {
				j.out <- shared.decodeClaims(j.frame)
			}
		})
	}
	all.Go(func() {
		defer close(order)
		defer close(jobs)
		f, failed = r.send(f, order, jobs)
	})
	var err error
	last := ""
	for j := range order {
		batch := <-j.out
		if err == nil {
			err = batch.err
		}
		for _, c := range batch.list {
			if err != nil {
				break
			}
			if key := c.meta[:len(Token{})]; key <= last || strings.HasPrefix(last, key[:tokenStart]) || w.gone.has(c.domain.Token) {
				err = fmt.Errorf("claim %s: %w", c.domain.Token, errDamaged)
			} else {
				last = key
				w.restore(c)
			}
		}
	}
	all.Wait()
	if failed != nil {
		return f, failed
	}
	return f, err
}

// send hands the frames of claims to the decoders, and to the one who stores
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

// restore stores a claim as it was: its place in the queue too, which a policy
// that changed since might put elsewhere.
func (w *writer) restore(c claim) {
	d := c.domain
	w.link(d, c.use)
	w.loadDomain(c.record)
	if at := d.wakeAt(); at != 0 {
		w.due.Set(dueKey(at, d.Token), struct{}{})
	}
}

// decodeClaims decodes and renders the claims of one frame.
func (t *tables) decodeClaims(f frame) (out claims) {
	out.err = f.items(func(item string) error {
		c, err := t.decodeClaim(item)
		if err == nil {
			out.list = append(out.list, c)
		}
		return err
	})
	return out
}

func (t *tables) decodeClaim(item string) (claim, error) {
	r := decoder{s: item}
	meta, encoded := r.text(), r.text()
	n := r.count()
	payloads := make(map[string]string, min(n, 64))
	for range n {
		selector := r.text()
		payloads[selector] = r.text()
	}
	if r.err != nil || r.s != "" {
		return claim{}, errDamaged
	}
	meta = strings.Clone(meta) // or it would keep the whole frame
	d, err := decodeMeta(meta, t)
	if err != nil {
		return claim{}, err
	}
	if !d.sound() || string(appendMeta(nil, d)) != meta {
		return claim{}, fmt.Errorf("claim %s: %w", d.Token, errDamaged)
	}
	ring, err := keys.DecodeRing(encoded, func(selector string) string { return payloads[selector] })
	if err != nil {
		return claim{}, fmt.Errorf("claim %s: %w", d.Token, err)
	}
	if ring.Mode != d.ringMode() || sharesWithin(ring) {
		return claim{}, fmt.Errorf("claim %s: %w", d.Token, errDamaged)
	}
	if d.Branch, err = t.render(d, ring); err != nil {
		return claim{}, fmt.Errorf("claim %s: %w", d.Token, err)
	}
	return claim{record{meta, d.Branch}, d, useOf(ring, keys.Ring{})}, nil
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
