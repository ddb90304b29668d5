package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// progress shows how far long work is: a bar that is drawn again on a terminal,
// a plain line now and then elsewhere.
type progress struct {
	w        io.Writer
	what     string
	total    int
	terminal bool
	width    int
	began    time.Time
	shown    time.Time
	every    time.Duration
}

// How often progress is shown.
const (
	drawEvery  = 100 * time.Millisecond
	lineEvery  = 5 * time.Second
	barDefault = 80
)

func newProgress(w io.Writer, what string, total int) *progress {
	p := &progress{w: w, what: what, total: total, began: time.Now(), every: lineEvery, width: barDefault}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.terminal, p.every = true, drawEvery
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			p.width = width
		}
	}
	return p
}

// at shows that so many are done, where it is time to.
func (p *progress) at(done int) {
	now := time.Now()
	if done < p.total && now.Sub(p.shown) < p.every {
		return
	}
	p.shown = now
	text := p.line(done, now.Sub(p.began))
	if p.terminal {
		fmt.Fprintf(p.w, "\r%s\x1b[K", text)
	} else {
		fmt.Fprintln(p.w, text)
	}
}

// end leaves the last state on the screen.
func (p *progress) end() {
	if p.terminal && !p.shown.IsZero() {
		fmt.Fprintln(p.w)
	}
}

func (p *progress) line(done int, spent time.Duration) string {
	text := fmt.Sprintf("%s %d of %d", p.what, done, p.total)
	if done > 0 && done < p.total {
		left := time.Duration(float64(spent) / float64(done) * float64(p.total-done))
		text += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	if !p.terminal {
		return text
	}
	const frame = 3 // the brackets and a space
	room := min(40, p.width-len(text)-frame-1)
	if room < 10 || p.total == 0 {
		return text
	}
	full := room * done / p.total
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", room-full) + "] " + text
}
