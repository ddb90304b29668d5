package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// row is what the runs of one fault came to.
type row struct {
	commit    string
	seed      uint64
	fault     string
	runs      int
	histories int // legal ones, of which at least half of the operations succeeded
	illegal   int
	ops       int
	lost      int
	wrong     int
	stuck     int
	asked     int64
	left      int64 // of asked, at nodes that were left alone; not counted before there was a column for it
	failed    int64
	own       int64
	worst     time.Duration // write gap
	p50, p99  time.Duration // until the first write after the fault
}

// sumUp makes a row of each fault.
func sumUp(results []result, commit string, seed uint64) (rows []row) {
	for _, f := range faults() {
		r := row{commit: commit, seed: seed, fault: f.name}
		var backs []time.Duration
		for _, x := range results {
			if x.Fault != f.name {
				continue
			}
			r.add(x)
			if x.Back > 0 {
				backs = append(backs, x.Back)
			}
		}
		if r.runs == 0 {
			continue
		}
		slices.Sort(backs)
		if n := len(backs); n > 0 {
			r.p50, r.p99 = backs[n/2], backs[min(n-1, n*99/100)]
		}
		rows = append(rows, r)
	}
	return rows
}

func (r *row) add(x result) {
	r.runs++
	r.ops += x.Succeeded
	r.lost += x.Lost
	r.wrong += x.Wrong
	r.asked += x.Asked
	r.left += x.Left
	r.failed += x.Failed
	r.own += x.Own
	r.worst = max(r.worst, x.WriteGap)
	switch {
	case x.Stuck != "":
		r.stuck++
	case x.Illegal || x.Differ || x.Undecided:
		r.illegal++
	case x.counts():
		r.histories++
	}
}

// plus is two rows of one fault as one; percentiles cannot be added, so the worse
// is kept.
func (r row) plus(o row) row {
	r.runs += o.runs
	r.histories += o.histories
	r.illegal += o.illegal
	r.ops += o.ops
	r.lost += o.lost
	r.wrong += o.wrong
	r.stuck += o.stuck
	r.asked += o.asked
	r.left += o.left
	r.failed += o.failed
	r.own += o.own
	r.worst, r.p50, r.p99 = max(r.worst, o.worst), max(r.p50, o.p50), max(r.p99, o.p99)
	return r
}

const (
	tableHead = "| fault | runs | legal histories | illegal | stuck | writes | lost | wrong | DNS queries | at nodes left alone | failed there | failed at the node | worst gap | back p50 | back p99 |\n" +
		"|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
	additionHead = "| commit | seed " + "| fault | runs | legal histories | illegal | stuck | writes | lost | wrong | DNS queries | at nodes left alone | failed there | failed at the node | worst gap | back p50 | back p99 |\n" +
		"|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
)

func (r row) cells() string {
	s := func(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
	return fmt.Sprintf("| %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s | %s | %s |\n", r.fault, r.runs, r.histories, r.illegal, r.stuck, r.ops,
		r.lost, r.wrong, r.asked, r.left, r.failed, r.own, s(r.worst), s(r.p50), s(r.p99))
}

// table is rows as text, with their sum.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString(tableHead)
	sum := row{fault: "all"}
	for _, r := range rows {
		b.WriteString(r.cells())
		sum = sum.plus(r)
	}
	b.WriteString(sum.cells())
	return b.String()
}

const additions = "## Additions\n\n"

// addTotals adds rows to the file of all that was ever run.
func addTotals(path string, rows []row) error {
	old, err := readTotals(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("reading totals: %w", err)
	}
	all := append(old, rows...)
	var sums []row
	for _, f := range faults() {
		sum, any := row{fault: f.name}, false
		for _, r := range all {
			if r.fault == f.name {
				sum, any = sum.plus(r), true
			}
		}
		if any {
			sums = append(sums, sum)
		}
	}
	var b strings.Builder
	b.WriteString("# What `make chaos` has found\n\n" +
		"Three real nodes, each in a network and on a disk of its own, under load; a row is what the runs\n" +
		"of one fault came to, ever. *Lost* is acknowledged writes that a node had not, *wrong* is answers\n" +
		"older than what the node had shown or all had confirmed, or that nobody wrote, *illegal* is\n" +
		"histories without an order (porcupine) or machines that differ, *stuck* is clusters that did not\n" +
		"come back by themselves. *Back* is from the fault to the first write that was begun after it and\n" +
		"acknowledged; of several additions the worst. *Nodes left alone* are those that no fault was on, and\n" +
		"those that hand over; the first additions did not count their queries apart.\n" +
		"Written by the program: add to it with `make chaos`.\n\n" +
		"## Sum\n\n")
	b.WriteString(table(sums))
	b.WriteString("\n" + additions + additionHead)
	for _, r := range all {
		fmt.Fprintf(&b, "| %s | %d %s", r.commit, r.seed, r.cells())
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, runs := cutLives(string(text)); runs != "" {
		b.WriteString("\n" + runs)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// readTotals reads the additions back.
func readTotals(path string) (rows []row, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	table, _ := cutLives(string(text))
	_, after, found := strings.Cut(strings.TrimRight(table, "\n")+"\n", additions+additionHead)
	if !found {
		return nil, fmt.Errorf("%s has no table of additions", path)
	}
	for line := range strings.Lines(after) {
		r, err := parseRow(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func parseRow(line string) (r row, err error) {
	cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
	if len(cells) != 17 {
		return r, fmt.Errorf("%q has %d cells, not 17", line, len(cells))
	}
	number := func(i int) int64 {
		n, e := strconv.ParseInt(strings.TrimSpace(cells[i]), 10, 64)
		err = errors.Join(err, e)
		return n
	}
	seconds := func(i int) time.Duration {
		n, e := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(cells[i]), " s"), 64)
		err = errors.Join(err, e)
		return time.Duration(n * float64(time.Second))
	}
	r.commit, r.fault = strings.TrimSpace(cells[0]), strings.TrimSpace(cells[2])
	seed, e := strconv.ParseUint(strings.TrimSpace(cells[1]), 10, 64)
	r.seed = seed
	err = errors.Join(err, e)
	r.runs, r.histories, r.illegal, r.stuck = int(number(3)), int(number(4)), int(number(5)), int(number(6))
	r.ops, r.lost, r.wrong = int(number(7)), int(number(8)), int(number(9))
	r.asked, r.left, r.failed, r.own = number(10), number(11), number(12), number(13)
	r.worst, r.p50, r.p99 = seconds(14), seconds(15), seconds(16)
	return r, err
}
