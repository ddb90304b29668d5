//go:build lab

// Command data makes what the comparison in bench serves and asks: a cluster's
// state with a platform zone, CNAME customers and delegated zones, made by the
// replicated machine itself; from it a snapshot for each node of an authd
// cluster, and every zone with its real content as zone files for the peers,
// their configurations, and the questions.
//
// Keys are of the lab: of production size, sealed as real ones are, unable to
// sign. Only a build with the tag lab can make them; what is measured is the
// shipping binary, which opens the snapshots.
//
// It does not start or ask anything: bench/run does. Read machine.go next.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// options are what the flags set.
type options struct {
	dir       string // where everything goes
	cluster   string // directory of a stopped `authd dev`, for its key and members
	cnames    int
	delegated int
	questions int
	seed      uint64
	bare      bool   // only the snapshots, and some names to ask for
	behind    string // this node gets the state before the first domain
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", "", "directory to fill")
	flag.StringVar(&o.cluster, "cluster", "", "directory of a stopped authd dev, whose nodes get the snapshot (default DIR/authd)")
	flag.IntVar(&o.cnames, "n", 100_000, "CNAME customers")
	flag.IntVar(&o.delegated, "m", 10_000, "delegated zones")
	flag.IntVar(&o.questions, "q", 1_000_000, "questions a file")
	flag.Uint64Var(&o.seed, "seed", 1, "of all that is drawn")
	flag.BoolVar(&o.bare, "bare", false, "write only the snapshots, and names to ask for to DIR/names: no zone files, no questions")
	flag.StringVar(&o.behind, "behind", "", "give this node the state before the first domain, so that it is sent a snapshot")
	flag.Parse()
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, "data:", err)
		os.Exit(1)
	}
}

func run(o options) (err error) {
	if o.dir == "" || o.cnames < 1 || o.delegated < 1 || o.questions < 1 {
		return fmt.Errorf("-dir is missing, or a number is below 1")
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if o.cluster == "" {
		o.cluster = filepath.Join(o.dir, "authd")
	}
	began := time.Now()
	say := func(what string) { fmt.Printf("%6.1fs %s\n", time.Since(began).Seconds(), what) }
	w, err := newWorld(o)
	if err != nil {
		return err
	}
	if err := w.populate(); err != nil {
		return err
	}
	say(fmt.Sprintf("machine of %d domains", w.machine.DomainCount()))
	if err := w.files(say); err != nil {
		return err
	}
	if err := w.snapshot(); err != nil {
		return err
	}
	say("snapshots")
	return nil
}

// files writes what is read besides the snapshots.
func (w *world) files(say func(string)) error {
	if w.bare {
		return w.names()
	}
	if err := w.export(); err != nil {
		return err
	}
	say("zone files")
	if err := w.ask(); err != nil {
		return err
	}
	say("questions")
	return w.configure()
}

// names writes one name with a DKIM record and one token a line, of customers
// from all over the state.
func (w *world) names() error {
	var b strings.Builder
	for i := range 1000 {
		n := i * len(w.customers) / 1000
		c := w.customers[n]
		if n < w.cnames {
			fmt.Fprintf(&b, "k1.%s.dkim.%s. %[1]s\n", c.token, apex)
		} else {
			fmt.Fprintf(&b, "%s._domainkey.%s. %s\n", c.selectors[0], zoneOf(n-w.cnames), c.token)
		}
	}
	return os.WriteFile(filepath.Join(w.dir, "names"), []byte(b.String()), 0o600)
}
