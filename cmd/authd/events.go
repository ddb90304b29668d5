package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"authd/cluster/state"
)

// eventsCmd is `authd events`.
type eventsCmd struct {
	clientFlags

	After int64 `default:"-1" placeholder:"N" help:"Begin after this change (default: with the next one)."`
}

func (eventsCmd) Help() string {
	return `Prints changes as they happen, one a line (-o json: one JSON object a line), until it is interrupted.
When the connection breaks it comes back where it was, so nothing is missed or printed twice.

    authd events
    authd events --after 0 -o json
`
}

// eventsPause is how long a broken stream waits before it comes back.
const eventsPause = 2 * time.Second

// errLost is a stream that ended: come back.
var errLost = errors.New("the stream ended")

func (c *eventsCmd) Run(s *session) error {
	s.http.Timeout = 0 // a stream has none
	after := c.After
	for connected := false; ; connected = true {
		err := s.follow(&after)
		if s.ctx.Err() != nil {
			return nil
		}
		if p, ok := errors.AsType[*problem](err); ok && (p.Status/100 == 4 && p.Status != http.StatusTooManyRequests || !connected) {
			return err
		}
		if !connected && !errors.Is(err, errLost) {
			return err
		}
		select {
		case <-time.After(eventsPause):
		case <-s.ctx.Done():
			return nil
		}
	}
}

// follow prints one connection's changes and keeps the place.
func (s *session) follow(after *int64) error {
	query := url.Values{}
	if *after >= 0 {
		query.Set("after", strconv.FormatInt(*after, 10))
	}
	reply, err := s.send(s.ctx, http.MethodGet, v1("events"), query, "", nil, false)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	const longest = 1 << 20
	lines := bufio.NewScanner(reply.Body)
	lines.Buffer(nil, longest)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			if *after, err = strconv.ParseInt(value, 10, 64); err != nil {
				return fmt.Errorf("reading event: %w", err)
			}
		case "data":
			if err := s.printEvent(s.stdout, value); err != nil {
				return err
			}
		}
	}
	return errors.Join(errLost, lines.Err())
}

func (s *session) printEvent(w io.Writer, data string) error {
	if s.json {
		_, err := fmt.Fprintln(w, data)
		return err
	}
	var e state.AuditEntry
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		return fmt.Errorf("reading event: %w", err)
	}
	line := fmt.Sprintf("%d %s %s %s %s", e.Seq, when(&e.At), e.Actor, e.Command, subject(e))
	if text := what(e); text != "" {
		line += ": " + text
	}
	if e.Reason != "" {
		line += " (" + e.Reason + ")"
	}
	_, err := fmt.Fprintln(w, line)
	return err
}
