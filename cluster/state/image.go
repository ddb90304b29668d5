package state

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
	"slices"

	"authd/zone"
)

// The image is a header and frames. The header says the version of the image and
// the form of the answers in it. A frame is its section's number, its length and
// the CRC-32C of what follows; the last one says how many there were and what the
// CRC-32C of the header and of all their heads is. Sections come in order of
// their numbers and each is sorted by key, so that equal machines write equal
// bytes.
//
// Of a claim the image holds the record and the branch, as they are in memory.
// A release that answers in the same form takes both as they are (LoadImage);
// another renders anew, from the keys in the branch and from the record.
// Indexes and counts are not in it, because they follow from the rest, except for
// the index of public keys, which only a hash of every key would give again.
const (
	imageMagic   = "authd image\n"
	imageVersion = 1
	imageHeader  = len(imageMagic) + 2 + 1 // magic, version, form
)

// Sections. Never renumber.
const (
	sectionMachine   = 1 // index, time, settings, numbers
	sectionPlatforms = 2
	sectionServers   = 3
	sectionPools     = 4
	sectionTenants   = 5
	sectionAccess    = 6
	sectionGone      = 7 // tombstones, 16 octets each
	sectionGoneBound = 8
	sectionDomains   = 9
	sectionAudit     = 10 // the window of changes
	sectionOnce      = 11 // results of requests with a key
	sectionRotations = 20
	sectionKeyIndex  = 21 // shards of the index of public keys: number and entries
	sectionKeyShared = 22 // and what it has of keys that several claims share
	sectionEnd       = 255
)

// Sizes of frames. A frame is closed once it holds frameAim octets; one with a
// single large object may be longer, up to frameLimit.
const (
	frameAim    = 256 << 10
	frameLimit  = 16 << 20
	frameHeader = 1 + 4 + 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// imageMachine, imagePlatform and the others are objects as the image holds
// them. New fields get new keys; old keys stay.
type imageMachine struct {
	Index          uint64   `cbor:"1,keyasint"`
	Time           int64    `cbor:"2,keyasint"`
	Settings       Settings `cbor:"3,keyasint"`
	PlatformNumber uint32   `cbor:"4,keyasint"`
	PoolNumber     uint32   `cbor:"5,keyasint"`
	TenantNumber   uint32   `cbor:"6,keyasint"`
	Sweeps         []sweep  `cbor:"7,keyasint"`
	// Cookies is nil where there are no secrets yet.
	Cookies *CookieSecrets `cbor:"8,keyasint,omitempty"`
	// Audit is nil where nothing changed yet.
	Audit *imageAudit `cbor:"9,keyasint,omitempty"`
	// RotationNumber is of the last rotation of many domains.
	RotationNumber uint32      `cbor:"20,keyasint,omitempty"`
	Reads          []ReadsHead `cbor:"21,keyasint,omitempty"`
	// Authority is nil where there is none; its place leaves room.
	Authority   *Authority   `cbor:"50,keyasint,omitempty"`
	Invitations []Invitation `cbor:"51,keyasint,omitempty"`
	Off         []OffNode    `cbor:"52,keyasint,omitempty"`
	Epoch       uint32       `cbor:"53,keyasint,omitempty"`
	Wrap        uint16       `cbor:"22,keyasint,omitempty"`
}

type imagePlatform struct {
	Number  uint32       `cbor:"1,keyasint"`
	Apex    zone.Name    `cbor:"2,keyasint"`
	Contact zone.Name    `cbor:"3,keyasint"`
	Serial  uint32       `cbor:"4,keyasint"`
	Records []zone.RRset `cbor:"5,keyasint"`
}

type imageServer struct {
	Label     string       `cbor:"1,keyasint"`
	Addresses []netip.Addr `cbor:"2,keyasint"`
}

type imagePool struct {
	Number uint32   `cbor:"1,keyasint"`
	ID     string   `cbor:"2,keyasint"`
	Serial uint32   `cbor:"3,keyasint"`
	Spec   PoolSpec `cbor:"4,keyasint"`
}

type imageTenant struct {
	Number    uint32 `cbor:"1,keyasint"`
	ID        string `cbor:"2,keyasint"`
	Name      string `cbor:"3,keyasint"`
	Suspended bool   `cbor:"4,keyasint"`
	CreatedAt int64  `cbor:"5,keyasint"`
	Domains   uint32 `cbor:"6,keyasint,omitempty"` // at most
	Octets    uint32 `cbor:"7,keyasint,omitempty"` // at most
}

// WriteImage writes the snapshot format: versioned, checksummed, the same bytes
// for the same machine.
func (m Machine) WriteImage(w io.Writer) error {
	i := &imageWriter{w: bufio.NewWriterSize(w, 64<<10), frame: make([]byte, 0, frameAim+frameAim/8)}
	i.head(append([]byte(imageMagic), 0, imageVersion, zone.Form))
	i.machine(m.tables())
	i.end()
	if i.err == nil {
		i.err = i.w.Flush()
	}
	if i.err != nil {
		return fmt.Errorf("writing image: %w", i.err)
	}
	return nil
}

// imageWriter fills frames. After the first failure it does nothing more.
type imageWriter struct {
	w       *bufio.Writer
	err     error
	total   uint32 // CRC-32C of the header and of all heads of frames
	frames  uint64
	section byte
	frame   []byte
}

func (i *imageWriter) write(b []byte) {
	if i.err == nil {
		_, i.err = i.w.Write(b)
	}
}

// head writes what the total counts.
func (i *imageWriter) head(b []byte) {
	i.total = crc32.Update(i.total, castagnoli, b)
	i.write(b)
}

func (i *imageWriter) machine(t *tables) {
	i.begin(sectionMachine)
	i.object(t.image())
	i.begin(sectionPlatforms)
	t.platforms.Scan(func(_ uint32, p *platformEntry) bool {
		return i.object(imagePlatform{p.Number, p.Apex, p.Contact, p.Serial, p.Records})
	})
	i.begin(sectionServers)
	t.servers.Scan(func(_ string, s *serverEntry) bool { return i.object(imageServer{s.Label, s.Addresses}) })
	i.begin(sectionPools)
	t.pools.Scan(func(_ string, p *poolEntry) bool {
		return i.object(imagePool{p.Number, p.ID, p.Serial, p.PoolSpec})
	})
	i.begin(sectionTenants)
	t.tenants.Scan(func(_ string, t *Tenant) bool {
		return i.object(imageTenant{t.Number, t.ID, t.Name, t.Suspended, t.CreatedAt, t.MaxDomains, t.MaxOctets})
	})
	i.begin(sectionAccess)
	t.access.Scan(func(_ string, a *AccessToken) bool { return i.object(a) })
	i.begin(sectionGone)
	t.gone.each(func(v [16]byte) bool { return i.item(v[:]) })
	i.begin(sectionGoneBound)
	t.goneBound.each(func(v [16]byte) bool { return i.item(v[:]) })
	i.begin(sectionDomains)
	t.domains.Scan(func(_ string, r record) bool { return i.claim(r) })
	i.audit(t)
	i.begin(sectionRotations)
	t.rotations.Scan(func(_ uint32, r *Rotation) bool { return i.object(r) })
	i.keyIndex(&t.keys)
	i.flush()
}

// image is the part of a machine that is small.
func (t *tables) image() imageMachine {
	return imageMachine{
		Index: t.index, Time: t.time, Settings: t.settings,
		PlatformNumber: t.platformNumber, PoolNumber: t.poolNumber, TenantNumber: t.tenantNumber, Sweeps: t.sweeps,
		Cookies: t.cookies.image(), Audit: t.audit.image(), RotationNumber: t.rotationNumber, Reads: t.reads, Wrap: t.wrap,
		Authority: t.authority.image(), Invitations: t.invitations, Off: t.off, Epoch: t.epoch,
	}
}

// each walks the set in order.
func (g *graves) each(yield func([16]byte) bool) {
	g.halves.Scan(func(high, low uint64) bool {
		var v [16]byte
		binary.BigEndian.PutUint64(v[:8], high)
		binary.BigEndian.PutUint64(v[8:], low)
		all := [][16]byte{v}
		g.whole.Ascend(string(v[:8]), func(key string, _ struct{}) bool {
			if key[:8] != string(v[:8]) {
				return false
			}
			all = append(all, tokenOf(key))
			return true
		})
		// Which values lie in halves depends on history; the image must not.
		slices.SortFunc(all, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
		for _, v := range all {
			if !yield(v) {
				return false
			}
		}
		return true
	})
}

// begin closes the frame before and turns to a section.
func (i *imageWriter) begin(section byte) {
	i.flush()
	i.section = section
}

// object adds one CBOR object.
func (i *imageWriter) object(v any) bool {
	b, err := encoding.Marshal(v)
	if err != nil && i.err == nil {
		i.err = err
	}
	return i.item(b)
}

// item adds one item with its length in front.
func (i *imageWriter) item(b []byte) bool {
	i.frame = append(binary.AppendUvarint(i.frame, uint64(len(b))), b...)
	return i.full(len(b))
}

// claim adds the record and the branch of a claim.
func (i *imageWriter) claim(r record) bool {
	i.frame = appendText(appendText(i.frame, r.meta), string(r.branch))
	return i.full(len(r.branch))
}

// full closes the frame where it is long enough; false where the image has failed.
func (i *imageWriter) full(added int) bool {
	if len(i.frame) > frameLimit && i.err == nil {
		i.err = fmt.Errorf("an object of %d octets, at most %d", added, frameLimit)
	}
	if len(i.frame) >= frameAim {
		i.flush()
	}
	return i.err == nil
}

func (i *imageWriter) flush() {
	if len(i.frame) == 0 {
		return
	}
	i.emit(i.section, i.frame)
	i.frames++
	i.frame = i.frame[:0]
}

func (i *imageWriter) emit(section byte, b []byte) {
	var h [frameHeader]byte
	h[0] = section
	binary.BigEndian.PutUint32(h[1:], uint32(len(b)))
	crc := crc32.Update(crc32.Checksum(h[:5], castagnoli), castagnoli, b)
	binary.BigEndian.PutUint32(h[5:], crc)
	i.head(h[:])
	i.write(b)
}

// end closes the image.
func (i *imageWriter) end() {
	i.flush()
	var b [12]byte
	binary.BigEndian.PutUint64(b[:8], i.frames)
	binary.BigEndian.PutUint32(b[8:], i.total)
	i.emit(sectionEnd, b[:])
}
