package api

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"authd/cluster"
	"authd/cluster/state"
	"authd/keys"
	"authd/zone"
	"authd/zone/probe"
)

// Replica is what the API needs of a *cluster.Node; see there for the contracts.
type Replica interface {
	Machine() state.Machine
	Propose(ctx context.Context, who cluster.Actor, commands ...state.Command) ([]state.Result, uint64, error)
	WaitApplied(ctx context.Context, index uint64) error
	WaitServed(ctx context.Context, index uint64, questions ...zone.Question) error
	Members(ctx context.Context) []cluster.Status
	Leader() string
	Health() []string
	Checks() []cluster.Check
	Figures() cluster.Figures

	ClaimKeys(ctx context.Context, t state.Token, mode keys.RingMode, algorithms []keys.Algorithm) (active, standby []keys.Material, err error)
	Materials(ctx context.Context, t state.Token, algorithms []keys.Algorithm) ([]keys.Material, error)
	KeyPace(ctx context.Context) (ready int, pace time.Duration)
	Import(t state.Token, id uint32, selector string, p *keys.Pair) (keys.Material, error)
	OpenKey(d *state.Domain, k keys.Key) (*keys.Pair, error)
	Release(r cluster.KeyRead) error
	NewToken() (state.Token, error)
	Waiting(ctx context.Context, t state.Token) []cluster.BarrierWait
	BarrierWaits() []cluster.BarrierWait
	ProofCheck(ctx context.Context, t state.Token) (cluster.ProofCheck, bool)
	HandedOut(t state.Token, key uint32, signer string)
	KeyUse(ctx context.Context, t state.Token, ids ...uint32) map[uint32]cluster.KeyUse
	// FleetSigners says who signs with keys that a rotation replaces, as known of
	// late; false while that is not known.
	FleetSigners(ctx context.Context, id state.Token) (cluster.FleetSigners, bool)

	Invite(ctx context.Context, who cluster.Actor, m cluster.Member, life time.Duration) (cluster.JoinToken, time.Time, error)
	SetAuthority(ctx context.Context, who cluster.Actor, certificate, key []byte) error
	CertificateExpiry() time.Time
	AddPeer(ctx context.Context, m cluster.Member) error
	RemovePeer(ctx context.Context, id string) error
	TransferLeader(ctx context.Context, id string) error
	SaveSnapshot(ctx context.Context, w io.Writer) (index uint64, err error)
	RestoreSnapshot(ctx context.Context, who cluster.Actor, r io.Reader, withoutKeys bool) (index uint64, err error)
	CheckState(ctx context.Context) (cluster.CheckReport, error)
}

var _ Replica = (*cluster.Node)(nil)

// Prober asks customers' own servers: *probe.Prober.
type Prober interface {
	Ask(ctx context.Context, domain zone.Name) (probe.Delegation, error)
	Look(ctx context.Context, within zone.Name, questions []probe.Question) (probe.Sight, error)
	CNAMEs(ctx context.Context, names []zone.Name) (leads [][]zone.Name, servers []string, err error)
}

// Config is what New needs.
type Config struct {
	// Replica is this node. Required.
	Replica Replica
	// Prober asks customers' DNS for verify. nil: verify answers 501.
	Prober Prober
	// Logger takes our own faults; requests are counted, not logged. Required.
	Logger *slog.Logger
	// NodeID and Version are shown by /health and in the metrics.
	NodeID, Version string
	// DNSStats reads the counters of the DNS server for /metrics; nil: none.
	DNSStats func() zone.Stats
	// Census counts a domain's queries where somebody asks for it; nil: it answers 501.
	Census *zone.Census
	// Ready says what is not ready yet, for /ready; nil: always ready.
	Ready func() []string
	// Dev lets the verification of delegations be switched off. Only authd dev
	// chooses it.
	Dev bool
	// Processors is how many the process may use; 0: GOMAXPROCS.
	Processors int
	// Now is the clock for the expiry of tokens; nil: time.Now.
	Now func() time.Time
	// Random is the entropy of access tokens; nil: crypto/rand.
	Random io.Reader
	// ConfirmWait is how long a manual rotation waits for the nodes to confirm a
	// standby published just now; 0 means 3 s.
	ConfirmWait time.Duration
	// BodyTime is how long a body may take that is not an import or a snapshot; 0
	// means 15 s, as for reading any request.
	BodyTime time.Duration
	// Heartbeat is how often a change stream without changes sends a sign of life; 0
	// means 15 s.
	Heartbeat time.Duration
}

// Bounds of a request. The header's size is bounded by the server (Listen).
const (
	MaxBody       = 1 << 20  // octets
	maxImportBody = 64 << 20 // POST /v1/import
	maxSnapshot   = 16 << 30 // POST /v1/cluster/snapshot; streamed, never in memory
	maxURI        = 8 << 10
)

// Times a request may take. They lie below the server's write timeout, so that
// a client gets an answer and not a closed connection.
const (
	keyTime     = 8 * time.Second  // until keys are there, before the proposal
	proposeTime = 8 * time.Second  //
	waitTime    = 12 * time.Second // ?wait=served, after the proposal
	checkTime   = 12 * time.Second // of a comparison of all nodes
	confirmTime = 3 * time.Second  // of a manual rotation, in the place of keyTime
	probeTime   = 8 * time.Second  // of a verification, in the place of keyTime
	bulkTime    = 10 * time.Minute // import and snapshots, which extend the timeout
)

// Handler serves the API. It is safe for concurrent use.
type Handler struct {
	replica Replica
	prober  Prober
	logger  *slog.Logger
	config  Config

	mux     *http.ServeMux
	api     huma.API
	routes  map[string]route // by pattern of mux
	spec    []byte           // openapi.json
	metrics *metrics
	streams *streams
	rooms   *admission
	strict  strict        // of the bodies
	turns   chan struct{} // of large bodies that are decoded
	// certificate is what the API shows; nil: nothing, or the node's own.
	certificate atomic.Pointer[certificate]
}

// route is what ServeHTTP must know of a route before it is entered.
type route struct {
	need    access
	limit   int64  // octets of the body
	bulk    bool   // may take bulkTime
	ifMatch bool   // If-Match is honoured
	media   string // of the body, where it is not JSON
}

// New makes the handler.
func New(c Config) (*Handler, error) {
	if c.Replica == nil {
		return nil, errors.New("making the API: no replica")
	}
	if c.Logger == nil {
		return nil, errors.New("making the API: no logger")
	}
	if c.Processors == 0 {
		c.Processors = runtime.GOMAXPROCS(0)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.ConfirmWait == 0 {
		c.ConfirmWait = confirmTime
	}
	if c.BodyTime == 0 {
		c.BodyTime = defaultLimits().Read
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = heartbeat
	}
	h := &Handler{
		replica: c.Replica, prober: c.Prober, logger: c.Logger, config: c,
		mux: http.NewServeMux(), routes: map[string]route{}, streams: newStreams(), rooms: newAdmission(),
		turns: make(chan struct{}, c.Processors),
	}
	h.metrics = newMetrics(h)
	h.api = humago.New(h.mux, h.describe())
	h.register()
	spec, err := h.marshalSpec()
	if err != nil {
		return nil, fmt.Errorf("describing the API: %w", err)
	}
	h.spec = spec
	return h, nil
}

// register adds every route. A huma operation panics on a mistake of ours in
// its types, which the first test shows.
func (h *Handler) register() {
	h.registerHealth()
	h.registerMembers()
	h.registerServing()
	h.registerZones()
	h.registerPools()
	h.registerTenants()
	h.registerDomains()
	h.registerRecords()
	h.registerZoneText()
	h.registerKeys()
	h.registerRotations()
	h.registerDKIM()
	h.registerImport()
	h.registerTokens()
	h.registerAudit()
	h.registerEvents()
	h.registerTimeline()
	h.registerQueries()
	h.registerWrap()
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	m := h.replica.Machine()
	out := &reply{ResponseWriter: w}
	head := out.Header()
	head.Set("X-Authd-Index", strconv.FormatUint(m.Index(), 10))
	head.Set("Cache-Control", "no-store")
	head.Set("X-Content-Type-Options", "nosniff")
	if r.ContentLength != 0 && r.ProtoMajor == 1 {
		// Before it replies the server reads the rest of a body, and would wait for a
		// client that does not send it.
		head.Set("Connection", "close")
	}
	pattern := "none"
	defer func() {
		if fault := recover(); fault != nil {
			h.recovered(out, r, fault)
		}
		h.metrics.request(pattern, out.status, time.Since(began))
	}()
	if p := vet(r); p != nil {
		p.write(out)
		return
	}
	path, asked := *r.URL, *r // copies, since what follows changes them
	asked.URL = &path
	r = &asked
	if !clean(r.URL) {
		notFound("", "there is nothing at this path").write(out)
		return
	}
	vaultList(r)
	req := &request{machine: m, writer: out}
	if strings.HasPrefix(r.URL.Path, "/v1/") || r.URL.Path == "/v1" {
		who, p := identify(m, r, h.config.Now())
		if p != nil {
			p.writeFor(r.URL.Path, out)
			return
		}
		req.who = who
		head.Del("Connection")
		vouch(r)
	}
	_, found := h.mux.Handler(r)
	if found == "" {
		h.noRoute(out, r)
		return
	}
	pattern = found
	if p := h.enter(out, r, h.routes[found], req.who); p != nil {
		p.writeFor(r.URL.Path, out)
		return
	}
	leave, p := h.admit(r, h.routes[found], req.who)
	if p != nil {
		p.writeFor(r.URL.Path, out)
		return
	}
	defer leave()
	if p := h.once(out, r, found, h.routes[found], req); p != nil {
		p.write(out)
		return
	}
	h.mux.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), requestKey{}, req)))
}

// vet refuses what no route accepts.
func vet(r *http.Request) *Problem {
	if len(r.RequestURI) > maxURI {
		return problem(http.StatusRequestURITooLong, codeTooLarge, "", "the URI is longer than %d octets", maxURI)
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return problem(http.StatusUnsupportedMediaType, codeMediaType, "Content-Encoding",
			"a compressed body is not taken; send it without Content-Encoding")
	}
	return nil
}

// clean collapses repeated slashes in place, because a signer's own example
// configuration produces such paths and does not follow redirects. It refuses
// dot segments, for which ServeMux would answer with a redirect.
func clean(u *url.URL) bool {
	if u.RawPath == "" && usual(u.Path) {
		return true
	}
	escaped := u.EscapedPath()
	if !strings.HasPrefix(escaped, "/") {
		return false
	}
	segments := strings.Split(escaped, "/")
	kept := make([]string, 0, len(segments))
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "." || plain == ".." {
			return false
		}
		if s != "" || i == 0 || i == len(segments)-1 && len(kept) > 1 {
			kept = append(kept, s)
		}
	}
	escaped = strings.Join(kept, "/")
	if escaped == "" {
		escaped = "/"
	}
	plain, err := url.PathUnescape(escaped)
	if err != nil {
		return false
	}
	u.Path, u.RawPath = plain, escaped
	return true
}

// usual says whether a path is one that clean leaves as it is, without escapes.
func usual(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '.', c == '/':
			if i > 0 && path[i-1] == '/' {
				return false
			}
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// enter checks what depends on the route: scope, conditions, size of the body.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request, to route, who identity) *Problem {
	if !to.need.allows(who) {
		return forbidden("", "the token's scope %q does not allow %s", who.scope, r.Method+" "+bounded(r.URL.Path))
	}
	if r.Header.Get("If-Match") != "" && !to.ifMatch {
		return notYet("If-Match", "If-Match is honoured on PATCH /v1/domains/{domain} alone; send this request without it")
	}
	if r.ContentLength > to.limit {
		return problem(http.StatusRequestEntityTooLarge, codeTooLarge, "",
			"the body has %d octets; at most %d are taken", r.ContentLength, to.limit).with("Connection", "close")
	}
	if given := r.Header.Get("Content-Type"); given != "" && r.ContentLength != 0 && !to.takes(given) {
		want := "JSON and say so: Content-Type: application/json"
		if to.media != "" {
			want = "Content-Type: " + to.media
		}
		return problem(http.StatusUnsupportedMediaType, codeMediaType, "Content-Type",
			"a body of type %q is not taken; send %s", bounded(given), want)
	}
	if to.bulk {
		until := time.Now().Add(bulkTime)
		c := http.NewResponseController(w)
		// Not every writer (a test's) has deadlines to extend.
		_, _ = c.SetReadDeadline(until), c.SetWriteDeadline(until)
	}
	return nil
}

// admit finds a request its place among those under way. A route that asks for no token
// needs no place: it must say how the node is also in a flood.
func (h *Handler) admit(r *http.Request, to route, who identity) (leave func(), p *Problem) {
	if to.need&anyone != 0 {
		return func() {}, nil
	}
	octets := r.ContentLength
	if octets < 0 {
		octets = to.limit
	}
	if to.limit > maxBodies {
		octets = 0 // streamed, never in memory
	}
	leave, full := h.rooms.enter(who.payer(), octets)
	if full == "" {
		return leave, nil
	}
	h.Refused(full)
	return nil, problem(http.StatusTooManyRequests, codeBusy, "",
		"too much of this token's, or its tenant's, is under way at once: nothing was changed; let some requests end, then go on").with("Retry-After", "1")
}

// Refused counts what was turned away, for a reason of the metric.
func (h *Handler) Refused(reason string) { h.metrics.refused.WithLabelValues(reason).Inc() }

// takes says whether a route takes a body of a media type. Images of the machine
// come as anything.
func (to route) takes(contentType string) bool {
	switch to.media {
	case "":
		return isJSON(contentType)
	case textZone:
		kind, _, err := mime.ParseMediaType(contentType)
		return err == nil && (kind == textZone || kind == "text/plain")
	}
	return true
}

// isJSON says whether a media type is JSON (RFC 6839 section 3.1).
func isJSON(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}

// noRoute tells an unknown path from a method that a known path does not have.
func (h *Handler) noRoute(w http.ResponseWriter, r *http.Request) {
	asked := &answerOnly{header: http.Header{}}
	h.mux.ServeHTTP(asked, r)
	if asked.status == http.StatusMethodNotAllowed {
		problem(http.StatusMethodNotAllowed, codeMethod, "", "%s is not a method of this path", bounded(r.Method)).
			with("Allow", asked.header.Get("Allow")).writeFor(r.URL.Path, w)
		return
	}
	notFound("", "there is nothing at this path").writeFor(r.URL.Path, w)
}

// answerOnly keeps the status and header of a reply and drops its body.
type answerOnly struct {
	header http.Header
	status int
}

func (a *answerOnly) Header() http.Header         { return a.header }
func (a *answerOnly) WriteHeader(status int)      { a.status = status }
func (a *answerOnly) Write(b []byte) (int, error) { return len(b), nil }

// recovered answers after a panic of a handler: a defect of ours.
func (h *Handler) recovered(w *reply, r *http.Request, fault any) {
	if err, ok := fault.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(fault)
	}
	h.logger.Error("a request hit a defect", "method", r.Method, "path", r.URL.Path, "fault", fault, "stack", string(debug.Stack()))
	if w.status != 0 {
		panic(http.ErrAbortHandler) // the reply has begun: cut it rather than end it as if it were whole
	}
	internal().write(w)
}

func internal() *Problem {
	return problem(http.StatusInternalServerError, codeInternal, "", "a defect of ours; the node's log says more")
}
