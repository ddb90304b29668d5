package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// empty is a state machine that does nothing.
type empty struct{}

func (empty) Apply(*raft.Log) any                  { return nil }
func (empty) Restore(io.ReadCloser) error          { return nil }
func (empty) Snapshot() (raft.FSMSnapshot, error)  { return empty{}, nil }
func (empty) Persist(sink raft.SnapshotSink) error { return sink.Close() }
func (empty) Release()                             {}
func (empty) ApplyBatch(logs []*raft.Log) []any    { return make([]any, len(logs)) }

// raftAddress is where a node listens: 7540 and its number.
func raftAddress(id string) raft.ServerAddress { return raft.ServerAddress("127.0.0.1:754" + id) }
func raftMember(id string) raft.Server {
	return raft.Server{ID: raft.ServerID(id), Address: raftAddress(id)}
}

// raft measures the library alone: three processes, plain TCP, synced BoltDB, an
// empty machine; the clients are goroutines of the leader.
func (b *bench) raft() error {
	dir, err := b.folder("raft")
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var followers []*process
	for _, id := range []string{"2", "3"} {
		p, err := start(filepath.Join(b.dir, "raft-"+id+".log"), self, "raft-node", id, dir)
		if err != nil {
			return err
		}
		defer p.stop()
		followers = append(followers, p)
	}
	cmd := exec.Command(self, "raft-node", "1", dir)
	cmd.Env = append(os.Environ(), "RAFT_SECONDS="+b.seconds.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%w (%d followers ran)", err, len(followers))
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var clients int
		var rate float64
		if n, _ := fmt.Sscanf(lines.Text(), "%d %g", &clients, &rate); n == 2 {
			b.rates[fmt.Sprintf("raft, %d", clients)] = rate
			fmt.Printf("| raft, empty machine | %d | %.0f | | | | 0 |\n", clients, rate)
		}
	}
	return nil
}

func raftNode(id, dir string) error {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(id)
	c.LogLevel = "ERROR"
	c.BatchApplyCh = true
	c.MaxAppendEntries = 512
	if id != "1" { // the first is to lead
		c.HeartbeatTimeout, c.ElectionTimeout = 10*time.Second, 10*time.Second
	}
	store, err := raftboltdb.NewBoltStore(filepath.Join(dir, id+".db"))
	if err != nil {
		return err
	}
	snapshots := raft.NewInmemSnapshotStore()
	transport, err := raft.NewTCPTransport(string(raftAddress(id)), nil, 3, 10*time.Second, os.Stderr)
	if err != nil {
		return err
	}
	members := raft.Configuration{Servers: []raft.Server{raftMember("1"), raftMember("2"), raftMember("3")}}
	if err := raft.BootstrapCluster(c, store, store, snapshots, transport, members); err != nil {
		return err
	}
	r, err := raft.NewRaft(c, empty{}, store, store, snapshots, transport)
	if err != nil {
		return err
	}
	if id != "1" {
		select {} // until the parent ends us
	}
	if err := until("the first node leads", time.Minute, func() error {
		if r.State() != raft.Leader {
			return fmt.Errorf("it is %s", r.State())
		}
		return nil
	}); err != nil {
		return err
	}
	seconds, err := time.ParseDuration(os.Getenv("RAFT_SECONDS"))
	if err != nil {
		return err
	}
	for _, clients := range []int{1, 8, 64} {
		fmt.Printf("%d %.1f\n", clients, applyRate(r, clients, seconds))
	}
	return r.Shutdown().Error()
}

// applyRate is how many entries, as long as a record's change, are applied a second.
func applyRate(r *raft.Raft, clients int, seconds time.Duration) float64 {
	entry := []byte(strings.Repeat("r", 600))
	var mu sync.Mutex
	var wg sync.WaitGroup
	total, began := 0, time.Now()
	for range clients {
		wg.Go(func() {
			mine := 0
			for time.Since(began) < seconds {
				if r.Apply(entry, 10*time.Second).Error() == nil {
					mine++
				}
			}
			mu.Lock()
			total += mine
			mu.Unlock()
		})
	}
	wg.Wait()
	return float64(total) / time.Since(began).Seconds()
}
