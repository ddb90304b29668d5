package keys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"unsafe"
)

// ringVersion is the first byte of an encoded ring. A new form gets a new number,
// and DecodeRing goes on reading the old ones: images hold them.
//
// urgentVersion has Rotation, Handed and Urgent behind the rest; it is written where
// there is one of them.
const (
	ringVersion   = 1
	urgentVersion = 2
)

// maxFreed bounds Freed: three slots of two algorithms, or the selectors removed
// in burnedFor months. A ring publishes nothing that could pass it.
const maxFreed = 1024

// Flags of an encoded key: which optional parts follow.
const (
	hasConfirmed = 1 << iota
	hasGap
	hasActivated
	hasDrained
	hasRevoked
	isPublicOnly
	isImported
	hasSwitchBy
	hasHeld
	hasBroughtBy
	hasHeldBefore
)

// Append encodes the ring without the payloads of its keys, which DNS holds
// already. Equal rings encode to equal bytes.
//
// Version 1: version, mode, NextID, jitter, RetiredAt, the keys, Freed by name,
// RolledFrom by algorithm. Version 2: Rotation, Handed and Urgent by
// algorithm besides. Numbers are varints in their shortest form, a key's
// times are relative to its creation, and that to the previous key's.
func (r Ring) Append(dst []byte) []byte {
	version := byte(ringVersion)
	if len(r.Urgent) > 0 || r.Rotation != 0 || len(r.Handed) > 0 {
		version = urgentVersion
	}
	dst = append(dst, version, byte(r.Mode))
	dst = binary.AppendUvarint(dst, uint64(r.NextID))
	dst = binary.AppendVarint(dst, int64(r.Jitter))
	dst = binary.AppendVarint(dst, r.RetiredAt)
	dst = binary.AppendUvarint(dst, uint64(len(r.Keys)))
	var before Key
	for i := range r.Keys {
		dst = r.Keys[i].append(dst, r.Mode, &before)
		before = r.Keys[i]
	}
	dst = appendTimes(dst, r.Freed)
	dst = binary.AppendUvarint(dst, uint64(len(r.RolledFrom)))
	for _, a := range slices.Sorted(maps.Keys(r.RolledFrom)) {
		dst = append(dst, byte(a))
		dst = binary.AppendUvarint(dst, uint64(r.RolledFrom[a]))
	}
	if version == ringVersion {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(r.Rotation))
	dst = appendTimes(dst, r.Handed)
	dst = binary.AppendUvarint(dst, uint64(len(r.Urgent)))
	for _, a := range slices.Sorted(maps.Keys(r.Urgent)) {
		dst = append(dst, byte(a), byte(r.Urgent[a].Old), r.Urgent[a].flags())
		dst = binary.AppendUvarint(dst, uint64(r.Urgent[a].Key))
	}
	return dst
}

// Flags of an encoded wish.
const (
	isBurned = 1 << iota
	isPlanned
	isDrill
)

func (u Urgent) flags() (flags byte) {
	if u.Burned {
		flags |= isBurned
	}
	if u.Planned {
		flags |= isPlanned
	}
	if u.Drill {
		flags |= isDrill
	}
	return flags
}

func appendTimes(dst []byte, times map[string]int64) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(times)))
	for _, name := range slices.Sorted(maps.Keys(times)) {
		dst = binary.AppendVarint(appendString(dst, name), times[name])
	}
	return dst
}

func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

func (k *Key) append(dst []byte, mode RingMode, before *Key) []byte {
	var flags uint16
	for _, part := range k.parts() {
		if *part.value != 0 {
			flags |= part.flag
		}
	}
	if k.PublicOnly {
		flags |= isPublicOnly
	}
	if k.Imported {
		flags |= isImported
	}
	dst = binary.AppendUvarint(dst, uint64(flags))
	dst = append(dst, byte(k.Algorithm), byte(k.Stage))
	dst = binary.AppendUvarint(dst, uint64(k.ID-before.ID))
	dst = binary.AppendVarint(dst, k.CreatedAt-before.CreatedAt)
	for _, part := range k.parts() {
		if *part.value != 0 {
			dst = binary.AppendVarint(dst, *part.value-part.base)
		}
	}
	if mode == Slots {
		dst = append(dst, k.Slot)
	} else {
		dst = appendString(dst, k.Selector)
	}
	return appendString(dst, k.Sealed)
}

type keyPart struct {
	flag  uint16
	value *int64
	base  int64
}

// parts are the optional numbers of a key, in the order in which they are encoded.
func (k *Key) parts() [9]keyPart {
	return [9]keyPart{
		{hasConfirmed, &k.ConfirmedAt, k.CreatedAt},
		{hasGap, &k.Gap, 0},
		{hasActivated, &k.ActivatedAt, k.CreatedAt},
		{hasDrained, &k.DrainedAt, k.CreatedAt},
		{hasRevoked, &k.RevokedAt, k.CreatedAt},
		{hasSwitchBy, &k.SwitchBy, k.CreatedAt},
		{hasHeld, &k.HeldUntil, k.CreatedAt},
		{hasBroughtBy, &k.BroughtBy, 0},
		{hasHeldBefore, &k.HeldBefore, k.CreatedAt},
	}
}

// DecodeRing reads what Append wrote; payload gives the TXT payload served for
// a selector, and is not asked for revoked keys. Selectors and sealed halves
// alias b: the latter are READ-ONLY.
func DecodeRing(b string, payload func(selector string) string) (Ring, error) {
	return Ring{}.DecodeAgain(b, payload)
}

// DecodeAgain is DecodeRing in the memory of a ring that is nobody's any more.
func (spent Ring) DecodeAgain(b string, payload func(selector string) string) (Ring, error) {
	d := ringDecoder{rest: b}
	r, err := d.ring(spent, payload)
	if err != nil {
		return Ring{}, fmt.Errorf("decoding ring at octet %d: %w", len(b)-len(d.rest), err)
	}
	if err := r.check(); err != nil {
		return Ring{}, fmt.Errorf("decoding ring: %w", err)
	}
	return r, nil
}

// ringDecoder reads fields one after the other; the first error stays.
type ringDecoder struct {
	rest string
	err  error
}

func (d *ringDecoder) ring(spent Ring, payload func(string) string) (Ring, error) {
	version := d.byte()
	if d.err == nil && version != ringVersion && version != urgentVersion {
		return Ring{}, fmt.Errorf("version %d is newer than this release", version)
	}
	r := Ring{Mode: RingMode(d.byte())}
	if d.err == nil && r.Mode != Minted && r.Mode != Slots {
		return Ring{}, fmt.Errorf("%s is unknown", r.Mode)
	}
	r.NextID = d.uint32()
	jitter := d.varint()
	if jitter < -1000 || jitter > 1000 {
		return Ring{}, fmt.Errorf("jitter %d", jitter)
	}
	r.Jitter = int16(jitter)
	r.RetiredAt = d.varint()
	count := d.count(2 * MaxKeys)
	r.Keys = slices.Grow(spent.Keys[:0], count)
	var before Key
	for range count {
		key := d.key(r.Mode, &before)
		if d.err != nil {
			return Ring{}, d.err
		}
		if key.Stage != Revoked {
			if key.Payload = payload(key.Selector); key.Payload == "" {
				return Ring{}, fmt.Errorf("selector %q has no payload", key.Selector)
			}
		}
		r.Keys = append(r.Keys, key)
		before = key
	}
	r.Freed = d.times(maxFreed)
	d.rolled(&r, spent.RolledFrom)
	if version == urgentVersion {
		d.urgent(&r)
	}
	if d.err == nil && d.rest != "" {
		return Ring{}, fmt.Errorf("%d octets too many", len(d.rest))
	}
	return r, d.err
}

func (d *ringDecoder) key(mode RingMode, before *Key) Key {
	flags := d.flags()
	if flags >= hasHeldBefore<<1 {
		d.fail(fmt.Errorf("key flags %#x", flags))
	}
	k := Key{
		Algorithm: Algorithm(d.byte()), Stage: Stage(d.byte()),
		PublicOnly: flags&isPublicOnly != 0, Imported: flags&isImported != 0,
	}
	step := d.uint32()
	if k.ID = before.ID + step; k.ID <= before.ID {
		d.fail(errors.New("key IDs do not rise"))
	}
	k.CreatedAt = before.CreatedAt + d.varint()
	for _, part := range k.parts() {
		if flags&part.flag == 0 {
			continue
		}
		if *part.value = part.base + d.varint(); *part.value == 0 {
			d.fail(errors.New("optional number is 0"))
		}
	}
	if mode == Slots {
		if k.Slot = d.byte(); k.Slot < 1 || k.Slot > slotCount {
			d.fail(fmt.Errorf("slot %d", k.Slot))
			return k
		}
		k.Selector = SlotLabel(k.Algorithm, k.Slot)
	} else {
		k.Selector = d.string(maxSelector)
	}
	if sealed := d.string(maxSealed); sealed != "" {
		k.Sealed = unsafe.Slice(unsafe.StringData(sealed), len(sealed))
	}
	return k
}

func (d *ringDecoder) flags() uint16 {
	u := d.uvarint()
	if u > 1<<16-1 {
		d.fail(fmt.Errorf("key flags %#x", u))
	}
	return uint16(u)
}

func (d *ringDecoder) times(most int) (times map[string]int64) {
	count := d.count(most)
	if count > 0 {
		times = make(map[string]int64, count)
	}
	last := ""
	for range count {
		name := d.string(maxSelector)
		if name <= last {
			d.fail(errors.New("names are not in order"))
			return nil
		}
		times[name] = d.varint()
		last = name
	}
	return times
}

func (d *ringDecoder) rolled(r *Ring, spent map[Algorithm]uint32) {
	count := d.count(2)
	if clear(spent); count > 0 {
		if r.RolledFrom = spent; spent == nil {
			r.RolledFrom = make(map[Algorithm]uint32, count)
		}
	}
	last := Algorithm(0)
	for range count {
		a := Algorithm(d.byte())
		if a <= last {
			d.fail(errors.New("algorithms are not in order"))
			return
		}
		r.RolledFrom[a] = d.uint32()
		last = a
	}
}

func (d *ringDecoder) urgent(r *Ring) {
	r.Rotation = d.uint32()
	if r.Handed = d.times(2 * slotCount); len(r.Handed) > 0 && r.Mode != Slots {
		d.fail(errors.New("slots in a ring that has none"))
	}
	count := d.count(2)
	if count == 0 {
		if r.Rotation == 0 && len(r.Handed) == 0 {
			d.fail(errors.New("no emergency waits: version 1 would do"))
		}
		return
	}
	r.Urgent = make(map[Algorithm]Urgent, count)
	last := Algorithm(0)
	for range count {
		a := Algorithm(d.byte())
		if a <= last {
			d.fail(errors.New("algorithms are not in order"))
			return
		}
		wish := Urgent{Old: Fate(d.byte())}
		flags := d.byte()
		if flags&^(isBurned|isPlanned|isDrill) != 0 {
			d.fail(fmt.Errorf("wish flags %#x", flags))
		}
		wish.Burned, wish.Planned, wish.Drill = flags&isBurned != 0, flags&isPlanned != 0, flags&isDrill != 0
		wish.Key = d.uint32()
		r.Urgent[a] = wish
		last = a
	}
}

func (d *ringDecoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

func (d *ringDecoder) byte() byte {
	if d.err != nil || d.rest == "" {
		d.fail(errors.New("cut short"))
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *ringDecoder) uvarint() uint64 {
	var value uint64
	for shift := 0; ; shift += 7 {
		b := d.byte()
		if d.err != nil {
			return 0
		}
		if shift == 63 && b > 1 {
			d.fail(errors.New("number is too long"))
			return 0
		}
		value |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				d.fail(errors.New("number is not in its shortest form"))
			}
			return value
		}
	}
}

func (d *ringDecoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *ringDecoder) uint32() uint32 {
	u := d.uvarint()
	if u > 1<<32-1 {
		d.fail(fmt.Errorf("number %d is too large", u))
		return 0
	}
	return uint32(u)
}

func (d *ringDecoder) count(most int) int {
	u := d.uvarint()
	if u > uint64(most) {
		d.fail(fmt.Errorf("%d items, at most %d", u, most))
		return 0
	}
	return int(u)
}

func (d *ringDecoder) string(most int) string {
	length := d.count(most)
	if length > len(d.rest) {
		d.fail(errors.New("cut short"))
		return ""
	}
	s := d.rest[:length]
	d.rest = d.rest[length:]
	return s
}

// check refuses a ring that no sequence of steps makes.
func (r Ring) check() error {
	var single [Ed25519 + 1][Active + 1]bool
	for i := range r.Keys {
		k := &r.Keys[i]
		switch {
		case !k.Algorithm.known():
			return fmt.Errorf("key %d: %s is unknown", k.ID, k.Algorithm)
		case k.Stage < Standby || k.Stage > Revoked:
			return fmt.Errorf("key %d: %s is unknown", k.ID, k.Stage)
		case k.ID >= r.NextID:
			return fmt.Errorf("key %d is not below the next ID %d", k.ID, r.NextID)
		case (k.SwitchBy != 0 || k.HeldUntil != 0) && k.Stage != Draining:
			return fmt.Errorf("key %d is %s and has a deadline of draining", k.ID, k.Stage)
		case k.PublicOnly && len(k.Sealed) > 0:
			return fmt.Errorf("key %d is public-only with a sealed half", k.ID)
		}
		for j := range i {
			if r.Keys[j].Selector == k.Selector {
				return fmt.Errorf("keys %d and %d have the same selector", r.Keys[j].ID, k.ID)
			}
		}
		if k.isStandby() || k.Stage == Active {
			if single[k.Algorithm][k.Stage] {
				return fmt.Errorf("two %s keys of %s", k.Stage, k.Algorithm)
			}
			single[k.Algorithm][k.Stage] = true
		}
		if r.Mode == Minted {
			if err := CheckSelector(k.Selector); err != nil {
				return fmt.Errorf("key %d: %w", k.ID, err)
			}
		}
	}
	for a := range r.RolledFrom {
		if !a.known() {
			return fmt.Errorf("rolled from: %s is unknown", a)
		}
	}
	for a, wish := range r.Urgent {
		if !wish.Old.known() {
			return fmt.Errorf("urgent: %s is unknown", wish.Old)
		}
		k, _ := r.ByID(wish.Key)
		signs := k.Stage == Active && r.RetiredAt == 0
		signed := k.Stage == Draining && r.RetiredAt != 0 && k.DrainedAt == r.RetiredAt
		if k.Algorithm != a || !signs && !signed {
			return fmt.Errorf("urgent: key %d of %s is not active", wish.Key, a)
		}
	}
	return nil
}
