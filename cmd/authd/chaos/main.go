// Command chaos breaks a real cluster of authd, again and again, and holds what
// it says afterwards against what it had said before. It needs root, because it
// makes networks and disks to break; they are in namespaces of its own, which end
// with it.
//
//	go build -tags lab -o authd ./cmd/authd
//	chaos -binary ./authd -faults leader-kill,disk-full -runs 3 -seed 7
//
// With -life it does something else: time goes thousands of times faster for the
// nodes, keys rotate, nodes are killed and cut off, and all mail has to verify.
//
//	chaos -binary ./authd -life 10000 -seed 7
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	binary, dir, totals, commit, faults string
	runs, rate                          int
	queries                             int64
	seed                                uint64
	limit                               time.Duration
	list, plain                         bool

	life, domains, watched int
	factor                 int64
}

func parse(args []string) (o options, err error) {
	f := flag.NewFlagSet("chaos", flag.ContinueOnError)
	f.StringVar(&o.binary, "binary", "", "the authd to break, built with -tags lab so that keys cost nothing")
	f.StringVar(&o.dir, "dir", filepath.Join(os.TempDir(), "authd-chaos"), "where disks, logs and progress are; an interrupted run goes on from there")
	f.StringVar(&o.faults, "faults", "", "which faults, separated by commas; empty: all")
	f.IntVar(&o.runs, "runs", 0, "how often each; 0: each once, then by weight until the time is over")
	f.IntVar(&o.rate, "rate", 1000, "DNS queries a second to each node")
	f.Int64Var(&o.queries, "queries", 0, "repeat each fault until so many queries were sent to nodes that were left alone; 0: as -runs says")
	f.Uint64Var(&o.seed, "seed", 0, "what chance is made of; 0: a new one")
	f.DurationVar(&o.limit, "limit", 55*time.Minute, "no run begins later than this")
	f.StringVar(&o.totals, "totals", "", "the file of all that was ever run, to add to; empty: none")
	f.StringVar(&o.commit, "commit", "unknown", "what the binary was built from, for the totals")
	f.BoolVar(&o.list, "list", false, "only list the faults")
	f.BoolVar(&o.plain, "plain", false, "no disks of the nodes' own: needs no root, and cannot do what disks do")
	f.IntVar(&o.life, "life", 0, "instead of faults: run time fast until there were so many rotations, verifying what is signed")
	f.IntVar(&o.domains, "domains", 900, "with -life: how many domains")
	f.IntVar(&o.watched, "watched", 150, "with -life: how many of them sign and are verified at each transition")
	f.Int64Var(&o.factor, "scale", 8000, "with -life: how many seconds of the cluster a second has")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if !o.list && o.binary == "" {
		return o, fmt.Errorf("-binary: which authd is to be broken?")
	}
	if o.life > 0 && (o.domains < 9 || o.watched < 1 || o.watched > o.domains || o.factor < 100 || o.factor > 50000) {
		return o, fmt.Errorf("-life: want 9 or more domains, some of them watched, and a scale from 100 to 50000")
	}
	if o.rate < 1 || o.rate > 20000 {
		return o, fmt.Errorf("-rate: %d is not between 1 and 20000", o.rate)
	}
	if o.queries < 0 || o.queries > 0 && o.runs > 0 {
		return o, errors.New("-queries: a positive number, and without -runs")
	}
	// A node would take a relative one to be below its configuration, beside the disk.
	o.dir, err = filepath.Abs(o.dir)
	return o, err
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(2)
	}
	if o.list {
		fmt.Println(names(faults()))
		return
	}
	if !inside() {
		status, err := reenter(os.Stdout, os.Stderr, o.plain || o.life > 0)
		if err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
		}
		os.Exit(status)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	do := campaignFor
	if o.life > 0 {
		do = lifeFor
	}
	good, err := do(ctx, o, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
	}
	if err != nil || !good {
		os.Exit(1)
	}
}

// campaignFor runs what the options say and prints the table. It says whether
// nothing was found.
func campaignFor(ctx context.Context, o options, out io.Writer) (bool, error) {
	selected := faults()
	if o.faults != "" {
		selected = nil
		for name := range strings.SplitSeq(o.faults, ",") {
			f, err := faultNamed(strings.TrimSpace(name))
			if err != nil {
				return false, err
			}
			selected = append(selected, f)
		}
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return false, err
	}
	if err := settle(); err != nil {
		return false, err
	}
	if err := buildNetwork(nodeCount); err != nil {
		return false, fmt.Errorf("making the network: %w", err)
	}
	c := &campaign{dir: o.dir, binary: o.binary, seed: o.seed, rate: o.rate, queries: o.queries, plain: o.plain, out: out, ctx: ctx}
	if c.seed == 0 {
		c.seed = rand.Uint64N(1 << 40)
	}
	if err := c.resume(o.seed != 0); err != nil {
		return false, err
	}
	fmt.Fprintf(out, "seed %d, %d runs done before\n", c.seed, len(c.results))
	if err := c.run(selected, o.runs, time.Now().Add(o.limit)); err != nil {
		return false, err
	}
	rows := sumUp(c.results, o.commit, c.seed)
	fmt.Fprint(out, "\n", table(rows))
	good := true
	for i := range c.results {
		good = good && c.results[i].good()
	}
	if ctx.Err() != nil {
		fmt.Fprintf(out, "\ninterrupted; the same command goes on from %s\n", c.progressFile())
		return good, nil
	}
	if o.totals != "" && len(rows) > 0 {
		if err := addTotals(o.totals, rows); err != nil {
			return good, err
		}
	}
	return good, os.Remove(c.progressFile())
}
