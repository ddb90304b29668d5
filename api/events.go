package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// Bounds of change streams.
const (
	maxStreams      = 64 // at once
	maxTokenStreams = 8  // of them with one token
	// heartbeat is how often a stream without changes sends a sign of life.
	heartbeat = 15 * time.Second
	// streamWrite is how long a client may take to read what is written.
	streamWrite = 30 * time.Second
	// behindTime is how long a stream waits for a node that has not applied yet
	// what the client has seen on another.
	behindTime = 5 * time.Second
	// streamBatch is how many changes are written between flushes.
	streamBatch = 256
)

// streams counts the change streams.
type streams struct {
	ended   chan struct{} // closed when the server stops
	endOnce sync.Once

	mu      sync.Mutex // guards what follows
	open    int
	byToken map[string]int
}

func newStreams() *streams { return &streams{ended: make(chan struct{}), byToken: map[string]int{}} }

func (s *streams) enter(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= maxStreams || s.byToken[id] >= maxTokenStreams {
		return false
	}
	s.open++
	s.byToken[id]++
	return true
}

func (s *streams) leave(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.byToken[id]--; s.byToken[id] == 0 {
		delete(s.byToken, id)
	}
}

// EndStreams ends the change streams, so that a server that stops need not wait
// for them. It may be called more than once.
func (h *Handler) EndStreams() { h.streams.endOnce.Do(func() { close(h.streams.ended) }) }

func (h *Handler) registerEvents() {
	op := huma.Operation{
		OperationID: "stream-events", Method: http.MethodGet, Path: "/v1/events", Tags: []string{"Audit"},
		Summary: "Follow the changes as they happen (server-sent events)",
		Description: "A text/event-stream: each event's data is a change as GET /v1/audit has it, its id the change's number. " +
			"A client that sends the last id it saw, as Last-Event-ID or after, misses nothing; 410 says that it was away for too long. " +
			"Without either the stream begins with the next change.",
		Parameters: []*huma.Param{
			{Name: "after", In: "query", Description: "Only changes after this one.", Schema: &huma.Schema{Type: huma.TypeInteger}},
			{Name: "Last-Event-ID", In: "header", Description: "The same, as browsers send it when they come back; it wins.", Schema: &huma.Schema{Type: huma.TypeString}},
		},
		Responses: map[string]*huma.Response{"200": {
			Description: "The changes", Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
		}},
	}
	h.addRaw(op, tenant, h.stream)
}

func (h *Handler) stream(w http.ResponseWriter, r *http.Request) {
	req := from(r.Context())
	after, err := h.streamStart(r, req)
	if err != nil {
		asProblem(err).write(w)
		return
	}
	if !h.streams.enter(req.who.id) {
		h.Refused(refusedStreams)
		problem(http.StatusTooManyRequests, codeBusy, "", "there are %d change streams already, or %d with this token; end one, or ask another node",
			maxStreams, maxTokenStreams).with("Retry-After", "10").write(w)
		return
	}
	defer h.streams.leave(req.who.id)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in between must not wait for the end
	s := &stream{w: w, control: http.NewResponseController(w), who: req.who, seq: after}
	// Not every writer (a test's) has deadlines. The server's own would end it.
	_ = s.control.SetReadDeadline(time.Time{})
	// With its place a client whose connection breaks before the first change misses none.
	if s.say(fmt.Sprintf("retry: 2000\nid: %d\n\n", s.seq)) != nil {
		return
	}
	for h.follow(r, s) {
	}
}

// streamStart is after which change a stream begins.
func (h *Handler) streamStart(r *http.Request, req *request) (uint64, error) {
	field, text := "after", r.URL.Query().Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		field, text = "Last-Event-ID", last
	}
	m := req.machine
	head, _ := m.AuditHead()
	if text == "" {
		return head, nil
	}
	after, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		return 0, invalid(field, "%q is not the number of a change", bounded(text))
	}
	ctx, cancel := context.WithTimeout(r.Context(), behindTime)
	defer cancel()
	for after > head {
		if h.replica.WaitApplied(ctx, m.Index()+1) != nil {
			return 0, problem(http.StatusGone, codeGone, field,
				"change %d is not known here, the last one is %d; where the state was restored from a backup, read it anew and go on after that", after, head)
		}
		m = h.replica.Machine()
		head, _ = m.AuditHead()
	}
	if dropped, _ := m.AuditBase(); after < dropped {
		return 0, forgotten(field, after, dropped)
	}
	return after, nil
}

// stream is one client that follows the changes.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	who     identity
	seq     uint64 // the last change seen, the client's or not
}

func (s *stream) say(text string) error {
	_ = s.control.SetWriteDeadline(time.Now().Add(streamWrite))
	if _, err := s.w.Write([]byte(text)); err != nil {
		return err
	}
	return s.control.Flush()
}

// follow writes what is new and waits for more; false ends the stream. A client
// that is too slow, or whose history is another now, is told when it comes back.
func (h *Handler) follow(r *http.Request, s *stream) bool {
	m := h.replica.Machine()
	if _, problem := identify(m, r, h.config.Now()); problem != nil {
		return false // the token was revoked, or has expired
	}
	dropped, _ := m.AuditBase()
	if head, _ := m.AuditHead(); s.seq < dropped || s.seq > head {
		return false
	}
	text, some := "", 0
	for e := range m.Audit(s.seq) {
		s.seq = e.Seq
		if s.who.sees(e.Tenant) {
			data, err := json.Marshal(viewChange(m, s.who, e))
			if err != nil {
				return false
			}
			text += fmt.Sprintf("id: %d\ndata: %s\n\n", e.Seq, data)
		}
		if some++; some == streamBatch {
			break
		}
	}
	if text != "" && s.say(text) != nil {
		return false
	}
	if some == streamBatch {
		return r.Context().Err() == nil
	}
	return h.rest(r, s, m.Index()+1)
}

// rest waits for an index, or until it is time to say that the stream lives. What
// it says moves the client's place on, past changes that are others'.
func (h *Handler) rest(r *http.Request, s *stream, index uint64) bool {
	ctx, cancel := context.WithTimeout(r.Context(), h.config.Heartbeat)
	defer cancel()
	applied := make(chan error, 1)
	go func() { applied <- h.replica.WaitApplied(ctx, index) }()
	select {
	case err := <-applied:
		if r.Context().Err() != nil {
			return false
		}
		return err == nil || s.say(fmt.Sprintf(": still here\nid: %d\n\n", s.seq)) == nil
	case <-h.streams.ended:
		return false
	}
}
