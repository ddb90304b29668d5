package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"authd/api"
)

type keyTimelineCmd struct {
	Domain string `arg:"" help:"Domain or token."`
}

func (keyTimelineCmd) Help() string {
	return `Shows when each key was standby, active, draining and revoked, what comes next, and every change of the
domain that the cluster remembers, with who made it and why.

    authd key timeline send.customer.example
`
}

func (c *keyTimelineCmd) Run(s *session) error {
	var t api.Timeline
	raw, err := s.get(s.ctx, v1("domains", c.Domain, "timeline"), nil, &t)
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) { printTimeline(w, t) })
}

func printTimeline(w io.Writer, t api.Timeline) {
	fmt.Fprintf(w, "%s at %s\n\n", t.Domain, when(&t.At))
	drawKeys(w, t.Keys, t.At)
	fmt.Fprintln(w)
	printKeys(w, t.Keys)
	fmt.Fprintln(w)
	row(w, "AT", "ACTOR", "COMMAND", "KEY", "WHAT", "REASON")
	for _, e := range t.Changes {
		row(w, when(&e.At), e.Actor, e.Command, e.Key, e.Summary, e.Reason)
	}
	if !t.Complete {
		fmt.Fprintln(w, "older changes are in the nodes' audit files")
	}
}

// timelineWidth is how many columns the drawing has.
const timelineWidth = 60

// drawKeys draws a line a key, from the oldest one's beginning to now.
func drawKeys(w io.Writer, keys []api.Key, now time.Time) {
	if len(keys) == 0 {
		fmt.Fprintln(w, "no keys")
		return
	}
	from := now
	for _, k := range keys {
		if k.CreatedAt.Before(from) {
			from = k.CreatedAt
		}
	}
	for _, k := range keys {
		fmt.Fprintf(w, "%s\t%s\t|%s|\n", k.Selector, k.Algorithm, drawKey(k, from, now))
	}
	fmt.Fprintf(w, "\t\t%s to %s\n", when(&from), when(&now))
	fmt.Fprintln(w, "\t\t. standby  = active  - draining  x revoked")
}

// drawKey draws one key: a column is what the key was at the column's end.
func drawKey(k api.Key, from, now time.Time) string {
	var b strings.Builder
	span := now.Sub(from)
	for i := range timelineWidth {
		// Divided first: the product of a long span would not fit.
		at := now.Add(-span / timelineWidth * time.Duration(timelineWidth-1-i))
		b.WriteByte(stageAt(k, at))
	}
	return b.String()
}

func stageAt(k api.Key, at time.Time) byte {
	reached := func(t *time.Time) bool { return t != nil && !t.IsZero() && !at.Before(*t) }
	switch {
	case reached(k.RevokedAt):
		return 'x'
	case reached(k.DrainedAt):
		return '-'
	case reached(k.ActivatedAt):
		return '='
	case reached(&k.CreatedAt):
		return '.'
	}
	return ' '
}
