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
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// clientFlags are the flags of every command that speaks to the API.
type clientFlags struct {
	Addr   string `env:"AUTHD_ADDR" default:"http://127.0.0.1:8301" group:"api" placeholder:"URL" help:"Any node's API, or unix:DATA_DIR/api.sock on its machine, which needs no token; without a scheme over TLS, loopback aside (default ${default})."`
	Token  string `env:"AUTHD_TOKEN" group:"api" help:"API token."`
	CA     string `name:"ca" env:"AUTHD_CA" type:"existingfile" group:"api" placeholder:"FILE" help:"CA certificates that vouch for the node, in PEM (default: the system's)."`
	Wait   bool   `group:"api" help:"After a change, return only once every serving node answers with it."`
	Output string `short:"o" enum:"table,json" default:"table" group:"api" help:"Output: table or json."`
}

// AfterApply gives the command its session.
func (f *clientFlags) AfterApply(a *app, parsed *kong.Context) error {
	s, err := newSession(a, f)
	if err != nil {
		return err
	}
	parsed.Bind(s)
	return nil
}

// session is one command's conversation with the API.
type session struct {
	*app
	*client
	json bool
}

func newSession(a *app, f *clientFlags) (*session, error) {
	c, err := newClient(f.Addr, f.Token, f.CA)
	if err != nil {
		return nil, err
	}
	c.wait = f.Wait
	return &session{app: a, client: c, json: f.Output == "json"}, nil
}

// client speaks to the API of one node. It never retries: what was refused or
// not committed is told.
type client struct {
	base  *url.URL
	token string
	wait  bool // changes return once every serving node answers with them
	http  *http.Client
}

// Bounds of one call. A call may wait for key generation and for every node.
const (
	callTimeout   = 2 * time.Minute
	replyBytes    = 256 << 20
	problemExcept = 300 // octets of a reply shown that is no problem document
)

func newClient(addr, token, caFile string) (*client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 4, Proxy: http.ProxyFromEnvironment}
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		path = strings.TrimPrefix(path, "//")
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		addr, token = "http://localhost", "" // the one in the environment may be the one that was lost
	}
	if !strings.Contains(addr, "://") {
		addr = schemeFor(addr) + "://" + addr
	}
	base, err := url.Parse(addr)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, usagef("--addr: %q is not an address such as http://127.0.0.1:8301", addr)
	}
	if caFile != "" {
		text, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("reading --ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, usagef("--ca: %s holds no certificate", caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &client{base: base, token: token, http: &http.Client{Transport: transport, Timeout: callTimeout}}, nil
}

// schemeFor is how a node is asked whose address names no scheme: plain HTTP is for
// loopback alone, elsewhere the token could be read on its way.
func schemeFor(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); host == "localhost" || err == nil && ip.IsLoopback() {
		return "http"
	}
	return "https"
}

// v1 joins segments to a path under /v1, each escaped.
func v1(segments ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// get, put, post, patch and remove are calls; into may be nil, and put has none.
// They return the reply's body as it came.
func (c *client) get(ctx context.Context, path string, query url.Values, into any) ([]byte, error) {
	return c.call(ctx, http.MethodGet, path, query, nil, into)
}

func (c *client) put(ctx context.Context, path string, body any) ([]byte, error) {
	return c.call(ctx, http.MethodPut, path, nil, body, nil)
}

func (c *client) post(ctx context.Context, path string, query url.Values, body, into any) ([]byte, error) {
	return c.call(ctx, http.MethodPost, path, query, body, into)
}

func (c *client) patch(ctx context.Context, path string, query url.Values, body, into any) ([]byte, error) {
	return c.call(ctx, http.MethodPatch, path, query, body, into)
}

func (c *client) remove(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return c.call(ctx, http.MethodDelete, path, query, nil, nil)
}

// call makes one call with a JSON body (nil: none) and decodes the reply into
// into (nil: not). A refusal is a *problem.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body, into any) ([]byte, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encoding request: %w", err)
		}
	}
	return c.exchange(ctx, method, path, query, "application/json", text, into)
}

// exchange makes one call with a body as it is (empty: none).
func (c *client) exchange(ctx context.Context, method, path string, query url.Values, contentType string, text []byte, into any) ([]byte, error) {
	if c.wait && method != http.MethodGet && !strings.HasPrefix(path, "/v1/cluster") { // membership waits for nobody
		query = maps.Clone(query)
		if query == nil {
			query = url.Values{}
		}
		query.Set("wait", "served")
	}
	reply, err := c.send(ctx, method, path, query, contentType, bytes.NewReader(text), len(text) > 0)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	content, err := io.ReadAll(io.LimitReader(reply.Body, replyBytes))
	if err != nil {
		return nil, fmt.Errorf("reading reply of %s %s: %w", method, path, err)
	}
	if into != nil && len(content) > 0 {
		if err := json.Unmarshal(content, into); err != nil {
			return nil, fmt.Errorf("reading reply of %s %s: %w", method, path, err)
		}
	}
	return content, nil
}

// send makes one call and returns a reply of status 2xx, whose body the caller
// closes, or an error.
func (c *client) send(ctx context.Context, method, path string, query url.Values, contentType string, body io.Reader, hasBody bool) (*http.Response, error) {
	if !hasBody {
		body = nil
	}
	u := *c.base
	target := strings.TrimSuffix(u.EscapedPath(), "/") + path
	unescaped, err := url.PathUnescape(target)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	u.Path, u.RawPath = unescaped, target
	u.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	if hasBody {
		request.Header.Set("Content-Type", contentType)
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	request.Header.Set("User-Agent", "authd-cli")
	reply, err := c.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", c.base.Host, rootCause(err))
	}
	if reply.StatusCode/100 == 2 {
		return reply, nil
	}
	defer reply.Body.Close()
	return nil, readProblem(reply)
}

// rootCause drops the method and URL that net/http puts in front.
func rootCause(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// problem is a refusal: application/problem+json (RFC 9457).
type problem struct {
	Status  int    `json:"status"`
	Title   string `json:"title"`
	Detail  string `json:"detail"`
	Code    string `json:"code"`
	Field   string `json:"field"`
	ReadyAt string `json:"ready_at"`
	// Conflicts are the tokens of the claims in the way.
	Conflicts []string `json:"conflicts"`
	Errors    []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

func readProblem(reply *http.Response) error {
	const problemBytes = 1 << 20
	text, err := io.ReadAll(io.LimitReader(reply.Body, problemBytes))
	if err != nil {
		return fmt.Errorf("reading refusal (%s): %w", reply.Status, err)
	}
	p := &problem{}
	var vault struct { // signing keys are refused as HashiCorp Vault does
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(text, &vault) == nil && vault.Errors != nil {
		p = &problem{Title: http.StatusText(reply.StatusCode), Detail: strings.Join(vault.Errors, "; ")}
	} else if err := json.Unmarshal(text, p); err != nil || p.Title+p.Detail == "" {
		excerpt := strings.TrimSpace(string(text[:min(len(text), problemExcept)]))
		p = &problem{Title: http.StatusText(reply.StatusCode), Detail: excerpt}
	}
	p.Status = reply.StatusCode
	return p
}

// Error is the refusal in one line, and one more for everything that helps.
func (p *problem) Error() string {
	var b strings.Builder
	text := p.Detail
	if text == "" {
		text = p.Title
	}
	fmt.Fprintf(&b, "%s (%d", text, p.Status)
	if p.Title != "" && p.Title != text {
		b.WriteString(" " + p.Title)
	}
	b.WriteString(")")
	if len(p.Errors) > 0 {
		for _, e := range p.Errors {
			fmt.Fprintf(&b, "\n  field %s: %s", e.Field, e.Detail)
		}
	} else if p.Field != "" {
		fmt.Fprintf(&b, "\n  field: %s", p.Field)
	}
	if len(p.Conflicts) > 0 {
		fmt.Fprintf(&b, "\n  claims in the way: %s", strings.Join(p.Conflicts, " "))
	}
	if p.ReadyAt != "" {
		fmt.Fprintf(&b, "\n  possible from: %s", p.ReadyAt)
	}
	return b.String()
}

// refusedWith says whether err is a refusal of that status.
func refusedWith(err error, status int) bool {
	p, ok := errors.AsType[*problem](err)
	return ok && p.Status == status
}

func hasCode(err error, code string) bool {
	p, ok := errors.AsType[*problem](err)
	return ok && p.Code == code
}

// remedy says what to do about an error, where the error does not.
func remedy(err error) string {
	switch {
	case refusedWith(err, http.StatusUnauthorized):
		return "give it with --token or AUTHD_TOKEN; authd dev writes both address and token to a file: . authd-dev/env\n" +
			"  lost? as root on a node none is needed: --addr unix:/var/lib/authd/api.sock (its data_dir)"
	case refusedWith(err, http.StatusForbidden):
		return "this token's scope does not reach that far: use one with scope admin, or ask its holder"
	case refusedWith(err, http.StatusBadRequest) && strings.Contains(err.Error(), "HTTP request to an HTTPS server"):
		return "ask it over TLS: --addr https://…"
	case hasCode(err, "no_leader"):
		return "which nodes are there, and who leads: authd operator raft list-peers"
	case errors.Is(err, syscall.EACCES):
		return "the local socket is for the user that the node runs as, and root"
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT) && strings.Contains(err.Error(), "unix"):
		return "is a node running there? Give another with --addr or AUTHD_ADDR"
	}
	if host, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate does not name " + host.Host + ": ask it by a name or address that it does; a node that moved gets another with a join token (operator raft add-peer, operator join)"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "give the CA that vouches for the node with --ca or AUTHD_CA"
	}
	return ""
}
