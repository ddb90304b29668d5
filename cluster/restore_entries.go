package cluster

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// An operator's restore is entries of the log: one that begins it, the image in pieces,
// and one that ends it, at which every node puts the image in the place of its machine.
// Its id is the index of the first. What is open ends with the next that begins and with
// the first entry of another term: a leader that lost its office in the middle has begun
// nothing that its successor goes on with.
//
// While the pieces come a goroutine reads the image and does nearly all that there is to
// do (state.Succession), from the machine at the first entry: what it comes to is the same
// whenever it is done. A node that is started in the middle does it again, from the log.
// So while a restore is open no node makes a snapshot, behind which its log would be
// cleared.

// restoreEntry is the first octet of such an entry; a batch of commands begins with its
// version (state.EncodeBatch).
const restoreEntry = 'R'

// What a step does, its second octet. What follows is in big-endian order.
const (
	restoreBegins  = 'b' // size of the image, until when it may end, SHA-256
	restoreGoesOn  = 'p' // id, where in the image the piece belongs, the piece
	restoreEnds    = 'e' // id, a batch of commands for the state that was restored
	restoreGivenUp = 'x'
)

// pieceSize is as long as a usual entry: nothing on the way is to be sized for restores.
const pieceSize = usualEntry

func encodeBegin(size, until int64, sum [sha256.Size]byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{restoreEntry, restoreBegins}, uint64(size))
	return append(binary.BigEndian.AppendUint64(b, uint64(until)), sum[:]...)
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
	until  int64             // begins
	sum    [sha256.Size]byte // begins
	offset int64             // goes on
	piece  []byte            // goes on
	after  []state.Entry     // ends
}

// ends says whether this is the end of a restore, which may have to wait for the image.
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
		s.size, s.until = int64(number()), int64(number())
		bad = bad || len(data) != copy(s.sum[:], data) || len(data) < len(s.sum) || s.size < 0 || s.until < 0
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
	id, term  uint64
	size, got int64
	until     int64
	sum       [sha256.Size]byte
	pieces    chan []byte   // to load; closed behind the last, or where no more will come
	loaded    chan struct{} // closed once what follows is there
	fed       [sha256.Size]byte
	ready     *state.Succession
	err       error
}

// piecesAhead is how many pieces may wait for being read: then the log waits for that.
const piecesAhead = 64

// beginRestore opens a restore over a machine. An index of what comes of it can be had.
func beginRestore(l *raft.Log, s *restoreStep, over state.Machine, index bool) *openRestore {
	o := &openRestore{
		id: l.Index, term: l.Term, size: s.size, until: s.until, sum: s.sum,
		pieces: make(chan []byte, piecesAhead), loaded: make(chan struct{}),
	}
	if o.size == 0 {
		close(o.pieces)
	}
	go o.load(over, index)
	return o
}

// load reads the image while its pieces come.
func (o *openRestore) load(over state.Machine, index bool) {
	sum := sha256.New()
	in := io.TeeReader(&pieces{from: o.pieces}, sum)
	defer func() {
		if r := recover(); r != nil {
			o.err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
		_, _ = io.Copy(io.Discard, in) // the log must not wait for ever
		sum.Sum(o.fed[:0])
		close(o.loaded)
	}()
	o.ready, o.err = state.LoadSuccession(in, over, o.until, index)
}

// feed takes the next piece.
func (o *openRestore) feed(piece []byte) {
	if len(piece) == 0 {
		return
	}
	o.pieces <- piece
	if o.got += int64(len(piece)); o.got == o.size {
		close(o.pieces)
	}
}

// drop ends what reads the image where not all of it will come.
func (o *openRestore) drop() {
	if o != nil && o.got < o.size {
		close(o.pieces)
	}
}

// pieces reads the pieces of an image one after the other.
type pieces struct {
	from <-chan []byte
	rest []byte
}

func (p *pieces) Read(b []byte) (int, error) {
	for more := true; len(p.rest) == 0; {
		if p.rest, more = <-p.from; !more {
			return 0, io.EOF
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// stepAnswer is what a step of a restore answers its proposer.
type stepAnswer struct {
	index   uint64
	refused string       // why it did nothing; empty: it was taken
	open    *openRestore // behind it
}

// takeStep applies one entry of a restore.
func (a *applier) takeStep(l *raft.Log, s *restoreStep) (refused string, err error) {
	switch s.kind {
	case restoreBegins:
		a.giveUp()
		a.open = beginRestore(l, s, a.here(), a.indexes)
		return "", nil
	case restoreGivenUp:
		a.giveUp()
		return "", nil
	}
	o := a.open
	if o == nil || o.id != s.id {
		return "it was given up before, by an election or another restore", nil
	}
	if s.kind == restoreGoesOn {
		if s.offset != o.got || int64(len(s.piece)) > o.size-o.got {
			a.giveUp()
			return fmt.Sprintf("a piece of %d octets for %d of %d, and %d are there", len(s.piece), s.offset, o.size, o.got), nil
		}
		o.feed(s.piece)
		return "", nil
	}
	a.giveUp()
	if o.got == o.size {
		<-o.loaded
	}
	if o.got != o.size || o.fed != o.sum {
		return fmt.Sprintf("what came, %d of %d octets, is not what was sent", o.got, o.size), nil
	}
	return a.endRestore(l, o, s.after)
}

// endRestore puts the image in the place of the machine. It goes on where every serial is
// at this entry, so that none goes back. Every node was fed the same, which its leader
// could read: who cannot must not go on beside those who can.
func (a *applier) endRestore(l *raft.Log, o *openRestore, after []state.Entry) (refused string, err error) {
	now := a.here()
	at := now.Time()
	for _, e := range after {
		at = max(at, e.At)
	}
	switch {
	case at > o.until:
		return fmt.Sprintf("the cluster's time has passed what a restore may take, %s: try again", restoreTime), nil
	case o.err != nil:
		return "", fmt.Errorf("restoring the image that began at %d: %w; where this node is older than the cluster, upgrade it", o.id, o.err)
	}
	m, index := o.ready.Succeed(now)
	m = m.WithIndex(l.Index)
	a.begin(m)
	a.replaced, a.restored, a.index = true, m, index
	a.machine.Apply(l.Index, after)
	return "", nil
}
