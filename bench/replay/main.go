// Command replay answers the questions of a file from a snapshot in one thread,
// without sockets: what a query costs before and after the kernel's share, and
// with -profile where. The memory behaves as in a server; the data of a whole
// cluster lie in it, and questions come in the order of the file.
//
//	replay [-profile FILE] [-rounds N] SNAPSHOT QUESTIONS
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"authd/cluster/state"
	"authd/zone"
)

func main() {
	profile := flag.String("profile", "", "file for a CPU profile")
	rounds := flag.Int("rounds", 4, "how often the file is gone through; the first warms up")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: replay [-profile FILE] [-rounds N] SNAPSHOT QUESTIONS")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *profile, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "replay:", err)
		os.Exit(1)
	}
}

func run(snapshot, questions, profile string, rounds int) error {
	tree, err := load(snapshot)
	if err != nil {
		return err
	}
	messages, err := read(questions)
	if err != nil {
		return err
	}
	debug.FreeOSMemory()
	if profile != "" {
		f, err := os.Create(profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	runtime.LockOSThread()
	responder := zone.NewResponder(tree, "node-1")
	for range rounds {
		octets := 0
		before := cpu()
		octets += answer(responder, messages)
		spent := cpu() - before
		fmt.Printf("%d ns a query, %d octets\n", int(spent)/len(messages), octets/len(messages))
	}
	return nil
}

// answer answers all messages in batches, as a worker does.
func answer(r *zone.Responder, messages [][]byte) (octets int) {
	var buffers [64][zone.MaxUDP]byte
	for len(messages) > 0 {
		batch := messages[:min(64, len(messages))]
		r.Expect(batch)
		for i, m := range batch {
			r.Expected(i)
			octets += len(r.Reply(buffers[i][:0], m, false))
		}
		messages = messages[len(batch):]
	}
	return octets
}

func cpu() time.Duration {
	var r syscall.Rusage
	const thread = 1 // RUSAGE_THREAD
	if err := syscall.Getrusage(thread, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func load(snapshot string) (*zone.Tree, error) {
	f, err := os.Open(snapshot)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := state.LoadImage(bufio.NewReaderSize(f, 1<<20), state.Machine{})
	if err != nil {
		return nil, err
	}
	fmt.Printf("%d domains\n", m.DomainCount())
	tree := zone.NewTree()
	e := tree.Edit()
	m.PublishAll(e)
	e.Commit()
	return tree, nil
}

// read packs every question as a receiver's resolver asks it.
func read(file string) ([][]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var messages [][]byte
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, kind, _ := strings.Cut(lines.Text(), " ")
		m := new(dns.Msg)
		m.SetQuestion(name+".", dns.StringToType[kind])
		m.RecursionDesired = false
		m.SetEdns0(1232, false)
		wire, err := m.Pack()
		if err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		messages = append(messages, wire)
	}
	return messages, lines.Err()
}
