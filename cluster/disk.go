package cluster

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// diskShare and diskMost are the reserve where none is set: a twentieth of the
	// file system, but no more than this.
	diskShare = 20
	diskMost  = 1 << 30
	// diskSlack is by how much more than the reserve must be free before a disk
	// that was short counts as good again: a tenth.
	diskSlack = 10
	// diskPolls is how many looks at its own disk a leader takes between two at the
	// others', and between two attempts to hand over.
	diskPolls = 5
)

// disk watches the space for the data directory, so that a node stops before its
// store fails: a leader hands over to a voter with room, or takes no more writes;
// snapshots and audit files wait. Answers and reading keys need no space.
type disk struct {
	node *Node

	// mu guards what follows.
	mu     sync.Mutex
	now    DiskState
	failed error
	short  string // what is wrong here; empty: nothing
	others string // why the leader takes no writes because of the others' disks
}

// DiskState is the space of the file system that holds the data directory.
type DiskState struct {
	Free, Total, Reserve uint64
	// Short: less is free than the reserve.
	Short bool
}

// statfs reads the space of a file system, as one without privileges has it.
func statfs(dir string) (free, total uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

// watchDisk is the goroutine that looks.
func (n *Node) watchDisk() {
	tick := time.NewTicker(n.tuning.disk)
	defer tick.Stop()
	for rest := 0; ; rest-- {
		was := n.disk.isShort()
		n.disk.look()
		if news := n.disk.isShort() && !was; n.leads() && (news || rest <= 0) {
			n.disk.lead()
			rest = diskPolls
		}
		select {
		case <-tick.C:
		case <-n.fence.tripped:
			return
		case <-n.ctx.Done():
			return
		}
	}
}

// look reads how much is free.
func (d *disk) look() {
	free, total, err := d.node.tuning.statfs(d.node.c.DataDir)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if d.failed == nil {
			d.node.logger.Error("reading the free space of the data directory", "path", d.node.c.DataDir, "error", err)
		}
		d.failed = err
		return
	}
	d.failed = nil
	reserve := d.node.c.DiskReserve
	if reserve == 0 {
		reserve = min(total/diskShare, diskMost)
	}
	need := reserve
	if d.now.Short {
		need += reserve / diskSlack
	}
	was := d.now.Short
	d.now = DiskState{Free: free, Total: total, Reserve: reserve, Short: free < need}
	d.short = ""
	if d.now.Short {
		d.short = fmt.Sprintf("%s has %s free, and %s are kept in reserve: free space there; DNS and reading keys go on",
			d.node.c.DataDir, octets(free), octets(reserve))
	}
	switch {
	case d.now.Short && !was:
		d.node.logger.Error("the disk is nearly full: snapshots and audit files wait, and this node does not lead while another has room",
			"path", d.node.c.DataDir, "free", free, "reserve", reserve)
	case !d.now.Short && was:
		d.node.logger.Info("the disk has room again", "path", d.node.c.DataDir, "free", free)
	}
}

// lead is what a leader does besides: hand over where its own disk is short and
// another voter's is not, and stop writes where too few voters have room, since
// they would fill up and be gone together.
func (d *disk) lead() {
	n := d.node
	replies := n.askAll(n.ctx, n.others())
	voters, room := 0, 0
	var heir string
	var furthest uint64
	for _, m := range n.members() {
		if !m.Voter {
			continue
		}
		voters++
		r, answered := replies[m.ID]
		switch {
		case m.ID == n.c.ID:
			if !d.isShort() {
				room++
			}
		case answered && !r.DiskShort && !r.Fenced:
			room++
			if heir == "" || r.Applied > furthest {
				heir, furthest = m.ID, r.Applied
			}
		case !answered:
			room++ // not known to be short; whether it is there is the quorum's matter
		}
	}
	others := ""
	if room <= voters/2 {
		others = fmt.Sprintf("of %d voters only %d have room on their disks: free space on the others; DNS and reading keys go on", voters, room)
	}
	d.mu.Lock()
	d.others = others
	d.mu.Unlock()
	if !d.isShort() || heir == "" {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, handOver)
	defer cancel()
	if err := n.transfer(ctx, heir); err != nil {
		n.logger.Warn("handing leadership to a node with room on its disk", "to", heir, "error", err)
		return
	}
	n.logger.Info("leadership handed to a node with room on its disk", "to", heir)
}

func (d *disk) isShort() bool { return d.problem() != "" }

// problem says that this node's disk is short; empty: it is not.
func (d *disk) problem() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short
}

// stops says why a leader takes no writes; empty: it does.
func (d *disk) stops() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.short != "" {
		return d.short
	}
	return d.others
}

// problems are what Health shows.
func (d *disk) problems() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []string
	if d.short != "" {
		list = append(list, "disk: "+d.short)
	}
	if d.others != "" && d.node.leads() {
		list = append(list, "disk: "+d.others)
	}
	if d.failed != nil {
		list = append(list, fmt.Sprintf("disk: free space of %s is not known: %v", d.node.c.DataDir, d.failed))
	}
	return list
}

// roomFor says why a file of a size should not be written now; empty: there is room.
func (d *disk) roomFor(size int64) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.short != "" {
		return d.short
	}
	if need := uint64(max(size, 0)) + d.now.Reserve; d.failed == nil && d.now.Total > 0 && d.now.Free < need {
		return fmt.Sprintf("%s has %s free, and a snapshot with the reserve takes %s", d.node.c.DataDir, octets(d.now.Free), octets(need))
	}
	return ""
}

// room is what is free beside the reserve, in octets; 0: not known, or nothing.
func (d *disk) room() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failed != nil || d.now.Free < d.now.Reserve {
		return 0
	}
	return d.now.Free - d.now.Reserve
}

// Disk is the space for the data directory, as last looked at.
func (n *Node) Disk() DiskState {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	return n.disk.now
}

// octets is a size for people.
func octets(n uint64) string {
	const unit = 1 << 10
	value, names := float64(n), []string{"KiB", "MiB", "GiB", "TiB"}
	if n < unit {
		return strconv.FormatUint(n, 10) + " octets"
	}
	name := ""
	for _, name = range names {
		if value /= unit; value < unit {
			break
		}
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + name
}
