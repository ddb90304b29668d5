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
// leader stands down for good, so that those of before cannot elect one again. One
// that does hear a leader is part of a majority that was never lost: which of the
// two clusters is to live is for people to say, and it only raises the alarm.

// supersededFile, in the data directory, says that what is in it is of an
// incarnation that was given up.
const supersededFile = "superseded"

// rivalTime is for how long a node of another incarnation is news after it was met.
const rivalTime = time.Minute

// incarnation is what nodes tell each other first.
type incarnation struct {
	epoch uint32
	state bool // it has any: a new node belongs to whichever it joins
}

// helloOctets: whether there is state, and the epoch.
const helloOctets = 1 + 4

// hello exchanges incarnations. The client speaks first: both at once would wait
// for ever where nothing is buffered.
func (l *link) hello(ctx context.Context, c net.Conn, client bool) (theirs incarnation, err error) {
	if until, ok := ctx.Deadline(); ok {
		c.SetDeadline(until)
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var said, heard [helloOctets]byte
	own := l.own()
	if own.state {
		said[0] = 1
	}
	binary.BigEndian.PutUint32(said[1:], own.epoch)
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
	return incarnation{binary.BigEndian.Uint32(heard[1:]), heard[0] == 1}, c.SetDeadline(time.Time{})
}

// matches is nil where a peer is of this node's incarnation, or one of the two is
// of none yet.
func (l *link) matches(peer string, theirs incarnation) error {
	own := l.own()
	switch {
	case !own.state || !theirs.state || own.epoch == theirs.epoch:
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

// problem says who was met of late; empty: nobody.
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
	return incarnation{m.Epoch(), m.Index() > 0}
}

// superseded is called when this node meets a later incarnation of its cluster.
func (n *Node) superseded(why error) {
	n.rival.met(why)
	if leader := n.Leader(); leader != "" {
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
