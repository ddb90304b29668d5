package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// transportTime bounds one exchange of Raft; a snapshot has that for each
	// transportScale octets, the time to take it in included.
	transportTime  = 10 * time.Second
	transportScale = 32 << 20
	// pooledConns is how many idle connections Raft keeps to a peer.
	pooledConns = 3
	// appendEntries is how many entries one exchange carries: 4 MiB of the usual ones.
	appendEntries = 64
	// handOver is how long a closing leader tries to hand over.
	handOver = 3 * time.Second
)

// Start starts Raft, the node link and the rotator.
func (n *Node) Start() error {
	if err := n.startRaft(); err != nil {
		n.cancel()
		return fmt.Errorf("starting node %s: %w", n.c.ID, err)
	}
	n.wg.Go(n.lead)
	n.wg.Go(n.followLeaders)
	n.wg.Go(n.watchSilence)
	n.wg.Go(n.transport.suspicion.run)
	n.wg.Go(n.batcher.run)
	n.wg.Go(n.rotator.run)
	if n.c.Parents != nil {
		n.wg.Go(n.prover.run)
	}
	n.wg.Go(n.mills.run)
	n.wg.Go(n.evidence.run)
	n.wg.Go(n.keepSnapshots)
	n.wg.Go(n.keepAudit)
	n.wg.Go(n.promote)
	if n.c.Identity != nil {
		n.wg.Go(n.keepCertificate)
	}
	n.wg.Go(n.checker.run)
	n.wg.Go(n.watchDisk)
	n.wg.Go(n.checker.propose)
	n.wg.Go(n.checker.recount)
	n.wg.Go(n.keepReads)
	return nil
}

func (n *Node) startRaft() error {
	founding := n.start.fresh && len(n.c.Bootstrap) > 0
	if founding {
		if err := n.checkUnknown(); err != nil {
			return err
		}
	}
	if err := n.link.listen(n.c.Bind, n.c.Advertise); err != nil {
		return err
	}
	logger := raftLogger(n.logger)
	n.transport = newTransport(newNetwork(outgoing{raftStreams{n.link}}, logger), n.fence)
	n.transport.abstains, n.transport.leads, n.transport.leader = n.abstains, n.leads, n.Leader
	n.transport.broken = n.link.broken.Load
	n.transport.stalled = n.stalled
	n.transport.feeds, n.transport.look, n.transport.ended = n.feeds, n.tuning.lease, n.ctx.Done()
	n.transport.roomFor = n.disk.roomFor
	n.transport.ends = n.store.ends
	n.transport.last = func() uint64 { return n.raft().LastIndex() }
	n.transport.applied = func() uint64 { return n.fsm.current().Index() }
	n.transport.suspicion = newSuspicion(n)
	n.fsm.committed = n.transport.commit
	n.store.appended = n.tail.add
	n.fence.whenTripped(func() { n.transport.Close() })
	n.wg.Go(n.transport.run)
	n.wg.Go(func() { n.transport.takeIn(raftStreams{n.link}) })

	c := n.raftConfig()
	if founding {
		if err := n.bootstrap(c); err != nil {
			return err
		}
	}
	cache, err := raft.NewLogCache(cachedEntries, n.store)
	if err != nil {
		return err
	}
	n.batcher = newBatcher(n)
	n.store.running.Store(true)
	r, err := newRaft(c, n.fsm, cache, n.store, n.snaps, n.transport)
	if err != nil {
		return err
	}
	n.library.Store(r)
	n.link.accept()
	return nil
}

// newNetwork makes the library's transport. By its own settings a snapshot of 1 GiB
// that a peer has stopped reading would be waited for eleven hours.
func newNetwork(stream raft.StreamLayer, logger hclog.Logger) *raft.NetworkTransport {
	network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:          stream,
		Logger:          logger,
		MaxPool:         pooledConns,
		MaxRPCsInFlight: 1,
		Timeout:         transportTime,
	})
	network.TimeoutScale = transportScale
	return network
}

// newRaft makes the library's panics errors.
func newRaft(c *raft.Config, f raft.FSM, logs raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, t raft.Transport) (r *raft.Raft, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("starting Raft: %v", p)
		}
	}()
	if r, err = raft.NewRaft(c, f, logs, stable, snaps, t); err != nil {
		return nil, fmt.Errorf("starting Raft: %w", err)
	}
	return r, nil
}

func (n *Node) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.c.ID)
	c.Logger = raftLogger(n.logger)
	c.HeartbeatTimeout = n.tuning.heartbeat
	c.ElectionTimeout = n.tuning.election
	c.LeaderLeaseTimeout = n.tuning.lease
	c.CommitTimeout = n.tuning.commit
	c.MaxAppendEntries = appendEntries
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	c.NoSnapshotRestoreOnStart = true // the machine is built already (index contract, a)
	c.NoLegacyTelemetry = true
	// Snapshots are asked for by keepSnapshots, never by a count of entries.
	c.SnapshotInterval = 24 * time.Hour
	c.SnapshotThreshold = math.MaxUint64
	c.TrailingLogs = minTrailing
	return c
}

// bootstrap writes the founding configuration, the same on every founder.
func (n *Node) bootstrap(c *raft.Config) error {
	var founders raft.Configuration
	for _, m := range n.c.Bootstrap {
		founders.Servers = append(founders.Servers, server(m))
	}
	if err := raft.BootstrapCluster(c, n.store, n.store, n.snaps, n.transport, founders); err != nil {
		return fmt.Errorf("founding the cluster: %w", err)
	}
	return nil
}

// lead follows every election won with an empty entry. No-ops are not fed to the
// machine, so without it a node could wait for an index that never comes.
func (n *Node) lead() {
	for {
		select {
		case won := <-n.raft().LeaderCh():
			if won {
				n.logger.Info("this node leads")
				n.rotator.clock.ask() // until its clock is compared nothing is due
				n.openTerm()
			}
			n.rotator.wake()
		case <-n.ctx.Done():
			return
		}
	}
}

// openTerm appends the empty entry, again if need be while this node leads.
func (n *Node) openTerm() {
	for n.leads() {
		if n.await(n.ctx, n.raft().Apply(nil, enqueueTime)) == nil {
			return
		}
		select {
		case <-time.After(retryPause):
		case <-n.ctx.Done():
			return
		}
	}
}

// await waits for the library, which does not answer on a fenced node, nor what lies in
// its queues when it ends: nobody empties them, and the future of an entry, unlike others,
// is not told of the end (raft v1.7.3, deferError.ShutdownCh). Both are the library's own,
// so the goroutine that waits for such an answer is there as long as the process. On a node
// that works awaitAnswers sees to it that there is none.
func (n *Node) await(ctx context.Context, f raft.Future) error {
	n.awaited.Add(1)
	if err := n.ctx.Err(); err != nil {
		n.awaited.Add(-1)
		return err
	}
	done := make(chan error, 1)
	go func() {
		done <- f.Error()
		n.awaited.Add(-1)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-n.fence.tripped:
		return errFenced
	}
}

const (
	// answerTime is how long the library may take to answer what it was handed before it
	// is ended.
	answerTime  = time.Second
	answerPause = 5 * time.Millisecond
)

// awaitAnswers waits until the library has answered what it was handed; what it is handed
// from now on await turns away.
func (n *Node) awaitAnswers() {
	for until := time.Now().Add(answerTime); n.awaited.Load() > 0 && time.Now().Before(until); {
		time.Sleep(answerPause)
	}
}

// Close stops taking part: transfers leadership, syncs the mark, closes the stores.
func (n *Node) Close(ctx context.Context) error {
	n.closing.Do(func() { n.closed = n.close(ctx) })
	return n.closed
}

func (n *Node) close(ctx context.Context) error {
	if n.raft() != nil && n.leads() && len(n.members()) > 1 {
		ctx, cancel := context.WithTimeout(ctx, handOver)
		if err := n.transfer(ctx, ""); err != nil {
			n.logger.Warn("handing over leadership", "error", err)
		}
		cancel()
	}
	n.cancel()
	n.awaitAnswers()
	n.fence.free() // the library's goroutines that are parked end, and who waits for them
	if n.raft() != nil {
		if err := n.raft().Shutdown().Error(); err != nil {
			n.logger.Warn("stopping Raft", "error", err)
		}
	}
	n.fsm.applier.giveUp()
	if n.transport != nil {
		n.transport.Close()
	}
	n.peers.close()
	n.asker.Close()
	err := n.link.Close()
	if n.transport == nil {
		err = nil // there was nothing to listen on
	}
	n.wg.Wait()
	n.evidence.add()
	return errors.Join(err, n.evidence.save(false), n.journal.close(), n.closeStores())
}
