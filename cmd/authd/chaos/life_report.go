package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

// primes is how many primes the RSA keys of a run are made of.
func (o *options) primes() int { return min(600, 40+o.life/10) }

// enough is how many checks each kind of transition must have seen, of mail from
// before it and from after, for a run of so many rotations to prove anything. A
// short run proves little, and is not held to it.
func (o *options) enough() int {
	if o.life < 1000 {
		return 0
	}
	return min(200, o.life/50)
}

// lifeFor runs time fast until there were enough rotations, and says whether every
// mail verified.
func lifeFor(ctx context.Context, o options, out io.Writer) (bool, error) {
	if err := settle(); err != nil {
		return false, err
	}
	if err := buildNetwork(nodeCount); err != nil {
		return false, fmt.Errorf("making the network: %w", err)
	}
	if o.seed == 0 {
		o.seed = mathrand.Uint64N(1 << 40)
	}
	l, err := startLife(ctx, o, out)
	if l != nil && l.w != nil {
		defer l.w.close()
	}
	if err != nil {
		return false, fmt.Errorf("starting a cluster: %w", err)
	}
	began := time.Now()
	err = l.run(ctx, o)
	text := l.report(o, time.Since(began))
	fmt.Fprint(out, "\n", text)
	good := err == nil && l.good(o)
	if err == nil && o.totals != "" {
		err = addLife(o.totals, text)
	}
	return good, err
}

// run fills the cluster, hurts it and has it checked until there were enough
// rotations; then it is left alone, and all has to verify once more.
func (l *life) run(ctx context.Context, o options) error {
	working, stop := context.WithCancel(ctx)
	defer stop()
	const visitors = 6
	ended := make(chan error, 1)
	hands := make(chan struct{}, visitors+nodeCount+2)
	count := 0
	start := func(f func()) {
		count++
		go func() { f(); hands <- struct{}{} }()
	}
	for _, n := range l.w.nodes {
		start(func() { l.follow(working, n) })
	}
	for range visitors {
		start(func() {
			for v, ok := l.queue.next(working); ok; v, ok = l.queue.next(working) {
				l.visit(working, v.subject, v.kind, v.before)
			}
		})
	}
	start(func() { l.poll(working) })
	if err := l.setUp(ctx, o.domains, o.watched); err != nil {
		return err
	}
	troubled, calm := context.WithCancel(working)
	defer calm()
	for i := range uint64(2) {
		start(func() { l.operate(troubled, o.seed+i, 300*time.Millisecond) })
	}
	go func() { ended <- l.trouble(troubled, o.seed) }()
	var err error
	limit := time.NewTimer(o.limit)
	for tick := time.NewTicker(20 * time.Second); ; {
		select {
		case <-l.done:
		case err = <-ended:
		case <-ctx.Done():
			err = ctx.Err()
		case <-limit.C:
			err = fmt.Errorf("only %d rotations within %s", l.rotations, o.limit)
		case <-tick.C:
			l.progress()
			continue
		}
		break
	}
	calm()
	if err != nil {
		return err
	}
	if err := <-ended; err != nil {
		return err
	}
	for _, n := range l.w.nodes { // whatever was interrupted
		if err := (&trial{world: l.w}).rejoin(n); err != nil {
			return err
		}
		if !n.running() {
			if err := n.start(); err != nil {
				return err
			}
		}
	}
	if err := l.w.whole(ctx, recoverLimit); err != nil {
		return err
	}
	stop()
	for range count {
		<-hands
	}
	for _, s := range l.all {
		l.visit(ctx, s, atRest, false)
	}
	return nil
}

func (l *life) progress() {
	l.mu.Lock()
	defer l.mu.Unlock()
	checks, failed, early := 0, 0, 0
	for _, c := range l.table {
		checks, failed, early = checks+c.before+c.after, failed+c.failed, early+c.early
	}
	faults := 0
	for _, n := range l.faults {
		faults += n
	}
	fmt.Fprintf(l.out, "day %5.1f: %d rotations, %d faults, %d checks, %d failed, %d early\n",
		l.clock.now().Sub(time.Unix(l.clock.epoch, 0)).Hours()/24, l.rotations, faults, checks, failed, early)
}

// good says whether nothing failed, and enough was looked at.
func (l *life) good(o options) bool {
	for _, kind := range kinds {
		c := l.table[kind]
		if c == nil {
			c = &counts{}
		}
		if c.before < o.enough() || c.after < o.enough() && kind != endOfRights || c.failed+c.early > 0 {
			return false
		}
	}
	return l.rotations >= o.life
}

const (
	lives     = "## A key's whole life\n\n"
	livesHead = "Keys that live thousands of times faster, TTLs with them (`chaos -life`): rotations by schedule, by\n" +
		"hand and in emergencies, while nodes are killed and cut off. Mail is signed with what a node's API\n" +
		"says is active, before and after every transition of the watched domains, and verified through each\n" +
		"node and through a cache a node that keeps every answer for its full TTL and replies with the oldest\n" +
		"one still valid, also once more at the end of its rights (`signer_hold` and the drain's floor after its\n" +
		"key was handed out). *Early* is activations before the standby's ready time, or while one of the caches\n" +
		"still had another record; *excepted* is mail of keys that were revoked by request.\n\n"
)

// report is what the run came to.
func (l *life) report(o options, took time.Duration) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	days := float64(took) * float64(o.factor) / float64(24*time.Hour)
	fmt.Fprintf(&b, "### %s, seed %d\n\n`chaos -life %d -domains %d -watched %d -scale %d -seed %d`: %d rotations of %d domains in %.0f days of the\ncluster, which took %s. ",
		o.commit, o.seed, o.life, o.domains, o.watched, o.factor, o.seed, l.rotations, o.domains, days, took.Round(time.Second))
	fmt.Fprintf(&b, "Faults: %s. Requests: %s. Not checked: %s.\n\n", listed(l.faults), listed(l.requests), listed(l.missed))
	b.WriteString("| transition | seen | mail from before it | mail from after it | activations held against the caches | failed | early | excepted |\n|---|--:|--:|--:|--:|--:|--:|--:|\n")
	var sum counts
	for _, kind := range kinds {
		c := l.table[kind]
		if c == nil {
			c = &counts{}
		}
		b.WriteString(c.row(kind))
		sum.seen += c.seen
		sum.before += c.before
		sum.after += c.after
		sum.activations += c.activations
		sum.failed += c.failed
		sum.early += c.early
		sum.excused += c.excused
	}
	b.WriteString(sum.row("all"))
	b.WriteString("\n")
	return b.String()
}

func (c *counts) row(kind string) string {
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d |\n", kind, c.seen, c.before, c.after, c.activations, c.failed, c.early, c.excused)
}

// listed lists counts by name.
func listed(m map[string]int) string {
	var all []string
	for name, n := range m {
		all = append(all, fmt.Sprintf("%d %s", n, name))
	}
	slices.SortFunc(all, func(a, b string) int {
		_, a, _ = strings.Cut(a, " ")
		_, b, _ = strings.Cut(b, " ")
		return strings.Compare(a, b)
	})
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// addLife adds a run to the file of all that was ever run.
func addLife(path, text string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	before, runs := cutLives(string(old))
	if runs == "" {
		runs = lives + livesHead
	}
	return os.WriteFile(path, []byte(strings.TrimRight(before, "\n")+"\n\n"+runs+text), 0o644)
}

// cutLives takes what addLife wrote from the end of a file.
func cutLives(text string) (before, runs string) {
	before, after, found := strings.Cut(text, lives)
	if !found {
		return text, ""
	}
	return before, lives + after
}
