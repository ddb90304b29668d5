package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// scaled is the time that the nodes of a run live in: it goes faster than ours,
// and everything that lasts is counted in it, TTLs as well.
type scaled struct {
	epoch  int64 // what it was at began, in seconds since 1970
	began  time.Time
	factor int64
}

func startTime(factor int64) *scaled {
	now := time.Now()
	return &scaled{now.Unix(), now, factor}
}

// now is the time in the run.
func (s *scaled) now() time.Time { return s.at(time.Now()) }

func (s *scaled) at(real time.Time) time.Time {
	return time.Unix(s.epoch, (real.UnixNano()-s.began.UnixNano())*s.factor)
}

// env tells a node the same.
func (s *scaled) env() string {
	return fmt.Sprintf("AUTHD_LAB_TIME=%d,%d,%d", s.epoch, s.began.UnixNano(), s.factor)
}

// real is how long something of the run lasts for us.
func (s *scaled) real(d time.Duration) time.Duration { return d / time.Duration(s.factor) }

// until is how long we wait for a moment of the run.
func (s *scaled) until(t time.Time) time.Duration {
	return s.real(t.Sub(time.Unix(s.epoch, 0))) - time.Since(s.began)
}

// answer is what a node said of a name: a TXT record, or (no text) that there is
// none, and for how long that may be kept.
type answer struct {
	text string
	ttl  time.Duration
}

// answerTime is how long a node may take, after which the question is as if it had
// not been asked.
const answerTime = 500 * time.Millisecond

// askTXT asks a node for the TXT record of a name.
func askTXT(node int, name string) (answer, error) {
	q := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	q.SetEdns0(1232, false)
	c := dns.Client{Timeout: answerTime}
	r, _, err := c.Exchange(q, address(node)+":53")
	if err != nil {
		return answer{}, err
	}
	return readAnswer(r)
}

// readAnswer is the answer in a reply.
func readAnswer(r *dns.Msg) (answer, error) {
	if r.Truncated || r.Rcode != dns.RcodeSuccess && r.Rcode != dns.RcodeNameError {
		return answer{}, fmt.Errorf("%s, truncated %t", dns.RcodeToString[r.Rcode], r.Truncated)
	}
	for _, rr := range r.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			return answer{strings.Join(txt.Txt, ""), time.Duration(txt.Hdr.Ttl) * time.Second}, nil
		}
	}
	for _, rr := range r.Ns {
		if soa, ok := rr.(*dns.SOA); ok { // RFC 2308 section 5
			return answer{ttl: time.Duration(min(soa.Hdr.Ttl, soa.Minttl)) * time.Second}, nil
		}
	}
	return answer{}, fmt.Errorf("%s with %d answers and no SOA", dns.RcodeToString[r.Rcode], len(r.Answer))
}

// cache is the worst resolver that keeps to the rules: it asks its node at every
// opportunity, keeps each answer for its full TTL, and replies with the oldest it
// still may. A TTL counts from when the question was sent, so that how long a
// reply was under way, which time makes thousands of times longer, counts for
// nothing. Safe for concurrent use.
type cache struct {
	node  int
	clock *scaled

	mu   sync.Mutex // guards held
	held map[string][]held
}

// held is an answer, kept by how often it was given from a time on.
type held struct {
	text        string
	from, until time.Time
}

// keptFor is for how long answers are remembered that nobody gets any more.
const keptFor = 60 * time.Second

// ask asks the node once, and says when and whether it answered.
func (c *cache) ask(name string) (at time.Time, err error) {
	at = c.clock.now()
	a, err := askTXT(c.node, name)
	if err != nil {
		return at, err
	}
	c.keep(name, a, at)
	return at, nil
}

// look is what somebody gets who asks the cache now; not ok: nothing, because it
// holds nothing and its node does not answer.
func (c *cache) look(name string) (text string, ok bool) {
	at, _ := c.ask(name) // where the node does not answer it has what it has
	return c.reply(name, at)
}

func (c *cache) keep(name string, a answer, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, until := c.held[name], at.Add(a.ttl)
	if n := len(list); n > 0 && list[n-1].text == a.text && !at.Before(list[n-1].from) {
		if until.After(list[n-1].until) {
			list[n-1].until = until
		}
		return
	}
	list = append(list, held{a.text, at, until})
	slices.SortStableFunc(list, func(a, b held) int { return a.from.Compare(b.from) })
	old := at.Add(-keptFor * time.Duration(c.clock.factor))
	c.held[name] = slices.DeleteFunc(list, func(h held) bool { return h.until.Before(old) })
}

// reply is what it replies at a time, which may be long past: the oldest answer
// that it had and still might give.
func (c *cache) reply(name string, at time.Time) (text string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.held[name] {
		if !at.Before(h.from) && at.Before(h.until) {
			return h.text, true
		}
	}
	return "", false
}

// describe lists what a cache holds, for a complaint.
func (c *cache) describe(name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, h := range c.held[name] {
		text := h.text
		if len(text) > 40 {
			text = text[:20] + "…" + text[len(text)-12:]
		}
		all = append(all, fmt.Sprintf("%s to %s: %s", h.from.UTC().Format("02T15:04:05"), h.until.UTC().Format("02T15:04:05"), strconv.Quote(text)))
	}
	return strings.Join(all, "; ")
}
