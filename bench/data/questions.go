//go:build lab

package main

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// mix is the mail mix in percent: what receivers of a platform's mail ask.
var mix = [...]struct {
	kind  string
	share int
}{{"dkim", 45}, {"spf", 25}, {"mx", 15}, {"click", 10}, {"dmarc", 3}, {"nx", 2}}

// activeShare is how much of the DKIM questions is for the active key; the rest
// is for the standby, as for the draining key after a rotation.
const activeShare = 0.8

// ask writes the question files, a line "name TYPE" each. A name that begins
// with nx- does not exist, any other has what is asked for.
func (w *world) ask() error {
	if err := os.MkdirAll(filepath.Join(w.dir, "q"), 0o755); err != nil {
		return err
	}
	total := len(w.customers)
	anyone := func() int { return w.random.IntN(total) }
	zipf := w.zipf(total)
	victim := zoneOf(0)
	files := []struct {
		name string
		next func() string
	}{
		{"uniform", func() string { return w.question(anyone(), w.kind()) }},
		{"zipf", func() string { return w.question(zipf(), w.kind()) }},
		{"txt", func() string { return w.question(anyone(), "active") }},
		{"case", func() string { return w.scramble(w.question(anyone(), w.kind())) }},
		// A random-subdomain flood of one tenant's zone.
		{"nx", func() string { return fmt.Sprintf("nx-%x.%s A", w.random.Uint64(), victim) }},
		{"cname", func() string { return w.question(w.random.IntN(w.cnames), w.kind()) }},
		{"deleg", func() string { return w.question(w.cnames+w.random.IntN(w.delegated), w.kind()) }},
	}
	for _, f := range files {
		if err := w.questionFile(f.name, f.next); err != nil {
			return err
		}
	}
	// The first and last domain of each mode: these answer once all is loaded.
	first := []int{0, w.cnames - 1, w.cnames, total - 1}
	at := 0
	return w.questionsTo("ready", len(first), func() string {
		at++
		return w.question(first[at-1], "active")
	})
}

func (w *world) questionFile(name string, next func() string) error {
	return w.questionsTo(name, w.questions, next)
}

func (w *world) questionsTo(name string, count int, next func() string) error {
	f, err := os.Create(filepath.Join(w.dir, "q", name+".q"))
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	for range count {
		fmt.Fprintln(out, next())
	}
	return errors.Join(out.Flush(), f.Close())
}

// kind draws from the mix.
func (w *world) kind() string {
	n := w.random.IntN(100)
	for _, m := range mix {
		if n -= m.share; n < 0 {
			return m.kind
		}
	}
	panic("the mix is not 100 percent")
}

// zipf draws customers with frequencies 1/rank; who has which rank is drawn, too.
func (w *world) zipf(total int) func() int {
	who := w.random.Perm(total)
	sums := make([]float64, total)
	sum := 0.0
	for i := range sums {
		sum += 1 / float64(i+1)
		sums[i] = sum
	}
	return func() int {
		at := sort.SearchFloat64s(sums, math.Nextafter(w.random.Float64()*sum, 0))
		return who[min(at, total-1)]
	}
}

// question is one about customer i.
func (w *world) question(i int, kind string) string {
	c := &w.customers[i]
	selector := c.selectors[0]
	if kind == "dkim" && w.random.Float64() >= activeShare {
		selector = c.selectors[1]
	}
	owner := map[string]string{}
	if i < w.cnames {
		t := c.token.String()
		owner["dkim"] = selector + "." + t + ".dkim." + apex
		owner["spf"] = t + ".bounce." + apex
		owner["click"] = t + ".click." + apex
		owner["dmarc"] = t + ".dmarc." + apex
		owner["nx"] = fmt.Sprintf("nx-%x.%s.dkim.%s", w.random.Uint32(), t, apex)
	} else {
		z := zoneOf(i - w.cnames)
		owner["dkim"] = selector + "._domainkey." + z
		owner["spf"] = z
		owner["click"] = "click." + z
		owner["dmarc"] = "_dmarc." + z
		owner["nx"] = fmt.Sprintf("nx-%x._domainkey.%s", w.random.Uint32(), z)
	}
	switch kind {
	case "active":
		return owner["dkim"] + " TXT"
	case "mx":
		return owner["spf"] + " MX"
	case "click":
		if w.random.Float64() < 0.6 {
			return owner["click"] + " A"
		}
		return owner["click"] + " AAAA"
	}
	return owner[kind] + " TXT"
}

// scramble is the name with the case of every letter drawn (0x20 encoding).
func (w *world) scramble(question string) string {
	owner, t, _ := strings.Cut(question, " ")
	b := []byte(owner)
	mark := 0
	if strings.HasPrefix(owner, "nx-") {
		mark = 3 // the load generator knows such names by it
	}
	for i := mark; i < len(b); i++ {
		if c := b[i] | 0x20; c >= 'a' && c <= 'z' && w.random.IntN(2) == 0 {
			b[i] ^= 0x20
		}
	}
	return string(b) + " " + t
}
