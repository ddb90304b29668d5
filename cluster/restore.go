package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/hashicorp/raft"

	"authd/cluster/state"
)

// SaveSnapshot writes a consistent image of the cluster's state, as this node
// has applied it.
func (n *Node) SaveSnapshot(ctx context.Context, w io.Writer) (index uint64, err error) {
	m := n.Machine()
	if err := m.WriteImage(contextWriter{ctx, w}); err != nil {
		return 0, fmt.Errorf("saving snapshot: %w", err)
	}
	return m.Index(), nil
}

// contextWriter ends a long write when nobody wants it any more.
type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

// pieceFlight is how many pieces of an image are under way at once: as much as other
// writes have. Longer would be what those wait behind.
const pieceFlight = 8

// restoreTime is how long a restore may take from its first entry to its last. What waits
// for caches since the old state was answered last counts from then at the latest.
const restoreTime = 10 * time.Minute

// pieceEnqueue is how long Raft may take to accept one. Nobody waits for it.
const pieceEnqueue = 10 * time.Second

// RestoreSnapshot replaces the cluster's state by an image, at an index of the log, and
// returns that: what was written before is lost. Serials never go back. An image whose private
// halves this node cannot open is refused, but where withoutKeys says that DNS is to be
// had without them. It must be asked of the leader; the error of another node names it.
//
// Where it is not known what became of it, it came to be everywhere or will nowhere.
func (n *Node) RestoreSnapshot(ctx context.Context, who Actor, r io.Reader, withoutKeys bool) (index uint64, err error) {
	if !n.leads() {
		return 0, kindError{ErrNoLeader, fmt.Errorf("restoring snapshot: ask the leader, which is %q", n.Leader())}
	}
	if !n.restoring.CompareAndSwap(false, true) {
		return 0, kindError{ErrNotCommitted, errors.New("restoring snapshot: another restore is under way: wait for its end")}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	image, err := n.readImage(r, withoutKeys)
	if err == nil {
		defer image.file.Close()
		err = n.roomToRestore(ctx, image.size)
	}
	if err != nil {
		n.restoring.Store(false)
		return 0, kindError{ErrNotCommitted, fmt.Errorf("restoring snapshot: %w", err)}
	}
	if index, err = n.restore(ctx, who, image); err != nil {
		return 0, fmt.Errorf("restoring snapshot: %w", err)
	}
	n.logger.Info("state restored from an image", "image", image.index, "index", index)
	return index, nil
}

// logImage is an image on its way into the log.
type logImage struct {
	file    *os.File
	size    int64
	sum     [sha256.Size]byte
	index   uint64 // its own
	cluster string // whose it is
}

// readImage reads an image whole, before anything is done with it, and writes it to a
// file as this release has it: every answer made anew, so that others need not. The file
// is nobody's once this process ends.
func (n *Node) readImage(r io.Reader, withoutKeys bool) (*logImage, error) {
	m, err := state.ReadImageNear(r, n.Machine())
	if err != nil {
		return nil, err
	}
	if why := opens(m, n.c.Keeper); why != "" && !withoutKeys {
		return nil, errors.New(why)
	}
	if why := n.disk.roomFor(0); why != "" {
		return nil, errors.New(why)
	}
	file, err := os.CreateTemp(n.c.DataDir, "restore-*")
	if err != nil {
		return nil, err
	}
	i := &logImage{file: file, index: m.Index(), cluster: m.Settings().ClusterID}
	sum := sha256.New()
	err = errors.Join(os.Remove(file.Name()), m.WriteImage(io.MultiWriter(file, sum)))
	if err == nil {
		i.size, err = file.Seek(0, io.SeekCurrent)
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	sum.Sum(i.sum[:0])
	return i, nil
}

// roomToRestore says why an image is not to be put into the log: a node whose disk or
// store it fills is fenced off.
func (n *Node) roomToRestore(ctx context.Context, size int64) error {
	need := 2 * size // the log, and the snapshot that follows
	if why := n.disk.roomFor(need); why != "" {
		return errors.New(why)
	}
	used, err := n.store.used()
	if err != nil {
		return err
	}
	if used+size > maxStoreSize-maxStoreSize/8 {
		return fmt.Errorf("the log holds %s, at most %s, and the image has %s: try again when a snapshot has been made",
			octets(uint64(used)), octets(maxStoreSize), octets(uint64(size)))
	}
	for id, r := range n.askAll(ctx, n.others()) {
		if r.DiskShort || r.DiskRoom > 0 && r.DiskRoom < uint64(need) {
			return fmt.Errorf("node %s has %s on its disk beside its reserve, and a restore takes %s: free space there",
				id, octets(r.DiskRoom), octets(uint64(need)))
		}
	}
	return nil
}

// restore has an image take the place of the state. Until the last entry is sent nothing
// can have changed, and whatever goes wrong gives it up.
func (n *Node) restore(ctx context.Context, who Actor, i *logImage) (index uint64, err error) {
	term := n.raft().CurrentTerm()
	index, sent, err := n.sendImage(ctx, who, i)
	if err = unproposed(err, sent); err == nil || errors.Is(err, ErrUnknown) {
		n.restoring.Store(false)
		return index, err
	}
	go func() {
		defer n.restoring.Store(false)
		n.giveUp(term)
	}()
	return 0, err
}

// unproposed says what an error means for the restore as a whole.
func unproposed(err error, sent bool) error {
	var no notTaken
	switch {
	case err == nil:
		return nil
	case errors.As(err, &no):
		return kindError{ErrNotCommitted, err}
	}
	kind := writeError(err)
	if !sent && errors.Is(kind, ErrUnknown) {
		return kindError{ErrNotCommitted, err}
	}
	return kind
}

// sendImage sends all of an image, each step once the one before it is taken or, of pieces,
// some of them. sent: the end may be in the log.
func (n *Node) sendImage(ctx context.Context, who Actor, i *logImage) (index uint64, sent bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, restoreTime)
	defer cancel()
	until := n.rotator.clock.stamp() + int64(restoreTime/time.Second)
	begun, err := n.awaitStep(ctx, n.raft().Apply(encodeBegin(i.size, until, i.sum), enqueueTime))
	if err != nil {
		return 0, false, err
	}
	if err := n.sendPieces(ctx, begun.index, i); err != nil {
		return 0, false, err
	}
	after, err := state.EncodeBatch([]state.Entry{{
		At: n.rotator.clock.stamp(), Actor: who.ID, Source: who.Source, Reason: who.Reason,
		Command: state.Note{Kind: "cluster", Subject: i.cluster, Text: "the whole state was replaced by a backup"},
	}})
	if err != nil {
		return 0, false, err
	}
	ended, err := n.awaitStep(ctx, n.raft().Apply(encodeEnd(begun.index, after), enqueueTime))
	return ended.index, true, err
}

// sendPieces sends the image and waits until this node has read it, as the others do
// meanwhile: the last entry finds all done, or is not sent. It does not look whether the
// file still gives what was written to it: who applies the end compares what came with the
// sum of the beginning.
func (n *Node) sendPieces(ctx context.Context, id uint64, i *logImage) error {
	var under []raft.ApplyFuture
	var taken stepAnswer // to the last
	land := func(most int) (err error) {
		for ; len(under) > most && err == nil; under = under[1:] {
			taken, err = n.awaitStep(ctx, under[0])
		}
		return err
	}
	for offset := int64(0); offset < i.size; {
		data := encodePiece(id, offset, n.tuning.piece)
		piece := data[len(data) : len(data)+int(min(int64(n.tuning.piece), i.size-offset))]
		if _, err := io.ReadFull(i.file, piece); err != nil {
			return fmt.Errorf("reading the image again: %w", err)
		}
		offset += int64(len(piece))
		if err := land(pieceFlight - 1); err != nil {
			return err
		}
		under = append(under, n.raft().Apply(data[:len(data)+len(piece)], pieceEnqueue))
	}
	if err := land(0); err != nil {
		return err
	}
	select {
	case <-taken.open.loaded:
		return taken.open.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// notTaken is a step that every node refused.
type notTaken string

func (why notTaken) Error() string { return "not taken: " + string(why) }

// awaitStep waits for one entry of a restore.
func (n *Node) awaitStep(ctx context.Context, f raft.ApplyFuture) (s stepAnswer, err error) {
	if err := n.await(ctx, f); err != nil {
		return s, err
	}
	s, ok := f.Response().(stepAnswer)
	switch {
	case !ok:
		return s, fmt.Errorf("entry %d came back as %T", f.Index(), f.Response())
	case s.refused != "":
		return s, notTaken(s.refused)
	}
	return s, nil
}

// giveUp ends a restore that this leader began, so that snapshots are made again. Where
// it leads no more, its successor's first entry has.
func (n *Node) giveUp(term uint64) {
	for n.raft().State() == raft.Leader && n.raft().CurrentTerm() == term && n.fence.err() == nil {
		if n.await(n.ctx, n.raft().Apply(encodeGivenUp(), enqueueTime)) == nil {
			return
		}
		select {
		case <-time.After(retryPause):
		case <-n.ctx.Done():
			return
		}
	}
}
