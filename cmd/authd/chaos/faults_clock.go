package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// clockSteps are how wrong a clock is set.
var clockSteps = [...]time.Duration{-10 * year, -time.Hour, time.Hour, 10 * year}

const (
	year = 365 * 24 * time.Hour
	// clockApart is how far machine time may be from the clocks once all are right. A
	// step is more.
	clockApart = 5 * time.Minute
)

// clockStepped sets a node's wall clock wrong for a while. It answers all the time,
// and machine time does not follow it.
func (t *trial) clockStepped(ctx context.Context, n *node) error {
	t.load.strike()
	if err := n.setClock(clockSteps[t.random.IntN(len(clockSteps))]); err != nil {
		return err
	}
	pause(ctx, t.between(4*time.Second, 8*time.Second))
	err := t.writing(ctx)
	if err == nil && t.random.IntN(2) == 0 {
		// It comes up with that clock, and makes connections anew.
		n.touched.Store(true)
		if err = n.kill(); err == nil {
			err = n.start()
		}
		if err == nil {
			pause(ctx, t.between(2*time.Second, 4*time.Second))
		}
	}
	if e := n.setClock(0); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	pause(ctx, 500*time.Millisecond) // it is read again and again
	if err := t.revive(ctx, n); err != nil {
		return err
	}
	if err := t.comeBack(ctx, n); err != nil {
		return err
	}
	for _, n := range t.nodes {
		ahead, err := n.clockAhead(ctx)
		if err != nil {
			return err
		}
		if ahead.Abs() > clockApart {
			t.found.wrong++
			t.found.say("machine time is %s from the clock of %s after one was set wrong", -ahead, n.id())
		}
	}
	return nil
}

// clockAhead is how far a node's clock is ahead of machine time, as it says.
func (n *node) clockAhead(ctx context.Context) (time.Duration, error) {
	const metric = "authd_clock_ahead_seconds "
	r, err := n.w.request(ctx, n, http.MethodGet, "/metrics", nil, nil)
	if err != nil {
		return 0, err
	}
	for lines := bufio.NewScanner(bytes.NewReader(r.body)); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), metric); ok {
			seconds, err := strconv.ParseFloat(text, 64)
			return time.Duration(seconds * float64(time.Second)), err
		}
	}
	return 0, fmt.Errorf("%s: /metrics has no %s", n.id(), metric)
}
