package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sort"

	"authd/keys"
	"authd/zone"
)

// record is how the machine holds a claim: two pointer-free blocks, so that a
// million claims cost the collector little. Domain is made from it on demand.
type record struct {
	// meta begins with the token's 16 octets; see appendMeta.
	meta   string
	branch zone.Branch
}

func recordOf(d *Domain) record {
	return record{string(appendMeta(make([]byte, 0, usualMeta+rrsetsSize(d.Records)), d)), d.Branch} // one block for both
}

// unusual is how many octets a claim takes past usualDomain.
func (r record) unusual() int { return max(0, len(r.meta)+len(r.branch)-usualDomain) }

// Tags of a target in meta.
const (
	targetNone      = 0
	targetGenerated = 1 // follows from the token: only the platform's number is kept
	targetBound     = 2
)

// maxMetaItems bounds counts read from an image before anything is allocated.
const maxMetaItems = 1 << 16

// errDamaged says that no encoder of ours wrote these octets.
var errDamaged = errors.New("damaged record")

// appendMeta encodes everything of a domain but its branch. Equal domains encode
// to equal bytes.
func appendMeta(b []byte, d *Domain) []byte {
	b = append(b, d.Token[:]...)
	var override byte
	if d.Override {
		override = 1
	}
	b = append(b, byte(d.Mode), byte(d.State), override)
	b = appendText(b, string(d.Name))
	b = binary.AppendUvarint(b, uint64(len(d.Registrable))) // the end of Name
	b = appendText(b, d.Tenant)
	b = appendText(b, d.Pool)
	b = appendText(b, d.DMARC)
	b = appendText(b, d.Prefix)
	b = appendText(b, d.AttestedBy)
	b = binary.AppendUvarint(b, uint64(d.Serial))
	for _, at := range [...]int64{d.CreatedAt, d.ProvenAt, d.LeavingAt, d.GoneAt, d.DueAt} {
		b = binary.AppendUvarint(b, uint64(at))
	}
	b = appendMoves(b, d)
	b = appendLabels(b, d.Labels)
	b = appendNames(b, d.SignsFor)
	b = binary.AppendUvarint(b, uint64(len(d.Algorithms)))
	for _, a := range d.Algorithms {
		b = append(b, byte(a))
	}
	b = binary.AppendUvarint(b, uint64(len(d.Servers)))
	for _, s := range d.Servers {
		b = binary.AppendUvarint(b, uint64(s.Platform))
		b = appendText(b, s.Server)
	}
	b = binary.AppendUvarint(b, uint64(len(d.Targets.Keys)))
	token := d.Token.text()
	for i, t := range d.Targets.Keys {
		b = appendTarget(b, t, token.isIn(t, keySlotLabel(d.Algorithms, i), labelDKIM))
	}
	b = appendTarget(b, d.Targets.Bounce, token.isIn(d.Targets.Bounce, labelBounce))
	b = appendTarget(b, d.Targets.Click, token.isIn(d.Targets.Click, labelClick))
	b = appendTarget(b, d.Targets.DMARC, token.isIn(d.Targets.DMARC, labelDMARC))
	b = binary.AppendUvarint(b, uint64(len(d.Reports)))
	for _, r := range d.Reports {
		b = appendTarget(b, r, false)
	}
	return appendRRsets(b, d.Records)
}

// tokenLabel is a token as it is in names.
type tokenLabel [TokenLength]byte

func (t Token) text() (label tokenLabel) {
	tokenText.Encode(label[:], t[:])
	return label
}

// isIn says whether a target is the one that follows from the token: its name begins
// with the labels that name puts in front of an apex.
func (t *tokenLabel) isIn(target zone.Target, labels ...string) bool {
	if target.Name == "" || labels[0] == "" {
		return false
	}
	n := target.Name
	for i, l := range labels {
		if i == len(labels)-1 {
			if n.Label() != string(t[:]) {
				return false
			}
			n = n.Parent()
		}
		if n.Label() != l {
			return false
		}
		n = n.Parent()
	}
	return true
}

// The labels below a platform zone's apex under which names are generated.
const (
	labelDKIM   = "dkim"
	labelBounce = "bounce"
	labelClick  = "click"
	labelDMARC  = "dmarc"
	labelSPF    = "spf"
)

// slotsPerAlgorithm is how many target names an algorithm has in CNAME mode.
const slotsPerAlgorithm = 3

// keySlotLabel is the first label of the i-th key target; empty: there is none.
func keySlotLabel(algorithms []keys.Algorithm, i int) string {
	if i/slotsPerAlgorithm >= len(algorithms) {
		return ""
	}
	return keys.SlotLabel(algorithms[i/slotsPerAlgorithm], uint8(i%slotsPerAlgorithm)+1)
}

// name puts the token between the labels that isIn looks for: k1.T.dkim.P, T.bounce.P.
func (t *tokenLabel) name(apex zone.Name, labels ...string) (zone.Name, error) {
	var room [3]string
	last := len(labels) - 1
	return apex.Child(append(append(append(room[:0], labels[:last]...), string(t[:])), labels[last])...)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendNames(b []byte, names []zone.Name) []byte {
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, n := range names {
		b = appendText(b, string(n))
	}
	return b
}

// appendMoves takes one octet where a claim never changed its pool.
func appendMoves(b []byte, d *Domain) []byte {
	b = binary.AppendUvarint(b, uint64(d.MovedAt))
	if d.MovedAt == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(d.Parts)))
	for _, number := range d.Parts {
		b = binary.AppendUvarint(b, uint64(number))
	}
	return b
}

func appendLabels(b []byte, labels map[string]string) []byte {
	names := make([]string, 0, len(labels))
	for k := range labels {
		names = append(names, k)
	}
	sort.Strings(names)
	b = binary.AppendUvarint(b, uint64(len(names)))
	for _, k := range names {
		b = appendText(appendText(b, k), labels[k])
	}
	return b
}

func appendTarget(b []byte, t zone.Target, generated bool) []byte {
	switch {
	case t.Name == "":
		return append(b, targetNone)
	case generated:
		return binary.AppendUvarint(append(b, targetGenerated), uint64(t.Platform))
	}
	b = binary.AppendUvarint(append(b, targetBound), uint64(t.Platform))
	return appendText(b, string(t.Name))
}

func appendRRsets(b []byte, sets []zone.RRset) []byte {
	b = binary.AppendUvarint(b, uint64(len(sets)))
	for _, s := range sets {
		b = appendText(b, string(s.Owner))
		b = binary.AppendUvarint(b, uint64(s.Type))
		b = binary.AppendUvarint(b, uint64(s.TTL))
		b = binary.AppendUvarint(b, uint64(len(s.Data)))
		for _, data := range s.Data {
			b = appendText(b, string(data))
		}
	}
	return b
}

// decoder reads what the append functions wrote. After the first failure it
// returns zero values; err says so at the end.
type decoder struct {
	s     string
	err   error
	token tokenLabel // of the claim
}

func (r *decoder) fail() {
	if r.err == nil {
		r.err = errDamaged
	}
	r.s = ""
}

func (r *decoder) byte() byte {
	if len(r.s) == 0 {
		r.fail()
		return 0
	}
	c := r.s[0]
	r.s = r.s[1:]
	return c
}

// uvarint reads one number; only its shortest form is accepted.
func (r *decoder) uvarint() uint64 {
	var v uint64
	for i := 0; i < len(r.s) && i < binary.MaxVarintLen64; i++ {
		c := r.s[i]
		if c < 0x80 {
			if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
				break
			}
			r.s = r.s[i+1:]
			return v | uint64(c)<<(7*i)
		}
		v |= uint64(c&0x7f) << (7 * i)
	}
	r.fail()
	return 0
}

func (r *decoder) uint32() uint32 {
	v := r.uvarint()
	if v > 1<<32-1 {
		r.fail()
		return 0
	}
	return uint32(v)
}

func (r *decoder) time() int64 {
	v := r.uvarint()
	if v > 1<<62 {
		r.fail()
		return 0
	}
	return int64(v)
}

// text aliases the input.
func (r *decoder) text() string {
	n := r.uvarint()
	if n > uint64(len(r.s)) {
		r.fail()
		return ""
	}
	s := r.s[:n]
	r.s = r.s[n:]
	return s
}

// count reads a number of items of which each takes at least one octet.
func (r *decoder) count() int {
	n := r.uvarint()
	if n > uint64(len(r.s)) || n > maxMetaItems {
		r.fail()
		return 0
	}
	return int(n)
}

func (r *decoder) names() []zone.Name {
	n := r.count()
	if n == 0 {
		return nil
	}
	names := make([]zone.Name, n)
	for i := range names {
		names[i] = zone.Name(r.text())
	}
	return names
}

func (r *decoder) labels() map[string]string {
	n := r.count()
	if n == 0 {
		return nil
	}
	labels := make(map[string]string, n)
	for range n {
		k := r.text()
		labels[k] = r.text()
	}
	return labels
}

func (r *decoder) moves(d *Domain) {
	if d.MovedAt = r.time(); d.MovedAt == 0 {
		return
	}
	n := r.count()
	if n > MaxRotations {
		r.fail()
		return
	}
	for range n {
		d.Parts = append(d.Parts, r.uint32())
	}
}

func (r *decoder) rrsets() []zone.RRset {
	n := r.count()
	if n == 0 {
		return nil
	}
	sets := make([]zone.RRset, n)
	for i := range sets {
		sets[i].Owner = zone.Name(r.text())
		sets[i].Type = zone.Type(r.uint32())
		sets[i].TTL = r.uint32()
		sets[i].Data = make([][]byte, r.count())
		for j := range sets[i].Data {
			sets[i].Data[j] = []byte(r.text())
		}
	}
	return sets
}

// apexes finds the apex of a platform zone by its number.
type apexes interface {
	apex(number uint32) (zone.Name, bool)
}

func (r *decoder) target(d *Domain, p apexes, labels ...string) zone.Target {
	switch r.byte() {
	case targetNone:
		return zone.Target{}
	case targetGenerated:
		number := r.uint32()
		apex, ok := p.apex(number)
		if !ok || len(labels) == 0 || labels[0] == "" {
			r.fail()
			return zone.Target{}
		}
		n, err := r.token.name(apex, labels...)
		if err != nil {
			r.fail()
		}
		return zone.Target{Name: n, Platform: number}
	case targetBound:
		number := r.uint32()
		return zone.Target{Name: zone.Name(r.text()), Platform: number}
	}
	r.fail()
	return zone.Target{}
}

// decodeMeta is the inverse of appendMeta. The domain's texts alias meta.
func decodeMeta(meta string, p apexes) (*Domain, error) {
	d := new(Domain)
	if err := d.decode(meta, p); err != nil {
		return nil, err
	}
	return d, nil
}

// decode is decodeMeta into a domain that has nothing yet.
func (d *Domain) decode(meta string, p apexes) error {
	r := decoder{s: meta}
	if len(r.s) < len(d.Token) {
		return errDamaged
	}
	copy(d.Token[:], r.s)
	r.s, r.token = r.s[len(d.Token):], d.Token.text()
	r.head(d)
	d.Pool = r.text()
	d.DMARC, d.Prefix, d.AttestedBy = r.text(), r.text(), r.text()
	d.Serial = r.uint32()
	for _, at := range [...]*int64{&d.CreatedAt, &d.ProvenAt, &d.LeavingAt, &d.GoneAt, &d.DueAt} {
		*at = r.time()
	}
	r.moves(d)
	d.Labels = r.labels()
	d.SignsFor = r.names()
	if n := r.count(); n > 0 {
		d.Algorithms = make([]keys.Algorithm, n)
		for i := range d.Algorithms {
			d.Algorithms[i] = keys.Algorithm(r.byte())
		}
	}
	if n := r.count(); n > 0 {
		d.Servers = make([]zone.ServerName, n)
		for i := range d.Servers {
			d.Servers[i] = r.server(d, p)
		}
	}
	if n := r.count(); n > 0 {
		d.Targets.Keys = make([]zone.Target, n)
		for i := range d.Targets.Keys {
			d.Targets.Keys[i] = r.target(d, p, keySlotLabel(d.Algorithms, i), labelDKIM)
		}
	}
	d.Targets.Bounce = r.target(d, p, labelBounce)
	d.Targets.Click = r.target(d, p, labelClick)
	d.Targets.DMARC = r.target(d, p, labelDMARC)
	if n := r.count(); n > 0 {
		d.Reports = make([]zone.Target, n)
		for i := range d.Reports {
			d.Reports[i] = r.target(d, p)
		}
	}
	d.Records = r.rrsets()
	if r.err == nil && r.s != "" {
		r.fail()
	}
	if r.err != nil {
		return fmt.Errorf("reading claim %s: %w", d.Token, r.err)
	}
	return nil
}

// head reads what is behind the token, up to the tenant.
func (r *decoder) head(d *Domain) {
	d.Mode, d.State, d.Override = zone.Mode(r.byte()), DomainState(r.byte()), r.byte() == 1
	d.Name = zone.Name(r.text())
	if n := r.uvarint(); n <= uint64(len(d.Name)) {
		d.Registrable = d.Name[len(d.Name)-int(n):]
	} else {
		r.fail()
	}
	d.Tenant = r.text()
}

// head is a claim up to its tenant, for those who need no more of it: decoding all costs
// as much as the claim has records.
func (r record) head() (d Domain) {
	copy(d.Token[:], r.meta)
	in := decoder{s: r.meta[len(d.Token):]}
	in.head(&d)
	return d
}

func (r *decoder) server(d *Domain, p apexes) zone.ServerName {
	number, label := r.uint32(), r.text()
	apex, ok := p.apex(number)
	if !ok {
		r.fail()
		return zone.ServerName{}
	}
	n, err := r.token.name(apex, label)
	if err != nil {
		r.fail()
	}
	return zone.ServerName{Name: n, Platform: number, Server: label}
}
