package keys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// What goes through the mill's pipe, for each pair: the length of the rest in two
// octets, the algorithm in one, what it took (microseconds by the clock, and of a
// processor) in four each, the length of the payload in two, the payload, the
// compact private half.
const (
	frameHead = 2
	pairHead  = 11
	maxFrame  = 4096
)

// writePair sends a pair in one write.
func writePair(to io.Writer, p *Pair, spent took) error {
	compact := p.Compact()
	defer clear(compact)
	length := pairHead + len(p.payload) + len(compact)
	if length > maxFrame-frameHead {
		return fmt.Errorf("pair of %d octets, at most %d", length, maxFrame-frameHead)
	}
	frame := make([]byte, 0, frameHead+length)
	defer func() { clear(frame[:cap(frame)]) }()
	frame = binary.BigEndian.AppendUint16(frame, uint16(length))
	frame = append(frame, byte(p.Algorithm()))
	frame = binary.BigEndian.AppendUint32(frame, uint32(spent.wall.Microseconds()))
	frame = binary.BigEndian.AppendUint32(frame, uint32(spent.work.Microseconds()))
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(p.payload)))
	frame = append(frame, p.payload...)
	frame = append(frame, compact...)
	_, err := to.Write(frame)
	return err
}

// readPair reads what writePair sent and checks that the halves match; the sender has
// checked that the pair signs. io.EOF is the end between two pairs.
func readPair(from io.Reader) (*Pair, took, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, took{}, err // io.EOF must stay recognisable
	}
	length := int(binary.BigEndian.Uint16(head[:]))
	if length <= pairHead || length > maxFrame-frameHead {
		return nil, took{}, fmt.Errorf("pair of %d octets, want %d to %d", length, pairHead+1, maxFrame-frameHead)
	}
	frame := make([]byte, length)
	defer clear(frame)
	if _, err := io.ReadFull(from, frame); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, took{}, err
	}
	algorithm, size := Algorithm(frame[0]), int(binary.BigEndian.Uint16(frame[pairHead-2:]))
	spent := took{
		wall: time.Duration(binary.BigEndian.Uint32(frame[1:])) * time.Microsecond,
		work: time.Duration(binary.BigEndian.Uint32(frame[5:])) * time.Microsecond,
	}
	rest := frame[pairHead:]
	if size > len(rest) {
		return nil, took{}, fmt.Errorf("payload of %d octets in a pair of %d", size, length)
	}
	p, err := Restore(string(rest[:size]), rest[size:])
	if err != nil {
		return nil, took{}, err
	}
	if p.Algorithm() != algorithm {
		return nil, took{}, fmt.Errorf("pair is of %s, but said to be of %s", p.Algorithm(), algorithm)
	}
	return p, spent, nil
}
