package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// A recovery from one node begins another incarnation of the cluster: the epoch in
// the machine is raised with it. Nodes tell each other theirs before anything else,
// so that one that comes back from before neither votes nor is sent entries over a
// log that went another way. One that meets a later incarnation while it hears no
// leader, and heard none since it was started, stands down for good, so that those of
// before cannot elect one again. One that does hear a leader is part of a majority that
// was never lost: which of the two clusters is to live is for people to say, and it only
// raises the alarm.

// supersededFile, in the data directory, says that what is in it is of an
// incarnation that was given up.
const supersededFile = "superseded"

// rivalTime is for how long a node of another incarnation is news after it was met.
const rivalTime = time.Minute

// incarnation is what nodes tell each other first.
type incarnation struct {
	epoch uint32
	state bool   // it has any: a new node belongs to whichever it joins
	index uint64 // of its machine
	// stranger: whom it tells is no member as far as it knows.
	stranger bool
}

// helloOctets: flags, the epoch, the index.
const helloOctets = 1 + 4 + 8

const (
	helloState    = 1
	helloStranger = 2
)

func (i incarnation) encode() (b [helloOctets]byte) {
	if i.state {
		b[0] |= helloState
	}
	if i.stranger {
		b[0] |= helloStranger
	}
	binary.BigEndian.PutUint32(b[1:], i.epoch)
	binary.BigEndian.PutUint64(b[5:], i.index)
	return b
}

func decodeIncarnation(b [helloOctets]byte) incarnation {
	return incarnation{
		epoch: binary.BigEndian.Uint32(b[1:]), index: binary.BigEndian.Uint64(b[5:]),
		state: b[0]&helloState != 0, stranger: b[0]&helloStranger != 0,
	}
}

// hello exchanges incarnations. The client speaks first: both at once would wait
// for ever where nothing is buffered.
func (l *link) hello(ctx context.Context, c net.Conn, peer string, client bool) (theirs incarnation, err error) {
	if until, ok := ctx.Deadline(); ok {
		c.SetDeadline(until)
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	own := l.own()
	own.stranger = l.stranger(peer)
	said, heard := own.encode(), [helloOctets]byte{}
	if client {
		_, err = c.Write(said[:])
	}
	if err == nil {
		_, err = io.ReadFull(c, heard[:])
	}
	if err == nil && !client {
		_, err = c.Write(said[:])
	}
	if err != nil {
		return theirs, fmt.Errorf("exchanging epochs: %w", err)
	}
	if !stop() {
		return theirs, ctx.Err()
	}
	return decodeIncarnation(heard), c.SetDeadline(time.Time{})
}

// matches is nil where a peer is of this node's incarnation, or one of the two is
// of none yet.
func (l *link) matches(peer string, theirs incarnation) error {
	own := l.own()
	switch {
	case !own.state || !theirs.state:
		return nil
	case own.epoch == theirs.epoch && theirs.stranger && theirs.index >= own.index:
		why := fmt.Errorf("node %q, which has all that this node has, says that this node is no member of the cluster: add it again, or stop it for good", peer)
		l.removed(why)
		return nil // the peer may be asked by others; it refuses by itself
	case own.epoch == theirs.epoch:
		return nil
	case theirs.epoch < own.epoch:
		why := fmt.Errorf("node %q has the state of before the cluster was recovered (epoch %d, here %d): delete its data directory and add it again", peer, theirs.epoch, own.epoch)
		l.outdated(why)
		return why
	}
	if !l.member(peer) {
		return fmt.Errorf("node %q is of another incarnation of the cluster (epoch %d, here %d), and not a member", peer, theirs.epoch, own.epoch)
	}
	why := fmt.Errorf("node %q is of a later incarnation of the cluster (epoch %d, here %d), which was recovered without this node: stop this node, delete its data directory and add it again", peer, theirs.epoch, own.epoch)
	l.superseded(why)
	return why
}

// rival is the last node of another incarnation that was met.
type rival struct {
	mu  sync.Mutex // guards what follows
	why string
	at  time.Time
}

func (r *rival) met(why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.why, r.at = why.Error(), time.Now()
}

// problem says who was met recently; empty: nobody.
func (r *rival) problem() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.why == "" || time.Since(r.at) > rivalTime {
		return ""
	}
	return r.why
}

// incarnation is this node's own.
func (n *Node) incarnation() incarnation {
	m := n.Machine()
	return incarnation{epoch: m.Epoch(), state: m.Index() > 0, index: m.Index()}
}

// superseded is called when this node meets a later incarnation of its cluster.
func (n *Node) superseded(why error) {
	n.rival.met(why)
	leader := n.Leader()
	if r := n.reign.Load(); r != nil && leader == "" {
		leader = r.leader // gone for a moment; a majority lived since this process began
	}
	if leader != "" {
		if left, ok := n.link.seldom.says("two clusters"); ok {
			n.logger.Error("two clusters of one name: end one of them", "leader", leader, "error", why, "unsaid", left)
		}
		return
	}
	text := why.Error() + "\n"
	err := replaceFile(filepath.Join(n.c.DataDir, supersededFile), func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	if err != nil {
		n.logger.Error("noting that this node's cluster was given up", "error", err)
	}
	n.fence.trip(why)
}

// removed is called when a peer that has what this node has says that it is no member.
// To one that is still being told what the others know it proves nothing.
func (n *Node) removed(why error) {
	if !n.joining() && n.fsm.current().Index() >= n.Needs() {
		n.outcast.met(why)
	}
}

// Superseded says why a data directory must not be used any more: its cluster was
// recovered without it. nil: it may.
func Superseded(dir string) error {
	path := filepath.Join(dir, supersededFile)
	why, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	return fmt.Errorf("%s (where the recovery was the mistake, end that cluster first, then delete %s)", strings.TrimSpace(string(why)), path)
}
