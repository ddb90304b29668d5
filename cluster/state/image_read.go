package state

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"slices"

	"authd/zone"
)

// ReadImage reads what WriteImage wrote, in this or a released version, and makes
// every answer anew: whatever an image from outside claims, DNS answers nothing
// that Render would not make. It fails on any damage; nothing of a damaged image
// is returned.
func ReadImage(r io.Reader) (Machine, error) { return ReadImageNear(r, Machine{}) }

// ReadImageNear is ReadImage where claims that near has just the same share its memory.
func ReadImageNear(r io.Reader, near Machine) (Machine, error) {
	return read(&imageReader{anew: true, near: near.tables()}, r)
}

// LoadImage reads an image of this node or of a peer. Answers of this release's Form
// are taken as they are, after a check of their shape. Claims that near has just the
// same share its memory.
func LoadImage(r io.Reader, near Machine) (Machine, error) {
	return read(&imageReader{near: near.tables()}, r)
}

func read(i *imageReader, r io.Reader) (Machine, error) {
	i.r = bufio.NewReaderSize(r, 64<<10)
	t, err := i.image()
	if err != nil {
		return Machine{}, fmt.Errorf("reading image: %w", err)
	}
	return Machine{t: t}, nil
}

func (r *imageReader) image() (*tables, error) {
	if err := r.header(); err != nil {
		return nil, err
	}
	w := &writer{tables: new(tables)}
	next, err := r.shared(w)
	if err != nil {
		return nil, err
	}
	claims, next, err := r.domains(w, next)
	if err != nil {
		return nil, err
	}
	under := w.indexAll(claims)
	err = r.history(w, next)
	if under.Wait(); err != nil {
		return nil, err
	}
	w.countAll(claims)
	if _, err := r.r.ReadByte(); err != io.EOF {
		return nil, errors.New("octets behind the end")
	}
	return w.tables, nil
}

func (r *imageReader) header() error {
	var head [imageHeader]byte
	if err := r.full(head[:]); err != nil {
		return err
	}
	r.total = crc32.Checksum(head[:], castagnoli)
	if string(head[:len(imageMagic)]) != imageMagic {
		return errors.New("this is no image: its first line is another")
	}
	if v := binary.BigEndian.Uint16(head[len(imageMagic):]); v != imageVersion {
		return fmt.Errorf("version %d, this release reads %d: upgrade this node", v, imageVersion)
	}
	// A release with a new form goes on finding the keys in branches of the old
	// ones, and renders the rest anew.
	if form := head[imageHeader-1]; form != zone.Form {
		return fmt.Errorf("answers of form %d, this release reads %d: upgrade this node", form, zone.Form)
	}
	return nil
}

// imageReader reads frames and checks them.
type imageReader struct {
	r      *bufio.Reader
	anew   bool    // render every answer
	near   *tables // claims may share its memory; nil: none
	total  uint32
	frames uint64
	last   byte
	keys   int         // public keys of the claims
	spare  chan []byte // bodies of frames that nothing refers to any more
}

func (r *imageReader) full(b []byte) error {
	if _, err := io.ReadFull(r.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return errors.New("cut short")
		}
		return err
	}
	return nil
}

// frame is one checked frame.
type frame struct {
	section byte
	body    []byte
}

// next reads one frame. Memory grows with what was read, never with what a
// length claims.
func (r *imageReader) next() (frame, error) {
	before := r.total
	var h [frameHeader]byte
	if err := r.full(h[:]); err != nil {
		return frame{}, err
	}
	r.total = crc32.Update(r.total, castagnoli, h[:])
	size := binary.BigEndian.Uint32(h[1:])
	if size > frameLimit+binary.MaxVarintLen64 {
		return frame{}, fmt.Errorf("frame %d: %d octets, at most %d", r.frames, size, frameLimit)
	}
	body, err := r.body(int(size))
	if err != nil {
		return frame{}, err
	}
	crc := crc32.Update(crc32.Checksum(h[:5], castagnoli), castagnoli, body)
	if crc != binary.BigEndian.Uint32(h[5:]) {
		return frame{}, fmt.Errorf("frame %d: the checksum does not fit: damaged", r.frames)
	}
	f := frame{h[0], body}
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

// body reads the octets of a frame.
func (r *imageReader) body(size int) ([]byte, error) {
	const step = 2 * frameAim
	var body []byte
	select {
	case body = <-r.spare:
		body = body[:0]
	default:
	}
	for len(body) < size {
		start := len(body)
		body = slices.Grow(body, min(size-start, step))[:start+min(size-start, step)]
		if err := r.full(body[start:]); err != nil {
			return nil, err
		}
	}
	return body, nil
}

// items walks a frame's items.
func (f frame) items(each func(item string) error) error {
	r := decoder{s: string(f.body)}
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
			if m.Authority != nil {
				w.authority = *m.Authority
			}
			w.invitations, w.off = m.Invitations, m.Off
			w.imaged = m.Audit
			w.rotationNumber = m.RotationNumber
			w.reads, w.wrap, w.epoch = m.Reads, m.Wrap, m.Epoch
			return soundReads(m.Reads) && soundInvitations(m.Invitations) && soundOff(m.Off)
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
			twice := w.setTenant(&Tenant{Number: t.Number, ID: t.ID, Name: t.Name, Suspended: t.Suspended, CreatedAt: t.CreatedAt, MaxDomains: t.Domains, MaxOctets: t.Octets})
			return !twice && t.Number > 0 && t.Number <= w.tenantNumber && checkBounds(t.Domains, t.Octets) == nil
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
