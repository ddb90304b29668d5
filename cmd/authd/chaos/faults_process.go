package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"syscall"
	"time"
)

// killOne kills a node, waits for writes at the others, and brings it back.
func (t *trial) killOne(ctx context.Context, n *node) error {
	if err := t.hurting(n, n.kill); err != nil {
		return err
	}
	if err := t.writing(ctx); err != nil {
		return err
	}
	pause(ctx, t.between(0, 500*time.Millisecond))
	if err := n.start(); err != nil {
		return err
	}
	return t.revive(ctx, n)
}

// allDown ends all nodes and starts one of them alone, to see what it knows.
func (t *trial) allDown(ctx context.Context, powerless bool) error {
	for _, n := range t.nodes {
		n.touched.Store(true)
	}
	t.load.strike()
	for _, n := range t.nodes {
		if err := n.signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	if powerless {
		for _, n := range t.nodes {
			if err := n.disk.fail(); err != nil {
				return err
			}
		}
	}
	for _, n := range t.nodes {
		if err := n.kill(); err != nil {
			return err
		}
		if !powerless {
			continue
		}
		if err := n.disk.repair(); err != nil {
			return err
		}
	}
	one := t.nodes[t.random.IntN(nodeCount)]
	if err := t.alone(ctx, one, powerless); err != nil {
		return err
	}
	for _, n := range t.others(one) {
		if err := n.start(); err != nil {
			return err
		}
	}
	if err := t.revive(ctx, t.nodes[:]...); err != nil {
		return err
	}
	return t.writing(ctx)
}

// alone starts one node and holds what it answers against what it knew.
func (t *trial) alone(ctx context.Context, n *node, forgiving bool) error {
	var shown map[*register]int64
	if forgiving {
		// What was not confirmed by all may be older from now on, here and at the others.
		shown = t.load.forget(n)
	}
	if err := n.start(); err != nil {
		return err
	}
	// Only its answers count: it cannot be ready without a leader.
	err := until(ctx, startLimit, n.id()+" answering alone", func() error {
		_, err := ask(n.i, t.load.registers()[0].query)
		return err
	})
	if err != nil {
		return err
	}
	t.found, t.forgotten = t.load.dark(n, shown)
	return nil
}

// forget takes back what nodes had shown and not confirmed, and says what one of
// them had.
func (l *load) forget(n *node) map[*register]int64 {
	shown := map[*register]int64{}
	for _, r := range l.registers() {
		shown[r] = r.seen[n.i-1].Load()
		for i := range r.seen {
			r.seen[i].Store(r.served.Load())
		}
	}
	return shown
}

func allKill(ctx context.Context, t *trial) error   { return t.allDown(ctx, false) }
func powerLoss(ctx context.Context, t *trial) error { return t.allDown(ctx, true) }

// stopped holds a process still.
func stopped(least, most time.Duration) nodeStrike {
	return func(t *trial, ctx context.Context, n *node) error {
		d := t.between(least, most)
		err := t.hurting(n, func() error { return n.signal(syscall.SIGSTOP) })
		if err != nil {
			return err
		}
		pause(ctx, d)
		if err := n.signal(syscall.SIGCONT); err != nil {
			return err
		}
		if err := t.writing(ctx); err != nil {
			return err
		}
		return t.revive(ctx, n)
	}
}

// rollingRestart restarts node after node, as an upgrade does.
func rollingRestart(ctx context.Context, t *trial) error {
	t.load.strike()
	for _, n := range t.nodes {
		n.touched.Store(true)
		if err := n.stop(); err != nil {
			return err
		}
		if err := n.start(); err != nil {
			return err
		}
		if err := t.revive(ctx, n); err != nil {
			return err
		}
		if err := t.whole(ctx, recoverLimit); err != nil {
			return err
		}
	}
	return t.writing(ctx)
}

// handOver asks each running node for a successor, as for an upgrade: no query may
// fail, not even at the node itself.
func handOver(ctx context.Context, t *trial) error {
	t.load.strike()
	for _, n := range t.nodes {
		before, err := n.pid()
		if err != nil {
			return err
		}
		if err := syscall.Kill(before, syscall.SIGHUP); err != nil {
			return fmt.Errorf("SIGHUP to %s: %w", n.id(), err)
		}
		err = until(ctx, startLimit, n.id()+" handing over", func() error {
			after, err := n.pid()
			if err == nil && after == before {
				err = errors.New("the first process goes on")
			}
			if err == nil && syscall.Kill(before, 0) == nil {
				err = errors.New("the first process has not ended")
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := t.whole(ctx, recoverLimit); err != nil {
			return err
		}
	}
	return t.writing(ctx)
}

func transferLeader(ctx context.Context, t *trial) error {
	n, err := t.leader(ctx)
	if err != nil {
		return err
	}
	t.load.strike()
	err = t.must(ctx, n, http.MethodPost, "/v1/cluster/leader", map[string]any{}, nil)
	if err != nil {
		return err
	}
	return t.writing(ctx)
}
