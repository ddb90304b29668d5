package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// result is one run of one fault, as a line of the progress file.
type result struct {
	Fault     string        `json:"fault"`
	Seed      uint64        `json:"seed"`
	Ops       int           `json:"ops"`
	Succeeded int           `json:"succeeded"`
	Lost      int           `json:"lost"`
	Wrong     int           `json:"wrong"`
	Illegal   bool          `json:"illegal,omitempty"`
	Undecided bool          `json:"undecided,omitempty"`
	Differ    bool          `json:"differ,omitempty"`
	Asked     int64         `json:"asked"`
	Left      int64         `json:"left"`           // of them at nodes that were left alone
	Failed    int64         `json:"failed"`         // at nodes that were left alone
	Late      int64         `json:"late,omitempty"` // of failed, answered after more than patience
	Own       int64         `json:"own"`            // at the node that was hurt
	WriteGap  time.Duration `json:"write_gap"`
	Back      time.Duration `json:"back"`
	AnswerGap time.Duration `json:"answer_gap"`
	Forgotten int           `json:"forgotten,omitempty"`
	ByHand    int           `json:"by_hand,omitempty"`
	Stuck     string        `json:"stuck,omitempty"`
}

// good says whether nothing was found.
func (r *result) good() bool {
	return r.Lost == 0 && r.Wrong == 0 && !r.Illegal && !r.Undecided && !r.Differ && r.Failed == 0 && r.Stuck == ""
}

// counts says whether enough succeeded for the run to prove anything.
func (r *result) counts() bool { return r.Stuck == "" && 2*r.Succeeded >= r.Ops }

// campaign is runs of faults, one after the other.
type campaign struct {
	dir    string
	binary string
	seed   uint64
	plain  bool
	rate   int // queries a second to each node
	// queries is how many each fault is repeated for, at nodes that are left alone;
	// 0: it goes by runs.
	queries int64
	out     io.Writer

	ctx     context.Context
	world   *world
	load    *load
	probes  *probes
	trials  int // of this world
	worlds  int
	results []result

	mu         sync.Mutex // guards complaints: the probes' goroutines take it
	complaints []string
}

// worldTrials is how many runs a cluster lives through before there is a new one.
const worldTrials = 40

// plan is what is run, the same for the same seed: of each selected fault the
// given number, or, where that is 0, each once and then by weight without end.
func plan(selected []fault, runs int, seed uint64) func(yield func(fault) bool) {
	random := rand.New(rand.NewPCG(seed, 1))
	return func(yield func(fault) bool) {
		for round := 0; runs == 0 || round < runs; round++ {
			for _, f := range selected {
				if runs == 0 && round > 0 && random.IntN(20) >= f.weight {
					continue
				}
				if !yield(f) {
					return
				}
			}
		}
	}
}

// untilAsked is each selected fault until enough queries were sent meanwhile.
func (c *campaign) untilAsked(selected []fault) func(yield func(fault) bool) {
	return func(yield func(fault) bool) {
		for _, f := range selected {
			for c.asked(f) < c.queries {
				if !yield(f) {
					return
				}
			}
		}
	}
}

func (c *campaign) asked(f fault) (sum int64) {
	for i := range c.results {
		if c.results[i].Fault == f.name {
			sum += c.results[i].Left
		}
	}
	return sum
}

// progressFile is where results are kept until they are added to the totals.
func (c *campaign) progressFile() string { return filepath.Join(c.dir, "progress.jsonl") }

// resume reads what an interrupted run left; where it had another seed than was
// asked for, it is an error to mix them.
func (c *campaign) resume(seedGiven bool) error {
	f, err := os.Open(c.progressFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for first := true; s.Scan(); first = false {
		if first {
			var seed uint64
			if err := json.Unmarshal(s.Bytes(), &seed); err != nil {
				return fmt.Errorf("reading %s: %w: delete it to begin anew", c.progressFile(), err)
			}
			if seedGiven && seed != c.seed {
				return fmt.Errorf("%s is of seed %d, asked for is %d: delete it to begin anew", c.progressFile(), seed, c.seed)
			}
			c.seed = seed
			continue
		}
		var r result
		if json.Unmarshal(s.Bytes(), &r) == nil { // the last may be half a line
			c.results = append(c.results, r)
		}
	}
	return s.Err()
}

// keep adds one result to the progress file.
func (c *campaign) keep(r result) error {
	f, err := os.OpenFile(c.progressFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() == 0 {
		fmt.Fprintln(f, c.seed)
	}
	return json.NewEncoder(f).Encode(r)
}

// run goes through the plan until it ends or the time is over.
func (c *campaign) run(selected []fault, runs int, deadline time.Time) error {
	defer c.abandon()
	skip, number := len(c.results), 0
	all := plan(selected, runs, c.seed)
	if c.queries > 0 {
		all, number = c.untilAsked(selected), skip
	}
	for f := range all {
		if number++; number <= skip {
			continue
		}
		if c.ctx.Err() != nil || time.Now().After(deadline) {
			return nil
		}
		seed := c.seed + uint64(number)
		r := c.one(f, seed)
		if c.ctx.Err() != nil {
			return nil // interrupted: this one does not count
		}
		c.results = append(c.results, r)
		if err := c.keep(r); err != nil {
			return err
		}
		c.show(number, r)
	}
	return nil
}

func (c *campaign) show(number int, r result) {
	state := "good"
	if !r.good() {
		state = "BAD"
		if r.Failed > 0 {
			state = fmt.Sprintf("BAD, %d of %d queries that failed were answered late", r.Late, r.Failed)
		}
	} else if !r.counts() {
		state = "good, but too little succeeded to count"
	}
	fmt.Fprintf(c.out, "%4d %-20s seed %-20d %5d of %5d writes, gap %6.2fs, back %6.2fs, %6d queries, %6d of them at nodes left alone, own failures %5d: %s\n", number, r.Fault, r.Seed,
		r.Succeeded, r.Ops, r.WriteGap.Seconds(), r.Back.Seconds(), r.Asked, r.Left, r.Own, state)
	c.mu.Lock()
	defer c.mu.Unlock()
	const most = 12
	for i, line := range c.complaints {
		if i == most {
			fmt.Fprintf(c.out, "       … and %d more\n", len(c.complaints)-most)
			break
		}
		fmt.Fprintf(c.out, "       %s\n", line)
	}
	c.complaints = nil
}

func (c *campaign) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.complaints = append(c.complaints, fmt.Sprintf(format, args...))
}

// one runs a fault once, on the cluster there is or on a new one.
func (c *campaign) one(f fault, seed uint64) (r result) {
	r = result{Fault: f.name, Seed: seed}
	stuck := func(err error) result {
		r.Stuck = err.Error()
		c.complain("%v", err)
		c.complain("logs: %s", c.keepLogs(f.name))
		c.abandon()
		return r
	}
	if c.trials >= worldTrials {
		c.abandon()
	}
	if c.world == nil {
		if err := c.begin(seed); err != nil {
			return stuck(err)
		}
	}
	c.trials++
	t := &trial{world: c.world, load: c.load, random: rand.New(rand.NewPCG(seed, 2))}
	c.load.mu.Lock()
	claims := len(c.load.claims)
	c.load.mu.Unlock()
	c.load.begin()
	c.probes.take()
	pause(c.ctx, 500*time.Millisecond)
	err := f.strike(c.ctx, t)
	if err == nil {
		err = c.world.whole(c.ctx, recoverLimit)
	}
	if err != nil {
		return stuck(fmt.Errorf("%s: %w", f.name, err))
	}
	pause(c.ctx, 300*time.Millisecond)
	r.WriteGap, r.Back = c.load.gaps()

	c.load.running.Lock()
	defer c.load.running.Unlock()
	v, err := c.load.verify(c.ctx, claims)
	if err != nil {
		return stuck(fmt.Errorf("checking after %s: %w", f.name, err))
	}
	c.fill(&r, t, v)
	c.load.carry()
	if !r.good() {
		dir := c.keepLogs(f.name)
		c.complain("logs: %s", dir)
		text := strings.Join(append(v.complaints, v.culprits...), "\n") + "\n"
		if err := os.WriteFile(filepath.Join(dir, "complaints"), []byte(text), 0o644); err != nil {
			c.complain("%v", err)
		}
		c.trials = worldTrials // the next run must not find what this one left
	}
	return r
}

// fill sums up a run.
func (c *campaign) fill(r *result, t *trial, v verdict) {
	r.Ops, r.Succeeded = c.load.past.Load().tallied()
	r.Lost, r.Wrong = v.lost+t.found.lost, v.wrong+t.found.wrong
	r.Illegal, r.Undecided, r.Differ, r.Forgotten, r.ByHand = v.illegal, v.undecided, v.differ, t.forgotten, t.byHand
	for _, tally := range c.probes.take() {
		r.Asked += tally.asked
		r.Left += tally.left
		r.Failed += tally.failed
		r.Late += tally.late
		r.Own += tally.own
		r.Wrong += int(tally.wrong)
		r.AnswerGap = max(r.AnswerGap, tally.gap)
	}
	for _, line := range append(v.complaints, t.found.complaints...) {
		c.complain("%s", line)
	}
}

// begin starts a new cluster with its load and probes.
func (c *campaign) begin(seed uint64) error {
	c.worlds++
	c.trials = 0
	dir := filepath.Join(c.dir, fmt.Sprintf("world-%d", c.worlds))
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	w, err := newWorld(c.ctx, dir, c.binary, c.plain, nil)
	c.world = w
	if err != nil {
		return fmt.Errorf("starting a cluster: %w", err)
	}
	c.load = &load{w: w, seed: seed}
	c.load.past.Store(newHistory())
	if err := c.load.setUp(c.ctx); err != nil {
		return fmt.Errorf("filling a cluster: %w", err)
	}
	c.load.start(c.ctx)
	c.probes = &probes{w: w, each: time.Second / time.Duration(c.rate), registers: c.load.registers, report: c.complain}
	return c.probes.start()
}

// abandon ends the cluster there is.
func (c *campaign) abandon() {
	if c.world == nil {
		return
	}
	for i := 1; i <= nodeCount; i++ { // whatever was cut
		for j := 1; j <= nodeCount; j++ {
			if i != j {
				if err := join(i, j); err != nil {
					c.complain("%v", err)
				}
			}
		}
	}
	if c.probes != nil {
		c.probes.end()
	}
	if err := c.world.close(); err != nil {
		c.complain("ending a cluster: %v", err)
	}
	if c.load != nil && c.load.stop != nil {
		c.load.end()
	}
	c.world, c.load, c.probes = nil, nil, nil
}

// keepLogs puts the nodes' logs aside and says where.
func (c *campaign) keepLogs(name string) string {
	if c.world == nil {
		return "none"
	}
	dir := filepath.Join(c.dir, fmt.Sprintf("found-%03d-%s", len(c.results)+1, name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err.Error()
	}
	for _, n := range c.world.nodes {
		if n == nil {
			continue
		}
		text, err := os.ReadFile(n.log())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, n.id()+".log"), text, 0o644)
		}
		if err != nil {
			return err.Error()
		}
	}
	return dir
}

func names(all []fault) string {
	var lines []string
	for _, f := range all {
		lines = append(lines, fmt.Sprintf("%-20s %s", f.name, f.what))
	}
	return strings.Join(lines, "\n")
}
