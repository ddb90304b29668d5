package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// floodTime is how long each flood lasts, floodWriters how many clients one has.
const (
	floodTime    = 3 * time.Second
	floodWriters = 48
	floodSilent  = 200
	askEvery     = 50 * time.Millisecond
	askAfter     = 20 // queries that must be answered after a flood
)

// admin is a client of node 1 with the admin token.
func (c *liveCluster) admin() func(method, path, body string) (int, error) {
	c.Helper()
	token, err := os.ReadFile(filepath.Join(c.dir, "admin.token"))
	if err != nil {
		c.Fatal(err)
	}
	client := &http.Client{Timeout: scriptWait, Transport: &http.Transport{MaxIdleConnsPerHost: floodWriters}}
	c.Cleanup(client.CloseIdleConnections)
	return func(method, path, body string) (int, error) {
		r, err := http.NewRequest(method, "http://"+loopback(c.apiPort)+path, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		reply, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer reply.Body.Close()
		_, err = io.Copy(io.Discard, reply.Body)
		return reply.StatusCode, err
	}
}

// DNS answers every query while the API is flooded, and the API everything while
// DNS is.
func TestFloodsOfOneDoNotEndTheOther(t *testing.T) {
	c := startLive(t)
	ask := c.admin()
	t.Run("the API is flooded", func(t *testing.T) {
		over := time.Now().Add(floodTime)
		for range floodSilent { // requests that never end
			conn, err := net.Dial("tcp", loopback(c.apiPort))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "POST /v1/tenants HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nX-Slow: ")
		}
		l := c.load()
		var wg sync.WaitGroup
		var written, refused, odd atomic.Int64
		for w := range floodWriters {
			wg.Go(func() {
				for i := 0; time.Now().Before(over); i++ {
					code, err := ask("POST", "/v1/tenants", fmt.Sprintf(`{"id":"t-%d-%d","name":"x"}`, w, i))
					switch {
					case err == nil && code == http.StatusCreated:
						written.Add(1)
					case err == nil && code == http.StatusTooManyRequests:
						refused.Add(1)
					default:
						odd.Add(1)
						t.Logf("a write: %d, %v", code, err)
					}
				}
			})
		}
		wg.Wait()
		if asked := l.end(); asked < 100 || written.Load() < floodWriters || odd.Load() > 0 {
			t.Errorf("%d queries answered, %d writes, %d refused, %d neither: the flood shows nothing", asked, written.Load(), refused.Load(), odd.Load())
		} else {
			t.Logf("%d queries answered beside %d writes", asked, written.Load())
		}
	})
	t.Run("DNS is flooded", func(t *testing.T) { c.floodDNS(t, ask) })
}

// floodDNS floods node 1 with datagrams, at the end with as many as can be sent. Its
// socket's buffer overflows then, so that the kernel drops queries unseen, and the
// first one after the flood may be of them. Whatever was not dropped is answered.
func (c *liveCluster) floodDNS(t *testing.T, ask func(method, path, body string) (int, error)) {
	queries := &tried{t: t, to: c.dns(1), began: time.Now()}
	defer queries.end()
	end := c.flood(t, queries.began.Add(floodTime*2/3))
	var asking atomic.Bool
	var askers sync.WaitGroup
	asking.Store(true)
	askers.Go(func() {
		for ; asking.Load(); time.Sleep(askEvery) {
			queries.ask()
		}
	})
	done := 0
	for over := queries.began.Add(floodTime); time.Now().Before(over); done++ {
		if code, err := ask("POST", "/v1/tenants", fmt.Sprintf(`{"id":"dns-%d","name":"x"}`, done)); err != nil || code != http.StatusCreated {
			t.Errorf("write %d: %d, %v", done, code, err)
			break
		}
		if err := errors.Join(c.ready(1), askSOA("tcp", c.dns(1), 7)); err != nil {
			t.Errorf("/ready, or a query over TCP: %v", err)
			break
		}
	}
	sent := end()
	asking.Store(false)
	askers.Wait()
	before, unseen := queries.sum(), c.overflowed(1)
	// From here on nobody else asks: a query is answered, or the kernel says that it
	// dropped it.
	for over := time.Now().Add(scriptWait); ; time.Sleep(askEvery) {
		after, dropped := queries.sum().minus(before), c.overflowed(1)-unseen
		if after.answered >= askAfter && after.answered+dropped >= after.asked {
			break
		}
		if time.Now().After(over) {
			t.Errorf("%d queries after the flood, %d answered, %d dropped by the kernel: %d are unaccounted for\n%s",
				after.asked, after.answered, dropped, after.asked-after.answered-dropped, queries)
			break
		}
		if after.answered < askAfter {
			queries.ask()
		}
	}
	if sent < 10_000 || done == 0 || before.answered == 0 {
		t.Errorf("%d datagrams, %d writes, %d of %d queries answered meanwhile: the flood shows nothing\n%s",
			sent, done, before.answered, before.asked, queries)
	}
	t.Logf("%d writes beside %d datagrams, of which the kernel dropped %d\n%s", done, sent, unseen, queries)
}

// flood sends node 1 datagrams, as fast as it can from a time on, until it is ended; it
// gives their number.
func (c *liveCluster) flood(t *testing.T, full time.Time) (end func() int64) {
	var stop atomic.Bool
	var sent atomic.Int64
	var senders sync.WaitGroup
	query := soaQuery(1)
	for range 4 {
		conn, err := net.Dial("udp", c.dns(1))
		if err != nil {
			t.Fatal(err)
		}
		senders.Go(func() {
			defer conn.Close()
			for n := 1; !stop.Load(); n++ {
				if _, err := conn.Write(query); err == nil {
					sent.Add(1)
				}
				if n%32 == 0 && time.Now().Before(full) { // other packages' tests share the processors
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	return func() int64 {
		stop.Store(true)
		senders.Wait()
		return sent.Load()
	}
}

// overflowed is how many datagrams the kernel dropped before the sockets of node i.
func (c *liveCluster) overflowed(i int) int {
	c.Helper()
	text, err := c.api(i, http.MethodGet, "/metrics", "")
	if err != nil {
		c.Fatal(err)
	}
	const name = "\nauthd_dns_overflowed_total "
	_, value, _ := strings.Cut(text, name)
	value, _, _ = strings.Cut(value, "\n")
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		c.Fatalf("reading%s: %v", name, err)
	}
	return int(n)
}

// tried are queries over UDP, each sent once, from a socket of its own.
type tried struct {
	t     *testing.T
	to    string
	began time.Time
	wg    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	seconds []sums     // by the second in which they were asked
	open    []net.Conn
}

type sums struct{ asked, answered int }

func (s sums) minus(o sums) sums { return sums{s.asked - o.asked, s.answered - o.answered} }

// ask sends a query; its answer is counted whenever it comes.
func (q *tried) ask() {
	conn, err := net.Dial("udp", q.to)
	if err != nil {
		q.t.Error(err)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	second := int(time.Since(q.began) / time.Second)
	for len(q.seconds) <= second {
		q.seconds = append(q.seconds, sums{})
	}
	q.open = append(q.open, conn)
	if _, err := conn.Write(soaQuery(7)); err != nil {
		q.t.Error(err)
		return
	}
	q.seconds[second].asked++
	q.wg.Go(func() {
		reply := make([]byte, 1500)
		n, err := conn.Read(reply)
		if err != nil {
			return // closed by end
		}
		if err := soaReply(reply[:n]); err != nil {
			q.t.Error(err)
			return
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		q.seconds[second].answered++
	})
}

func (q *tried) sum() (all sums) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.seconds {
		all.asked += s.asked
		all.answered += s.answered
	}
	return all
}

// String implements fmt.Stringer.
func (q *tried) String() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	text := "answered of those asked, second by second:"
	for _, s := range q.seconds {
		text += fmt.Sprintf(" %d/%d", s.answered, s.asked)
	}
	return text
}

func (q *tried) end() {
	q.mu.Lock()
	for _, conn := range q.open {
		conn.Close()
	}
	q.mu.Unlock()
	q.wg.Wait()
}
