// Command writes measures the write path of authd beside its peers, in one run:
// changes of records, domains added, an import, and the time until a change is
// visible on all three nodes; BIND's dynamic updates, PowerDNS's API over LMDB,
// Knot's configuration transactions; and Raft alone with an empty state machine.
//
//	writes [-seconds 6] [-import 10000] [-domains 0] [-only authd,bind,pdns,knot,raft] -authd BINARY -data BINARY -dir DIR
//
// BINARY is authd built with the tag lab: its keys cost nothing, as a pool of
// ready keys would; with -domains it has so many from the start, made by bench/data,
// besides those of the import, which are the ones that are changed. authd is three nodes with mutual TLS and synced logs; each peer
// is one process without a replica, durable as it comes. All share the machine's
// processors with the client.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// bench is one run.
type bench struct {
	dir     string
	binary  string
	seconds time.Duration
	imports int
	data    string // makes domains
	domains int
	rates   map[string]float64 // changes a second by row
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "raft-node" {
		if err := raftNode(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "raft-node:", err)
			os.Exit(1)
		}
		return
	}
	b := &bench{rates: map[string]float64{}}
	seconds := flag.Int("seconds", 6, "how long each row is measured")
	only := flag.String("only", "authd,bind,pdns,knot,raft", "what to measure")
	flag.IntVar(&b.imports, "import", 10_000, "how many domains the bulk import has")
	flag.IntVar(&b.domains, "domains", 0, "how many domains authd has before the import")
	flag.StringVar(&b.data, "data", "", "bench/data, built with the tag lab; for -domains")
	flag.StringVar(&b.binary, "authd", "", "authd, built with the tag lab")
	flag.StringVar(&b.dir, "dir", "", "a folder for the data; emptied")
	flag.Parse()
	b.seconds = time.Duration(*seconds) * time.Second
	if b.dir == "" || b.binary == "" || b.domains > 0 && b.data == "" {
		fmt.Fprintln(os.Stderr, "writes: -authd and -dir are needed, and -data for -domains; see bench/README.md")
		os.Exit(2)
	}
	if err := b.run(strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "writes:", err)
		os.Exit(1)
	}
}

func (b *bench) run(names []string) error {
	if err := errors.Join(os.RemoveAll(b.dir), os.MkdirAll(b.dir, 0o755)); err != nil {
		return err
	}
	parts := []struct {
		name    string
		measure func() error
	}{{"authd", b.authd}, {"bind", b.bind}, {"pdns", b.pdns}, {"knot", b.knot}, {"raft", b.raft}}
	fmt.Print("| what | at once | changes/s | p50 ms | p99 ms | servers' processor time a change, µs | errors |\n|---|---|---|---|---|---|---|\n")
	for _, p := range parts {
		if slices.Contains(names, p.name) {
			if err := p.measure(); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	b.ratios()
	return nil
}

// ratios prints the comparisons that were measured.
func (b *bench) ratios() {
	fmt.Print("\n| authd | to | ratio |\n|---|---|---|\n")
	for _, r := range [][2]string{
		{"authd record, 64", "bind update, 64"}, {"authd record, 8", "bind update, 8"},
		{"authd domain, 64", "pdns domain, 64"},
		{"authd import", "knot batches of 100"}, {"authd import", "knot batches of 1000"},
		{"authd record, 1", "raft, 1"}, {"authd record, 8", "raft, 8"}, {"authd record, 64", "raft, 64"},
	} {
		if ours, theirs := b.rates[r[0]], b.rates[r[1]]; ours > 0 && theirs > 0 {
			fmt.Printf("| %s | %s | %.2f |\n", r[0], r[1], ours/theirs)
		}
	}
}

// drive repeats a change with a number of clients at once and prints a row.
// change gets the client's number and a number that no other change of the row has.
func (b *bench) drive(row string, clients int, change func(client int, n uint64) error) error {
	var (
		next   atomic.Uint64
		mu     sync.Mutex
		took   []time.Duration
		failed []error
		wg     sync.WaitGroup
	)
	spent := processors()
	began := time.Now()
	for client := range clients {
		wg.Go(func() {
			var mine []time.Duration
			var errs []error
			for time.Since(began) < b.seconds && len(errs) < 5 {
				at := time.Now()
				if err := change(client, next.Add(1)); err != nil {
					errs = append(errs, err)
					continue
				}
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			took, failed = append(took, mine...), append(failed, errs...)
			mu.Unlock()
		})
	}
	wg.Wait()
	elapsed := time.Since(began)
	spent = processors() - spent
	if len(took) == 0 {
		return fmt.Errorf("%s: no change was made: %w", row, errors.Join(failed...))
	}
	b.row(row, clients, float64(len(took))/elapsed.Seconds(), spent, took, failed)
	return nil
}

func (b *bench) row(row string, clients int, rate float64, spent time.Duration, took []time.Duration, failed []error) {
	slices.Sort(took)
	b.rates[fmt.Sprintf("%s, %d", row, clients)] = rate
	first := ""
	if len(failed) > 0 {
		first = " " + strings.ReplaceAll(failed[0].Error(), "\n", " ")
	}
	fmt.Printf("| %s | %d | %.0f | %.2f | %.2f | %.0f | %d%s |\n", row, clients, rate,
		milliseconds(took[len(took)/2]), milliseconds(took[min(len(took)-1, len(took)*99/100)]), each(spent, len(took)), len(failed), first)
}

// each is what one of so many took, in microseconds.
func each(spent time.Duration, changes int) float64 {
	return float64(spent) / float64(time.Microsecond) / float64(changes)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// process is a program that was started, with its output in a file.
type process struct{ cmd *exec.Cmd }

func start(log string, name string, args ...string) (*process, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = f, f
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &process{cmd}, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = p.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-done
	}
}

// until asks again until there is no error.
func until(what string, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not after %s: %w", what, limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// folder makes an empty folder below the run's.
func (b *bench) folder(name string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.MkdirAll(path, 0o755)
}
