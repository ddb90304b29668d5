package cluster

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// An operator's restore is entries of the log: one that begins it, the image in pieces,
// and one that ends it, at which every node puts the image in the place of its machine.
// Its id is the index of the first. What is open ends with the next that begins and with
// the first entry of another term: a leader that lost its office in the middle has begun
// nothing that its successor goes on with.
//
// Nobody keeps the pieces but the log, where they are read from at the end. So while a
// restore is open no node makes a snapshot, behind which its log would be cleared.

// restoreEntry is the first octet of such an entry; a batch of commands begins with its
// version (state.EncodeBatch).
const restoreEntry = 'R'

// What a step does, its second octet. What follows is in big-endian order.
const (
	restoreBegins  = 'b' // size of the image, SHA-256
	restoreGoesOn  = 'p' // id, where in the image the piece belongs, the piece
	restoreEnds    = 'e' // id, a batch of commands for the state that was restored
	restoreGivenUp = 'x'
)

// pieceSize is as long as a usual entry: nothing on the way is to be sized for restores.
const pieceSize = usualEntry

func encodeBegin(size int64, sum [sha256.Size]byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{restoreEntry, restoreBegins}, uint64(size))
	return append(b, sum[:]...)
}

// encodePiece is the head of a piece, with room for it.
func encodePiece(id uint64, offset int64, room int) []byte {
	b := make([]byte, 0, 2+8+8+room)
	b = binary.BigEndian.AppendUint64(append(b, restoreEntry, restoreGoesOn), id)
	return binary.BigEndian.AppendUint64(b, uint64(offset))
}

func encodeEnd(id uint64, batch []byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{restoreEntry, restoreEnds}, id), batch...)
}

func encodeGivenUp() []byte { return []byte{restoreEntry, restoreGivenUp} }

// restoreStep is one entry of a restore.
type restoreStep struct {
	kind   byte
	id     uint64
	size   int64             // begins
	sum    [sha256.Size]byte // begins
	offset int64             // goes on
	piece  []byte            // goes on
	after  []state.Entry     // ends
}

// ends says whether this is the end of a restore, which takes long.
func (s *restoreStep) ends() bool { return s != nil && s.kind == restoreEnds }

var errStep = errors.New("a step of a restore that this release cannot read")

// decodeStep reads what follows restoreEntry.
func decodeStep(data []byte) (s restoreStep, err error) {
	bad := false
	number := func() uint64 {
		if bad = bad || len(data) < 8; bad {
			return 0
		}
		n := binary.BigEndian.Uint64(data)
		data = data[8:]
		return n
	}
	if len(data) == 0 {
		return s, errStep
	}
	s.kind, data = data[0], data[1:]
	switch s.kind {
	case restoreBegins:
		s.size = int64(number())
		bad = bad || len(data) != copy(s.sum[:], data) || len(data) < len(s.sum) || s.size < 0
	case restoreGoesOn:
		s.id, s.offset, s.piece = number(), int64(number()), data
	case restoreEnds:
		if s.id = number(); !bad {
			s.after, err = state.DecodeBatch(data)
		}
	case restoreGivenUp:
		bad = len(data) > 0
	default:
		bad = true
	}
	if bad {
		return s, errStep
	}
	return s, err
}

// openRestore is a restore that has begun and not ended.
type openRestore struct {
	id, term uint64
	size     int64
	sum      [sha256.Size]byte
	fed      hash.Hash // of the pieces so far, as they were fed
	got      int64
	at       []uint64 // where the pieces are
}

// stepAnswer is what a step of a restore answers its proposer.
type stepAnswer struct {
	index   uint64
	refused string // why it did nothing; empty: it was taken
}

// takeStep applies one entry of a restore.
func (a *applier) takeStep(l *raft.Log, s *restoreStep) (refused string, err error) {
	switch s.kind {
	case restoreBegins:
		a.open = &openRestore{id: l.Index, term: l.Term, size: s.size, sum: s.sum, fed: sha256.New()}
		return "", nil
	case restoreGivenUp:
		a.open = nil
		return "", nil
	}
	o := a.open
	if o == nil || o.id != s.id {
		return "it was given up before, by an election or another restore", nil
	}
	if s.kind == restoreGoesOn {
		if s.offset != o.got || int64(len(s.piece)) > o.size-o.got {
			a.open = nil
			return fmt.Sprintf("a piece of %d octets for %d of %d, and %d are there", len(s.piece), s.offset, o.size, o.got), nil
		}
		o.fed.Write(s.piece)
		o.got, o.at = o.got+int64(len(s.piece)), append(o.at, l.Index)
		return "", nil
	}
	a.open = nil
	if o.got != o.size || !bytes.Equal(o.fed.Sum(nil), o.sum[:]) {
		return fmt.Sprintf("what came, %d of %d octets, is not what was sent", o.got, o.size), nil
	}
	return "", a.replace(l, o, s.after)
}

// replace puts the image in the place of the machine. It goes on where every serial is
// at this entry, so that none goes back.
func (a *applier) replace(l *raft.Log, o *openRestore, after []state.Entry) error {
	old := a.end()
	m, err := o.read(a.log, old)
	if err != nil {
		a.machine = old.Applier()
		return fmt.Errorf("restoring the image that began at %d: %w", o.id, err)
	}
	a.machine, a.replaced = m.Succeed(old).WithIndex(l.Index).Applier(), true
	a.machine.Apply(l.Index, after)
	return nil
}

// read reads the image from the log. Every node was fed the same, which its leader could
// read: who cannot must not go on beside those who can.
func (o *openRestore) read(log entryReader, near state.Machine) (state.Machine, error) {
	sum, from := sha256.New(), &pieces{log: log, at: o.at}
	m, err := state.LoadImage(io.TeeReader(from, sum), near)
	switch {
	case from.failed != nil:
		return m, from.failed
	case err != nil:
		return m, fmt.Errorf("%w; where this node is older than the cluster, upgrade it", err)
	case !bytes.Equal(sum.Sum(nil), o.sum[:]):
		return m, errors.New("the log does not give back what it was fed: damaged")
	}
	return m, nil
}

// pieces reads the pieces of an image one after the other.
type pieces struct {
	log    entryReader
	at     []uint64
	rest   []byte
	failed error
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 && p.failed == nil {
		if len(p.at) == 0 {
			return 0, io.EOF
		}
		p.rest, p.failed = p.piece(p.at[0])
		p.at = p.at[1:]
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, p.failed
}

func (p *pieces) piece(index uint64) ([]byte, error) {
	var l raft.Log
	if err := p.log.GetLog(index, &l); err != nil {
		return nil, fmt.Errorf("entry %d: %w", index, err)
	}
	e, err := decode(&l)
	if err == nil && (e.step == nil || e.step.kind != restoreGoesOn) {
		err = fmt.Errorf("entry %d is no piece", index)
	}
	if err != nil {
		return nil, err
	}
	return e.step.piece, nil
}
