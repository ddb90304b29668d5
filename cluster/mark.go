package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The mark says how far this node has applied the log. Raft's own log does not
// say which of its entries are committed, so a node that restarts without a
// quorum would not know what it had served; the mark does.
//
// The file is preallocated and has three slots a page apart: one is known to be
// on disk, one may be on its way there, one is written after every applied batch.
// A torn write therefore never reaches the last value that was synced, and a
// sync never stops an apply.
const (
	markSlots    = 3
	markSpacing  = 4096 // a page each: no write touches two slots
	markSlotSize = 48
	markMagic    = "authdmk1"

	// markDelay is the longest that an applied entry may be ahead of the durable
	// mark. What a node confirmed to others is always durable.
	markDelay = time.Second
)

// markValue is what a slot holds.
type markValue struct {
	// Index is the last index applied; 0 where nothing was, or nothing is known.
	Index uint64
	// Base is the index of the last snapshot that replaced the machine at run
	// time. Log entries up to it were superseded by that snapshot, and may even
	// be of a tail that never was committed: they are not to be replayed.
	Base uint64
	// Owed is set where this node lost entries that it may have acknowledged:
	// it neither votes nor stands until its machine has reached this index.
	Owed uint64
}

// mark is the open mark file. Safe for concurrent use.
type mark struct {
	file *os.File

	// writes is held for a pwrite, which a hanging disk may hold up, never for a sync.
	// It comes before mu.
	writes sync.Mutex
	under  hang // the write under way

	// mu guards what follows; never held for the disk.
	mu       sync.Mutex
	value    markValue
	sequence uint64
	writing  int       // slot of the next write
	durable  int       // slot known to be on disk
	synced   markValue // what that slot holds at least
	dirty    bool
	timer    *time.Timer
	closed   bool
	broken   error // of the first sync that did not work

	// syncing serialises syncs.
	syncing sync.Mutex
	// failed is told of a sync in the background that did not work.
	failed func(error)

	fault diskFault // before every write
}

// openMark opens or makes the mark file. failed is called, once or more, when a
// background sync does not work.
func openMark(path string, failed func(error)) (*mark, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening mark: %w", err)
	}
	m := &mark{file: file, failed: failed}
	if err := m.load(); err != nil {
		file.Close()
		return nil, fmt.Errorf("reading mark %s: %w", path, err)
	}
	return m, nil
}

// load reads the slots, or preallocates a new file.
func (m *mark) load() error {
	content := make([]byte, markSlots*markSpacing)
	n, err := m.file.ReadAt(content, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if n < len(content) {
		// New, or the crash came while it was made.
		if err := m.preallocate(); err != nil {
			return err
		}
	}
	for slot := range markSlots {
		v, sequence, ok := decodeSlot(content[slot*markSpacing:][:markSlotSize])
		if ok && sequence >= m.sequence {
			m.value, m.sequence, m.durable = v, sequence, slot
		}
	}
	m.synced = m.value
	m.writing = (m.durable + 1) % markSlots
	// What was read may have been in memory alone: the process before this one was
	// killed between a write and its sync.
	return m.file.Sync()
}

func (m *mark) preallocate() error {
	if err := m.file.Truncate(markSlots * markSpacing); err != nil {
		return err
	}
	if err := unix.Fallocate(int(m.file.Fd()), 0, 0, markSlots*markSpacing); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("preallocating: %w", err)
	}
	return m.file.Sync()
}

// Slot layout: magic, sequence, index, base, owed, CRC-32C of all before.
func encodeSlot(v markValue, sequence uint64) []byte {
	b := make([]byte, 0, markSlotSize)
	b = append(b, markMagic...)
	b = binary.BigEndian.AppendUint64(b, sequence)
	b = binary.BigEndian.AppendUint64(b, v.Index)
	b = binary.BigEndian.AppendUint64(b, v.Base)
	b = binary.BigEndian.AppendUint64(b, v.Owed)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, 0, 0, 0, 0)
}

func decodeSlot(b []byte) (v markValue, sequence uint64, ok bool) {
	const body = 8 + 4*8
	if string(b[:8]) != markMagic || binary.BigEndian.Uint32(b[body:]) != crc32.Checksum(b[:body], crc32.MakeTable(crc32.Castagnoli)) {
		return v, 0, false
	}
	v.Index = binary.BigEndian.Uint64(b[16:])
	v.Base = binary.BigEndian.Uint64(b[24:])
	v.Owed = binary.BigEndian.Uint64(b[32:])
	return v, binary.BigEndian.Uint64(b[8:]), true
}

// get is what was written last.
func (m *mark) get() markValue {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.value
}

// apply records an applied index: written now, so that a killed process loses
// nothing, and on disk within markDelay.
func (m *mark) apply(index uint64) error {
	return m.write(func(v *markValue) { v.Index = index })
}

// set changes the value and returns once it is on disk.
func (m *mark) set(change func(*markValue)) error {
	if err := m.write(change); err != nil {
		return err
	}
	return m.sync(0)
}

func (m *mark) write(change func(*markValue)) error {
	m.writes.Lock()
	defer m.writes.Unlock()
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return fmt.Errorf("writing mark: %w", os.ErrClosed)
	}
	change(&m.value)
	m.sequence++
	slot, at := encodeSlot(m.value, m.sequence), int64(m.writing)*markSpacing
	m.mu.Unlock()
	m.under.begin()
	err := m.put(slot, at)
	m.under.end()
	if err != nil {
		return fmt.Errorf("writing mark: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		m.dirty = true
		m.timer = time.AfterFunc(markDelay, m.late)
	}
	return nil
}

func (m *mark) put(slot []byte, at int64) error {
	if err := m.fault.meet(); err != nil {
		return err
	}
	_, err := m.file.WriteAt(slot, at)
	return err
}

// stalled says whether a write has been waiting for the disk longer than limit: nothing
// is applied meanwhile.
func (m *mark) stalled(limit time.Duration) bool { return m.under.longer(limit) }

// late is the sync that a quiet node owes its last writes.
func (m *mark) late() {
	if err := m.sync(0); err != nil && m.failed != nil {
		m.failed(err)
	}
}

// sync returns once an index, and everything written before the call where
// index is 0, is on disk.
func (m *mark) sync(index uint64) error {
	m.syncing.Lock()
	defer m.syncing.Unlock()

	m.writes.Lock() // the slot changes between two writes
	m.mu.Lock()
	if m.broken != nil || m.closed || !m.dirty || index != 0 && m.synced.Index >= index {
		defer m.writes.Unlock()
		defer m.mu.Unlock()
		return m.broken
	}
	slot, value := m.writing, m.value
	m.writing = 3 - slot - m.durable // the slot that is neither
	m.dirty = false
	m.timer.Stop()
	m.mu.Unlock()
	m.writes.Unlock()

	err := unix.Fdatasync(int(m.file.Fd()))
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		// For good: the kernel reports a lost page once, and the next sync would
		// succeed without it.
		m.broken = fmt.Errorf("syncing mark: %w", err)
		return m.broken
	}
	m.durable, m.synced = slot, value
	return nil
}

// Close syncs and closes.
func (m *mark) Close() error {
	err := m.sync(0)
	m.writes.Lock()
	defer m.writes.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return err
	}
	m.closed = true
	if m.timer != nil {
		m.timer.Stop()
	}
	return errors.Join(err, m.file.Close())
}
