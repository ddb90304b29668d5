package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	authdDNS = 5520 // node i listens on authdDNS + i
	authdAPI = 8520
)

// client asks an HTTP API over connections that are kept, one for each request under
// way. It has no more parts than that: it shares the processors with what it measures.
type client struct {
	host   string
	header string // of every request
	free   chan *connection
}

// connection is one that is kept.
type connection struct {
	net.Conn
	read *bufio.Reader
	send []byte
}

func newClient(base string, clients int, header http.Header) *client {
	c := &client{host: strings.TrimPrefix(base, "http://"), free: make(chan *connection, clients)}
	lines := []string{"Host: " + c.host, "Content-Type: application/json"}
	for name := range header {
		lines = append(lines, name+": "+header.Get(name))
	}
	c.header = strings.Join(lines, "\r\n")
	return c
}

func (c *client) connection() (*connection, error) {
	select {
	case kept := <-c.free:
		return kept, nil
	default:
	}
	conn, err := net.Dial("tcp", c.host)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn, read: bufio.NewReader(conn)}, nil
}

// keep takes a connection back, where there is room for it.
func (c *client) keep(conn *connection) bool {
	select {
	case c.free <- conn:
		return true
	default:
		return false
	}
}

func (c *client) call(method, path string, body any, reply any) error {
	var send []byte
	if body != nil {
		var err error
		if send, err = json.Marshal(body); err != nil {
			return err
		}
	}
	conn, err := c.connection()
	if err != nil {
		return err
	}
	r, data, err := conn.ask(method, path, c.header, send)
	if err != nil {
		conn.Close()
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if r.Close || !c.keep(conn) {
		conn.Close()
	}
	if r.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s", method, path, r.Status, data[:min(len(data), 300)])
	}
	if reply != nil {
		return json.Unmarshal(data, reply)
	}
	return nil
}

// ask is one request and its reply.
func (c *connection) ask(method, path, header string, body []byte) (r *http.Response, data []byte, err error) {
	c.send = fmt.Appendf(c.send[:0], "%s %s HTTP/1.1\r\n%s\r\nContent-Length: %d\r\n\r\n", method, path, header, len(body))
	c.send = append(c.send, body...)
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, nil, err
	}
	if _, err := c.Write(c.send); err != nil {
		return nil, nil, err
	}
	if r, err = http.ReadResponse(c.read, nil); err != nil {
		return nil, nil, err
	}
	defer r.Body.Close()
	data, err = io.ReadAll(r.Body)
	return r, data, err
}

// authd measures a cluster of three nodes.
func (b *bench) authd() error {
	dir := filepath.Join(b.dir, "authd")
	p, err := b.dev(dir)
	if err == nil && b.domains > 0 {
		p.stop()
		if err = b.populate(dir); err == nil {
			p, err = b.dev(dir)
		}
	}
	if err != nil {
		return err
	}
	defer p.stop()
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		return err
	}
	header := http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))}}
	node := newClient(fmt.Sprintf("http://127.0.0.1:%d", authdAPI+1), 1, header)
	var cluster struct {
		Leader string `json:"leader"`
	}
	if err := node.call("GET", "/v1/cluster", nil, &cluster); err != nil {
		return err
	}
	leader := fmt.Sprintf("http://127.0.0.1:%d", authdAPI+int(cluster.Leader[len(cluster.Leader)-1]-'0'))
	c := newClient(leader, 64, header)
	if err := prepare(c); err != nil {
		return err
	}
	if err := b.imported(leader, strings.TrimSpace(string(token))); err != nil {
		return err
	}
	for _, clients := range []int{1, 8, 64} {
		if err := b.drive("authd record", clients, func(_ int, n uint64) error { return putRecord(c, b.imports, n, fmt.Sprint(n)) }); err != nil {
			return err
		}
	}
	if err := b.drive("authd domain", 64, func(_ int, n uint64) error {
		return c.call("POST", "/v1/tenants/acme/domains", map[string]any{
			"domain": fmt.Sprintf("send.added%d.example", n), "mode": "delegated", "pool": "default"}, nil)
	}); err != nil {
		return err
	}
	return b.visible(c)
}

// dev starts three nodes and waits until they are ready.
func (b *bench) dev(dir string) (*process, error) {
	log := filepath.Join(b.dir, "authd.log")
	p, err := start(log, b.binary, "dev", "--empty", "--data", dir, "--dns-port", fmt.Sprint(authdDNS+1), "--api-port", fmt.Sprint(authdAPI+1))
	if err != nil {
		return nil, err
	}
	err = until("authd dev says ready", 5*time.Minute, func() error {
		text, _ := os.ReadFile(log)
		if !strings.Contains(string(text), "\nready\n") {
			return fmt.Errorf("%s", text)
		}
		return nil
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// populate gives the nodes that were stopped the domains that are there from the start.
func (b *bench) populate(dir string) error {
	fleet, err := b.folder("fleet")
	if err != nil {
		return err
	}
	out, err := exec.Command(b.data, "-bare", "-dir", fleet, "-cluster", dir,
		"-n", fmt.Sprint(b.domains*7/10), "-m", fmt.Sprint(b.domains-b.domains*7/10)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("making %d domains: %w: %s", b.domains, err, out)
	}
	return nil
}

func prepare(c *client) error {
	for _, step := range []struct {
		method, path, body string
	}{
		{"PUT", "/v1/pools/default", `{"spf":["ip4:192.0.2.0/24"],"spf_all":"~all","mx":[{"preference":10,"host":"mx1.p-dns.test."}],` +
			`"click":{"a":["192.0.2.80"]},"dkim":{"algorithms":["rsa2048"],"period":"2160h"}}`},
		{"POST", "/v1/tenants", `{"id":"acme","name":"Acme"}`},
	} {
		if err := c.call(step.method, step.path, json.RawMessage(step.body), nil); err != nil {
			return err
		}
	}
	return nil
}

// imported imports customers with the command line, as an operator would.
func (b *bench) imported(addr, token string) error {
	file := filepath.Join(b.dir, "customers.csv")
	var text strings.Builder
	text.WriteString("tenant,domain,mode,pool\n")
	for i := range b.imports {
		fmt.Fprintf(&text, "acme,send.customer%d.example,delegated,default\n", i)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		return err
	}
	spent, began := processors(), time.Now()
	out, err := exec.Command(b.binary, "domain", "import", file, "--addr", addr, "--token", token).CombinedOutput()
	if err != nil {
		return fmt.Errorf("import: %w: %s", err, out)
	}
	elapsed := time.Since(began)
	rate := float64(b.imports) / elapsed.Seconds()
	b.rates["authd import"] = rate
	fmt.Printf("| authd import of %d, checked first | 1 | %.0f | | | %.0f | 0 |\n", b.imports, rate, each(processors()-spent, b.imports))
	return nil
}

// putRecord sets a TXT record as long as a DKIM key.
func putRecord(c *client, domains int, n uint64, mark string) error {
	domain := fmt.Sprintf("send.customer%d.example", n*7919%uint64(domains))
	value := fmt.Sprintf("%q %q", strings.Repeat("k", 255), strings.Repeat("k", 139)+"."+mark)
	return c.call("PUT", "/v1/domains/"+domain+"/records/note/TXT", map[string]any{"ttl": 300, "values": []string{value}}, nil)
}

// visible changes records at a tenth of the rate that 64 clients reached, and asks
// all three nodes until each has the new one.
func (b *bench) visible(c *client) error {
	rate := b.rates["authd record, 64"] / 10
	var (
		mu     sync.Mutex
		took   []time.Duration
		failed []error
		wg     sync.WaitGroup
	)
	spent, began := processors(), time.Now()
	pace := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer pace.Stop()
	count := uint64(0)
	for ; time.Since(began) < b.seconds; count++ {
		<-pace.C
		n, mark := count, fmt.Sprintf("%x", rand.Uint64())
		wg.Go(func() {
			at := time.Now()
			err := putRecord(c, b.imports, n, mark)
			for node := 1; err == nil && node <= 3; node++ {
				err = shows(authdDNS+node, fmt.Sprintf("note.send.customer%d.example.", n*7919%uint64(b.imports)), mark)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
				return
			}
			took = append(took, time.Since(at))
		})
	}
	wg.Wait()
	if len(took) == 0 {
		return fmt.Errorf("nothing was visible: %v", failed)
	}
	b.row("authd record, visible on all three nodes", 0, float64(count)/time.Since(began).Seconds(), processors()-spent, took, failed)
	return nil
}

// shows asks a node until its TXT answer has the mark.
func shows(port int, name, mark string) error {
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeTXT)
	q.SetEdns0(1232, false)
	conn, err := dns.Dial("udp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		_ = conn.SetDeadline(time.Now().Add(time.Second))
		if err := conn.WriteMsg(q); err != nil {
			return err
		}
		r, err := conn.ReadMsg()
		if err != nil {
			continue
		}
		for _, rr := range r.Answer {
			if strings.Contains(rr.String(), mark) {
				return nil
			}
		}
		time.Sleep(200 * time.Microsecond)
	}
	return fmt.Errorf("%s: %s is not visible", name, mark)
}
