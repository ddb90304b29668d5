package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	t.Run("DNS is flooded", func(t *testing.T) {
		query := []byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05p-dns\x04test\x00\x00\x06\x00\x01")
		var stop atomic.Bool
		var sent atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			conn, err := net.Dial("udp", c.dns(1))
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				defer conn.Close()
				for n := 1; !stop.Load(); n++ {
					if _, err := conn.Write(query); err == nil {
						sent.Add(1)
					}
					if n%32 == 0 { // other packages' tests share the processors
						time.Sleep(time.Millisecond)
					}
				}
			})
		}
		done := 0
		for over := time.Now().Add(floodTime); time.Now().Before(over); done++ {
			if code, err := ask("POST", "/v1/tenants", fmt.Sprintf(`{"id":"dns-%d","name":"x"}`, done)); err != nil || code != http.StatusCreated {
				t.Errorf("write %d: %d, %v", done, code, err)
				break
			}
			if err := c.ready(1); err != nil {
				t.Errorf("/ready: %v", err)
				break
			}
		}
		stop.Store(true)
		wg.Wait()
		if sent.Load() < 10_000 || done == 0 {
			t.Errorf("%d datagrams, %d writes: the flood shows nothing", sent.Load(), done)
		}
		t.Logf("%d writes beside %d datagrams", done, sent.Load())
		c.until("answers after the flood", func() error { return askSOA("udp", c.dns(1), 7) })
	})
}
