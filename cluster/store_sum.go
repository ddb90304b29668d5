package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// bbolt checks its meta pages and nothing else: an octet that turned on the disk
// in the middle of an entry would be applied as it is, on this node alone, and the
// machines would differ for ever. So every entry carries a sum (in Extensions,
// which the library leaves to stores), and so does what Raft keeps beside the log:
// a vote that reads as another is a second vote.

// errDamaged marks what is not as it was written.
var errDamaged = errors.New("damaged on disk")

const sumOctets = 4

func entrySum(l *raft.Log) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	var head [17]byte
	binary.BigEndian.PutUint64(head[:], l.Index)
	binary.BigEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return binary.BigEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(head[:], table), table, l.Data))
}

// summed are entries as they are stored. The library's own are not touched: it
// sends them to others.
func summed(logs []*raft.Log) []*raft.Log {
	entries := make([]raft.Log, len(logs))
	stored := make([]*raft.Log, len(logs))
	for i, l := range logs {
		entries[i] = *l
		entries[i].Extensions = entrySum(l)
		stored[i] = &entries[i]
	}
	return stored
}

// checkEntry takes the sum off an entry that was read.
func checkEntry(index uint64, l *raft.Log) error {
	sum := l.Extensions
	l.Extensions = nil
	if l.Index != index || string(sum) != string(entrySum(l)) {
		return fmt.Errorf("entry %d: %w", index, errDamaged)
	}
	return nil
}

// sumValue and checkValue are the same for a key's value.
func sumValue(key, value []byte) []byte {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(crc32.Checksum(key, table), table, value)
	return binary.BigEndian.AppendUint32(append(make([]byte, 0, len(value)+sumOctets), value...), sum)
}

func checkValue(key, stored []byte) ([]byte, error) {
	n := len(stored) - sumOctets
	if n < 0 || string(sumValue(key, stored[:n])) != string(stored) {
		return nil, fmt.Errorf("value of %q: %w", key, errDamaged)
	}
	return stored[:n], nil
}

// Set implements raft.StableStore.
func (s *store) Set(key, value []byte) error {
	return s.guard("writing state", func() error { return s.bolt.Set(key, sumValue(key, value)) })
}

// Get implements raft.StableStore.
func (s *store) Get(key []byte) (value []byte, err error) {
	err = s.guard("reading state", func() error {
		stored, err := s.bolt.Get(key)
		if err == nil {
			value, err = checkValue(key, stored)
		}
		return err
	})
	return value, err
}

// SetUint64 implements raft.StableStore.
func (s *store) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 implements raft.StableStore.
func (s *store) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, s.guard("reading state", func() error { return fmt.Errorf("value of %q: %w", key, errDamaged) })
	}
	return binary.BigEndian.Uint64(value), nil
}
