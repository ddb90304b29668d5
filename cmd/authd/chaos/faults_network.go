package main

import (
	"context"
	"errors"
	"time"
)

// isolate cuts a node from its peers, both ways or one; rejoin undoes it. Those
// who ask it, DNS and API, go on reaching it.
func (t *trial) isolate(n *node, hears, sends bool) error {
	var errs []error
	for _, o := range t.others(n) {
		if !sends {
			errs = append(errs, cut(n.i, o.i))
		}
		if !hears {
			errs = append(errs, cut(o.i, n.i))
		}
	}
	return errors.Join(errs...)
}

func (t *trial) rejoin(n *node) error {
	var errs []error
	for _, o := range t.others(n) {
		errs = append(errs, join(n.i, o.i), join(o.i, n.i))
	}
	return errors.Join(errs...)
}

// isolated cuts a node off for a while. It answers DNS all the time: it is not
// touched.
func isolated(hears, sends bool, least, most time.Duration) nodeStrike {
	return func(t *trial, ctx context.Context, n *node) error {
		d := t.between(least, most)
		t.load.strike()
		if err := t.isolate(n, hears, sends); err != nil {
			return err
		}
		pause(ctx, d)
		if err := t.rejoin(n); err != nil {
			return err
		}
		return t.writing(ctx)
	}
}

// flapping cuts single directions between single nodes, at random, and joins
// them again.
func flapping(ctx context.Context, t *trial) error {
	t.load.strike()
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); {
		from := 1 + t.random.IntN(nodeCount)
		to := 1 + (from+t.random.IntN(nodeCount-1))%nodeCount
		if err := cut(from, to); err != nil {
			return err
		}
		pause(ctx, t.between(100*time.Millisecond, 1500*time.Millisecond))
		if t.random.IntN(3) > 0 {
			if err := join(from, to); err != nil {
				return err
			}
		}
	}
	for _, n := range t.nodes {
		if err := t.rejoin(n); err != nil {
			return err
		}
	}
	return t.writing(ctx)
}
