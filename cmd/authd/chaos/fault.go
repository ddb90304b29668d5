package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// fault is one way to hurt a cluster.
type fault struct {
	name string
	what string
	// strike hurts the cluster and heals it again. The load goes on meanwhile.
	strike func(ctx context.Context, t *trial) error
	// slow faults are done less often where a run is short of time.
	weight int
}

// trial is one run of one fault.
type trial struct {
	*world
	load   *load
	random *rand.Rand

	// found is what the fault itself looked at, beside the checks that follow.
	found     verdict
	byHand    int // nodes that did not come back by themselves
	forgotten int // what a node that lost power had shown and not confirmed
}

// faults in the order of the table.
func faults() []fault {
	return []fault{
		{"leader-kill", "SIGKILL of the leader, then a restart", onLeader((*trial).killOne), 20},
		{"follower-kill", "SIGKILL of a follower, then a restart", onFollower((*trial).killOne), 5},
		{"all-kill", "SIGKILL of all; one alone answers in the dark; then all", allKill, 5},
		{"power-loss", "all lose power: what was not synced is gone", powerLoss, 5},
		{"leader-stop", "SIGSTOP of the leader for 4 s", onLeader(stopped(3*time.Second, 7*time.Second)), 3},
		{"follower-stop", "SIGSTOP of a follower for 4 s", onFollower(stopped(3*time.Second, 6*time.Second)), 3},
		{"leader-cut", "the leader is cut from its peers", onLeader(isolated(false, false, 4*time.Second, 8*time.Second)), 3},
		{"follower-cut", "a follower is cut from its peers", onFollower(isolated(false, false, 3*time.Second, 7*time.Second)), 3},
		{"deaf-leader", "the leader sends and hears nothing", onLeader(isolated(false, true, 4*time.Second, 8*time.Second)), 3},
		{"mute-leader", "the leader hears and sends nothing", onLeader(isolated(true, false, 4*time.Second, 8*time.Second)), 3},
		{"flapping", "the network between the nodes comes and goes", flapping, 3},
		{"disk-full", "the leader's disk is full", onLeader((*trial).full), 3},
		{"follower-disk-full", "a follower's disk is full", onFollower((*trial).full), 2},
		{"disk-stall", "the leader's disk hangs for 12 s", onLeader(stalled(12 * time.Second)), 3},
		{"follower-disk-stall", "a follower's disk hangs for 6 s", onFollower(stalled(6 * time.Second)), 2},
		{"disk-slow", "every disk hangs for 150 ms, again and again", diskSlow, 2},
		{"slow-sync", "each fsync of the leader takes 50 ms (strace)", slowSync, 2},
		{"disk-error", "the leader's disk gives EIO", onLeader((*trial).broken), 3},
		{"follower-disk-error", "a follower's disk gives EIO", onFollower((*trial).broken), 2},
		{"sync-error", "fsync of a follower gives EIO (strace)", syncError, 2},
		{"corrupt-log", "octets of a stopped node's raft.db are turned, or its end is gone", corruptLog, 10},
		{"corrupt-snapshot", "the same of its newest snapshot", corruptSnapshot, 5},
		{"corrupt-mark", "the same of its mark", corruptMark, 5},
		{"wiped", "a follower comes back with an empty disk", wiped, 3},
		{"restore", "the state is saved and restored, through the log", restore, 2},
		{"restore-kill", "SIGKILL of the leader while the state is restored", restoreKilled, 2},
		{"leader-clock", "the leader's clock is an hour or ten years wrong for a while", onLeader((*trial).clockStepped), 3},
		{"follower-clock", "the same of a follower", onFollower((*trial).clockStepped), 2},
		{"rolling-restart", "SIGTERM and start, node after node", rollingRestart, 3},
		{"hand-over", "a successor takes over from each running node", handOver, 3},
		{"transfer", "leadership is handed over", transferLeader, 5},
	}
}

// nodeStrike hurts one node and heals it again.
type nodeStrike func(t *trial, ctx context.Context, n *node) error

func onLeader(strike nodeStrike) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		n, err := t.leader(ctx)
		if err != nil {
			return err
		}
		return strike(t, ctx, n)
	}
}

func onFollower(strike nodeStrike) func(context.Context, *trial) error {
	return func(ctx context.Context, t *trial) error {
		n, err := t.follower(ctx)
		if err != nil {
			return err
		}
		return strike(t, ctx, n)
	}
}

func faultNamed(name string) (fault, error) {
	for _, f := range faults() {
		if f.name == name {
			return f, nil
		}
	}
	return fault{}, fmt.Errorf("no fault %q: see -list", name)
}

// pause lets the load work meanwhile.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// follower is a follower, any.
func (t *trial) follower(ctx context.Context) (*node, error) {
	leader, err := t.leader(ctx)
	if err != nil {
		return nil, err
	}
	return t.others(leader)[t.random.IntN(nodeCount-1)], nil
}

// hurting runs a fault at a node: what fails there meanwhile is its own.
func (t *trial) hurting(n *node, do func() error) error {
	n.touched.Store(true)
	t.load.strike()
	return do()
}

// revive waits until a node that was hurt answers again.
func (t *trial) revive(ctx context.Context, nodes ...*node) error {
	for _, n := range nodes {
		err := until(ctx, recoverLimit, n.id()+" answering", func() error {
			if !n.running() {
				return fmt.Errorf("it has ended: see %s: %w", n.log(), errUseless)
			}
			if err := n.ready(ctx); err != nil {
				return err
			}
			_, err := ask(n.i, t.load.registers()[0].query)
			return err
		})
		if err != nil {
			return err
		}
		n.touched.Store(false)
	}
	return nil
}

// writing waits until the others take writes again, at most so long.
func (t *trial) writing(ctx context.Context) error {
	return until(ctx, recoverLimit, "a write after the fault", func() error {
		if _, back := t.load.gaps(); back == 0 {
			return fmt.Errorf("none was acknowledged")
		}
		return nil
	})
}

// between is a time in a range.
func (t *trial) between(low, high time.Duration) time.Duration {
	return low + time.Duration(t.random.Int64N(int64(high-low)+1))
}
