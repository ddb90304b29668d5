package main

import (
	"fmt"
	"io"
	"time"

	"authd/api"
)

type domainQueriesCmd struct {
	Domain string        `arg:"" help:"Domain, or the token of a claim."`
	For    time.Duration `placeholder:"DURATION" help:"Begin to count now, for this long (1m to 24h); admin."`
	Stop   bool          `help:"Stop, and forget what was counted; admin."`
}

func (domainQueriesCmd) Help() string {
	return `Queries of single domains are not counted until somebody asks for it, and then for a bounded time.
Each node counts what it is asked: address one with --addr. At most 16 domains at a time.

Examples:

    authd domain queries send.customer.example --for 10m
    authd domain queries send.customer.example
    authd domain queries send.customer.example --stop
`
}

func (c *domainQueriesCmd) Run(s *session) error {
	path := v1("domains", c.Domain, "queries")
	if c.Stop {
		raw, err := s.remove(s.ctx, path, nil)
		if err != nil {
			return err
		}
		return s.say(raw, "the queries of %s are not counted any more", c.Domain)
	}
	var q api.Queries
	var raw []byte
	var err error
	switch {
	case c.For == 0:
		raw, err = s.get(s.ctx, path, nil, &q)
	case c.For%time.Minute != 0 || c.For < 0:
		return fmt.Errorf("reading --for: %s is not a number of minutes: say 10m or 1h", c.For)
	default:
		raw, err = s.post(s.ctx, path, nil, api.CountQueries{Minutes: int(c.For / time.Minute)}, &q)
	}
	if err != nil {
		return err
	}
	return s.show(raw, func(w io.Writer) {
		fmt.Fprintf(w, "%s at %s, from %s until %s\n", q.Domain, q.Node, when(&q.Since), when(&q.Until))
		row(w, "TYPE", "OUTCOME", "QUERIES")
		for _, n := range q.Counts {
			row(w, n.Type, n.Outcome, fmt.Sprint(n.Queries))
		}
	})
}
