package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// nodeCount is the size of the cluster.
const nodeCount = 3

// Bounds of waiting. They are long because the machine may be busy with other
// work; what is measured is measured, not bounded, by them.
const (
	startLimit   = 60 * time.Second
	recoverLimit = 60 * time.Second
	requestLimit = 9 * time.Second       // a node takes at most 8 s to decide a write
	servedLimit  = 21 * time.Second      // and 12 s more to hear from all
	glance       = 20 * time.Millisecond // between two looks
)

// world is a cluster of real processes, each in a network of its own.
type world struct {
	dir    string
	binary string
	token  string
	env    []string // of the nodes, beside our own
	nodes  [nodeCount]*node
	client [nodeCount]*http.Client
}

// newWorld prepares a cluster as an operator would, and starts it. now is the clock
// by which its certificates are judged, nil: ours; env what the nodes are told.
func newWorld(ctx context.Context, dir, binary string, plain bool, now func() time.Time, env ...string) (*world, error) {
	w := &world{dir: dir, binary: binary, env: env}
	args := []string{"operator", "init", filepath.Join(dir, "cluster"), "--dns", "0.0.0.0:53"}
	for i := 1; i <= nodeCount; i++ {
		args = append(args, "--node", fmt.Sprintf("node-%d=%s:7301", i, address(i)))
	}
	if err := run(binary, args...); err != nil {
		return nil, err
	}
	token, err := os.ReadFile(filepath.Join(dir, "cluster", "admin.token"))
	if err != nil {
		return nil, err
	}
	w.token = strings.TrimSpace(string(token))
	ca, err := os.ReadFile(filepath.Join(dir, "cluster", "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for i := range w.nodes {
		n := &node{i: i + 1, w: w}
		w.nodes[i] = n
		if n.disk, err = newDisk(filepath.Join(dir, "disk-"+fmt.Sprint(i+1)), plain); err != nil {
			return nil, err
		}
		if err := n.configure(); err != nil {
			return nil, err
		}
		w.client[i] = &http.Client{Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13, Time: now},
			DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64,
		}}
	}
	for _, n := range w.nodes {
		if err := n.start(); err != nil {
			return nil, err
		}
	}
	return w, w.whole(ctx, startLimit)
}

// close ends all that the world started.
func (w *world) close() error {
	var errs []error
	for _, n := range w.nodes {
		if n == nil || n.disk == nil {
			continue
		}
		errs = append(errs, n.disk.thaw(), n.signal(syscall.SIGCONT), n.kill(), n.disk.remove())
	}
	return errors.Join(errs...)
}

// response is what a node said.
type response struct {
	status int
	body   []byte
}

// request makes one request to a node.
func (w *world) request(ctx context.Context, n *node, method, path string, body any, header map[string]string) (*response, error) {
	var content io.Reader
	if body != nil {
		text, ok := body.([]byte)
		if !ok {
			var err error
			if text, err = json.Marshal(body); err != nil {
				return nil, err
			}
		}
		content = bytes.NewReader(text)
	}
	limit := requestLimit
	if strings.Contains(path, "wait=served") {
		limit = servedLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, n.url()+path, content)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+w.token)
	if _, raw := body.([]byte); raw {
		r.Header.Set("Content-Type", "application/octet-stream")
	} else if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	got, err := w.client[n.i-1].Do(r)
	if err != nil {
		return nil, err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		return nil, err
	}
	return &response{got.StatusCode, text}, nil
}

// must makes a request that has to succeed, again while the cluster cannot.
func (w *world) must(ctx context.Context, n *node, method, path string, body, into any) error {
	return until(ctx, recoverLimit, fmt.Sprintf("%s %s", method, path), func() error {
		r, err := w.request(ctx, n, method, path, body, nil)
		if err != nil {
			return err
		}
		if r.status/100 != 2 {
			return fmt.Errorf("%d: %s", r.status, bytes.TrimSpace(r.body))
		}
		if into != nil {
			return json.Unmarshal(r.body, into)
		}
		return nil
	})
}

// errUseless tells until that waiting longer is of no use.
var errUseless = errors.New("no use waiting")

// until tries until there is no error.
func until(ctx context.Context, limit time.Duration, what string, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if errors.Is(err, errUseless) || time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(glance):
		}
	}
}

// leader is who leads, as the nodes that run see it.
func (w *world) leader(ctx context.Context) (leader *node, err error) {
	err = until(ctx, recoverLimit, "a leader", func() error {
		for _, n := range w.nodes {
			if !n.running() {
				continue
			}
			v, err := n.view(ctx)
			if err != nil {
				continue
			}
			for _, l := range w.nodes {
				if l.id() == v.Leader && l.running() {
					leader = l
					return nil
				}
			}
		}
		return errors.New("no node names one")
	})
	return leader, err
}

// whole waits until every node runs, answers, and is as far as the others.
func (w *world) whole(ctx context.Context, limit time.Duration) error {
	return until(ctx, limit, "the cluster whole", func() error {
		var high uint64
		var low uint64 = 1<<64 - 1
		leader := ""
		for _, n := range w.nodes {
			if !n.running() {
				return fmt.Errorf("%s has ended: see %s", n.id(), n.log())
			}
			if err := n.ready(ctx); err != nil {
				return err
			}
			v, err := n.view(ctx)
			if err != nil {
				return err
			}
			if v.Leader == "" || leader != "" && v.Leader != leader {
				return fmt.Errorf("%s takes %q for the leader, another %q", n.id(), v.Leader, leader)
			}
			leader = v.Leader
			if len(v.Nodes) != nodeCount {
				return fmt.Errorf("%s knows %d nodes", n.id(), len(v.Nodes))
			}
			for _, m := range v.Nodes {
				if !m.Serving || !m.Healthy {
					return fmt.Errorf("%s says that %s does not serve, or is not healthy", n.id(), m.ID)
				}
				low, high = min(low, m.Applied), max(high, m.Applied)
			}
		}
		// With load they are never equal; behind by a second's worth is caught up.
		if high-low > 500 {
			return fmt.Errorf("applied from %d to %d", low, high)
		}
		return nil
	})
}

// others are all nodes but one.
func (w *world) others(n *node) (others []*node) {
	for _, o := range w.nodes {
		if o != n {
			others = append(others, o)
		}
	}
	return others
}
